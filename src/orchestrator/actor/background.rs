//! Background waits: opened in place of blocking ones, polled by their clients, and ended once. Also the evidence that
//! settlements arrived, in whichever answer.
//!
//! A wait ends when its client polls and there is something to report, so it consumes nothing while its client is away.
//! Its answer is stored before the entry that ends it, both under the journal's lock. A server that is killed in between
//! has answered nothing, so the next one stores its own answer.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::Actor;
use crate::attempt::state_dir::StateDir;
use crate::crash_point::{self, Point};
use crate::mission::background_wait::{self, BackgroundWait};
use crate::mission::delivery::{self, Content, Recorded, Selection};
use crate::mission::entry::Entry;
use crate::mission::id::{BossId, ServerId, WaitId};
use crate::mission::registry::Registry;
use crate::orchestrator::answers::*;
use crate::orchestrator::error::OrchestratorError;
use crate::orchestrator::mailbox::{BegunWait, Reply};
use crate::orchestrator::merged;
use crate::orchestrator::waits::{self, Asked};
use crate::store::wait_answers::{self, WaitAnswerFile};

/// Length of the random end of an id, which makes the id hard to guess.
const SUFFIX: usize = 6;
/// Maximum number of settlements in the answer of a background wait.
const MOST: usize = 4;
const CANCELLED: &str = "the wait was cancelled, and its workers go on: call wait_for_any_worker to wait again";

/// An end that was decided under the journal's lock.
enum Decided {
    Stored(Box<WaitAnswerFile>),
    /// Another server has ended the wait, or delivered the same.
    Changed,
}

impl Actor {
    /// Turns a wait that has nothing to report into a background wait, if it may become one. If that cannot be saved, it
    /// blocks.
    pub(super) fn go_on_in_background(&mut self, ticket: u64, time: Option<Duration>) -> BegunWait {
        let (Some(time), Some(asked)) = (time, self.waits.asked(ticket).cloned()) else {
            return BegunWait::Blocking(ticket);
        };
        if let Some(open) = self.open_wait_for(&asked).filter(|id| self.waits.is_polled(id)) {
            return BegunWait::Waiting(ticket, open);
        }
        match self.open_wait(&asked, time) {
            Ok(wait) => {
                self.waits.take(ticket);
                self.waits.note_poll(&wait.id);
                BegunWait::Background(self.shown_open(&wait))
            }
            Err(error) => {
                tracing::error!(%error, "cannot save a background wait; it blocks");
                BegunWait::Blocking(ticket)
            }
        }
    }

    fn open_wait_for(&self, asked: &Asked) -> Option<WaitId> {
        open_waits_for(self.registry(), asked).next().map(|wait| wait.id.clone())
    }

    /// Opens a wait, which replaces those for the same workers that no client polls any more.
    fn open_wait(&mut self, asked: &Asked, time: Duration) -> Result<BackgroundWait, OrchestratorError> {
        let now = Timestamp::now();
        let deadline = SignedDuration::try_from(time).ok().and_then(|time| now.checked_add(time).ok());
        let deadline = deadline.unwrap_or(Timestamp::MAX);
        let dir = self.state.records.make_dir()?;
        let opened = self.state.records.transact(|registry| {
            let id = new_id(registry, asked, &dir);
            let replaced = open_waits_for(registry, asked).map(|wait| Entry::WaitEnded {
                id: wait.id.clone(),
                settled: Vec::new(),
                blocked: Vec::new(),
                cancelled: Some(format!("replaced by {id}, which reports instead")),
            });
            let workers = asked.selection.named().to_vec();
            let (boss, opened) = (asked.boss.clone(), id.clone());
            let mut entries: Vec<Entry> = replaced.collect();
            entries.push(Entry::WaitOpened { id: opened, boss, workers, deadline });
            (entries, id)
        })?;
        crash_point::at(Point::WaitOpened);
        self.registry().waits.get(&opened).cloned().ok_or(OrchestratorError::ShuttingDown)
    }

