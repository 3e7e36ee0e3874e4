//! Who may start now: limits over all and per backend, first come first served. Pure.

use std::collections::HashMap;

use super::graph::{self, Readiness};
use super::id::{BackendName, ServerId, WorkerId};
use super::lifecycle::WorkerStatus;
use super::registry::{Registry, Worker};

/// How many workers may live at once, over all servers of a state directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    pub total: usize,
    pub per_backend: HashMap<BackendName, usize>,
}

impl Limits {
    pub fn of(&self, backend: &BackendName) -> usize {
        self.per_backend.get(backend).copied().unwrap_or(self.total).min(self.total)
    }
}

/// The queued workers of this server that can start now, in the order in which they were asked for.
pub fn admit(
    registry: &Registry,
    limits: &Limits,
    server: &ServerId,
    can_start: impl Fn(&Worker) -> bool,
) -> Vec<WorkerId> {
    let mut live = 0;
    let mut per_backend: HashMap<&BackendName, usize> = HashMap::new();
    for worker in registry.workers().filter(|worker| worker.status.is_live()) {
        live += 1;
        *per_backend.entry(&worker.next.backend).or_default() += 1;
    }
    let mut queue: Vec<_> = registry
        .workers()
        .filter(|worker| worker.status == WorkerStatus::Queued && worker.lease == *server && worker.cancel.is_none())
        .collect();
    queue.sort_by_key(|worker| worker.queued_at);

    let mut admitted = Vec::new();
    for worker in queue {
        if live >= limits.total {
            break;
        }
        let running = per_backend.entry(&worker.next.backend).or_default();
        let free = *running < limits.of(&worker.next.backend);
        if free && can_start(worker) && graph::readiness(registry, worker) == Readiness::Ready {
            *running += 1;
            live += 1;
            admitted.push(worker.id.clone());
        }
    }
    admitted
}
