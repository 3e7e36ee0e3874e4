//! Data that a server keeps for its lifetime: settings, paths, and facts about its backends. It holds no state of
//! workers.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::clusters::Clusters;
use super::error::OrchestratorError;
use super::merged::MergedCache;
use super::own_repository::with_recorded_trust;
use super::place::{refuse_moved, state_root};
use super::single_flight::SingleFlight;
use super::worktree_places::{self, Around};
use crate::attempt::servers::{Owner, Servers};
use crate::attempt::state_dir;
use crate::backend::Backends;
use crate::config::Settings;
use crate::files::FileError;
use crate::git::{self, Checkout, Fingerprint, Repository, Trust};
use crate::mission::admission::{Floors, Limits};
use crate::mission::budget::Budget;
use crate::mission::id::{BackendName, BossId, ServerId};
use crate::process::{self, Program};

type Result<T> = std::result::Result<T, OrchestratorError>;

/// Time for which a backend that was logged in is not checked again.
const READY_FOR: Duration = Duration::from_secs(300);

/// The place and the boss of a server that starts.
#[derive(Debug, Clone)]
pub struct Startup {
    pub settings: Settings,
    /// The directory that the client started the server in.
    pub directory: PathBuf,
    /// `None` if the client names no session. The directory then stands for the boss.
    pub boss: Option<BossId>,
    /// Our own program, to start supervisors with.
    pub program: PathBuf,
}

/// The constants of a running server, and its caches.
pub struct Context {
    pub settings: Settings,
    pub backends: Backends,
    pub directory: PathBuf,
    pub program: Program,
    pub boss: BossId,
    /// True if `boss` stands for a client that names no session.
    pub anonymous: bool,
    pub server: ServerId,
    /// True for a one-shot client: it takes over nothing, and owns the leases of what it began until another server
    /// takes over.
    pub is_one_shot: bool,
    pub repository: Option<Repository>,
    /// Which configuration git calls may use, in this repository and in others.
    pub(super) trust: Trust,
    /// The root of the working tree that contains `directory`. `None` outside any.
    tree: Option<PathBuf>,
    pub state_root: PathBuf,
    /// The servers of the state directory.
    pub(super) servers: Servers,
    pub limits: Limits,
    /// Number of workers that this server is nested in: 0 if a user's CLI has started it.
    pub depth: u32,
    pub(super) caches: Caches,
    /// The server on another host because of which the state directory stays closed, or why it is not known.
    owner: Mutex<std::result::Result<Option<Owner>, Arc<FileError>>>,
    pub(super) clusters: Clusters,
}

/// Answers of git and of CLIs that hold for a while. All other fields of a context are constants.
#[derive(Default)]
pub(super) struct Caches {
    /// Time at which each backend was last found ready.
    ready: Mutex<HashMap<BackendName, Instant>>,
    pub main_checkout: SingleFlight<Fingerprint>,
    /// True if git has found the identity of the committer.
    has_identity: AtomicBool,
    /// True if it was checked whether to suggest a setup command.
    pub suggested_setup: AtomicBool,
    pub merged: MergedCache,
}

impl Context {
    pub(super) fn new(startup: Startup, backends: Backends, is_one_shot: bool) -> Result<Self> {
        let Startup { settings, directory, boss, program } = startup;
        let directory = directory.canonicalize().unwrap_or(directory);
        let repository = Repository::discover(&directory, &Trust::nothing())?;
        let tree = repository.as_ref().and_then(|_| git::working_tree(&directory));
        let state_root = state_root(settings.state_dir.as_deref(), repository.as_ref(), &directory);
        require_text(&directory)?;
        require_text(&state_root)?;
        let repository = repository.map(|it| with_recorded_trust(it, &state_root));
        let trust = repository.as_ref().map_or_else(|| Trust::recorded(&state_root, None), |it| it.trust.clone());
        let server = ServerId::from(format!("s-{}", Uuid::new_v4().simple()));
        let anonymous = boss.is_none() && !is_one_shot;
        let boss = boss
            .unwrap_or_else(|| if is_one_shot { BossId::one_shot_client(&server) } else { BossId::anonymous(&server) });
        let limits = limits(&settings);
        let clusters = Clusters::of(&settings, &state_root);
        let depth = process::inherited_tag().map_or(0, |tag| process::depth_of(&tag));
        Ok(Self {
            settings,
            backends,
            directory,
            program: Program::at(program),
            boss,
            anonymous,
            server,
            is_one_shot,
            repository,
            tree,
            trust,
            servers: Servers::of(&state_root),
            state_root,
            limits,
            depth,
            caches: Caches::default(),
            owner: Mutex::new(Ok(None)),
            clusters,
        })
    }
}

/// Refuses a path that is not UTF-8: the records of workers name folders in JSON, which cannot represent it.
fn require_text(path: &Path) -> Result<()> {
    match path.to_str() {
        Some(_) => Ok(()),
        None => Err(OrchestratorError::NotText { path: path.to_owned() }),
    }
}

impl Context {
    /// Returns the working tree that the server was started in. Its branch is the one that counts.
    pub(super) fn tree(&self) -> &Path {
        let root = self.repository.as_ref().map(Repository::root);
        self.tree.as_deref().or(root).unwrap_or(&self.directory)
    }

