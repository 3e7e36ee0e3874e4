//! Views of the registry: workers by name, lists, counts. They change nothing.

use std::collections::HashMap;
use std::env;
use std::sync::Arc;

use jiff::Timestamp;

use super::answers::*;
use super::budget::so_far;
use super::collisions::Collisions;
use super::confinement::confinement_of;
use super::context::Context;
use super::error::OrchestratorError;
use super::integration_branch;
use super::machine::Machine;
use super::mailbox::Lookup;
use crate::attempt::status::LiveStatus;
use crate::backend::Enforcement;
use crate::mission::admission::{self, Conditions, Load, WaitReason};
use crate::mission::backoff::Backoff;
use crate::mission::budget::Spent;
use crate::mission::delivery::Selection;
use crate::mission::id::{BackendName, BossId, WorkerId};
use crate::mission::lifecycle::WorkerStatus;
use crate::mission::name::{Named, closest, meanings};
use crate::mission::outcome::FailureKind;
use crate::mission::registry::{Registry, Worker};
use crate::mission::spec::Place;
use crate::mission::{graph, race, words};
use crate::store::journal::Journal;

type Result<T> = std::result::Result<T, OrchestratorError>;

/// Everything that a view shows, as it is now.
#[derive(Clone, Copy)]
pub(super) struct Views<'a> {
    pub context: &'a Context,
    pub registry: &'a Registry,
    /// `None` as long as there is nothing to keep.
    pub journal: Option<&'a Journal>,
    pub live: &'a HashMap<WorkerId, LiveStatus>,
    pub cluster_waits: &'a HashMap<WorkerId, ClusterWait>,
    pub machine: &'a Machine,
    pub collisions: &'a Collisions,
}

impl<'a> Views<'a> {
    pub fn find(&self, name: &str) -> Result<Arc<Worker>> {
        let named = self.journal.map_or(Named::Unknown, |journal| journal.named(name));
        found(self.registry, name, named)
    }

    pub fn named(&self, name: &str) -> Result<WorkerView> {
        Ok(self.view(&self.find(name)?))
    }

    /// Returns the worker, if this boss owns it.
    pub fn mine(&self, boss: &BossId, name: &str, what: &'static str) -> Result<Arc<Worker>> {
        let worker = self.find(name)?;
        if worker.boss == *boss {
            Ok(worker)
        } else {
            Err(OrchestratorError::NotYours { name: worker.id.to_string(), what })
        }
    }

    /// Returns the one worker that a name means. While a race is undecided, the name of its task means none of them.
    pub fn one_of_mine(&self, boss: &BossId, name: &str, what: &'static str) -> Result<Arc<Worker>> {
        let worker = self.mine(boss, name, what)?;
        if !race::is_named_by_task(&worker, name) {
            return Ok(worker);
        }
        let racers: Vec<String> = race::racers(self.registry, &worker).map(|it| it.id.to_string()).collect();
        Err(OrchestratorError::Undecided { name: name.to_owned(), what, racers: racers.join(", ") })
    }

    /// Returns what a wait for these names is about. It includes only workers of this boss, since a notification
    /// reaches one boss.
    pub fn select(&self, boss: &BossId, names: &[String]) -> Result<Selection> {
        if names.is_empty() {
            return Ok(Selection::Mine);
        }
        let mut ids = Vec::new();
        for name in names {
            let worker = self.mine(boss, name, "wait for")?;
            // The name of a task means all racers for it.
            let by_task = race::is_named_by_task(&worker, name);
            let racers = race::racers(self.registry, &worker).filter(|_| by_task).map(|it| it.id.clone());
            for id in std::iter::once(worker.id.clone()).chain(racers) {
                if !ids.contains(&id) {
                    ids.push(id);
                }
            }
        }
        Ok(Selection::Named(ids))
    }

    /// Returns the usage of the running attempts, by boss.
    fn spending(&self) -> HashMap<BossId, Spent> {
        let mut spending: HashMap<BossId, Spent> = HashMap::new();
        for (id, status) in self.live {
            if let Some(worker) = self.registry.get(id).filter(|worker| worker.status.is_live()) {
                spending.entry(worker.boss.clone()).or_default().add(so_far(worker, status));
            }
        }
        spending
    }

    pub fn spent(&self, boss: &BossId) -> Spent {
        admission::spent(self.registry, &self.moment(), boss)
    }

    pub fn moment(&self) -> Conditions {
        Conditions { now: Timestamp::now(), free: self.machine.free(), spending: self.spending() }
    }

