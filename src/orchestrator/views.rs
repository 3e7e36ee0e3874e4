//! What the actor tells of its registry without changing anything: workers by name, lists, counts.

use std::collections::HashMap;
use std::sync::Arc;

use super::actor::{Actor, Counts, Lookup};
use super::answers::*;
use super::error::OrchestratorError;
use crate::backend::Enforcement;
use crate::mission::graph;
use crate::mission::id::{BackendName, BossId};
use crate::mission::lifecycle::WorkerStatus;
use crate::mission::registry::Worker;

type Result<T> = std::result::Result<T, OrchestratorError>;

impl Actor {
    pub(super) fn find(&self, name: &str) -> Result<Arc<Worker>> {
        self.registry().find(name).cloned().ok_or_else(|| self.unknown(name))
    }

    /// The error for a name that nobody bears, with those that somebody does.
    pub(super) fn unknown(&self, name: &str) -> OrchestratorError {
        let open = self.registry().workers().rev().filter(|worker| !worker.status.is_settled());
        let settled = self.registry().workers().rev().filter(|worker| worker.status.is_settled());
        let known: Vec<String> =
            open.chain(settled).take(10).map(|worker| format!("{} ({})", worker.id, worker.status)).collect();
        let known = match known.is_empty() {
            true => "there are no workers yet: batch_create_workers makes some".to_owned(),
            false => format!("known are {}; list_worker_missions shows all", known.join(", ")),
        };
        OrchestratorError::UnknownWorker { name: name.to_owned(), known }
    }

    pub(super) fn view(&self, worker: &Arc<Worker>) -> WorkerView {
        let waits_for = match graph::readiness(self.registry(), worker) {
            graph::Readiness::Waiting(tasks) if worker.status == WorkerStatus::Queued => {
                Some(tasks.iter().map(|task| task.as_str()).collect::<Vec<_>>().join(", "))
            }
            graph::Readiness::Ready if worker.status == WorkerStatus::Queued => {
                self.context.hold_of(&worker.next.backend).map(|hold| hold.reason)
            }
            _ => None,
        };
        WorkerView {
            live: self.live.get(&worker.id).filter(|_| worker.status.is_live()).cloned(),
            block: graph::block(self.registry(), worker),
            waits_for,
            redelivered: false,
            enforced: self.enforcement(worker),
            worker: Arc::clone(worker),
        }
    }

    fn enforcement(&self, worker: &Worker) -> Option<Enforcement> {
        let backend = self.context.backends.get(worker.next.backend.as_str()).ok()?;
        Some(backend.enforcement(worker.mission.permissions))
    }

    pub(super) fn list(&self, boss: &BossId, scope: Scope) -> ListAnswer {
        let (mine, others): (Vec<_>, Vec<_>) =
            self.registry().workers().partition(|worker| scope == Scope::All || worker.boss == *boss);
        ListAnswer { workers: mine.into_iter().map(|worker| self.view(worker)).collect(), others: others.len() }
    }

    pub(super) fn counts(&self) -> HashMap<BackendName, Counts> {
        let mut counts: HashMap<BackendName, Counts> = HashMap::new();
        for worker in self.registry().workers() {
            let of = counts.entry(worker.next.backend.clone()).or_default();
            of.running += usize::from(worker.status.is_live());
            of.queued += usize::from(worker.status == WorkerStatus::Queued);
        }
        for backend in self.context.held() {
            let until = self.context.hold_of(&backend).map(|hold| hold.until);
            counts.entry(backend).or_default().held_until = until;
        }
        counts
    }

    pub(super) fn lookup(&self, name: Option<&str>) -> Result<Lookup> {
        let worker = name.map(|name| self.find(name)).transpose()?;
        let all = if worker.is_some() { Vec::new() } else { self.registry().workers().cloned().collect() };
        Ok(Lookup { worker, all, integration_branch: self.registry().integration_branch.clone() })
    }
}
