//! The fold of the journal: how each entry changes the registry. Entries decide races and blocks, so every server that
//! reads the same lines has the same state. Pure.

use std::sync::Arc;

use super::background_wait::{self, BackgroundWait, WaitEnd};
use super::budget::Spent;
use super::entry::{Entry, Line, NewWorker};
use super::graph;
use super::id::{BossId, ServerId, WaitId, WorkerId};
use super::lifecycle::{self, Event, WorkerStatus};
use super::message::Author;
use super::notification::Notification;
use super::race;
use super::registry::{Registry, Server};
use super::summary::AttemptSummary;
use super::worker::{Integrated, NextAttempt, Start, Worker};

impl Registry {
    /// Applies one line. An entry that the lifecycle forbids has no effect, since files get damaged.
    pub fn apply(&mut self, line: &Line) {
        self.seq = line.seq;
        if !line.entry.changes_no_dependency() {
            self.forget_derived();
        }
        match &line.entry {
            Entry::ServerJoined { boss, directory } => {
                if boss.is_anonymous() {
                    self.anonymous.insert(boss.clone(), directory.clone());
                }
                let server = Server { boss: boss.clone(), directory: directory.clone() };
                self.servers.insert(line.server.clone(), server);
            }
            Entry::ServersGone { servers } => self.servers.retain(|id, _| !servers.contains(id)),
            Entry::BossSucceeded { from, to } => {
                from.iter().filter(|boss| *boss != to).for_each(|it| self.succeed(it, to))
            }
            Entry::Answered { backend } => drop(self.answered.insert(backend.clone(), line.at)),
            Entry::Created { workers } => {
                workers.iter().for_each(|new| self.add(new, line));
                self.reset_ended_blocks();
            }
            Entry::Notified { settled, blocked, .. } => {
                self.change_notifications(settled, blocked, |it| it.send(line.seq, &line.server));
            }
            Entry::Acknowledged { deliveries, settled, blocked } => {
                self.change_all_notifications(|it| it.acknowledged(deliveries));
                self.change_notifications(settled, blocked, Notification::confirm);
            }
            Entry::Withdrawn { delivery } => self.change_all_notifications(|it| it.withdrawn(*delivery)),
            Entry::WakeRequested { .. }
            | Entry::WakeSent { .. }
            | Entry::WakeRan { .. }
            | Entry::WakeArrived { .. }
            | Entry::WakeEnded { .. } => self.wakes.apply(line),
            Entry::WaitOpened { id, boss, workers, deadline } => self.open_wait(BackgroundWait {
                id: id.clone(),
                boss: boss.clone(),
                workers: workers.clone(),
                opened_at: line.at,
                deadline: *deadline,
                end: None,
            }),
            Entry::WaitEnded { id, settled, blocked, cancelled } => {
                let (settled, blocked, cancelled) = (settled.clone(), blocked.clone(), cancelled.clone());
                self.end_wait(id, WaitEnd { delivery: line.seq, settled, blocked, cancelled });
            }
            Entry::LeaseTaken { workers } => {
                for id in workers {
                    self.change(id, |worker| worker.lease = line.server.clone());
                }
            }
            Entry::Archived { workers } => workers.iter().for_each(|id| self.archive(id)),
            Entry::Recalled { workers } => workers.iter().for_each(|worker| self.put(Arc::clone(worker))),
            entry => self.apply_to_worker(entry, line),
        }
    }

