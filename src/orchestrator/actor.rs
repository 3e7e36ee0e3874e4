//! The only writer: a mailbox loop that decides on the newest state, saves, then answers.
//!
//! Components own their state and return [`Effect`]s; the actor applies them, in the order of [`Actor::after_change`].
//! It runs on a thread of its own, since taking the journal's lock and writing may block. Everything slow (git,
//! starting and following workers) is done by tasks that report back by mail.
//!
//! Its submodules handle the requests of bosses, both kinds of waits, the reports of tasks, takeovers and wakes.
//! Nothing else has a method here.

mod background;
mod blocking_waits;
mod closed;
mod reports;
mod requests;
mod takeover;
mod unfollowed;
mod wakes;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::admission::{self, Admission, retry_automatically};
use super::answers::*;
use super::cancellations::Cancellations;
use super::collisions::Collisions;
use super::context::Context;
use super::effect::{Append, Effect};
use super::error::OrchestratorError;
use super::mailbox::{Ask, LateMessage, Reply};
use super::records::Records;
use super::scan::Scans;
use super::state_file::StateFileTimer;
use super::user_events::UserEvents;
use super::views::Views;
use super::waits::{self, Waits};
use super::{settle, start, verify};
use crate::attempt::status::LiveStatus;
use crate::crash_point::{self, Point};
use crate::mission::delivery::Deliveries;
use crate::mission::entry::Entry;
use crate::mission::graph;
use crate::mission::id::{BossId, WorkerId};
use crate::mission::registry::{Registry, Worker};
use crate::mission::spec::ContextSource;
use crate::store::journal::{Journal, Needed};
use crate::store::state_file::SavedState;

type Result<T> = std::result::Result<T, OrchestratorError>;

/// Interval at which a server checks for dead servers, and for changes that the file watch may have missed.
const CHECK_EVERY: Duration = Duration::from_secs(2);

pub(super) struct Actor {
    state: State,
    runtime: Handle,
    /// The actor's own mailbox, for the tasks that report back.
    mailbox: mpsc::UnboundedSender<Ask>,
    waits: Waits,
    deliveries: Deliveries,
    cancellations: Cancellations,
    /// Messages that arrived between the closing of an inbox and the settlement.
    late_messages: HashMap<WorkerId, Vec<LateMessage>>,
    /// The tasks that start and follow workers for this server.
    following: HashMap<WorkerId, JoinHandle<()>>,
    /// True if this process has created a worker for its own boss.
    has_created: bool,
    state_file: StateFileTimer,
    user_events: UserEvents,
    /// Runs of the client's command that wakes a boss. They end with this server.
    wakes: JoinSet<()>,
    /// The task that removes worktrees of abandoned verifications.
    cleanup: Option<JoinHandle<()>>,
    next_check: Instant,
    /// The newest entry whose consequences were handled. A decision may include entries that other servers wrote just
    /// before it, so the state at the time of the request is not enough.
    considered: u64,
}

/// The parts of the state that views show.
struct State {
    context: Arc<Context>,
    records: Records,
    live: HashMap<WorkerId, LiveStatus>,
    /// Why submitted workers of this server have not begun.
    cluster_waits: HashMap<WorkerId, ClusterWait>,
    admission: Admission,
    scans: Scans,
}

impl State {
    fn views(&self) -> Views<'_> {
        Views {
            context: &self.context,
            registry: self.records.registry(),
            journal: self.records.journal(),
            live: &self.live,
            cluster_waits: &self.cluster_waits,
            machine: self.admission.machine(),
            collisions: self.scans.found(),
        }
    }
}

