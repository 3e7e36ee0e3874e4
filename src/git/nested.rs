//! Repositories inside a worktree: initialised submodules, and repositories that somebody made or cloned there.
//!
//! Their commits are not in the repository around them, and a submodule's repository lies in the worktree's own part
//! of `.git`: removing the worktree deletes it. This file only finds what would be lost; it changes nothing.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::command::{CommandError, Git};
use super::status::Entry;

/// The repositories directly inside `worktree`, as absolute paths. `entries` is the worktree's status.
pub fn nested_repositories(worktree: &Path, entries: &[Entry]) -> Result<Vec<PathBuf>, CommandError> {
    let mut found = submodules(worktree)?;
    let untracked = entries.iter().filter(|entry| entry.is_repository());
    found.extend(untracked.map(|entry| worktree.join(&entry.path)));
    let mut repositories = Vec::new();
    for path in found {
        if is_own_repository(&path)? {
            repositories.push(path);
        }
    }
    Ok(repositories)
}

/// The commits of a nested repository that exist nowhere else, as far as its remote-tracking branches tell: those of
/// HEAD (or of `head` in its place), of every branch and of the newest stash. None of them contains another.
pub fn unpublished_commits(repository: &Path, head: Option<&str>) -> Result<Vec<String>, CommandError> {
    let tips = Git::read(repository)
        .args(["for-each-ref", "--format=%(objectname)"])
        .args(["refs/heads", "refs/stash"])
        .text()?;
    let mut unpublished: Vec<String> = Vec::new();
    for tip in head.into_iter().chain(tips.lines()) {
        let new = Git::read(repository)
            .args(["rev-list", "--max-count=1", tip, "--not", "--remotes"])
            .args(&unpublished)
            .text()?;
        if !new.is_empty() {
            unpublished.push(tip.to_owned());
        }
    }
    Ok(unpublished)
}

fn submodules(worktree: &Path) -> Result<Vec<PathBuf>, CommandError> {
    let index = Git::read(worktree).args(["ls-files", "--stage", "-z"]).run()?;
    Ok(index
        .split(|byte| *byte == 0)
        .filter(|record| record.starts_with(b"160000 "))
        .filter_map(|record| record.splitn(2, |byte| *byte == b'\t').nth(1))
        .map(|path| worktree.join(OsStr::from_bytes(path)))
        .collect())
}

/// An uninitialised submodule is an empty folder, and git run there would speak of the repository around it.
fn is_own_repository(path: &Path) -> Result<bool, CommandError> {
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
