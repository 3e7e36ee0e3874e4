//! Backends that take no work just now: what waits for one goes to its fallback, and a lost login is watched until it is
//! back. Who is held, and for how long, is [`backoff::backoffs`]; those that run end by themselves.
//!
//! A login counts as back when the CLI's own answer, or the files of its login, have changed since (a token that the
//! service refuses may well be one that the CLI believes in).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::actor::Actor;
use super::context::Context;
use super::mail::Ask;
use super::probe::{self, Login};
use crate::mission::backoff::{self, Backoff};
use crate::mission::entry::Entry;
use crate::mission::graph::{self, Readiness};
use crate::mission::id::BackendName;
use crate::mission::lifecycle::WorkerStatus;
use crate::mission::outcome::FailureKind;
use crate::mission::registry::{Registry, Worker};
use crate::mission::retry;

/// Asking a CLI takes up to 2 s of a processor.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// What this server has seen of the logins that were lost.
pub(super) struct Logins {
    /// Whoever starts a server again may have mended what was lost before.
    begun: Timestamp,
    watched: HashMap<BackendName, Watched>,
}

impl Default for Logins {
    fn default() -> Self {
        Self { begun: Timestamp::now(), watched: HashMap::new() }
    }
}

struct Watched {
    /// As it was when the loss was noticed.
    first: Option<Login>,
    asked: Instant,
}

impl Actor {
    /// What waits for a backend that takes no work now, and may go to another one, goes there.
    pub(super) fn divert(&mut self) {
        let held = backoff::backoffs(self.registry());
        held.keys().for_each(|backend| self.context.forget_ready(backend));
        self.logins.watched.retain(|backend, _| held.contains_key(backend));
        let context = Arc::clone(&self.context);
        if held.is_empty() || diversions(&context, self.registry()).is_empty() {
            return;
        }
        if let Err(error) = self.transact(|registry| (diversions(&context, registry), ())) {
            tracing::error!(%error, "could not save that workers go to another backend; they wait");
        }
    }

    /// A worker that was started to try whether its backend takes work again has had an answer of its model.
    pub(super) fn note_answer(&mut self, worker: &Worker) {
        let backend = &worker.next.backend;
        if backoff::backoffs(self.registry()).get(backend).is_some_and(|held| held.is_probed_by(worker)) {
            self.note(Entry::Answered { backend: backend.clone() });
        }
    }

    /// Asks the CLIs for which somebody waits, now and then. Called by the clock.
    pub(super) fn look_after_logins(&mut self) {
        let waited_for = |backend: &BackendName| {
            let queued = |worker: &&Arc<Worker>| worker.status == WorkerStatus::Queued;
            self.registry().workers().filter(queued).any(|worker| worker.next.backend == *backend)
        };
        let lost = backoff::backoffs(self.registry()).into_values().filter(|held| held.kind == FailureKind::Auth);
        let lost: Vec<BackendName> = lost.map(|held| held.backend).filter(waited_for).collect();
        for backend in lost {
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
    }

    pub(super) fn note_login(&mut self, backend: BackendName, login: Login) {
        let held = backoff::backoffs(self.registry());
        let was_lost_before = held.get(&backend).is_some_and(|held| held.since < self.logins.begun);
        let Some(watched) = self.logins.watched.get_mut(&backend) else { return };
        let changed = was_lost_before || watched.first.as_ref().is_some_and(|first| *first != login);
        if changed && login.answer != Some(false) {
            self.logins.watched.remove(&backend);
            self.note(Entry::Answered { backend });
        } else if watched.first.is_none() || changed {
            watched.first = Some(login);
        }
    }
}

fn diversions(context: &Context, registry: &Registry) -> Vec<Entry> {
    let held = backoff::backoffs(registry);
    let mut usable: HashMap<BackendName, bool> = HashMap::new();
    let waiting = registry.workers().filter(|worker| {
        let waits = worker.status == WorkerStatus::Queued && worker.cancel.is_none();
        waits && worker.lease == context.server && !worker.mission.fallback_backends.is_empty()
    });
    let failed_over = waiting.filter_map(|worker| {
        let now = held.get(&worker.next.backend)?;
        if graph::readiness(registry, worker) != Readiness::Ready {
            return None;
        }
        for backend in &worker.mission.fallback_backends {
            let find = || probe::find_program(context, backend).is_ok();
            usable.entry(backend.clone()).or_insert_with(find);
        }
        let takes = |backend: &BackendName| usable.get(backend) == Some(&true) && can_take(context, worker, backend);
        let next = retry::failover(worker, |backend| held.contains_key(backend) || !takes(backend))?;
        let why = format!("{} instead of waiting for {}", next.backend, with_login_command(context, now.clone()));
        Some(Entry::FailedOver { worker: worker.id.clone(), next: Box::new(next), reason: why })
    });
    failed_over.collect()
}

fn can_take(context: &Context, worker: &Worker, backend: &BackendName) -> bool {
    let mut mission = worker.mission.clone();
    (mission.backend, mission.model, mission.effort) = (backend.clone(), None, None);
    context.backends.get(backend.as_str()).is_ok_and(|adapter| adapter.check(&mission).is_ok())
}

/// Of a lost login it is said how to mend it.
pub(super) fn with_login_command(context: &Context, held: Backoff) -> Backoff {
    let adapter = context.backends.get(held.backend.as_str()).ok().filter(|_| held.kind == FailureKind::Auth);
    match adapter.map(|adapter| adapter.probe().login_command) {
        Some(login) => Backoff { message: format!("`{login}` ({})", held.message), ..held },
        None => held,
    }
}
