//! The one writer: a mailbox loop that decides on the newest state, saves, then answers whoever waits.
//!
//! It runs on a thread of its own, so that taking the journal's lock and writing may block without holding up the
//! protocol. Everything slow (git, starting and following workers) is done by tasks that report back by mail.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use notify::Watcher;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::answers::*;
use super::context::Context;
use super::error::OrchestratorError;
use super::former_state;
use super::integration_branch;
use super::logins::Logins;
use super::machine::Machine;
use super::mail::{Ask, LateMessage, Reply};
use super::place::refuse_moved;
use super::prove;
use super::radar::{Collisions, Radar};
use super::waiters::Waiters;
use crate::attempt::state_dir::{self, StateDir};
use crate::attempt::status::LiveStatus;
use crate::crash_point::{self, Point};
use crate::files::lease::{self, Lease};
use crate::files::{self, FileError};
use crate::git::RepositoryError;
use crate::mission::entry::Entry;
use crate::mission::id::WorkerId;
use crate::mission::registry::{Registry, Worker};
use crate::store::journal::{Journal, Needed};
use crate::store::state_file::{self, Conflict, SavedState};

type Result<T> = std::result::Result<T, OrchestratorError>;

pub(super) struct Actor {
    pub context: Arc<Context>,
    pub runtime: Handle,
    /// The actor's own mailbox, for the tasks that report back.
    pub mailbox: mpsc::UnboundedSender<Ask>,
    /// The open state directory. It is opened when there is something to keep, so that an unused server creates no
    /// folder.
    store: Option<Store>,
    empty: Registry,
    pub live: HashMap<WorkerId, LiveStatus>,
    pub waiters: Waiters,
    /// The tasks that start and follow workers for this server.
    pub following: HashMap<WorkerId, JoinHandle<()>>,
    pub cancels: HashMap<WorkerId, Vec<Reply<Result<CancelAnswer>>>>,
    /// True if this process has created a worker for its own boss.
    pub has_created: bool,
    /// Attempts that were notified that another racer has won.
    pub told_losers: HashSet<(WorkerId, u32)>,
    /// Messages that arrived between the closing of an inbox and the settlement.
    pub late_messages: HashMap<WorkerId, Vec<LateMessage>>,
    pub machine: Machine,
    /// Workers of other servers to which a slot is left, and the time since when.
    pub left_to: HashMap<WorkerId, Instant>,
    /// Attempts that were asked to end because their boss's budget is used up.
    pub stopped: HashSet<(WorkerId, u32)>,
    pub logins: Logins,
    /// The cached conflict checks. `None` while a check is running.
    pub radar: Option<Radar>,
    pub collisions: Collisions,
    taking_away: Option<JoinHandle<()>>,
    state_file_due: Option<Instant>,
    next_look: Instant,
    /// The newest entry whose consequences were handled. A decision may include entries that other servers wrote just
    /// before it, so the state at the time of the request is not enough.
    considered: u64,
}

struct Store {
    dir: StateDir,
    journal: Journal,
    _lease: Lease,
    _watch: Option<notify::RecommendedWatcher>,
}

/// Maximum delay between the journal and the state file.
const STATE_FILE_DELAY: Duration = Duration::from_millis(50);
/// Interval at which a server checks for dead servers, and for changes that the file watch may have missed.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Starts the actor's thread, which also takes over from earlier servers.
pub(super) fn start(context: Arc<Context>) -> Result<mpsc::UnboundedSender<Ask>> {
    // Unbounded: control messages, each caused by a request or by one of a bounded number of workers.
    let (mailbox, asks) = mpsc::unbounded_channel();
    let mut actor = Actor {
        context,
        runtime: Handle::current(),
        mailbox: mailbox.clone(),
        store: None,
        empty: Registry::default(),
        live: HashMap::new(),
        waiters: Waiters::default(),
        following: HashMap::new(),
        cancels: HashMap::new(),
        has_created: false,
        told_losers: HashSet::new(),
        late_messages: HashMap::new(),
        machine: Machine::default(),
        left_to: HashMap::new(),
        stopped: HashSet::new(),
        logins: Logins::default(),
        radar: Some(Radar::default()),
        collisions: Collisions::default(),
        taking_away: None,
        state_file_due: None,
        next_look: Instant::now() + LOOK_EVERY,
        considered: 0,
    };
    if actor.context.has_state() {
        actor.open_store()?;
    }
    // A clock of its own: the server's runtime may go before this thread does.
    let failed = OrchestratorError::Thread;
    let clock = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(failed)?;
    let thread = std::thread::Builder::new().name("actor".to_owned());
    thread.spawn(move || clock.block_on(actor.run(asks))).map_err(failed)?;
    Ok(mailbox)
}