    /// Returns the same working tree for calls of git.
    pub(super) fn checkout(&self) -> Checkout {
        Checkout::new(self.tree(), &self.trust)
    }

    /// Returns a worker's directory for calls of git.
    pub(super) fn checkout_of(&self, directory: &Path) -> Checkout {
        match &self.repository {
            Some(repository) => repository.at(directory),
            None => Checkout::new(directory, &self.trust),
        }
    }

    fn around<'a>(&'a self, repository: &'a Repository) -> Around<'a> {
        Around { repository, state_root: &self.state_root, template: self.settings.worktrees_dir.as_deref() }
    }

    /// Returns the folder for new worktrees. It is of no use outside a repository.
    pub(super) fn worktrees(&self) -> PathBuf {
        let folder = self.repository.as_ref().map(|repository| self.worktrees_of(repository));
        folder.unwrap_or_else(|| self.state_root.join(state_dir::WORKTREES))
    }

    /// Returns the folder for new worktrees of any repository.
    pub(super) fn worktrees_of(&self, repository: &Repository) -> PathBuf {
        worktree_places::worktrees_folder(self.around(repository))
    }

    /// Removes the folder of worktrees that contained this one, if it is now empty.
    pub(super) fn remove_empty_folder(&self, repository: &Repository, worktree: &Path) {
        let places = worktree_places::all_folders(self.around(repository));
        let Some(folder) = worktree.parent() else { return };
        if places.iter().any(|place| place == folder)
            && let Err(error) = git::remove_empty_folder(repository, folder)
        {
            tracing::warn!(%error, folder = %folder.display(), "an empty folder stays");
        }
    }

    /// Returns where the server was started, relative to the root of its working tree. Empty at the root.
    pub(super) fn subfolder(&self) -> &Path {
        self.directory.strip_prefix(self.tree()).unwrap_or(Path::new(""))
    }

    /// Returns the folders outside the repository that may contain its worktrees.
    pub(super) fn allowed_roots(&self, repository: &Repository) -> Vec<PathBuf> {
        let own = worktree_places::all_folders(self.around(repository));
        self.settings.worktree_roots.iter().cloned().chain([self.state_root.clone()]).chain(own).collect()
    }

    /// Returns whether there is state to take over. If the journal is missing, the workers' folders hold its content.
    pub(super) fn has_state(&self) -> bool {
        ["journal", "workers"].iter().any(|folder| self.state_root.join(folder).exists())
    }

    /// Refuses if a server on another host owns the state directory, or may own it. That is checked now, and remembered.
    pub(super) fn refuse_foreign_owner(&self) -> Result<()> {
        let owner = self.servers.owner_elsewhere().map_err(Arc::new);
        *self.owner.lock().unwrap_or_else(PoisonError::into_inner) = owner;
        self.foreign_owner().map_or(Ok(()), Err)
    }

    /// Returns the refusal because of a server on another host, as of the last check.
    pub(super) fn foreign_owner(&self) -> Option<OrchestratorError> {
        let path = self.state_root.clone();
        let Owner { role, host, is_alive } = match &*self.owner.lock().unwrap_or_else(PoisonError::into_inner) {
            Ok(owner) => owner.clone()?,
            Err(source) => return Some(OrchestratorError::UnknownOwner { path, source: Arc::clone(source) }),
        };
        let who = role.as_str();
        Some(if is_alive {
            OrchestratorError::ForeignOwner { path, who, host }
        } else {
            OrchestratorError::WatchedOwner { path, who, host }
        })
    }

    /// Returns whether the backend was found ready a short while ago.
    pub(super) fn was_ready(&self, backend: &BackendName) -> bool {
        let ready = self.caches.ready.lock().unwrap_or_else(PoisonError::into_inner);
        ready.get(backend).is_some_and(|at| at.elapsed() < READY_FOR)
    }

    pub(super) fn note_ready(&self, backend: BackendName) {
        self.caches.ready.lock().unwrap_or_else(PoisonError::into_inner).insert(backend, Instant::now());
    }

    /// Notes that the backend was not ready after all.
    pub(super) fn forget_ready(&self, backend: &BackendName) {
        self.caches.ready.lock().unwrap_or_else(PoisonError::into_inner).remove(backend);
    }

    /// Refuses where git does not know who commits. Only a yes is remembered.
    pub(super) fn require_identity(&self) -> Result<()> {
        if !self.caches.has_identity.load(Ordering::Relaxed) {
            self.repository()?.identity()?;
            self.caches.has_identity.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    pub(super) fn repository(&self) -> Result<&Repository> {
        let missing = || OrchestratorError::NoRepository { path: self.directory.clone() };
        let repository = self.repository.as_ref().ok_or_else(missing)?;
        refuse_moved(repository.root())?;
        Ok(repository)
    }
}

/// Number of files that the server must be able to open beside those of workers that start: journal, clients, git.
const MIN_FREE_FILES: u64 = 24;

/// Returns the number of workers that may run at the same time.
pub fn worker_limit(settings: &Settings) -> usize {
    limits(settings).total
}

/// Returns the limits on workers. The default is one for each GiB of memory: a CLI takes 0.2 to 0.6 GiB, and builds and
/// tests take the rest.
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
    let per_launcher = settings.launchers.iter().map(|(name, launcher)| (name.clone(), launcher.max_jobs as usize));
    Limits { total, per_backend, per_launcher: per_launcher.collect(), floors, budget }
}
