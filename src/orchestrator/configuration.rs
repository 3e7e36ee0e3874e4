//! The repository's own git configuration as it was before the first worker, kept beside the state. A worker can change
//! it, and git would run programs that it names. After a change, nothing is integrated until the user has undone or
//! accepted it.
//!
//! The user accepts a change by deleting this record. A worker in a sandbox cannot do that, and no tool does it. The same
//! holds for changes of a CLI's own settings: see [`crate::attempt::cli_settings`].

use std::path::PathBuf;

use super::context::Context;
use super::error::OrchestratorError;
use crate::attempt::cli_settings;
use crate::attempt::state_dir::StateDir;
use crate::files::{self, FileError};
use crate::git::{Configuration, Repository, Trust};
use crate::mission::words;

type Result<T> = std::result::Result<T, OrchestratorError>;

/// Maximum number of changes that a refusal names.
const NAMED: usize = 12;

fn path(context: &Context, repository: &Repository) -> PathBuf {
    context.trust.record(&repository.common_dir).expect("a server trusts the records in its state directory")
}

/// Returns the configuration that a repository had before its first worker, and records it if necessary. From then on,
/// git calls use it.
fn remember(context: &Context, repository: &Repository) -> Result<Configuration> {
    let path = path(context, repository);
    if let Some(recorded) = files::read_json(&path)? {
        return Ok(recorded);
    }
    let now = Configuration::of(repository)?;
    match files::create_json_once(&path, &now) {
        Ok(()) => Ok(now),
        // Another server has recorded it first.
        Err(FileError::Exists { .. }) => Ok(files::read_json(&path)?.unwrap_or(now)),
        Err(error) => Err(error.into()),
    }
}

/// Records the configuration of the repository of this state directory, before its first worker.
pub(super) fn remember_ours(context: &Context) -> Result<()> {
    remember(context, context.repository()?).map(drop)
}

/// Returns a repository for a supervisor, which trusts what was configured there before the first worker and nothing
/// else.
pub(super) fn for_supervisor(context: &Context, repository: Repository) -> Result<Repository> {
    let before = remember(context, &repository)?;
    let trust = Trust::only(&repository.common_dir, before);
    Ok(repository.trusting(trust))
}

/// Refuses to integrate while the configuration differs from that before the first worker.
pub(super) fn check(context: &Context, repository: &Repository) -> Result<()> {
    if !context.state_root.exists() {
        // There never was a worker.
        return Ok(());
    }
    let before = remember(context, repository)?;
    let changes = before.changes(&Configuration::of(repository)?);
    if changes.is_empty() {
        return check_cli_settings(context);
    }
    Err(OrchestratorError::ConfigurationChanged {
        root: repository.root().to_owned(),
        hooks: repository.common_dir.join("hooks"),
        record: path(context, repository),
        changes: words::first(&changes, NAMED).replace(char::is_control, "?"),
    })
}

/// Refuses to integrate while a setting of a CLI, changed while a worker ran, can make it run programs.
fn check_cli_settings(context: &Context) -> Result<()> {
    let state = StateDir::at(&context.state_root);
    let changes = cli_settings::open_changes(&state)?;
    if changes.is_empty() {
        return Ok(());
    }
    Err(OrchestratorError::CliSettingsChanged {
        records: state.cli_settings(),
        changes: words::first(&changes, NAMED).replace(char::is_control, "?"),
    })
}
