//! Commits that only a worktree's own records still know: its reflog (a commit that was amended or reset away), its
//! bisect and other private refs, and the state of an operation that is not finished. All of that goes with the worktree.
//!
//! This file only finds; it changes nothing.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::command::CommandError;
use super::repository::Repository;
use super::worktree::MADE_FILE;

/// Of a worktree's git folder, what holds no record of its own work: files, ids of trees, and what was fetched.
const NO_RECORDS: [&str; 8] =
    ["index", "modules", "objects", "gitdir", "commondir", "FETCH_HEAD", "AUTO_MERGE", MADE_FILE];

/// What stays when a worktree goes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reachable<'a> {
    /// A branch that goes too.
    pub except_branch: Option<&'a str>,
    /// A commit that counts as kept although no ref holds it: what is in it was squashed or picked.
    pub and: Option<&'a str>,
}

impl Reachable<'_> {
    /// For `git rev-list`: without what a branch, tag, remote branch, stash or any other ref that all worktrees share
    /// reaches.
    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["--not".to_owned()];
        arguments.extend(self.except_branch.map(|branch| format!("--exclude=refs/heads/{branch}")));
        arguments.push("--glob=refs/".to_owned());
        arguments.extend(self.and.map(str::to_owned));
        arguments
    }
}

/// Whether the commit stays. Asked at the root, because refs of a linked worktree go with it.
pub fn is_reachable(repo: &Repository, commit: &str, stays: Reachable) -> Result<bool, CommandError> {
    let unreached = repo.read().args(["rev-list", "--max-count=1", commit]).args(stays.arguments()).text()?;
    Ok(unreached.is_empty())
}

/// The newest commits among those that go with the worktree whose own git folder this is; none contains another.
/// Those that `also` reaches are left out.
pub fn reflog_only_commits(
    repo: &Repository,
    git_dir: &Path,
    keep: Reachable,
    also: Option<&str>,
) -> Result<Vec<String>, CommandError> {
    let mut ids = HashSet::new();
    collect_ids(git_dir, &mut ids);
    ids.extend(recorded_by_git(repo, git_dir)?);
    if let Some(branch) = keep.except_branch {
        collect_ids(&repo.common_dir.join("logs/refs/heads").join(branch), &mut ids);
    }
    let commits = existing_commits(repo, &ids)?;
    if commits.is_empty() {
        return Ok(commits);
    }
    let listed = repo
        .read()
        .args(["rev-list", "--topo-order", "--parents", "--stdin"])
        .args(keep.arguments())
        .args(also)
        .input(commits.join("\n"))
        .text()?;
    Ok(without_children(&listed))
}

/// Of `<commit> <parents>` lines, the commits that are nobody's parent.
pub fn without_children(listed: &str) -> Vec<String> {
    let parents: HashSet<&str> = listed.lines().flat_map(|line| line.split(' ').skip(1)).collect();
    let commits = listed.lines().filter_map(|line| line.split(' ').next());
    commits.filter(|commit| !parents.contains(commit)).map(str::to_owned).collect()
}

/// Every word in the files of a folder that could be the id of an object.
fn collect_ids(path: &Path, ids: &mut HashSet<String>) {
    if path.file_name().is_some_and(|name| NO_RECORDS.iter().any(|no| name == *no)) {
        return;
    }
    if path.is_dir() {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        return entries.for_each(|entry| collect_ids(&entry.path(), ids));
    }
    let bytes = fs::read(path).unwrap_or_default();
    let words = bytes.split(|byte| !byte.is_ascii_hexdigit());
    let long = words.filter(|word| matches!(word.len(), 40 | 64) && word.iter().any(|digit| *digit != b'0'));
    ids.extend(long.map(|word| String::from_utf8_lossy(word).into_owned()));
}

/// The same for a repository whose refs are no files.
fn recorded_by_git(repo: &Repository, git_dir: &Path) -> Result<Vec<String>, CommandError> {
    if !git_dir.join("reftable").exists() {
        return Ok(Vec::new());
    }
    let ask = || repo.read().env("GIT_DIR", git_dir);
    let refs = ["refs/bisect", "refs/worktree", "refs/rewritten"];
    let refs = ask().args(["for-each-ref", "--format=%(objectname)"]).args(refs).text()?;
    let log = ask().args(["log", "--walk-reflogs", "--format=%H", "HEAD"]).output()?;
    Ok(refs.lines().map(str::to_owned).chain(String::from_utf8_lossy(&log.stdout).lines().map(str::to_owned)).collect())
}

fn existing_commits(repo: &Repository, ids: &HashSet<String>) -> Result<Vec<String>, CommandError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let asked: String = ids.iter().flat_map(|id| [id, "\n"]).collect();
    let kinds = repo.read().args(["cat-file", "--batch-check=%(objecttype) %(objectname)"]).input(asked).text()?;
    Ok(kinds.lines().filter_map(|line| line.strip_prefix("commit ")).map(str::to_owned).collect())
}

/// The folder in which git keeps a linked worktree's HEAD, index and reflog; also when the worktree's own folder is gone.
/// `None` when git has none for it.
pub fn own_git_dir(repo: &Repository, worktree: &Path) -> Option<PathBuf> {
    let is_its = |folder: &PathBuf| {
        worktree_of(folder).is_some_and(|it| it == worktree || it.canonicalize().is_ok_and(|it| it == worktree))
    };
    linked_git_dirs(repo).find(is_its)
}

/// Git's folders of all linked worktrees, also of those that are half made, or whose own folders are gone.
pub(super) fn linked_git_dirs(repo: &Repository) -> impl Iterator<Item = PathBuf> {
    let folders = fs::read_dir(repo.common_dir.join("worktrees")).into_iter().flatten().flatten();
    folders.map(|folder| folder.path())
}

/// The root of the linked worktree that git keeps this folder for.
pub(super) fn worktree_of(git_dir: &Path) -> Option<PathBuf> {
    let link = fs::read_to_string(git_dir.join("gitdir")).ok()?;
    // It may be relative to this folder.
    let link = git_dir.join(link.trim_end_matches('\n'));
    Some(link.parent().unwrap_or(&link).to_owned())
}
