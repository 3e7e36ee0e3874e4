//! Missions, checked and with defaults filled in. Other rooms have already checked whether the directory or branch
//! exists. Pure.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::id::{BackendName, TaskId, WorkerId};

/// Ends forgotten workers.
pub const DEFAULT_TIMEOUT_MINUTES: u32 = 120;

/// A mission. The journal and the worker's folder store it in this form.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mission {
    pub title: String,
    /// The boss's prompt, without the frame that is added when a turn is planned.
    pub prompt: String,
    pub backend: BackendName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effort: Option<String>,
    pub place: Place,
    /// Wins over that of the settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup_command: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify_command: Option<String>,
    pub task_id: TaskId,
    /// Task ids. If several workers have the same task, the newest counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<TaskId>,
    /// The workers whose final messages come before the prompt, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub context_from: Vec<ContextSource>,
    pub timeout_minutes: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_cost_usd: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fallback_backends: Vec<BackendName>,
    pub max_attempts: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    pub permissions: Permissions,
    /// The launcher of the settings that starts its workers, such as a cluster. `None`: the host of the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_on: Option<String>,
    /// The user's profile that supplied fields. The mission keeps the values from its creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
}

impl Mission {
    /// Returns the tasks and reports that the mission waits for, settled or not.
    pub fn waits_for(&self) -> Vec<ContextSource> {
        let tasks = self.depends_on.iter().cloned().map(ContextSource::Task);
        tasks.chain(self.context_from.iter().cloned()).collect()
    }
}

/// A worker whose final message is context of another mission.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContextSource {
    /// The newest worker of a task, or the winner of its race.
    Task(TaskId),
    /// This worker, which may be one of several racers.
    Worker(WorkerId),
}

impl ContextSource {
    /// Returns the task's or the worker's id.
    pub fn name(&self) -> &str {
        match self {
            Self::Task(task) => task.as_str(),
            Self::Worker(id) => id.as_str(),
        }
    }
}

/// The place where a worker works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Place {
    /// A directory of the user. orchestrator-boss never commits there, and never resets or cleans it.
    Directory { path: PathBuf },
    /// A worktree that orchestrator-boss makes for this worker alone.
    Worktree {
        path: PathBuf,
        branch: String,
        /// A branch, tag or commit. The default is the integration branch or the dependencies of the mission.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        base: Option<String>,
        /// The subfolder in which the worker and its verification run. The default is the root of the worktree.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        directory: Option<PathBuf>,
    },
}

impl Place {
    pub fn path(&self) -> &std::path::Path {
        match self {
            Place::Directory { path } | Place::Worktree { path, .. } => path,
        }
    }

    /// Returns the subfolder of the worktree in which the worker runs.
    pub fn subfolder(&self) -> Option<&std::path::Path> {
        match self {
            Place::Directory { .. } => None,
            Place::Worktree { directory, .. } => directory.as_deref(),
        }
    }

    pub fn branch(&self) -> Option<&str> {
        match self {
            Place::Directory { .. } => None,
            Place::Worktree { branch, .. } => Some(branch),
        }
    }
}

/// The host of an attempt, as a boss names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunOn {
    /// On the host of the server.
    Local,
    /// On a launcher of the settings.
    Launcher(String),
}

impl RunOn {
    /// The name of the server's own host.
    pub const LOCAL: &str = "local";

    pub fn named(name: String) -> Self {
        if name == Self::LOCAL { Self::Local } else { Self::Launcher(name) }
    }

    /// Returns the name of the launcher. `None`: the host of the server.
    pub fn launcher(self) -> Option<String> {
        match self {
            Self::Local => None,
            Self::Launcher(name) => Some(name),
        }
    }
}

/// The permissions of a worker. The `Enforcement` of a backend tells how far it can enforce them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Permissions {
    ReadOnly,
    /// It may change its worktree, run commands, commit and use the network.
    #[default]
    Edit,
    /// No sandbox and no questions; only where the user's own settings allow it.
    Full,
}