impl Actor {
    async fn run(mut self, mut asks: mpsc::UnboundedReceiver<Ask>) {
        self.take_over();
        if !self.context.visitor {
            self.remove_abandoned_verifications();
        }
        self.after_change();
        loop {
            tokio::select! {
                ask = asks.recv() => match ask {
                    Some(Ask::ShutDown { reply }) => return self.shut_down(reply),
                    Some(ask) => self.handle(ask),
                    None => return,
                },
                () = tokio::time::sleep_until(self.next_timer()) => self.on_timer(),
            }
        }
    }

    fn handle(&mut self, ask: Ask) {
        self.join_if_there();
        // Entries of other servers apply to this one too, even if the file watch has not reported them yet.
        self.look_at_journal();
        // A caller that is gone needs no answer, so the result of each send is dropped.
        match ask {
            Ask::Arrived { boss } => self.note_arrival(&boss),
            Ask::Create { boss, drafts, race, integration_branch, reply } => {
                drop(reply.send(self.create(&boss, drafts, race, integration_branch.as_deref())))
            }
            Ask::RecordedBranch { boss, reply } => drop(reply.send(self.recorded_branch(&boss))),
            Ask::Wait { boss, workers, most, answer, reply } => {
                drop(reply.send(self.begin_wait(&boss, &workers, most, answer)))
            }
            Ask::EndWait { ticket, reply } => drop(reply.send(self.end_wait(ticket))),
            Ask::Sent { ticket } => self.note_sent(ticket),
            Ask::ForgetWait { ticket } => self.forget_wait(ticket),
            Ask::Progress { boss, workers, reply } => drop(reply.send(self.progress(&boss, &workers))),
            Ask::List { boss, scope, reply } => drop(reply.send(self.list(&boss, scope))),
            Ask::Page { boss, request, reply } => drop(reply.send(self.page(&boss, &request))),
            Ask::Get { name, reply } => drop(reply.send(self.find(&name).map(|worker| self.view(&worker)))),
            Ask::Counts { reply } => drop(reply.send(self.counts())),
            Ask::Known { requests, reply } => drop(reply.send(self.known(requests))),
            Ask::Message { boss, name, message, reply } => self.message(&boss, &name, message, reply),
            Ask::Cancel { boss, name, reason, reply } => self.cancel(&boss, &name, &reason, reply),
            Ask::CancelAll { boss, scope, reason, reply } => drop(reply.send(self.cancel_all(&boss, scope, &reason))),
            Ask::Retry { boss, name, request, reply } => drop(reply.send(self.retry(&boss, &name, request))),
            Ask::Record { worker, entry, reply } => drop(reply.send(self.record(&worker, entry))),
            Ask::StateDir { reply } => drop(reply.send(self.make_state_dir())),
            Ask::Lookup { name, reply } => drop(reply.send(self.lookup(name.as_deref()))),
            Ask::Told { worker, attempt, news } => self.told(worker, attempt, news),
            Ask::Radar { radar, found } => self.note_radar(*radar, found),
            Ask::LoginSeen { backend, login } => self.note_login(backend, login),
            Ask::DiskSeen { folder, free_mib } => self.note_disk(folder, free_mib),
            // It was looked at above.
            Ask::JournalChanged | Ask::ShutDown { .. } => {}
        }
        if self.context.visitor {
            self.take_over();
        }
        self.draw_consequences();
    }

    fn draw_consequences(&mut self) {
        if self.registry().seq != self.considered {
            self.after_change();
        }
    }

    /// What follows from any change, whoever made it.
    pub(super) fn after_change(&mut self) {
        self.settle_called_off();
        self.stop_losers();
        self.send_late_messages();
        self.retry_automatically();
        self.divert();
        self.start_what_may();
        self.answer_cancels();
        self.considered = self.registry().seq;
        self.answer_waits();
        self.write_state_file_soon();
    }

    pub(super) fn write_state_file_soon(&mut self) {
        self.state_file_due.get_or_insert_with(|| Instant::now() + STATE_FILE_DELAY);
    }

