//! Admission: which queued workers this server starts, within the limits over all servers and the free resources of the
//! machine. It also fails workers over from backends that accept no work now. The decisions are those of
//! [`crate::mission::admission`]; this module holds what this server has seen of its machine and its logins.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::answers::Login;
use super::context::Context;
use super::effect::Effect;
use super::logins::Logins;
use super::machine::{self, Machine};
use super::mailbox::Ask;
use super::views::{Views, lacks};
use crate::crash_point::Point;
use crate::mission::admission::{self, Conditions};
use crate::mission::entry::Entry;
use crate::mission::id::{BackendName, WorkerId};
use crate::mission::lifecycle::WorkerStatus;
use crate::mission::registry::{Registry, Worker};
use crate::mission::retry;

/// Time for which a slot is left to a worker of another server whose turn it is. A server that does not take it cannot.
const LEFT_FOR: Duration = Duration::from_secs(5);

#[derive(Default)]
pub(super) struct Admission {
    machine: Machine,
    logins: Logins,
    /// Workers of other servers to which a slot is left, and the time since when.
    turns: HashMap<WorkerId, Instant>,
    /// True if a queued worker waits for resources of the machine.
    is_held: bool,
}

impl Admission {
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    pub fn is_held(&self) -> bool {
        self.is_held
    }

    /// Reads the free resources of the machine if a worker waits to start. They are cached for a moment.
    pub fn survey(&mut self, registry: &Registry, context: &Context, mailbox: &mpsc::UnboundedSender<Ask>) {
        let queue: Vec<&Arc<Worker>> = admission::queue(registry, &context.server).collect();
        if queue.is_empty() {
            return;
        }
        let folders: BTreeSet<&Path> = queue.into_iter().map(|worker| admission::folder(worker)).collect();
        let floor = context.limits.floors.disk_mib;
        let folders = folders.into_iter().filter(|_| floor > 0);
        self.machine.survey(Instant::now(), &context.state_root, folders, |folder| {
            query_disk(mailbox.clone(), folder.to_owned())
        });
    }

    pub fn note_disk(&mut self, folder: PathBuf, free_mib: Option<u64>) {
        self.machine.note_disk(folder, free_mib);
    }

    pub fn note_started(&mut self, worker: &Worker) {
        self.machine.note_started(worker);
    }

    /// Returns the workers to start now, in the order of the queue.
    pub fn admit(&mut self, registry: &Registry, context: &Context, moment: Conditions) -> Vec<WorkerId> {
        let is_queued = |id: &WorkerId| registry.get(id).is_some_and(|worker| worker.status == WorkerStatus::Queued);
        self.turns.retain(|id, _| is_queued(id));
        let turns = RefCell::new(&mut self.turns);
        let can_start = |worker: &Worker| lacks(context, worker).is_none();
        let leaves = |worker: &Worker| {
            let first = *turns.borrow_mut().entry(worker.id.clone()).or_insert_with(Instant::now);
            first.elapsed() < LEFT_FOR && registry.servers.contains_key(&worker.lease)
        };
        admission::admit(registry, &context.limits, &context.server, moment, can_start, leaves).0
    }

    /// Notes whether the machine holds up a worker. It changes without an entry, and the state file shows it.
    pub fn note_hold(&mut self, is_held: bool) -> Vec<Effect> {
        let has_changed = std::mem::replace(&mut self.is_held, is_held) != is_held;
        if has_changed { vec![Effect::WriteState] } else { Vec::new() }
    }

    /// Moves workers that wait for a backend in backoff to their fallback.
    pub fn fail_over(&mut self, registry: &Registry, context: &Arc<Context>) -> Vec<Effect> {
        self.logins.fail_over(registry, context)
    }

    /// Checks the logins that were lost, from time to time.
    pub fn check_logins(
        &mut self,
        registry: &Registry,
        context: &Arc<Context>,
        mailbox: &mpsc::UnboundedSender<Ask>,
    ) -> Vec<Effect> {
        self.logins.check(registry, context, mailbox)
    }

    pub fn note_login(&mut self, registry: &Registry, backend: BackendName, login: Login) -> Vec<Effect> {
        self.logins.note(registry, backend, login)
    }
}

/// Returns whether a queued worker waits for resources of the machine.
pub(super) fn is_held_by_machine(views: &Views<'_>) -> bool {
    let load = views.load();
    let is_held = |worker: &Arc<Worker>| views.hold(&load, worker).is_some_and(|hold| hold.is_machine_limit());
    load.is_full() && admission::queue(views.registry, &views.context.server).any(is_held)
}

/// Queues failed workers again whose missions allow another attempt.
pub(super) fn retry_automatically(registry: &Registry, context: &Context) -> Vec<Effect> {
    let is_mine = |worker: &&Arc<Worker>| worker.lease == context.server && retry::automatic(worker).is_some();
    let again: Vec<WorkerId> = registry.workers().filter(is_mine).map(|worker| worker.id.clone()).collect();
    if again.is_empty() {
        return Vec::new();
    }
    let decide = move |registry: &Registry| {
        let next = again.iter().filter_map(|id| {
            let next = retry::automatic(registry.get(id)?)?;
            Some(Entry::Requeued { worker: id.clone(), next: Box::new(next), lease: None })
        });
        next.collect()
    };
    vec![Effect::append("save an automatic retry", decide).at(Point::RetriedByItself)]
}

/// Queries a file system on a thread of its own, which may hang for ever. Returns false if no thread can be started; it
/// is queried later then.
fn query_disk(mailbox: mpsc::UnboundedSender<Ask>, folder: PathBuf) -> bool {
    let thread = std::thread::Builder::new().name("disk".to_owned());
    let queried = thread.spawn(move || {
        let free_mib = machine::free_disk_mib(&folder);
        let _ = mailbox.send(Ask::DiskSeen { folder, free_mib });
    });
    queried.is_ok()
}
