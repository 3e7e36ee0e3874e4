//! Salvage: everything that a worktree holds, put into one commit under `refs/orchestrator/salvage/`, so that the
//! worktree may then be deleted.
//!
//! Modified, staged, untracked and conflicted files are in the commit's tree, as are changed copies of ours that git
//! ignores. Its first parent is HEAD. What was staged and differs from the files, and the commits of submodules and
//! other repositories inside, are further parents, so that the one ref keeps all of it. The worktree and its index are
//! only read: the tree is built in a temporary index.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::command::{CommandError, Git};
use super::include::Copied;
use super::index::{IndexError, TemporaryIndex, add, stage};
use super::nested::{nested_repositories, unpublished_commits};
use super::repository::{Identity, Repository, commit_with, resolve_commit};
use super::status::{Entry, Status, Untracked, status};
use super::worktree::zero_id;

const PREFIX: &str = "refs/orchestrator/salvage/";

/// So many salvages of one name are a mistake somewhere else.
const MOST_OF_ONE_NAME: u32 = 10_000;

#[derive(Debug, thiserror::Error)]
pub enum SalvageError {
    #[error(transparent)]
    Git(#[from] CommandError),
    #[error("use {name:?} as the name of a salvage ref: git does not allow it")]
    InvalidName { name: String },
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error(
        "salvage {}: git in the folder around it takes it for a repository, but cannot work in it; move it away",
        path.display()
    )]
    UnreadableRepository { path: PathBuf },
    #[error("find a free name for salvage ref {name}: delete old ones with `git update-ref -d`")]
    NoFreeName { name: String },
}

/// Where salvaged work is kept: `git show <name>` shows it, `git checkout <name> -- .` brings it back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SalvageRef {
    pub name: String,
    pub commit: String,
}

/// What to keep, beyond what git itself sees as uncommitted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Keep<'a> {
    /// The commits too, although they are on a branch: the branch is about to go.
    pub branch_commits: bool,
    /// What we copied into the worktree; those that were changed are kept.
    pub copies: &'a [Copied],
}

/// Keeps the work in `worktree` as `refs/orchestrator/salvage/<name>`, or with a number behind the name if that is
/// taken. `None` when there is nothing that would be lost with the worktree.
pub fn salvage(repo: &Repository, worktree: &Path, name: &str, keep: Keep) -> Result<Option<SalvageRef>, SalvageError> {
    check_name(name)?;
    let Some(commit) = snapshot(worktree, name, keep.copies)? else {
        return Ok(None);
    };
    let lost = keep.branch_commits || !is_on_a_ref(repo, &commit)?;
    lost.then(|| keep_commit(repo, name, &commit)).transpose()
}

/// Keeps a commit that is in no worktree any more. The caller knows that it is worth it.
pub fn keep_commit(repo: &Repository, name: &str, commit: &str) -> Result<SalvageRef, SalvageError> {
    check_name(name)?;
    for number in 1..MOST_OF_ONE_NAME {
        let suffix = match number {
            1 => String::new(),
            number => format!("-{number}"),
        };
        let full = format!("{PREFIX}{name}{suffix}");
        let made = repo.write().args(["update-ref", "-m", "salvage", &full, commit]).arg(zero_id(commit)).run();
        let taken_by = match made {
            Ok(_) => commit.to_owned(),
            Err(error) => resolve_commit(repo.root(), &full)?.ok_or(error)?,
        };
        if taken_by == commit {
            return Ok(SalvageRef { name: full, commit: commit.to_owned() });
        }
    }
    Err(SalvageError::NoFreeName { name: name.to_owned() })
}

/// Whether a branch, tag, remote branch, stash or any other ref that all worktrees share reaches the commit. Asked at
/// the root, because refs of a linked worktree go with it.
pub(super) fn is_on_a_ref(repo: &Repository, commit: &str) -> Result<bool, CommandError> {
    let unreached = repo.read().args(["rev-list", "--max-count=1", commit]).args(["--not", "--glob=refs/"]).text()?;
    Ok(unreached.is_empty())
}

/// The commit that holds all of a worktree: HEAD itself if nothing is uncommitted, `None` if there is nothing at all.
fn snapshot(worktree: &Path, title: &str, copies: &[Copied]) -> Result<Option<String>, SalvageError> {
    let Status { head, entries, .. } = status(worktree, Untracked::Files)?;
    let nested = fetch_nested(worktree, title, &entries)?;
    let copies: Vec<&Copied> = copies.iter().filter(|c| c.is_changed(worktree)).collect();
    if entries.is_empty() && nested.is_empty() && copies.is_empty() {
        return Ok(head);
    }
    let index = TemporaryIndex::copy_of(worktree)?;
    // While there are conflicts git can write no tree of what is staged.
    let overwritten = entries.iter().any(|e| e.staged && e.in_worktree);
    let staged = if overwritten && !index.has_conflicts()? { Some(index.write_tree()?) } else { None };
    stage(index.git(), &entries)?;
    let copies = copies.iter().map(|copy| Path::new(&copy.path));
    add(index.git(), &["--force", "--sparse"], copies)?;
    let tree = index.write_tree()?;
    let mut parents: Vec<String> = head.into_iter().collect();
    if let Some(staged) = staged {
        parents.push(commit_tree(worktree, &staged, &parents, "staged")?);
    }
    parents.extend(nested);
    commit_tree(worktree, &tree, &parents, title).map(Some)
}

/// Brings the unpublished commits and the uncommitted files of the repositories inside into the object store around
/// them, where nothing keeps them yet.
fn fetch_nested(worktree: &Path, title: &str, entries: &[Entry]) -> Result<Vec<String>, SalvageError> {
    let mut fetched = Vec::new();
    let repositories = nested_repositories(worktree, entries)?;
    let untracked = entries.iter().filter(|entry| entry.is_repository());
    for path in untracked.map(|entry| worktree.join(&entry.path)) {
        if !repositories.contains(&path) {
            return Err(SalvageError::UnreadableRepository { path });
        }
    }
    for repository in repositories {
        let whole = snapshot(&repository, title, &[])?;
        let commits = unpublished_commits(&repository, whole.as_deref())?;
        if commits.is_empty() {
            continue;
        }
        Git::write(worktree)
            .config("protocol.file.allow=always")
            .config("protocol.version=2")
            .args(["fetch", "--quiet", "--no-tags", "--no-write-fetch-head"])
            .args(["--no-recurse-submodules", "--update-shallow", "--"])
            .arg(&repository)
            .args(&commits)
            .run()?;
        fetched.extend(commits);
    }
    Ok(fetched)
}

fn commit_tree(dir: &Path, tree: &str, parents: &[String], message: &str) -> Result<String, SalvageError> {
    let commit = commit_with(dir, &Identity::fallback(), |git| {
        git.args(["commit-tree", tree])
            .args(parents.iter().flat_map(|parent| ["-p", parent]))
            .args(["-F", "-"])
            .input(format!("salvage: {message}\n"))
    });
    Ok(commit?)
}

fn check_name(name: &str) -> Result<(), SalvageError> {
    let valid = git2::Reference::is_valid_name(&format!("{PREFIX}{name}"));
    valid.then_some(()).ok_or_else(|| SalvageError::InvalidName { name: name.to_owned() })
}

#[cfg(test)]
mod tests;
