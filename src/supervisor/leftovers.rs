//! Uncommitted changes of a worker, in a worktree that was made for it. They are put on its branch as far as that is
//! clearly right. The rest stays where it is and is named in the outcome.

use crate::attempt::assignment::Assignment;
use crate::attempt::facts;
use crate::git::{self, Fingerprint, NotOnBranch, Repository};
use crate::mission::hint::with_hints;
use crate::process;

/// The result of putting uncommitted changes on the branch.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// Number of files that were committed.
    pub committed: u32,
    /// Number of entries that are still uncommitted.
    pub uncommitted: u32,
    /// Parts of the work that its branch does not hold afterwards. `None` if they could not be determined.
    pub not_on_branch: Option<Vec<NotOnBranch>>,
    /// The reason why git does not work on this folder or cannot read its state. A verification proves no commit then.
    pub unreadable: Option<String>,
    /// The status of the worktree after that.
    pub status: Option<git::Status>,
}

/// Puts the uncommitted changes of a worker on its branch. Blocks. `before` is the state before its first attempt.
pub(super) fn put_on_branch(assignment: &Assignment, before: Option<&Fingerprint>) -> Left {
    let mut left = Left::default();
    let told = assignment.repository.clone();
    let repository = told.or_else(|| Repository::discover(&assignment.directory).ok().flatten());
    let (Some(repository), Some(branch)) = (repository, assignment.mission.place.branch()) else { return left };
    let directory = &assignment.directory;
    if let Err(error) = git::check_in_place(&repository, directory) {
        left.unreadable = Some(with_hints(&error));
        return left;
    }
    let is_git_at_work = || process::is_at_work_in("git", directory);
    let locks = git::clear_stale_locks(&repository, directory, Some(branch), is_git_at_work);
    let base = assignment.base_commit.as_deref().unwrap_or_default();
    if let Err(error) = git::reattach(&repository, directory, branch, base) {
        tracing::warn!(%error, "could not put the branch where the work is");
    }
    let status = match git::uncommitted_and_ignored(directory) {
        Ok(status) => status,
        Err(error) => {
            left.unreadable = Some(with_hints(&error));
            return left;
        }
    };
    left.uncommitted = status.entries.len() as u32;
    let is_anothers = |name: &str| git::not_on_branch::is_anothers(branch, name, before);
    let mut why = None;
    if !assignment.settings.commit_leftovers {
        why = Some("the user's setting commit_leftovers is false".to_owned());
    } else if status.branch.as_deref().is_none_or(|name| !is_anothers(name)) {
        why = commit(assignment, status.clone(), &mut left);
    }
    if let Some(lock) = locks.first().filter(|_| left.uncommitted > 0) {
        why = Some(format!("{} is there, and a git is at work in this worktree", lock.display()));
    }
    let now = match left.status.take() {
        Some(after) => Ok(after),
        // It is still valid if nothing was committed and nothing was refused.
        None if left.committed == 0 && why.is_none() => Ok(status),
        None => git::uncommitted_and_ignored(directory),
    };
    match now {
        Ok(now) => {
            left.not_on_branch = Some(facts::not_on_branch(assignment, before, why.as_deref(), &now));
            left.status = Some(now);
        }
        Err(error) => left.unreadable = Some(with_hints(&error)),
    }
    left
}

/// Adds the parts that the branch does not hold since the verification ran, except files: those are not the worker's.
pub(super) fn after_verification(
    assignment: &Assignment,
    before: Option<&Fingerprint>,
    mut known: Vec<NotOnBranch>,
) -> Vec<NotOnBranch> {
    // One that cannot be read is named when the changes are counted.
    let Ok(mut status) = git::uncommitted(&assignment.directory) else { return known };
    status.entries.retain(|entry| !entry.untracked);
    let now = facts::not_on_branch(assignment, before, None, &status);
    let new: Vec<_> = now.into_iter().filter(|part| part.files.is_none() && !known.contains(part)).collect();
    known.extend(new);
    known
}

/// Commits the changes. Returns why something could not be committed.
fn commit(assignment: &Assignment, status: git::Status, left: &mut Left) -> Option<String> {
    let (message, own, fallback) = (message(assignment), own_identity(assignment), git::Identity::fallback());
    let copies = &assignment.copies;
    match git::commit_uncommitted(&assignment.directory, status, &message, &fallback, own.as_ref(), copies) {
        Ok(committed) => {
            // A merge may have been concluded without any uncommitted file.
            left.committed = (committed.files as u32).max(u32::from(committed.commit.is_some()));
            left.uncommitted = committed.still_uncommitted as u32;
            left.status = committed.status;
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

fn own_identity(assignment: &Assignment) -> Option<git::Identity> {
    let settings = &assignment.settings;
    Some(git::Identity { name: settings.commit_name.clone()?, email: settings.commit_email.clone()? })
}
