//! What a server knows for as long as it lives: its settings and places, and what it remembers of its backends. No state
//! of workers.

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
use crate::backend::Backends;
use crate::config::Settings;
use crate::git::{self, Fingerprint, Repository};
use crate::mission::admission::Limits;
use crate::mission::id::{BackendName, BossId, ServerId};
use crate::process::{self, Program};
use crate::store::state_dir;

type Result<T> = std::result::Result<T, OrchestratorError>;

/// How long a backend that was logged in is not asked again.
const READY_FOR: Duration = Duration::from_secs(300);

/// What never changes while the server lives.
pub struct Context {
    pub settings: Settings,
    pub backends: Backends,
    pub directory: PathBuf,
    pub program: Program,
    pub boss: BossId,
    /// Whether `boss` stands for a client that names no session.
    pub anonymous: bool,
    pub server: ServerId,
    /// A command that acts and goes again: it takes nothing over, and leads what it began until somebody else does.
    pub visitor: bool,
    pub repository: Option<Repository>,
    /// The top of the working tree that `directory` lies in; `None` outside of any.
    tree: Option<PathBuf>,
    pub state_root: PathBuf,
    pub limits: Limits,
    /// How many workers this server runs in: 0 for one that a user's CLI has started.
    pub depth: u32,
    /// When a backend was last found ready to work.
    ready: Mutex<HashMap<BackendName, Instant>>,
    pub(super) main_checkout: SharedLook<Fingerprint>,
    /// Git was asked who commits here, and knew.
    has_identity: AtomicBool,
    pub(super) jobs: Jobs,
    pub(super) merged: MergedLook,
}

impl Context {
    pub(super) fn new(startup: Startup, backends: Backends, visitor: bool) -> Result<Self> {
        let Startup { settings, directory, boss, program } = startup;
        let directory = directory.canonicalize().unwrap_or(directory);
        let repository = Repository::discover(&directory).map_err(super::start::refused)?;
        let tree = repository.as_ref().and_then(|_| git::working_tree(&directory));
        let state_root = state_root(settings.state_dir.as_deref(), repository.as_ref(), &directory);
        require_text(&directory)?;
        require_text(&state_root)?;
        let server = ServerId::from(format!("s-{}", Uuid::new_v4().simple()));
        let anonymous = boss.is_none() && !visitor;
        let boss = boss.unwrap_or_else(|| match visitor {
            true => BossId::visitor(&server),
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

/// What is kept of workers names their folders, as JSON, in which nothing but text has a name.
fn require_text(path: &Path) -> Result<()> {
    match path.to_str() {
        Some(_) => Ok(()),
        None => Err(OrchestratorError::NotText { path: path.to_owned() }),
    }
}

impl Context {
    /// The working tree whose branch counts: the one that the server was started in.
    pub(super) fn tree(&self) -> &Path {
        let root = self.repository.as_ref().map(Repository::root);
        self.tree.as_deref().or(root).unwrap_or(&self.directory)
    }

    fn worktree_places(&self) -> Option<Around<'_>> {
        let repository = self.repository.as_ref()?;
        Some(Around { repository, state_root: &self.state_root, template: self.settings.worktrees_dir.as_deref() })
    }

    /// Where new worktrees go. Of no use outside of a repository.
    pub(super) fn worktrees(&self) -> PathBuf {
        let folder = self.worktree_places().map(worktree_places::worktrees_folder);
        folder.unwrap_or_else(|| self.state_root.join(state_dir::WORKTREES))
    }

    /// Takes away the folder of worktrees in which this one lay, if it was the last.
    pub(super) fn remove_empty_folder(&self, worktree: &Path) {
        let places = self.worktree_places().map(worktree_places::all_folders).unwrap_or_default();
        let Some((repository, folder)) = self.repository.as_ref().zip(worktree.parent()) else { return };
        if places.iter().any(|place| place == folder)
            && let Err(error) = git::remove_empty_folder(repository, folder)
        {
            tracing::warn!(%error, folder = %folder.display(), "an empty folder stays");
        }
    }

    /// Where the server was started, relative to the top of its working tree; empty at the top.
    pub(super) fn subfolder(&self) -> &Path {
        self.directory.strip_prefix(self.tree()).unwrap_or(Path::new(""))
    }

    /// Folders outside the repository in which worktrees may lie.
    pub(super) fn allowed_roots(&self) -> Vec<PathBuf> {
        let own = self.worktree_places().map(worktree_places::all_folders).unwrap_or_default();
        self.settings.worktree_roots.iter().cloned().chain([self.state_root.clone()]).chain(own).collect()
    }

    /// Whether there is something to take over. Should the journal be gone, the workers' folders tell what was in it.
    pub(super) fn has_state(&self) -> bool {
        ["journal", "workers"].iter().any(|folder| self.state_root.join(folder).exists())
    }

    /// Found ready to work a short while ago.
    pub(super) fn was_ready(&self, backend: &BackendName) -> bool {
        let ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        ready.get(backend).is_some_and(|at| at.elapsed() < READY_FOR)
    }

    pub(super) fn note_ready(&self, backend: BackendName) {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).insert(backend, Instant::now());
    }

    /// It was not ready after all.
    pub(super) fn forget_ready(&self, backend: &BackendName) {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).remove(backend);
    }

    /// Refuses where git does not know who commits. Only a yes is remembered.
    pub(super) fn require_identity(&self) -> Result<()> {
        if !self.has_identity.load(Ordering::Relaxed) {
            self.repository()?.identity().map_err(super::start::refused)?;
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