    fn next_timer(&self) -> Instant {
        self.state_file_due.map_or(self.next_look, |due| due.min(self.next_look))
    }

    fn on_timer(&mut self) {
        let now = Instant::now();
        if self.state_file_due.is_some_and(|due| due <= now) {
            self.write_state_file();
        }
        if self.next_look <= now {
            self.next_look = now + LOOK_EVERY;
            if !self.context.visitor {
                self.miss_state_file();
                self.remove_abandoned_verifications();
                self.look_after_logins();
            }
            self.take_over();
            self.follow_again();
            self.stop_losers();
            self.look_at_radar();
            self.keep_to_budget();
            // There may be room again on the machine, or none any more; a backend may take work again.
            self.start_what_may();
            if self.machine.holds {
                self.answer_waits();
            }
            self.draw_consequences();
        }
    }

    pub(super) fn look_at_journal(&mut self) {
        let Some(store) = &mut self.store else { return };
        if let Err(error) = store.journal.catch_up() {
            tracing::error!(%error, "could not read the journal");
        }
    }

    fn shut_down(mut self, reply: Reply<()>) {
        if self.store.is_some() {
            let server = self.context.server.clone();
            let _ = self.transact(|_| (vec![Entry::ServersGone { servers: vec![server] }], ()));
            crash_point::at(Point::Leaving);
            self.write_state_file();
            if let Some(store) = &self.store {
                let _ = std::fs::remove_file(store.dir.server_lock(&self.context.server));
            }
        }
        let _ = reply.send(());
    }

    /// The newest state that this server has seen.
    pub(super) fn registry(&self) -> &Registry {
        self.store.as_ref().map_or(&self.empty, |store| store.journal.registry())
    }

    /// Decides and saves in one step that no other server can come between.
    pub(super) fn transact<T>(&mut self, decide: impl FnOnce(&Registry) -> (Vec<Entry>, T)) -> Result<T> {
        self.transact_with(&Needed::default(), decide)
    }

    /// The same, for a decision on workers that may have moved into the history: they come back.
    pub(super) fn transact_with<T>(
        &mut self,
        needed: &Needed,
        decide: impl FnOnce(&Registry) -> (Vec<Entry>, T),
    ) -> Result<T> {
        // What lies above a folder that the user named may be made with it.
        if self.store.is_some() || self.context.settings.state_dir.is_none() {
            refuse_moved(self.context.state_root.parent().unwrap_or(&self.context.state_root))?;
        }
        self.open_store()?;
        let Some(store) = &mut self.store else { return Err(OrchestratorError::ShuttingDown) };
        let decided = store.journal.transact_with(Timestamp::now(), needed, decide)?;
        crash_point::at(Point::Decided);
        Ok(decided)
    }

    /// `None` as long as there is nothing to keep.
    pub(super) fn journal(&self) -> Option<&Journal> {
        self.store.as_ref().map(|store| &store.journal)
    }

    pub(super) fn state_dir(&self) -> Option<&StateDir> {
        self.store.as_ref().map(|store| &store.dir)
    }

    /// Another server may have made the folder since this one started.
    fn join_if_there(&mut self) {
        if self.store.is_some() || !self.context.has_state() {
            return;
        }
        match self.open_store() {
            Ok(()) => self.take_over(),
            Err(error) => tracing::error!(%error, "could not open the state directory"),
        }
    }

    fn make_state_dir(&mut self) -> Result<StateDir> {
        self.open_store()?;
        self.state_dir().cloned().ok_or(OrchestratorError::ShuttingDown)
    }

    /// What verifications of integrations left behind whose server is dead.
    fn remove_abandoned_verifications(&mut self) {
        let Some(dir) = self.state_dir().cloned() else { return };
        if !dir.verifications().exists() || self.taking_away.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        self.taking_away = Some(self.runtime.spawn(prove::take_away_left(Arc::clone(&self.context), dir)));
    }

