//! A temporary index: a copy of a worktree's index in which things can be staged without touching the worktree, and
//! the staging itself.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::command::{CommandError, Git};
use super::status::{StatusEntry, git_dir};
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

/// Deleted with its folder when it is dropped.
pub struct TemporaryIndex {
    /// Where git is run.
    dir: PathBuf,
    /// Named where no worktree is left that would lead to it.
    git_dir: Option<PathBuf>,
    folder: tempfile::TempDir,
}

impl TemporaryIndex {
    /// A copy and not an empty one, because it knows which files are unchanged: only the others are read again. Files
    /// that git was told to take for unchanged are ordinary files in it.
    pub fn copy_of(worktree: &Path) -> Result<TemporaryIndex, IndexError> {
        let index = Self::copy(&git_dir(worktree)?, worktree, None)?;
        index.look_at_all_files(worktree)?;
        Ok(index)
    }

    /// The index of a worktree whose files are gone. `root` is any other folder of the repository.
    pub fn of_git_dir(root: &Path, git_dir: &Path) -> Result<TemporaryIndex, IndexError> {
        Self::copy(git_dir, root, Some(git_dir.to_owned()))
    }

    /// One with nothing in it.
    pub fn empty(dir: &Path, git_dir: Option<&Path>) -> Result<TemporaryIndex, IndexError> {
        let failed = |source| IndexError::Copy { worktree: dir.to_owned(), source };
        let folder = tempfile::tempdir().map_err(failed)?;
        Ok(TemporaryIndex { dir: dir.to_owned(), git_dir: git_dir.map(Path::to_owned), folder })
    }

    fn copy(from: &Path, dir: &Path, git_dir: Option<PathBuf>) -> Result<TemporaryIndex, IndexError> {
        let index = Self::empty(dir, git_dir.as_deref())?;
        match copy_with_time(&from.join("index"), &index.folder.path().join("index")) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(IndexError::Copy { worktree: dir.to_owned(), source })
            }
            _ => Ok(index),
        }
    }

    /// Takes the marks `assume-unchanged` and `skip-worktree` off files that are there: behind them a change is hidden
    /// from `git status`. Files that a sparse checkout leaves out stay marked.
    fn look_at_all_files(&self, worktree: &Path) -> Result<(), CommandError> {
        let hidden = marked_unchanged(worktree)?;
        if hidden.is_empty() {
            return Ok(());
        }
        let list: Vec<u8> = hidden.iter().flat_map(|path| [path.as_os_str().as_bytes(), b"\0"].concat()).collect();
        for mark in ["--no-assume-unchanged", "--no-skip-worktree"] {
            self.git().args(["update-index", mark, "-z", "--stdin"]).input(list.clone()).run()?;
        }
        Ok(())
    }

    /// A call that sees this index in place of the worktree's own.
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

    /// `<mode> <id> <stage> TAB <path>`, each ended by NUL: what a merge could not decide.
    pub fn conflicts(&self) -> Result<Vec<u8>, CommandError> {
        self.git().args(["ls-files", "--unmerged", "-z"]).run()
    }

    /// Sets entries without looking at files: `<mode> <id> TAB <path>` each ended by NUL. Mode 0 takes a path out.
    pub fn set(&self, entries: Vec<u8>) -> Result<(), CommandError> {
        self.git().args(["update-index", "--add", "-z", "--index-info"]).input(entries).run().map(drop)
    }
}

/// Git looks at the content of files that were changed no earlier than the index was written, and believes their size
/// and time otherwise: a copy with a time of its own would hide a change made within the same second.
fn copy_with_time(from: &Path, to: &Path) -> io::Result<()> {
    let written = fs::metadata(from)?.modified()?;
    fs::copy(from, to)?;
    fs::File::options().write(true).open(to)?.set_modified(written)
}

/// Returns the existing tracked files that are marked as unchanged (`assume-unchanged`, `skip-worktree`).
pub fn marked_unchanged(worktree: &Path) -> Result<Vec<PathBuf>, CommandError> {
    let mut marked = match marked(worktree) {
        Some(marked) => marked,
        None => ask_marked(worktree)?,
    };
    marked.retain(|path| worktree.join(path).symlink_metadata().is_ok());
    Ok(marked)
}

/// `None`: only the git program can answer.
fn marked(worktree: &Path) -> Option<Vec<PathBuf>> {
    const ASSUME_UNCHANGED: u16 = 0x8000;
    const SKIP_WORKTREE: u16 = 1 << 14;
    let index = git2::Repository::open(worktree).ok()?.index().ok()?;
    let marked = index.iter().filter(|it| it.flags & ASSUME_UNCHANGED != 0 || it.flags_extended & SKIP_WORKTREE != 0);
    Some(marked.map(|entry| PathBuf::from(OsString::from_vec(entry.path))).collect())
}

fn ask_marked(worktree: &Path) -> Result<Vec<PathBuf>, CommandError> {
    let listed = Git::read(worktree).args(["ls-files", "-v", "-z"]).run()?;
    let is_marked = |record: &&[u8]| record.first().is_some_and(|tag| tag.is_ascii_lowercase() || *tag == b'S');
    let paths = listed.split(|byte| *byte == 0).filter(is_marked).filter_map(|record| record.get(2..));
    Ok(paths.map(|path| PathBuf::from(OsString::from_vec(path.to_vec()))).collect())
}

/// Stages what differs from the index, without the untracked repositories inside: of those git would record only the
/// commit id, and refuse altogether where there is no commit.
pub fn stage<'a>(git: Git, entries: impl IntoIterator<Item = &'a StatusEntry>) -> Result<(), CommandError> {
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
    // A warning about line endings must not become a refusal to keep work; a large file is streamed, not held in memory.
    git.config("core.safecrlf=false")
        .config("core.bigFileThreshold=32m")
        .args(["--literal-pathspecs", "add"])
        .args(options)
        .args(["--pathspec-from-file=-", "--pathspec-file-nul"])
        .input(list)
        .run()?;
    Ok(())
}
