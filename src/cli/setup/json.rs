//! Edits of JSON files in place: the parser says where things are, and an edit only puts text in, or takes text out.
//! So everything else stays byte for byte, which the editing half of the parser's crate does not promise: it breaks
//! objects of one line into many.

use jsonc_parser::ast::{self, ObjectPropName};
use jsonc_parser::common::Ranged;
use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast, parse_to_serde_value};
use serde_json::Value;

use super::document::Damage;

/// What a client accepts beyond JSON itself.
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

/// The whole document; an empty file is an empty object.
pub fn read(dialect: Dialect, text: &str) -> Result<Value, Damage> {
    let value: Option<Value> = parse_to_serde_value(text, &dialect.options()).map_err(damage)?;
    match value {
        None => Ok(Value::Object(Default::default())),
        Some(value @ Value::Object(_)) => Ok(value),
        Some(_) => Err(Damage { line: 1, column: 1, reason: "the whole file must be one object".into() }),
    }
}

/// Sets what lies at this path, and makes the objects on the way. A list that only grew is added to.
pub fn set(dialect: Dialect, text: &str, path: &[&str], value: &Value) -> Result<String, Damage> {
    let parsed = parse_to_ast(text, &CollectOptions::default(), &dialect.options()).map_err(damage)?;
    let style = Style::of(text);
    let Some(root) = &parsed.value else {
        let line = style.newline;
        return Ok(style.value(&nested(path, value), "") + line);
    };
    let (found, rest) = descend(root, path);
    if let [name, inner @ ..] = rest {
        let ast::Value::Object(object) = found else { return Err(not_an_object(text, found, path)) };
        let piece = Piece::Property((*name).to_owned(), nested(inner, value));
        return Ok(insert(text, &style, &Container::object(object), &piece));
    }
    if let (ast::Value::Array(array), Value::Array(wanted)) = (found, value)
        && array.elements.len() <= wanted.len()
        && array.elements.iter().zip(wanted).all(|(old, new)| plain(text, old, dialect).as_ref() == Some(new))
    {
        let mut text = text.to_owned();
        for element in &wanted[array.elements.len()..] {
            text = append(dialect, &text, path, element)?;
        }
        return Ok(text);
    }
    let range = found.range();
    let indent = indent_of_line(text, range.start);
    Ok(splice(text, &[(range.start, range.end, style.value(value, indent))]))
}

/// Takes out what lies at this path. Nothing there: nothing is changed.
pub fn remove(dialect: Dialect, text: &str, path: &[&str]) -> Result<String, Damage> {
    let parsed = parse_to_ast(text, &CollectOptions::default(), &dialect.options()).map_err(damage)?;
    let Some((name, parents)) = path.split_last() else { return Ok(text.to_owned()) };
    let found = parsed.value.as_ref().map(|root| descend(root, parents));
    let Some((ast::Value::Object(object), [])) = found else { return Ok(text.to_owned()) };
    let at = object.properties.iter().position(|property| is_named(&property.name, name));
    Ok(at.map_or_else(|| text.to_owned(), |at| take_out(text, &Container::object(object), at)))
}

/// Takes this element out of a list of texts.
pub fn remove_element(dialect: Dialect, text: &str, path: &[&str], element: &str) -> Result<String, Damage> {
    let parsed = parse_to_ast(text, &CollectOptions::default(), &dialect.options()).map_err(damage)?;
    let found = parsed.value.as_ref().map(|root| descend(root, path));
    let Some((ast::Value::Array(array), [])) = found else { return Ok(text.to_owned()) };
    let is_it = |value: &ast::Value| matches!(value, ast::Value::StringLit(literal) if literal.value == element);
    let at = array.elements.iter().position(is_it);
    Ok(at.map_or_else(|| text.to_owned(), |at| take_out(text, &Container::array(array), at)))
}

fn append(dialect: Dialect, text: &str, path: &[&str], element: &Value) -> Result<String, Damage> {
    let parsed = parse_to_ast(text, &CollectOptions::default(), &dialect.options()).map_err(damage)?;
    match parsed.value.as_ref().map(|root| descend(root, path)) {
        Some((ast::Value::Array(array), [])) => {
            Ok(insert(text, &Style::of(text), &Container::array(array), &Piece::Element(element.clone())))
        }
        _ => Ok(text.to_owned()),
    }
}

fn damage(error: jsonc_parser::errors::ParseError) -> Damage {
    Damage { line: error.line_display(), column: error.column_display(), reason: error.kind().to_string() }
}

fn not_an_object(text: &str, found: &ast::Value<'_>, path: &[&str]) -> Damage {
    Damage::at(text, found.range().start, format!("an object must stand here to hold {}", path.join(".")))
}

