//! The layout of `.orchestrator/`: which file lies where. Paths only.

use std::path::{Path, PathBuf};

use super::file::{self, FileError};
use super::worker_dir::WorkerDir;
use crate::mission::id::{ServerId, WorkerId};

/// Root of everything that we keep for one repository (or one folder outside of any).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateDir {
    root: PathBuf,
}

pub const NAME: &str = ".orchestrator";

impl StateDir {
    /// Makes what is missing of it, and takes from others what they could see of it. Symlinks in the path are resolved, so
    /// that a folder has one name; in its place, or within it, there may be none of them.
    pub fn open(root: &Path) -> Result<Self, FileError> {
        // A folder that the user names may be shared with other things; what is in `.orchestrator` is ours alone.
        file::make_private_dir(root)?;
        let named_by_us = root.ends_with(NAME).then(|| root.to_owned());
        let inside = ["workers", "servers", "journal"].map(|name| root.join(name));
        for folder in named_by_us.into_iter().chain(inside) {
            if folder.is_symlink() {
                return Err(FileError::Link { path: folder });
            }
            file::make_private_dir(&folder)?;
            file::make_private(&folder)?;
        }
        let root = root.canonicalize().map_err(|source| FileError::read(root, source))?;
        Ok(Self { root })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn journal(&self) -> PathBuf {
        self.root.join("journal")
    }

    pub fn state_file(&self) -> PathBuf {
        self.root.join("orchestrator-state.json")
    }

    /// Worktrees that we make without being given a path.
    pub fn worktrees(&self) -> PathBuf {
        self.root.join("worktrees")
    }

    pub fn worker(&self, id: &WorkerId) -> WorkerDir {
        WorkerDir::new(self.root.join("workers").join(id.as_str()))
    }

    pub fn server_lock(&self, id: &ServerId) -> PathBuf {
        self.root.join("servers").join(format!("{id}.lock"))
    }
}