    /// Makes the folder, if need be, and joins the servers that use it.
    fn open_store(&mut self) -> Result<()> {
        if self.store.is_some() {
            return Ok(());
        }
        let context = Arc::clone(&self.context);
        refuse_prepared_state(&context)?;
        let dir = StateDir::open(&context.state_root)?;
        if let Some(repository) = &context.repository
            && dir.root().starts_with(repository.root())
        {
            let excluded = repository.exclude(&format!("{}/", state_dir::NAME));
            excluded.map_err(|error| match error {
                RepositoryError::Exclude { path, source, .. } | RepositoryError::Lock { path, source } => {
                    OrchestratorError::from(FileError::write(&path, source))
                }
                error => OrchestratorError::from(error),
            })?;
        }
        former_state::set_aside(&context, &dir)?;
        make_way_for_state_file(&dir)?;
        if context.visitor {
            // A one-shot client does not check for conflicts, so it uses the results that servers have written down.
            self.collisions = Collisions::told(&SavedState::read(&dir.state_file()));
        }
        let lock = dir.server_lock(&context.server);
        let lease = lease::take(&lock)?.ok_or(OrchestratorError::ShuttingDown)?;
        let journal = Journal::open(&dir.journal(), context.server.clone())?;
        let watch = watch(&dir.journal(), &self.mailbox);
        self.store = Some(Store { dir, journal, _lease: lease, _watch: watch });
        let joined = Entry::ServerJoined { boss: context.boss.clone(), directory: context.directory.clone() };
        let result = self.transact(|_| (vec![joined], ()));
        crash_point::at(Point::Joined);
        if result.is_err() {
            // To the others, what a server that never joined leases is nobody's.
            self.store = None;
        }
        result
    }

    /// Somebody may have deleted it, or put something else in its place.
    fn miss_state_file(&mut self) {
        let Some(store) = &self.store else { return };
        if state_file::is_there(&store.dir.state_file()) {
            return;
        }
        match make_way_for_state_file(&store.dir) {
            Ok(()) => self.state_file_due = self.state_file_due.or_else(|| Some(Instant::now())),
            Err(error) => tracing::warn!(%error, "the state file cannot be written"),
        }
    }

    fn write_state_file(&mut self) {
        self.state_file_due = None;
        let Some(store) = &self.store else { return };
        if self.context.visitor && self.others_live(store) {
            // They know what a visitor never looks at: which branches collide.
            return;
        }
        let repository = self.context.repository.as_ref().map(|repository| repository.root());
        let load = self.load();
        let waits_for = |worker: &Worker| self.hold(&load, worker).map(|hold| hold.to_string());
        // A one-shot client does not check for conflicts, so it keeps the results of the last server.
        let told = if self.context.visitor { SavedState::read(&store.dir.state_file()) } else { SavedState::default() };
        let told = told.by_worker();
        let collides = |worker: &Worker| match told.get(&worker.id) {
            Some(told) if told.status == worker.status.as_str() && worker.integrated.is_none() => {
                (told.conflicts_with.clone(), told.conflicts_unchecked)
            }
            _ => (self.collisions_of(worker).into_iter().map(Conflict::from).collect(), self.unchecked_of(worker)),
        };
        let branch = integration_branch::checked_out_at_a_glance(&self.context);
        let about = state_file::RepositoryInfo { repository, integration_branch: branch.as_deref() };
        let content = state_file::project(store.journal.registry(), about, Timestamp::now(), waits_for, collides);
        if let Err(error) = state_file::write(&store.dir.state_file(), &content) {
            // The journal is complete. The file is written again when there is space.
            tracing::warn!(%error, "could not write the state file");
            self.state_file_due = Some(Instant::now() + LOOK_EVERY);
        }
    }

    fn others_live(&self, store: &Store) -> bool {
        let others = store
            .journal
            .registry()
            .servers
            .iter()
            .filter(|(id, it)| **id != self.context.server && !it.boss.is_one_shot_client());
        others.into_iter().any(|(id, _)| lease::is_held(&store.dir.server_lock(id)))
    }

    fn record(&mut self, worker: &WorkerId, entry: Entry) -> Result<()> {
        let needed = Needed { names: vec![worker.to_string()], ..Needed::default() };
        self.transact_with(&needed, |_| (vec![entry], ()))
    }
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
    match tracked {
        true => Err(OrchestratorError::TrackedState { path: context.state_root.clone() }),
        false => Ok(()),
    }
}

fn make_way_for_state_file(dir: &StateDir) -> Result<()> {
    if let Some(aside) = state_file::make_way(&dir.state_file(), Timestamp::now())? {
        tracing::warn!(path = %aside.display(), "what lay in the state file's place was damaged or no file; it was set aside, and the state file is written anew from the journal");
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
