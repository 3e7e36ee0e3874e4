//! A handle to the actor, with the integrations of this server. The facade and the tasks that need the actor hold one.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::answers::WorkerView;
use super::blocking::blocking;
use super::context::Context;
use super::error::OrchestratorError;
use super::jobs::Jobs;
use super::mailbox::Ask;
use super::merged;

type Result<T> = std::result::Result<T, OrchestratorError>;

/// Maximum time that an answer waits for git to determine what is merged.
const MERGED_CEILING: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub(super) struct ActorHandle {
    pub context: Arc<Context>,
    pub jobs: Arc<Jobs>,
    mailbox: mpsc::UnboundedSender<Ask>,
}

impl ActorHandle {
    pub fn new(context: Arc<Context>, mailbox: mpsc::UnboundedSender<Ask>) -> Self {
        Self { context, jobs: Arc::default(), mailbox }
    }

    /// Sends a message without an answer.
    pub fn send(&self, ask: Ask) {
        // A closed mailbox means that the server is shutting down, so no receiver is left.
        let _ = self.mailbox.send(ask);
    }

    pub async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.mailbox.send(ask(reply)).map_err(|_| OrchestratorError::ShuttingDown)?;
        answer.await.map_err(|_| self.unanswered())
    }

    /// Returns why the actor drops a request.
    pub fn unanswered(&self) -> OrchestratorError {
        self.context.foreign_owner().unwrap_or(OrchestratorError::ShuttingDown)
    }

    pub async fn get(&self, name: &str) -> Result<WorkerView> {
        let name = name.to_owned();
        let view = self.ask(|reply| Ask::Get { name, reply }).await??;
        Ok(self.up_to_date(vec![view]).await?.remove(0))
    }

    /// Updates the views with the current merge state in git. What git has not answered in time is unknown; the answer
    /// is there for a later request.
    pub async fn up_to_date(&self, mut views: Vec<WorkerView>) -> Result<Vec<WorkerView>> {
        if !views.iter().any(|view| merged::may_be_merged(&view.worker)) {
            return Ok(views);
        }
        let mut unknown = views.clone();
        let context = Arc::clone(&self.context);
        let asked = blocking(move || {
            context.caches.merged.bring_up_to_date(context.repository.as_ref(), views.iter_mut());
            Ok(views)
        });
        match tokio::time::timeout(MERGED_CEILING, asked).await {
            Ok(views) => views,
            Err(_) => {
                merged::set_unknown(&mut unknown);
                Ok(unknown)
            }
        }
    }
}
