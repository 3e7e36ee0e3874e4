//! Finds the worktree of a worker for commands that show it, and the user's own git settings.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::CliError;
use super::workspace::Workspace;
use crate::attempt::assignment;
use crate::git::Git;
use crate::mission::registry::Worker;

/// Returns a worker whose worktree exists. `what` completes "cannot …".
pub(super) fn find(workspace: &Workspace, name: &str, what: &str) -> Result<Arc<Worker>, CliError> {
    let mut observer = workspace.observer()?;
    observer.read()?;
    let worker = observer.find(name)?.worker;
    let path = worker.mission.place.path();
    if path.is_dir() {
        return Ok(worker);
    }
    let id = &worker.id;
    let why = match (worker.attempt, worker.branch()) {
        (0, _) => format!("it was not created yet, since {id} has not started"),
        (_, Some(branch)) => {
            format!("it was removed; its work is on branch {branch}, and `orchestrator-boss diff {id}` shows it")
        }
        (_, None) => "it was removed".to_owned(),
    };
    Err(CliError::Failed(format!("cannot {what} {}, the worktree of {id}: {why}", path.display())))
}

/// Returns the folder in which the CLI of a worker runs: its subfolder of the worktree if that exists.
pub(super) fn start_directory(worker: &Worker) -> PathBuf {
    let place = &worker.mission.place;
    let inner = place.subfolder().and_then(|inner| assignment::folder_within(place.path(), inner));
    inner.unwrap_or_else(|| place.path().to_owned())
}

/// Reads a git setting from the user's own configuration only, since a worker may have changed the repository's.
pub(super) fn own_git_setting(directory: &Path, name: &str) -> Option<String> {
    let ask = |scope| Git::without_trust(directory).args(["config", scope, "--get", name]).text().ok();
    ask("--global").or_else(|| ask("--system"))
}