/// Starts the actor's thread, which also takes over from earlier servers.
pub(super) fn start(context: Arc<Context>) -> Result<mpsc::UnboundedSender<Ask>> {
    // Unbounded: control messages, each caused by a request or by one of a bounded number of workers.
    let (mailbox, asks) = mpsc::unbounded_channel();
    let mut records = Records::new(Arc::clone(&context), mailbox.clone());
    if context.has_state() {
        closed::open_at_start(&mut records, &context)?;
    }
    // A one-shot client does not check for conflicts, so it uses the results that servers have written down.
    let written = records.dir().filter(|_| context.is_one_shot).map(|dir| SavedState::read(&dir.state_file()));
    let scans = Scans::new(written.map_or_else(Collisions::default, |written| Collisions::read(&written)));
    let user_events = UserEvents::start(&context, records.registry());
    let actor = Actor {
        state: State {
            context,
            records,
            live: HashMap::new(),
            cluster_waits: HashMap::new(),
            admission: Admission::default(),
            scans,
        },
        runtime: Handle::current(),
        mailbox: mailbox.clone(),
        waits: Waits::default(),
        deliveries: Deliveries::default(),
        cancellations: Cancellations::default(),
        late_messages: HashMap::new(),
        following: HashMap::new(),
        has_created: false,
        state_file: StateFileTimer::default(),
        user_events,
        wakes: JoinSet::new(),
        cleanup: None,
        next_check: Instant::now() + CHECK_EVERY,
        considered: 0,
    };
    // A clock of its own: the server's runtime may end before this thread does.
    let failed = OrchestratorError::Thread;
    let clock = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(failed)?;
    let thread = std::thread::Builder::new().name("actor".to_owned());
    thread.spawn(move || clock.block_on(actor.run(asks))).map_err(failed)?;
    Ok(mailbox)
}

impl Actor {
    async fn run(mut self, mut asks: mpsc::UnboundedReceiver<Ask>) {
        self.take_over();
        if !self.is_one_shot() {
            self.remove_abandoned_verifications();
        }
        self.after_change();
        loop {
            tokio::select! {
                ask = asks.recv() => match ask {
                    Some(Ask::ShutDown { reply }) => return self.shut_down(reply).await,
                    Some(ask) => self.handle(ask),
                    None => return,
                },
                () = tokio::time::sleep_until(self.next_timer()) => self.on_timer(),
            }
        }
    }

    fn handle(&mut self, ask: Ask) {
        if !self.join_if_there() {
            // That answers its caller: see `ActorHandle::unanswered`.
            return drop(ask);
        }
        // Entries of other servers apply to this one too, even if the file watch has not reported them yet.
        self.state.records.catch_up();
        self.dispatch(ask);
        if self.is_one_shot() {
            self.take_over();
        }
        self.consider_changes();
    }

    /// Handles one message. A caller that is gone needs no answer, so the result of each send is dropped.
    fn dispatch(&mut self, ask: Ask) {
        match ask {
            Ask::Arrived { boss } => _ = self.note_arrival(&boss),
            Ask::ArrivedFrom { boss, thread, woken_turn } => self.note_arrival_from(&boss, thread, woken_turn),
            Ask::RequestWake { order, reply } => drop(reply.send(self.request_wake(order))),
            Ask::Woke { thread, failure } => self.note_run(thread, failure),
            Ask::WakeFailure { reply } => drop(reply.send(self.registry().wakes.failure.clone())),
            Ask::Create { boss, drafts, kind, reply } => self.check_batch(boss, drafts, kind, reply),
            Ask::Register(batch) => self.register_batch(*batch),
            Ask::RecordedBranch { boss, reply } => drop(reply.send(self.recorded_branch(&boss))),
            Ask::Wait { boss, workers, receipts, most, background, answer, reply } => {
                self.take_receipts(&boss, &receipts);
                let begun = self.begin_wait(&boss, &workers, most, answer);
                drop(reply.send(begun.map(|ticket| self.go_on_in_background(ticket, background))))
            }
            Ask::PollWait { id, forms, render, reply } => drop(reply.send(self.poll_wait(&id, forms, render))),
            Ask::BossOfForm { id, worker, reply } => drop(reply.send(self.boss_of_form(&id, &worker))),
            Ask::CancelWait { id, reply } => self.cancel_wait(&id, reply),
            Ask::UnacknowledgedWaits { boss, reply } => drop(reply.send(self.unacknowledged_waits(&boss))),
            Ask::WaitsShown { boss, waits, reply } => {
                self.note_shown(&boss, &waits);
                let _ = reply.send(());
            }
            Ask::EndWait { ticket, reply } => drop(reply.send(self.end_wait(ticket))),
            Ask::Sent { ticket } => self.note_sent(ticket),
            Ask::ForgetWait { ticket } => self.forget_wait(ticket),
            Ask::Progress { boss, workers, reply } => drop(reply.send(waits::progress(&self.views(), &boss, &workers))),
            Ask::List { boss, scope, reply } => drop(reply.send(self.views().list(&boss, scope))),
            Ask::Page { boss, request, reply } => drop(reply.send(self.views().page(&boss, &request))),
            Ask::Get { name, reply } => drop(reply.send(self.views().named(&name))),
            Ask::Jobs { reply } => drop(reply.send(self.views().jobs())),
            Ask::Counts { reply } => drop(reply.send(self.views().counts())),
            Ask::Message { boss, name, message, reply } => self.message(&boss, &name, message, reply),
            Ask::Answer { boss, name, request, by, reply } => {
                drop(reply.send(self.answer_question(&boss, &name, request, by)))
            }
            Ask::Cancel { boss, name, reason, reply } => self.cancel(&boss, &name, &reason, reply),
            Ask::CancelAll { boss, scope, reason, reply } => drop(reply.send(self.cancel_all(&boss, scope, &reason))),
            Ask::Retry { boss, name, request, reply } => drop(reply.send(self.retry(&boss, &name, request))),
            Ask::Record { worker, entry, reply } => drop(reply.send(self.record(&worker, entry))),
            Ask::StateDir { reply } => drop(reply.send(self.state.records.make_dir())),
            Ask::Lookup { name, reply } => drop(reply.send(self.views().lookup(name.as_deref()))),
            Ask::Reported { worker, attempt, report } => self.reported(worker, attempt, report),
            Ask::Scanned { cache, found } => {
                let effects = self.state.scans.note(*cache, found);
                self.apply(effects);
            }
            Ask::LoginSeen { backend, login } => {
                let State { admission, records, .. } = &mut self.state;
                let effects = admission.note_login(records.registry(), backend, login);
                self.apply(effects);
            }
            Ask::DiskSeen { folder, free_mib } => {
                self.state.admission.note_disk(folder, free_mib);
                self.admit_again();
            }
            // The journal was read before.
            Ask::JournalChanged | Ask::ShutDown { .. } => {}
        }
    }

