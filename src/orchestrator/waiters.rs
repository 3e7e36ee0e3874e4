//! The waits that block, and the hand-over of what they are told.
//!
//! A wait that begins after the end answers at once; one whose client has gone is forgotten and consumes nothing. What
//! is told is journalled as offered before the answer goes out, and as delivered when a later request of the same boss
//! shows that it arrived.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use super::actor::Actor;
use super::answers::*;
use super::error::OrchestratorError;
use crate::crash_point::{self, Point};
use crate::mission::admission::Load;
use crate::mission::delivery::{self, Content, Deliveries, Due, InFlight, Selection, SentSettlement};
use crate::mission::entry::Entry;
use crate::mission::hint::Advice;
use crate::mission::id::{BossId, TaskId, WorkerId};
use crate::mission::lifecycle::WorkerStatus;
use crate::mission::race;
use crate::mission::registry::Registry;
use crate::mission::registry::Worker;

/// So many different reasons why something is queued are told at once.
const REASONS: usize = 3;
/// When the machine is full, so many of those that it holds up are shown.
const HELD_SHOWN: usize = 3;

#[derive(Default)]
pub(super) struct Waiters {
    next_ticket: u64,
    waiting: Vec<Waiting>,
    deliveries: Deliveries,
    /// Stalls that were told, so that each is told once.
    told_stalls: HashSet<WorkerId>,
    /// Bosses that were told that none of their workers can start (the machine is full, a plan or a budget is used up);
    /// forgotten when one can again.
    told_full: HashSet<BossId>,
}

struct Waiting {
    ticket: u64,
    boss: BossId,
    selection: Selection,
    most: usize,
    answer: oneshot::Sender<WaitAnswer>,
}

impl Actor {
    pub(super) fn begin_wait(
        &mut self,
        boss: &BossId,
        names: &[String],
        most: usize,
        answer: oneshot::Sender<WaitAnswer>,
    ) -> Result<u64, OrchestratorError> {
        let selection = self.select(boss, names)?;
        let ticket = self.waiters.next_ticket;
        self.waiters.next_ticket += 1;
        self.waiters.waiting.push(Waiting { ticket, boss: boss.clone(), selection, most, answer });
        self.answer_waits();
        Ok(ticket)
    }

    /// Of this boss's workers alone: what one boss is told of its worker, another cannot be told instead.
    fn select(&self, boss: &BossId, names: &[String]) -> Result<Selection, OrchestratorError> {
        if names.is_empty() {
            return Ok(Selection::Mine);
        }
        let mut ids = Vec::new();
        for name in names {
            let worker = self.mine(boss, name, "wait for")?;
            // Named by a task for which several race, all of them are meant.
            let by_task = race::is_named_by_task(&worker, name);
            let racers = race::racers(self.registry(), &worker).filter(|_| by_task).map(|it| it.id.clone());
            for id in std::iter::once(worker.id.clone()).chain(racers) {
                if !ids.contains(&id) {
                    ids.push(id);
                }
            }
        }
        Ok(Selection::Named(ids))
    }

    /// The time is up: an answer that says who still runs. `None`: it was answered a moment ago.
    pub(super) fn end_wait(&mut self, ticket: u64) -> Option<WaitAnswer> {
        let at = self.waiters.waiting.iter().position(|waiting| waiting.ticket == ticket)?;
        let waiting = self.waiters.waiting.swap_remove(at);
        let told = self.try_answer(&waiting);
        told.or_else(|| {
            let mut news = delivery::due(self.registry(), &waiting.boss, &waiting.selection, &self.context.server);
            // What could not be noted as told (a full disk) is not told: it stays for later.
            news.open += news.settled.len() + news.blocked.len();
            (news.settled, news.blocked) = (Vec::new(), Vec::new());
            Some(self.to_answer(&news, &waiting.selection, &waiting.boss, waiting.most))
        })
    }

    /// The answer was written; from now on the boss's next request shows that it arrived.
    pub(super) fn note_sent(&mut self, ticket: u64) {
        if self.waiters.deliveries.mark_sent(ticket, Instant::now()) {
            crash_point::at(Point::AnswerSent);
        }
        self.answer_waits();
    }

    /// The client has gone, or called the wait off before it was answered.
    pub(super) fn forget_wait(&mut self, ticket: u64) {
        self.waiters.waiting.retain(|waiting| waiting.ticket != ticket);
        if let Some(withdrawn) = self.waiters.deliveries.withdraw(ticket) {
            self.save(vec![withdrawn]);
        }
    }

    pub(super) fn note_arrival(&mut self, boss: &BossId) {
        if let Some(acknowledged) = self.waiters.deliveries.acknowledge(boss, Instant::now()) {
            self.save(vec![acknowledged]);
            crash_point::at(Point::Acknowledged);
        }
    }

    /// Answers every wait that has something to be told.
    pub(super) fn answer_waits(&mut self) {
        for waiting in std::mem::take(&mut self.waiters.waiting) {
            if waiting.answer.is_closed() {
                continue;
            }
            match self.try_answer(&waiting) {
                Some(answer) => {
                    let ticket = waiting.ticket;
                    if waiting.answer.send(answer).is_err() {
                        self.forget_wait(ticket);
                    }
                }
                None => self.waiters.waiting.push(waiting),
            }
        }
    }

