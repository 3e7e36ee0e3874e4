//! A temporary copy of a worktree's index, in which files can be staged without touching the worktree. The staging
//! itself is here too.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::checkout::git_dir;
use super::command::{CommandError, Git};
use super::status::{Ignored, Status, StatusEntry, Untracked, status, status_by};
use super::trust::Checkout;
use crate::mission::hint::{Hint, Hinted};

#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    #[error(transparent)]
    Git(#[from] CommandError),
    #[error("cannot copy the index of {}", worktree.display())]
    Copy { worktree: PathBuf, source: io::Error },
}

impl Hinted for IndexError {
    fn hints(&self) -> Vec<Hint> {
        match self {
            Self::Git(error) => error.hints(),
            Self::Copy { .. } => Vec::new(),
        }
    }
}

/// An index in a temporary folder, which is deleted when this is dropped.
pub struct TemporaryIndex {
    /// Folder in which git is run.
    dir: Checkout,
    /// Git directory of a worktree whose own folder is gone.
    git_dir: Option<PathBuf>,
    folder: tempfile::TempDir,
}

impl TemporaryIndex {
    /// Copies the index of a worktree, so that git reads only changed files again. Files that are marked as unchanged
    /// lose their marks in the copy.
    pub fn copy_of(worktree: &Checkout) -> Result<TemporaryIndex, IndexError> {
        let index = Self::copy(&git_dir(worktree)?, worktree, None)?;
        index.clear_marks(worktree)?;
        Ok(index)
    }

    /// Copies the index of a worktree whose files are gone. `root` is any other folder of the repository.
    pub fn of_git_dir(root: &Checkout, git_dir: &Path) -> Result<TemporaryIndex, IndexError> {
        Self::copy(git_dir, root, Some(git_dir.to_owned()))
    }

    /// Creates an empty index.
    pub fn empty(dir: &Checkout, git_dir: Option<&Path>) -> Result<TemporaryIndex, IndexError> {
        let failed = |source| IndexError::Copy { worktree: dir.to_path_buf(), source };
        let folder = tempfile::tempdir().map_err(failed)?;
        Ok(TemporaryIndex { dir: dir.clone(), git_dir: git_dir.map(Path::to_owned), folder })
    }

    fn copy(from: &Path, dir: &Checkout, git_dir: Option<PathBuf>) -> Result<TemporaryIndex, IndexError> {
        let index = Self::empty(dir, git_dir.as_deref())?;
        match copy_with_time(&from.join("index"), &index.folder.path().join("index")) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(IndexError::Copy { worktree: dir.to_path_buf(), source })
            }
            _ => Ok(index),
        }
    }

    /// Removes the marks `assume-unchanged` and `skip-worktree` from existing files, since `git status` shows no change
    /// of a marked file. Files that a sparse checkout leaves out stay marked.
    fn clear_marks(&self, worktree: &Checkout) -> Result<(), CommandError> {
        let marked = marked_unchanged(worktree)?;
        if marked.is_empty() {
            return Ok(());
        }
        let list: Vec<u8> = marked.iter().flat_map(|path| [path.as_os_str().as_bytes(), b"\0"].concat()).collect();
        for mark in ["--no-assume-unchanged", "--no-skip-worktree"] {
            self.git().args(["update-index", mark, "-z", "--stdin"]).input(list.clone()).run()?;
        }
        Ok(())
    }

    /// Returns a git call that uses this index instead of the worktree's own.
    pub fn git(&self) -> Git {
        let git = Git::write(&self.dir).env("GIT_INDEX_FILE", self.folder.path().join("index"));
        match &self.git_dir {
            Some(git_dir) => git.env("GIT_DIR", git_dir),
            None => git,
        }
    }

    pub fn write_tree(&self) -> Result<String, CommandError> {
        self.git().arg("write-tree").text()
    }

    /// Returns the entries in conflict: `<mode> <id> <stage> TAB <path>`, each ended by NUL.
    pub fn conflicts(&self) -> Result<Vec<u8>, CommandError> {
        self.git().args(["ls-files", "--unmerged", "-z"]).run()
    }

    /// Sets entries without reading files: `<mode> <id> TAB <path>`, each ended by NUL. Mode 0 removes a path.
    pub fn set(&self, entries: Vec<u8>) -> Result<(), CommandError> {
        self.git().args(["update-index", "--add", "-z", "--index-info"]).input(entries).run().map(drop)
    }
}

