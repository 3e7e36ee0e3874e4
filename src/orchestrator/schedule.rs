//! Starting what may start, and trying again what failed.

use std::collections::HashMap;
use std::env;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::actor::Actor;
use super::context::Context;
use super::start;
use crate::config::Settings;
use crate::crash_point::{self, Point};
use crate::mission::admission::{self, Floors, Headroom, Hold, Limits, Load};
use crate::mission::entry::Entry;
use crate::mission::id::BackendName;
use crate::mission::registry::Worker;
use crate::mission::{graph, retry};
use crate::process;

/// Files that the server must be able to open beside those of workers that start: its journal, its clients, git.
const MIN_FREE_FILES: u64 = 24;
/// So long what was seen of the machine counts: a batch of a thousand looks once.
const SEEN_FOR: Duration = Duration::from_secs(1);

/// What was last seen of the machine, less what was started since.
#[derive(Default)]
pub(super) struct Machine {
    free: Headroom,
    seen: Option<Instant>,
    /// Whether somebody is held up by it; told in the state file when it changes.
    pub holds: bool,
}

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
    let floors = Floors {
        memory_mib: settings.min_free_memory_mib,
        disk_mib: settings.min_free_disk_mib,
        processes: settings.min_free_processes,
        files: MIN_FREE_FILES,
    };
    Limits { total, per_backend, floors }
}

impl Actor {
    /// Takes workers out of the queue, within the limits over all servers, and starts each in a task of its own.
    pub(super) fn start_what_may(&mut self) {
        let context = Arc::clone(&self.context);
        let can_start = |worker: &Worker| lacks(&context, worker).is_none();
        self.look_at_machine();
        let mut free = self.machine.free.clone();
        // Most changes admit nobody: looking first keeps them off the lock.
        let admit = |registry, free| admission::admit(registry, &context.limits, &context.server, free, can_start);
        if admit(self.registry(), free.clone()).0.is_empty() {
            return self.note_holds();
        }
        let admitted = self.transact(|registry| {
            let (ids, left) = admission::admit(registry, &context.limits, &context.server, free.clone(), can_start);
            free = left;
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
        crash_point::at(Point::Admitted);
        self.machine.free = free;
        for id in admitted {
            let Some(worker) = self.registry().get(&id).cloned() else { continue };
            let bases = graph::bases(self.registry(), &worker);
            self.live.remove(&id);
            self.start_worker(worker, bases);
        }
        self.note_holds();
    }

    /// Reads what the machine has left, if anybody waits to be started and it was not just read.
    fn look_at_machine(&mut self) {
        let (registry, server) = (self.registry(), &self.context.server);
        let mut queue = admission::queue(registry, server).peekable();
        if queue.peek().is_none() || self.machine.seen.is_some_and(|seen| seen.elapsed() < SEEN_FOR) {
            return;
        }
        let mib = |bytes: u64| bytes >> 20;
        let disk = |folder: &Path| process::free_disk_bytes(folder).map(mib);
        let mut free = Headroom {
            memory_mib: process::free_memory_bytes().map(mib),
            processes: process::free_processes(),
            files: process::free_files(),
            state_disk_mib: disk(&self.context.state_root),
            ..Headroom::default()
        };
        for folder in queue.map(admission::folder) {
            if !free.disk_mib.contains_key(folder) {
                free.disk_mib.extend(disk(folder).map(|left| (folder.to_owned(), left)));
            }
        }
        self.machine.free = free;
        self.machine.seen = Some(Instant::now());
    }

    /// The machine changes without an entry in the journal, and the state file is to say so.
    fn note_holds(&mut self) {
        let holds = self.machine_holds_somebody();
        if holds != self.machine.holds {
            self.machine.holds = holds;
            self.write_state_file_soon();
        }
    }

    fn machine_holds_somebody(&self) -> bool {
        let load = self.load();
        let is_held = |worker| self.hold(&load, worker).is_some_and(|hold| hold.is_of_the_machine());
        load.is_full() && admission::queue(self.registry(), &self.context.server).any(is_held)
    }

    /// How much runs, and what is left: to say why others wait.
    pub(super) fn load(&self) -> Load<'_> {
        Load::of(self.registry(), &self.context.limits, self.machine.free.clone())
    }

    pub(super) fn hold(&self, load: &Load<'_>, worker: &Worker) -> Option<Hold> {
        let context = &self.context;
        admission::hold(self.registry(), load, &context.server, worker, |worker| lacks(context, worker))
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
        crash_point::at(Point::RetriedByItself);
        if let Err(error) = requeued {
            tracing::error!(%error, "could not save a retry; it is tried again with the next change");
        }
    }
}

/// What this server would need to start the worker: its backend, logged in, and the keys that the boss's environment had
/// when it asked.
pub(super) fn lacks(context: &Context, worker: &Worker) -> Option<String> {
    if context.backends.get(worker.next.backend.as_str()).is_err() {
        return Some(format!("a server whose settings have the backend {}", worker.next.backend));
    }
    if let Some(hold) = context.hold_of(&worker.next.backend).filter(|hold| hold.holds(worker)) {
        return Some(hold.reason);
    }
    let missing = |name: &&String| env::var_os(name).is_none_or(|value| value.is_empty());
    let missing: Vec<&str> = worker.needs.iter().filter(missing).map(String::as_str).collect();
    (!missing.is_empty()).then(|| format!("a server whose environment has {}", missing.join(" and ")))
}
