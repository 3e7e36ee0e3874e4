//! Finds the worktree of a worker for commands that show it, and the user's own git settings.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::CliError;
use super::hint;
use super::text;
use super::workspace::Workspace;
use crate::attempt::assignment;
use crate::git::{self, BranchTip, DiffError, Git, Repository, Trust};
use crate::mission::registry::Worker;
use crate::orchestrator::{Observer, own_repository};

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
            removed(&worker, branch, repository(&worker, workspace, &observer).ok().flatten().as_ref())
        }
        (_, None) => "it was removed".to_owned(),
    };
    Err(CliError::Failed(format!("cannot {what} {}, the worktree of {id}: {why}", path.display())))
}

/// Opens the repository that holds a worker's work, as git calls may use it.
pub(super) fn repository(
    worker: &Worker,
    workspace: &Workspace,
    observer: &Observer,
) -> Result<Option<Repository>, CliError> {
    let state_root = observer.state_root();
    let repository = match (&worker.repository, &workspace.repository) {
        (Some(root), _) => Repository::discover(root, &Trust::recorded(state_root, None)),
        (None, Some(root)) => own_repository(root, state_root),
        (None, None) => Ok(None),
    };
    repository.map_err(|error| CliError::Failed(hint::of(&error)))
}

/// Describes where the work of a removed worktree is now. Its branch may have been deleted too.
fn removed(worker: &Worker, branch: &str, repository: Option<&Repository>) -> String {
    let shows = format!("`orchestrator-boss diff {}` shows it", worker.id);
    let tip = repository.map(|repository| git::branch_tip(repository, branch, worker.last_commit()));
    let (last, is_there) = match tip {
        Some(Ok(BranchTip { commit, is_deleted: true })) => (Some(commit), true),
        Some(Err(DiffError::BranchDeleted { last, .. })) => (last, false),
        // If git cannot be asked, the branch is assumed to be there.
        _ => return format!("it was removed; its work is on branch {branch}, and {shows}"),
    };
    let mut why = format!("it was removed, and its branch {branch} was deleted");
    match (&worker.integrated, last) {
        (Some(merged), _) => {
            let what = if merged.partial { "part of its work" } else { "its work" };
            why.push_str(&format!(
                "; {what} was merged into {} as {}",
                merged.into,
                text::short_commit(&merged.commit)
            ));
        }
        (None, Some(last)) if is_there => why.push_str(&format!("; its last commit is {}", text::short_commit(&last))),
        (None, Some(last)) => {
            why.push_str(&format!("; its last commit {} no longer exists", text::short_commit(&last)))
        }
        (None, None) => {}
    }
    if is_there { format!("{why}, and {shows}") } else { why }
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
