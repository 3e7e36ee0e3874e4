//! Messages to a worker, with author and delivery state, read from its folder.

use jiff::Timestamp;
use uuid::Uuid;

use crate::attempt::assignment::Assignment;
use crate::attempt::inbox::InboxEntry;
use crate::attempt::status::{Delivered, LiveStatus};
use crate::attempt::worker_dir::{AttemptDir, WorkerDir};
use crate::files;
use crate::mission::message::{Author, Message};
use crate::mission::registry::Worker;

/// A message, feedback, or a new prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct MessageView {
    pub attempt: u32,
    pub id: Uuid,
    pub at: Timestamp,
    /// The author. `None` if the server wrote it on its own.
    pub by: Option<Author>,
    pub text: String,
    pub state: DeliveryState,
    /// The last step of its delivery. A message may have been passed to the CLI without an acknowledgement.
    pub delivered: Option<Delivered>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryState {
    /// Delivered as part of the attempt's first prompt.
    AtTheStart,
    At(Timestamp),
    /// Not delivered yet: it is on its way, or waits for the end of the turn or a free slot.
    Waiting,
    /// Not delivered, and the attempt is over. The next attempt receives it first.
    Never,
}

impl DeliveryState {
    pub fn as_str(self) -> &'static str {
        match self {
            DeliveryState::AtTheStart | DeliveryState::At(_) => "delivered",
            DeliveryState::Waiting => "waiting",
            DeliveryState::Never => "not delivered",
        }
    }
}

/// Returns all messages to a worker, in the order in which they were written.
pub fn messages_to(worker: &Worker, folder: &WorkerDir) -> Vec<MessageView> {
    let mut all: Vec<MessageView> = Vec::new();
    for number in folder.attempts() {
        let is_over = number < worker.attempt || worker.status.is_settled();
        all.extend(in_attempt(worker, number, &folder.attempt(number), is_over));
    }
    if !worker.status.is_settled() && !worker.status.is_live() {
        let waiting = |message: &Message| of_message(message, worker.attempt + 1, DeliveryState::Waiting);
        all.extend(worker.next.written.iter().map(waiting));
    }
    all
}

/// Returns the messages to the attempt that runs, ran last, or waits in the queue.
pub fn messages_to_newest_attempt(worker: &Worker, folder: &WorkerDir) -> Vec<MessageView> {
    let queued = !worker.status.is_settled() && !worker.status.is_live();
    let newest = worker.attempt + u32::from(queued);
    messages_to(worker, folder).into_iter().filter(|message| message.attempt == newest).collect()
}

/// Returns the messages of one attempt: those that it began with, then those that were posted to it.
fn in_attempt(worker: &Worker, number: u32, dir: &AttemptDir, is_over: bool) -> Vec<MessageView> {
    let assignment: Option<Assignment> = files::read_json(&dir.assignment()).ok().flatten();
    let began = match assignment {
        Some(assignment) => {
            assignment.written.iter().map(|it| of_message(it, number, DeliveryState::AtTheStart)).collect()
        }
        // It was cancelled in the queue.
        None if is_over && number == worker.attempt => {
            worker.next.written.iter().map(|it| of_message(it, number, DeliveryState::Never)).collect()
        }
        None => Vec::new(),
    };
    began.into_iter().chain(inbox_entries(number, dir, is_over)).collect()
}

/// Returns the messages that were posted to a running attempt.
pub fn inbox_entries(number: u32, dir: &AttemptDir, is_over: bool) -> Vec<MessageView> {
    let inbox_entries = dir.inbox_entries(0).unwrap_or_default();
    if inbox_entries.is_empty() {
        return Vec::new();
    }
    let status = LiveStatus::read(dir).ok().flatten();
    let receipts = status.map(|status| status.receipts).unwrap_or_default();
    // The newest receipt has the current delivery state.
    let newest = |id: Uuid| receipts.iter().rev().find(|receipt| receipt.message_id == id);
    let state = |id: Uuid| match newest(id).filter(|receipt| receipt.how != Delivered::Sent) {
        Some(receipt) => DeliveryState::At(receipt.at),
        None if is_over => DeliveryState::Never,
        None => DeliveryState::Waiting,
    };
    let message = |entry: InboxEntry| {
        let (id, at, by) = (entry.id, entry.at, entry.by);
        let delivered = newest(id).map(|receipt| receipt.how);
        Some(MessageView { attempt: number, id, at, by, text: entry.into_text()?, state: state(id), delivered })
    };
    inbox_entries.into_iter().filter_map(message).collect()
}

fn of_message(message: &Message, attempt: u32, state: DeliveryState) -> MessageView {
    let Message { id, at, by, text } = message.clone();
    let delivered = (state == DeliveryState::AtTheStart).then_some(Delivered::Turn);
    MessageView { attempt, id, at, by: Some(by), text, state, delivered }
}
