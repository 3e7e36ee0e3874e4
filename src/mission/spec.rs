//! What is asked for: a mission, as the boss gave it, checked and with its defaults filled in.
//! No I/O: whether the directory or the branch exists is asked elsewhere, before the mission gets here.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::id::{BackendName, TaskId};

/// So that a forgotten worker does not spend for ever.
pub const DEFAULT_TIMEOUT_MINUTES: u32 = 120;

/// One mission. The same shape is kept in the journal and in the worker's folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mission {
    pub title: String,
    /// The boss's own words. The frame that the worker's prompt gets around them is added when a turn is planned.
    pub prompt: String,
    pub backend: BackendName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effort: Option<String>,
    pub place: Place,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify_command: Option<String>,
    pub task_id: TaskId,
    /// By task id: where a task is begun anew under the same id, the newest counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<TaskId>,
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
}

/// The place where a worker works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Place {
    /// A directory of the user's, used as it is: never committed to, reset or cleaned by us.
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

/// What a worker may do. How far a backend can hold it to that is its `Enforcement`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Permissions {
    ReadOnly,
    /// Change its worktree, run commands, commit, use the network.
    #[default]
    Edit,
    /// No sandbox and no questions; only where the user's own settings allow it.
    Full,
}
