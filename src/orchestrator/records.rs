//! The open state directory of a server: its journal, its lease, and the watch for entries of other servers. It is
//! opened when there is something to keep, so an unused server creates no folder. It decides nothing.

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use notify::Watcher;
use tokio::sync::mpsc;

use super::context::Context;
use super::error::OrchestratorError;
use super::former_state;
use super::mailbox::Ask;
use super::place::refuse_moved;
use crate::attempt::servers::Heartbeat;
use crate::attempt::state_dir::{self, StateDir};
use crate::crash_point::{self, Point};
use crate::files::lease::{self, Lease};
use crate::files::{self, FileError};
use crate::git::RepositoryError;
use crate::mission::entry::Entry;
use crate::mission::name::Named;
use crate::mission::registry::{Registry, Worker};
use crate::store::journal::{Journal, Needed};
use crate::store::state_file;

type Result<T> = std::result::Result<T, OrchestratorError>;

pub(super) struct Records {
    context: Arc<Context>,
    mailbox: mpsc::UnboundedSender<Ask>,
    open: Option<Open>,
    empty: Registry,
}

struct Open {
    dir: StateDir,
    journal: Journal,
    _lease: Lease,
    /// Shows servers on other hosts that this one lives.
    heartbeat: Option<Heartbeat>,
    _watch: Option<notify::RecommendedWatcher>,
}

impl Records {
    pub fn new(context: Arc<Context>, mailbox: mpsc::UnboundedSender<Ask>) -> Self {
        Self { context, mailbox, open: None, empty: Registry::default() }
    }

    /// Returns the newest state that this server has seen.
    pub fn registry(&self) -> &Registry {
        self.open.as_ref().map_or(&self.empty, |open| open.journal.registry())
    }

    /// Returns `None` as long as there is nothing to keep.
    pub fn journal(&self) -> Option<&Journal> {
        self.open.as_ref().map(|open| &open.journal)
    }

    pub fn dir(&self) -> Option<&StateDir> {
        self.open.as_ref().map(|open| &open.dir)
    }

    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Resolves a name to a worker, also to one in the history.
    pub fn find(&self, name: &str) -> Result<Arc<Worker>> {
        let named = self.journal().map_or(Named::Unknown, |journal| journal.named(name));
        super::views::found(self.registry(), name, named)
    }

    /// Decides and appends in one step, between which no other server can append.
    pub fn transact<T>(&mut self, decide: impl FnOnce(&Registry) -> (Vec<Entry>, T)) -> Result<T> {
        self.transact_with(&Needed::default(), decide)
    }

    /// Does the same for a decision on workers that may be in the history: they are restored first.
    pub fn transact_with<T>(
        &mut self,
        needed: &Needed,
        decide: impl FnOnce(&Registry) -> (Vec<Entry>, T),
    ) -> Result<T> {
        // The parents of a folder that the user named may be created with it.
        if self.open.is_some() || self.context.settings.state_dir.is_none() {
            refuse_moved(self.context.state_root.parent().unwrap_or(&self.context.state_root))?;
        }
        self.keep_open();
        self.open()?;
        let Some(open) = &mut self.open else { return Err(OrchestratorError::ShuttingDown) };
        let decided = open.journal.transact_with(Timestamp::now(), needed, decide)?;
        crash_point::at(Point::Decided);
        Ok(decided)
    }

    /// Applies entries that other servers have appended.
    pub fn catch_up(&mut self) {
        let Some(open) = &mut self.open else { return };
        if let Err(error) = open.journal.catch_up() {
            tracing::error!(%error, "cannot read the journal");
        }
    }

    /// Creates the folder if necessary, and joins the servers that use it.
    pub fn open(&mut self) -> Result<()> {
        if self.open.is_some() {
            return Ok(());
        }
        let context = Arc::clone(&self.context);
        context.refuse_foreign_owner()?;
        refuse_prepared_state(&context)?;
        let dir = StateDir::open(&context.state_root)?;
        exclude_from_git(&context, &dir)?;
        former_state::set_aside(&context, &dir)?;
        make_way_for_state_file(&dir)?;
        let heartbeat = announce(&context)?;
        let lock = dir.server_lock(&context.server);
        let lease = lease::take(&lock)?.ok_or(OrchestratorError::ShuttingDown)?;
        let journal = Journal::open(&dir.journal(), context.server.clone())?;
        let watch = watch(&dir.journal(), &self.mailbox);
        self.open = Some(Open { dir, journal, _lease: lease, heartbeat, _watch: watch });
        let joined = Entry::ServerJoined { boss: context.boss.clone(), directory: context.directory.clone() };
        let result = self.transact(|_| (vec![joined], ()));
        crash_point::at(Point::Joined);
        if result.is_err() {
            // To other servers, a lease of a server that never joined has no owner.
            self.open = None;
        }
        result
    }

