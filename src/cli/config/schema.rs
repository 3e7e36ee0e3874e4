//! `config schema`, and the file with the schema beside the settings, which editors read. A file that this program did
//! not write is never changed.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

use crate::cli::error::CliError;
use crate::cli::output;
use crate::config::{self, SCHEMA_FILE, SCHEMA_LINE};
use crate::files::{self, FileError};
use crate::mission::causes::with_causes;

/// The schema beside a settings file.
#[derive(Debug, Serialize)]
pub(super) struct SchemaReport {
    pub file: PathBuf,
    pub state: SchemaState,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum SchemaState {
    /// It is the schema of this version.
    Current,
    Created,
    /// It was the schema of another version.
    Updated,
    /// This program did not write it, so it was left unchanged.
    NotOurs,
    Missing,
    /// It could not be read or written.
    Failed,
}

/// Prints the schema.
pub(super) fn print() -> Result<ExitCode, CliError> {
    output::line(config::schema_text().trim_end())?;
    Ok(ExitCode::SUCCESS)
}

/// Writes the schema beside a settings file, or updates it.
pub(super) fn write(settings: &Path) -> SchemaReport {
    let file = settings.with_file_name(SCHEMA_FILE);
    let written = match update(&file) {
        Ok(SchemaState::Missing) => {
            files::create_once(&file, config::schema_text().as_bytes()).map(|()| SchemaState::Created)
        }
        other => other,
    };
    SchemaReport::new(file, written)
}

/// Updates the schema that a settings file names. `None` if it names none beside it.
pub(super) fn refresh(settings: &Path) -> Option<SchemaReport> {
    let text = fs::read_to_string(settings).ok()?;
    let file = settings.with_file_name(SCHEMA_FILE);
    let is_named = text.lines().any(|line| line.trim() == SCHEMA_LINE);
    is_named.then(|| SchemaReport::new(file.clone(), update(&file)))
}

fn update(file: &Path) -> Result<SchemaState, FileError> {
    let current = config::schema_text();
    match fs::read_to_string(file) {
        Ok(found) if found == current => Ok(SchemaState::Current),
        Ok(found) if config::is_our_schema(&found) => {
            files::replace_users_own(file, current.as_bytes()).map(|()| SchemaState::Updated)
        }
        Ok(_) => Ok(SchemaState::NotOurs),
        Err(error) => match error.kind() {
            ErrorKind::NotFound => Ok(SchemaState::Missing),
            ErrorKind::InvalidData => Ok(SchemaState::NotOurs),
            _ => Err(FileError::read(file, error)),
        },
    }
}

impl SchemaReport {
    fn new(file: PathBuf, state: Result<SchemaState, FileError>) -> Self {
        match state {
            Ok(state) => Self { file, state, error: None },
            Err(error) => Self { file, state: SchemaState::Failed, error: Some(with_causes(&error)) },
        }
    }

    /// Returns whether the file has the schema of this version.
    pub(super) fn is_usable(&self) -> bool {
        matches!(self.state, SchemaState::Current | SchemaState::Created | SchemaState::Updated)
    }

    /// Describes the state of the file in one line. `None` if it was already current.
    pub(super) fn line(&self) -> Option<String> {
        let file = self.file.display();
        let happened = match self.state {
            SchemaState::Current => return None,
            SchemaState::Created => "created, for editors".to_owned(),
            SchemaState::Updated => "updated to the settings of this version".to_owned(),
            SchemaState::NotOurs => "not written by this program, so it was left unchanged".to_owned(),
            SchemaState::Missing => {
                format!("does not exist; `orchestrator-boss config schema > {file}` creates it")
            }
            SchemaState::Failed => self.error.clone().unwrap_or_default(),
        };
        Some(format!("{file}: {happened}"))
    }
}
