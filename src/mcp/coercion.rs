//! Coerces arguments to the types of a tool's schema. Some clients send arrays, objects, numbers and booleans as JSON
//! text, a single value instead of a list, or the number of a worker instead of its name.
//!
//! A value without a clear meaning stays unchanged, and is later refused with the parameter's name. A text parameter
//! always stays a text.

use rmcp::model::JsonObject;
use serde_json::{Number, Value};

/// Text parameters that accept a number as a text without its quotes.
const NAMES: [&str; 6] = ["worker_id", "worker_ids", "task_id", "depends_on", "context_from", "request_id"];

/// Converts all parameters of an object to the types in its schema.
pub(super) fn coerce(arguments: &mut JsonObject, schema: &JsonObject) {
    let Some(Value::Object(properties)) = schema.get("properties") else { return };
    for (name, schema) in properties {
        if let (Some(value), Value::Object(schema)) = (arguments.get_mut(name), schema) {
            coerce_value(value, schema, NAMES.contains(&name.as_str()));
        }
    }
}

fn coerce_value(value: &mut Value, schema: &JsonObject, is_name: bool) {
    let kind = schema.get("type").and_then(Value::as_str).unwrap_or_default();
    if let Some(parsed) = value.as_str().and_then(|text| parse_as(text, kind)) {
        *value = parsed;
    }
    match (kind, &mut *value) {
        ("array", Value::Array(items)) => {
            if let Some(Value::Object(schema)) = schema.get("items") {
                items.iter_mut().for_each(|item| coerce_value(item, schema, is_name));
            }
        }
        ("array", Value::String(_) | Value::Object(_) | Value::Number(_)) => wrap_in_list(value, schema, is_name),
        ("object", Value::Object(object)) => coerce(object, schema),
        ("integer", Value::Number(number)) => {
            if let Some(whole) = whole(number) {
                *number = whole;
            }
        }
        ("string", Value::Number(number)) if is_name && (number.is_u64() || whole(number).is_some()) => {
            let number = whole(number).unwrap_or_else(|| number.clone());
            *value = Value::String(number.to_string());
        }
        _ => {}
    }
}

/// Parses a text as JSON, if the result has the parameter's type. `null` stands for a value that was left out.
fn parse_as(text: &str, kind: &str) -> Option<Value> {
    let text = text.trim();
    if kind == "boolean" {
        // Python writes `True` and `False`.
        return text.to_ascii_lowercase().parse().ok().map(Value::Bool);
    }
    let parsed: Value = serde_json::from_str(text).ok()?;
    let fits = match kind {
        "array" => parsed.is_array() || parsed.is_object() || parsed.is_null(),
        "object" => parsed.is_object() || parsed.is_null(),
        "integer" | "number" => parsed.is_number() || parsed.is_null(),
        _ => false,
    };
    fits.then_some(parsed)
}

/// Wraps a single element in a list, if it has the type of the list's items.
fn wrap_in_list(value: &mut Value, schema: &JsonObject, is_name: bool) {
    let Some(Value::Object(items)) = schema.get("items") else { return };
    let mut item = value.clone();
    coerce_value(&mut item, items, is_name);
    let fits = match items.get("type").and_then(Value::as_str) {
        Some("string") => item.as_str().is_some_and(|text| !text.trim().is_empty()),
        Some("object") => item.is_object(),
        _ => false,
    };
    if fits {
        *value = Value::Array(vec![item]);
    }
}

