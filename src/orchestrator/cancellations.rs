//! Running attempts that must end: cancelled ones, losers of races, and those whose boss has used up its budget. This
//! module tracks which callers wait for an end, and which supervisors were notified. It ends nothing itself.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::answers::CancelAnswer;
use super::effect::Effect;
use super::error::OrchestratorError;
use super::mailbox::Reply;
use super::views::Views;
use crate::attempt::inbox::Instruction;
use crate::attempt::state_dir::StateDir;
use crate::mission::admission;
use crate::mission::entry::Entry;
use crate::mission::id::{BossId, ServerId, WorkerId};
use crate::mission::outcome::Containment;
use crate::mission::race;
use crate::mission::registry::{Registry, Worker};

type Attempt = (WorkerId, u32);

#[derive(Default)]
pub(super) struct Cancellations {
    waiting: HashMap<WorkerId, Vec<Reply<Result<CancelAnswer, OrchestratorError>>>>,
    /// Attempts whose supervisors were notified that another racer has won.
    losers: HashSet<Attempt>,
    /// Attempts whose supervisors were notified that the budget is used up.
    over_budget: HashSet<Attempt>,
}

impl Cancellations {
    /// Answers `reply` when the worker has settled.
    pub fn wait_for(&mut self, worker: &WorkerId, reply: Reply<Result<CancelAnswer, OrchestratorError>>) {
        self.waiting.entry(worker.clone()).or_default().push(reply);
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub fn is_awaited(&self, worker: &WorkerId) -> bool {
        self.waiting.contains_key(worker)
    }

    /// Answers the cancellations whose workers have settled.
    pub fn answer(&mut self, registry: &Registry, dir: Option<&StateDir>) -> Vec<Effect> {
        let settled = |id: &WorkerId| registry.get(id).filter(|worker| worker.status.is_settled());
        let settled: Vec<&Arc<Worker>> = self.waiting.keys().filter_map(settled).collect();
        let mut effects = Vec::new();
        for worker in settled {
            let answer = answer(dir, worker, false);
            let replies = self.waiting.remove(&worker.id).unwrap_or_default();
            effects.extend(replies.into_iter().map(|reply| Effect::Reply(reply, answer.clone())));
        }
        effects
    }

    /// Notifies the supervisors of this server's racers that another one has won. The journal has recorded the
    /// cancellation with the settlement of the winner, so a server that takes over repeats this.
    pub fn stop_losers(&mut self, registry: &Registry, server: &ServerId) -> Vec<Effect> {
        retain_live(&mut self.losers, registry);
        let is_loser = |worker: &&Arc<Worker>| worker.cancel.is_some() && race::has_lost(worker);
        let losers = unnotified(registry, server, &self.losers).into_iter().filter(is_loser);
        let losers: Vec<Arc<Worker>> = losers.cloned().collect();
        self.losers.extend(losers.iter().map(|worker| attempt(worker)));
        let stop = losers.into_iter().map(|worker| {
            let (by, reason) = (worker.cancelled_by, worker.cancel.clone().unwrap_or_default());
            Effect::Post { worker, by, instruction: Instruction::Cancel { reason } }
        });
        stop.collect()
    }

    /// Ends the running attempts of bosses whose budget is used up.
    pub fn stop_over_budget(&mut self, views: &Views<'_>) -> Vec<Effect> {
        let budget = views.context.limits.budget;
        if !budget.is_set() {
            return Vec::new();
        }
        retain_live(&mut self.over_budget, views.registry);
        let moment = views.moment();
        let mut reached: HashMap<BossId, Option<String>> = HashMap::new();
        let mut effects = Vec::new();
        for worker in unnotified(views.registry, &views.context.server, &self.over_budget) {
            let spent = || budget.reached(&admission::spent(views.registry, &moment, &worker.boss));
            if let Some(reason) = reached.entry(worker.boss.clone()).or_insert_with(spent).clone() {
                self.over_budget.insert(attempt(worker));
                let (worker, instruction) = (Arc::clone(worker), Instruction::OverBudget { reason });
                effects.push(Effect::Post { worker, by: None, instruction });
            }
        }
        effects
    }

    /// Records that a supervisor could not be notified. It is notified with the next change.
    pub fn not_notified(&mut self, worker: &Worker) {
        self.losers.remove(&attempt(worker));
        self.over_budget.remove(&attempt(worker));
    }
}

fn attempt(worker: &Worker) -> Attempt {
    (worker.id.clone(), worker.attempt)
}

fn retain_live(attempts: &mut HashSet<Attempt>, registry: &Registry) {
    let is_live = |id: &WorkerId, attempt: u32| {
        registry.get(id).is_some_and(|worker| worker.status.is_live() && worker.attempt == attempt)
    };
    attempts.retain(|(id, attempt)| is_live(id, *attempt));
}

/// Returns this server's running workers whose current attempt was not notified.
fn unnotified<'a>(registry: &'a Registry, server: &ServerId, notified: &HashSet<Attempt>) -> Vec<&'a Arc<Worker>> {
    let is_mine = |worker: &&Arc<Worker>| worker.status.is_live() && worker.lease == *server;
    registry.workers().filter(is_mine).filter(|worker| !notified.contains(&attempt(worker))).collect()
}

/// Returns the entry that records a cancellation.
pub(super) fn requested(worker: &Worker, by: BossId, reason: &str) -> Entry {
    Entry::CancelRequested { worker: worker.id.clone(), by, reason: reason.to_owned() }
}

pub(super) fn answer(dir: Option<&StateDir>, worker: &Worker, already_settled: bool) -> CancelAnswer {
    let record = dir.map(|dir| dir.worker(&worker.id).attempt(worker.attempt).outcome());
    let cleanup = record.and_then(|record| record.ok().flatten()).map(|outcome| outcome.cleanup);
    CancelAnswer {
        worker_id: worker.id.clone(),
        status: worker.status,
        survivors: worker.last().map_or(0, |brief| brief.survivors),
        proof: cleanup.map_or(Containment::BestEffort, |cleanup| cleanup.containment),
        already_settled,
        undelivered: worker.last().map(|brief| brief.undelivered.clone()).unwrap_or_default(),
    }
}