    fn try_answer(&mut self, waiting: &Waiting) -> Option<WaitAnswer> {
        let server = self.context.server.clone();
        let stalled = self.new_stalls(&waiting.selection, &waiting.boss);
        let full = self.newly_full(&waiting.selection, &waiting.boss);
        let news = delivery::due(self.registry(), &waiting.boss, &waiting.selection, &server);
        if !news.is_pressing() && stalled.is_empty() && !full {
            return None;
        }
        // What another wait was answered and may still be called off is this one's news then.
        let has_news = !news.settled.is_empty() || !news.blocked.is_empty() || !stalled.is_empty();
        if !has_news && self.waiters.deliveries.has_unsent(&waiting.boss) {
            return None;
        }
        let answer = self.to_answer(&news, &waiting.selection, &waiting.boss, waiting.most);
        self.offer(waiting, &answer)?;
        if full {
            self.waiters.told_full.insert(waiting.boss.clone());
        }
        self.waiters.told_stalls.extend(stalled);
        Some(answer)
    }

    /// Journals what is about to be told. `None`: it could not be saved, or another server of this boss was quicker;
    /// then nothing is told now.
    fn offer(&mut self, waiting: &Waiting, answer: &WaitAnswer) -> Option<()> {
        let settled = answer.settled.iter().map(|view| SentSettlement {
            worker: view.worker.id.clone(),
            attempt: view.worker.attempt,
            redelivered: view.redelivered,
        });
        let blocked = answer.blocked.iter().map(|(task, _)| task.clone());
        let content = Content { settled: settled.collect(), blocked: blocked.collect() };
        if content.is_empty() {
            return Some(());
        }
        let server = self.context.server.clone();
        let recorded = self.transact(|registry| {
            let wait = (waiting.ticket, &waiting.boss, &waiting.selection);
            let (entry, in_flight) = InFlight::begin(registry, &server, wait, &content).unzip();
            (entry.into_iter().collect(), in_flight)
        });
        match recorded {
            Ok(in_flight) => {
                let in_flight = in_flight?;
                crash_point::at(Point::Notified);
                self.waiters.deliveries.add(in_flight);
                Some(())
            }
            Err(error) => {
                tracing::error!(%error, "could not save what a wait is told; it is told when there is room again");
                None
            }
        }
    }

    fn new_stalls(&mut self, selection: &Selection, boss: &BossId) -> Vec<WorkerId> {
        let stalled = |id: &WorkerId| self.live.get(id).is_some_and(|status| status.stalled.is_some());
        let ids: Vec<WorkerId> =
            selection.workers(self.registry(), boss).into_iter().map(|worker| worker.id.clone()).collect();
        let recovered: Vec<WorkerId> = self.waiters.told_stalls.iter().filter(|id| !stalled(id)).cloned().collect();
        let new = ids.into_iter().filter(|id| stalled(id) && !self.waiters.told_stalls.contains(id)).collect();
        for id in recovered {
            self.waiters.told_stalls.remove(&id);
        }
        new
    }

    /// Nothing of it runs, and nothing can start for long: then nothing may ever happen by itself, and whoever waits is
    /// told, once.
    fn newly_full(&mut self, selection: &Selection, boss: &BossId) -> bool {
        if !self.waiters.told_full.contains(boss) {
            return !self.held_up(selection, boss).is_empty();
        }
        if self.held_up(&Selection::Mine, boss).is_empty() {
            // Told anew when it comes again.
            self.waiters.told_full.remove(boss);
        }
        false
    }

    /// The queued ones of a selection that are held up for long, if none of it runs.
    fn held_up(&self, selection: &Selection, boss: &BossId) -> Vec<&Arc<Worker>> {
        let workers = selection.workers(self.registry(), boss);
        let load = self.load();
        if !load.waits_for_long() || workers.iter().any(|worker| worker.status.is_live()) {
            return Vec::new();
        }
        let held = |worker: &&Arc<Worker>| self.hold(&load, worker).is_some_and(|hold| hold.is_lasting());
        workers.into_iter().filter(held).collect()
    }

    /// What queued workers wait for: each reason once, the commonest first, with how many it holds up.
    fn reasons(&self, load: &Load<'_>, workers: &[&Arc<Worker>]) -> Option<String> {
        let mut reasons: Vec<(String, usize)> = Vec::new();
        for hold in workers.iter().filter_map(|worker| self.hold(load, worker)) {
            let text = hold.to_string();
            match reasons.iter_mut().find(|(known, _)| *known == text) {
                Some((_, count)) => *count += 1,
                None => reasons.push((text, 1)),
            }
        }
        reasons.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let more = reasons.len().saturating_sub(REASONS);
        let mut texts: Vec<String> =
            reasons.into_iter().take(REASONS).map(|(text, count)| format!("{count} for {text}")).collect();
        if more > 0 {
            texts.push(format!("{more} more reasons"));
        }
        (!texts.is_empty()).then(|| texts.join("; "))
    }

