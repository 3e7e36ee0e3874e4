//! The settings of a worker's CLI, compared before and after a confined attempt. They lie in the CLI's state folders,
//! which the worker can write, and the CLI would later run what they name for the user, unconfined.
//!
//! A change that can run programs stops integration until the user has undone or accepted it. Any other is only reported.
//! The record is outside of what a worker can write, and there before its CLI starts, so that a killed supervisor hides
//! nothing. Any process may have made a change: the user, or a CLI of the user's. A copy in the folder of the attempt
//! replaces a damaged record. Without one, the changes are unknown, and the user must accept them.

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
    /// Reads the settings in these state folders.
    pub fn read(worker_id: &WorkerId, attempt: u32, folders: Vec<PathBuf>) -> Self {
        let before = settings_in(&folders);
        Self { worker_id: worker_id.clone(), attempt, folders, before, changed: None }
    }

    /// Records the settings.
    pub fn record(&self, state: &StateDir) -> Result<(), FileError> {
        // Nothing can change in no folders.
        if self.folders.is_empty() {
            return Ok(());
        }
        self.write(state, false)?;
        self.sync_later(state);
        if let Err(error) = files::replace_json(&self.copy(state), self, false) {
            tracing::warn!(%error, "cannot copy the record of the settings of the CLI");
        }
        Ok(())
    }

    /// Ends the record of an attempt: it stays only if a setting that can run programs has changed. Returns a sentence
    /// about what changed.
    pub fn end(&self, state: &StateDir) -> Option<String> {
        let now = settings_in(&self.folders);
        let changes = differences(&self.before, &now);
        let stops: BTreeSet<String> =
            changes.iter().filter(|change| change.can_run_programs).map(|change| change.name.to_owned()).collect();
        let kept = if stops.is_empty() {
            self.remove(state);
            Ok(())
        } else {
            Self { changed: Some(stops.clone()), ..self.clone() }.write(state, true)
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

    fn write(&self, state: &StateDir, durable: bool) -> Result<(), FileError> {
        files::make_private_dir_within(state.root(), &state.cli_settings())?;
        files::replace_json(&self.path(state), self, durable)
    }

    /// Makes a record durable while the CLI starts, which takes longer than the disk. A thread that wrote it again could do
    /// so after the record was removed.
    fn sync_later(&self, state: &StateDir) {
        let path = self.path(state);
        std::thread::spawn(move || {
            if let Err(error) = files::sync(&path) {
                tracing::warn!(%error, "cannot make the record of the settings of the CLI durable");
            }
        });
    }

    /// Reads a record. A damaged one is replaced by its copy, and it is an error if that is no help.
    fn recorded(state: &StateDir, path: &Path) -> Result<Option<Self>, FileError> {
        let damaged = match files::read_json(path) {
            Err(damaged @ FileError::Damaged { .. }) => damaged,
            read => return read,
        };
        let copy = attempt_of(path).and_then(|(worker, attempt)| {
            let copy = files::read_json::<Self>(&state.worker(&worker).attempt(attempt).cli_settings()).ok()??;
            (copy.worker_id == worker && copy.attempt == attempt).then_some(copy)
        });
        let Some(copy) = copy else { return Err(damaged) };
        tracing::warn!(error = %damaged, "the record of the settings of a CLI is replaced by its copy");
        copy.write(state, true)?;
        Ok(Some(copy))
    }

    fn copy(&self, state: &StateDir) -> PathBuf {
        state.worker(&self.worker_id).attempt(self.attempt).cli_settings()
    }

    /// Removes the record and its copy, and the folder of records if it is empty then.
    fn remove(&self, state: &StateDir) {
        for path in [self.path(state), self.copy(state)] {
            let _ = fs::remove_file(path);
        }
        let _ = fs::remove_dir(state.cli_settings());
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
        let settings = match CliSettings::recorded(state, &path) {
            Ok(Some(settings)) => settings,
            Ok(None) => continue,
            // Another record must not hide what this one cannot show.
            Err(FileError::Damaged { .. }) => {
                open.insert(unknown(&path));
                continue;
            }
            Err(error) => return Err(error),
        };
        let is_over = settings.is_over(state);
        let changes = settings.open();
        if changes.is_empty() && is_over {
            settings.remove(state);
        }
        open.extend(changes);
    }
    Ok(open.into_iter().collect())
}

/// Returns the worker and the attempt of a record.
fn attempt_of(path: &Path) -> Option<(WorkerId, u32)> {
    let (worker, attempt) = path.file_stem()?.to_str()?.rsplit_once('.')?;
    Some((WorkerId::from_folder(worker)?, attempt.parse().ok()?))
}

/// Describes the changes of an attempt whose record is damaged.
fn unknown(path: &Path) -> String {
    let whose = attempt_of(path)
        .map_or_else(|| "a worker".to_owned(), |(worker, attempt)| format!("{worker} (attempt {attempt})"));
    format!("those of {whose}, which are unknown since {} is damaged", path.display())
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
