//! Removing worktrees without losing work.
//!
//! A locked worktree (a worker lives in it) and the main one are never removed. What would be lost is looked for first:
//! uncommitted files, commits of a detached HEAD, commits of submodules, and with the branch also commits that are not
//! integrated. Any of it is a refusal; with `force` it is salvaged and then removed. Ignored files go without a word,
//! except copies of ours that were changed.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::command::{CommandError, Git};
use super::fingerprint::tree_state;
use super::include::Copied;
use super::nested::{nested_repositories, unpublished_commits};
use super::repository::{Identity, Repository, RepositoryError, branch_commit, commit_with, resolve_commit};
use super::salvage::{Keep, SalvageError, SalvageRef, is_on_a_ref, keep_commit, salvage};
use super::status::{Untracked, status};
use super::worktree::{Listed, WorktreeError, find, list};

/// How many paths a refusal names.
const SAMPLES: usize = 5;

/// How often the work is salvaged again because it changed meanwhile.
const ATTEMPTS: usize = 3;

#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    #[error(transparent)]
    Git(#[from] CommandError),
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    #[error(transparent)]
    Worktree(#[from] WorktreeError),
    #[error(transparent)]
    Salvage(#[from] SalvageError),
    #[error("remove {}: it is the main worktree", path.display())]
    MainWorktree { path: PathBuf },
    #[error("remove {}: it is locked ({reason}); a worker's worktree is free when the worker has settled", path.display())]
    Locked { path: PathBuf, reason: String },
    #[error(
        "remove {}: {count} uncommitted or untracked files ({}); commit them there, or use `force`, which keeps them \
         in a salvage ref",
        path.display(),
        samples.join(", ")
    )]
    Dirty { path: PathBuf, count: usize, samples: Vec<String> },
    #[error(
        "remove {}: its HEAD is detached at {commit}, which is on no branch; make a branch there, or use `force`, \
         which keeps it in a salvage ref",
        path.display()
    )]
    Detached { path: PathBuf, commit: String },
    #[error(
        "remove {}: commits in {} are nowhere else; push them, or use `force`, which keeps them in a salvage ref",
        path.display(),
        repositories.join(", ")
    )]
    SubmoduleCommits { path: PathBuf, repositories: Vec<String> },
    #[error(
        "delete branch {branch}: {commits} of its commits are not in {into}; integrate it, leave out `delete_branch`, \
         or use `force`, which keeps them in a salvage ref"
    )]
    Unmerged { branch: String, into: String, commits: usize },
    #[error("delete branch {branch}: it is the integration branch; leave out `delete_branch`")]
    IntegrationBranch { branch: String },
    #[error("remove {}: something still changes files there; end it first", path.display())]
    Busy { path: PathBuf },
}