    fn consider_changes(&mut self) {
        if self.registry().seq != self.considered {
            self.after_change();
        }
    }

    /// Handles the consequences of any change, by this server or another one, in this order:
    ///
    /// 1. Workers that were cancelled in the queue settle first, so that none of them is admitted below.
    /// 2. Losers of races are stopped, since they hold slots.
    /// 3. Late messages, automatic retries and failovers change the queue, so they come before admission.
    /// 4. Admission starts what may start.
    /// 5. Cancellations are answered: the workers have settled, and nothing above can open them again in this round.
    /// 6. The changes count as handled before the waits are answered. The entry that records an answer changes nothing
    ///    that steps 1 to 5 depend on, and would otherwise cause another round.
    /// 7. Waits are answered last, so that an answer shows the queue as it is now.
    /// 8. Bosses that have ended their turn are woken, unless a wait has just been answered with what is due.
    /// 9. The state file and the events for the user follow, since they are allowed to be late.
    fn after_change(&mut self) {
        self.step(|actor| settle::settle_cancelled(actor.registry(), actor.state.records.dir()));
        self.stop_losers();
        self.send_late_messages();
        self.step(|actor| retry_automatically(actor.registry(), &actor.state.context));
        self.step(|actor| {
            let State { admission, records, context, .. } = &mut actor.state;
            admission.fail_over(records.registry(), context)
        });
        self.start_what_may();
        self.step(|actor| {
            let records = &actor.state.records;
            actor.cancellations.answer(records.registry(), records.dir())
        });
        self.considered = self.registry().seq;
        self.answer_waits();
        self.wake_bosses();
        self.state_file.request();
        self.note_user_events();
    }

    fn note_user_events(&mut self) {
        let State { context, records, live, .. } = &self.state;
        self.user_events.note(context, records, live);
    }

    fn next_timer(&self) -> Instant {
        self.state_file.due().map_or(self.next_check, |due| due.min(self.next_check))
    }

    fn on_timer(&mut self) {
        let now = Instant::now();
        if self.state_file.due().is_some_and(|due| due <= now) {
            self.write_state_file();
        }
        if self.next_check <= now {
            self.next_check = now + CHECK_EVERY;
            self.check();
        }
    }

