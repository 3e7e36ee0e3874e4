//! Checks the arguments of a call. Each error names the field and the accepted values.
//!
//! The protocol library does not validate calls against their schema, so all checks are here. Checks that need anything
//! but the call (whether a branch exists, whether a backend has a model) belong to other rooms.

use rmcp::model::JsonObject;
use serde::de::DeserializeOwned;
use serde_json::Value;
use thiserror::Error;

use super::coercion;
use crate::backend::UnknownBackend;
use crate::mission::causes::in_plain_types;

/// Maximum size in bytes of an id, or of the name of a branch or model.
pub(super) const NAME: usize = 200;
/// Maximum size in bytes of a title.
pub(super) const TITLE: usize = 200;
/// Maximum size in bytes of a `task_id` or `request_id`.
pub(super) const KEY: usize = 100;
/// Maximum size in bytes of a command line or path.
pub(super) const LINE: usize = 8 * 1024;
/// Maximum size in bytes of a prompt or message.
pub(super) const PROMPT: usize = 1024 * 1024;

#[derive(Debug, Clone, PartialEq, Error)]
pub(super) enum ArgumentError {
    #[error("{message}")]
    Shape { message: String },
    #[error("{path}: {message}")]
    ShapeAt { path: String, message: String },
    #[error("{field} is empty: give a text, or omit it if it is optional")]
    Empty { field: &'static str },
    #[error("{field} is {is} bytes long, at most {max} are accepted: {advice}")]
    TooLong { field: &'static str, is: usize, max: usize, advice: &'static str },
    #[error("{field} contains the control character {character:?}: it must be one line of plain text")]
    Control { field: &'static str, character: char },
    #[error("{field} contains a NUL character: remove it")]
    Nul { field: &'static str },
    #[error("{field} {text:?} begins with a dash, like an option: choose another name")]
    Dash { field: &'static str, text: String },
    #[error("{field} is {is}: it must be from {least} to {max}")]
    Range { field: &'static str, is: String, least: u64, max: u64 },
    #[error("{one} and {other} exclude each other: give one of them")]
    Both { one: &'static str, other: &'static str },
    #[error("one of {choices} is required")]
    NoneOf { choices: &'static str },
    #[error(transparent)]
    Backend(#[from] UnknownBackend),
    #[error("max_cost_usd is {is}: it must be more than 0 and at most {max}")]
    Cost { is: f64, max: f64 },
    #[error("the argument {field} is missing: give the {field} as a text")]
    Missing { field: &'static str },
    #[error("cursor {0:?} is not from this tool: leave it out to start at the beginning")]
    Cursor(String),
}

type Result<T> = std::result::Result<T, ArgumentError>;

/// Names of other orchestrators for a parameter, and ours.
const ALIASES: [(&str, &str); 3] = [("mission_id", "worker_id"), ("mission_ids", "worker_ids"), ("content", "message")];

/// Returns the arguments of a call under our own names, each converted to the type in the tool's schema.
pub(super) fn normalize(mut arguments: JsonObject, schema: &JsonObject) -> JsonObject {
    let known = schema.get("properties").and_then(Value::as_object);
    for (alias, name) in ALIASES {
        if known.is_some_and(|known| known.contains_key(name))
            && !arguments.contains_key(name)
            && let Some(value) = arguments.shift_remove(alias)
        {
            arguments.insert(name.to_owned(), value);
        }
    }
    coercion::coerce(&mut arguments, schema);
    arguments
}

pub(super) fn parse<P: DeserializeOwned>(arguments: JsonObject) -> Result<P> {
    parse_value(Value::Object(arguments))
}

/// Parses one object within the arguments; paths in errors begin there.
pub(super) fn parse_value<P: DeserializeOwned>(mut value: Value) -> Result<P> {
    drop_nulls(&mut value);
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let message = in_plain_types(&error.into_inner().to_string());
        match path.as_str() {
            "." => ArgumentError::Shape { message },
            // The message already names the field.
            _ if message.starts_with("unknown field") && !path.contains(['.', '[']) => ArgumentError::Shape { message },
            _ => ArgumentError::ShapeAt { path, message },
        }
    })
}

/// Removes nulls, which models write for parameters that they leave out.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.retain(|_, value| !value.is_null());
            object.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// Checks one line: no control characters, and none that change the direction of text.
pub(super) fn line(field: &'static str, text: String, max: usize) -> Result<String> {
    let text = filled(field, text, max)?;
    match text.chars().find(|c| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')) {
        Some(character) => Err(ArgumentError::Control { field, character }),
        None => Ok(text.trim().to_owned()),
    }
}

/// Checks a line that becomes an argument of a program.
pub(super) fn name(field: &'static str, text: String) -> Result<String> {
    match line(field, text, NAME)? {
        text if text.starts_with('-') => Err(ArgumentError::Dash { field, text }),
        text => Ok(text),
    }
}

/// Checks a text that a program can take as an argument.
pub(super) fn text(field: &'static str, text: String, max: usize) -> Result<String> {
    let text = filled(field, text, max)?;
    if text.contains('\0') { Err(ArgumentError::Nul { field }) } else { Ok(text) }
}

fn filled(field: &'static str, text: String, max: usize) -> Result<String> {
    if text.trim().is_empty() {
        return Err(ArgumentError::Empty { field });
    }
    if text.len() > max {
        let advice = if max == PROMPT { "put long material into a file and name its path" } else { "shorten it" };
        return Err(ArgumentError::TooLong { field, is: text.len(), max, advice });
    }
    Ok(text)
}

pub(super) fn range(field: &'static str, value: u64, least: u64, max: u64) -> Result<u64> {
    if (least..=max).contains(&value) {
        Ok(value)
    } else {
        Err(ArgumentError::Range { field, is: value.to_string(), least, max })
    }
}

/// Applies a check to an optional field.
pub(super) fn optional<T, U>(value: Option<T>, check: impl FnOnce(T) -> Result<U>) -> Result<Option<U>> {
    value.map(check).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::schema;
    use schemars::JsonSchema;
    use serde::Deserialize;
    use serde_json::json;

    #[derive(Debug, PartialEq, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        count: u32,
    }

    #[derive(Debug, PartialEq, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Arguments {
        worker_id: String,
        #[serde(default)]
        list: Vec<Inner>,
    }

    fn parsed(arguments: Value) -> Result<Arguments> {
        let Value::Object(arguments) = arguments else { panic!("an object is needed") };
        let schema = schema::input::<Arguments>();
        parse(normalize(arguments, &schema))
    }

    #[test]
    fn errors_name_the_field_and_what_is_accepted() {
        let cases = [
            (json!({}), "missing field `worker_id`"),
            (json!({"worker_id": "w-1", "verify": 1}), "unknown field `verify`, expected `worker_id` or `list`"),
            (json!({"worker_id": true}), "worker_id: invalid type: boolean `true`, expected a string"),
            (
                json!({"worker_id": "w", "list": [{"count": 1}, {"count": "x"}]}),
                "list[1].count: invalid type: string \"x\", expected a whole number",
            ),
            (
                json!({"worker_id": "w", "list": ["x"]}),
                "list[0]: invalid type: string \"x\", expected an object with named fields",
            ),
            (json!({"worker_id": "w", "list": true}), "list: invalid type: boolean `true`, expected a list"),
            (
                json!({"worker_id": "w", "mission_ids": ["w"]}),
                "unknown field `mission_ids`, expected `worker_id` or `list`",
            ),
            (
                json!({"worker_id": "w", "list": [{"count": 1, "counts": 2}]}),
                "list[0].counts: unknown field `counts`, expected `count`",
            ),
        ];
        for (arguments, message) in cases {
            assert_eq!(parsed(arguments).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn aliases_and_nulls_are_accepted() {
        let expected = Ok(Arguments { worker_id: "w-1".into(), list: Vec::new() });
        assert_eq!(parsed(json!({"mission_id": "w-1", "list": null})), expected);
    }

    #[test]
    fn hostile_texts_are_refused_with_their_field() {
        assert_eq!(line("title", "  a b ".into(), TITLE).unwrap(), "a b");
        let refused = [
            line("title", " \n".into(), TITLE),
            line("title", "a\u{1b}[31m".into(), TITLE),
            line("title", "a\u{202e}b".into(), TITLE),
            line("title", "x".repeat(TITLE + 1), TITLE),
            name("branch", "--upload-pack=x".into()),
            text("prompt", "a\0b".into(), PROMPT),
        ];
        for result in refused {
            let message = result.unwrap_err().to_string();
            assert!(message.starts_with("title") || message.starts_with("branch") || message.starts_with("prompt"));
            assert!(message.len() < 300, "{message}");
        }
        assert_eq!(text("prompt", "a\nb".into(), PROMPT).unwrap(), "a\nb");
    }
}