/// The deepest value on the path, and what of the path is not there.
fn descend<'a, 'p>(root: &'a ast::Value<'a>, path: &'p [&'p str]) -> (&'a ast::Value<'a>, &'p [&'p str]) {
    let mut found = root;
    for (at, name) in path.iter().enumerate() {
        let next = match found {
            ast::Value::Object(object) => object.properties.iter().find(|property| is_named(&property.name, name)),
            _ => None,
        };
        match next {
            Some(property) => found = &property.value,
            None => return (found, &path[at..]),
        }
    }
    (found, &[])
}

fn is_named(name: &ObjectPropName<'_>, wanted: &str) -> bool {
    match name {
        ObjectPropName::String(literal) => literal.value == wanted,
        ObjectPropName::Word(literal) => literal.value == wanted,
    }
}

fn nested(path: &[&str], value: &Value) -> Value {
    path.iter()
        .rev()
        .fold(value.clone(), |inner, name| Value::Object([((*name).to_owned(), inner)].into_iter().collect()))
}

fn plain(text: &str, value: &ast::Value<'_>, dialect: Dialect) -> Option<Value> {
    let range = value.range();
    parse_to_serde_value(&text[range.start..range.end], &dialect.options()).ok()?
}

/// Where an object or a list begins and ends, and what is in it.
struct Container {
    start: usize,
    end: usize,
    members: Vec<(usize, usize)>,
}

impl Container {
    fn object(object: &ast::Object<'_>) -> Self {
        let members = object.properties.iter().map(|it| (it.range.start, it.range.end)).collect();
        Self { start: object.range.start, end: object.range.end, members }
    }

    fn array(array: &ast::Array<'_>) -> Self {
        let members = array.elements.iter().map(|it| (it.range().start, it.range().end)).collect();
        Self { start: array.range.start, end: array.range.end, members }
    }
}

enum Piece {
    Property(String, Value),
    Element(Value),
}

impl Piece {
    fn text(&self, style: &Style, indent: &str) -> String {
        match self {
            Piece::Property(name, value) => {
                format!("{}:{}{}", Value::from(name.as_str()), style.space, style.value(value, indent))
            }
            Piece::Element(value) => style.value(value, indent),
        }
    }
}

/// How this file is written.
struct Style {
    /// One level of indentation; `None`: all is on one line.
    unit: Option<String>,
    newline: &'static str,
    /// After a colon, and after a comma on the same line.
    space: &'static str,
}

impl Style {
    fn of(text: &str) -> Self {
        let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
        let space = if text.contains("\":\"") || text.contains("\":{") { "" } else { " " };
        let first = text.lines().skip(1).find(|line| line.starts_with([' ', '\t']) && !line.trim().is_empty());
        let unit = first.map_or("  ", |line| &line[..line.len() - line.trim_start().len()]);
        let one_line = !text.trim().contains('\n') && text.trim().len() > "{}".len();
        Self { unit: (!one_line).then(|| unit.to_owned()), newline, space }
    }

    fn value(&self, value: &Value, indent: &str) -> String {
        let deeper = self.unit.as_ref().map(|unit| format!("{indent}{unit}"));
        let inner = deeper.as_deref().unwrap_or_default();
        let (open, members, close) = match value {
            Value::Object(map) if !map.is_empty() => {
                let member = |(name, value): (&String, &Value)| {
                    format!("{}:{}{}", Value::from(name.as_str()), self.space, self.value(value, inner))
                };
                ("{", map.iter().map(member).collect::<Vec<_>>(), "}")
            }
            Value::Array(list) if !list.is_empty() => {
                ("[", list.iter().map(|value| self.value(value, inner)).collect(), "]")
            }
            plain => return plain.to_string(),
        };
        match deeper {
            // A list of texts is read at one glance.
            Some(deeper) if open == "{" => {
                let line = self.newline;
                let members = members.join(&format!(",{line}{deeper}"));
                format!("{open}{line}{deeper}{members}{line}{indent}{close}")
            }
            _ => format!("{open}{}{close}", members.join(&format!(",{}", self.space))),
        }
    }
}

