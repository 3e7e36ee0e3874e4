//! Handling of the reports of workers' tasks, and the records of attempts that had no supervisor to write them.

use std::sync::Arc;

use jiff::Timestamp;

use super::actor::Actor;
use super::answers::*;
use super::error::OrchestratorError;
use super::mail::News;
use crate::attempt::state_dir::StateDir;
use crate::attempt::status::{LiveStatus, Phase};
use crate::attempt::worker_dir::{AttemptDir, InboxEntry, Instruction, WorkerDir};
use crate::crash_point::{self, Point};
use crate::files::FileError;
use crate::mission::entry::{AttemptSummary, Entry, NextAttempt, Start};
use crate::mission::id::WorkerId;
use crate::mission::lifecycle::{Ending, WorkerStatus};
use crate::mission::message::{Author, Message};
use crate::mission::outcome::{Changes, Cleanup, Containment, Failure, FailureKind, Outcome, Run, Verification};
use crate::mission::registry::Worker;
use crate::mission::retry;
use crate::mission::spec::Mission;

const SETTLED_AT_ONCE: usize = 200;
/// Number of threads that write records. A record is a few small files, and most of its time is waiting for the disk.
const RECORDERS: usize = 8;

impl Actor {
    pub(super) fn told(&mut self, id: WorkerId, attempt: u32, news: News) {
        let Some(worker) = self.registry().get(&id).cloned() else { return };
        if worker.attempt != attempt || !worker.status.is_live() {
            return;
        }
        match news {
            News::Started { base_commit, base_branch, repository } => {
                self.note(Entry::Running { worker: id.clone(), attempt, base_commit, base_branch, repository })
            }
            News::Status(status) => self.note_status(&worker, *status),
            News::Ended(outcome) => self.settle(&worker, &outcome),
            News::NeverBegan { inbox_entries } => self.take_back(&worker, inbox_entries),
            News::OutOfSight { why } => tracing::warn!(worker = %id, why, "a worker cannot be followed just now"),
        }
    }

    fn note_status(&mut self, worker: &Worker, status: LiveStatus) {
        match (worker.status, status.phase) {
            (WorkerStatus::Starting | WorkerStatus::Verifying, Phase::Running) => {
                let (worker, attempt) = (worker.id.clone(), worker.attempt);
                self.note(Entry::Running { worker, attempt, base_commit: None, base_branch: None, repository: None });
            }
            (WorkerStatus::Running, Phase::Verifying) => {
                self.note(Entry::Verifying { worker: worker.id.clone(), attempt: worker.attempt });
            }
            _ => {}
        }
        let (stalled, answered) = (status.stalled.is_some(), status.answered);
        self.live.insert(worker.id.clone(), status);
        if answered && let Some(worker) = self.registry().get(&worker.id).cloned() {
            self.note_answer(&worker);
        }
        self.keep_to_budget();
        if stalled {
            self.answer_waits();
        }
    }

    fn settle(&mut self, worker: &Worker, outcome: &Outcome) {
        crash_point::at(Point::EndSeen);
        self.live.remove(&worker.id);
        let brief = Box::new(AttemptSummary::of(outcome, worker.next.model.clone()));
        let id = worker.id.clone();
        self.note(Entry::Settled { worker: id, brief });
        crash_point::at(Point::EndNoted);
        self.look_at_radar();
    }

    /// Returns a worker to the queue with the messages that it got meanwhile. A cancelled worker is settled from there.
    fn take_back(&mut self, worker: &Worker, inbox_entries: Vec<InboxEntry>) {
        if worker.status != WorkerStatus::Starting {
            // It did begin: its folder was removed, and with it the claim and everything else.
            return self.settle(worker, &folder_removed(worker));
        }
        let messages = inbox_entries.into_iter().filter_map(|inbox_entry| match inbox_entry.instruction {
            Instruction::Message { text, .. } => Some(Message {
                id: inbox_entry.id,
                at: inbox_entry.at,
                by: inbox_entry.by.unwrap_or(Author::Boss),
                text,
            }),
            Instruction::Cancel { .. } | Instruction::OverBudget { .. } => None,
        });
        let next = messages.fold(None, |next: Option<NextAttempt>, message| {
            Some(with_message(next.as_ref().unwrap_or(&worker.next), &worker.mission, message))
        });
        let amended = next.map(|next| Entry::Amended { worker: worker.id.clone(), next: Box::new(next) });
        let unstarted = Entry::Unstarted { worker: worker.id.clone(), attempt: worker.attempt };
        self.note_all(amended.into_iter().chain([unstarted]).collect());
    }

    pub(super) fn note(&mut self, entry: Entry) {
        self.note_all(vec![entry]);
    }

    fn note_all(&mut self, entries: Vec<Entry>) {
        if let Err(error) = self.transact(|_| (entries, ())) {
            // What is on disk stands; the regular look finds it again when there is room.
            tracing::error!(%error, "could not save what became of a worker");
        }
    }

