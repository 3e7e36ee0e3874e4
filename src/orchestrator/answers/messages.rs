//! The arguments and answers of messages to workers, and of decisions on their questions.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::attempt::inbox::Delivery;
use crate::attempt::worker_dir::AttemptDir;
use crate::mission::id::WorkerId;
use crate::mission::lifecycle::WorkerStatus;
use crate::mission::message::Author;
use crate::mission::question::Decision;

#[derive(Debug, Clone)]
pub struct MessageAnswer {
    pub message_id: Uuid,
    pub delivered: MessageDelivery,
    pub status: WorkerStatus,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageDelivery {
    /// Sent to the running CLI.
    Live,
    /// Delivered at the end of the turn, or when the worker starts.
    Queued,
    /// Part of the next attempt, which it has queued.
    NextAttempt,
    /// The decision on a question, which its CLI has received.
    Answered,
}

/// A decision on a question of a worker.
#[derive(Debug, Clone)]
pub struct AnswerRequest {
    /// The id of the question. `None` means the only one that is open.
    pub question: Option<String>,
    pub decision: Decision,
    /// A message beside the decision: the reason of a denial if its CLI takes one, or else a message of its own.
    pub message: Option<NewMessage>,
}

/// An answer in the inbox of a supervisor.
pub struct Posted {
    pub worker: WorkerId,
    pub attempt: u32,
    pub dir: AttemptDir,
    pub question: String,
    pub entry: Uuid,
    /// The message to send once the answer counts.
    pub message: Option<NewMessage>,
}

/// A decision that counts.
#[derive(Debug, Clone)]
pub struct Answered {
    pub worker_id: WorkerId,
    pub question: String,
    /// The id of the decision, and of the message that carries it.
    pub message_id: Uuid,
    pub status: WorkerStatus,
}

#[derive(Debug, Clone)]
pub struct NewMessage {
    pub text: String,
    pub delivery: Delivery,
    /// The author, if it is not the one for whom this process acts.
    pub by: Option<Author>,
}