    /// Returns the load and the free resources, from which the reasons of waiting workers follow.
    pub fn load(&self) -> Load<'a> {
        Load::of(self.registry, &self.context.limits, self.moment())
    }

    pub fn hold(&self, load: &Load<'_>, worker: &Worker) -> Option<WaitReason> {
        if worker.is_submitted() {
            let waits = self.cluster_waits.get(&worker.id)?;
            return Some(WaitReason::Cluster { why: waits.why.clone(), is_lasting: waits.is_lasting });
        }
        let context = self.context;
        let hold =
            admission::wait_reason(self.registry, load, &context.server, worker, |worker| lacks(context, worker))?;
        Some(match hold {
            WaitReason::Backend(held) => WaitReason::Backend(with_login_command(context, held)),
            other => other,
        })
    }

    pub fn branch_of(&self, worker: &Worker) -> Option<String> {
        let set = self.context.settings.integration_branch.as_deref();
        integration_branch::of_worker(set, Some(worker))
    }

    pub fn view(&self, worker: &Arc<Worker>) -> WorkerView {
        self.view_in(&self.load(), worker)
    }

    /// Returns a view with a given load, which is the same for many workers.
    pub fn view_in(&self, load: &Load<'_>, worker: &Arc<Worker>) -> WorkerView {
        let live = self.live.get(&worker.id).filter(|_| worker.status.is_live()).cloned();
        let hold = self.hold(load, worker);
        WorkerView {
            meant_for: self.branch_of(worker),
            block: graph::block(self.registry, worker),
            needs_change: matches!(hold, Some(WaitReason::Cluster { is_lasting: true, .. })),
            waits_for: hold.map(|hold| hold.to_string()),
            collisions: self.collisions.of(&worker.id).to_vec(),
            unchecked: self.collisions.unchecked(&worker.id),
            enforced: self.enforcement(worker),
            budget: self.budget_of(worker),
            race: self.race_view(worker),
            ..WorkerView::of(Arc::clone(worker), live)
        }
    }

    fn race_view(&self, worker: &Worker) -> Option<RaceView> {
        RaceView::of(worker, |id| {
            let racer = self.find(id.as_str()).ok()?;
            let live = self.live.get(id).filter(|_| racer.status.is_live());
            Some((asking(racer, live), live.map(|live| live.usage)))
        })
    }

    fn enforcement(&self, worker: &Worker) -> Option<Enforcement> {
        let backend = self.context.backends.get(worker.next.backend.as_str()).ok()?;
        let live = self.live.get(&worker.id).filter(|_| worker.status.is_live());
        let is_confined = match confinement_of(worker, live) {
            Some(known) => known.confined().is_some(),
            // It has not started. This is the answer of this machine's kernel.
            None => !worker.status.is_settled() && self.context.confines(worker.mission.permissions),
        };
        Some(if is_confined { Enforcement::Kernel } else { backend.enforcement(worker.mission.permissions) })
    }

    /// Returns the limits and how they are enforced. Claude Code enforces a cost itself; the supervisor enforces the
    /// rest if the CLI reports its usage while it works.
    fn budget_of(&self, worker: &Worker) -> Option<String> {
        let backend = self.context.backends.get(worker.next.backend.as_str()).ok()?;
        let how = if backend.reports_usage_in_time() {
            "enforced while it works"
        } else {
            "enforced: none, the CLI reports its usage only at the end of a turn"
        };
        let (cost, tokens) = (worker.mission.max_cost_usd, worker.mission.max_tokens);
        let limits = [cost.map(|most| format!("max_cost_usd {most}")), tokens.map(|most| format!("max_tokens {most}"))];
        let limits: Vec<String> = limits.into_iter().flatten().collect();
        (!limits.is_empty()).then(|| format!("{} ({how})", limits.join(", ")))
    }

    pub fn list(&self, boss: &BossId, scope: Scope) -> ListAnswer {
        let (mine, others): (Vec<_>, Vec<_>) =
            self.registry.workers().partition(|worker| scope == Scope::All || worker.boss == *boss);
        let load = self.load();
        let workers = mine.into_iter().map(|worker| self.view_in(&load, worker)).collect();
        ListAnswer { workers, others: others.len(), in_history: self.journal.map_or(0, Journal::in_history) }
    }

    pub fn page(&self, boss: &BossId, request: &PageRequest) -> ListPage {
        let (mut statuses, mut shown, mut matching, mut others) = (Vec::new(), Vec::new(), 0, 0);
        for worker in self.registry.workers().rev() {
            if request.scope == Scope::Mine && worker.boss != *boss {
                others += 1;
                continue;
            }
            let blocked = graph::block(self.registry, worker).is_some();
            let live = self.live.get(&worker.id).filter(|_| worker.status.is_live());
            let stalled = live.is_some_and(|live| live.stalled.is_some());
            let status = worker.shown_status(live.is_some_and(LiveStatus::needs_answer));
            statuses.push((status, blocked));
            if (request.shows)(&Summary { worker, status, blocked, stalled }) {
                matching += 1;
                shown.extend((matching <= request.limit).then_some(worker));
            }
        }
        let load = self.load();
        ListPage {
            workers: shown.into_iter().map(|worker| self.view_in(&load, worker)).collect(),
            matching,
            statuses,
            others,
            in_history: self.journal.map_or(0, Journal::in_history),
            spent: self.spent(boss),
        }
    }

    pub fn counts(&self) -> HashMap<BackendName, Counts> {
        let load = self.load();
        let mut counts: HashMap<BackendName, Counts> = HashMap::new();
        for worker in self.registry.workers() {
            let of = counts.entry(worker.next.backend.clone()).or_default();
            let status = worker.shown_status(false);
            of.running += usize::from(status.is_live());
            if status == WorkerStatus::Queued {
                of.queued += 1;
                of.waits_for = of.waits_for.take().or_else(|| Some(self.hold(&load, worker)?.to_string()));
            }
        }
        for (backend, held) in load.backoffs() {
            let counts = counts.entry(backend.clone()).or_default();
            counts.held_until = held.lasts(Timestamp::now()).then_some(held.until);
            counts.login_lost = held.kind == FailureKind::Auth;
        }
        counts
    }

    /// Returns the number of waiting and of running workers of each launcher.
    pub fn jobs(&self) -> HashMap<String, (usize, usize)> {
        let mut jobs: HashMap<String, (usize, usize)> = HashMap::new();
        for worker in self.registry.workers().filter(|worker| worker.status.is_live()) {
            let Some(launcher) = &worker.next.run_on else { continue };
            let (waiting, running) = jobs.entry(launcher.clone()).or_default();
            *(if worker.is_submitted() { waiting } else { running }) += 1;
        }
        jobs
    }

    pub fn lookup(&self, name: Option<&str>) -> Result<Lookup> {
        let worker = name.map(|name| self.find(name)).transpose()?;
        let all = if worker.is_some() { Vec::new() } else { self.all_with_worktrees() };
        Ok(Lookup { integration_branch: worker.as_ref().and_then(|worker| self.branch_of(worker)), worker, all })
    }

    /// Returns the workers of the registry, and those in the history whose worktree may still exist. It reads the whole
    /// history, so it is only for rare requests.
    fn all_with_worktrees(&self) -> Vec<Arc<Worker>> {
        let may_be_there =
            |worker: &Arc<Worker>| matches!(worker.mission.place, Place::Worktree { .. }) && !worker.worktree_removed;
        let archived = self.journal.into_iter().flat_map(Journal::archived).filter(may_be_there);
        archived.chain(self.registry.workers().cloned()).collect()
    }
}