    /// Settles workers that were cancelled before anything ran, since no supervisor writes their records.
    pub(super) fn settle_called_off(&mut self) {
        let called_off = |worker: &Worker| worker.status == WorkerStatus::Queued && worker.cancel.is_some();
        let waiting: Vec<WorkerId> =
            self.registry().workers().filter(|it| called_off(it)).map(|worker| worker.id.clone()).collect();
        // Others wait for the journal's lock meanwhile.
        for ids in waiting.chunks(SETTLED_AT_ONCE) {
            if let Err(error) = self.settle_queued(ids) {
                return tracing::error!(%error, "could not save that workers were called off; they stay in the queue and never start");
            }
        }
    }

    /// Writes the records before the entries, both under the journal's lock. No worker is then reported as settled
    /// without a record, and a record from a server that was killed in between is kept.
    fn settle_queued(&mut self, ids: &[WorkerId]) -> Result<(), OrchestratorError> {
        let Some(dir) = self.state_dir().cloned() else { return Ok(()) };
        self.transact(|registry| {
            let queued = ids.iter().filter_map(|id| registry.get(id)).filter(|it| it.status == WorkerStatus::Queued);
            let queued: Vec<&Arc<Worker>> = queued.collect();
            let parts: Vec<&[&Arc<Worker>]> = queued.chunks(queued.len().div_ceil(RECORDERS).max(1)).collect();
            let entries = std::thread::scope(|scope| {
                let record = |part| record_called_off(&dir, part);
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
                entries.collect::<Vec<Entry>>()
            });
            (entries, ())
        })
    }

    /// Answers the cancellations whose workers have settled.
    pub(super) fn answer_cancels(&mut self) {
        let settled: Vec<Arc<Worker>> = self
            .cancels
            .keys()
            .filter_map(|id| self.registry().get(id).filter(|worker| worker.status.is_settled()).cloned())
            .collect();
        for worker in settled {
            let answer = self.cancel_answer(&worker, false);
            for reply in self.cancels.remove(&worker.id).unwrap_or_default() {
                let _ = reply.send(Ok(answer.clone()));
            }
        }
    }

    pub(super) fn cancel_answer(&self, worker: &Worker, already_settled: bool) -> CancelAnswer {
        let record = self.state_dir().map(|dir| dir.worker(&worker.id).attempt(worker.attempt).outcome());
        let cleanup = record.and_then(|record| record.ok().flatten()).map(|outcome| outcome.cleanup);
        let survivors = worker.last().map_or(0, |brief| brief.survivors);
        CancelAnswer {
            worker_id: worker.id.clone(),
            status: worker.status,
            survivors,
            proof: cleanup.map_or(Containment::BestEffort, |cleanup| cleanup.containment),
            already_settled,
            unheard: worker.last().map(|brief| brief.unheard.clone()).unwrap_or_default(),
        }
    }
}

/// Writes the records of workers that never ran. Returns an entry for each that has one.
fn record_called_off(dir: &StateDir, workers: &[&Arc<Worker>]) -> Vec<Entry> {
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
                tracing::error!(worker = %worker.id, %error, "could not record that a worker was called off; it stays in the queue and never starts");
                None
            }
        }
    });
    settled.collect()
}

/// Returns the record of an attempt that never ran.
pub(super) fn never_ran(worker: &Worker, attempt: u32, status: Ending, failure: Option<Failure>) -> Outcome {
    Outcome {
        worker_id: worker.id.clone(),
        attempt,
        backend: worker.next.backend.clone(),
        status,
        run: Run {
            failure,
            cancelled: worker.cancelled().filter(|_| status == Ending::Cancelled),
            unheard: retry::still_unheard(worker),
            ..Run::default()
        },
        verification: skipped(worker),
        likely_cause: None,
        changes: Changes::default(),
        // Nothing was started, so nothing can be left.
        cleanup: Cleanup { containment: Containment::Full, ..Cleanup::default() },
        settled_at: Timestamp::now(),
    }
}

/// Writes the record, or reads an existing one.
fn record(folder: &WorkerDir, worker: &Worker, dir: &AttemptDir, outcome: Outcome) -> Result<Outcome, FileError> {
    folder.record(worker)?;
    dir.make()?;
    match dir.settle(&outcome)? {
        true => Ok(outcome),
        false => Ok(dir.outcome()?.unwrap_or(outcome)),
    }
}

fn folder_removed(worker: &Worker) -> Outcome {
    let message =
        "its folder was removed while it ran, so nobody can say how it ended; what it did is in its directory";
    let failure = Failure { kind: FailureKind::Lost, message: message.to_owned(), resets_at: None };
    let cleanup = Cleanup { containment: Containment::BestEffort, ..Cleanup::default() };
    Outcome { cleanup, ..never_ran(worker, worker.attempt, Ending::Lost, Some(failure)) }
}

/// Returns the next attempt with this message added.
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

pub(super) fn skipped(worker: &Worker) -> Verification {
    match worker.mission.verify_command {
        Some(_) => Verification::Skipped,
        None => Verification::NotRequested,
    }
}
