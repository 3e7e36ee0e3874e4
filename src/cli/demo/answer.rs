//! Reads the tools' answers, which are plain JSON for a boss.

use serde_json::Value;

/// Returns the string at a JSON pointer, or an empty one.
pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Returns the items of the array at a JSON pointer, or none.
pub fn items<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

pub fn worker_id(value: &Value) -> &str {
    text(value, "/worker_id")
}
