//! The layout of `.orchestrator/`: which file lies where. Paths only.

use std::path::{Path, PathBuf};
use std::{fs, io};

use super::file::{self, FileError};
use super::worker_dir::WorkerDir;
use crate::mission::id::{ServerId, WorkerId};

/// Root of everything that we keep for one repository (or one folder outside of any).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateDir {
    root: PathBuf,
}

pub const NAME: &str = ".orchestrator";
/// The folder in it in which worktrees lay once.
pub const WORKTREES: &str = "worktrees";

/// Of the state directory with this root, which need not be there.
pub fn state_file(root: &Path) -> PathBuf {
    root.join("orchestrator-state.json")
}

/// Packagers and searches that know nothing of git's own excludes heed this, such as `npm pack`.
fn hide_from_tools(root: &Path) -> Result<(), FileError> {
    let path = root.join(".gitignore");
    match path.symlink_metadata() {
        Ok(_) => Ok(()),
        Err(_) => file::replace(&path, b"*\n", false),
    }
}

/// Whether there is a folder with this root. One that cannot be read, or something else in its place, is an error and no
/// absence: what is in it is not known.
pub fn is_there(root: &Path) -> Result<bool, FileError> {
    match fs::read_dir(root) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(_) if root.is_file() => Err(FileError::Foreign { path: root.to_owned(), expected: "a folder" }),
        Err(source) => Err(FileError::read(root, source)),
    }
}

impl StateDir {
    /// Makes what is missing of it, and takes from others what they could see of it. Symlinks in the path are resolved, so
    /// that a folder has one name; in its place, or within it, there may be none, since all that is written lies there.
    pub fn open(root: &Path) -> Result<Self, FileError> {
        // A folder that the user names may be a link and shared with other things; `.orchestrator` is ours alone.
        let named_by_us = root.ends_with(NAME).then(|| root.to_owned());
        let inside = ["workers", WORKTREES].map(|name| root.join(name));
        for folder in named_by_us.iter().chain(&inside) {
            file::refuse_no_folder(folder)?;
        }
        for folder in ["servers", "journal"] {
            file::refuse_links_in(&root.join(folder))?;
        }
        let is_new = !root.exists();
        file::make_private_dir(root)?;
        let inside = ["workers", "servers", "journal"].map(|name| root.join(name));
        let own = named_by_us.into_iter();
        let named_by_us = root.ends_with(NAME);
        for folder in own.chain(inside) {
            file::make_private_dir(&folder)?;
            file::make_private(&folder)?;
        }
        let is_ours = is_new || named_by_us;
        let root = root.canonicalize().map_err(|source| FileError::read(root, source))?;
        if is_ours {
            hide_from_tools(&root)?;
        }
        Ok(Self { root })
    }

    /// For looking at: makes nothing, and nothing of it need be there.
    pub fn at(root: &Path) -> Self {
        Self { root: root.canonicalize().unwrap_or_else(|_| root.to_owned()) }
    }

    /// The one whose `journal/` this is.
    pub(super) fn around(journal: &Path) -> Self {
        Self { root: journal.parent().unwrap_or(Path::new(".")).to_owned() }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn journal(&self) -> PathBuf {
        self.root.join("journal")
    }

    pub fn state_file(&self) -> PathBuf {
        state_file(&self.root)
    }

    pub fn workers(&self) -> PathBuf {
        self.root.join("workers")
    }

    /// See [`super::history`].
    pub fn history(&self) -> PathBuf {
        self.root.join("history.jsonl")
    }

    pub fn worker(&self, id: &WorkerId) -> WorkerDir {
        WorkerDir::new(self.workers().join(id.as_str()))
    }

    /// Verifications of integrations that are going on: one folder each, gone when it is over.
    pub fn trials(&self) -> PathBuf {
        self.root.join("integrations")
    }

    /// What is known of commits that workers began at: whether a command passes there.
    pub fn bases(&self) -> PathBuf {
        self.root.join("bases")
    }

    /// What verifications of integrations said that did not pass.
    pub fn kept_logs(&self) -> PathBuf {
        self.root.join("verifications")
    }

    pub fn server_lock(&self, id: &ServerId) -> PathBuf {
        self.root.join("servers").join(format!("{id}.lock"))
    }
}
