//! Schemas that the models of all clients accept: plain types, without references or alternatives.
//!
//! Anthropic and OpenAI refuse a root `oneOf`/`anyOf`. Gemini refuses `$ref` and type arrays. Codex turns `anyOf`
//! into a string and drops limits and defaults, so descriptions state those in words too.

use rmcp::model::JsonObject;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value;

/// Returns the schema of a tool's arguments.
pub(super) fn input<T: JsonSchema>() -> JsonObject {
    portable_object(settings().into_generator().into_root_schema_for::<T>().to_value())
}

/// Returns the schema of a tool's answer. Fields that may be left out are not required.
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
    if let Value::Object(object) = schema { object } else { JsonObject::new() }
}

/// Removes `null` from the types of optional fields, since they can be left out, and drops keywords that some client
/// does not know.
fn make_portable(schema: &mut Value) {
    let Value::Object(object) = schema else { return };
    for keyword in ["$schema", "title", "format", "default", "minimum"] {
        object.shift_remove(keyword);
    }
    if let Some(Value::String(description)) = object.get_mut("description") {
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

/// Removes the description of a field and of everything in it.
pub(super) fn remove_descriptions(field: &mut Value) {
    let Value::Object(object) = field else { return };
    object.shift_remove("description");
    if let Some(items) = object.get_mut("items") {
        remove_descriptions(items);
    }
    if let Some(Value::Object(properties)) = object.get_mut("properties") {
        properties.values_mut().for_each(remove_descriptions);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize, JsonSchema)]
    #[serde(rename_all = "snake_case")]
    enum Color {
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
    struct Arguments {
        name: String,
        /// A color.
        #[serde(default)]
        color: Option<Color>,
        /// An inner object.
        #[serde(default)]
        inner: Option<Inner>,
        #[serde(default)]
        list: Vec<Inner>,
    }

    #[test]
    fn optional_types_become_plain_types() {
        let inner = serde_json::json!({
            "type": "object",
            "properties": {"many": {"description": "How many, 1 to 9.", "type": "integer"}},
            "additionalProperties": false
        });
        let mut described = inner.clone();
        described["description"] = "An inner object.".into();
        let expected = serde_json::json!({
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "color": {"description": "A color.", "type": "string", "enum": ["red", "deep_blue"]},
                "inner": described,
                "list": {"type": "array", "items": inner}
            },
            "additionalProperties": false,
            "required": ["name"]
        });
        assert_eq!(Value::Object(input::<Arguments>()), expected);
    }
}