/// Behind the last member, and behind what is noted on its line.
fn insert(text: &str, style: &Style, container: &Container, piece: &Piece) -> String {
    let inside = container.end - 1;
    let outer = indent_of_line(text, container.start);
    let Some(&(start, end)) = container.members.last() else {
        return insert_the_first(text, style, container, piece);
    };
    // Where the members have no lines of their own, ours gets none either.
    let own_line = text[..start].rfind('\n').filter(|line| text[*line..start].trim().is_empty());
    let trailing = comma_after(text, end, inside);
    let Some(_) = own_line else {
        let one_line = Style { unit: None, newline: style.newline, space: style.space };
        let piece = piece.text(&one_line, outer);
        let at = trailing.map_or(end, |comma| comma + 1);
        let added =
            if trailing.is_some() { format!("{}{piece},", style.space) } else { format!(",{}{piece}", style.space) };
        return splice(text, &[(at, at, added)]);
    };
    let indent = indent_of_line(text, start);
    let piece = piece.text(style, indent);
    let at = end_of_line_notes(text, trailing.map_or(end, |comma| comma + 1), inside);
    let body = format!("{}{indent}{piece}", style.newline);
    match trailing {
        Some(_) => splice(text, &[(at, at, body + ",")]),
        None => splice(text, &[(end, end, ",".into()), (at, at, body)]),
    }
}

fn insert_the_first(text: &str, style: &Style, container: &Container, piece: &Piece) -> String {
    let (after, inside) = (container.start + 1, container.end - 1);
    let outer = indent_of_line(text, container.start);
    let Some(unit) = &style.unit else { return splice(text, &[(after, after, piece.text(style, ""))]) };
    if matches!(piece, Piece::Element(_)) {
        return splice(text, &[(after, after, piece.text(style, ""))]);
    }
    let indent = format!("{outer}{unit}");
    let body = format!("{}{indent}{}", style.newline, piece.text(style, &indent));
    match text[after..inside].trim().is_empty() {
        true => splice(text, &[(after, inside, format!("{body}{}{outer}", style.newline))]),
        // Comments stay, and one that a line begins with must not swallow ours.
        false => splice(text, &[(after, after, body)]),
    }
}

/// The reverse of [`insert`].
fn take_out(text: &str, container: &Container, at: usize) -> String {
    let (start, end) = container.members[at];
    let inside = container.end - 1;
    let before = text[..start].trim_end_matches([' ', '\t', '\r', '\n']).len();
    let comma = comma_after(text, end, inside);
    let previous = at.checked_sub(1).map(|at| container.members[at]);
    if container.members.len() == 1 {
        let until = comma.map_or(end, |comma| comma + 1);
        let empty = text[until..inside].trim().is_empty() && before == container.start + 1;
        let until = if empty { inside } else { until };
        return splice(text, &[(before, until, String::new())]);
    }
    match (comma, previous) {
        (Some(comma), Some(_)) => splice(text, &[(before, comma + 1, String::new())]),
        // The first on a line of others: what follows moves up to the bracket.
        (Some(comma), None) if !text[comma..container.members[at + 1].0].contains('\n') => {
            splice(text, &[(start, container.members[at + 1].0, String::new())])
        }
        (Some(comma), None) => splice(text, &[(before, comma + 1, String::new())]),
        (None, Some((_, ended))) => {
            let gone = comma_after(text, ended, start).map(|comma| (comma, comma + 1, String::new()));
            let ours = (before.max(gone.as_ref().map_or(0, |gone| gone.1)), end, String::new());
            splice(text, &gone.into_iter().chain([ours]).collect::<Vec<_>>())
        }
        (None, None) => text.to_owned(),
    }
}

/// Each part is replaced; they lie in order.
fn splice(text: &str, parts: &[(usize, usize, String)]) -> String {
    let mut result = String::with_capacity(text.len() + 512);
    let mut done = 0;
    for (start, end, new) in parts {
        result.push_str(&text[done..*start]);
        result.push_str(new);
        done = *end;
    }
    result + &text[done..]
}

fn indent_of_line(text: &str, at: usize) -> &str {
    let line = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let content = &text[line..at];
    &content[..content.len() - content.trim_start_matches([' ', '\t']).len()]
}

/// The next comma that is in no comment, if nothing else comes before it.
fn comma_after(text: &str, mut at: usize, limit: usize) -> Option<usize> {
    loop {
        at = limit.min(limit - text[at..limit].trim_start().len());
        let rest = &text[at..limit];
        if rest.starts_with(',') {
            return Some(at);
        }
        at += length_of_comment(rest)?;
    }
}

fn length_of_comment(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        Some(rest.find('\n').unwrap_or(rest.len()))
    } else if rest.starts_with("/*") {
        Some(rest.find("*/").map_or(rest.len(), |end| end + 2))
    } else {
        None
    }
}

/// Behind the comments that follow on the same line.
fn end_of_line_notes(text: &str, from: usize, limit: usize) -> usize {
    let mut end = from;
    loop {
        let blank = text[end..limit].len() - text[end..limit].trim_start_matches([' ', '\t']).len();
        let rest = &text[end + blank..limit];
        match length_of_comment(rest) {
            Some(length) => end += blank + rest[..length].trim_end_matches('\r').len(),
            None => return end,
        }
    }
}
