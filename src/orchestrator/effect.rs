//! Requests of components to the actor. Components own their state and decide; only the actor acts.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::answers::CancelAnswer;
use super::error::OrchestratorError;
use super::mailbox::Reply;
use crate::attempt::inbox::Instruction;
use crate::crash_point::Point;
use crate::mission::entry::Entry;
use crate::mission::message::Author;
use crate::mission::registry::{Registry, Worker};

pub(super) enum Effect {
    Append(Append),
    Reply(Reply<Result<CancelAnswer, OrchestratorError>>, CancelAnswer),
    /// Puts an instruction into the inbox of a running attempt, and wakes its supervisor.
    Post {
        worker: Arc<Worker>,
        by: Option<Author>,
        instruction: Instruction,
    },
    /// Starts a task that reports back by mail.
    Spawn(BoxFuture<'static, ()>),
    /// Writes the state file soon.
    WriteState,
}

/// Decides which entries follow from the registry.
type Decision = Box<dyn FnOnce(&Registry) -> Vec<Entry> + Send>;

/// Entries to append. They are decided on the newest registry, under the journal's lock, since another server may have
/// appended since the component decided.
pub(super) struct Append {
    pub decide: Decision,
    /// Completes the error message "cannot …".
    pub purpose: &'static str,
    pub crash_point: Option<Point>,
}

impl Effect {
    pub fn append(purpose: &'static str, decide: impl FnOnce(&Registry) -> Vec<Entry> + Send + 'static) -> Self {
        Effect::Append(Append { decide: Box::new(decide), purpose, crash_point: None })
    }

    /// Appends a fact that does not depend on the registry.
    pub fn note(purpose: &'static str, entry: Entry) -> Self {
        Self::append(purpose, move |_| vec![entry])
    }

    /// Names the crash point after the append.
    pub fn at(self, crash_point: Point) -> Self {
        match self {
            Effect::Append(append) => Effect::Append(Append { crash_point: Some(crash_point), ..append }),
            effect => effect,
        }
    }

    pub fn spawn(task: impl Future<Output = ()> + Send + 'static) -> Self {
        Effect::Spawn(task.boxed())
    }
}
