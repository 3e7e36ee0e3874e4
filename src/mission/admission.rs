//! Who may start now, and why the others may not: limits over all and per backend, what the machine has left, first come
//! first served. Pure: what the machine has left comes in as an argument.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};

use super::graph::{self, Readiness};
use super::id::{BackendName, ServerId, WorkerId};
use super::lifecycle::WorkerStatus;
use super::registry::{Registry, Worker};
use super::spec::Place;

/// What a worker that has just been started is reckoned to take before it shows in what is free: a CLI takes 200 to
/// 600 MiB within seconds, tens of threads, and a checkout.
const TAKES: Floors = Floors { memory_mib: 256, disk_mib: 64, processes: 32, files: 12 };

/// How many workers may live at once, over all servers of a state directory, and what must be left of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    pub total: usize,
    pub per_backend: HashMap<BackendName, usize>,
    pub floors: Floors,
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
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Hold::Tasks(what) | Hold::Server(what) => f.write_str(what),
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
pub fn queue<'a>(registry: &'a Registry, server: &'a ServerId) -> impl Iterator<Item = &'a Worker> {
    let waits = move |worker: &&Worker| {
        worker.status == WorkerStatus::Queued && worker.lease == *server && worker.cancel.is_none()
    };
    registry.workers().map(AsRef::as_ref).filter(waits)
}