    /// Checks what no entry reports, in this order:
    ///
    /// 0. Whether this server may still write, or may again: see `closed`.
    /// 1. Files that the user or another program may have removed, and leftovers of dead servers.
    /// 2. Takeovers, which give this server more workers to follow, and the status of those that others follow.
    /// 3. Running workers: losers, collisions, budgets.
    /// 4. Admission, since the machine may have room again, and a backend may accept work again.
    /// 5. Wakes that failed a while ago.
    /// 6. The consequences of all that.
    fn check(&mut self) {
        if !self.stays_open() {
            return;
        }
        if !self.is_one_shot() {
            self.state_file.check(&self.state.records);
            self.remove_abandoned_verifications();
            self.step(|actor| {
                let State { admission, records, context, .. } = &mut actor.state;
                admission.check_logins(records.registry(), context, &actor.mailbox)
            });
        }
        self.take_over();
        self.follow_again();
        if !self.is_one_shot() {
            self.read_unfollowed();
        }
        self.stop_losers();
        self.scan_for_collisions();
        self.stop_over_budget();
        self.admit_again();
        self.wake_bosses();
        self.consider_changes();
    }

    fn step(&mut self, component: impl FnOnce(&mut Self) -> Vec<Effect>) {
        let effects = component(self);
        self.apply(effects);
    }

