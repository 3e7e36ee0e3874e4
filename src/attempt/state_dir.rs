//! The layout of `.orchestrator/`: the paths of its files.

use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::worker_dir::{AttemptDir, WorkerDir, above_attempt};
use crate::files::{self, FileError};
use crate::mission::id::{ServerId, WorkerId};

/// The root of everything that orchestrator-boss keeps for one repository (or one folder outside any).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateDir {
    root: PathBuf,
}

/// The id of a state directory, and where it was given.
#[derive(Serialize, Deserialize)]
struct StateDirId {
    id: Uuid,
    root: PathBuf,
}

pub const NAME: &str = ".orchestrator";
/// The folder within it for worktrees, where there is neither a repository nor a home directory.
pub const WORKTREES: &str = "worktrees";

/// Returns the path of the state file in the state directory with this root, which need not exist.
pub fn state_file(root: &Path) -> PathBuf {
    root.join("orchestrator-state.json")
}

/// Returns the folder of the workers' folders in the state directory with this root.
fn workers(root: &Path) -> PathBuf {
    root.join("workers")
}

/// Returns the folder of a worker in the state directory with this root, which need not exist.
pub fn worker(root: &Path, id: &WorkerId) -> WorkerDir {
    WorkerDir::new(workers(root).join(id.as_str()))
}

/// Creates a `.gitignore` for tools that do not read git's own exclude file, such as `npm pack`. The state can be used
/// without it.
fn hide_from_tools(root: &Path) {
    let path = root.join(".gitignore");
    if path.symlink_metadata().is_err()
        && let Err(error) = files::replace(&path, b"*\n", false)
    {
        tracing::warn!(%error, "the state directory is not hidden from tools");
    }
}

/// Returns whether there is a folder with this root. An unreadable folder, or a file in its place, is an error, since
/// its content is unknown.
pub fn is_there(root: &Path) -> Result<bool, FileError> {
    match fs::read_dir(root) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(_) if root.is_file() => Err(FileError::Foreign { path: root.to_owned(), expected: "a folder" }),
        Err(source) => Err(FileError::read(root, source)),
    }
}

impl StateDir {
    /// Creates missing parts and removes access for other users. Symlinks in the path are resolved, so that a folder
    /// has one name. Neither `.orchestrator` nor the folders in it may be symlinks, since all data is written there.
    pub fn open(root: &Path) -> Result<Self, FileError> {
        // A folder that the user names may be a symlink and hold other files. `.orchestrator` belongs to
        // orchestrator-boss alone.
        let named_by_us = root.ends_with(NAME).then(|| root.to_owned());
        let inside = ["workers", WORKTREES].map(|name| root.join(name));
        for folder in named_by_us.iter().chain(&inside) {
            files::refuse_no_folder(folder)?;
        }
        for folder in ["servers", "journal"] {
            files::refuse_links_in(&root.join(folder))?;
        }
        let is_new = !root.exists();
        files::make_private_dir(root)?;
        let inside = ["workers", "servers", "journal"].map(|name| root.join(name));
        let own = named_by_us.into_iter();
        let named_by_us = root.ends_with(NAME);
        for folder in own.chain(inside) {
            files::make_private_dir(&folder)?;
            files::make_private(&folder)?;
        }
        let is_ours = is_new || named_by_us;
        let root = root.canonicalize().map_err(|source| FileError::read(root, source))?;
        if is_ours {
            hide_from_tools(&root);
        }
        Ok(Self { root })
    }

    /// Returns a state directory for reading. Creates nothing, and none of it need exist.
    pub fn at(root: &Path) -> Self {
        Self { root: root.canonicalize().unwrap_or_else(|_| root.to_owned()) }
    }

    /// The one whose `journal/` this is.
    pub fn around(journal: &Path) -> Self {
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
        workers(&self.root)
    }

    /// Returns the file of the settled workers that are no longer in the registry.
    pub fn history(&self) -> PathBuf {
        self.root.join("history.jsonl")
    }