#[derive(Debug, Clone, Default)]
pub struct Remove {
    pub path: PathBuf,
    pub force: bool,
    /// The branch that is checked out there goes too.
    pub delete_branch: bool,
    /// What counts as integrated; without it, what is checked out at the repository's root.
    pub integration_branch: Option<String>,
    /// Names the ref that keeps what would be lost.
    pub salvage_name: String,
    /// As returned when the worktree was made.
    pub copies: Vec<Copied>,
    /// The branch that it had when it was made, for one that was removed by somebody else already.
    pub branch: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Removed {
    pub path: PathBuf,
    pub branch: Option<String>,
    pub branch_deleted: bool,
    pub salvage_ref: Option<SalvageRef>,
}

pub fn remove(repo: &Repository, request: &Remove) -> Result<Removed, RemoveError> {
    let (found, known) = match (find(repo, &request.path), &request.branch) {
        (Ok(found), _) => (found, true),
        (Err(WorktreeError::NotAWorktree { path, .. }), Some(branch)) if !path.exists() => {
            (removed_by_somebody(repo, path, branch)?, false)
        }
        (Err(error), _) => return Err(error.into()),
    };
    if known {
        check_removable(repo, &found)?;
    }
    let unmerged =
        if request.delete_branch { find_unmerged(repo, &found, request.integration_branch.as_deref())? } else { None };
    let salvage_ref = if request.force {
        salvage_all(repo, request, &found, unmerged.is_some())?
    } else {
        refuse_losses(repo, request, &found)?;
        if let Some(refusal) = unmerged {
            return Err(refusal);
        }
        None
    };
    let branch_deleted = delete(repo, request, &found, known)?;
    Ok(Removed { path: found.path, branch_deleted, branch: found.branch, salvage_ref })
}

fn check_removable(repo: &Repository, found: &Listed) -> Result<(), RemoveError> {
    let path = found.path.clone();
    if list(repo)?.first().is_some_and(|main| main.path == path) {
        return Err(RemoveError::MainWorktree { path });
    }
    match &found.locked {
        Some(reason) => Err(RemoveError::Locked { path, reason: reason.clone() }),
        None => Ok(()),
    }
}

fn refuse_losses(repo: &Repository, request: &Remove, found: &Listed) -> Result<(), RemoveError> {
    let path = found.path.clone();
    if !found.missing {
        refuse_dirty(&path, &request.copies)?;
    }
    if let Some(commit) = loose_head(repo, found)? {
        return Err(RemoveError::Detached { path, commit });
    }
    let repositories = match found.missing {
        true => Vec::new(),
        false => unpublished_repositories(&path)?,
    };
    if !repositories.is_empty() {
        return Err(RemoveError::SubmoduleCommits { path, repositories });
    }
    Ok(())
}

fn refuse_dirty(path: &Path, copies: &[Copied]) -> Result<(), RemoveError> {
    let entries = status(path, Untracked::Files)?.entries;
    let changed = entries.iter().map(|e| e.path.display().to_string());
    let copies = copies.iter().filter(|copy| copy.is_changed(path));
    let mut samples: Vec<String> = changed.chain(copies.map(|c| c.path.clone())).collect();
    let count = samples.len();
    samples.truncate(SAMPLES);
    if count == 0 {
        return Ok(());
    }
    Err(RemoveError::Dirty { path: path.to_owned(), count, samples })
}

/// The commit of a detached HEAD that goes with the worktree.
fn loose_head(repo: &Repository, found: &Listed) -> Result<Option<String>, CommandError> {
    match (&found.branch, &found.head) {
        (None, Some(head)) if !is_on_a_ref(repo, head)? => Ok(Some(head.clone())),
        _ => Ok(None),
    }
}

fn unpublished_repositories(worktree: &Path) -> Result<Vec<String>, CommandError> {
    let mut names = Vec::new();
    for repository in nested_repositories(worktree, &[])? {
        let head = resolve_commit(&repository, "HEAD")?;
        if !unpublished_commits(&repository, head.as_deref())?.is_empty()
            || !unpublished_repositories(&repository)?.is_empty()
        {
            let inside = repository.strip_prefix(worktree).unwrap_or(&repository);
            names.push(inside.display().to_string());
        }
    }
    Ok(names)
}

/// The refusal for a branch whose work would be lost with it.
fn find_unmerged(
    repo: &Repository,
    found: &Listed,
    integration_branch: Option<&str>,
) -> Result<Option<RemoveError>, RemoveError> {
    let (Some(branch), Some(tip)) = (&found.branch, &found.head) else {
        return Ok(None);
    };
    let (into, name) = match integration_branch {
        Some(name) => (branch_commit(repo.root(), name)?, name.to_owned()),
        None => (resolve_commit(repo.root(), "HEAD")?, repo.integration_branch()?),
    };
    if *branch == name {
        return Err(RemoveError::IntegrationBranch { branch: name });
    }
    let into = into.ok_or_else(|| RepositoryError::UnknownCommit { name: name.clone() })?;
    if is_integrated(repo, tip, &into)? {
        return Ok(None);
    }
    let commits = repo.read().args(["rev-list", "--count", tip, "--not", &into]).text()?;
    Ok(Some(RemoveError::Unmerged { branch: branch.clone(), into: name, commits: commits.parse().unwrap_or(1) }))
}

/// Merged, or squashed or picked with the same effect.
pub(super) fn is_integrated(repo: &Repository, tip: &str, into: &str) -> Result<bool, CommandError> {
    let ancestor = ["merge-base", "--is-ancestor", tip, into];
    if repo.read().args(ancestor).succeeds()? {
        return Ok(true);
    }
    let Some(base) = repo.read().args(["merge-base", tip, into]).answer()? else {
        return Ok(false);
    };
    let base = String::from_utf8_lossy(&base).trim().to_owned();
    Ok(merging_changes_nothing(repo, tip, into)?
        || is_picked(repo, tip, into)?
        || is_picked(repo, &squash(repo, tip, &base)?, into)?)
}

fn merging_changes_nothing(repo: &Repository, tip: &str, into: &str) -> Result<bool, CommandError> {
    let merged = repo.read().args(["merge-tree", "--write-tree", "--no-messages", into, tip]).answer()?;
    let tree = repo.read().args(["rev-parse", &format!("{into}^{{tree}}")]).text()?;
    Ok(merged.is_some_and(|merged| merged.trim_ascii() == tree.as_bytes()))
}

/// Every commit has a twin with the same changes in `into`.
fn is_picked(repo: &Repository, tip: &str, into: &str) -> Result<bool, CommandError> {
    let merges = repo.read().args(["rev-list", "--merges", "--count", tip, "--not", into]).text()?;
    let commits = repo.read().args(["cherry", into, tip]).text()?;
    // Merge commits are not compared by `git cherry`, and may hold changes of their own.
    Ok(merges == "0" && commits.lines().all(|line| line.starts_with('-')))
}

/// All changes of a branch as one commit, which no ref points at.
fn squash(repo: &Repository, tip: &str, base: &str) -> Result<String, CommandError> {
    commit_with(repo.root(), &Identity::fallback(), |git| {
        git.args(["commit-tree", &format!("{tip}^{{tree}}")]).args(["-p", base, "-m", "squashed"])
    })
}

/// Salvages until nothing changes any more between the salvage and the look after it.
fn salvage_all(
    repo: &Repository,
    request: &Remove,
    found: &Listed,
    keep_branch: bool,
) -> Result<Option<SalvageRef>, RemoveError> {
    if found.missing {
        return salvage_missing(repo, request, found, keep_branch);
    }
    let keep = Keep { branch_commits: keep_branch, copies: &request.copies };
    for _ in 0..ATTEMPTS {
        let before = tree_state(&found.path)?;
        let kept = salvage(repo, &found.path, &request.salvage_name, keep)?;
        if tree_state(&found.path)? == before {
            return Ok(kept);
        }
    }
    Err(RemoveError::Busy { path: found.path.clone() })
}

/// The folder is gone, but git still knows what was checked out there.
fn salvage_missing(
    repo: &Repository,
    request: &Remove,
    found: &Listed,
    keep_branch: bool,
) -> Result<Option<SalvageRef>, RemoveError> {
    let commit = match &found.head {
        Some(head) if keep_branch => Some(head.clone()),
        _ => loose_head(repo, found)?,
    };
    Ok(commit.map(|commit| keep_commit(repo, &request.salvage_name, &commit)).transpose()?)
}

/// Git has forgotten it, and its folder is gone; the branch is what can be left of it.
fn removed_by_somebody(repo: &Repository, path: PathBuf, branch: &str) -> Result<Listed, CommandError> {
    let head = branch_commit(repo.root(), branch)?;
    Ok(Listed { path, branch: head.is_some().then(|| branch.to_owned()), head, missing: true, ..Listed::default() })
}

/// Tells whether there was a branch to delete.
fn delete(repo: &Repository, request: &Remove, found: &Listed, known: bool) -> Result<bool, RemoveError> {
    let _lock = repo.lock()?;
    if known {
        delete_worktree(repo, request, found)?;
    }
    if let (true, Some(branch), Some(tip)) = (request.delete_branch, &found.branch, &found.head) {
        delete_branch(repo, branch, tip)?;
        return Ok(true);
    }
    Ok(false)
}

fn delete_worktree(repo: &Repository, request: &Remove, found: &Listed) -> Result<(), CommandError> {
    // Git refuses submodules altogether without force; that they are clean was seen above.
    let has_repositories = !found.missing && !nested_repositories(&found.path, &[])?.is_empty();
    let mut git = repo.write().args(["worktree", "remove"]);
    if request.force || has_repositories {
        git = git.arg("--force");
    }
    git.arg("--").arg(&found.path).run().map(drop)
}

/// Only where it still is what was looked at.
fn delete_branch(repo: &Repository, branch: &str, tip: &str) -> Result<(), CommandError> {
    repo.write().args(["update-ref", "-d", &format!("refs/heads/{branch}"), tip]).run()?;
    let section = format!("branch.{branch}");
    // There is a section only if the branch was pushed with an upstream.
    Git::write(repo.root()).args(["config", "--local", "--remove-section", &section]).output()?;
    Ok(())
}

#[cfg(test)]
mod tests;
