//! The repository's own git configuration as it was before the first worker, kept beside the state. A worker can change
//! it, and git would run what it names: then nothing is integrated until a person has undone or accepted the change.
//!
//! Accepting is deleting the file: out of reach of a worker in a sandbox, and no call of a tool.

use std::path::{Path, PathBuf};

use super::context::Context;
use super::error::OrchestratorError;
use crate::files::{self, FileError};
use crate::git::{self, Configuration, Repository};

type Result<T> = std::result::Result<T, OrchestratorError>;

/// Maximum number of changes that a refusal names.
const NAMED: usize = 12;

const FILE: &str = "git-configuration.json";

fn path(context: &Context, repository: &Repository) -> PathBuf {
    match context.repository.as_ref() == Some(repository) {
        true => context.state_root.join(FILE),
        false => context.state_root.join(git::configuration::record_name(&repository.common_dir)),
    }
}

/// Makes git use the configuration that the repository of this state directory had before the workers, for a command
/// that inspects their results.
pub fn keep_git_to_what_is_remembered(state_root: &Path, repository: &Repository) -> Result<()> {
    if let Some(kept) = files::read_json(&state_root.join(FILE))? {
        git::configuration::keep_to(repository, kept);
    }
    Ok(())
}

/// Returns the configuration that a repository had before its first worker, and records it if necessary. From now on,
/// git calls of this process use it.
pub(super) fn remember(context: &Context, repository: &Repository) -> Result<Configuration> {
    let path = path(context, repository);
    let kept = match files::read_json(&path)? {
        Some(kept) => kept,
        None => {
            let now = Configuration::of(repository)?;
            match files::create_json_once(&path, &now) {
                Ok(()) => now,
                // Another server has recorded it first.
                Err(FileError::Exists { .. }) => files::read_json(&path)?.unwrap_or(now),
                Err(error) => return Err(error.into()),
            }
        }
    };
    git::configuration::keep_to(repository, kept.clone());
    Ok(kept)
}

/// Does the same as [`remember`] for the repository of this state directory.
pub(super) fn remember_ours(context: &Context) -> Result<Configuration> {
    remember(context, context.repository()?)
}

/// Applies the recorded configuration when a server starts. Its first git call may be for a boss that only reads.
pub(super) fn keep_to_what_is_remembered(context: &Context) {
    git::configuration::keep_to_records_in(&context.state_root);
    let known = context.repository.as_ref().is_some_and(|repository| path(context, repository).exists());
    if known && let Err(error) = remember_ours(context) {
        tracing::warn!(%error, "could not read what git was configured to before the first worker");
    }
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
        return Ok(());
    }
    let more = changes.len().saturating_sub(NAMED);
    let named = changes.iter().take(NAMED).map(|it| it.replace(char::is_control, "?")).collect::<Vec<_>>().join(", ");
    let and_more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Err(OrchestratorError::ConfigurationChanged {
        root: repository.root().to_owned(),
        hooks: repository.common_dir.join("hooks"),
        record: path(context, repository),
        changes: format!("{named}{and_more}"),
    })
}