    fn to_answer(&self, news: &Due<'_>, selection: &Selection, boss: &BossId, most: usize) -> WaitAnswer {
        let settled: Vec<WorkerView> = news
            .settled
            .iter()
            .take(most)
            .map(|settlement| WorkerView { redelivered: settlement.redelivered, ..self.view(settlement.worker) })
            .collect();
        let load = self.load();
        let workers = selection.workers(self.registry(), boss);
        let waits_for = self.reasons(&load, &workers);
        let live = workers.into_iter().filter(|worker| worker.status.is_live());
        let running: Vec<WorkerView> = live.map(|worker| self.view_in(&load, worker)).collect();
        let mut attention: Vec<WorkerView> = running.iter().filter(|view| is_stalled(view)).cloned().collect();
        if !self.waiters.told_full.contains(boss) {
            let held = self.held_up(selection, boss).into_iter().take(HELD_SHOWN);
            attention.extend(held.map(|worker| self.view_in(&load, worker)));
        }
        let already_reported = self.already_reported(news, selection, most);
        let status = if !settled.is_empty() || !already_reported.is_empty() {
            WaitStatus::Settled
        } else if !news.blocked.is_empty() {
            WaitStatus::Blocked
        } else if news.open == 0 {
            WaitStatus::Idle
        } else if attention.iter().any(|view| !self.waiters.told_stalls.contains(&view.worker.id)) {
            WaitStatus::Attention
        } else {
            WaitStatus::StillRunning
        };
        WaitAnswer {
            status,
            more: news.settled.len() - settled.len(),
            settled,
            attention,
            blocked: blocked_tasks(news),
            already_reported,
            still_running: running,
            queued: news.queued,
            waits_for,
            spent: self.spent(boss),
        }
    }

    /// Whoever has moved into the history was reported long ago.
    fn already_reported(&self, news: &Due<'_>, selection: &Selection, most: usize) -> Vec<WorkerView> {
        let archived = archived(selection, self.registry()).filter(|_| news.is_exhausted());
        let archived = archived.filter_map(|id| self.find(id.as_str()).ok());
        news.already_reported
            .iter()
            .map(|it| Arc::clone(it))
            .chain(archived)
            .take(most)
            .map(|it| self.view(&it))
            .collect()
    }

    /// One line for people: how many are done, and what the one that moved last does.
    pub(super) fn progress(&self, boss: &BossId, names: &[String]) -> String {
        let Ok(selection) = self.select(boss, names) else { return String::new() };
        let workers = selection.workers(self.registry(), boss);
        let count = |wanted: fn(WorkerStatus) -> bool| workers.iter().filter(|worker| wanted(worker.status)).count();
        let archived = archived(&selection, self.registry()).count();
        let settled = count(WorkerStatus::is_settled) + archived;
        let mut line = format!("{settled} of {} settled", workers.len() + archived);
        let queued = count(|status| status == WorkerStatus::Queued);
        if queued > 0 {
            line.push_str(&format!(", {queued} queued"));
            if let Some(reasons) = self.reasons(&self.load(), &workers) {
                line.push_str(&format!(" ({reasons})"));
            }
        }
        let mut live: Vec<_> = workers.iter().filter_map(|worker| Some((worker, self.live.get(&worker.id)?))).collect();
        live.sort_by_key(|(_, status)| std::cmp::Reverse(status.last_event));
        for (worker, status) in live.into_iter().filter(|(worker, _)| worker.status.is_live()).take(3) {
            let idle = crate::process::monotonic().saturating_sub(status.last_event).as_secs();
            let number = WorkerId::number_in(worker.id.as_str()).unwrap_or_default();
            line.push_str(&format!("; w-{number} {} ({idle} s)", status.activity));
        }
        line
    }

    /// For notes that cost at most a marked repetition when they are lost.
    fn save(&mut self, entries: Vec<Entry>) {
        if let Err(error) = self.transact(|_| (entries, ())) {
            tracing::warn!(%error, "could not save a note of delivery; it may be told once more, marked");
        }
    }
}

/// Each task once, though several race for it.
fn blocked_tasks(news: &Due<'_>) -> Vec<(TaskId, Advice)> {
    let mut tasks: Vec<(TaskId, Advice)> = Vec::new();
    for (worker, why) in &news.blocked {
        let is_told = worker.race.is_some() && tasks.iter().any(|(task, _)| task == worker.task());
        if !is_told {
            tasks.push((worker.task().clone(), why.clone()));
        }
    }
    tasks
}

/// Those of the named that the registry does not have.
fn archived<'a>(selection: &'a Selection, registry: &'a Registry) -> impl Iterator<Item = &'a WorkerId> {
    let named: &[WorkerId] = match selection {
        Selection::Named(ids) => ids,
        Selection::Mine => &[],
    };
    named.iter().filter(|id| registry.get(id).is_none())
}

fn is_stalled(view: &WorkerView) -> bool {
    view.live.as_ref().is_some_and(|status| status.stalled.is_some())
}
