//! Who may start now, and why the others may not: limits over all and per backend, backends that take no work now, budgets,
//! what the machine has left. Bosses take turns, and each one's workers start in the order in which they were asked for.
//! Pure: what the machine has left, and what time it is, come in as arguments.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use super::budget::{Budget, Spent};
use super::graph::{self, Readiness};
use super::hold::{self, Held};
use super::id::{BackendName, BossId, ServerId, WorkerId};
use super::lifecycle::WorkerStatus;
use super::outcome::FailureKind;
use super::registry::{Registry, Worker};
use super::spec::Place;

/// What a worker that has just been started is reckoned to take before it shows in what is free: a CLI takes 200 to
/// 600 MiB within seconds, tens of threads, and a checkout.
pub const TAKES: Floors = Floors { memory_mib: 256, disk_mib: 64, processes: 32, files: 12 };

/// How many workers may live at once, over all servers of a state directory, and what must be left of the machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    pub total: usize,
    pub per_backend: HashMap<BackendName, usize>,
    pub floors: Floors,
    /// Of each boss.
    pub budget: Budget,
}

/// What the registry does not tell, at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Moment {
    pub now: Timestamp,
    pub free: Headroom,
    /// What attempts that have not settled have used up, as far as it is known.
    pub spending: HashMap<BossId, Spent>,
}

/// What must be free for a worker to start; 0 switches one off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Floors {
    pub memory_mib: u64,
    pub disk_mib: u64,
    /// Processes and threads that the system would still let us start.
    pub processes: u64,
    /// Files that this server may still open.
    pub files: u64,
}

/// What the machine has left. What the system does not tell holds nobody up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Headroom {
    pub memory_mib: Option<u64>,
    pub processes: Option<u64>,
    pub files: Option<u64>,
    /// Of the file system that the state lies on.
    pub state_disk_mib: Option<u64>,
    /// Of those that workers are to work in, by [`folder`].
    pub disk_mib: BTreeMap<PathBuf, u64>,
    /// Folders whose file system was asked, and has not answered yet for the first time.
    pub unseen: BTreeSet<PathBuf>,
    /// Those of them that were asked a moment ago: who works there keeps its place meanwhile.
    pub just_asked: BTreeSet<PathBuf>,
}

/// Why a queued worker does not start. As text it is what the worker waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hold {
    /// Other tasks, by their ids.
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
    /// A backend that takes no work now.
    Backend(Held),
    /// It may take work again, and this one tries.
    Trial {
        backend: BackendName,
        by: WorkerId,
    },
    /// What the boss's workers may use up is used up.
    Budget(String),
    /// A file system that has not said yet what is free.
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
    /// `None`: where the state lies.
    Disk {
        folder: Option<PathBuf>,
        free: u64,
        floor: u64,
    },
}

impl Hold {
    /// The machine is full, and it may be that no worker's end changes that.
    pub fn is_of_the_machine(&self) -> bool {
        matches!(self, Hold::Memory { .. } | Hold::Processes { .. } | Hold::Files { .. } | Hold::Disk { .. })
    }

