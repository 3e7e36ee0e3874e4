//! Edits JSON files in place, through the parser's own syntax tree, which keeps comments and formatting. It breaks a
//! one-line object that gets a new member into several lines.

use jsonc_parser::cst::{CstInputValue, CstNode, CstObject, CstRootNode};
use jsonc_parser::{ParseOptions, parse_to_serde_value};
use serde_json::Value;

use super::syntax_error::SyntaxError;

/// The extensions of JSON that a client accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dialect {
    pub comments: bool,
    pub trailing_commas: bool,
}

impl Dialect {
    fn options(self) -> ParseOptions {
        ParseOptions {
            allow_comments: self.comments,
            allow_trailing_commas: self.trailing_commas,
            allow_loose_object_property_names: false,
            allow_missing_commas: false,
            allow_single_quoted_strings: false,
            allow_hexadecimal_numbers: false,
            allow_unary_plus_numbers: false,
            allow_bare_decimal_point_numbers: false,
            allow_non_finite_numbers: false,
            allow_extended_string_escapes: false,
        }
    }
}

/// Returns the whole document; an empty file is an empty object.
pub fn read(dialect: Dialect, text: &str) -> Result<Value, SyntaxError> {
    let value: Option<Value> = parse_to_serde_value(text, &dialect.options()).map_err(syntax_error)?;
    match value {
        None => Ok(Value::Object(Default::default())),
        Some(value @ Value::Object(_)) => Ok(value),
        Some(_) => Err(SyntaxError { line: 1, column: 1, reason: "the whole file must be one object".into() }),
    }
}

/// Sets the value at this path and creates the objects on the way. A list that only grew is appended to.
pub fn set(dialect: Dialect, text: &str, path: &[&str], value: &Value) -> Result<String, SyntaxError> {
    let Some((name, parents)) = path.split_last() else { return Ok(text.to_owned()) };
    let root = parse(dialect, text)?;
    let mut object = root.object_value_or_create().ok_or_else(|| not_an_object(text, name))?;
    for parent in parents {
        object = object.object_value_or_create(parent).ok_or_else(|| not_an_object(text, parent))?;
    }
    let Some(property) = object.get(name) else {
        object.append(name, input(value));
        return Ok(root.to_string());
    };
    match (property.array_value(), value) {
        (Some(list), Value::Array(wanted)) if is_beginning(dialect, &list.elements(), wanted) => {
            wanted[list.elements().len()..].iter().for_each(|element| drop(list.append(input(element))));
        }
        _ => property.set_value(input(value)),
    }
    Ok(root.to_string())
}

/// Removes the value at this path, if there is one.
pub fn remove(dialect: Dialect, text: &str, path: &[&str]) -> Result<String, SyntaxError> {
    let Some((name, parents)) = path.split_last() else { return Ok(text.to_owned()) };
    let root = parse(dialect, text)?;
    if let Some(property) = object_at(&root, parents).and_then(|object| object.get(name)) {
        property.remove();
    }
    Ok(root.to_string())
}

pub fn remove_element(dialect: Dialect, text: &str, path: &[&str], element: &str) -> Result<String, SyntaxError> {
    let Some((name, parents)) = path.split_last() else { return Ok(text.to_owned()) };
    let root = parse(dialect, text)?;
    let list = object_at(&root, parents).and_then(|object| object.array_value(name));
    let is_wanted =
        |node: &CstNode| node.as_string_lit().is_some_and(|it| it.decoded_value().is_ok_and(|it| it == element));
    if let Some(found) = list.and_then(|list| list.elements().into_iter().find(is_wanted)) {
        found.remove();
    }
    Ok(root.to_string())
}

fn parse(dialect: Dialect, text: &str) -> Result<CstRootNode, SyntaxError> {
    CstRootNode::parse(text, &dialect.options()).map_err(syntax_error)
}

fn object_at(root: &CstRootNode, path: &[&str]) -> Option<CstObject> {
    path.iter().try_fold(root.object_value()?, |object, name| object.object_value(name))
}

fn is_beginning(dialect: Dialect, elements: &[CstNode], wanted: &[Value]) -> bool {
    let is_same = |(element, wanted): (&CstNode, &Value)| {
        parse_to_serde_value::<Value>(&element.to_string(), &dialect.options()).is_ok_and(|it| it == *wanted)
    };
    elements.len() <= wanted.len() && elements.iter().zip(wanted).all(is_same)
}

fn input(value: &Value) -> CstInputValue {
    match value {
        Value::Null => CstInputValue::Null,
        Value::Bool(it) => CstInputValue::Bool(*it),
        Value::Number(number) => CstInputValue::Number(number.to_string()),
        Value::String(text) => CstInputValue::String(text.clone()),
        Value::Array(list) => CstInputValue::Array(list.iter().map(input).collect()),
        Value::Object(members) => {
            CstInputValue::Object(members.iter().map(|(name, value)| (name.clone(), input(value))).collect())
        }
    }
}

fn syntax_error(error: jsonc_parser::errors::ParseError) -> SyntaxError {
    SyntaxError { line: error.line_display(), column: error.column_display(), reason: error.kind().to_string() }
}

fn not_an_object(text: &str, name: &str) -> SyntaxError {
    let at = text.find(&format!("\"{name}\"")).unwrap_or_default();
    SyntaxError::at(text, at, format!("{name} must be an object"))
}
