//! Moves a branch to the result of an integration. A branch that is not checked out moves by compare-and-swap.
//! Otherwise git does a fast-forward, which fails if it would overwrite uncommitted changes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::blocking::{BlockingPaths, CheckoutState, TreeChange, tree_changes};
use super::checkout::git_dir;
use super::command::{CommandError, Git};
use super::integrate::{IntegrateError, REASON, tip};
use super::layout::{Listed, linked_git_dirs, worktree_of};
use super::list::list;
use super::repository::Repository;
use super::status::operation_in_progress_in;
use super::trust::Checkout;

/// Maximum number of files that an error names.
const SAMPLES: usize = 5;

/// Age from which the lock of an index counts as stale. Git holds such a lock only for moments.
const STALE: Duration = Duration::from_secs(60);

/// A branch with its expected commit and its new one.
#[derive(Debug, Clone, Copy)]
pub struct BranchMove<'a> {
    pub branch: &'a str,
    pub from: &'a str,
    pub to: &'a str,
    /// Name of the integrated branch, for the reflog.
    pub what: &'a str,
}

/// The checkout of a branch, if there is one, and the uncommitted changes in it.
pub struct Landing {
    branch: String,
    checkout: Option<(Checkout, CheckoutState)>,
}

impl Landing {
    /// Reads the checkout of a branch. Returns an error if an operation is unfinished there.
    pub fn of(repo: &Repository, branch: &str) -> Result<Self, IntegrateError> {
        refuse_rebased(repo, branch)?;
        let checkout = match checkout_of(repo, branch)? {
            Some(worktree) => {
                refuse_busy(branch, &worktree)?;
                let state = CheckoutState::of(&worktree)?;
                Some((worktree, state))
            }
            None => None,
        };
        Ok(Self { branch: branch.to_owned(), checkout })
    }

    /// Returns an error where [`land`] would fail, so that no verification runs for a result that cannot land.
    pub fn check(&self, changes: &[TreeChange]) -> Result<(), IntegrateError> {
        let Some((worktree, state)) = &self.checkout else { return Ok(()) };
        let BlockingPaths { unmerged, changed, untracked } = state.blocking_paths(worktree, changes)?;
        let (branch, worktree) = (self.branch.clone(), worktree.to_path_buf());
        let samples = |paths: &[PathBuf]| paths.iter().take(SAMPLES).map(|path| path.display().to_string()).collect();
        if !unmerged.is_empty() {
            return Err(IntegrateError::TargetUnmerged { branch, worktree, samples: samples(&unmerged) });
        }
        if !changed.is_empty() {
            let (count, samples) = (changed.len(), samples(&changed));
            return Err(IntegrateError::TargetDirty { branch, worktree, count, samples });
        }
        if !untracked.is_empty() {
            let (count, samples) = (untracked.len(), samples(&untracked));
            return Err(IntegrateError::InTheWay { branch, worktree, count, samples });
        }
        Ok(())
    }
}

/// Moves the branch if it still points at `step.from`.
pub fn land(repo: &Repository, step: BranchMove<'_>) -> Result<(), IntegrateError> {
    // The lock keeps this program's other processes from checking the branch out between the check and the move.
    let _lock = repo.lock()?;
    refuse_moved(repo, step)?;
    let landing = Landing::of(repo, step.branch)?;
    landing.check(&tree_changes(repo.read(), step.from, step.to)?)?;
    let moved = match &landing.checkout {
        Some((worktree, _)) => fast_forward(worktree, step),
        None => compare_and_swap(repo, step),
    };
    let Err(error) = moved else { return Ok(()) };
    refuse_moved(repo, step)?;
    if let Some((worktree, _)) = &landing.checkout {
        undo_fast_forward(worktree, step);
    }
    Err(error.into())
}

fn refuse_moved(repo: &Repository, step: BranchMove<'_>) -> Result<(), IntegrateError> {
    let found = tip(repo, step.branch)?;
    if found == step.from {
        return Ok(());
    }
    let (branch, expected) = (step.branch.to_owned(), step.from.to_owned());
    Err(IntegrateError::TargetMoved { branch, expected, found })
}

fn checkout_of(repo: &Repository, branch: &str) -> Result<Option<Checkout>, CommandError> {
    // A checkout without a folder has no files that an integration could change.
    let checkout = |it: &Listed| !it.bare && !it.missing && it.branch.as_deref() == Some(branch);
    Ok(list(repo)?.into_iter().find(checkout).map(|worktree| repo.at(worktree.path)))
}

/// Returns an error if the branch is being rebased. It is then checked out nowhere by name, but the end of the rebase
/// moves it. The git program is not used here: it fails while a worktree is half created.
fn refuse_rebased(repo: &Repository, branch: &str) -> Result<(), IntegrateError> {
    let main = [(repo.common_dir.clone(), repo.root().to_owned())];
    let linked =
        linked_git_dirs(&repo.common_dir).filter_map(|git_dir| worktree_of(&git_dir).map(|place| (git_dir, place)));
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

fn compare_and_swap(repo: &Repository, step: BranchMove<'_>) -> Result<(), CommandError> {
    let branch = format!("refs/heads/{}", step.branch);
    repo.write().args(["update-ref", "-m", &reason(step), &branch, step.to, step.from]).run().map(drop)
}

/// Returns an error if the checkout must not be touched at all.
fn refuse_busy(branch: &str, worktree: &Checkout) -> Result<(), IntegrateError> {
    let (branch, git_dir) = (branch.to_owned(), git_dir(worktree)?);
    // An unfinished bisect does not prevent a merge.
    if let Some(operation) = operation_in_progress_in(&git_dir).filter(|it| *it != "bisect") {
        return Err(IntegrateError::TargetBusy { branch, worktree: worktree.to_path_buf(), operation });
    }
    let lock = git_dir.join("index.lock");
    let age = fs::metadata(&lock).and_then(|found| found.modified()).ok().and_then(|it| it.elapsed().ok());
    if age.is_some_and(|age| age > STALE) { Err(IntegrateError::TargetLocked { branch, lock }) } else { Ok(()) }
}

/// Fast-forwards the checkout. An error means that git refused, for example because of an untracked file.
fn fast_forward(worktree: &Checkout, step: BranchMove<'_>) -> Result<(), CommandError> {
    let merge = Git::write(worktree)
        .env("GIT_REFLOG_ACTION", reason(step))
        .args(["merge", "--ff-only", "--no-squash", "--no-autostash", "--no-stat"])
        .args(["--quiet", "--no-overwrite-ignore", step.to]);
    merge.run().map(drop)
}

/// Restores the files after a failed fast-forward, since git changes them before the branch. Uncommitted changes stay.
fn undo_fast_forward(worktree: &Checkout, step: BranchMove<'_>) {
    // This changes nothing if nothing was changed, and fails if git had refused to change anything.
    let restored = Git::write(worktree).args(["read-tree", "-m", "-u", step.to, step.from]).run();
    if let Err(error) = restored {
        tracing::warn!(%error, "could not undo a failed fast-forward");
    }
}

fn reason(step: BranchMove<'_>) -> String {
    format!("{REASON}{}", step.what)
}