    /// Where nothing else of a boss runs, nothing may happen by itself for long, if ever.
    pub fn is_lasting(&self) -> bool {
        let backend = |held: &Held| held.kind != FailureKind::RateLimit;
        self.is_of_the_machine()
            || matches!(self, Hold::Budget(_))
            || matches!(self, Hold::Backend(held) if backend(held))
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Hold::Tasks(what) | Hold::Server(what) => f.write_str(what),
            Hold::Backend(held) => held.fmt(f),
            Hold::Trial { backend, by } => write!(f, "{by}, which tries whether {backend} takes work again"),
            Hold::Budget(what) => write!(f, "the user to raise the budget: {what}"),
            Hold::Unseen(folder) => write!(f, "the file system at {} to say what is free", folder.display()),
            Hold::Limit { running, limit } => write!(f, "a free place: {running} of {limit} workers run (max_workers)"),
            Hold::BackendLimit { backend, running, limit } => {
                write!(f, "a free place: {running} of {limit} {backend} workers run (its max_workers)")
            }
            Hold::Memory { free, floor } => {
                write!(f, "memory: {free} MiB are free, less than {floor} (min_free_memory_mib)")
            }
            Hold::Processes { free, floor } => {
                write!(f, "room for processes: {free} more can be started, less than {floor} (min_free_processes)")
            }
            Hold::Files { free, floor } => {
                write!(
                    f,
                    "open files: the server may open {free} more, less than {floor} (`ulimit -n` where it is started)"
                )
            }
            Hold::Disk { folder, free, floor } => {
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

/// The folder whose file system a worker's work needs room on. It need not be there yet.
pub fn folder(worker: &Worker) -> &Path {
    match &worker.mission.place {
        Place::Directory { path } => path,
        // Of hundreds of worktrees beside each other one is looked at.
        Place::Worktree { path, .. } => path.parent().unwrap_or(path),
    }
}

/// Those who wait for this server to start them.
pub fn queue<'a>(registry: &'a Registry, server: &'a ServerId) -> impl Iterator<Item = &'a Arc<Worker>> {
    let waits = move |worker: &&Arc<Worker>| {
        worker.status == WorkerStatus::Queued && worker.lease == *server && worker.cancel.is_none()
    };
    registry.workers().filter(waits)
}

/// The queued workers of this server that can start now, in the order in which they get their turn; and what is then left
/// of the machine. A worker that another server looks after gets its turn too, if this one `leaves` it the place: the
/// server that is quicker would else take them all.
pub fn admit(
    registry: &Registry,
    limits: &Limits,
    server: &ServerId,
    moment: Moment,
    can_start: impl Fn(&Worker) -> bool,
    leaves: impl Fn(&Worker) -> bool,
) -> (Vec<WorkerId>, Headroom) {
    let mut load = Load::of(registry, limits, moment);
    let mut admitted = Vec::new();
    // Most changes find nobody a place.
    let mut turns = if load.live < limits.total { Turns::of(registry) } else { Turns::default() };
    while load.live < limits.total {
        let Some(worker) = turns.next(&load) else { break };
        let mine = worker.lease == *server;
        let hold = load.hold(worker);
        let soon = matches!(&hold, Some(Hold::Unseen(folder)) if load.moment.free.just_asked.contains(folder));
        let able = (hold.is_none() || soon) && if mine { can_start(worker) } else { leaves(worker) };
        if able && graph::readiness(registry, worker) == Readiness::Ready {
            load.take(worker);
            if mine && !soon {
                admitted.push(worker.id.clone());
            }
        }
    }
    (admitted, load.moment.free)
}

/// The queues of all bosses.
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

    /// The first one of the boss of whom fewest run; of two, the one that was last given a place longer ago.
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

/// Why a queued worker does not start; `None` if it is not queued, or is just about to. `lacks` says what this server
/// would need to start it.
pub fn hold(
    registry: &Registry,
    load: &Load<'_>,
    server: &ServerId,
    worker: &Worker,
    lacks: impl Fn(&Worker) -> Option<String>,
) -> Option<Hold> {
    if worker.status != WorkerStatus::Queued {
        return None;
    }
    match graph::readiness(registry, worker) {
        Readiness::Waiting(tasks) => {
            return Some(Hold::Tasks(tasks.iter().map(|task| task.as_str()).collect::<Vec<_>>().join(", ")));
        }
        // That is a matter for the boss, and told as one.
        Readiness::Blocked(_) => return None,
        Readiness::Ready => {}
    }
    if let Some(full) = load.no_place(worker) {
        return Some(full);
    }
    match (worker.lease == *server, registry.servers.contains_key(&worker.lease)) {
        (false, true) => Some(Hold::Server("the other server that leads it".to_owned())),
        _ => lacks(worker).map(Hold::Server).or_else(|| load.no_room(worker)),
    }
}

/// How much runs, and what is left, at one moment.
pub struct Load<'a> {
    limits: &'a Limits,
    moment: Moment,
    live: usize,
    per_backend: HashMap<&'a BackendName, usize>,
    per_boss: HashMap<&'a BossId, usize>,
    /// When each boss was last given a place: larger is later.
    served: HashMap<&'a BossId, u64>,
    held: HashMap<BackendName, Held>,
    /// Who tries whether a held backend takes work again.
    trials: HashMap<&'a BackendName, &'a WorkerId>,
    /// Bosses whose budget is used up, with what of it.
    spent: HashMap<&'a BossId, String>,
}

impl<'a> Load<'a> {
    pub fn of(registry: &'a Registry, limits: &'a Limits, moment: Moment) -> Self {
        let held = hold::held(registry);
        let spent = over_budget(registry, limits, &moment);
        let mut load = Self {
            limits,
            moment,
            live: 0,
            per_backend: HashMap::new(),
            per_boss: HashMap::new(),
            served: HashMap::new(),
            held,
            trials: HashMap::new(),
            spent,
        };
        for worker in registry.workers().filter(|worker| worker.admitted_seq > 0) {
            let last = load.served.entry(&worker.boss).or_default();
            *last = worker.admitted_seq.max(*last);
        }
        for worker in registry.workers().filter(|worker| worker.status.is_live()) {
            load.count(worker);
            if load.held.get(&worker.next.backend).is_some_and(|held| held.is_tried_by(worker)) {
                load.trials.insert(&worker.next.backend, &worker.id);
            }
        }
        load
    }

    fn count(&mut self, worker: &'a Worker) {
        self.live += 1;
        *self.per_backend.entry(&worker.next.backend).or_default() += 1;
        *self.per_boss.entry(&worker.boss).or_default() += 1;
    }

    fn hold(&self, worker: &Worker) -> Option<Hold> {
        self.no_place(worker).or_else(|| self.no_room(worker))
    }

    fn no_place(&self, worker: &Worker) -> Option<Hold> {
        let backend = &worker.next.backend;
        if let Some(what) = self.spent.get(&worker.boss) {
            return Some(Hold::Budget(what.clone()));
        }
        if let Some(held) = self.held.get(backend) {
            if held.lasts(self.moment.now) {
                return Some(Hold::Backend(held.clone()));
            }
            if let Some(by) = self.trials.get(backend) {
                return Some(Hold::Trial { backend: backend.clone(), by: (*by).clone() });
            }
        }
        if self.live >= self.limits.total {
            return Some(Hold::Limit { running: self.live, limit: self.limits.total });
        }
        let (running, limit) = (self.per_backend.get(backend).copied().unwrap_or(0), self.limits.of(backend));
        (running >= limit).then(|| Hold::BackendLimit { backend: backend.clone(), running, limit })
    }

    fn no_room(&self, worker: &Worker) -> Option<Hold> {
        let below = |free: Option<u64>, floor: u64| free.filter(|free| *free < floor).map(|free| (free, floor));
        let Floors { memory_mib, disk_mib, processes, files } = self.limits.floors;
        if let Some((free, floor)) = below(self.moment.free.memory_mib, memory_mib) {
            return Some(Hold::Memory { free, floor });
        }
        if let Some((free, floor)) = below(self.moment.free.processes, processes) {
            return Some(Hold::Processes { free, floor });
        }
        if let Some((free, floor)) = below(self.moment.free.files, files) {
            return Some(Hold::Files { free, floor });
        }
        if let Some((free, floor)) = below(self.moment.free.state_disk_mib, disk_mib) {
            return Some(Hold::Disk { folder: None, free, floor });
        }
        let folder = folder(worker);
        if disk_mib > 0 && self.moment.free.unseen.contains(folder) {
            return Some(Hold::Unseen(folder.to_owned()));
        }
        let (free, floor) = below(self.moment.free.disk_mib.get(folder).copied(), disk_mib)?;
        Some(Hold::Disk { folder: Some(folder.to_owned()), free, floor })
    }

    /// Whether anything is below its floor, for some worker at least.
    pub fn is_full(&self) -> bool {
        let Floors { memory_mib, disk_mib, processes, files } = self.limits.floors;
        let disks = self.moment.free.disk_mib.values().copied().chain(self.moment.free.state_disk_mib);
        self.moment.free.memory_mib.is_some_and(|free| free < memory_mib)
            || self.moment.free.processes.is_some_and(|free| free < processes)
            || self.moment.free.files.is_some_and(|free| free < files)
            || disks.into_iter().any(|free| free < disk_mib)
    }

    /// Whether there is any reason to wait that [`Hold::is_lasting`].
    pub fn holds_for_long(&self) -> bool {
        let is_lasting = |held: &Held| Hold::Backend(held.clone()).is_lasting();
        self.is_full() || !self.spent.is_empty() || self.held.values().any(is_lasting)
    }

    /// The backends of which nothing new is started, or only one that tries.
    pub fn held(&self) -> &HashMap<BackendName, Held> {
        &self.held
    }

    fn take(&mut self, worker: &'a Worker) {
        let latest = self.served.values().max().copied().unwrap_or_default();
        self.served.insert(&worker.boss, latest + 1);
        self.count(worker);
        if self.held.contains_key(&worker.next.backend) {
            self.trials.insert(&worker.next.backend, &worker.id);
        }
        self.moment.free.take(worker);
    }
}

impl Headroom {
    /// Less what a worker takes that was just started.
    pub fn take(&mut self, worker: &Worker) {
        let take = |free: &mut u64, what: u64| *free = free.saturating_sub(what);
        self.memory_mib.iter_mut().for_each(|free| take(free, TAKES.memory_mib));
        self.processes.iter_mut().for_each(|free| take(free, TAKES.processes));
        self.files.iter_mut().for_each(|free| take(free, TAKES.files));
        self.state_disk_mib.iter_mut().for_each(|free| take(free, TAKES.disk_mib));
        self.disk_mib.get_mut(folder(worker)).into_iter().for_each(|free| take(free, TAKES.disk_mib));
    }
}

/// What a boss's attempts have used up, settled or not.
pub fn spent(registry: &Registry, moment: &Moment, boss: &BossId) -> Spent {
    let mut spent = registry.spent.get(boss).copied().unwrap_or_default();
    moment.spending.get(boss).into_iter().for_each(|now| spent.add(*now));
    spent
}

fn over_budget<'a>(registry: &'a Registry, limits: &Limits, moment: &Moment) -> HashMap<&'a BossId, String> {
    let mut over = HashMap::new();
    if limits.budget.is_set() {
        for worker in registry.workers().filter(|worker| worker.status == WorkerStatus::Queued) {
            if !over.contains_key(&worker.boss)
                && let Some(what) = limits.budget.reached(&spent(registry, moment, &worker.boss))
            {
                over.insert(&worker.boss, what);
            }
        }
    }
    over
}

#[cfg(test)]
mod tests;