    /// Applies effects in the order in which a component returned them. A component that saves and answers returns the
    /// entry first, so an answer never precedes its entry.
    fn apply(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Append(append) => self.append(append),
                Effect::Reply(reply, answer) => drop(reply.send(Ok(answer))),
                Effect::Post { worker, by, instruction } => {
                    if let Err(error) = self.post(&worker, by, instruction) {
                        tracing::error!(worker = %worker.id, %error, "cannot notify a supervisor; retrying");
                        self.cancellations.not_notified(&worker);
                    }
                }
                Effect::Spawn(task) => drop(self.runtime.spawn(task)),
                Effect::WriteState => self.state_file.request(),
            }
        }
    }

    /// An entry that cannot be saved is decided again with the next change: the state on disk is unchanged.
    fn append(&mut self, append: Append) {
        let Append { decide, purpose, crash_point } = append;
        let saved = self.state.records.transact(|registry| (decide(registry), ()));
        if let Some(point) = crash_point {
            crash_point::at(point);
        }
        if let Err(error) = saved {
            tracing::error!(%error, "cannot {purpose}");
        }
    }

    /// Takes workers out of the queue, and starts each in a task of its own.
    fn start_what_may(&mut self) {
        let State { admission, records, context, .. } = &mut self.state;
        admission.survey(records.registry(), context, &self.mailbox);
        let moment = self.state.views().moment();
        let State { admission, records, context, .. } = &mut self.state;
        // Most changes admit no worker, so the lock is taken only if this one seems to.
        if !admission.admit(records.registry(), context, moment.clone()).is_empty() {
            let admitted = records.transact(|registry| {
                let ids = admission.admit(registry, context, moment);
                let workers = ids.iter().filter_map(|id| registry.get(id));
                let entries =
                    workers.map(|worker| Entry::Starting { worker: worker.id.clone(), attempt: worker.attempt + 1 });
                (entries.collect(), ids)
            });
            match admitted {
                Ok(ids) => {
                    if !ids.is_empty() {
                        crash_point::at(Point::Admitted);
                    }
                    ids.iter().for_each(|id| self.start_worker(id));
                }
                Err(error) => return tracing::error!(%error, "cannot save which workers start; they stay queued"),
            }
        }
        let is_held = admission::is_held_by_machine(&self.views());
        let effects = self.state.admission.note_hold(is_held);
        self.apply(effects);
    }

    /// Admits after a change of the machine, which no entry reports. A wait may have to report that it is full.
    fn admit_again(&mut self) {
        self.start_what_may();
        if self.state.admission.is_held() {
            self.answer_waits();
        }
    }

    fn start_worker(&mut self, id: &WorkerId) {
        let Some(worker) = self.registry().get(id).cloned() else { return };
        self.state.admission.note_started(&worker);
        self.state.live.remove(id);
        self.state.cluster_waits.remove(id);
        let branch = self.views().branch_of(&worker);
        // The full name, since a tag of the same name may be another commit.
        let integration_branch = branch.map(|branch| format!("refs/heads/{branch}"));
        let needed = worker.mission.depends_on.iter().filter_map(|task| self.registry().task(task));
        let integrated = needed.filter(|worker| worker.integrated.is_some()).cloned().collect();
        let Some(dir) = self.state.records.dir().map(|dir| dir.worker(id)) else { return };
        let order = start::StartOrder {
            reports: self.reports(&worker),
            bases: graph::bases(self.registry(), &worker, integration_branch.as_deref()),
            integration_branch,
            integrated,
            attempt_dir: dir.attempt(worker.attempt),
            worker_dir: dir,
            worker,
        };
        let task = start::start(Arc::clone(&self.state.context), self.mailbox.clone(), order);
        self.following.insert(id.clone(), self.runtime.spawn(task));
    }

    /// Returns the workers whose reports are context of this one, if its attempt needs them.
    fn reports(&self, worker: &Worker) -> Vec<start::ReportOrder> {
        let sources = worker.mission.context_from.iter().filter(|_| worker.next.takes_context());
        let order = |source: &ContextSource| {
            let from = graph::source(self.registry(), source).cloned();
            let last = from.as_ref().and_then(|from| Some((&from.id, from.last()?.attempt)));
            let dir = last.zip(self.state.records.dir()).map(|((id, attempt), dir)| dir.worker(id).attempt(attempt));
            start::ReportOrder { source: source.clone(), from, dir }
        };
        sources.map(order).collect()
    }

    fn stop_losers(&mut self) {
        let State { records, context, .. } = &self.state;
        let effects = self.cancellations.stop_losers(records.registry(), &context.server);
        self.apply(effects);
    }

    fn stop_over_budget(&mut self) {
        let effects = self.cancellations.stop_over_budget(&self.state.views());
        self.apply(effects);
    }

    fn scan_for_collisions(&mut self) {
        let State { scans, records, context, .. } = &mut self.state;
        let effects = scans.check(records.registry(), context, &self.mailbox);
        self.apply(effects);
    }

    async fn shut_down(mut self, reply: Reply<()>) {
        if self.state.records.is_open() {
            self.state.records.leave();
            self.write_state_file();
            self.state.records.remove_lock();
        }
        // Each ends its program, since only this server enforces the time limit.
        self.wakes.shutdown().await;
        self.user_events.finish().await;
        let _ = reply.send(());
    }

    fn is_one_shot(&self) -> bool {
        self.state.context.is_one_shot
    }

    /// Returns the newest state that this server has seen.
    fn registry(&self) -> &Registry {
        self.state.records.registry()
    }

    fn views(&self) -> Views<'_> {
        self.state.views()
    }

    /// Removes the worktrees of verifications whose server is dead.
    fn remove_abandoned_verifications(&mut self) {
        let Some(dir) = self.state.records.dir().cloned() else { return };
        if !dir.verifications().exists() || self.cleanup.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let context = Arc::clone(&self.state.context);
        self.cleanup = Some(self.runtime.spawn(verify::remove_abandoned(context, dir)));
    }

    fn write_state_file(&mut self) {
        self.state.records.keep_open();
        self.state_file.write(&self.state.records, &self.state.views());
    }

    fn record(&mut self, worker: &WorkerId, entry: Entry) -> Result<()> {
        let needed = Needed { names: vec![worker.to_string()], ..Needed::default() };
        self.state.records.transact_with(&needed, |_| (vec![entry], ()))
    }

    /// Returns the branch that this boss's workers recorded. An inherited boss whose workers have all settled starts
    /// over, with `None`.
    fn recorded_branch(&self, boss: &BossId) -> Option<String> {
        let (registry, context) = (self.registry(), &self.state.context);
        let is_inherited = context.anonymous && *boss == context.boss && !self.has_created;
        let is_open = |worker: &Worker| worker.boss == *boss && !worker.status.is_settled();
        let recorded = registry.integration_branches.get(boss).cloned();
        recorded.filter(|_| !is_inherited || registry.workers().any(|worker| is_open(worker)))
    }

    fn knows_request(&self, request: &str) -> bool {
        self.state.records.journal().is_some_and(|journal: &Journal| journal.knows_request(request))
    }
}