    pub fn worker(&self, id: &WorkerId) -> WorkerDir {
        worker(&self.root, id)
    }

    /// Returns the folder of running verifications. Each has its own subfolder, which is removed at its end.
    pub fn verifications(&self) -> PathBuf {
        self.root.join("integrations")
    }

    /// Returns the folder of cached results: whether a command passes on the base commit of workers.
    pub fn bases(&self) -> PathBuf {
        self.root.join("bases")
    }

    /// Returns the folder of the logs of failed integration verifications.
    pub fn kept_logs(&self) -> PathBuf {
        self.root.join("verifications")
    }

    /// Returns the folder of the answers of background waits that have ended.
    pub fn waits(&self) -> PathBuf {
        self.root.join("waits")
    }

    /// Returns the folder of the records of the settings of CLIs: see [`super::cli_settings`].
    pub fn cli_settings(&self) -> PathBuf {
        self.root.join("cli-settings")
    }

    /// Returns the record of the ports of workers, and the lock under which it changes.
    pub fn ports(&self) -> PathBuf {
        self.root.join("ports.json")
    }

    pub fn ports_lock(&self) -> PathBuf {
        self.root.join("ports.lock")
    }

    /// Returns the id of this state directory, and creates it on the first call. It tells the jobs of several state
    /// directories apart.
    pub fn id(&self) -> Result<Uuid, FileError> {
        let path = self.root.join("id.json");
        let new = StateDirId { id: Uuid::new_v4(), root: self.root.clone() };
        let known: StateDirId = match files::create_json_once(&path, &new) {
            Ok(()) => return Ok(new.id),
            Err(FileError::Exists { .. }) => files::read_existing_json(&path)?,
            Err(error) => return Err(error),
        };
        if known.root == self.root {
            return Ok(known.id);
        }
        // A copy or a moved directory. With the id of the original, it would cancel the jobs of the original.
        files::replace_json(&path, &new, true)?;
        Ok(new.id)
    }

    /// Returns the id of this state directory if it has one.
    pub fn existing_id(&self) -> Option<Uuid> {
        let known: Option<StateDirId> = files::read_json(&self.root.join("id.json")).ok().flatten();
        known.filter(|known| known.root == self.root).map(|known| known.id)
    }

    /// Returns the lock of the supervisor that notifies the user of attempts that end without a server.
    pub fn events_lock(&self) -> PathBuf {
        self.root.join("events.lock")
    }

    /// Returns the record of the last failure of the user's `notify_command`.
    pub fn notify_failure(&self) -> PathBuf {
        self.root.join("notify-failure.json")
    }

    /// Returns the folder of the files by which servers show that they live.
    pub fn servers(&self) -> PathBuf {
        self.root.join("servers")
    }

    pub fn server_lock(&self, id: &ServerId) -> PathBuf {
        self.servers().join(format!("{id}.lock"))
    }

    /// Returns the file by which a server shows other hosts that it lives.
    pub fn server_presence(&self, id: &ServerId) -> PathBuf {
        self.servers().join(format!("{id}.json"))
    }
}

impl AttemptDir {
    /// Returns the state directory that this attempt is in.
    pub fn state_dir(&self) -> StateDir {
        StateDir::at(above_attempt(self.root()))
    }
}

// The length that fits is that of Linux; macOS allows less.
#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn state_opens_without_its_gitignore() {
        // The longest path for which the folders fit. The temporary file does not.
        const LONGEST: usize = 4095 - "/servers".len();
        let folder = tempfile::tempdir().unwrap();
        let mut root = folder.path().canonicalize().unwrap();
        while root.as_os_str().len() < LONGEST {
            let rest = LONGEST - root.as_os_str().len() - 1;
            root.push("x".repeat(if rest > 200 { 100 } else { rest }));
        }
        StateDir::open(&root).unwrap();
        assert!(root.join("journal").is_dir());
    }
}
