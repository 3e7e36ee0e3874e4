//! Admission: the queued workers that may start now, and the reasons why the others wait. Limits apply in total and per
//! backend; backoffs, budgets and the machine's free resources apply too. Bosses take turns, and each one's workers
//! start in the order of their creation. Pure: free resources and time come in as arguments.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use super::backoff::{self, Backoff};
use super::budget::{Budget, Spent};
use super::graph::{self, Readiness};
use super::id::{BackendName, BossId, ServerId, WorkerId};
use super::lifecycle::WorkerStatus;
use super::outcome::FailureKind;
use super::registry::{Registry, Worker};
use super::spec::Place;

/// The resources that are reserved for a worker that was just started, until the measurements include it. A CLI takes
/// 200 to 600 MiB within seconds, tens of threads, and a checkout.
pub const TAKES: Floors = Floors { memory_mib: 256, disk_mib: 64, processes: 32, files: 12 };

/// The user's limits on workers, over all servers of a state directory.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    pub total: usize,
    pub per_backend: HashMap<BackendName, usize>,
    /// Limits of workers that wait or run as jobs, by launcher. `total` and `floors` are about this machine and do not
    /// apply to them.
    pub per_launcher: HashMap<String, usize>,
    pub floors: Floors,
    pub budget: Budget,
}

/// The facts outside the registry that admission depends on, at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Conditions {
    pub now: Timestamp,
    pub free: Headroom,
    /// Known usage of attempts that have not settled.
    pub spending: HashMap<BossId, Spent>,
}

/// The resources that must be free for a worker to start. 0 disables a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Floors {
    pub memory_mib: u64,
    pub disk_mib: u64,
    /// Processes and threads that this user may still start.
    pub processes: u64,
    /// Files that this server may still open.
    pub files: u64,
}

/// The free resources of the machine. An unknown amount delays no worker.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Headroom {
    pub memory_mib: Option<u64>,
    pub processes: Option<u64>,
    pub files: Option<u64>,
    /// On the file system of the state directory.
    pub state_disk_mib: Option<u64>,
    /// On the file systems of workers, by [`folder`].
    pub disk_mib: BTreeMap<PathBuf, u64>,
    /// Folders whose file system was queried and has not answered yet.
    pub unseen: BTreeSet<PathBuf>,
    /// Those that were queried a moment ago. Their workers keep their place meanwhile.
    pub just_asked: BTreeSet<PathBuf>,
}

/// The reason why a queued worker does not start. Its text says what the worker waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitReason {
    /// Other tasks, by their ids, and reports of other workers.
    Tasks(String),
    /// A server that can start it.
    Server(String),
    Limit {
        running: usize,
        limit: usize,
    },
    BackendLimit {
        backend: BackendName,
        running: usize,
        limit: usize,
    },
    Backend(Backoff),
    /// A half-open probe of a backend, which is running.
    Probe {
        backend: BackendName,
        by: WorkerId,
    },
    /// The boss's budget is used up.
    Budget(String),
    /// As many workers of a launcher as its `max_jobs`.
    LauncherLimit {
        launcher: String,
        running: usize,
        limit: usize,
    },
    /// A cluster, for a reason that may not pass by itself.
    Cluster {
        why: String,
        is_lasting: bool,
    },
    /// A file system whose free space is not known yet.
    Unseen(PathBuf),
    Memory {
        free: u64,
        floor: u64,
    },
    Processes {
        free: u64,
        floor: u64,
    },
    Files {
        free: u64,
        floor: u64,
    },
    /// The folder is `None` for the state directory.
    Disk {
        folder: Option<PathBuf>,
        free: u64,
        floor: u64,
    },
}

impl WaitReason {
    /// Returns whether the machine is full, which the end of a worker may not change.
    pub fn is_machine_limit(&self) -> bool {
        matches!(
            self,
            WaitReason::Memory { .. }
                | WaitReason::Processes { .. }
                | WaitReason::Files { .. }
                | WaitReason::Disk { .. }
        )
    }

