//! The messages of JSON-RPC that go to and from an agent, one on each line. Nothing here knows the state of a session.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Value, json};

/// Maximum size in bytes of the id of an agent's request. A longer one would be copied into each answer.
const ID_LIMIT: usize = 1024;

/// A message of the agent. An answer is what has no method, since the ids of both sides overlap.
#[derive(Debug)]
pub enum Message<'a> {
    Request {
        id: &'a Value,
        method: &'a str,
        params: &'a Value,
    },
    Notification {
        method: &'a str,
        params: &'a Value,
    },
    Answer {
        id: &'a Value,
        result: Result<&'a Value, &'a Value>,
    },
    /// A JSON object that is none of these.
    Unknown,
}

impl<'a> Message<'a> {
    pub fn of(object: &'a Value) -> Self {
        let params = &object["params"];
        match (object.get("method").and_then(Value::as_str), object.get("id")) {
            (Some(method), Some(id)) if is_id(id) => Self::Request { id, method, params },
            (Some(method), None) => Self::Notification { method, params },
            (None, Some(id)) => {
                let error = object.get("error").filter(|error| !error.is_null());
                Self::Answer { id, result: error.map_or(Ok(&object["result"]), Err) }
            }
            _ => Self::Unknown,
        }
    }
}

fn is_id(id: &Value) -> bool {
    match id {
        Value::Null | Value::Number(_) => true,
        Value::String(text) => text.len() <= ID_LIMIT,
        _ => false,
    }
}

/// Returns the line of a request.
pub fn request(id: u64, method: &str, params: Value) -> String {
    line(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}))
}

/// Returns the line of a notification.
pub fn notification(method: &str, params: Value) -> String {
    line(&json!({"jsonrpc": "2.0", "method": method, "params": params}))
}

/// Returns the line of an answer to the agent's request with this id.
pub fn answer(id: &Value, result: Value) -> String {
    line(&json!({"jsonrpc": "2.0", "id": id, "result": result}))
}

/// Returns the line of the answer to a request that this client does not offer.
pub fn method_not_found(id: &Value) -> String {
    line(&json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "Method not found"}}))
}

fn line(message: &Value) -> String {
    format!("{message}\n")
}

/// The beginning of a request whose line is damaged. Agents write the id and the method first.
#[derive(Debug, Default)]
pub struct RequestHead {
    id: Option<Value>,
    method: Option<String>,
}

impl RequestHead {
    /// Returns id and method of a request of which only the beginning can be read.
    pub fn read(line: &str) -> Option<(Value, String)> {
        let mut head = Self::default();
        let mut reader = serde_json::Deserializer::from_str(line.trim_start());
        // Fails at the damaged part, after the fields before it were read.
        let _ = (&mut head).deserialize(&mut reader);
        head.id.filter(is_id).zip(head.method)
    }
}

impl<'de> DeserializeSeed<'de> for &mut RequestHead {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &mut RequestHead {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a request")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "id" => self.id = Some(map.next_value()?),
                "method" => self.method = Some(map.next_value()?),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_of_cut_request_has_id_and_method() {
        let cut = r#"{"jsonrpc":"2.0","id":"a-1","method":"fs/read_text_file","params":{"path":"/a"#;
        assert_eq!(RequestHead::read(cut), Some((json!("a-1"), "fs/read_text_file".to_owned())));
        assert_eq!(RequestHead::read(r#"{"jsonrpc":"2.0","id":7,"result":{"a":"#), None);
        assert_eq!(RequestHead::read("no json"), None);
    }

    #[test]
    fn answer_is_what_has_no_method() {
        let object = json!({"jsonrpc": "2.0", "id": 0, "error": {"code": -32601}});
        assert!(matches!(Message::of(&object), Message::Answer { result: Err(_), .. }));
        let object = json!({"jsonrpc": "2.0", "id": 0, "method": "x"});
        assert!(matches!(Message::of(&object), Message::Request { .. }));
        assert!(matches!(Message::of(&json!({"id": [1], "method": "x"})), Message::Unknown));
    }
}