/// Copies a file with its time of change. Git trusts the size and time of files that changed before the index was
/// written. With a newer time, the copy would hide a change made within the same second.
fn copy_with_time(from: &Path, to: &Path) -> io::Result<()> {
    let written = fs::metadata(from)?.modified()?;
    fs::copy(from, to)?;
    fs::File::options().write(true).open(to)?.set_modified(written)
}

/// Returns the existing tracked files that are marked as unchanged (`assume-unchanged`, `skip-worktree`).
pub fn marked_unchanged(worktree: &Checkout) -> Result<Vec<PathBuf>, CommandError> {
    let mut marked = match marked(worktree) {
        Some(marked) => marked,
        None => ask_marked(worktree)?,
    };
    marked.retain(|path| worktree.join(path).symlink_metadata().is_ok());
    Ok(marked)
}

/// Returns the status including changes of files that are marked as unchanged. Needed before a deletion.
pub fn status_despite_marks(worktree: &Checkout) -> Result<Status, IndexError> {
    if marked_unchanged(worktree)?.is_empty() {
        return Ok(status(worktree, Untracked::Files)?);
    }
    let index = TemporaryIndex::copy_of(worktree)?;
    Ok(status_by(index.git(), worktree, Untracked::Files, Ignored::Omitted)?)
}

/// Returns the marked files by libgit2; `None` if only the git program can answer.
fn marked(worktree: &Path) -> Option<Vec<PathBuf>> {
    const ASSUME_UNCHANGED: u16 = 0x8000;
    const SKIP_WORKTREE: u16 = 1 << 14;
    let index = git2::Repository::open(worktree).ok()?.index().ok()?;
    let marked = index.iter().filter(|it| it.flags & ASSUME_UNCHANGED != 0 || it.flags_extended & SKIP_WORKTREE != 0);
    Some(marked.map(|entry| PathBuf::from(OsString::from_vec(entry.path))).collect())
}

fn ask_marked(worktree: &Checkout) -> Result<Vec<PathBuf>, CommandError> {
    let listed = Git::read(worktree).args(["ls-files", "-v", "-z"]).run()?;
    let is_marked = |record: &&[u8]| record.first().is_some_and(|tag| tag.is_ascii_lowercase() || *tag == b'S');
    let paths = listed.split(|byte| *byte == 0).filter(is_marked).filter_map(|record| record.get(2..));
    Ok(paths.map(|path| PathBuf::from(OsString::from_vec(path.to_vec()))).collect())
}

/// Stages the entries that differ from the index, without untracked nested repositories. Of those, git would record
/// only the commit id, and it would fail if they had no commit.
pub fn stage<'a>(git: Git, entries: impl IntoIterator<Item = &'a StatusEntry>) -> Result<(), CommandError> {
    let paths = entries
        .into_iter()
        .filter(|entry| entry.in_worktree && !entry.is_repository())
        .map(|entry| entry.path.as_path());
    add(git, &["--all", "--sparse"], paths)
}

/// Runs `git add` for exactly these paths, without treating any character as a pattern.
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
    // A warning about line endings must not prevent work from being kept. Large files are streamed.
    git.config("core.safecrlf=false")
        .config("core.bigFileThreshold=32m")
        .args(["--literal-pathspecs", "add"])
        .args(options)
        .args(["--pathspec-from-file=-", "--pathspec-file-nul"])
        .input(list)
        .run()?;
    Ok(())
}
