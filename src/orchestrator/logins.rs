//! Holding the queue of a backend whose login was lost, until it is back. Those that run end by themselves.
//!
//! The login counts as back when the CLI's own answer, or the files of its login, have changed since (a token that the
//! service refuses may well be one that the CLI believes in), or when a worker of it did well. Where nothing tells, one
//! worker may try after a while.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::actor::Actor;
use super::mail::Ask;
use super::probe::{self, Login};
use crate::mission::entry::{Entry, NextAttempt};
use crate::mission::id::{BackendName, WorkerId};
use crate::mission::lifecycle::WorkerStatus;
use crate::mission::login::{self, Loss};
use crate::mission::registry::Worker;
use crate::mission::{graph, retry};

/// Asking a CLI takes up to 2 s of a processor.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// After so long one worker tries.
const TRY_AFTER: SignedDuration = SignedDuration::from_mins(10);

/// Why nothing new of a backend is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    since: Timestamp,
    pub until: Timestamp,
    /// What those in the queue wait for.
    pub reason: String,
    /// The one that tries whether the login is back.
    trial: Option<WorkerId>,
}

impl Hold {
    pub(super) fn holds(&self, worker: &Worker) -> bool {
        self.trial.as_ref() != Some(&worker.id)
    }
}

/// What this server has seen of the logins that were lost.
pub(super) struct Logins {
    /// Whoever starts a server again may have mended what was lost before.
    begun: Timestamp,
    back: HashMap<BackendName, Timestamp>,
    watched: HashMap<BackendName, Watched>,
}

impl Default for Logins {
    fn default() -> Self {
        Self { begun: Timestamp::now(), back: HashMap::new(), watched: HashMap::new() }
    }
}

struct Watched {
    /// As it was when the loss was noticed.
    first: Option<Login>,
    asked: Instant,
}

impl Actor {
    /// Finds out whose queue is held, and sends those that may go elsewhere.
    pub(super) fn hold_queues(&mut self) {
        let lost = login::lost(self.registry(), |backend| self.logins.back.get(backend).copied());
        self.logins.watched.retain(|backend, _| lost.contains_key(backend));
        let holds = lost.into_iter().map(|(backend, loss)| {
            let hold = self.hold_after(&backend, &loss);
            (backend, hold)
        });
        self.context.set_holds(holds.collect());
        self.divert();
    }

    fn hold_after(&self, backend: &BackendName, loss: &Loss) -> Hold {
        let until = loss.at.checked_add(TRY_AFTER).unwrap_or(Timestamp::MAX);
        let trial = if Timestamp::now() < until { None } else { self.next_of(backend) };
        let login = self.context.backends.get(backend.as_str()).map(|it| it.probe().login_command).unwrap_or_default();
        let why = loss.message.lines().next().unwrap_or_default();
        Hold { since: loss.at, until, reason: format!("{backend} to be logged in again: `{login}` ({why})"), trial }
    }

    /// The one that would start next, if none of this backend runs.
    fn next_of(&self, backend: &BackendName) -> Option<WorkerId> {
        let its = || self.registry().workers().filter(|worker| worker.next.backend == *backend);
        let can_start = |worker: &&Arc<Worker>| {
            let waits = worker.status == WorkerStatus::Queued && worker.cancel.is_none();
            waits && graph::readiness(self.registry(), worker) == graph::Readiness::Ready
        };
        if its().any(|worker| worker.status.is_live()) {
            return None;
        }
        its().filter(can_start).min_by_key(|worker| worker.queued_seq).map(|worker| worker.id.clone())
    }

    /// What waits for a held backend and may go to another one goes there.
    fn divert(&mut self) {
        let server = self.context.server.clone();
        let context = Arc::clone(&self.context);
        let next = move |worker: &Worker| -> Option<NextAttempt> {
            let waits = worker.status == WorkerStatus::Queued && worker.lease == server && worker.cancel.is_none();
            let held = |backend: &BackendName| context.hold_of(backend).is_some();
            retry::instead(worker, held).filter(|_| waits && held(&worker.next.backend))
        };
        let ids: Vec<WorkerId> =
            self.registry().workers().filter(|worker| next(worker).is_some()).map(|worker| worker.id.clone()).collect();
        if ids.is_empty() {
            return;
        }
        let diverted = self.transact(|registry| {
            let entries = ids.into_iter().filter_map(|id| {
                let next = Box::new(next(registry.get(&id)?)?);
                Some(Entry::Amended { worker: id, next })
            });
            (entries.collect(), ())
        });
        if let Err(error) = diverted {
            tracing::error!(%error, "could not save that workers go to another backend; they wait");
        }
    }

    /// Asks the CLIs for which somebody waits, now and then. Called by the clock.
    pub(super) fn look_after_logins(&mut self) {
        let waited_for = |backend: &BackendName| {
            let queued = |worker: &&Arc<Worker>| worker.status == WorkerStatus::Queued;
            self.registry().workers().filter(queued).any(|worker| worker.next.backend == *backend)
        };
        let held: Vec<BackendName> = self.context.held().into_iter().filter(waited_for).collect();
        for backend in held {
            let watched = self.logins.watched.get(&backend);
            if watched.is_some_and(|watched| watched.asked.elapsed() < ASK_EVERY) {
                continue;
            }
            let first = watched.and_then(|watched| watched.first.clone());
            self.logins.watched.insert(backend.clone(), Watched { first, asked: Instant::now() });
            let (context, mailbox) = (Arc::clone(&self.context), self.mailbox.clone());
            self.runtime.spawn(async move {
                if let Some(login) = probe::login(&context, &backend).await {
                    let _ = mailbox.send(Ask::LoginSeen { backend, login });
                }
            });
        }
        if !self.context.held().is_empty() {
            self.hold_queues();
            self.start_what_may();
        }
    }

    pub(super) fn note_login(&mut self, backend: BackendName, login: Login) {
        let was_lost_before = self.context.hold_of(&backend).is_some_and(|hold| hold.since < self.logins.begun);
        let Some(watched) = self.logins.watched.get_mut(&backend) else { return };
        let changed = was_lost_before || watched.first.as_ref().is_some_and(|first| *first != login);
        if changed && login.answer != Some(false) {
            self.logins.watched.remove(&backend);
            self.logins.back.insert(backend, Timestamp::now());
            self.hold_queues();
            self.start_what_may();
        } else if watched.first.is_none() || changed {
            watched.first = Some(login);
        }
    }
}
