//! Computes the changes of setup before it applies any: for each file the text before and after.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::document::Format;
use super::entry::{self, FieldRule};
use super::manifest::{CreatedParts, Manifest};
use super::registration::{Registration, Rules};
use super::syntax_error::SyntaxError;
use super::{SetupError, file};

/// A change of one file. A text is `None` if the file does not exist.
#[derive(Debug, Default)]
pub struct SettingsChange {
    pub path: PathBuf,
    pub before: Option<String>,
    pub after: Option<String>,
    /// The parts of the file that setup will have created.
    pub created: CreatedParts,
    /// True if the whole file is ours.
    pub whole: bool,
}

impl SettingsChange {
    pub fn is_none(&self) -> bool {
        self.before == self.after
    }
}

pub fn register(registration: &Registration, manifest: &Manifest) -> Result<SettingsChange, SetupError> {
    let Registration { path, format, keys, fields, .. } = registration;
    // The entry itself is always removed as a whole.
    let containers = &keys[..keys.len() - 1];
    put(path, *format, containers, manifest, |text| entry::set(*format, text, keys, fields))
}

/// Adds the rules for the tools that only read, or the rule for all tools.
pub fn allow(rules: &Rules, all: bool, manifest: &Manifest) -> Result<SettingsChange, SetupError> {
    let Rules { path, format, keys, for_reading, for_all } = rules;
    let names = if all { vec![for_all.clone()] } else { for_reading.clone() };
    let mut added = Vec::new();
    let mut change = put(path, *format, keys, manifest, |text| {
        let old = format.get(text, keys)?;
        let has = |name: &str| old.as_ref().and_then(Value::as_array).is_some_and(|it| it.iter().any(|it| it == name));
        if has(for_all) {
            return Ok(text.to_owned());
        }
        added = names.iter().filter(|name| !has(name)).cloned().collect();
        let new = FieldRule::Including(names.clone()).over(old.as_ref());
        if old.as_ref() == Some(&new) { Ok(text.to_owned()) } else { format.set(text, keys, &new) }
    })?;
    change.created.rules.extend(added);
    Ok(change)
}

fn put(
    path: &Path,
    format: Format,
    containers: &[&str],
    manifest: &Manifest,
    edit: impl FnOnce(&str) -> Result<String, SyntaxError>,
) -> Result<SettingsChange, SetupError> {
    let damaged = |damage| SetupError::Damaged { path: path.to_owned(), damage };
    let before = file::read(path)?;
    let text = before.clone().unwrap_or_default();
    let after = edit(&text).map_err(damaged)?;
    let mut created = manifest.of(path);
    if before.as_ref() != Some(&after) {
        created.file |= before.is_none();
        if before.is_some() && text.trim().is_empty() {
            created.blank = Some(text.clone());
        }
        for depth in 1..=containers.len() {
            let container = containers[..depth].iter().map(|key| (*key).to_owned()).collect();
            let is_new = format.get(&text, &containers[..depth]).map_err(damaged)?.is_none();
            if is_new && !created.containers.contains(&container) {
                created.containers.push(container);
            }
        }
    }
    Ok(SettingsChange { path: path.to_owned(), before, after: Some(after), created, whole: false })
}

pub fn unregister(registration: &Registration, manifest: &Manifest) -> Result<SettingsChange, SetupError> {
    let Registration { path, format, keys, .. } = registration;
    take(path, *format, manifest, |text| format.remove(text, keys))
}

/// Removes the rules that setup added. With `all`, removes every rule of this server.
pub fn disallow(rules: &Rules, manifest: &Manifest, all: bool) -> Result<SettingsChange, SetupError> {
    let Rules { path, format, keys, for_reading, for_all } = rules;
    let created = manifest.of(path);
    let mut names = created.rules;
    if all || created.older_rule {
        names.push(for_all.clone());
    }
    if all {
        names.extend(for_reading.iter().cloned());
    }
    take(path, *format, manifest, |text| {
        names.iter().try_fold(text.to_owned(), |text, name| format.remove_element(&text, keys, name))
    })
}

fn take(
    path: &Path,
    format: Format,
    manifest: &Manifest,
    edit: impl FnOnce(&str) -> Result<String, SyntaxError>,
) -> Result<SettingsChange, SetupError> {
    let damaged = |damage| SetupError::Damaged { path: path.to_owned(), damage };
    let created = manifest.of(path);
    let Some(before) = file::read(path)? else {
        return Ok(SettingsChange {
            path: path.to_owned(),
            before: None,
            after: None,
            created: CreatedParts::default(),
            whole: false,
        });
    };
    let mut after = edit(&before).map_err(damaged)?;
    if after == before {
        return Ok(SettingsChange {
            path: path.to_owned(),
            after: Some(after),
            before: Some(before),
            created,
            whole: false,
        });
    }
    for container in created.containers.iter().rev() {
        let keys: Vec<&str> = container.iter().map(String::as_str).collect();
        if format.get(&after, &keys).map_err(damaged)?.as_ref().is_some_and(is_empty) {
            after = format.remove(&after, &keys).map_err(damaged)?;
        }
    }
    let nothing_left = matches!(after.trim_matches(['\u{feff}', ' ', '\t', '\r', '\n']), "" | "{}");
    let after = match (nothing_left, &created) {
        (true, CreatedParts { file: true, .. }) => None,
        (true, CreatedParts { blank: Some(blank), .. }) => Some(blank.clone()),
        _ => Some(after),
    };
    // The folders are still needed when the file goes.
    let created = CreatedParts { folders: created.folders, ..CreatedParts::default() };
    Ok(SettingsChange { path: path.to_owned(), before: Some(before), after, created, whole: false })
}

fn is_empty(value: &Value) -> bool {
    value.as_object().is_some_and(|it| it.is_empty()) || value.as_array().is_some_and(|it| it.is_empty())
}