/// Converts a number such as `5.0` to a whole one. Some clients have only floating-point numbers.
fn whole(number: &Number) -> Option<Number> {
    /// The largest number below which every whole number has a floating-point form.
    const MAX: f64 = 9_007_199_254_740_992.0;
    let value = number.as_f64().filter(|value| number.is_f64() && value.fract() == 0.0)?;
    (0.0..=MAX).contains(&value).then(|| Number::from(value as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::tools;
    use proptest::prelude::*;
    use serde_json::json;

    fn schema(tool: &str) -> JsonObject {
        let tool = tools::definitions().iter().find(|it| it.name == tool).unwrap();
        tool.input_schema.as_ref().clone()
    }

    fn coerced(tool: &str, arguments: Value) -> Value {
        let Value::Object(mut arguments) = arguments else { panic!("an object is needed") };
        coerce(&mut arguments, &schema(tool));
        Value::Object(arguments)
    }

    /// Returns a valid value for any of our schemas.
    fn sample(name: &str, schema: &JsonObject) -> Value {
        match schema["type"].as_str().unwrap() {
            "array" => json!([sample(name, schema["items"].as_object().unwrap())]),
            "object" => {
                let properties = schema.get("properties").and_then(Value::as_object).unwrap();
                let fields =
                    properties.iter().map(|(name, schema)| (name.clone(), sample(name, schema.as_object().unwrap())));
                Value::Object(fields.collect())
            }
            "integer" => json!(3),
            "number" => json!(1.5),
            "boolean" => json!(true),
            _ => match schema.get("enum") {
                Some(Value::Array(choices)) => choices[0].clone(),
                _ => json!(format!("[\"a {name}\"]")),
            },
        }
    }

    /// Writes every value that is not a text as JSON text, from the inside out.
    fn stringified(value: &Value) -> Value {
        let inner = match value {
            Value::Array(items) => Value::Array(items.iter().map(stringified).collect()),
            Value::Object(fields) => {
                Value::Object(fields.iter().map(|(name, value)| (name.clone(), stringified(value))).collect())
            }
            Value::String(_) => return value.clone(),
            plain => plain.clone(),
        };
        Value::String(inner.to_string())
    }

    #[test]
    fn every_parameter_is_accepted_as_json_text() {
        let mut checked = 0;
        for tool in tools::definitions() {
            let schema = &tool.input_schema;
            let Some(Value::Object(properties)) = schema.get("properties") else { continue };
            for (name, property) in properties {
                let meant = sample(name, property.as_object().unwrap());
                for sent in [meant.clone(), stringified(&meant), stringified(&meant).to_string().parse().unwrap()] {
                    let value = coerced(&tool.name, json!({ name: sent }));
                    assert_eq!(value[name], meant, "{} {name}: {sent}", tool.name);
                }
                checked += 1;
            }
        }
        assert!(checked > 40, "{checked}");
    }

    #[test]
    fn values_with_a_clear_meaning_are_coerced() {
        for (tool, sent, meant) in [
            ("wait_for_any_worker", json!({"worker_ids": "w-3"}), json!({"worker_ids": ["w-3"]})),
            ("wait_for_any_worker", json!({"worker_ids": 3}), json!({"worker_ids": ["3"]})),
            ("wait_for_any_worker", json!({"worker_ids": [3, "w-4", 5.0]}), json!({"worker_ids": ["3", "w-4", "5"]})),
            ("wait_for_any_worker", json!({"worker_ids": "[3, \"w-4\"]"}), json!({"worker_ids": ["3", "w-4"]})),
            (
                "wait_for_worker",
                json!({"worker_id": 3, "timeout_seconds": "5.0"}),
                json!({"worker_id": "3", "timeout_seconds": 5}),
            ),
            ("wait_for_worker", json!({"timeout_seconds": " 30 "}), json!({"timeout_seconds": 30})),
            ("wait_for_worker", json!({"timeout_seconds": "null"}), json!({"timeout_seconds": null})),
            ("integrate_worker", json!({"dry_run": "true", "push": "False"}), json!({"dry_run": true, "push": false})),
            ("get_worker_status", json!({"include": "log"}), json!({"include": ["log"]})),
            ("get_worker_status", json!({"include": "[\"log\"]"}), json!({"include": ["log"]})),
            ("batch_create_workers", json!({"workers": {"title": "t"}}), json!({"workers": [{"title": "t"}]})),
            ("batch_create_workers", json!({"workers": "{\"title\": \"t\"}"}), json!({"workers": [{"title": "t"}]})),
            (
                "batch_create_workers",
                json!({"workers": ["{\"worktree\": \"{\\\"branch\\\": \\\"b\\\"}\", \"depends_on\": 1}"]}),
                json!({"workers": [{"worktree": {"branch": "b"}, "depends_on": ["1"]}]}),
            ),
            ("create_worker_mission", json!({"task_id": 7}), json!({"task_id": "7"})),
        ] {
            assert_eq!(coerced(tool, sent.clone()), meant, "{tool} {sent}");
        }
    }

    #[test]
    fn texts_and_unclear_values_stay_unchanged() {
        for (tool, sent) in [
            ("create_worker_mission", json!({"prompt": "[1, 2]", "title": "{\"a\": 1}", "verify_command": "true"})),
            ("send_message_to_worker", json!({"message": "null"})),
            ("cancel_worker", json!({"worker_id": "[\"w-3\"]", "reason": "3"})),
            ("create_worker_mission", json!({"title": 7, "prompt": true})),
            ("cancel_worker", json!({"worker_id": -3})),
            ("cancel_worker", json!({"worker_id": 3.5})),
            ("wait_for_worker", json!({"timeout_seconds": "soon"})),
            ("wait_for_worker", json!({"timeout_seconds": "1 2"})),
            ("wait_for_any_worker", json!({"worker_ids": ""})),
            ("wait_for_any_worker", json!({"worker_ids": true})),
            ("integrate_worker", json!({"dry_run": "yes", "push": 1})),
            ("batch_create_workers", json!({"workers": ["not a mission", 3]})),
            ("batch_create_workers", json!({"workers": "not a mission"})),
        ] {
            assert_eq!(coerced(tool, sent.clone()), sent, "{tool}");
        }
    }

    proptest! {
        #[test]
        fn text_parameters_stay_unchanged(text in any::<String>()) {
            for name in ["prompt", "title", "task_id", "verify_command"] {
                let sent = json!({ name: text });
                prop_assert_eq!(coerced("create_worker_mission", sent.clone()), sent);
            }
        }
    }
}
