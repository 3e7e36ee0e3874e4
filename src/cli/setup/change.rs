//! What setup would change, worked out before anything is: for each file its text before and after.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::document::Format;
use super::entry::{self, Wanted};
use super::receipt::{Made, Receipt};
use super::registration::{Registration, Rule};
use super::syntax_error::SyntaxError;
use super::{SetupError, file};

/// One file. `None`: it is not there.
#[derive(Debug)]
pub struct Change {
    pub path: PathBuf,
    pub before: Option<String>,
    pub after: Option<String>,
    /// What setup will have made in it then.
    pub made: Made,
    /// All of the file is ours, or is to be.
    pub whole: bool,
}

impl Change {
    pub fn is_none(&self) -> bool {
        self.before == self.after
    }
}

pub fn register(registration: &Registration, receipt: &Receipt) -> Result<Change, SetupError> {
    let Registration { path, format, keys, fields, .. } = registration;
    // The entry itself goes as a whole.
    let containers = &keys[..keys.len() - 1];
    put(path, *format, containers, receipt, |text| entry::set(*format, text, keys, fields))
}

pub fn allow(rule: &Rule, receipt: &Receipt) -> Result<Change, SetupError> {
    let Rule { path, format, keys, text: rule } = rule;
    let wanted = Wanted::Including(vec![(*rule).to_owned()]);
    let mut change = put(path, *format, keys, receipt, |text| {
        let old = format.get(text, keys)?;
        let new = wanted.over(old.as_ref());
        if old.as_ref() == Some(&new) { Ok(text.to_owned()) } else { format.set(text, keys, &new) }
    })?;
    change.made.rule |= !change.is_none();
    Ok(change)
}

fn put(
    path: &Path,
    format: Format,
    containers: &[&str],
    receipt: &Receipt,
    edit: impl FnOnce(&str) -> Result<String, SyntaxError>,
) -> Result<Change, SetupError> {
    let damaged = |damage| SetupError::Damaged { path: path.to_owned(), damage };
    let before = file::read(path)?;
    let text = before.clone().unwrap_or_default();
    let after = edit(&text).map_err(damaged)?;
    let mut made = receipt.of(path);
    if before.as_ref() != Some(&after) {
        made.file |= before.is_none();
        if before.is_some() && text.trim().is_empty() {
            made.blank = Some(text.clone());
        }
        for depth in 1..=containers.len() {
            let container = containers[..depth].iter().map(|key| (*key).to_owned()).collect();
            let is_new = format.get(&text, &containers[..depth]).map_err(damaged)?.is_none();
            if is_new && !made.containers.contains(&container) {
                made.containers.push(container);
            }
        }
    }
    Ok(Change { path: path.to_owned(), before, after: Some(after), made, whole: false })
}

pub fn unregister(registration: &Registration, receipt: &Receipt) -> Result<Change, SetupError> {
    let Registration { path, format, keys, .. } = registration;
    take(path, *format, receipt, |text| format.remove(text, keys))
}

/// Takes the rule out if setup put it in, or if the user asks for it.
pub fn disallow(rule: &Rule, receipt: &Receipt, asked: bool) -> Result<Change, SetupError> {
    let Rule { path, format, keys, text: rule } = rule;
    if !asked && !receipt.of(path).rule {
        let before = file::read(path)?;
        return Ok(Change { path: path.clone(), after: before.clone(), before, made: Made::default(), whole: false });
    }
    take(path, *format, receipt, |text| format.remove_element(text, keys, rule))
}

fn take(
    path: &Path,
    format: Format,
    receipt: &Receipt,
    edit: impl FnOnce(&str) -> Result<String, SyntaxError>,
) -> Result<Change, SetupError> {
    let damaged = |damage| SetupError::Damaged { path: path.to_owned(), damage };
    let made = receipt.of(path);
    let Some(before) = file::read(path)? else {
        return Ok(Change { path: path.to_owned(), before: None, after: None, made: Made::default(), whole: false });
    };
    let mut after = edit(&before).map_err(damaged)?;
    if after == before {
        return Ok(Change { path: path.to_owned(), after: Some(after), before: Some(before), made, whole: false });
    }
    for container in made.containers.iter().rev() {
        let keys: Vec<&str> = container.iter().map(String::as_str).collect();
        if format.get(&after, &keys).map_err(damaged)?.as_ref().is_some_and(is_empty) {
            after = format.remove(&after, &keys).map_err(damaged)?;
        }
    }
    let nothing_left = matches!(after.trim_matches(['\u{feff}', ' ', '\t', '\r', '\n']), "" | "{}");
    let after = match (nothing_left, &made) {
        (true, Made { file: true, .. }) => None,
        (true, Made { blank: Some(blank), .. }) => Some(blank.clone()),
        _ => Some(after),
    };
    // The folders are still needed when the file goes.
    let made = Made { folders: made.folders, ..Made::default() };
    Ok(Change { path: path.to_owned(), before: Some(before), after, made, whole: false })
}

fn is_empty(value: &Value) -> bool {
    value.as_object().is_some_and(|it| it.is_empty()) || value.as_array().is_some_and(|it| it.is_empty())
}
