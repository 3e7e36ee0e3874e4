//! Events for the user: which event follows from the progress of a worker, and the JSON that the `notify_command`
//! reads. Pure. A live server sends them, or without one the supervisor of the attempt.

use std::path::PathBuf;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::delivery;
use super::entry::AttemptSummary;
use super::graph;
use super::id::{BossId, WorkerId};
use super::lifecycle::{Ending, WorkerStatus};
use super::outcome::blocked_by;
use super::question::Question;
use super::registry::{Registry, Worker};

/// An event that the user may want to know about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NotifyEvent {
    /// A worker completed.
    Finished,
    /// A worker failed, and no automatic attempt follows.
    Failed,
    /// A worker needs a person.
    NeedsAnswer,
    /// No worker of a boss is open.
    AllDone,
}

/// One event, as the command reads it.
#[derive(Debug, Clone, Serialize)]
pub struct UserEvent {
    pub event: NotifyEvent,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker_id: Option<WorkerId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<PathBuf>,
    pub time: Timestamp,
}

/// The input of the command: the last event, and all that happened within a second.
#[derive(Debug, Serialize)]
pub struct Wave<'a> {
    #[serde(flatten)]
    last: &'a UserEvent,
    events: &'a [UserEvent],
}

impl<'a> Wave<'a> {
    /// Returns `None` without events.
    pub fn of(events: &'a [UserEvent]) -> Option<Self> {
        Some(Self { last: events.last()?, events })
    }
}

/// An event of a worker, with its reason.
pub type WorkerEvent = (NotifyEvent, Option<String>);

/// The progress of a worker in one attempt. It only advances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Progress {
    #[default]
    Open,
    NeedsPerson,
    Settled,
}

/// Returns the progress of a worker, and the event for the user. `stalled` is the evidence of a stall.
pub fn progress(registry: &Registry, worker: &Worker, stalled: Option<&str>) -> (Progress, Option<WorkerEvent>) {
    if delivery::is_final(worker) {
        return (Progress::Settled, end(worker));
    }
    let why = stalled.map(|evidence| format!("stalled: {evidence}"));
    match why.or_else(|| graph::block(registry, worker).map(|why| format!("blocked: {}", why.text))) {
        Some(why) => (Progress::NeedsPerson, Some((NotifyEvent::NeedsAnswer, Some(why)))),
        None => (Progress::Open, None),
    }
}

/// Returns the event of a question of a running worker.
pub fn asked(question: &Question) -> WorkerEvent {
    (NotifyEvent::NeedsAnswer, Some(format!("asks: {}", question.text)))
}

/// Returns the event of a settled worker that is not tried again. `None` for a cancelled worker, since the user or
/// the boss ended it.
pub fn end(worker: &Worker) -> Option<WorkerEvent> {
    let last = worker.last();
    let reason = last.and_then(AttemptSummary::reasons);
    match worker.status {
        WorkerStatus::Settled(Ending::Completed) if worker.needs_you() => {
            let what = last.and_then(|last| blocked_by(&last.final_message)).unwrap_or_default();
            Some((NotifyEvent::NeedsAnswer, Some(what.to_owned())))
        }
        WorkerStatus::Settled(Ending::Completed) => Some((NotifyEvent::Finished, reason)),
        WorkerStatus::Settled(Ending::Cancelled) => None,
        _ => Some((NotifyEvent::Failed, reason)),
    }
}

impl UserEvent {
    pub fn of_worker(
        worker: &Worker,
        (event, reason): WorkerEvent,
        repository: Option<PathBuf>,
        time: Timestamp,
    ) -> Self {
        Self {
            event,
            worker_id: Some(worker.id.clone()),
            title: Some(worker.mission.title.clone()),
            status: Some(worker.status.as_str()),
            reason,
            repository,
            time,
        }
    }

    pub fn all_done(repository: Option<PathBuf>, time: Timestamp) -> Self {
        let (worker_id, title, status, reason) = (None, None, None, None);
        Self { event: NotifyEvent::AllDone, worker_id, title, status, reason, repository, time }
    }
}

/// Returns the worker of a boss that settled last, if none is open. All processes choose the same one, so that its
/// claim is unique.
pub fn last_of_all<'a>(workers: impl Iterator<Item = &'a Worker>, boss: &BossId) -> Option<&'a Worker> {
    let mut last: Option<(Timestamp, &'a Worker)> = None;
    for worker in workers.filter(|worker| worker.boss == *boss) {
        let settled_at = worker.last().filter(|_| delivery::is_final(worker))?.settled_at;
        if last.is_none_or(|(at, other)| (settled_at, &worker.id) > (at, &other.id)) {
            last = Some((settled_at, worker));
        }
    }
    last.map(|(_, worker)| worker)
}
