//! The status of a running attempt, and the messages on its socket. Only the supervisor writes the status file; the
//! socket carries the same status sooner, and nothing depends on it.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::mission::confined::Confinement;
use crate::mission::outcome::Usage;
use crate::mission::question::{Decider, Decision, Question};
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
    /// The confinement by the kernel. `None` before the CLI runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confinement: Option<Confinement>,
    /// The model has answered in this attempt.
    pub answered: bool,
    pub receipts: Vec<Receipt>,
    /// The questions that wait for a decision.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub questions: Vec<OpenQuestion>,
    /// The last questions that were decided or withdrawn, the newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub closed_questions: Vec<ClosedQuestion>,
}

impl LiveStatus {
    /// Returns whether the worker waits for the answer to a question.
    pub fn needs_answer(&self) -> bool {
        !self.questions.is_empty()
    }
}

/// A question that waits for a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenQuestion {
    #[serde(flatten)]
    pub question: Question,
    pub asked_at: Timestamp,
    /// Time at which it is denied, by [`crate::process::monotonic`]. `None`: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denied_at: Option<Duration>,
}

/// A question that is not open any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClosedQuestion {
    pub question: String,
    /// `None` if it ended undecided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided: Option<Decided>,
}

/// The decision that closed a question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decided {
    pub decision: Decision,
    pub by: Decider,
    /// The entry of the inbox with the decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<Uuid>,
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