/// Returns the one worker that a name means, or an error that helps to name it.
pub(super) fn found(registry: &Registry, name: &str, named: Named) -> Result<Arc<Worker>> {
    match named {
        Named::One(worker) => Ok(worker),
        Named::Unknown => {
            let (name, close) = (shown(name), closest(registry, name).map(|close| close.to_string()));
            Err(match some_known(registry) {
                Some(known) => OrchestratorError::UnknownWorker { name, close, known },
                None => OrchestratorError::NoWorkers { name },
            })
        }
        Named::Several(found) => {
            Err(OrchestratorError::AmbiguousWorker { name: shown(name), meanings: meanings(&found) })
        }
    }
}

/// Shortens a name for an error message.
fn shown(name: &str) -> String {
    const SHOWN: usize = 80;
    match name.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

/// Names a few existing workers; `None` if there are none.
fn some_known(registry: &Registry) -> Option<String> {
    const NAMED: usize = 3;
    // Open workers first, and the newest first among them.
    let open = registry.workers().rev().filter(|worker| !worker.status.is_settled());
    let settled = registry.workers().rev().filter(|worker| worker.status.is_settled());
    let known: Vec<&str> = open.chain(settled).map(|worker| worker.id.as_str()).collect();
    (!known.is_empty()).then(|| words::first(&known, NAMED))
}

/// Returns what this server lacks to start the worker: its backend, or the keys that the boss's environment had at the
/// request.
pub(super) fn lacks(context: &Context, worker: &Worker) -> Option<String> {
    if context.backends.get(worker.next.backend.as_str()).is_err() {
        return Some(format!("a server whose settings have the backend {}", worker.next.backend));
    }
    let missing = |name: &&String| env::var_os(name).is_none_or(|value| value.is_empty());
    let missing: Vec<&str> = worker.needs.iter().filter(missing).map(String::as_str).collect();
    (!missing.is_empty()).then(|| format!("a server whose environment has {}", missing.join(" and ")))
}

/// Adds the login command to the message of a lost login.
pub(super) fn with_login_command(context: &Context, held: Backoff) -> Backoff {
    let adapter = context.backends.get(held.backend.as_str()).ok().filter(|_| held.kind == FailureKind::Auth);
    match adapter.map(|adapter| adapter.probe().login_command) {
        Some(login) => Backoff { message: format!("`{login}` ({})", held.message), ..held },
        None => held,
    }
}
