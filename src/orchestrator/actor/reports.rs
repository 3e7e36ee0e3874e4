//! Reports of the tasks that start and follow workers.

use jiff::Timestamp;

use super::{Actor, Effect, settle};
use crate::attempt::status::LiveStatus;
use crate::crash_point::{self, Point};
use crate::mission::entry::{AttemptSummary, Entry};
use crate::mission::id::WorkerId;
use crate::mission::outcome::Outcome;
use crate::mission::registry::Worker;
use crate::orchestrator::mailbox::Report;
use crate::orchestrator::{logins, outcomes};

impl Actor {
    pub(super) fn reported(&mut self, id: WorkerId, attempt: u32, report: Report) {
        let Some(worker) = self.registry().get(&id).cloned() else { return };
        if worker.attempt != attempt || !worker.status.is_live() {
            return;
        }
        match report {
            Report::Started { base_commit, base_branch, repository } => {
                let running = Entry::Running { worker: id, attempt, base_commit, base_branch, repository };
                self.apply(vec![Effect::note("save that a worker runs", running)]);
            }
            Report::Submitted { job } => {
                let submitted = Entry::Submitted { worker: id, attempt, job };
                self.apply(vec![Effect::note("save that a cluster has accepted a worker", submitted)]);
            }
            Report::Waits(waits) => {
                self.state.cluster_waits.insert(id, waits);
                self.state_file.request();
                self.answer_waits();
            }
            Report::Status(status) => self.note_status(&worker, *status),
            Report::Ended(outcome) => self.settle(&worker, &outcome),
            Report::NeverBegan { inbox_entries } => match settle::requeue_unstarted(&worker, inbox_entries) {
                Some(effect) => self.apply(vec![effect]),
                // It did begin: its folder was removed, and with it the claim and everything else.
                None => self.settle(&worker, &outcomes::folder_removed(&worker)),
            },
            Report::OutOfSight { why } => tracing::warn!(worker = %id, why, "cannot follow a worker now"),
        }
    }

    fn note_status(&mut self, worker: &Worker, status: LiveStatus) {
        self.apply(settle::phase_changed(worker, status.phase).into_iter().collect());
        let known = self.state.live.get(&worker.id);
        // An answer to a question reads the status file, which may be newer than a report on its way.
        if known.is_some_and(|known| known.supervisor == status.supervisor && known.last_event > status.last_event) {
            return;
        }
        let (is_stalled, has_answered) = (status.stalled.is_some(), status.answered);
        let has_asked = status.needs_answer();
        let is_changed = known.map_or(has_asked, |known| known.questions != status.questions);
        self.state.live.insert(worker.id.clone(), status);
        if has_answered && let Some(worker) = self.registry().get(&worker.id).cloned() {
            let effects = logins::note_answer(self.registry(), &worker);
            self.apply(effects);
        }
        self.stop_over_budget();
        if is_changed {
            self.state_file.request();
        }
        if is_stalled || (is_changed && has_asked) {
            self.answer_waits();
            self.wake_bosses();
            self.note_user_events();
        }
    }

    fn settle(&mut self, worker: &Worker, outcome: &Outcome) {
        crash_point::at(Point::EndSeen);
        self.state.live.remove(&worker.id);
        self.state.cluster_waits.remove(&worker.id);
        let mut brief = Box::new(AttemptSummary::of(outcome, worker.next.model.clone()));
        // The clock of a node may be ahead, and the times of backoffs are those of this host.
        brief.settled_at = brief.settled_at.min(Timestamp::now());
        let settled = Entry::Settled { worker: worker.id.clone(), brief };
        self.apply(vec![Effect::note("save the end of a worker", settled).at(Point::EndNoted)]);
        self.scan_for_collisions();
    }
}
