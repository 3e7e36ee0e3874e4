//! Starting what may start, and trying again what failed.

use std::collections::HashMap;
use std::env;
use std::sync::Arc;

use super::actor::{Actor, Context};
use super::start;
use crate::config::Settings;
use crate::mission::admission::{self, Limits};
use crate::mission::entry::Entry;
use crate::mission::id::BackendName;
use crate::mission::registry::Worker;
use crate::mission::{graph, retry};

/// One worker for each GiB of memory: a CLI takes 0.2 to 0.6 GiB, and what it builds or tests takes the rest.
pub(super) fn limits(settings: &Settings) -> Limits {
    let gib = crate::process::total_memory_bytes().unwrap_or_default() >> 30;
    // 0 is a choice too: nothing starts, and all stays queued.
    let total = settings.max_workers.unwrap_or((gib as usize).clamp(2, 16));
    let per_backend = settings
        .backends
        .iter()
        .filter_map(|(name, backend)| Some((BackendName(name.clone()), backend.max_workers?)))
        .collect::<HashMap<_, _>>();
    Limits { total, per_backend }
}

impl Actor {
    /// Takes workers out of the queue, within the limits over all servers, and starts each in a task of its own.
    pub(super) fn start_what_may(&mut self) {
        let context = Arc::clone(&self.context);
        let can_start = |worker: &Worker| has_what_it_needs(&context, worker);
        // Most changes admit nobody: looking first keeps them off the lock.
        if admission::admit(self.registry(), &context.limits, &context.server, can_start).is_empty() {
            return;
        }
        let admitted = self.transact(|registry| {
            let ids = admission::admit(registry, &context.limits, &context.server, can_start);
            let entries = ids
                .iter()
                .filter_map(|id| registry.get(id))
                .map(|worker| Entry::Starting { worker: worker.id.clone(), attempt: worker.attempt + 1 });
            (entries.collect(), ids)
        });
        let admitted = match admitted {
            Ok(ids) => ids,
            Err(error) => return tracing::error!(%error, "could not save which workers start; they stay queued"),
        };
        for id in admitted {
            let Some(worker) = self.registry().get(&id).cloned() else { continue };
            let bases = graph::bases(self.registry(), &worker);
            self.live.remove(&id);
            self.start_worker(worker, bases);
        }
    }

    fn start_worker(&mut self, worker: Arc<Worker>, bases: Vec<String>) {
        let Some(dir) = self.state_dir().map(|dir| dir.worker(&worker.id)) else { return };
        let id = worker.id.clone();
        let order = start::Order {
            integration_branch: self.registry().integration_branch.clone(),
            bases,
            attempt_dir: dir.attempt(worker.attempt),
            worker_dir: dir,
            worker,
        };
        let task = self.runtime.spawn(start::start(Arc::clone(&self.context), self.mailbox.clone(), order));
        self.following.insert(id, task);
    }

    /// Puts failed workers whose missions allow another attempt back into the queue.
    pub(super) fn retry_automatically(&mut self) {
        let mine = |worker: &&Arc<Worker>| worker.lease == self.context.server && retry::automatic(worker).is_some();
        let again: Vec<_> = self.registry().workers().filter(mine).map(|worker| worker.id.clone()).collect();
        if again.is_empty() {
            return;
        }
        let requeued = self.transact(|registry| {
            let next = again.iter().filter_map(|id| {
                let next = retry::automatic(registry.get(id)?)?;
                Some(Entry::Requeued { worker: id.clone(), next: Box::new(next) })
            });
            (next.collect(), ())
        });
        if let Err(error) = requeued {
            tracing::error!(%error, "could not save a retry; it is tried again with the next change");
        }
    }
}

/// Whether this server knows the worker's backend, and its environment has the keys that the boss's had when it asked.
pub(super) fn has_what_it_needs(context: &Context, worker: &Worker) -> bool {
    let known = context.backends.get(worker.next.backend.as_str()).is_ok();
    let held = context.hold_of(&worker.next.backend).is_some_and(|hold| hold.holds(worker));
    known && !held && worker.needs.iter().all(|name| env::var_os(name).is_some_and(|value| !value.is_empty()))
}
