//! Repositories inside a worktree: initialised submodules, and repositories that were created or cloned there.
//!
//! Their commits are not in the outer repository. A submodule's repository is in the worktree's own part of `.git`, so
//! removing the worktree deletes it. This file only finds what would be lost; it changes nothing.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use super::command::{CommandError, Git};
use super::records::links;
use super::reflog_only::without_children;
use super::status::StatusEntry;
use super::trust::Checkout;

/// The repositories directly inside `worktree`, as absolute paths. `entries` is the worktree's status.
pub fn nested_repositories(worktree: &Checkout, entries: &[StatusEntry]) -> Result<Vec<PathBuf>, CommandError> {
    let mut found = submodules(worktree)?;
    let untracked = entries.iter().filter(|entry| entry.is_repository());
    found.extend(untracked.map(|entry| worktree.join(&entry.path)));
    let mut repositories = Vec::new();
    for path in found {
        if is_own_repository(&worktree.at(&path))? {
            repositories.push(path);
        }
    }
    Ok(repositories)
}

/// Returns folders whose untracked files form a bare repository, which git lists as plain files.
pub fn bare_repositories(worktree: &Path, entries: &[StatusEntry]) -> Vec<PathBuf> {
    let heads = entries.iter().filter(|entry| entry.untracked && entry.path.file_name() == Some(OsStr::new("HEAD")));
    let folders = heads.filter_map(|entry| entry.path.parent());
    let is_one =
        |folder: &&Path| worktree.join(folder).join("objects").is_dir() && worktree.join(folder).join("refs").is_dir();
    folders.filter(is_one).map(Path::to_owned).collect()
}

/// Returns whether a separate repository exists at this path and has the commit.
pub fn has_commit(path: &Checkout, commit: &str) -> bool {
    if path.join(".git").symlink_metadata().is_err() {
        return false;
    }
    let ask = Git::read(path).args(["cat-file", "-e", &format!("{commit}^{{commit}}")]);
    ask.output().is_ok_and(|answer| answer.code == Some(0))
}

/// Returns the newest commits of a nested repository that exist nowhere else, according to its remote-tracking
/// branches. HEAD (or `head` in its place), every branch, tag and stash, and the reflog are considered. No returned
/// commit contains another.
pub fn unpublished_commits(repository: &Checkout, head: Option<&str>) -> Result<Vec<String>, CommandError> {
    if !keeps_its_own_commits(repository)? {
        // A linked worktree of a repository elsewhere, which stays: only what is on none of its refs would go.
        let Some(head) = head else { return Ok(Vec::new()) };
        let git = Git::read(repository).args(["rev-list", "--max-count=1", head, "--not", "--all"]);
        return Ok(if git.text()?.is_empty() { Vec::new() } else { vec![head.to_owned()] });
    }
    unpublished(Git::read(repository), head)
}

/// The same for submodules whose files are gone, but not their repositories in the worktree's own part of `.git`.
pub fn unpublished_modules(git_dir: &Checkout) -> Result<Vec<(PathBuf, Vec<String>)>, CommandError> {
    let mut found = Vec::new();
    let mut folders = vec![git_dir.join("modules")];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()).filter(|path| path.is_dir() && !path.is_symlink()) {
            if !path.join("HEAD").is_file() || !path.join("objects").is_dir() {
                folders.push(path);
                continue;
            }
            let call = || Git::read(&git_dir.at(&path)).env("GIT_DIR", &path).env("GIT_WORK_TREE", &path);
            let head = call().args(["rev-parse", "--verify", "--quiet", "HEAD"]).answer()?;
            let head = head.map(|head| String::from_utf8_lossy(&head).trim().to_owned());
            let commits = unpublished(call(), head.as_deref())?;
            if !commits.is_empty() {
                found.push((path.clone(), commits));
            }
            folders.push(path.join("modules"));
        }
    }
    Ok(found)
}

fn unpublished(git: Git, head: Option<&str>) -> Result<Vec<String>, CommandError> {
    let listed = git
        .args(["rev-list", "--topo-order", "--parents", "--ignore-missing"])
        .args(["--exclude=refs/remotes/*", "--all", "--reflog"])
        .args(head)
        .args(["--not", "--remotes"])
        .text()?;
    Ok(without_children(&listed))
}

/// Whether its commits would go with the folder, as they do not for a linked worktree.
fn keeps_its_own_commits(repository: &Checkout) -> Result<bool, CommandError> {
    let ask = |what| Git::read(repository).args(["rev-parse", "--path-format=absolute", what]).path();
    Ok(ask("--git-dir")? == ask("--git-common-dir")?)
}

fn submodules(worktree: &Checkout) -> Result<Vec<PathBuf>, CommandError> {
    Ok(links(worktree)?.into_iter().map(|link| worktree.join(link.path)).collect())
}

/// Returns whether the path is a repository of its own. An uninitialised submodule is an empty folder, where git would
/// use the surrounding repository.
pub(super) fn is_own_repository(path: &Checkout) -> Result<bool, CommandError> {
    if path.join(".git").symlink_metadata().is_err() {
        return Ok(false);
    }
    let top = Git::read(path).args(["rev-parse", "--path-format=absolute", "--show-toplevel"]).path();
    match top {
        Ok(top) => Ok(path.canonicalize().is_ok_and(|real| real == top)),
        // Something else that is called `.git`: the files around it are plain files.
        Err(CommandError::Failed { stderr, .. }) if stderr.contains("not a git repository") => Ok(false),
        Err(error) => Err(error),
    }
}
