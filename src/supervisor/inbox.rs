//! Messages to the supervisor, in order, each handled once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::attempt::worker_dir::{AttemptDir, Delivery, Instruction};
use crate::files::FileError;
use crate::mission::message::Cancelled;

/// Interval at which the folder is polled if no notification arrives (another host, no socket).
pub const LOOK_EVERY: Duration = Duration::from_secs(1);

pub struct Inbox {
    dir: AttemptDir,
    knocked: Arc<Notify>,
    read: usize,
    /// Messages that wait for the end of the turn.
    queue: VecDeque<Message>,
    cancelled: Option<Cancelled>,
    over_budget: Option<String>,
    /// True if the system has asked this process to end (a logout, a shutdown).
    leaving: Arc<AtomicBool>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub id: Uuid,
    pub text: String,
    pub interrupt: bool,
}

impl Inbox {
    pub fn new(dir: &AttemptDir, knocked: Arc<Notify>) -> Self {
        Self {
            dir: dir.clone(),
            knocked,
            read: 0,
            queue: VecDeque::new(),
            cancelled: None,
            over_budget: None,
            leaving: Arc::default(),
        }
    }

    /// Returns when the inbox should be read again. Dropping the future loses no notification, but its time starts
    /// again. Use an interval if other events are more frequent than [`LOOK_EVERY`].
    pub async fn knock(knocked: &Notify) {
        let _ = tokio::time::timeout(LOOK_EVERY, knocked.notified()).await;
    }

    pub fn bell(&self) -> Arc<Notify> {
        Arc::clone(&self.knocked)
    }

    /// Takes in what is new; the messages among it, for the caller to deliver or to [`Inbox::keep`].
    pub fn look(&mut self) -> Vec<Message> {
        match self.dir.inbox_entries(self.read) {
            Ok(inbox_entries) => self.take(inbox_entries),
            Err(error) => {
                tracing::warn!(%error, "could not read the inbox; trying again");
                Vec::new()
            }
        }
    }

    fn take(&mut self, inbox_entries: Vec<crate::attempt::worker_dir::InboxEntry>) -> Vec<Message> {
        self.read += inbox_entries.len();
        let mut messages = Vec::new();
        for inbox_entry in inbox_entries {
            match inbox_entry.instruction {
                Instruction::Cancel { reason } => self.cancelled = Some(Cancelled { by: inbox_entry.by, reason }),
                Instruction::OverBudget { reason } => self.over_budget = Some(reason),
                Instruction::Message { text, delivery } => {
                    messages.push(Message { id: inbox_entry.id, text, interrupt: delivery == Delivery::Interrupt });
                }
            }
        }
        messages
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

    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// No turn may begin, and none that runs may go on.
    pub fn is_over(&self) -> bool {
        self.is_cancelled() || self.is_leaving()
    }

    /// From now on, what the system asks is heard like a message: there is still time for the work to be kept and for a
    /// record of how it ended.
    pub fn heed(&self, kind: SignalKind) -> std::io::Result<()> {
        let mut signal = signal(kind)?;
        let (leaving, bell) = (Arc::clone(&self.leaving), self.bell());
        tokio::spawn(async move {
            while signal.recv().await.is_some() {
                leaving.store(true, Ordering::Relaxed);
                bell.notify_one();
            }
        });
        Ok(())
    }

    /// For the end of the turn.
    pub fn keep(&mut self, message: Message) {
        self.queue.push_back(message);
    }

    /// All that waits, oldest first.
    pub fn take_queue(&mut self) -> Vec<Message> {
        self.queue.drain(..).collect()
    }

    /// Closes it for good, unless something came in meanwhile; then that is taken in and it stays open.
    pub fn close(&mut self) -> Result<bool, FileError> {
        let unread = self.dir.close_inbox(self.read)?;
        let closed = unread.is_empty();
        for message in self.take(unread) {
            self.keep(message);
        }
        Ok(closed)
    }
}
