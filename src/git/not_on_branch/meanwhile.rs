//! Work that appeared in the repository while a worker ran, outside the worktrees of this program: worktrees that were
//! added, and branches that were created or moved without a checkout. Git does not record their author, so they never
//! count as the worker's. A note to the boss names them, and states that their owner is unknown.
//!
//! In the usual case, no git process is started.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{Examined, UNCOMMITTED, names, part, shown};
use crate::git::checkout::{branch_commit, git_dir, resolve_commit};
use crate::git::command::CommandError;
use crate::git::facts::is_full_id;
use crate::git::layout::{MADE_FILE, linked_git_dirs, worktree_of};
use crate::git::list::list;
use crate::git::reflog::{self, head_moves};
use crate::git::refs;
use crate::git::status::{Untracked, status};
use crate::mission::outcome::NotOnBranch;
use crate::mission::words::count;

/// Returns what appeared since the worker's worktree was made. Branches whose names begin with `prefix` are those of
/// other workers.
pub fn appeared(examined: &Examined, prefix: &str) -> Result<Vec<NotOnBranch>, CommandError> {
    let Some(before) = examined.before else { return Ok(Vec::new()) };
    let own = git_dir(&examined.checkout())?;
    let Some(began) = changed(&own.join("commondir")) else { return Ok(Vec::new()) };
    let is_own = |folder: &PathBuf| folder.canonicalize().ok() == own.canonicalize().ok();
    let folders = linked_git_dirs(&examined.repo.common_dir).filter(|folder| !is_own(folder));
    let (added, others): (Vec<PathBuf>, Vec<PathBuf>) = folders.partition(|folder| is_added(folder, began));
    let others: Vec<PathBuf> = others.into_iter().chain([examined.repo.common_dir.clone()]).collect();
    let mut hidden: BTreeSet<String> =
        before.head.iter().chain(before.refs.values()).filter(|id| is_full_id(id)).cloned().collect();
    hidden.extend(
        branch_commit(&examined.repo.checkout(), examined.branch)?.into_iter().chain([examined.base.to_owned()]),
    );
    hidden.extend(resolve_commit(&examined.repo.checkout(), "HEAD")?);
    let mut parts = Vec::new();
    for worktree in added.iter().filter_map(|folder| worktree_of(folder)) {
        if !worktree.starts_with(examined.worktree) && worktree.is_dir() {
            parts.extend(of_worktree(examined, &worktree, &hidden)?);
        }
    }
    for (name, commit) in branches(examined, prefix, &own, &others)? {
        let commits = commits(examined, &commit, &hidden)?;
        if commits > 0 {
            let what = format!(
                "branch {name}, which appeared or moved since its worktree was made: {}",
                count(commits, "commit")
            );
            parts.push(part(what, format!("branch {name}"), how_to_merge(examined, &commit)));
        }
    }
    Ok(parts)
}

/// Returns whether these are git's records of a worktree that is newer than `began` and not of our making.
fn is_added(folder: &Path, began: SystemTime) -> bool {
    let is_newer = changed(&folder.join("commondir")).is_some_and(|then| then >= began);
    is_newer && !folder.join(MADE_FILE).exists() && !folder.join("locked").exists()
}

fn changed(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|it| it.modified()).ok()
}

fn of_worktree(
    examined: &Examined,
    worktree: &Path,
    hidden: &BTreeSet<String>,
) -> Result<Option<NotOnBranch>, CommandError> {
    let status = status(&examined.repo.at(worktree), Untracked::Files)?;
    let commits = match &status.head {
        Some(head) => commits(examined, head, hidden)?,
        None => 0,
    };
    let files: Vec<String> = status.entries.iter().map(|entry| shown(&entry.path)).collect();
    let on = status.branch.as_ref().map_or_else(String::new, |branch| format!(" on branch {branch}"));
    let committed = (commits > 0).then(|| format!("{}{on}", count(commits, "commit")));
    let left = (!files.is_empty()).then(|| format!("{}: {}", count(files.len(), UNCOMMITTED), names(&files)));
    let held: Vec<String> = committed.into_iter().chain(left).collect();
    if held.is_empty() {
        return Ok(None);
    }
    let what = format!("a worktree that appeared since its own was made, with {}", held.join(" and "));
    let first = if files.is_empty() { "" } else { "commit the files to keep there, then " };
    let head = status.branch.or(status.head).unwrap_or_default();
    Ok(Some(part(what, shown(worktree), format!("{first}{}", how_to_merge(examined, &head)))))
}

fn how_to_merge(examined: &Examined, commit: &str) -> String {
    format!("`git switch {} && git merge {commit}` in {}", examined.branch, shown(examined.worktree))
}

/// Returns the branches that are not what they were, each with its commit. Branches that are checked out somewhere are
/// left out, as are commits that were made in a known worktree.
fn branches(
    examined: &Examined,
    prefix: &str,
    own: &Path,
    others: &[PathBuf],
) -> Result<Vec<(String, String)>, CommandError> {
    let before = examined.before.map(|before| &before.refs);
    // Many refs are recorded by a hash of all of them.
    let (Some(before), Some(now)) = (before, refs::all(examined.repo.root())) else { return Ok(Vec::new()) };
    let is_other = |name: &str, commit: &String| {
        before.get(name) != Some(commit)
            && name.strip_prefix("refs/heads/").is_some_and(|it| it != examined.branch && !it.starts_with(prefix))
    };
    let mut found: Vec<(String, String)> = now.into_iter().filter(|(name, commit)| is_other(name, commit)).collect();
    if found.is_empty() || before.keys().any(|name| !name.starts_with("refs/")) {
        return Ok(Vec::new());
    }
    let used: BTreeSet<String> = list(examined.repo)?.into_iter().filter_map(|it| it.branch).collect();
    let mut made: BTreeSet<String> = BTreeSet::new();
    for folder in others.iter().map(PathBuf::as_path).chain([own]) {
        made.extend(head_moves(&examined.checkout(), folder)?.into_iter().map(|it| it.new));
    }
    found.retain(|(name, commit)| !used.contains(&name["refs/heads/".len()..]) && !made.contains(commit));
    let is_ours = |name: &str| {
        reflog::log(examined.repo, name)
            .is_ok_and(|log| log.first().is_some_and(|it| it.why.starts_with("orchestrator-boss")))
    };
    let named = found.into_iter().map(|(name, commit)| (name["refs/heads/".len()..].to_owned(), commit));
    Ok(named.filter(|(name, _)| !is_ours(name)).collect())
}

/// Counts the commits that are neither hidden nor on a branch of a remote.
fn commits(examined: &Examined, tip: &str, hidden: &BTreeSet<String>) -> Result<usize, CommandError> {
    let hidden: String = hidden.iter().map(|id| format!("^{id}\n")).collect();
    let git = examined.repo.read().args(["rev-list", "--count", "--ignore-missing", "--stdin", "--not", "--remotes"]);
    Ok(git.input(format!("{tip}\n{hidden}")).text()?.parse().unwrap_or(0))
}
