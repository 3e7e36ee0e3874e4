//! Uncommitted changes of a worker, in a worktree that was created for it. They are committed to its branch where that
//! is clearly correct. The rest stays where it is, and the outcome names it.

use crate::attempt::assignment::Assignment;
use crate::attempt::facts;
use crate::git::{self, Fingerprint};
use crate::mission::hint::with_hints;
use crate::mission::outcome::NotOnBranch;
use crate::process;

/// The state of a worker's branch and worktree after its uncommitted changes were committed.
#[derive(Debug, Default)]
pub(super) struct BranchState {
    /// Number of files that were committed.
    pub committed: u32,
    /// Number of entries that are still uncommitted.
    pub uncommitted: u32,
    /// Parts of the work that its branch does not hold afterwards. `None` if they could not be determined.
    pub not_on_branch: Option<Vec<NotOnBranch>>,
    /// The reason why git does not work on this folder or cannot read its state. No commit can be verified then.
    pub unreadable: Option<String>,
    /// The status of the worktree after that.
    pub status: Option<git::Status>,
}

/// Puts the uncommitted changes of a worker on its branch. Blocks. `before` is the state before its first attempt.
pub(super) fn put_on_branch(assignment: &Assignment, before: Option<&Fingerprint>) -> BranchState {
    let mut state = BranchState::default();
    let (Some(repository), Some(branch)) = (&assignment.repository, assignment.mission.place.branch()) else {
        return state;
    };
    let (directory, checkout) = (&assignment.directory, assignment.checkout());
    if let Err(error) = git::check_in_place(repository, directory) {
        state.unreadable = Some(with_hints(&error));
        return state;
    }
    let is_git_running = || process::is_running_in("git", directory);
    let locks = git::clear_stale_locks(repository, directory, Some(branch), is_git_running);
    let base = assignment.base_commit.as_deref().unwrap_or_default();
    if let Err(error) = git::reattach(repository, directory, branch, base) {
        tracing::warn!(%error, "cannot move the branch to the worker's commits");
    }
    let status = match git::uncommitted_and_ignored(&checkout) {
        Ok(status) => status,
        Err(error) => {
            state.unreadable = Some(with_hints(&error));
            return state;
        }
    };
    state.uncommitted = status.entries.len() as u32;
    let is_anothers = |name: &str| git::not_on_branch::is_anothers(branch, name, before);
    let mut why = None;
    if !assignment.settings.commit_leftovers {
        why = Some("the user's setting commit_leftovers is false".to_owned());
    } else if status.branch.as_deref().is_none_or(|name| !is_anothers(name)) {
        why = commit(assignment, status.clone(), &mut state);
    }
    if let Some(lock) = locks.first().filter(|_| state.uncommitted > 0) {
        why = Some(format!("{} exists, and git is running in this worktree", lock.display()));
    }
    let now = match state.status.take() {
        Some(after) => Ok(after),
        // It is still valid if nothing was committed and nothing was refused.
        None if state.committed == 0 && why.is_none() => Ok(status),
        None => git::uncommitted_and_ignored(&checkout),
    };
    match now {
        Ok(now) => {
            state.not_on_branch = Some(facts::not_on_branch(assignment, before, why.as_deref(), &now));
            state.status = Some(now);
        }
        Err(error) => state.unreadable = Some(with_hints(&error)),
    }
    state
}

/// Adds the parts that the branch does not hold since the verification ran, except files: those are not the worker's.
pub(super) fn after_verification(
    assignment: &Assignment,
    before: Option<&Fingerprint>,
    mut known: Vec<NotOnBranch>,
) -> Vec<NotOnBranch> {
    // A worktree that cannot be read is reported when the changes are counted.
    let Ok(mut status) = git::uncommitted(&assignment.checkout()) else { return known };
    status.entries.retain(|entry| !entry.untracked);
    let now = facts::not_on_branch(assignment, before, None, &status);
    let new: Vec<_> = now.into_iter().filter(|part| part.files.is_none() && !known.contains(part)).collect();
    known.extend(new);
    known
}

/// Commits the changes. Returns why something could not be committed.
fn commit(assignment: &Assignment, status: git::Status, state: &mut BranchState) -> Option<String> {
    let (message, own, fallback) = (message(assignment), own_identity(assignment), git::CommitIdentity::fallback());
    let copies = &assignment.copies;
    match git::commit_uncommitted(&assignment.checkout(), status, &message, &fallback, own.as_ref(), copies) {
        Ok(committed) => {
            // A merge may have been concluded without any uncommitted file.
            state.committed = (committed.files as u32).max(u32::from(committed.commit.is_some()));
            state.uncommitted = committed.still_uncommitted as u32;
            state.status = committed.status;
            committed.refused
        }
        Err(error) => Some(with_hints(&error)),
    }
}

fn message(assignment: &Assignment) -> String {
    // The title is inserted last, so that its text stays as it is.
    let template = assignment.settings.commit_message.replace("{worker_id}", assignment.worker_id.as_str());
    template.replace("{title}", &assignment.mission.title)
}

fn own_identity(assignment: &Assignment) -> Option<git::CommitIdentity> {
    let settings = &assignment.settings;
    Some(git::CommitIdentity { name: settings.commit_name.clone()?, email: settings.commit_email.clone()? })
}