    /// Shows servers on other hosts that this one lives. Closes the state directory if a server on another host may
    /// have given this one up.
    pub fn keep_open(&mut self) {
        let heartbeat = self.open.as_mut().and_then(|open| open.heartbeat.as_mut());
        if heartbeat.is_some_and(|heartbeat| !heartbeat.keep()) {
            tracing::error!("this server stood still for so long that another host may have taken over");
            self.open = None;
        }
    }

    /// Creates the directory if necessary, for work outside the actor.
    pub fn make_dir(&mut self) -> Result<StateDir> {
        self.open()?;
        self.dir().cloned().ok_or(OrchestratorError::ShuttingDown)
    }

    /// Records that this server leaves.
    pub fn leave(&mut self) {
        let server = self.context.server.clone();
        let _ = self.transact(|_| (vec![Entry::ServersGone { servers: vec![server] }], ()));
        crash_point::at(Point::Leaving);
    }

    /// Removes the files that show that this server lives, after everything is written.
    pub fn remove_lock(&mut self) {
        if let Some(open) = &mut self.open {
            open.heartbeat = None;
            self.context.servers.remove(&self.context.server);
        }
    }

    /// Returns whether another server is alive. One-shot clients do not count.
    pub fn has_other_servers(&self) -> bool {
        let Some(open) = &self.open else { return false };
        let mut others = open.journal.registry().servers.iter();
        others.any(|(id, server)| {
            *id != self.context.server && !server.boss.is_one_shot_client() && self.context.servers.is_alive(id)
        })
    }
}

/// Announces this server to other hosts. Two that open the state directory at the same moment see each other, and both
/// give way.
fn announce(context: &Context) -> Result<Option<Heartbeat>> {
    let heartbeat = context.servers.announce(&context.server)?;
    if heartbeat.is_some() {
        context.refuse_foreign_owner()?;
        context.servers.forget_dead(&context.server);
    }
    Ok(heartbeat)
}

/// Refuses a prepared state directory: an untrusted repository must not redirect writes or supply missions to start. A
/// folder that the user named is accepted.
fn refuse_prepared_state(context: &Context) -> Result<()> {
    if context.settings.state_dir.is_some() {
        return Ok(());
    }
    files::refuse_no_folder(&context.state_root)?;
    let tracked = match &context.repository {
        Some(repository) => repository.tracks(state_dir::NAME)?,
        None => false,
    };
    if tracked { Err(OrchestratorError::TrackedState { path: context.state_root.clone() }) } else { Ok(()) }
}

fn exclude_from_git(context: &Context, dir: &StateDir) -> Result<()> {
    let Some(repository) = context.repository.as_ref().filter(|it| dir.root().starts_with(it.root())) else {
        return Ok(());
    };
    repository.exclude(&format!("{}/", state_dir::NAME)).map_err(|error| match error {
        RepositoryError::Exclude { path, source, .. } | RepositoryError::Lock { path, source } => {
            OrchestratorError::from(FileError::write(&path, source))
        }
        error => OrchestratorError::from(error),
    })
}

/// Sets aside what is in the place of the state file and is damaged, or no file.
pub(super) fn make_way_for_state_file(dir: &StateDir) -> Result<()> {
    if let Some(aside) = state_file::make_way(&dir.state_file(), Timestamp::now())? {
        tracing::warn!(path = %aside.display(), "the state file was damaged or not a file; it was set aside and rewritten from the journal");
    }
    Ok(())
}

/// Notifies the actor when another server has appended. `None` if watching is not available, and then the regular check
/// applies.
fn watch(folder: &Path, mailbox: &mpsc::UnboundedSender<Ask>) -> Option<notify::RecommendedWatcher> {
    let mailbox = mailbox.downgrade();
    let on_event = move |event: notify::Result<notify::Event>| {
        let written = event.is_ok_and(|event| event.kind.is_modify() || event.kind.is_create());
        if let Some(mailbox) = mailbox.upgrade().filter(|_| written) {
            let _ = mailbox.send(Ask::JournalChanged);
        }
    };
    let mut watcher = notify::recommended_watcher(on_event).ok()?;
    watcher.watch(folder, notify::RecursiveMode::NonRecursive).ok()?;
    Some(watcher)
}