    /// Returns the state of a wait for its client. Ends the wait if there is something to report or its time is up, and
    /// writes nothing otherwise.
    pub(super) fn poll_wait(&mut self, id: &WaitId, forms: bool, render: RenderWait) -> WaitState {
        if self.registry().waits.contains_key(id) {
            self.waits.note_poll(id);
        }
        // A second round, if another server has changed the wait meanwhile.
        for _ in 0..2 {
            match self.registry().waits.get(id).cloned() {
                Some(wait) if wait.is_open() => {
                    if let Some(state) = self.poll_open(&wait, forms, render) {
                        return state;
                    }
                }
                wait => return self.ended(id, wait),
            }
        }
        self.registry()
            .waits
            .get(id)
            .filter(|wait| wait.is_open())
            .cloned()
            .map_or(WaitState::Gone, |wait| WaitState::Open(self.shown_open(&wait)))
    }

    fn ended(&self, id: &WaitId, wait: Option<BackgroundWait>) -> WaitState {
        let opened_at = wait.as_ref().map_or(Timestamp::UNIX_EPOCH, |wait| wait.opened_at);
        if let Some(why) = wait.and_then(|wait| wait.end?.cancelled) {
            return WaitState::Cancelled { opened_at, why };
        }
        let stored = self.state.records.dir().and_then(|dir| wait_answers::read(dir, id));
        stored.map_or(WaitState::Gone, |answer| WaitState::Ended(Box::new(answer)))
    }

    /// Returns the state of an open wait. `None`: another server has changed it.
    fn poll_open(&mut self, wait: &BackgroundWait, forms: bool, render: RenderWait) -> Option<WaitState> {
        let asked = Asked { boss: wait.boss.clone(), selection: Selection::of(wait), most: MOST };
        let dir = self.state.records.dir()?.clone();
        let ready = self.waits.report(asked.clone(), &self.state.views(), &self.deliveries);
        let now = Timestamp::now();
        if ready.is_none() && now < wait.deadline {
            return Some(WaitState::Open(self.shown_open(wait)));
        }
        if let Some(ready) = ready.as_ref().filter(|_| forms && now < wait.deadline) {
            let questions = self.waits.for_the_user(&ready.answer, now);
            if !questions.is_empty() {
                return Some(WaitState::Asking { wait: self.shown_open(wait), questions });
            }
        }
        let content = ready.as_ref().map(|ready| ready.content()).unwrap_or_default();
        let mut answer = match &ready {
            Some(ready) => ready.answer.clone(),
            None => self.waits.timed_out(&asked, &self.state.views()),
        };
        // Git would be too slow here, so a merge that was never recorded is not shown.
        let recorded = answer.settled.iter_mut().chain(&mut answer.already_reported);
        recorded.filter(|view| view.worker.integrated.is_some()).for_each(merged::set_unknown_of);
        let answer = render(answer, wait);
        let ending = Ending { wait, asked: &asked, content: &content, answer, now };
        let server = self.state.context.server.clone();
        match self.state.records.transact(|registry| ending.decide(registry, &server, &dir)) {
            Ok(Ok(Decided::Stored(answer))) => {
                crash_point::at(Point::WaitEnded);
                ready.into_iter().for_each(|ready| drop(self.waits.note_reported(ready)));
                Some(WaitState::Ended(answer))
            }
            Ok(Ok(Decided::Changed)) => None,
            Ok(Err(error)) | Err(error) => {
                tracing::error!(%error, "cannot save the end of a background wait; it stays open");
                let progress = format!("cannot save the end of this wait: {error}");
                Some(WaitState::Open(OpenWait { progress, ..self.shown_open(wait) }))
            }
        }
    }

    /// Returns the boss of an open wait that covers this worker. Ids of waits are hard to guess, those of workers are not.
    pub(super) fn boss_of_form(&self, id: &WaitId, worker: &str) -> Option<BossId> {
        let wait = self.registry().waits.get(id).filter(|wait| wait.is_open())?;
        let covered = Selection::of(wait).workers(self.registry(), &wait.boss);
        covered.iter().any(|it| it.id.as_str() == worker).then(|| wait.boss.clone())
    }

    fn shown_open(&self, wait: &BackgroundWait) -> OpenWait {
        let progress = waits::progress_of(&self.views(), &wait.boss, &Selection::of(wait));
        OpenWait { id: wait.id.clone(), opened_at: wait.opened_at, progress }
    }

