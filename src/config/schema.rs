//! The JSON schema of the settings file, for editors. It is generated from the types that parse the file, so both
//! accept the same names and types. It lacks the rules that only [`Settings::parse`] can check (placeholders, models,
//! pairs of settings).
//!
//! It uses draft 7, which Taplo and Even Better TOML support.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use super::Settings;

/// Name of the file with the schema, beside the settings file.
pub const SCHEMA_FILE: &str = "config.schema.json";
/// The line of a settings file that names its schema.
pub const SCHEMA_LINE: &str = "#:schema ./config.schema.json";

const MARK: &str = "Written by orchestrator-boss";

/// Returns the schema as the text of a file. The same version always returns the same text.
pub fn schema_text() -> String {
    let text = serde_json::to_string_pretty(&schema()).expect("a map with names as keys is JSON");
    format!("{text}\n")
}

/// Returns whether a file with this text was written by this program, in any version.
pub fn is_our_schema(text: &str) -> bool {
    let schema: Option<Value> = serde_json::from_str(text).ok();
    schema.is_some_and(|schema| schema["$comment"].as_str().is_some_and(|comment| comment.starts_with(MARK)))
}

pub(super) fn schema() -> Value {
    let types = SchemaSettings::draft07().into_generator().into_root_schema_for::<Settings>().to_value();
    let comment = format!("{MARK} {}, which replaces it with each version.", env!("CARGO_PKG_VERSION"));
    let mut schema = Map::new();
    schema.insert("$schema".to_owned(), types["$schema"].clone());
    schema.insert("$comment".to_owned(), comment.into());
    schema.insert("title".to_owned(), "Settings of orchestrator-boss".into());
    for (keyword, value) in types.as_object().into_iter().flatten() {
        // The description of the root is for readers of the sources.
        if !schema.contains_key(keyword) && keyword != "description" {
            schema.insert(keyword.clone(), value.clone());
        }
    }
    let mut schema = Value::Object(schema);
    tidy(&mut schema);
    schema
}

/// Removes parts without a meaning in TOML: `null`, which stands for an omitted setting, and the formats of Rust's
/// number types. Joins the lines of descriptions.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Array(parts) => parts.iter_mut().for_each(tidy),
        Value::Object(keywords) => {
            keywords.shift_remove("format");
            match keywords.shift_remove("default").map(set_values) {
                None | Some(Value::Null) => {}
                Some(default) => drop(keywords.insert("default".to_owned(), default)),
            }
            if let Some(Value::Array(types)) = keywords.get_mut("type") {
                types.retain(|kind| kind != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    keywords.insert("type".to_owned(), only);
                }
            }
            if let Some(Value::String(description)) = keywords.get_mut("description") {
                *description = description.split_whitespace().collect::<Vec<_>>().join(" ");
            }
            // A default is a value, not a schema.
            keywords.iter_mut().filter(|(keyword, _)| *keyword != "default").for_each(|(_, part)| tidy(part));
        }
        _ => {}
    }
}

/// Removes the unset settings from a default.
fn set_values(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let set = fields.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(set.map(|(name, value)| (name, set_values(value))).collect())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests;
