//! Edits TOML files in place. The library keeps comments and order, but writes every line end as `\n` and adds one to
//! the last line: `document.rs` restores those of the file.

use std::ops::Range;

use serde_json::Value;
use toml_edit::{Array, Document, DocumentMut, InlineTable, Item, Table, TableLike, TomlError};

use super::syntax_error::SyntaxError;

/// Maximum length of a list on one line, in characters.
const LONGEST_LIST: usize = 100;

pub fn read(text: &str) -> Result<Value, SyntaxError> {
    parse(text)?;
    ::toml::from_str(text).map_err(|error| SyntaxError { line: 1, column: 1, reason: error.message().to_owned() })
}

pub fn set(text: &str, path: &[&str], value: &Value) -> Result<String, SyntaxError> {
    let mut document = parse(text)?;
    let Some((name, parents)) = path.split_last() else { return Ok(text.to_owned()) };
    let mut table: &mut dyn TableLike = document.as_table_mut();
    for parent in parents {
        let created = || {
            let mut table = Table::new();
            table.set_implicit(true);
            Item::Table(table)
        };
        let item = table.entry(parent).or_insert_with(created);
        table = item.as_table_like_mut().ok_or_else(|| not_a_table(text, parent))?;
    }
    match table.get_mut(name) {
        Some(old) => change(old, value),
        None => {
            table.insert(name, item(value));
        }
    }
    Ok(document.to_string())
}

/// Removes the value at this path, with its subtables. Comments above a header stay, since they may concern others.
pub fn remove(text: &str, path: &[&str]) -> Result<String, SyntaxError> {
    let spans = text.parse::<Document<String>>().map_err(|error| damage(text, &error))?;
    let Some((name, parents)) = path.split_last() else { return Ok(text.to_owned()) };
    let mut parent: &dyn TableLike = spans.as_table();
    for name in parents {
        match parent.get(name).and_then(Item::as_table_like) {
            Some(inner) => parent = inner,
            None => return Ok(text.to_owned()),
        }
    }
    match parent.get(name) {
        None => Ok(text.to_owned()),
        Some(Item::Table(table)) if !table.is_dotted() => Ok(without_lines(text, lines_of(text, table))),
        Some(_) => remove_value(text, parents, name),
    }
}

fn remove_value(text: &str, parents: &[&str], name: &str) -> Result<String, SyntaxError> {
    let mut document = parse(text)?;
    let mut table: Option<&mut dyn TableLike> = Some(document.as_table_mut());
    for parent in parents {
        table = table.and_then(|table| table.get_mut(parent)?.as_table_like_mut());
    }
    table.and_then(|table| table.remove(name));
    Ok(document.to_string())
}

/// Returns the lines from the header to the last value, for the table and for each below it.
fn lines_of(text: &str, table: &Table) -> Vec<Range<usize>> {
    let mut pieces = Vec::new();
    let mut own = table.span().filter(|_| !table.is_implicit());
    for (_, item) in table {
        match item {
            Item::Table(inner) if !inner.is_dotted() => pieces.extend(lines_of(text, inner)),
            item => own = own.zip(end_of(item)).map(|(own, end)| own.start..own.end.max(end)),
        }
    }
    pieces.extend(own.map(|own| start_of_line(text, own.start)..end_of_line(text, own.end)));
    pieces.sort_by_key(|piece| piece.start);
    pieces
}

/// Returns the end of an item; for a dotted table, of its last value.
fn end_of(item: &Item) -> Option<usize> {
    match item {
        Item::Table(table) => table.iter().filter_map(|(_, item)| end_of(item)).max(),
        item => item.span().map(|span| span.end),
    }
}

fn start_of_line(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |newline| newline + 1)
}

fn end_of_line(text: &str, at: usize) -> usize {
    text[at..].find('\n').map_or(text.len(), |newline| at + newline + 1)
}

/// Removes lines, each part with the blank line before it.
fn without_lines(text: &str, pieces: Vec<Range<usize>>) -> String {
    let mut result = String::new();
    let mut done = 0;
    for piece in pieces {
        let before = &text[done..piece.start];
        let blank = ["\r\n", "\n"].into_iter().find(|blank| before.ends_with(&format!("\n{blank}")));
        result.push_str(before.strip_suffix(blank.unwrap_or_default()).unwrap_or(before));
        done = piece.end;
    }
    result + &text[done..]
}

fn change(old: &mut Item, value: &Value) {
    if let (Some(list), Value::Array(wanted)) = (old.as_array_mut(), value)
        && list.len() <= wanted.len()
        && list.iter().zip(wanted).all(|(old, new)| old.as_str() == new.as_str() && new.is_string())
    {
        // The old values keep their lines and comments.
        let multiline = list.iter().last().and_then(|last| last.decor().prefix()?.as_str()).map(str::to_owned);
        for new in &wanted[list.len()..] {
            let mut new = plain(new);
            if let Some(prefix) = multiline.as_ref().filter(|prefix| prefix.contains('\n')) {
                let indent = prefix.rsplit('\n').next().unwrap_or_default();
                new.decor_mut().set_prefix(format!("\n{indent}"));
                list.push_formatted(new);
            } else {
                list.push(new);
            }
        }
        return;
    }
    let decor = old.as_value().map(|value| value.decor().clone());
    *old = item(value);
    if let (Some(decor), Some(new)) = (decor, old.as_value_mut()) {
        *new.decor_mut() = decor;
    }
}

/// Converts a value. An object becomes a table with its own header.
fn item(value: &Value) -> Item {
    let Value::Object(members) = value else { return Item::Value(plain(value)) };
    let mut table = Table::new();
    for (name, value) in members {
        table.insert(name, item(value));
    }
    Item::Table(table)
}

fn plain(value: &Value) -> toml_edit::Value {
    match value {
        Value::Null => "".into(),
        Value::Bool(it) => (*it).into(),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => whole.into(),
            None => number.as_f64().unwrap_or_default().into(),
        },
        Value::String(text) => text.as_str().into(),
        Value::Array(values) => list(values).into(),
        Value::Object(members) => {
            let members = members.iter().map(|(name, value)| (name.as_str(), plain(value)));
            members.collect::<InlineTable>().into()
        }
    }
}

fn list(values: &[Value]) -> Array {
    let mut list: Array = values.iter().map(plain).collect();
    if list.to_string().len() > LONGEST_LIST {
        list.iter_mut().for_each(|value| value.decor_mut().set_prefix("\n    "));
        list.set_trailing_comma(true);
        list.set_trailing("\n");
    }
    list
}

fn not_a_table(text: &str, name: &str) -> SyntaxError {
    let at = text.find(name).unwrap_or_default();
    SyntaxError::at(text, at, format!("{name} must be a table"))
}

fn parse(text: &str) -> Result<DocumentMut, SyntaxError> {
    text.parse().map_err(|error| damage(text, &error))
}

fn damage(text: &str, error: &TomlError) -> SyntaxError {
    SyntaxError::at(text, error.span().map_or(0, |span| span.start), error.message().to_owned())
}
