//! A view of a state directory for people. It shows what a server would report, read from the files, whether a server
//! is alive or not.
//!
//! It changes nothing, queries no process, and consumes no notification of a boss.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use super::answers::{RaceView, WorkerView, asking};
use super::budget::so_far;
use super::error::OrchestratorError;
use super::integration_branch;
use super::merged::MergedCache;
use super::own_repository::own_repository;
use super::views;
use crate::attempt::servers::Servers;
use crate::attempt::state_dir;
use crate::attempt::status::LiveStatus;
use crate::attempt::worker_dir::WorkerDir;
use crate::git::{Repository, Trust};
use crate::mission::budget::Spent;
use crate::mission::id::{BossId, ServerId, WorkerId};
use crate::mission::registry::{Registry, Worker};
use crate::mission::{delivery, graph};
use crate::store::reader::Reader;
use crate::store::state_file::{SavedState, SavedTask};

type Result<T> = std::result::Result<T, OrchestratorError>;

/// A reader of one state directory, for repeated use.
#[derive(Debug)]
pub struct Observer {
    reader: Reader,
    servers: Servers,
    /// The repository that the state file last named, by its root.
    repository: Option<(PathBuf, Repository)>,
    merged: MergedCache,
    /// The integration branch that the settings name.
    set_branch: Option<String>,
}

/// The content of a state directory at one moment.
#[derive(Debug, Clone)]
pub struct Overview {
    pub as_of: Timestamp,
    pub repository: Option<PathBuf>,
    pub integration_branch: Option<String>,
    /// Bosses with workers here, in the order of their first workers.
    pub bosses: Vec<BossOverview>,
    /// Workers that settled long ago and are not among those of the bosses.
    pub in_history: usize,
    /// The repair when the journal was last found damaged or missing.
    pub repaired: Option<String>,
    alive: BTreeSet<ServerId>,
}

#[derive(Debug, Clone)]
pub struct BossOverview {
    pub boss: BossId,
    /// Its directory, if known.
    pub directory: Option<PathBuf>,
    /// A server of it lives.
    pub is_here: bool,
    /// In order of creation.
    pub workers: Vec<WorkerView>,
    /// The usage of all its workers ever, as far as the CLIs report it.
    pub spent: Spent,
}

impl Overview {
    pub fn workers(&self) -> impl Iterator<Item = &WorkerView> {
        self.bosses.iter().flat_map(|boss| &boss.workers)
    }

    /// Its server lives, or it needs none any more.
    pub fn is_led(&self, worker: &Worker) -> bool {
        delivery::is_final(worker) || self.alive.contains(&worker.lease)
    }
}

impl Observer {
    /// Opens a state directory. `None` if it has never held state. `set_branch` is the integration branch that the
    /// settings name.
    pub fn open(state_root: &Path, set_branch: Option<&str>) -> Result<Option<Self>> {
        let set_branch = set_branch.map(str::to_owned);
        let observer = |reader: Reader| {
            let servers = Servers::of(reader.dir().root());
            Self { reader, servers, repository: None, merged: MergedCache::default(), set_branch }
        };
        Ok(Reader::open(state_root)?.map(observer))
    }

    /// Returns which configuration git calls may use, in this repository and in others.
    pub fn trust(&self) -> Trust {
        let own = self.repository.as_ref().map(|(_, it)| it.trust.clone());
        own.unwrap_or_else(|| Trust::recorded(self.state_root(), None))
    }

    pub fn state_root(&self) -> &Path {
        self.reader.dir().root()
    }

    pub fn folder(&self, id: &WorkerId) -> WorkerDir {
        self.reader.folder(id)
    }

    /// Reads the changes and returns the whole state. Cheap if nothing has changed.
    pub fn read(&mut self) -> Result<Overview> {
        self.reader.catch_up()?;
        let registry = self.reader.registry();
        let saved = SavedState::read(&state_dir::state_file(self.state_root()));
        let tasks = saved.by_worker();
        let alive = self.alive();
        let mut bosses: Vec<BossOverview> = Vec::new();
        for worker in registry.workers() {
            let view = self.view(worker, &alive, tasks.get(&worker.id).copied());
            let at = bosses.iter().position(|it| it.boss == worker.boss).unwrap_or_else(|| {
                bosses.push(boss_of(registry, &alive, &worker.boss));
                bosses.len() - 1
            });
            // The registry counts only settled attempts.
            if let Some(live) = &view.live {
                bosses[at].spent.add(so_far(&view.worker, live));
            }
            bosses[at].workers.push(view);
        }
        let repaired = registry.repaired.clone();
        self.find_repository(saved.repository.as_deref());
        let repository = self.repository.as_ref().map(|(_, repository)| repository);
        self.merged.bring_up_to_date(repository, bosses.iter_mut().flat_map(|boss| &mut boss.workers));
        Ok(Overview {
            as_of: Timestamp::now(),
            repository: saved.repository.clone(),
            integration_branch: saved.integration_branch.clone(),
            bosses,
            in_history: self.reader.in_history(),
            repaired,
            alive,
        })
    }

