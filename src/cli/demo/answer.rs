//! Reading the tools' answers, which are plain JSON to a boss.

use serde_json::Value;

/// The string at a JSON pointer, empty where there is none.
pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The items of an array at a JSON pointer, none where there is no array.
pub fn items<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

pub fn worker_id(value: &Value) -> &str {
    text(value, "/worker_id")
}
