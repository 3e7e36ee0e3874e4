//! The settings of a worker's CLI, compared before and after a confined attempt. They lie in the CLI's state folders,
//! which the worker can write, and the CLI would later run what they name for the user, unconfined.
//!
//! A change that can run programs stops integration until the user has undone or accepted it. Any other is only reported.
//! The record is outside of what a worker can write, and there before its CLI starts, so that a killed supervisor hides
//! nothing. Any process may have made a change: the user, or a CLI of the user's.

mod content;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use self::content::{Setting, Weight, settings_in};
use super::launch;
use super::state_dir::StateDir;
use crate::files::{self, FileError};
use crate::mission::id::WorkerId;
use crate::mission::words;

/// Maximum number of settings in a sentence.
const NAMED: usize = 5;

/// The settings as they were before an attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CliSettings {
    worker_id: WorkerId,
    attempt: u32,
    folders: Vec<PathBuf>,
    before: BTreeMap<String, Setting>,
    /// The settings that changed during the attempt. `None` before its end: then all of them are compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    changed: Option<BTreeSet<String>>,
}

/// A difference between the settings then and now.
#[derive(Debug, PartialEq)]
struct Change<'a> {
    name: &'a str,
    how: &'static str,
    can_run_programs: bool,
}

impl CliSettings {
    /// Reads the settings in these state folders, and records them.
    pub fn record(
        state: &StateDir,
        worker_id: &WorkerId,
        attempt: u32,
        folders: Vec<PathBuf>,
    ) -> Result<Self, FileError> {
        let before = settings_in(&folders);
        let settings = Self { worker_id: worker_id.clone(), attempt, folders, before, changed: None };
        settings.write(state)?;
        Ok(settings)
    }

    /// Ends the record of an attempt: it stays only if a setting that can run programs has changed. Returns a sentence
    /// about what changed.
    pub fn end(&self, state: &StateDir) -> Option<String> {
        let now = settings_in(&self.folders);
        let changes = differences(&self.before, &now);
        let stops: BTreeSet<String> =
            changes.iter().filter(|change| change.can_run_programs).map(|change| change.name.to_owned()).collect();
        let kept = if stops.is_empty() {
            remove(&self.path(state));
            Ok(())
        } else {
            Self { changed: Some(stops.clone()), ..self.clone() }.write(state)
        };
        if let Err(error) = kept {
            // Then the record of the beginning stays, which compares all settings.
            tracing::warn!(%error, "cannot record the changed settings of the CLI");
        }
        let named: Vec<String> = changes.iter().map(Change::text).collect();
        let stop = if stops.is_empty() {
            ""
        } else {
            "; this can make it run programs, so nothing is integrated until the user has undone or accepted it"
        };
        let named = words::first(&named, NAMED);
        (!changes.is_empty()).then(|| format!("while it ran, settings of its CLI changed: {named}{stop}"))
    }

    /// Returns the changes in this record that are there now and can run programs.
    fn open(&self) -> Vec<String> {
        let now = settings_in(&self.folders);
        let counts = |change: &Change| {
            change.can_run_programs && self.changed.as_ref().is_none_or(|changed| changed.contains(change.name))
        };
        differences(&self.before, &now).iter().filter(|change| counts(change)).map(Change::text).collect()
    }

    fn path(&self, state: &StateDir) -> PathBuf {
        state.cli_settings().join(format!("{}.{}.json", self.worker_id, self.attempt))
    }

    fn write(&self, state: &StateDir) -> Result<(), FileError> {
        files::make_private_dir_within(state.root(), &state.cli_settings())?;
        files::replace_json(&self.path(state), self, false)
    }

    fn is_over(&self, state: &StateDir) -> bool {
        !launch::may_live(&state.worker(&self.worker_id).attempt(self.attempt))
    }
}

impl Change<'_> {
    fn text(&self) -> String {
        format!("{} ({})", self.name, self.how)
    }
}

/// Returns the changes that can run programs, of all workers of a state directory, which the user has not accepted.
/// Removes the records of ended attempts whose changes were undone.
pub fn open_changes(state: &StateDir) -> Result<Vec<String>, FileError> {
    let mut open = BTreeSet::new();
    for entry in fs::read_dir(state.cli_settings()).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let Some(settings) = files::read_json::<CliSettings>(&path)? else { continue };
        let is_over = settings.is_over(state);
        let changes = settings.open();
        if changes.is_empty() && is_over {
            remove(&path);
        }
        open.extend(changes);
    }
    Ok(open.into_iter().collect())
}

/// Removes a record, and the folder if it is empty then.
fn remove(path: &Path) {
    let _ = fs::remove_file(path);
    let _ = path.parent().map(fs::remove_dir);
}

/// Returns the differences. A setting that only moved within the state of the CLI is none, since a CLI may move
/// settings of an older form.
fn differences<'a>(before: &'a BTreeMap<String, Setting>, now: &'a BTreeMap<String, Setting>) -> Vec<Change<'a>> {
    let has = |settings: &BTreeMap<String, Setting>, setting: &Setting| {
        setting.weight == Weight::Runs && settings.values().any(|other| other == setting)
    };
    let removed = before
        .iter()
        .filter(|(name, old)| !now.contains_key(*name) && !has(now, old))
        .map(|(name, old)| Change { name, how: "removed", can_run_programs: old.weight == Weight::Runs });
    let others = now.iter().filter_map(|(name, new)| match before.get(name) {
        None if has(before, new) => None,
        None => Some(Change { name, how: "added", can_run_programs: new.weight == Weight::Runs }),
        Some(old) if old.hash != new.hash => {
            Some(Change { name, how: "changed", can_run_programs: new.weight != Weight::Text })
        }
        Some(_) => None,
    });
    removed.chain(others).collect()
}

#[cfg(test)]
mod tests;