    /// Returns whether it may last long, or for ever, if no other worker of the boss runs.
    pub fn is_lasting(&self) -> bool {
        let backend = |it: &Backoff| it.kind != FailureKind::RateLimit;
        self.is_machine_limit()
            || matches!(self, WaitReason::Budget(_) | WaitReason::Cluster { is_lasting: true, .. })
            || matches!(self, WaitReason::Backend(it) if backend(it))
    }
}

impl fmt::Display for WaitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WaitReason::Tasks(what) | WaitReason::Server(what) => f.write_str(what),
            WaitReason::Backend(backoff) => backoff.fmt(f),
            WaitReason::Probe { backend, by } => write!(f, "{by}, which probes whether {backend} accepts work again"),
            WaitReason::Cluster { why, .. } => f.write_str(why),
            WaitReason::LauncherLimit { launcher, running, limit } => {
                write!(f, "a free slot: {running} of {limit} jobs of {launcher} wait or run (its max_jobs)")
            }
            WaitReason::Budget(what) => write!(f, "the user to raise the budget: {what}"),
            WaitReason::Unseen(folder) => write!(f, "the file system at {} to report its free space", folder.display()),
            WaitReason::Limit { running, limit } => {
                write!(f, "a free slot: {running} of {limit} workers run (max_workers)")
            }
            WaitReason::BackendLimit { backend, running, limit } => {
                write!(f, "a free slot: {running} of {limit} {backend} workers run (its max_workers)")
            }
            WaitReason::Memory { free, floor } => {
                write!(f, "memory: {free} MiB are free, less than {floor} (min_free_memory_mib)")
            }
            WaitReason::Processes { free, floor } => {
                write!(f, "room for processes: {free} more can be started, less than {floor} (min_free_processes)")
            }
            WaitReason::Files { free, floor } => {
                write!(
                    f,
                    "open files: the server may open {free} more, less than {floor} (`ulimit -n` where it is started)"
                )
            }
            WaitReason::Disk { folder, free, floor } => {
                let folder = folder.as_deref().unwrap_or(Path::new("the state directory")).display();
                write!(f, "disk space: {free} MiB are free at {folder}, less than {floor} (min_free_disk_mib)")
            }
        }
    }
}

impl Limits {
    pub fn of(&self, backend: &BackendName) -> usize {
        self.per_backend.get(backend).copied().unwrap_or(self.total).min(self.total)
    }
}

/// Returns a folder on the file system that a worker writes to. It need not exist yet.
pub fn folder(worker: &Worker) -> &Path {
    match &worker.mission.place {
        Place::Directory { path } => path,
        // Hundreds of worktrees may lie beside each other; their file system is queried once.
        Place::Worktree { path, .. } => path.parent().unwrap_or(path),
    }
}

/// Returns the workers that wait for this server to start them.
pub fn queue<'a>(registry: &'a Registry, server: &'a ServerId) -> impl Iterator<Item = &'a Arc<Worker>> {
    let waits = move |worker: &&Arc<Worker>| {
        worker.status == WorkerStatus::Queued && worker.lease == *server && worker.cancel.is_none()
    };
    registry.workers().filter(waits)
}

/// Returns the queued workers of this server that can start now, in order, and the resources that are then free.
/// Workers of other servers get their turn if this server `leaves` them a place. Otherwise, the quickest server would
/// take all.
pub fn admit(
    registry: &Registry,
    limits: &Limits,
    server: &ServerId,
    conditions: Conditions,
    can_start: impl Fn(&Worker) -> bool,
    leaves: impl Fn(&Worker) -> bool,
) -> (Vec<WorkerId>, Headroom) {
    let mut load = Load::of(registry, limits, conditions);
    let mut admitted = Vec::new();
    // Most changes free no place.
    let mut turns = if load.has_place() { Turns::of(registry) } else { Turns::default() };
    while load.has_place() {
        let Some(worker) = turns.next(&load) else { break };
        let mine = worker.lease == *server;
        let reason = load.wait_reason(worker);
        let soon =
            matches!(&reason, Some(WaitReason::Unseen(folder)) if load.conditions.free.just_asked.contains(folder));
        let able = (reason.is_none() || soon) && if mine { can_start(worker) } else { leaves(worker) };
        if able && graph::readiness(registry, worker) == Readiness::Ready {
            load.take(worker);
            if mine && !soon {
                admitted.push(worker.id.clone());
            }
        }
    }
    (admitted, load.conditions.free)
}

