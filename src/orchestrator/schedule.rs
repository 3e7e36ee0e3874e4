//! Starting what may start, and trying again what failed.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::env;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::actor::Actor;
use super::context::Context;
use super::mail::Ask;
use super::{logins, machine, start};
use crate::config::Settings;
use crate::crash_point::{self, Point};
use crate::mission::admission::{self, Conditions, Floors, Limits, Load, WaitReason};
use crate::mission::budget::Budget;
use crate::mission::entry::Entry;
use crate::mission::id::BackendName;
use crate::mission::lifecycle::WorkerStatus;
use crate::mission::registry::{Registry, Worker};
use crate::mission::{graph, retry};

/// Files that the server must be able to open beside those of workers that start: its journal, its clients, git.
const MIN_FREE_FILES: u64 = 24;
/// So long a place is left to a worker of another server whose turn it is. One that does not take it cannot.
const LEFT_FOR: Duration = Duration::from_secs(5);

/// One worker for each GiB of memory: a CLI takes 0.2 to 0.6 GiB, and what it builds or tests takes the rest.
pub(super) fn limits(settings: &Settings) -> Limits {
    let gib = crate::process::total_memory_bytes().unwrap_or_default() >> 30;
    // 0 is a choice too: nothing starts, and all stays queued.
    let total = settings.max_workers.unwrap_or((gib as usize).clamp(2, 16));
    let per_backend = settings
        .backends
        .iter()
        .filter_map(|(name, backend)| Some((BackendName::from(name.clone()), backend.max_workers?)))
        .collect::<HashMap<_, _>>();
    let floors = Floors {
        memory_mib: settings.min_free_memory_mib,
        disk_mib: settings.min_free_disk_mib,
        processes: settings.min_free_processes,
        files: MIN_FREE_FILES,
    };
    let boss = &settings.boss;
    let (max_cost_usd, max_tokens) = (boss.max_cost_usd, boss.max_tokens);
    let budget = Budget { max_cost_usd, max_tokens, timeout_minutes: boss.timeout_minutes };
    Limits { total, per_backend, floors, budget }
}

impl Actor {
    /// Takes workers out of the queue, within the limits over all servers, and starts each in a task of its own.
    pub(super) fn start_what_may(&mut self) {
        let context = Arc::clone(&self.context);
        self.look_at_machine();
        let moment = self.moment();
        let mut turns = std::mem::take(&mut self.left_to);
        turns.retain(|id, _| self.registry().get(id).is_some_and(|worker| worker.status == WorkerStatus::Queued));
        let turns = RefCell::new(turns);
        let admit = |registry: &Registry| {
            let can_start = |worker: &Worker| lacks(&context, worker).is_none();
            let leaves = |worker: &Worker| {
                let first = *turns.borrow_mut().entry(worker.id.clone()).or_insert_with(Instant::now);
                first.elapsed() < LEFT_FOR && registry.servers.contains_key(&worker.lease)
            };
            admission::admit(registry, &context.limits, &context.server, moment.clone(), can_start, leaves).0
        };
        // Most changes admit nobody: looking first keeps them off the lock.
        let admitted = match admit(self.registry()).is_empty() {
            true => Ok(Vec::new()),
            false => self.transact(|registry| {
                let ids = admit(registry);
                let entries = ids
                    .iter()
                    .filter_map(|id| registry.get(id))
                    .map(|worker| Entry::Starting { worker: worker.id.clone(), attempt: worker.attempt + 1 });
                (entries.collect(), ids)
            }),
        };
        self.left_to = turns.into_inner();
        let admitted = match admitted {
            Ok(ids) => ids,
            Err(error) => return tracing::error!(%error, "could not save which workers start; they stay queued"),
        };
        if !admitted.is_empty() {
            crash_point::at(Point::Admitted);
        }
        for id in admitted {
            let Some(worker) = self.registry().get(&id).cloned() else { continue };
            let integration_branch = self.branch_of(&worker);
            // The full name, since a tag of the same name may be another commit.
            let integration_branch = integration_branch.map(|branch| format!("refs/heads/{branch}"));
            let bases = graph::bases(self.registry(), &worker, integration_branch.as_deref());
            self.machine.note_started(&worker);
            self.live.remove(&id);
            self.start_worker(worker, bases, integration_branch);
        }
        self.note_holds();
    }

