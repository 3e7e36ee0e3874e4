//! Checks the arguments of a call. Each error names the field and the accepted values.
//!
//! The protocol library does not validate calls against their schema, so all checks are here. Checks that need anything
//! but the call (whether a branch exists, whether a backend has a model) belong to other rooms.

use rmcp::model::JsonObject;
use serde::de::DeserializeOwned;
use serde_json::Value;
use thiserror::Error;

use super::coercion;
use crate::config::UnknownProfile;
use crate::config::fields::{self, FieldError};
pub(super) use crate::config::fields::{LINE, NAME, PROMPT};
use crate::mission::causes::in_plain_types;
use crate::mission::hint::with_hints;

/// Maximum size in bytes of a title.
pub(super) const TITLE: usize = 200;
/// Maximum size in bytes of a `task_id` or `request_id`.
pub(super) const KEY: usize = 100;
#[derive(Debug, Clone, PartialEq, Error)]
pub(super) enum ArgumentError {
    #[error("{message}")]
    Shape { message: String },
    #[error("{path}: {message}")]
    ShapeAt { path: String, message: String },
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error("{one} and {other} exclude each other: give one of them")]
    Both { one: &'static str, other: &'static str },
    #[error("one of {choices} is required")]
    NoneOf { choices: &'static str },
    #[error("{}", with_hints(.0))]
    Profile(UnknownProfile),
    #[error("backend is missing: give one of {backends}{profiles}")]
    NoBackend { backends: String, profiles: String },
    #[error("the argument decision is missing: give allow, deny or the id of a choice")]
    NoDecision,
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

/// Checks one line, as [`fields::line`] does.
pub(super) fn line(field: &'static str, text: String, max: usize) -> Result<String> {
    Ok(fields::line(field, text, max)?)
}

/// Checks a line that becomes an argument of a program.
pub(super) fn name(field: &'static str, text: String) -> Result<String> {
    Ok(fields::name(field, text)?)
}

/// Checks a text that a program can take as an argument.
pub(super) fn text(field: &'static str, text: String, max: usize) -> Result<String> {
    Ok(fields::text(field, text, max)?)
}

pub(super) fn range(field: &'static str, value: u64, least: u64, max: u64) -> Result<u64> {
    Ok(fields::range(field, value, least, max)?)
}

/// Returns the error of an empty list.
pub(super) fn empty(field: &'static str) -> ArgumentError {
    FieldError::Empty { field }.into()
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
