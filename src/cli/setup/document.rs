//! Edits a client's settings as text: reads, sets or removes one value. Each edit is checked before it is returned:
//! nothing else in the text may change.

use serde_json::{Map, Value};
use similar::{Algorithm, DiffTag};

use super::syntax_error::SyntaxError;
use super::{json, toml};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Json(json::Dialect),
    Toml,
}

const BYTE_ORDER_MARK: char = '\u{feff}';

impl Format {
    pub fn get(self, text: &str, path: &[&str]) -> Result<Option<Value>, SyntaxError> {
        let mut found = self.read(text)?;
        for name in path {
            match found.get_mut(name) {
                Some(inner) => found = inner.take(),
                None => return Ok(None),
            }
        }
        Ok(Some(found))
    }

    pub fn set(self, text: &str, path: &[&str], value: &Value) -> Result<String, SyntaxError> {
        let edit = |body: &str| match self {
            Format::Json(dialect) => json::set(dialect, body, path, value),
            Format::Toml => toml::set(body, path, value).map(|edited| with_line_ends_of(body, &edited)),
        };
        self.edited(text, edit, |whole| put(whole, path, value.clone()))
    }

    pub fn remove(self, text: &str, path: &[&str]) -> Result<String, SyntaxError> {
        let edit = |body: &str| match self {
            Format::Json(dialect) => json::remove(dialect, body, path),
            Format::Toml => toml::remove(body, path).map(|edited| with_line_ends_of(body, &edited)),
        };
        self.edited(text, edit, |whole| take(whole, path))
    }

    /// Removes a string from a list of strings. Only JSON files have such a list of ours.
    pub fn remove_element(self, text: &str, path: &[&str], element: &str) -> Result<String, SyntaxError> {
        let Format::Json(dialect) = self else { return Ok(text.to_owned()) };
        let edit = |body: &str| json::remove_element(dialect, body, path, element);
        self.edited(text, edit, |whole| {
            if let Some(list) = whole.pointer_mut(&pointer(path)).and_then(Value::as_array_mut)
                && let Some(at) = list.iter().position(|it| it == element)
            {
                list.remove(at);
            }
        })
    }

    fn read(self, text: &str) -> Result<Value, SyntaxError> {
        let body = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
        match self {
            Format::Json(dialect) => json::read(dialect, body),
            Format::Toml => toml::read(body),
        }
    }

    /// Applies an edit and refuses any unintended change. A name that occurs twice in an object causes one.
    fn edited(
        self,
        text: &str,
        edit: impl FnOnce(&str) -> Result<String, SyntaxError>,
        meant: impl FnOnce(&mut Value),
    ) -> Result<String, SyntaxError> {
        let mut expected = self.read(text)?;
        let body = text.strip_prefix(BYTE_ORDER_MARK);
        let mark = body.map_or(String::new(), |_| BYTE_ORDER_MARK.to_string());
        let edited = mark + &edit(body.unwrap_or(text))?;
        meant(&mut expected);
        if without_empty(self.read(&edited)?) == without_empty(expected) {
            return Ok(edited);
        }
        let reason = "cannot edit this file safely: does a name occur twice in it?".into();
        Err(SyntaxError { line: 1, column: 1, reason })
    }
}

/// Removes empty objects, since a TOML table may come and go with its content.
fn without_empty(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let members = members.into_iter().map(|(name, value)| (name, without_empty(value)));
            Value::Object(members.filter(|(_, value)| value != &Value::Object(Map::new())).collect())
        }
        value => value,
    }
}

fn put(whole: &mut Value, path: &[&str], value: Value) {
    let mut place = whole;
    for name in path {
        if !place.is_object() {
            return;
        }
        place = &mut place[*name];
        if place.is_null() {
            *place = Value::Object(Map::new());
        }
    }
    *place = value;
}

fn take(whole: &mut Value, path: &[&str]) {
    let Some((name, parents)) = path.split_last() else { return };
    if let Some(parent) = whole.pointer_mut(&pointer(parents)).and_then(Value::as_object_mut) {
        parent.shift_remove(*name);
    }
}

fn pointer(path: &[&str]) -> String {
    path.iter().map(|name| format!("/{}", name.replace('~', "~0").replace('/', "~1"))).collect()
}

/// Restores the line ends of a text that was edited with `\n` at the end of each line.
fn with_line_ends_of(before: &str, edited: &str) -> String {
    let newline = if before.contains("\r\n") { "\r\n" } else { "\n" };
    let old: Vec<&str> = before.split_inclusive('\n').collect();
    let old_content: Vec<&str> = old.iter().map(|line| content(line)).collect();
    let new: Vec<&str> = edited.split_inclusive('\n').map(content).collect();
    let mut result = String::with_capacity(edited.len());
    for change in similar::capture_diff_slices(Algorithm::Myers, &old_content, &new) {
        match change.tag() {
            DiffTag::Equal => change.old_range().for_each(|at| {
                result.push_str(old[at]);
                // It was the last line.
                if !old[at].ends_with('\n') {
                    result.push_str(newline);
                }
            }),
            _ => change.new_range().for_each(|at| {
                result.push_str(new[at]);
                result.push_str(newline);
            }),
        }
    }
    if !before.is_empty() && !before.ends_with('\n') {
        result.truncate(result.trim_end_matches(['\r', '\n']).len());
    }
    result
}

fn content(line: &str) -> &str {
    line.strip_suffix('\n').map_or(line, |line| line.strip_suffix('\r').unwrap_or(line))
}
