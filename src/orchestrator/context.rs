//! Data that a server keeps for its lifetime: settings, paths, and facts about its backends. It holds no state of
//! workers.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::error::OrchestratorError;
use super::handle::Startup;
use super::jobs::Jobs;
use super::merged::MergedLook;
use super::place::{refuse_moved, state_root};
use super::shared_look::SharedLook;
use super::worktree_places::{self, Around};
use crate::attempt::state_dir;
use crate::backend::Backends;
use crate::config::Settings;
use crate::git::{self, Fingerprint, Repository};
use crate::mission::admission::Limits;
use crate::mission::id::{BackendName, BossId, ServerId};
use crate::process::{self, Program};

type Result<T> = std::result::Result<T, OrchestratorError>;

/// Time for which a backend that was logged in is not checked again.
const READY_FOR: Duration = Duration::from_secs(300);

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
    pub visitor: bool,
    pub repository: Option<Repository>,
    /// The root of the working tree that contains `directory`. `None` outside any.
    tree: Option<PathBuf>,
    pub state_root: PathBuf,
    pub limits: Limits,
    /// Number of workers that this server is nested in: 0 if a user's CLI has started it.
    pub depth: u32,
    /// Time at which each backend was last found ready.
    ready: Mutex<HashMap<BackendName, Instant>>,
    pub(super) main_checkout: SharedLook<Fingerprint>,
    /// True if git has found the identity of the committer.
    has_identity: AtomicBool,
    pub(super) jobs: Jobs,
    pub(super) merged: MergedLook,
}

impl Context {
    pub(super) fn new(startup: Startup, backends: Backends, visitor: bool) -> Result<Self> {
        let Startup { settings, directory, boss, program } = startup;
        let directory = directory.canonicalize().unwrap_or(directory);
        let repository = Repository::discover(&directory)?;
        let tree = repository.as_ref().and_then(|_| git::working_tree(&directory));
        let state_root = state_root(settings.state_dir.as_deref(), repository.as_ref(), &directory);
        require_text(&directory)?;
        require_text(&state_root)?;
        let server = ServerId::from(format!("s-{}", Uuid::new_v4().simple()));
        let anonymous = boss.is_none() && !visitor;
        let boss = boss.unwrap_or_else(|| match visitor {
            true => BossId::one_shot_client(&server),
            false => BossId::anonymous(&server),
        });
        let limits = super::schedule::limits(&settings);
        let depth = process::inherited_tag().map_or(0, |tag| process::depth_of(&tag));
        Ok(Self {
            settings,
            backends,
            directory,
            program: Program::at(program),
            boss,
            anonymous,
            server,
            visitor,
            repository,
            tree,
            state_root,
            limits,
            depth,
            ready: Mutex::default(),
            main_checkout: SharedLook::default(),
            has_identity: AtomicBool::new(false),
            jobs: Jobs::default(),
            merged: MergedLook::default(),
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

    /// Returns whether the backend was found ready a short while ago.
    pub(super) fn was_ready(&self, backend: &BackendName) -> bool {
        let ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        ready.get(backend).is_some_and(|at| at.elapsed() < READY_FOR)
    }

    pub(super) fn note_ready(&self, backend: BackendName) {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).insert(backend, Instant::now());
    }

    /// Notes that the backend was not ready after all.
    pub(super) fn forget_ready(&self, backend: &BackendName) {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).remove(backend);
    }

    /// Refuses where git does not know who commits. Only a yes is remembered.
    pub(super) fn require_identity(&self) -> Result<()> {
        if !self.has_identity.load(Ordering::Relaxed) {
            self.repository()?.identity()?;
            self.has_identity.store(true, Ordering::Relaxed);
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