/// The queue of each boss.
#[derive(Default)]
struct Turns<'a> {
    queues: HashMap<&'a BossId, VecDeque<&'a Worker>>,
}

impl<'a> Turns<'a> {
    fn of(registry: &'a Registry) -> Self {
        let waits = |worker: &&Worker| worker.status == WorkerStatus::Queued && worker.cancel.is_none();
        let mut queue: Vec<&Worker> = registry.workers().map(AsRef::as_ref).filter(waits).collect();
        queue.sort_by_key(|worker| worker.queued_seq);
        let mut turns = Self::default();
        for worker in queue {
            turns.queues.entry(&worker.boss).or_default().push_back(worker);
        }
        turns
    }

    /// Returns the first worker of the boss with the fewest running workers, or of the one that was served longest ago.
    fn next(&mut self, load: &Load<'_>) -> Option<&'a Worker> {
        let turn = |boss: &BossId, first: &Worker| {
            let (runs, served) = (load.per_boss.get(boss), load.served.get(boss));
            (runs.copied().unwrap_or(0), served.copied().unwrap_or(0), first.queued_seq)
        };
        let firsts = self.queues.iter().filter_map(|(boss, queue)| Some((*boss, *queue.front()?)));
        let (boss, first) = firsts.min_by_key(|(boss, first)| (turn(boss, first), first.number()))?;
        self.queues.get_mut(boss)?.pop_front();
        Some(first)
    }
}

/// Returns why a queued worker does not start. `None` if it is not queued, or is about to start. `lacks` returns what
/// this server lacks to start it.
pub fn wait_reason(
    registry: &Registry,
    load: &Load<'_>,
    server: &ServerId,
    worker: &Worker,
    lacks: impl Fn(&Worker) -> Option<String>,
) -> Option<WaitReason> {
    if worker.status != WorkerStatus::Queued {
        return None;
    }
    match graph::readiness(registry, worker) {
        Readiness::Waiting(tasks) => {
            return Some(WaitReason::Tasks(tasks.join(", ")));
        }
        // Blocks are reported to the boss.
        Readiness::Blocked(_) => return None,
        Readiness::Ready => {}
    }
    if let Some(full) = load.no_place(worker) {
        return Some(full);
    }
    match (worker.lease == *server, registry.servers.contains_key(&worker.lease)) {
        (false, true) => Some(WaitReason::Server("the other server that manages it".to_owned())),
        _ => lacks(worker).map(WaitReason::Server).or_else(|| load.no_room(worker)),
    }
}

/// The running workers and free resources at one moment.
pub struct Load<'a> {
    limits: &'a Limits,
    conditions: Conditions,
    /// The workers that run on this machine.
    live: usize,
    per_launcher: HashMap<&'a str, usize>,
    per_backend: HashMap<&'a BackendName, usize>,
    per_boss: HashMap<&'a BossId, usize>,
    /// When each boss was last served: larger is later.
    served: HashMap<&'a BossId, u64>,
    backoffs: HashMap<BackendName, Backoff>,
    probes: HashMap<&'a BackendName, &'a WorkerId>,
    /// Bosses whose budget is used up, with the limit that was reached.
    spent: HashMap<&'a BossId, String>,
}

