//! Moving a branch to the result of an integration: by compare-and-swap where nobody has it checked out, by a fast-forward
//! of git's own in a clean checkout, and not at all in a dirty one.

use std::fs;
use std::path::{Path, PathBuf};

use super::command::{CommandError, Git};
use super::integrate::{IntegrateError, REASON, tip};
use super::loose::{linked_git_dirs, place};
use super::repository::Repository;
use super::status::{Untracked, operation_in_progress, status};
use super::worktree::list;

/// How many files a refusal names.
const SAMPLES: usize = 5;

/// A branch, where it must stand, and where it goes.
#[derive(Debug, Clone, Copy)]
pub struct Move<'a> {
    pub branch: &'a str,
    pub from: &'a str,
    pub to: &'a str,
    /// What came in, for the reflog.
    pub what: &'a str,
}

/// Says no where [`land`] would, so that nobody verifies for an hour what cannot land.
pub fn can_land(repo: &Repository, branch: &str) -> Result<(), IntegrateError> {
    refuse_rebased(repo, branch)?;
    match checkout_of(repo, branch)? {
        Some(worktree) => refuse_unclean(branch, &worktree),
        None => Ok(()),
    }
}

/// Moves the branch, if it still stands where it stood.
pub fn land(repo: &Repository, step: Move<'_>) -> Result<(), IntegrateError> {
    // Nobody may check the branch out between looking and moving.
    let _lock = repo.lock()?;
    refuse_moved(repo, step)?;
    refuse_rebased(repo, step.branch)?;
    let moved = match checkout_of(repo, step.branch)? {
        Some(worktree) => {
            refuse_unclean(step.branch, &worktree)?;
            fast_forward(&worktree, step)
        }
        None => compare_and_swap(repo, step),
    };
    let Err(error) = moved else { return Ok(()) };
    refuse_moved(repo, step)?;
    Err(error.into())
}

fn refuse_moved(repo: &Repository, step: Move<'_>) -> Result<(), IntegrateError> {
    let found = tip(repo, step.branch)?;
    if found == step.from {
        return Ok(());
    }
    let (branch, expected) = (step.branch.to_owned(), step.from.to_owned());
    Err(IntegrateError::TargetMoved { branch, expected, found })
}

fn checkout_of(repo: &Repository, branch: &str) -> Result<Option<PathBuf>, CommandError> {
    let checkout = |it: &super::worktree::Listed| !it.bare && it.branch.as_deref() == Some(branch);
    Ok(list(repo)?.into_iter().find(checkout).map(|worktree| worktree.path))
}

/// While a branch is rebased it is checked out nowhere by name, but the rebase will end by moving it. Git itself is not
/// asked: it fails at a worktree that is being made at that moment.
fn refuse_rebased(repo: &Repository, branch: &str) -> Result<(), IntegrateError> {
    let main = [(repo.common_dir.clone(), repo.root().to_owned())];
    let linked = linked_git_dirs(repo).filter_map(|git_dir| place(&git_dir).map(|place| (git_dir, place)));
    let rebased = main.into_iter().chain(linked).find(|(git_dir, place)| place.exists() && is_rebased(git_dir, branch));
    match rebased {
        Some((_, worktree)) => {
            Err(IntegrateError::TargetBusy { branch: branch.to_owned(), worktree, operation: "rebase" })
        }
        None => Ok(()),
    }
}

fn is_rebased(git_dir: &Path, branch: &str) -> bool {
    let name = |state: &&str| fs::read_to_string(git_dir.join(state).join("head-name")).ok();
    let names = ["rebase-merge", "rebase-apply"].iter().filter_map(name);
    names.map(|name| name.trim_end().to_owned()).any(|name| name.strip_prefix("refs/heads/") == Some(branch))
}

fn compare_and_swap(repo: &Repository, step: Move<'_>) -> Result<(), CommandError> {
    let branch = format!("refs/heads/{}", step.branch);
    repo.write().args(["update-ref", "-m", &reason(step), &branch, step.to, step.from]).run().map(drop)
}

/// Says why the checkout must not be touched.
fn refuse_unclean(branch: &str, worktree: &Path) -> Result<(), IntegrateError> {
    let (branch, worktree) = (branch.to_owned(), worktree.to_owned());
    if let Some(operation) = operation_in_progress(&worktree)? {
        return Err(IntegrateError::TargetBusy { branch, worktree, operation });
    }
    let mut changed = status(&worktree, Untracked::Folders)?.entries;
    // Untracked files are no reason: git refuses if one is in the way.
    changed.retain(|entry| !entry.untracked);
    if changed.is_empty() {
        return Ok(());
    }
    let names = changed.iter().map(|entry| entry.path.display().to_string());
    let samples = names.take(SAMPLES).collect();
    Err(IntegrateError::TargetDirty { branch, worktree, count: changed.len(), samples })
}

/// An error is git's own refusal, for example because an untracked file is in the way.
fn fast_forward(worktree: &Path, step: Move<'_>) -> Result<(), CommandError> {
    let merge = Git::write(worktree)
        .env("GIT_REFLOG_ACTION", reason(step))
        .args(["merge", "--ff-only", "--no-squash", "--no-autostash", "--no-stat"])
        .args(["--quiet", "--no-overwrite-ignore", step.to]);
    merge.run().map(drop)
}

fn reason(step: Move<'_>) -> String {
    format!("{REASON}{}", step.what)
}
