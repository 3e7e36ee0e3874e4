//! Backends in backoff: workers that wait for one fail over to their fallback, and a lost login is checked until it is
//! restored. [`backoff::backoffs`] decides which backends are in backoff, and how long.
//!
//! A login counts as restored when the CLI's own answer, or the files of its login, have changed. The CLI may accept a
//! token that the service refuses, so a positive answer alone is no evidence.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::answers::Login;
use super::context::Context;
use super::effect::Effect;
use super::mailbox::Ask;
use super::probe;
use super::views::with_login_command;
use crate::mission::backoff;
use crate::mission::entry::Entry;
use crate::mission::graph::{self, Readiness};
use crate::mission::id::BackendName;
use crate::mission::lifecycle::WorkerStatus;
use crate::mission::outcome::FailureKind;
use crate::mission::registry::{Registry, Worker};
use crate::mission::retry;

/// Interval between queries of a CLI, each of which takes up to 2 s of a processor.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// The lost logins that this server checks.
pub(super) struct Logins {
    /// The start of this server. The user may have logged in again before it.
    begun: Timestamp,
    watched: HashMap<BackendName, Watched>,
}

impl Default for Logins {
    fn default() -> Self {
        Self { begun: Timestamp::now(), watched: HashMap::new() }
    }
}

struct Watched {
    /// The login when the loss was noticed.
    first: Option<Login>,
    asked: Instant,
}

impl Logins {
    /// Moves workers that wait for a backend in backoff to their fallback.
    pub fn fail_over(&mut self, registry: &Registry, context: &Arc<Context>) -> Vec<Effect> {
        let held = backoff::backoffs(registry);
        held.keys().for_each(|backend| context.forget_ready(backend));
        self.watched.retain(|backend, _| held.contains_key(backend));
        if held.is_empty() || failovers(context, registry).is_empty() {
            return Vec::new();
        }
        let context = Arc::clone(context);
        vec![Effect::append("save that workers fail over to another backend", move |registry| {
            failovers(&context, registry)
        })]
    }

    /// Queries the CLIs whose login was lost and for which workers are queued.
    pub fn check(
        &mut self,
        registry: &Registry,
        context: &Arc<Context>,
        mailbox: &mpsc::UnboundedSender<Ask>,
    ) -> Vec<Effect> {
        let is_waited_for = |backend: &BackendName| {
            let queued = |worker: &&Arc<Worker>| worker.status == WorkerStatus::Queued;
            registry.workers().filter(queued).any(|worker| worker.next.backend == *backend)
        };
        let lost = backoff::backoffs(registry).into_values().filter(|held| held.kind == FailureKind::Auth);
        let mut effects = Vec::new();
        for backend in lost.map(|held| held.backend).filter(is_waited_for) {
            let watched = self.watched.get(&backend);
            if watched.is_some_and(|watched| watched.asked.elapsed() < ASK_EVERY) {
                continue;
            }
            let first = watched.and_then(|watched| watched.first.clone());
            self.watched.insert(backend.clone(), Watched { first, asked: Instant::now() });
            let (context, mailbox) = (Arc::clone(context), mailbox.clone());
            effects.push(Effect::spawn(async move {
                if let Some(login) = probe::login(&context, &backend).await {
                    let _ = mailbox.send(Ask::LoginSeen { backend, login });
                }
            }));
        }
        effects
    }

    /// Ends the backoff of a backend whose login has changed since it was lost.
    pub fn note(&mut self, registry: &Registry, backend: BackendName, login: Login) -> Vec<Effect> {
        let held = backoff::backoffs(registry);
        let was_lost_before = held.get(&backend).is_some_and(|held| held.since < self.begun);
        let Some(watched) = self.watched.get_mut(&backend) else { return Vec::new() };
        let changed = was_lost_before || watched.first.as_ref().is_some_and(|first| *first != login);
        if changed && login.answer != Some(false) {
            self.watched.remove(&backend);
            return vec![Effect::note("save that a backend is logged in again", Entry::Answered { backend })];
        }
        if watched.first.is_none() || changed {
            watched.first = Some(login);
        }
        Vec::new()
    }
}

/// Ends the backoff of a backend whose half-open probe was answered by its model.
pub(super) fn note_answer(registry: &Registry, worker: &Worker) -> Vec<Effect> {
    let backend = &worker.next.backend;
    if !backoff::backoffs(registry).get(backend).is_some_and(|held| held.is_probed_by(worker)) {
        return Vec::new();
    }
    vec![Effect::note("save that a backend answers again", Entry::Answered { backend: backend.clone() })]
}

fn failovers(context: &Context, registry: &Registry) -> Vec<Entry> {
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
    context.check_mission(&mission).is_ok()
}
