//! The assignment of a supervisor. The server that starts the supervisor writes it, once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::Settings;
use crate::git::{Checkout, Copied, Fingerprint, Repository, Trust};
use crate::mission::entry::Start;
use crate::mission::id::{BackendName, WorkerId};
use crate::mission::message::Message;
use crate::mission::spec::Mission;

/// The assignment of an attempt: everything that its supervisor cannot determine by itself. Written by the server that
/// starts it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Assignment {
    pub worker_id: WorkerId,
    pub attempt: u32,
    /// The tag in the environment of every process of this attempt. It is never used again.
    pub tag: String,
    pub mission: Mission,
    /// The backend. After a retry, it may differ from the mission's, as may `model` and `effort`.
    pub backend: BackendName,
    pub model: Option<String>,
    pub effort: Option<String>,
    pub start: Start,
    /// The reports of other workers, which precede the prompt: see [`crate::mission::context`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// Messages that were written for this attempt. `start` contains their texts too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub written: Vec<Message>,
    /// The worktree, or the directory of the mission. The CLI runs in it: see [`Assignment::start_directory`].
    pub directory: PathBuf,
    /// True if orchestrator-boss created the directory, and so may commit in it.
    pub ours: bool,
    /// The commit that the work begins at. `None` outside a repository.
    pub base_commit: Option<String>,
    /// The main checkout before the worktree was made. Only set if orchestrator-boss made a worktree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub main_checkout: Option<Fingerprint>,
    /// The repository that contains the directory, with the configuration from before any worker. `None` outside any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<Repository>,
    /// Files that were copied into the worktree for `.worktreeinclude`, and that must never be committed.
    pub copies: Vec<Copied>,
    /// The setup to run before the CLI. `None` if there is none, or if it succeeded in this worktree before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup: Option<SetupTask>,
    /// The end of the setup and of the copying of ignored folders. Ignored files that did not change since then are not
    /// work of the worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prepared_at: Option<Timestamp>,
    /// The first of ten ports for the processes of the worker. `None` without a worktree of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The ports of its block on which other processes already listened when the attempt began.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports_in_use: Vec<u16>,
    /// The program of the CLI, as found on the server's PATH.
    pub program: PathBuf,
    pub own_registrations: Vec<String>,
    /// The socket of the supervisor. One that runs as a job has none that its server could reach.
    pub socket: PathBuf,
    /// The launcher of the settings that starts the supervisor as a job. `None`: the server starts it on its own host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launcher: Option<String>,
    pub settings: Settings,
    /// The file that the server read the settings from. It may contain secrets that no file of orchestrator-boss may
    /// contain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings_file: Option<PathBuf>,
}

/// A command that prepares a worktree, and its time limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SetupTask {
    pub command: String,
    pub timeout_minutes: f64,
}

/// Returns a folder of a worktree if it exists and no symlink leads out of the worktree.
pub fn folder_within(worktree: &Path, inner: &Path) -> Option<PathBuf> {
    let place = worktree.join(inner);
    let real = place.canonicalize().ok().filter(|real| real.is_dir())?;
    real.starts_with(worktree.canonicalize().ok()?).then_some(place)
}

/// Variables in the environment of the CLI, the setup and the verification of a worker with a worktree.
const WORKER_VARIABLE: &str = "ORCHESTRATOR_WORKER";
const PORT_VARIABLE: &str = "ORCHESTRATOR_PORT";

/// Returns the variables that keep the processes of different workers apart: the id of their worker, and the first of
/// its ports.
pub fn worker_variables(id: &WorkerId, port: Option<u16>) -> BTreeMap<String, String> {
    let id = (WORKER_VARIABLE.to_owned(), id.to_string());
    let port = port.map(|port| (PORT_VARIABLE.to_owned(), port.to_string()));
    [id].into_iter().chain(port).collect()
}

impl Assignment {
    /// Returns the variables by which the worker's processes can keep apart from those of other workers: its id, and
    /// the first of its ports. Empty in a directory of the user.
    pub fn variables(&self) -> BTreeMap<String, String> {
        if self.ours { worker_variables(&self.worker_id, self.port) } else { BTreeMap::new() }
    }

    /// Returns the directory for calls of git. Outside a repository, no configuration is trusted.
    pub fn checkout(&self) -> Checkout {
        match &self.repository {
            Some(repository) => repository.at(&self.directory),
            None => Checkout::new(&self.directory, &Trust::nothing()),
        }
    }

    /// Returns where the CLI and the verification run: in the mission's subfolder if it exists, or else at the root of
    /// the worktree.
    pub fn start_directory(&self) -> PathBuf {
        let inner = self.mission.place.subfolder().and_then(|inner| folder_within(&self.directory, inner));
        inner.unwrap_or_else(|| self.directory.clone())
    }
}
