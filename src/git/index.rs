//! A temporary index: a copy of a worktree's index in which things can be staged without touching the worktree, and
//! the staging itself.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::command::{CommandError, Git};
use super::status::{Entry, git_dir};

#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    #[error(transparent)]
    Git(#[from] CommandError),
    #[error("copy the index of {}", worktree.display())]
    Copy { worktree: PathBuf, source: io::Error },
}

/// Deleted with its folder when it is dropped.
pub struct TemporaryIndex<'a> {
    worktree: &'a Path,
    folder: tempfile::TempDir,
}

impl TemporaryIndex<'_> {
    /// A copy and not an empty one, because it knows which files are unchanged: only the others are read again.
    pub fn copy_of(worktree: &Path) -> Result<TemporaryIndex<'_>, IndexError> {
        let failed = |source| IndexError::Copy { worktree: worktree.to_owned(), source };
        let folder = tempfile::tempdir().map_err(failed)?;
        match fs::copy(git_dir(worktree)?.join("index"), folder.path().join("index")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
            _ => Ok(TemporaryIndex { worktree, folder }),
        }
    }

    /// A call that sees this index in place of the worktree's own.
    pub fn git(&self) -> Git {
        Git::write(self.worktree).env("GIT_INDEX_FILE", self.folder.path().join("index"))
    }

    pub fn write_tree(&self) -> Result<String, CommandError> {
        self.git().arg("write-tree").text()
    }

    pub fn has_conflicts(&self) -> Result<bool, CommandError> {
        let unmerged = self.git().args(["ls-files", "--unmerged"]).run()?;
        Ok(!unmerged.is_empty())
    }
}

/// Stages what differs from the index, without the untracked repositories inside: of those git would record only the
/// commit id, and refuse altogether where there is no commit.
pub fn stage<'a>(git: Git, entries: impl IntoIterator<Item = &'a Entry>) -> Result<(), CommandError> {
    let paths = entries
        .into_iter()
        .filter(|entry| entry.in_worktree && !entry.is_repository())
        .map(|entry| entry.path.as_path());
    add(git, &["--all", "--sparse"], paths)
}

/// `git add` of exactly these paths, whatever characters are in them.
pub fn add<'a>(git: Git, options: &[&str], paths: impl Iterator<Item = &'a Path>) -> Result<(), CommandError> {
    let mut list = Vec::new();
    for path in paths {
        list.extend_from_slice(path.as_os_str().as_bytes());
        list.push(0);
    }
    // Git takes an empty list for "everything".
    if list.is_empty() {
        return Ok(());
    }
    // A warning about line endings must not become a refusal to keep work.
    git.config("core.safecrlf=false")
        .args(["--literal-pathspecs", "add"])
        .args(options)
        .args(["--pathspec-from-file=-", "--pathspec-file-nul"])
        .input(list)
        .run()?;
    Ok(())
}
