//! Finds commits that only a worktree's own records name. These are its reflog (for amended or reset commits), its
//! private refs such as those of a bisect, and the state of an unfinished operation. Git deletes them with the
//! worktree.
//!
//! This module changes nothing.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use super::command::CommandError;
use super::layout::{CLONE_FOLDER, MADE_FILE, NOT_BORROWED};
use super::repository::Repository;

/// Entries of a worktree's git directory that do not record its work: files, ids of trees, and fetched commits.
const NO_RECORDS: [&str; 9] =
    ["index", "modules", "objects", "gitdir", "commondir", "FETCH_HEAD", "AUTO_MERGE", MADE_FILE, CLONE_FOLDER];

/// The refs and commits that remain when a worktree is removed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reachable<'a> {
    /// A branch that is deleted together with the worktree.
    pub except_branch: Option<&'a str>,
    /// A commit that counts as reachable without a ref, because its changes were squashed or picked.
    pub and: Option<&'a str>,
}

impl Reachable<'_> {
    /// Returns arguments for `git rev-list` that exclude everything reachable from the refs that all worktrees share.
    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["--not".to_owned()];
        arguments.extend(self.except_branch.map(|branch| format!("--exclude=refs/heads/{branch}")));
        arguments.extend([NOT_BORROWED, "--glob=refs/"].map(str::to_owned));
        arguments.extend(self.and.map(str::to_owned));
        arguments
    }
}

/// Returns whether the commit remains reachable. Git runs at the root, because refs of a linked worktree are deleted
/// with it.
pub fn is_reachable(repo: &Repository, commit: &str, from: Reachable) -> Result<bool, CommandError> {
    let unreached = repo.read().args(["rev-list", "--max-count=1", commit]).args(from.arguments()).text()?;
    Ok(unreached.is_empty())
}

/// Returns the newest commits that would be lost with the worktree of this git directory. None of them contains
/// another, and commits reachable from `also` are left out.
pub fn reflog_only_commits(
    repo: &Repository,
    git_dir: &Path,
    from: Reachable,
    also: Option<&str>,
) -> Result<Vec<String>, CommandError> {
    let mut ids = HashSet::new();
    collect_ids(git_dir, &mut ids);
    ids.extend(recorded_by_git(repo, git_dir)?);
    if let Some(branch) = from.except_branch {
        collect_ids(&repo.common_dir.join("logs/refs/heads").join(branch), &mut ids);
    }
    let commits = existing_commits(repo, &ids)?;
    if commits.is_empty() {
        return Ok(commits);
    }
    let listed = repo
        .read()
        .args(["rev-list", "--topo-order", "--parents", "--stdin"])
        .args(from.arguments())
        .args(also)
        .input(commits.join("\n"))
        .text()?;
    Ok(without_children(&listed))
}

/// Returns the commits of `<commit> <parents>` lines that are no parent of another one.
pub fn without_children(listed: &str) -> Vec<String> {
    let parents: HashSet<&str> = listed.lines().flat_map(|line| line.split(' ').skip(1)).collect();
    let commits = listed.lines().filter_map(|line| line.split(' ').next());
    commits.filter(|commit| !parents.contains(commit)).map(str::to_owned).collect()
}

/// Collects every word in the files of a folder that could be the id of an object.
pub(super) fn collect_ids(path: &Path, ids: &mut HashSet<String>) {
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

/// Returns the ids that git names, for a repository whose refs are not stored in files.
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