/// The queued workers of this server that can start now, in the order in which they were asked for; and what is then
/// left of the machine.
pub fn admit(
    registry: &Registry,
    limits: &Limits,
    server: &ServerId,
    free: Headroom,
    can_start: impl Fn(&Worker) -> bool,
) -> (Vec<WorkerId>, Headroom) {
    let mut load = Load::of(registry, limits, free);
    let mut queue: Vec<_> = queue(registry, server).collect();
    queue.sort_by_key(|worker| worker.queued_seq);
    let mut admitted = Vec::new();
    for worker in queue {
        if load.live >= limits.total {
            break;
        }
        let free = load.hold(worker).is_none();
        if free && can_start(worker) && graph::readiness(registry, worker) == Readiness::Ready {
            load.take(worker);
            admitted.push(worker.id.clone());
        }
    }
    (admitted, load.free)
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
    if let Some(full) = load.no_place(&worker.next.backend) {
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
    free: Headroom,
    live: usize,
    per_backend: HashMap<&'a BackendName, usize>,
}

impl<'a> Load<'a> {
    pub fn of(registry: &'a Registry, limits: &'a Limits, free: Headroom) -> Self {
        let mut load = Self { limits, free, live: 0, per_backend: HashMap::new() };
        for worker in registry.workers().filter(|worker| worker.status.is_live()) {
            load.live += 1;
            *load.per_backend.entry(&worker.next.backend).or_default() += 1;
        }
        load
    }

    fn hold(&self, worker: &Worker) -> Option<Hold> {
        self.no_place(&worker.next.backend).or_else(|| self.no_room(worker))
    }

    fn no_place(&self, backend: &BackendName) -> Option<Hold> {
        if self.live >= self.limits.total {
            return Some(Hold::Limit { running: self.live, limit: self.limits.total });
        }
        let (running, limit) = (self.per_backend.get(backend).copied().unwrap_or(0), self.limits.of(backend));
        (running >= limit).then(|| Hold::BackendLimit { backend: backend.clone(), running, limit })
    }

    fn no_room(&self, worker: &Worker) -> Option<Hold> {
        let below = |free: Option<u64>, floor: u64| free.filter(|free| *free < floor).map(|free| (free, floor));
        let Floors { memory_mib, disk_mib, processes, files } = self.limits.floors;
        if let Some((free, floor)) = below(self.free.memory_mib, memory_mib) {
            return Some(Hold::Memory { free, floor });
        }
        if let Some((free, floor)) = below(self.free.processes, processes) {
            return Some(Hold::Processes { free, floor });
        }
        if let Some((free, floor)) = below(self.free.files, files) {
            return Some(Hold::Files { free, floor });
        }
        if let Some((free, floor)) = below(self.free.state_disk_mib, disk_mib) {
            return Some(Hold::Disk { folder: None, free, floor });
        }
        let folder = folder(worker);
        let (free, floor) = below(self.free.disk_mib.get(folder).copied(), disk_mib)?;
        Some(Hold::Disk { folder: Some(folder.to_owned()), free, floor })
    }

    /// Whether anything is below its floor, for some worker at least.
    pub fn is_full(&self) -> bool {
        let Floors { memory_mib, disk_mib, processes, files } = self.limits.floors;
        let disks = self.free.disk_mib.values().copied().chain(self.free.state_disk_mib);
        self.free.memory_mib.is_some_and(|free| free < memory_mib)
            || self.free.processes.is_some_and(|free| free < processes)
            || self.free.files.is_some_and(|free| free < files)
            || disks.into_iter().any(|free| free < disk_mib)
    }

    fn take(&mut self, worker: &'a Worker) {
        self.live += 1;
        *self.per_backend.entry(&worker.next.backend).or_default() += 1;
        let take = |free: &mut u64, what: u64| *free = free.saturating_sub(what);
        self.free.memory_mib.iter_mut().for_each(|free| take(free, TAKES.memory_mib));
        self.free.processes.iter_mut().for_each(|free| take(free, TAKES.processes));
        self.free.files.iter_mut().for_each(|free| take(free, TAKES.files));
        self.free.state_disk_mib.iter_mut().for_each(|free| take(free, TAKES.disk_mib));
        self.free.disk_mib.get_mut(folder(worker)).into_iter().for_each(|free| take(free, TAKES.disk_mib));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::entry::Entry;
    use super::super::lifecycle::Ending;
    use super::super::testing::{apply, brief, create, draft, needs};
    use super::*;

    const FLOORS: Floors = Floors { memory_mib: 500, disk_mib: 100, processes: 50, files: 20 };

    fn limits() -> Limits {
        Limits { total: 4, per_backend: HashMap::from([("codex".into(), 3)]), floors: FLOORS }
    }

    proptest! {
        /// However workers start and end, the limits hold, nobody runs twice at once, and in the end all have run.
        #[test]
        fn limits_hold_and_nobody_is_forgotten(ends in prop::collection::vec(0..8usize, 0..60)) {
            let mut registry = Registry::default();
            let drafts: Vec<_> = (0..8).map(|n| match n % 2 {
                0 => draft(&format!("t{n}")),
                _ => needs(&format!("t{n}"), &[&format!("t{}", n - 1)]),
            }).collect();
            let ids: Vec<_> = create(&mut registry, &drafts).into_iter().map(Result::unwrap).collect();
            let me = ServerId::from("s");
            for at in ends.into_iter().chain((0..8).cycle().take(24)) {
                for id in admit(&registry, &limits(), &me, Headroom::default(), |_| true).0 {
                    prop_assert_eq!(registry.get(&id).unwrap().status, WorkerStatus::Queued);
                    apply(&mut registry, "s", Entry::Starting { worker: id, attempt: 1 });
                }
                let live = registry.workers().filter(|worker| worker.status.is_live()).count();
                prop_assert!(live <= 3, "{live} at once");
                if registry.get(&ids[at]).unwrap().status.is_live() {
                    let brief = Box::new(brief(1, Ending::Completed));
                    apply(&mut registry, "s", Entry::Settled { worker: ids[at].clone(), brief });
                }
            }
            let open = registry.workers().filter(|worker| !worker.status.is_settled()).count();
            prop_assert_eq!(open, 0);
        }
    }

    #[test]
    fn only_this_servers_workers_and_those_that_it_can_start() {
        let mut registry = Registry::default();
        create(&mut registry, &[draft("a"), draft("b")]);
        assert!(admit(&registry, &limits(), &"other".into(), Headroom::default(), |_| true).0.is_empty());
        let able = |worker: &Worker| worker.task().as_str() == "b";
        let (admitted, _) = admit(&registry, &limits(), &"s".into(), Headroom::default(), able);
        assert_eq!(admitted.iter().map(WorkerId::as_str).collect::<Vec<_>>(), ["w-2-b"]);
    }

    /// Two queued workers; the names of those that start, why the second does not, and what is left.
    fn with(limits: &Limits, free: Headroom) -> (Vec<String>, Option<String>, Headroom) {
        let mut registry = Registry::default();
        let ids: Vec<_> = create(&mut registry, &[draft("a"), draft("b")]).into_iter().map(Result::unwrap).collect();
        let me = ServerId::from("s");
        let (admitted, left) = admit(&registry, limits, &me, free, |_| true);
        for id in &admitted {
            apply(&mut registry, "s", Entry::Starting { worker: id.clone(), attempt: 1 });
        }
        let load = Load::of(&registry, limits, left.clone());
        let why = hold(&registry, &load, &me, registry.get(&ids[1]).unwrap(), |_| None).map(|hold| hold.to_string());
        (admitted.iter().map(ToString::to_string).collect(), why, left)
    }

    #[test]
    fn below_a_floor_nobody_starts_and_the_reason_names_the_setting() {
        let disk =
            |folder: &str, free| Headroom { disk_mib: BTreeMap::from([(folder.into(), free)]), ..Headroom::default() };
        let cases = [
            (Headroom { memory_mib: Some(499), ..Headroom::default() }, "min_free_memory_mib"),
            (Headroom { processes: Some(49), ..Headroom::default() }, "min_free_processes"),
            (Headroom { files: Some(19), ..Headroom::default() }, "ulimit -n"),
            (Headroom { state_disk_mib: Some(99), ..Headroom::default() }, "min_free_disk_mib"),
            (disk("/worktrees", 99), "at /worktrees"),
        ];
        for (free, setting) in cases {
            let (admitted, why, _) = with(&limits(), free);
            assert!(admitted.is_empty(), "{admitted:?}");
            assert!(why.as_ref().is_some_and(|why| why.contains(setting)), "{why:?}");
        }
        let none = Limits { floors: Floors::default(), ..limits() };
        let nothing =
            Headroom { memory_mib: Some(0), processes: Some(0), state_disk_mib: Some(0), ..disk("/worktrees", 0) };
        assert_eq!(with(&none, nothing).0.len(), 2, "0 switches a floor off");
        assert_eq!(with(&limits(), disk("/elsewhere", 0)).0.len(), 2);
    }

    #[test]
    fn what_has_just_started_is_reckoned_with_before_it_shows() {
        let (admitted, why, left) = with(&limits(), Headroom { memory_mib: Some(700), ..Headroom::default() });
        assert_eq!(admitted, ["w-1-a"]);
        assert_eq!(left.memory_mib, Some(444));
        assert_eq!(why.unwrap(), "memory: 444 MiB are free, less than 500 (min_free_memory_mib)");
    }

    #[test]
    fn every_reason_to_wait_is_told() {
        let one = Limits { total: 1, ..limits() };
        assert_eq!(with(&one, Headroom::default()).1.unwrap(), "a free place: 1 of 1 workers run (max_workers)");
        let one = Limits { per_backend: HashMap::from([("codex".into(), 1)]), ..limits() };
        let why = with(&one, Headroom::default()).1.unwrap();
        assert_eq!(why, "a free place: 1 of 1 codex workers run (its max_workers)");

        let mut registry = Registry::default();
        create(&mut registry, &[draft("a"), needs("b", &["a"])]);
        let (limits, me, other) = (limits(), ServerId::from("s"), ServerId::from("other"));
        let load = Load::of(&registry, &limits, Headroom::default());
        let lacks = |_: &Worker| Some("a server with KEY".to_owned());
        let why = |server: &ServerId, task: &str| {
            let worker = registry.task(&task.into()).unwrap();
            hold(&registry, &load, server, worker, lacks).map(|hold| hold.to_string()).unwrap()
        };
        assert_eq!(why(&me, "b"), "a");
        assert_eq!(why(&me, "a"), "a server with KEY");
        // The server that led it is gone, and this one cannot.
        assert_eq!(why(&other, "a"), "a server with KEY");
    }
}
