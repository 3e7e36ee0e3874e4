//! Messages to the supervisor. It handles them in order, each once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::attempt::inbox::{Delivery, InboxEntry, Instruction};
use crate::attempt::worker_dir::AttemptDir;
use crate::files::FileError;
use crate::mission::message::Cancelled;
use crate::mission::question::{Decider, Decision};

/// Interval at which the folder is polled if no notification arrives (another host, no socket).
pub const POLL_INTERVAL: Duration = Duration::from_secs(1);

pub struct Inbox {
    dir: AttemptDir,
    notifier: Arc<Notify>,
    read: usize,
    /// Messages that wait for the end of the turn.
    queue: VecDeque<QueuedMessage>,
    /// Answers to questions that the turn has not taken yet.
    answers: Vec<QueuedAnswer>,
    cancelled: Option<Cancelled>,
    over_budget: Option<String>,
    /// True if the system has asked this process to end (a logout, a shutdown).
    shutting_down: Arc<AtomicBool>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuedMessage {
    pub id: Uuid,
    pub text: String,
    pub interrupt: bool,
}

/// The decision of a boss or the user on a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuedAnswer {
    pub entry: Uuid,
    pub by: Decider,
    pub question: String,
    pub decision: Decision,
    pub reason: Option<String>,
}

impl Inbox {
    pub fn new(dir: &AttemptDir, notifier: Arc<Notify>) -> Self {
        Self {
            dir: dir.clone(),
            notifier,
            read: 0,
            queue: VecDeque::new(),
            answers: Vec::new(),
            cancelled: None,
            over_budget: None,
            shutting_down: Arc::default(),
        }
    }

    /// Returns the notifier that fires when the inbox should be polled.
    pub fn notifier(&self) -> Arc<Notify> {
        Arc::clone(&self.notifier)
    }

    /// Reads new entries. Returns the messages among them, for the caller to deliver or to [`Inbox::enqueue`].
    pub fn poll(&mut self) -> Vec<QueuedMessage> {
        match self.dir.inbox_entries(self.read) {
            Ok(entries) => self.take(entries),
            Err(error) => {
                tracing::warn!(%error, "cannot read the inbox; trying again");
                Vec::new()
            }
        }
    }

    fn take(&mut self, entries: Vec<InboxEntry>) -> Vec<QueuedMessage> {
        self.read += entries.len();
        let mut messages = Vec::new();
        for entry in entries {
            match entry.instruction {
                Instruction::Cancel { reason } => self.cancelled = Some(Cancelled { by: entry.by, reason }),
                Instruction::OverBudget { reason } => self.over_budget = Some(reason),
                Instruction::Answer { question, decision, reason } => {
                    let by = entry.by.map_or(Decider::Policy, Decider::from);
                    self.answers.push(QueuedAnswer { entry: entry.id, by, question, decision, reason });
                }
                Instruction::Message { text, delivery } => {
                    messages.push(QueuedMessage { id: entry.id, text, interrupt: delivery == Delivery::Interrupt });
                }
            }
        }
        messages
    }

    /// Reads new entries and enqueues the messages among them.
    pub fn enqueue_new(&mut self) {
        for message in self.poll() {
            self.enqueue(message);
        }
    }

    /// Enqueues a message for the end of the turn.
    pub fn enqueue(&mut self, message: QueuedMessage) {
        self.queue.push_back(message);
    }

    /// Takes all queued messages, oldest first.
    pub fn take_queue(&mut self) -> Vec<QueuedMessage> {
        self.queue.drain(..).collect()
    }

    /// Takes the answers to questions, oldest first.
    pub fn take_answers(&mut self) -> Vec<QueuedAnswer> {
        std::mem::take(&mut self.answers)
    }

    pub fn is_cancelled(&self) -> bool {
        self.cancelled.is_some()
    }

    pub fn cancelled(&self) -> Option<&Cancelled> {
        self.cancelled.as_ref()
    }

    /// Returns why the budget is exceeded, if it is: no turn may begin or continue, but finished work may still be
    /// verified.
    pub fn over_budget(&self) -> Option<&String> {
        self.over_budget.as_ref()
    }

    pub fn is_shutting_down(&self) -> bool {
        self.shutting_down.load(Ordering::Relaxed)
    }

    /// Returns whether no turn may begin or continue.
    pub fn must_stop(&self) -> bool {
        self.is_cancelled() || self.is_shutting_down()
    }

    /// Waits until a cancellation arrives or the system asks this process to end. Also returns if the attempt's folder
    /// is gone, since its end could not be recorded then.
    pub async fn until_stopped(&mut self) {
        loop {
            let _ = tokio::time::timeout(POLL_INTERVAL, self.notifier.notified()).await;
            self.enqueue_new();
            if self.must_stop() || !self.dir.is_still_claimed() {
                return;
            }
        }
    }

    /// Treats a signal as a request to stop instead of ending at once, which leaves time to keep the work and to write
    /// the outcome.
    pub fn stop_on_signal(&self, kind: SignalKind) -> std::io::Result<()> {
        let mut signal = signal(kind)?;
        let (shutting_down, notifier) = (Arc::clone(&self.shutting_down), self.notifier());
        tokio::spawn(async move {
            while signal.recv().await.is_some() {
                shutting_down.store(true, Ordering::Relaxed);
                notifier.notify_one();
            }
        });
        Ok(())
    }

    /// Closes the inbox for good and returns true. If an entry has arrived meanwhile, enqueues it and returns false:
    /// the inbox stays open.
    pub fn close(&mut self) -> Result<bool, FileError> {
        let unread = self.dir.close_inbox(self.read)?;
        let closed = unread.is_empty();
        for message in self.take(unread) {
            self.enqueue(message);
        }
        Ok(closed)
    }
}
