//! The assignment of a supervisor, and its reports while it works. A server and a supervisor communicate through these
//! files of an attempt. Each file is written by only one of them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

use crate::config::Settings;
use crate::git::{Configuration, Copied, Fingerprint, Repository};
use crate::mission::entry::Start;
use crate::mission::id::{BackendName, WorkerId};
use crate::mission::message::Message;
use crate::mission::outcome::Usage;
use crate::mission::spec::Mission;
use crate::process::Identity;

/// The line that a supervisor prints when it has claimed the attempt and can be reached.
pub const READY: &str = "ready";

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
    /// Messages that were written for this attempt. `start` contains their texts too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub written: Vec<Message>,
    /// The worktree, or the directory that was asked for. The CLI runs in it: see [`Assignment::start_directory`].
    pub directory: PathBuf,
    /// True if orchestrator-boss created the directory, and so may commit in it.
    pub ours: bool,
    /// The commit that the work begins at. `None` outside a repository.
    pub base_commit: Option<String>,
    /// The main checkout before the worktree was made. Only set if orchestrator-boss made a worktree.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "of_this_build")]
    pub main_checkout: Option<Fingerprint>,
    /// The repository that contains the directory. `None` outside any, and from a server of an older build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<Repository>,
    /// The configuration of the directory's repository before any worker. Git calls of orchestrator-boss there use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<Configuration>,
    /// Files that were copied into the worktree for `.worktreeinclude`, and that must never be committed.
    pub copies: Vec<Copied>,
    /// The program of the CLI, as found on the server's PATH.
    pub program: PathBuf,
    pub own_registrations: Vec<String>,
    pub socket: PathBuf,
    pub settings: Settings,
    /// The file that the server read the settings from. It may contain secrets that no file of orchestrator-boss may
    /// contain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings_file: Option<PathBuf>,
}

/// Returns a folder of a worktree if it exists and no symlink leads out of the worktree.
pub fn folder_within(worktree: &Path, inner: &Path) -> Option<PathBuf> {
    let place = worktree.join(inner);
    let real = place.canonicalize().ok().filter(|real| real.is_dir())?;
    real.starts_with(worktree.canonicalize().ok()?).then_some(place)
}

impl Assignment {
    /// Returns where the CLI and the verification run: in the mission's subfolder if it exists, or else at the root of
    /// the worktree.
    pub fn start_directory(&self) -> PathBuf {
        let inner = self.mission.place.subfolder().and_then(|inner| folder_within(&self.directory, inner));
        inner.unwrap_or_else(|| self.directory.clone())
    }
}

/// The current status of a worker. Its supervisor writes it and sends it to the clients of its socket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LiveStatus {
    pub phase: Phase,
    pub supervisor: Identity,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cli: Option<Identity>,
    pub turn: u32,
    /// What it did last, in one line.
    pub activity: String,
    pub last_event_at: Timestamp,
    /// When the attempt began and when it last showed anything, by [`crate::process::monotonic`].
    #[serde(default)]
    pub began: Duration,
    #[serde(default)]
    pub last_event: Duration,
    pub usage: Usage,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// The evidence, where neither output nor CPU time has moved for long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stalled: Option<String>,
    /// The model has answered in this attempt.
    #[serde(default)]
    pub answered: bool,
    pub receipts: Vec<Receipt>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Starting,
    Running,
    Verifying,
}

/// What became of one message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    pub message_id: Uuid,
    pub how: Delivered,
    pub at: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivered {
    /// Written to the running CLI.
    Sent,
    /// The CLI says that the model has it.
    Received,
    /// It began a turn of its own.
    Turn,
}

/// From the server to the supervisor, one JSON line each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum ToSupervisor {
    /// There is something in the inbox.
    Look,
}

/// A report from the supervisor to every connected server, as one JSON line. The end of the stream means that the
/// supervisor ended: the outcome record exists, or it was lost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "tell", rename_all = "snake_case")]
pub enum FromSupervisor {
    Status { status: Box<LiveStatus> },
    Settled,
}

/// Reads a fingerprint, or `None` if another build wrote it in another shape. The rest must stay readable, to find the
/// worker's processes.
fn of_this_build<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Fingerprint>, D::Error> {
    let found = serde_json::Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(found).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mission::outcome::Outcome;

    #[test]
    fn what_an_earlier_build_wrote_is_read() {
        let assignment = include_str!("../../tests/fixtures/state/assignment.json");
        let assignment: Assignment = serde_json::from_str(assignment).unwrap();
        assert_eq!(assignment.worker_id.as_str(), "w-2-greet-in-french");
        assert_eq!(assignment.main_checkout, None);
        let status: LiveStatus = serde_json::from_str(include_str!("../../tests/fixtures/state/status.json")).unwrap();
        assert_eq!((status.phase, status.began), (Phase::Verifying, Duration::ZERO));
        let outcome: Outcome = serde_json::from_str(include_str!("../../tests/fixtures/state/outcome.json")).unwrap();
        assert_eq!(outcome.attempt, 2);
        let worktree = include_str!("../../tests/fixtures/state/worktree.json");
        assert!(serde_json::from_str::<crate::git::Worktree>(worktree).unwrap().created_branch);
    }
}
