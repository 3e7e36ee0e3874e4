//! Keeping each boss to the budget that the user has set: nothing new starts when it is used up (see
//! [`crate::mission::admission`]), and what runs is ended as soon as the CLIs tell that it is. One that tells only at its
//! end is counted then.

use std::collections::HashMap;
use std::sync::Arc;

use super::actor::Actor;
use crate::attempt::status::LiveStatus;
use crate::attempt::worker_dir::Instruction;
use crate::mission::admission;
use crate::mission::budget::Spent;
use crate::mission::entry::Start;
use crate::mission::id::{BossId, WorkerId};
use crate::mission::registry::Worker;
use crate::process;

impl Actor {
    /// What the attempts that this server follows have used up so far, by boss.
    pub(super) fn spending(&self) -> HashMap<BossId, Spent> {
        let mut spending: HashMap<BossId, Spent> = HashMap::new();
        for (id, status) in &self.live {
            if let Some(worker) = self.registry().get(id).filter(|worker| worker.status.is_live()) {
                spending.entry(worker.boss.clone()).or_default().add(so_far(worker, status));
            }
        }
        spending
    }

    pub(super) fn spent(&self, boss: &BossId) -> Spent {
        admission::spent(self.registry(), &self.moment(), boss)
    }

    /// Ends the running attempts of bosses that have used up what they may.
    pub(super) fn keep_to_budget(&mut self) {
        let budget = self.context.limits.budget;
        if !budget.is_set() {
            return;
        }
        let moment = self.moment();
        let over = |boss: &BossId| budget.reached(&admission::spent(self.registry(), &moment, boss));
        let me = &self.context.server;
        let live = self.registry().workers().filter(|worker| worker.status.is_live() && worker.lease == *me);
        let mut reached: HashMap<&BossId, Option<String>> = HashMap::new();
        let mut ended: Vec<(Arc<Worker>, String)> = Vec::new();
        for worker in live.filter(|worker| !self.stopped.contains(&(worker.id.clone(), worker.attempt))) {
            if let Some(why) = reached.entry(&worker.boss).or_insert_with(|| over(&worker.boss)) {
                ended.push((Arc::clone(worker), why.clone()));
            }
        }
        let registry = self.registry();
        let lives = |id: &WorkerId| registry.get(id).is_some_and(|worker| worker.status.is_live());
        let mut stopped = self.stopped.clone();
        stopped.retain(|(id, _)| lives(id));
        self.stopped = stopped;
        for (worker, reason) in ended {
            match self.post(&worker, None, Instruction::OverBudget { reason }) {
                Ok(_) => drop(self.stopped.insert((worker.id.clone(), worker.attempt))),
                Err(error) => {
                    tracing::error!(worker = %worker.id, %error, "could not tell a worker that its boss's budget is used up")
                }
            }
        }
    }
}

/// What the attempt that runs has used up; in a session that goes on, without what earlier attempts used in it.
pub(super) fn so_far(worker: &Worker, status: &LiveStatus) -> Spent {
    let ran = process::monotonic().saturating_sub(status.began);
    let spent = Spent::of(&status.usage, ran.as_secs());
    let goes_on = matches!(worker.next.start, Start::Resume { .. });
    match worker.last().filter(|last| goes_on && last.usage_is_cumulative) {
        Some(last) => spent.since(&last.usage),
        None => spent,
    }
}
