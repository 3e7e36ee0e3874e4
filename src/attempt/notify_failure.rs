//! The last failure of the user's `notify_command`. `doctor` shows it until the command succeeds.

use std::fs;
use std::io;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::state_dir::StateDir;
use crate::files::{self, FileError};

/// A failed run of the command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NotifyFailure {
    pub at: Timestamp,
    pub error: String,
}

impl NotifyFailure {
    /// Returns the last failure, unless a later run has succeeded.
    pub fn last(root: &Path) -> Result<Option<Self>, FileError> {
        files::read_json(&StateDir::at(root).notify_failure())
    }

    /// Records the result of a run: its error, or `None` for a success.
    pub fn record(root: &Path, error: Option<String>) -> Result<(), FileError> {
        let path = StateDir::at(root).notify_failure();
        match error {
            Some(error) => files::replace_json(&path, &Self { at: Timestamp::now(), error }, false),
            None => match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => Err(FileError::write(&path, source)),
                _ => Ok(()),
            },
        }
    }
}