impl<'a> Load<'a> {
    pub fn of(registry: &'a Registry, limits: &'a Limits, conditions: Conditions) -> Self {
        let backoffs = backoff::backoffs(registry);
        let spent = over_budget(registry, limits, &conditions);
        let mut load = Self {
            limits,
            conditions,
            live: 0,
            per_launcher: HashMap::new(),
            per_backend: HashMap::new(),
            per_boss: HashMap::new(),
            served: HashMap::new(),
            backoffs,
            probes: HashMap::new(),
            spent,
        };
        for worker in registry.workers().filter(|worker| worker.admitted_seq > 0) {
            let last = load.served.entry(&worker.boss).or_default();
            *last = worker.admitted_seq.max(*last);
        }
        for worker in registry.workers().filter(|worker| worker.status.is_live()) {
            load.count(worker);
            if load.backoffs.get(&worker.next.backend).is_some_and(|it| it.is_probed_by(worker)) {
                load.probes.insert(&worker.next.backend, &worker.id);
            }
        }
        load
    }

    fn count(&mut self, worker: &'a Worker) {
        match &worker.next.run_on {
            None => self.live += 1,
            Some(launcher) => *self.per_launcher.entry(launcher).or_default() += 1,
        }
        *self.per_backend.entry(&worker.next.backend).or_default() += 1;
        *self.per_boss.entry(&worker.boss).or_default() += 1;
    }

    fn wait_reason(&self, worker: &Worker) -> Option<WaitReason> {
        self.no_place(worker).or_else(|| self.no_room(worker))
    }

    fn no_place(&self, worker: &Worker) -> Option<WaitReason> {
        let backend = &worker.next.backend;
        if let Some(what) = self.spent.get(&worker.boss) {
            return Some(WaitReason::Budget(what.clone()));
        }
        if let Some(backoff) = self.backoffs.get(backend) {
            if backoff.lasts(self.conditions.now) {
                return Some(WaitReason::Backend(backoff.clone()));
            }
            if let Some(by) = self.probes.get(backend) {
                return Some(WaitReason::Probe { backend: backend.clone(), by: (*by).clone() });
            }
        }
        let limit = match &worker.next.run_on {
            None if self.live >= self.limits.total => {
                Some(WaitReason::Limit { running: self.live, limit: self.limits.total })
            }
            None => None,
            Some(launcher) => self.launcher_limit(launcher),
        };
        if limit.is_some() {
            return limit;
        }
        let limit = self.limits.per_backend.get(backend).copied().unwrap_or(usize::MAX);
        let running = self.per_backend.get(backend).copied().unwrap_or(0);
        (running >= limit).then(|| WaitReason::BackendLimit { backend: backend.clone(), running, limit })
    }

    fn launcher_limit(&self, launcher: &str) -> Option<WaitReason> {
        let running = self.per_launcher.get(launcher).copied().unwrap_or(0);
        let limit = self.limits.per_launcher.get(launcher).copied().unwrap_or(usize::MAX);
        (running >= limit).then(|| WaitReason::LauncherLimit { launcher: launcher.to_owned(), running, limit })
    }

    /// Returns whether any worker could start, here or on a cluster.
    fn has_place(&self) -> bool {
        self.live < self.limits.total || self.limits.per_launcher.keys().any(|name| self.launcher_limit(name).is_none())
    }