    fn apply_to_worker(&mut self, entry: &Entry, line: &Line) {
        match entry {
            Entry::Starting { worker, attempt } => self.change(worker, |worker| {
                if worker.advance(Event::Admitted) {
                    worker.attempt = *attempt;
                    worker.job = None;
                    worker.admitted_seq = line.seq;
                    worker.lease = line.server.clone();
                }
            }),
            Entry::Unstarted { worker, attempt } => self.change(worker, |worker| {
                worker.advance_in(*attempt, Event::StartAbandoned);
            }),
            Entry::Submitted { worker, attempt, job } => self.change(worker, |worker| {
                // It may have begun before its server knew the job.
                if worker.attempt == *attempt && worker.status.is_live() {
                    worker.job = Some(job.clone());
                }
            }),
            Entry::Running { worker, attempt, base_commit, base_branch, repository } => self.change(worker, |worker| {
                if worker.advance_in(*attempt, Event::TurnStarted) {
                    // The attempt runs in it, so it was created again.
                    worker.worktree_removed = false;
                    worker.started_at.get_or_insert(line.at);
                    worker.base_commit = base_commit.clone().or(worker.base_commit.take());
                    worker.base_branch = base_branch.clone().or(worker.base_branch.take());
                    worker.repository = repository.clone().or(worker.repository.take());
                }
            }),
            Entry::Verifying { worker, attempt } => self.change(worker, |worker| {
                worker.advance_in(*attempt, Event::VerificationStarted);
            }),
            Entry::Settled { worker, brief } => {
                self.settle(worker, brief);
                self.decide_race(worker);
            }
            Entry::Requeued { worker, next, lease } => {
                self.requeue(worker, next, lease.as_ref().unwrap_or(&line.server), line)
            }
            Entry::Amended { worker, next } => self.change(worker, |worker| worker.next = NextAttempt::clone(next)),
            Entry::FailedOver { worker, next, reason } => self.change(worker, |worker| {
                if worker.status == WorkerStatus::Queued {
                    worker.next = NextAttempt::clone(next);
                    worker.failed_over = Some(reason.clone());
                }
            }),
            Entry::CancelRequested { worker, by, reason } => self.change(worker, |worker| {
                worker.cancel = Some(reason.clone());
                worker.cancelled_by = Some(if by.is_one_shot_client() { Author::User } else { Author::Boss });
            }),
            Entry::Integrated { worker, into, commit, source, partial } => self.change(worker, |worker| {
                let (into, commit, source, partial) = (into.clone(), commit.clone(), source.clone(), *partial);
                let former = worker.integrated.replace(Integrated { into, commit, source, partial });
                worker.integrated_before.extend(former.filter(|former| worker.integrated.as_ref() != Some(former)));
            }),
            Entry::WorktreeRemoved { worker, salvage_ref } => self.change(worker, |worker| {
                worker.worktree_removed = true;
                worker.salvage_ref = salvage_ref.clone().or(worker.salvage_ref.take());
            }),
            _ => {}
        }
    }

    fn open_wait(&mut self, wait: BackgroundWait) {
        for id in background_wait::to_forget(self.waits.values()) {
            self.waits.remove(&id);
        }
        self.waits.insert(wait.id.clone(), wait);
    }

    /// Ends a wait once. Its content counts as sent from then on, even if the journal has lost that it was opened.
    fn end_wait(&mut self, id: &WaitId, end: WaitEnd) {
        if self.waits.get(id).is_some_and(|wait| !wait.is_open()) {
            return;
        }
        self.change_notifications(&end.settled, &end.blocked, |it| it.send_in_background(end.delivery));
        if let Some(wait) = self.waits.get_mut(id) {
            wait.end = Some(end);
        }
    }

    /// Passes all that a boss had to its successor.
    fn succeed(&mut self, boss: &BossId, successor: &BossId) {
        self.anonymous.remove(boss);
        if let Some(branch) = self.integration_branches.remove(boss) {
            self.integration_branches.entry(successor.clone()).or_insert(branch);
        }
        if let Some(spent) = self.spent.remove(boss) {
            self.spent.entry(successor.clone()).or_default().add(spent);
        }
        for wait in self.waits.values_mut().filter(|wait| wait.boss == *boss) {
            wait.boss = successor.clone();
        }
        for worker in self.workers.values_mut().filter(|worker| worker.boss == *boss) {
            Arc::make_mut(worker).boss = successor.clone();
        }
    }

    fn settle(&mut self, id: &WorkerId, brief: &AttemptSummary) {
        let mut spent = None;
        self.change(id, |worker| {
            if worker.advance_in(brief.attempt, Event::Settled(brief.status)) {
                spent = Some((worker.boss.clone(), Spent::by(brief, &worker.settled)));
                worker.attempt = brief.attempt;
                worker.settled.push(brief.clone());
                worker.notification = Notification::Pending;
            }
        });
        if let Some((boss, spent)) = spent {
            self.spent.entry(boss).or_default().add(spent);
        }
    }

    fn add(&mut self, new: &NewWorker, line: &Line) {
        self.put(Arc::new(Worker::new(new, line)));
    }

    fn requeue(&mut self, id: &WorkerId, next: &NextAttempt, lease: &ServerId, line: &Line) {
        self.change(id, |worker| {
            if worker.advance(Event::Requeued) {
                worker.next = next.clone();
                worker.lease = lease.clone();
                // That of the last attempt, perhaps on another launcher.
                worker.job = None;
                worker.queued_at = line.at;
                worker.queued_seq = line.seq;
                worker.started_at = None;
                (worker.cancel, worker.cancelled_by) = (None, None);
                worker.failed_over = None;
                worker.notification = Notification::Pending;
                worker.block_notification = Notification::Pending;
                if let Some(race) = &mut worker.race {
                    race.is_over_for_it = race.winner.is_some();
                }
            }
        });
        self.reset_ended_blocks();
    }

