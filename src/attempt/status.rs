//! The status of a running attempt, and the messages on its socket. Only the supervisor writes the status file; the
//! socket carries the same status sooner, and nothing depends on it.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::mission::outcome::Usage;
use crate::process::Identity;

/// The line that a supervisor prints when it has claimed the attempt and can be reached.
pub const READY: &str = "ready";

/// The current status of a worker. Its supervisor writes it and sends it to the clients of its socket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LiveStatus {
    pub phase: Phase,
    pub supervisor: Identity,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cli: Option<Identity>,
    pub turn: u32,
    /// Its last activity, in one line.
    pub activity: String,
    pub last_event_at: Timestamp,
    /// When the attempt began and when it last showed anything, by [`crate::process::monotonic`].
    pub began: Duration,
    pub last_event: Duration,
    pub usage: Usage,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// The evidence of a stall: no output and no CPU time for long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stalled: Option<String>,
    /// The model has answered in this attempt.
    pub answered: bool,
    pub receipts: Vec<Receipt>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Starting,
    /// `setup_command` runs.
    SettingUp,
    Running,
    Verifying,
}

/// The delivery of a message to the CLI.
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
    /// The CLI reports that the model has it.
    Received,
    /// It began a new turn.
    Turn,
}

/// A request from a server to a supervisor, as one JSON line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ToSupervisor {
    /// The inbox has a new entry.
    CheckInbox,
}

/// A report from the supervisor to every connected server, as one JSON line. The end of the stream means that the
/// supervisor ended: the outcome record exists, or it was lost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FromSupervisor {
    Status { status: Box<LiveStatus> },
}
