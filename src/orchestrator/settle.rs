//! Entries that settle workers or return them to the queue, and the records of workers that were cancelled before
//! anything ran.

use std::sync::Arc;

use super::effect::Effect;
use super::outcomes::never_ran;
use crate::attempt::inbox::InboxEntry;
use crate::attempt::state_dir::StateDir;
use crate::attempt::status::Phase;
use crate::attempt::worker_dir::{AttemptDir, WorkerDir};
use crate::crash_point::{self, Point};
use crate::files::FileError;
use crate::mission::entry::{AttemptSummary, Entry, NextAttempt, Start};
use crate::mission::id::WorkerId;
use crate::mission::lifecycle::{Ending, WorkerStatus};
use crate::mission::message::{Author, Message};
use crate::mission::outcome::Outcome;
use crate::mission::registry::{Registry, Worker};
use crate::mission::spec::Mission;

/// Number of workers that are settled in one step. Other servers wait for the journal's lock meanwhile.
const SETTLED_AT_ONCE: usize = 200;
/// Number of threads that write records. A record is a few small files, and most of its time is waiting for the disk.
const RECORDERS: usize = 8;

/// Returns the entry for a phase that the registry does not show yet.
pub(super) fn phase_changed(worker: &Worker, phase: Phase) -> Option<Effect> {
    let (id, attempt) = (worker.id.clone(), worker.attempt);
    let entry = match (worker.status, phase) {
        (WorkerStatus::Starting | WorkerStatus::Verifying, Phase::Running) => {
            Entry::Running { worker: id, attempt, base_commit: None, base_branch: None, repository: None }
        }
        (WorkerStatus::Running, Phase::Verifying) => Entry::Verifying { worker: id, attempt },
        _ => return None,
    };
    Some(Effect::note("save the phase of a worker", entry))
}

/// Returns a worker that never began to the queue, with the messages that it got meanwhile. A cancelled worker is
/// settled from there. `None` if it did begin.
pub(super) fn requeue_unstarted(worker: &Worker, inbox_entries: Vec<InboxEntry>) -> Option<Effect> {
    if worker.status != WorkerStatus::Starting {
        return None;
    }
    let messages = inbox_entries.into_iter().filter_map(|entry| {
        let (id, at, by) = (entry.id, entry.at, entry.by.unwrap_or(Author::Boss));
        Some(Message { id, at, by, text: entry.into_text()? })
    });
    let next = messages.fold(None, |next: Option<NextAttempt>, message| {
        Some(with_message(next.as_ref().unwrap_or(&worker.next), &worker.mission, message))
    });
    let amended = next.map(|next| Entry::Amended { worker: worker.id.clone(), next: Box::new(next) });
    let unstarted = Entry::Unstarted { worker: worker.id.clone(), attempt: worker.attempt };
    let entries: Vec<Entry> = amended.into_iter().chain([unstarted]).collect();
    Some(Effect::append("save that a worker did not start", move |_| entries))
}

/// Settles workers that were cancelled before anything ran, since no supervisor writes their records.
pub(super) fn settle_cancelled(registry: &Registry, dir: Option<&StateDir>) -> Vec<Effect> {
    let Some(dir) = dir else { return Vec::new() };
    let is_cancelled = |worker: &&Arc<Worker>| worker.status == WorkerStatus::Queued && worker.cancel.is_some();
    let cancelled: Vec<WorkerId> = registry.workers().filter(is_cancelled).map(|worker| worker.id.clone()).collect();
    let chunks = cancelled.chunks(SETTLED_AT_ONCE).map(|ids| {
        let (ids, dir) = (ids.to_vec(), dir.clone());
        Effect::append("save the end of workers that were cancelled in the queue", move |registry| {
            settle_queued(registry, &dir, &ids)
        })
    });
    chunks.collect()
}

/// Writes the records before the entries, both under the journal's lock. No worker is then reported as settled without
/// a record, and a record from a server that was killed in between is kept.
fn settle_queued(registry: &Registry, dir: &StateDir, ids: &[WorkerId]) -> Vec<Entry> {
    let queued = ids.iter().filter_map(|id| registry.get(id)).filter(|it| it.status == WorkerStatus::Queued);
    let queued: Vec<&Arc<Worker>> = queued.collect();
    let parts: Vec<&[&Arc<Worker>]> = queued.chunks(queued.len().div_ceil(RECORDERS).max(1)).collect();
    std::thread::scope(|scope| {
        let record = |part| record_cancelled(dir, part);
        let threads = parts.iter().map(|part| {
            let thread = std::thread::Builder::new().name("records".to_owned());
            (*part, thread.spawn_scoped(scope, move || record(part)))
        });
        let threads: Vec<_> = threads.collect();
        let entries = threads.into_iter().flat_map(|(part, thread)| match thread.map(|it| it.join()) {
            Ok(Ok(entries)) => entries,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            // There may be no room for another thread.
            Err(_) => record(part),
        });
        entries.collect()
    })
}

/// Writes the records of workers that never ran. Returns an entry for each that has one.
fn record_cancelled(dir: &StateDir, workers: &[&Arc<Worker>]) -> Vec<Entry> {
    let settled = workers.iter().filter_map(|worker| {
        let attempt = worker.attempt + 1;
        let (folder, outcome) = (dir.worker(&worker.id), never_ran(worker, attempt, Ending::Cancelled, None));
        let recorded = record(&folder, worker, &folder.attempt(attempt), outcome);
        crash_point::at(Point::CalledOffRecorded);
        match recorded {
            Ok(outcome) => {
                let brief = Box::new(AttemptSummary::of(&outcome, worker.next.model.clone()));
                Some(Entry::Settled { worker: worker.id.clone(), brief })
            }
            Err(error) => {
                tracing::error!(worker = %worker.id, %error, "cannot record that a worker was cancelled; it stays in the queue and never starts");
                None
            }
        }
    });
    settled.collect()
}

/// Writes the record, or reads an existing one.
fn record(folder: &WorkerDir, worker: &Worker, dir: &AttemptDir, outcome: Outcome) -> Result<Outcome, FileError> {
    folder.record(worker)?;
    dir.make()?;
    if dir.settle(&outcome)? { Ok(outcome) } else { Ok(dir.outcome()?.unwrap_or(outcome)) }
}

pub(super) fn with_message(next: &NextAttempt, mission: &Mission, message: Message) -> NextAttempt {
    let add = |text: &str| format!("{text}\n\n{}", message.text);
    let start = match &next.start {
        Start::Mission => Start::Prompt { text: add(&mission.prompt) },
        Start::Prompt { text } => Start::Prompt { text: add(text) },
        Start::Resume { session_id, text } => Start::Resume { session_id: session_id.clone(), text: add(text) },
    };
    let mut written = next.written.clone();
    written.push(message);
    NextAttempt { start, written, ..next.clone() }
}