    /// Finds a worker, including in the history, as of the last read. See [`crate::mission::name::Name`].
    pub fn find(&self, name: &str) -> Result<WorkerView> {
        let worker = views::found(self.reader.registry(), name, self.reader.named(name))?;
        let mut view = self.view(&worker, &self.alive(), None);
        self.merged.bring_up_to_date(self.repository.as_ref().map(|(_, it)| it), std::iter::once(&mut view));
        Ok(view)
    }

    /// Opens the repository that the state file names. Git calls use the configuration from before the first worker
    /// there.
    fn find_repository(&mut self, named: Option<&Path>) {
        if named == self.repository.as_ref().map(|(root, _)| &**root) {
            return;
        }
        let own = |root: &Path| own_repository(root, self.state_root()).ok().flatten();
        self.repository = named.and_then(|root| Some((root.to_owned(), own(root)?)));
    }

    /// Returns the wanted workers in the history, oldest first, as of the last read. Git is queried for these only.
    pub fn archived(&self, is_wanted: impl Fn(&Worker) -> bool) -> Vec<WorkerView> {
        let alive = self.alive();
        let wanted = self.reader.archived().filter(|worker| is_wanted(worker));
        let mut views: Vec<WorkerView> = wanted.map(|worker| self.view(&worker, &alive, None)).collect();
        self.merged.bring_up_to_date(self.repository.as_ref().map(|(_, it)| it), views.iter_mut());
        views
    }

    fn alive(&self) -> BTreeSet<ServerId> {
        let servers = self.reader.registry().servers.keys();
        servers.filter(|server| self.servers.is_alive(server)).cloned().collect()
    }

    fn view(&self, worker: &Arc<Worker>, alive: &BTreeSet<ServerId>, task: Option<&SavedTask>) -> WorkerView {
        let registry = self.reader.registry();
        // Only its server records its end. Without a server, its folder knows more than the journal.
        let worker = if worker.status.is_live() && !alive.contains(&worker.lease) {
            self.reader.up_to_date(worker)
        } else {
            Arc::clone(worker)
        };
        let live = worker.status.is_live().then(|| self.live(&worker)).flatten();
        let task = task.filter(|task| task.is_of(worker.shown_status(false)));
        // Without its server, a queued worker starts for no other reason, and the saved one is out of date.
        let task_of_server = task.filter(|_| alive.contains(&worker.lease));
        let waits = task_of_server.and_then(|task| task.reason.as_deref()?.strip_prefix("waits for "));
        WorkerView {
            meant_for: integration_branch::of_worker(self.set_branch.as_deref(), Some(&worker)),
            block: graph::block(registry, &worker),
            waits_for: waits.map(str::to_owned),
            collisions: task.map(|task| task.conflicts_with.clone()).unwrap_or_default(),
            unchecked: task.and_then(|task| task.conflicts_unchecked),
            race: self.race(&worker),
            ..WorkerView::of(worker, live)
        }
    }

    fn live(&self, worker: &Worker) -> Option<LiveStatus> {
        LiveStatus::read(&self.folder(&worker.id).attempt(worker.attempt)).ok().flatten()
    }

    fn race(&self, worker: &Worker) -> Option<RaceView> {
        RaceView::of(worker, |id| {
            let racer = self.reader.find(id.as_str())?;
            let live = if racer.status.is_live() { self.live(&racer) } else { None };
            Some((asking(racer, live.as_ref()), live.map(|live| live.usage)))
        })
    }
}

/// Without its workers.
fn boss_of(registry: &Registry, alive: &BTreeSet<ServerId>, boss: &BossId) -> BossOverview {
    let mut servers = registry.servers.iter().filter(|(_, server)| server.boss == *boss).peekable();
    let directory =
        servers.peek().map(|(_, server)| &server.directory).or_else(|| registry.anonymous.get(boss)).cloned();
    BossOverview {
        boss: boss.clone(),
        directory,
        is_here: servers.any(|(id, _)| alive.contains(id)),
        workers: Vec::new(),
        spent: registry.spent.get(boss).copied().unwrap_or_default(),
    }
}