    fn no_room(&self, worker: &Worker) -> Option<WaitReason> {
        let below = |free: Option<u64>, floor: u64| free.filter(|free| *free < floor).map(|free| (free, floor));
        let Floors { memory_mib, disk_mib, processes, files } = self.limits.floors;
        if worker.next.run_on.is_some() {
            let (free, floor) = below(self.conditions.free.state_disk_mib, disk_mib)?;
            return Some(WaitReason::Disk { folder: None, free, floor });
        }
        if let Some((free, floor)) = below(self.conditions.free.memory_mib, memory_mib) {
            return Some(WaitReason::Memory { free, floor });
        }
        if let Some((free, floor)) = below(self.conditions.free.processes, processes) {
            return Some(WaitReason::Processes { free, floor });
        }
        if let Some((free, floor)) = below(self.conditions.free.files, files) {
            return Some(WaitReason::Files { free, floor });
        }
        if let Some((free, floor)) = below(self.conditions.free.state_disk_mib, disk_mib) {
            return Some(WaitReason::Disk { folder: None, free, floor });
        }
        let folder = folder(worker);
        if disk_mib > 0 && self.conditions.free.unseen.contains(folder) {
            return Some(WaitReason::Unseen(folder.to_owned()));
        }
        let (free, floor) = below(self.conditions.free.disk_mib.get(folder).copied(), disk_mib)?;
        Some(WaitReason::Disk { folder: Some(folder.to_owned()), free, floor })
    }

    /// Returns whether any resource is below its floor.
    pub fn is_full(&self) -> bool {
        let Floors { memory_mib, disk_mib, processes, files } = self.limits.floors;
        let disks = self.conditions.free.disk_mib.values().copied().chain(self.conditions.free.state_disk_mib);
        self.conditions.free.memory_mib.is_some_and(|free| free < memory_mib)
            || self.conditions.free.processes.is_some_and(|free| free < processes)
            || self.conditions.free.files.is_some_and(|free| free < files)
            || disks.into_iter().any(|free| free < disk_mib)
    }

    /// Returns whether there is a reason to wait that is lasting: see [`WaitReason::is_lasting`].
    pub fn waits_for_long(&self) -> bool {
        let is_lasting = |it: &Backoff| WaitReason::Backend(it.clone()).is_lasting();
        self.is_full() || !self.spent.is_empty() || self.backoffs.values().any(is_lasting)
    }

    pub fn backoffs(&self) -> &HashMap<BackendName, Backoff> {
        &self.backoffs
    }

    fn take(&mut self, worker: &'a Worker) {
        let latest = self.served.values().max().copied().unwrap_or_default();
        self.served.insert(&worker.boss, latest + 1);
        self.count(worker);
        if self.backoffs.contains_key(&worker.next.backend) {
            self.probes.insert(&worker.next.backend, &worker.id);
        }
        self.conditions.free.take(worker);
    }
}

impl Headroom {
    /// Reserves the resources of a worker that was just started.
    pub fn take(&mut self, worker: &Worker) {
        let take = |free: &mut u64, what: u64| *free = free.saturating_sub(what);
        if worker.next.run_on.is_some() {
            return self.state_disk_mib.iter_mut().for_each(|free| take(free, TAKES.disk_mib));
        }
        self.memory_mib.iter_mut().for_each(|free| take(free, TAKES.memory_mib));
        self.processes.iter_mut().for_each(|free| take(free, TAKES.processes));
        self.files.iter_mut().for_each(|free| take(free, TAKES.files));
        self.state_disk_mib.iter_mut().for_each(|free| take(free, TAKES.disk_mib));
        self.disk_mib.get_mut(folder(worker)).into_iter().for_each(|free| take(free, TAKES.disk_mib));
    }
}

/// Returns the usage of all attempts of a boss, settled or not.
pub fn spent(registry: &Registry, conditions: &Conditions, boss: &BossId) -> Spent {
    let mut spent = registry.spent.get(boss).copied().unwrap_or_default();
    conditions.spending.get(boss).into_iter().for_each(|now| spent.add(*now));
    spent
}

fn over_budget<'a>(registry: &'a Registry, limits: &Limits, conditions: &Conditions) -> HashMap<&'a BossId, String> {
    let mut over = HashMap::new();
    if limits.budget.is_set() {
        for worker in registry.workers().filter(|worker| worker.status == WorkerStatus::Queued) {
            if !over.contains_key(&worker.boss)
                && let Some(what) = limits.budget.reached(&spent(registry, conditions, &worker.boss))
            {
                over.insert(&worker.boss, what);
            }
        }
    }
    over
}

#[cfg(test)]
mod tests;
