//! Schemas that every client's model accepts: plain types, nothing that refers or chooses.
//!
//! Anthropic and OpenAI refuse a root `oneOf`/`anyOf`, Gemini refuses `$ref` and type arrays, Codex turns `anyOf` into a
//! string and drops limits and defaults (so those are said in words too, in the fields' descriptions). Parameters and
//! answers therefore derive their schema, and it is made portable here.

use rmcp::model::JsonObject;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value;

/// What a tool takes.
pub(super) fn input<T: JsonSchema>() -> JsonObject {
    portable_object(settings().into_generator().into_root_schema_for::<T>().to_value())
}

/// What a tool answers: fields that may be left out are not required.
pub(super) fn output<T: JsonSchema>() -> JsonObject {
    portable_object(settings().for_serialize().into_generator().into_root_schema_for::<T>().to_value())
}

fn settings() -> SchemaSettings {
    SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    })
}

fn portable_object(mut schema: Value) -> JsonObject {
    make_portable(&mut schema);
    match schema {
        Value::Object(object) => object,
        _ => JsonObject::new(),
    }
}

/// Takes `null` out of what an optional field accepts (it may be left out instead, and a null is read as left out), and
/// drops the keywords that some client or other does not know.
fn make_portable(schema: &mut Value) {
    let Value::Object(object) = schema else { return };
    for keyword in ["$schema", "title", "format", "default", "minimum"] {
        object.shift_remove(keyword);
    }
    if let Some(Value::String(description)) = object.get_mut("description") {
        // A doc comment's lines.
        *description = description.replace('\n', " ");
    }
    if let Some(Value::Array(choices)) = object.shift_remove("anyOf") {
        let described = object.contains_key("description");
        let only = choices.into_iter().find(|choice| choice["type"] != "null");
        for (keyword, value) in only.as_ref().and_then(Value::as_object).into_iter().flatten() {
            if !(described && keyword == "description") {
                object.insert(keyword.clone(), value.clone());
            }
        }
    }
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|kind| kind != "null");
        let only = types.pop();
        object.insert("type".to_owned(), only.unwrap_or_default());
    }
    if let Some(Value::Array(values)) = object.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
    if let Some(items) = object.get_mut("items") {
        make_portable(items);
    }
    if let Some(Value::Object(properties)) = object.get_mut("properties") {
        properties.values_mut().for_each(make_portable);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize, JsonSchema)]
    #[serde(rename_all = "snake_case")]
    enum Colour {
        Red,
        DeepBlue,
    }

    #[derive(Serialize, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        /// How many, 1 to 9.
        many: Option<u32>,
    }

    #[derive(Serialize, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Probe {
        name: String,
        /// Which.
        #[serde(default)]
        colour: Option<Colour>,
        /// Within.
        #[serde(default)]
        inner: Option<Inner>,
        #[serde(default)]
        list: Vec<Inner>,
    }

    #[test]
    fn optional_enums_structs_and_numbers_become_plain_types() {
        let inner = serde_json::json!({
            "type": "object",
            "properties": {"many": {"description": "How many, 1 to 9.", "type": "integer"}},
            "additionalProperties": false
        });
        let mut described = inner.clone();
        described["description"] = "Within.".into();
        let expected = serde_json::json!({
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "colour": {"description": "Which.", "type": "string", "enum": ["red", "deep_blue"]},
                "inner": described,
                "list": {"type": "array", "items": inner}
            },
            "additionalProperties": false,
            "required": ["name"]
        });
        assert_eq!(Value::Object(input::<Probe>()), expected);
    }
}