    /// Records the winner with all racers if this worker has just won its race, and cancels the others. This happens
    /// once.
    fn decide_race(&mut self, winner: &WorkerId) {
        let Some(decision) = self.get(winner).and_then(|worker| race::decide(self, worker)) else { return };
        for id in decision.racers {
            let is_called_off = decision.called_off.contains(&id);
            self.change(&id, |worker| {
                if let Some(race) = &mut worker.race {
                    race.winner = Some(winner.clone());
                }
                if is_called_off {
                    worker.cancel.get_or_insert_with(|| format!("{winner} won the race"));
                }
            });
        }
    }

    /// Decides the races of a registry that was rebuilt from the workers' folders: by the recorded winners, or else by
    /// [`race::winners_by_time`].
    pub fn decide_races(&mut self, recorded: &[WorkerId]) {
        recorded.iter().for_each(|winner| self.decide_race(winner));
        race::winners_by_time(self).iter().for_each(|winner| self.decide_race(winner));
    }

    /// Resets the notifications of blocks that have ended. If such a block returns, it is reported again.
    fn reset_ended_blocks(&mut self) {
        let reported = self.workers.values().filter(|worker| worker.block_notification != Notification::Pending);
        let ended: Vec<WorkerId> =
            reported.filter(|worker| graph::block(self, worker).is_none()).map(|worker| worker.id.clone()).collect();
        for id in ended {
            self.change(&id, |worker| worker.block_notification = Notification::Pending);
        }
    }

    fn change_notifications(
        &mut self,
        settled: &[(WorkerId, u32)],
        blocked: &[WorkerId],
        change: impl Fn(&mut Notification),
    ) {
        for (id, attempt) in settled {
            self.change(id, |worker| {
                if worker.attempt == *attempt {
                    change(&mut worker.notification);
                }
            });
        }
        for id in blocked {
            self.change(id, |worker| change(&mut worker.block_notification));
        }
    }

    fn change_all_notifications(&mut self, changed: impl Fn(&Notification) -> Option<Notification>) {
        for worker in self.workers.values_mut() {
            if let Some(changed) = changed(&worker.notification) {
                Arc::make_mut(worker).notification = changed;
            }
            if let Some(changed) = changed(&worker.block_notification) {
                Arc::make_mut(worker).block_notification = changed;
            }
        }
    }
}

impl Worker {
    fn new(new: &NewWorker, line: &Line) -> Self {
        let mission = new.mission.clone();
        let next = NextAttempt {
            backend: mission.backend.clone(),
            model: mission.model.clone(),
            effort: mission.effort.clone(),
            start: Start::Mission,
            run_on: mission.run_on.clone(),
            fresh: false,
            written: Vec::new(),
        };
        Self {
            id: new.id.clone(),
            boss: new.boss.clone(),
            mission,
            status: WorkerStatus::Queued,
            lease: line.server.clone(),
            attempt: 0,
            next,
            needs: new.needs.clone(),
            race: new.race.clone(),
            integration_branch: new.integration_branch.clone(),
            settled: Vec::new(),
            notification: Notification::Pending,
            block_notification: Notification::Pending,
            created_at: line.at,
            queued_at: line.at,
            queued_seq: line.seq,
            admitted_seq: 0,
            started_at: None,
            job: None,
            base_commit: None,
            base_branch: None,
            cancel: None,
            cancelled_by: None,
            integrated: None,
            integrated_before: Vec::new(),
            repository: None,
            worktree_removed: false,
            salvage_ref: None,
            failed_over: None,
        }
    }

    /// Advances the status if the lifecycle allows it. Returns whether it did.
    fn advance(&mut self, event: Event) -> bool {
        match lifecycle::next(self.status, event) {
            Ok(status) => {
                self.status = status;
                true
            }
            Err(_) => false,
        }
    }

    /// Advances the worker if the event is about its current attempt. Two servers may follow an attempt, and the slower
    /// one may report it after the next has begun. A queued worker has no current attempt, so only its next one is
    /// accepted.
    fn advance_in(&mut self, attempt: u32, event: Event) -> bool {
        let current = if self.status == WorkerStatus::Queued { self.attempt + 1 } else { self.attempt };
        attempt == current && self.advance(event)
    }
}

#[cfg(test)]
mod tests;
