//! The answers of waits, those that block and those that go on in the background.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{QuestionView, WorkerView};
use crate::mission::budget::Spent;
use crate::mission::hint::Advice;
use crate::mission::id::{TaskId, WaitId};
use crate::mission::registry::BackgroundWait;
use crate::store::wait_answers::WaitAnswerFile;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitStatus {
    Settled,
    Attention,
    Blocked,
    /// A worker has a question that no earlier answer has reported.
    Question,
    StillRunning,
    Idle,
}

#[derive(Debug, Clone)]
pub struct WaitAnswer {
    pub status: WaitStatus,
    pub settled: Vec<WorkerView>,
    /// Running workers that show no sign of life; queued ones, when nothing runs and the machine is full.
    pub attention: Vec<WorkerView>,
    pub blocked: Vec<(TaskId, Advice)>,
    /// Open questions, those first that no earlier answer has reported.
    pub questions: Vec<QuestionView>,
    pub already_reported: Vec<WorkerView>,
    pub still_running: Vec<WorkerView>,
    pub queued: usize,
    /// The reasons of the queued workers, each once and with the number of workers.
    pub waits_for: Option<String>,
    /// Number of settlements that did not fit. The next wait reports them.
    pub more: usize,
    /// The usage of all workers of this boss, as far as the CLIs report it.
    pub spent: Spent,
    /// The background wait that is open for the same workers, so that this one ended at once.
    pub background: Option<WaitId>,
}

/// A background wait that is open.
#[derive(Debug, Clone)]
pub struct OpenWait {
    pub id: WaitId,
    pub opened_at: Timestamp,
    /// One line for people: the number of settled workers, and the activity of others.
    pub progress: String,
}

/// The state of a background wait, for the client that asks for its end.
#[derive(Debug, Clone)]
pub enum WaitState {
    Open(OpenWait),
    /// It is open, and the user can answer these questions before it wakes the boss.
    Asking {
        wait: OpenWait,
        questions: Vec<QuestionView>,
    },
    /// Its answer, which never changes.
    Ended(Box<WaitAnswerFile>),
    Cancelled {
        opened_at: Timestamp,
        why: String,
    },
    /// It is unknown: its answer was removed, or it belongs to another state directory.
    Gone,
}

/// Renders the answer of a background wait as the boss gets it.
pub type RenderWait = fn(WaitAnswer, &BackgroundWait) -> serde_json::Value;