    /// Reads the free resources of the machine, if a worker waits to start and they were not read just before.
    fn look_at_machine(&mut self) {
        let context = Arc::clone(&self.context);
        let queue: Vec<Arc<Worker>> = admission::queue(self.registry(), &context.server).cloned().collect();
        if queue.is_empty() {
            return;
        }
        let folders: BTreeSet<&Path> = queue.iter().map(|worker| admission::folder(worker)).collect();
        let floor = context.limits.floors.disk_mib;
        let folders = folders.into_iter().filter(|_| floor > 0);
        self.machine.look(Instant::now(), &context.state_root, folders, |folder| {
            ask_disk(self.mailbox.clone(), folder.to_owned())
        });
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
        let is_held = |worker: &Arc<Worker>| self.hold(&load, worker).is_some_and(|hold| hold.is_machine_limit());
        load.is_full() && admission::queue(self.registry(), &self.context.server).any(is_held)
    }

    /// How much runs, and what is left: to say why others wait.
    pub(super) fn load(&self) -> Load<'_> {
        Load::of(self.registry(), &self.context.limits, self.moment())
    }

    pub(super) fn moment(&self) -> Conditions {
        Conditions { now: Timestamp::now(), free: self.machine.free(), spending: self.spending() }
    }

    pub(super) fn hold(&self, load: &Load<'_>, worker: &Worker) -> Option<WaitReason> {
        let context = &self.context;
        let hold =
            admission::wait_reason(self.registry(), load, &context.server, worker, |worker| lacks(context, worker))?;
        Some(match hold {
            WaitReason::Backend(held) => WaitReason::Backend(logins::with_login_command(context, held)),
            other => other,
        })
    }

    pub(super) fn note_disk(&mut self, folder: PathBuf, free_mib: Option<u64>) {
        self.machine.note_disk(folder, free_mib);
        self.start_what_may();
        if self.machine.holds {
            self.answer_waits();
        }
    }

    fn start_worker(&mut self, worker: Arc<Worker>, bases: Vec<String>, integration_branch: Option<String>) {
        let needed = worker.mission.depends_on.iter().filter_map(|task| self.registry().task(task));
        let integrated = needed.filter(|worker| worker.integrated.is_some()).cloned().collect();
        let Some(dir) = self.state_dir().map(|dir| dir.worker(&worker.id)) else { return };
        let id = worker.id.clone();
        let order = start::Order {
            integration_branch,
            bases,
            integrated,
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
                Some(Entry::Requeued { worker: id.clone(), next: Box::new(next), lease: None })
            });
            (next.collect(), ())
        });
        crash_point::at(Point::RetriedByItself);
        if let Err(error) = requeued {
            tracing::error!(%error, "could not save a retry; it is tried again with the next change");
        }
    }
}

/// What this server would need to start the worker: its backend, and the keys that the boss's environment had
/// when it asked.
pub(super) fn lacks(context: &Context, worker: &Worker) -> Option<String> {
    if context.backends.get(worker.next.backend.as_str()).is_err() {
        return Some(format!("a server whose settings have the backend {}", worker.next.backend));
    }
    let missing = |name: &&String| env::var_os(name).is_none_or(|value| value.is_empty());
    let missing: Vec<&str> = worker.needs.iter().filter(missing).map(String::as_str).collect();
    (!missing.is_empty()).then(|| format!("a server whose environment has {}", missing.join(" and ")))
}

/// On a thread of its own, which may hang for ever. False where none can be started: then it is asked later.
fn ask_disk(mailbox: mpsc::UnboundedSender<Ask>, folder: PathBuf) -> bool {
    let thread = std::thread::Builder::new().name("disk".to_owned());
    let asked = thread.spawn(move || {
        let free_mib = machine::free_disk_mib(&folder);
        let _ = mailbox.send(Ask::DiskSeen { folder, free_mib });
    });
    asked.is_ok()
}