    /// Cancels a wait if it is open. Clients may repeat this, also after the end.
    pub(super) fn cancel_wait(&mut self, id: &WaitId, reply: Option<Reply<()>>) {
        if self.registry().waits.get(id).is_some_and(BackgroundWait::is_open) {
            let cancelled = self.state.records.transact(|registry| {
                let open = registry.waits.get(id).filter(|wait| wait.is_open());
                let entry = open.map(|wait| Entry::WaitEnded {
                    id: wait.id.clone(),
                    settled: Vec::new(),
                    blocked: Vec::new(),
                    cancelled: Some(CANCELLED.to_owned()),
                });
                (entry.into_iter().collect(), ())
            });
            if let Err(error) = cancelled {
                tracing::error!(%error, "cannot save the cancellation of a background wait; it stays open");
            }
        }
        if let Some(reply) = reply {
            let _ = reply.send(());
        }
    }

    /// Acknowledges the settlements whose receipts the boss returns, even if another server sent them.
    pub(super) fn take_receipts(&mut self, boss: &BossId, receipts: &[String]) {
        if receipts.is_empty() || !self.state.records.is_open() {
            return;
        }
        let entries = |registry: &Registry| (delivery::acknowledge_receipts(registry, boss, receipts), ());
        match self.state.records.transact(entries) {
            Ok(()) => crash_point::at(Point::Acknowledged),
            Err(error) => tracing::error!(%error, "cannot save that settlements arrived; they stay due"),
        }
    }

    pub(super) fn unacknowledged_waits(&self, boss: &BossId) -> Vec<WaitId> {
        delivery::unacknowledged_waits(self.registry(), boss)
    }

    /// Acknowledges the content of background waits whose ends are in a conversation of their boss.
    pub(super) fn note_shown(&mut self, boss: &BossId, waits: &[WaitId]) {
        let entries = |registry: &Registry| (delivery::acknowledge_waits(registry, boss, waits), ());
        match self.state.records.transact(entries) {
            Ok(()) => crash_point::at(Point::Acknowledged),
            Err(error) => tracing::error!(%error, "cannot save that settlements arrived; they stay due"),
        }
    }
}

/// A wait that is to end, and its answer.
struct Ending<'a> {
    wait: &'a BackgroundWait,
    asked: &'a Asked,
    content: &'a Content,
    answer: serde_json::Value,
    now: Timestamp,
}

impl Ending<'_> {
    /// Stores the answer and returns the entry that ends the wait, on the newest registry and under the journal's lock.
    fn decide(
        self,
        registry: &Registry,
        server: &ServerId,
        dir: &StateDir,
    ) -> (Vec<Entry>, Result<Decided, OrchestratorError>) {
        let Self { wait, asked, content, answer, now } = self;
        let id = &wait.id;
        if !registry.waits.get(id).is_some_and(BackgroundWait::is_open) {
            return (Vec::new(), Ok(Decided::Changed));
        }
        let Some(recorded) = content.to_record(registry, server, &asked.boss, &asked.selection) else {
            return (Vec::new(), Ok(Decided::Changed));
        };
        let stored = WaitAnswerFile { opened_at: wait.opened_at, ended_at: now, recorded, answer };
        if let Err(error) = wait_answers::write(dir, id, &stored) {
            return (Vec::new(), Err(error.into()));
        }
        crash_point::at(Point::WaitAnswerStored);
        let Recorded { settled, blocked } = stored.recorded.clone();
        let entry = Entry::WaitEnded { id: id.clone(), settled, blocked, cancelled: None };
        (vec![entry], Ok(Decided::Stored(Box::new(stored))))
    }
}

/// Returns the open waits of a boss for exactly these workers.
fn open_waits_for<'a>(registry: &'a Registry, asked: &'a Asked) -> impl Iterator<Item = &'a BackgroundWait> {
    let mine = registry.waits.values().filter(|wait| wait.is_open() && wait.boss == asked.boss);
    mine.filter(|wait| Selection::of(wait) == asked.selection)
}

/// Returns an id that no wait of this state directory has or had.
fn new_id(registry: &Registry, asked: &Asked, dir: &StateDir) -> WaitId {
    let workers = asked.selection.workers(registry, &asked.boss);
    let open = workers.iter().filter(|worker| !delivery::is_final(worker)).count();
    loop {
        let random = Uuid::new_v4().simple().to_string();
        let id = background_wait::name(asked.selection.named(), open, workers.len(), &random[..SUFFIX]);
        if !registry.waits.contains_key(&id) && !wait_answers::exists(dir, &id) {
            return id;
        }
    }
}
