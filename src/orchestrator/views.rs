//! What the actor tells of its registry without changing anything: workers by name, lists, counts.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::actor::Actor;
use super::answers::*;
use super::error::OrchestratorError;
use super::mail::{Counts, Lookup};
use crate::backend::Enforcement;
use crate::mission::admission::Load;
use crate::mission::id::{BackendName, BossId, WorkerId};
use crate::mission::lifecycle::WorkerStatus;
use crate::mission::name::{Named, closest, meanings};
use crate::mission::outcome::FailureKind;
use crate::mission::registry::{Registry, Worker};
use crate::mission::spec::Place;
use crate::mission::{graph, race};
use crate::process;
use crate::store::journal::Journal;

type Result<T> = std::result::Result<T, OrchestratorError>;

impl Actor {
    pub(super) fn find(&self, name: &str) -> Result<Arc<Worker>> {
        let named = self.journal().map_or(Named::Unknown, |journal| journal.named(name));
        found(self.registry(), name, named)
    }

    pub(super) fn view(&self, worker: &Arc<Worker>) -> WorkerView {
        self.view_in(&self.load(), worker)
    }

    /// Returns a view with a given load, which is the same for many workers.
    pub(super) fn view_in(&self, load: &Load<'_>, worker: &Arc<Worker>) -> WorkerView {
        let live = self.live.get(&worker.id).filter(|_| worker.status.is_live()).cloned();
        let since = |then: Duration| process::monotonic().saturating_sub(then).as_secs();
        let waits_for = self.hold(load, worker).map(|hold| hold.to_string());
        WorkerView {
            meant_for: self.branch_of(worker),
            merge_is_unknown: false,
            elapsed_seconds: live.as_ref().map(|live| since(live.began)),
            idle_seconds: live.as_ref().map(|live| since(live.last_event)),
            live,
            block: graph::block(self.registry(), worker),
            waits_for,
            collisions: self.collisions_of(worker),
            unchecked: self.unchecked_of(worker),
            redelivered: false,
            enforced: self.enforcement(worker),
            budget: self.budget_of(worker),
            race: self.race_view(worker),
            worker: Arc::clone(worker),
        }
    }

    fn race_view(&self, worker: &Worker) -> Option<RaceView> {
        let race = worker.race.as_ref()?;
        let racer = |id: &WorkerId| {
            let racer = self.find(id.as_str()).ok()?;
            let live = self.live.get(id).filter(|_| racer.status.is_live()).map(|live| live.usage);
            Some(RacerView::of(&racer, race::spent(&racer, live)))
        };
        let racers = race.racers.iter().filter_map(racer).collect();
        Some(RaceView { id: race.id.clone(), winner: race.winner.clone(), racers })
    }

    fn enforcement(&self, worker: &Worker) -> Option<Enforcement> {
        let backend = self.context.backends.get(worker.next.backend.as_str()).ok()?;
        Some(backend.enforcement(worker.mission.permissions))
    }

    /// Claude Code keeps to a cost by itself; the supervisor does the rest, where the CLI tells in time.
    fn budget_of(&self, worker: &Worker) -> Option<String> {
        let backend = self.context.backends.get(worker.next.backend.as_str()).ok()?;
        let how = match backend.reports_usage_in_time() {
            true => "enforced while it works",
            false => "enforced: none, the CLI tells what it used only at the end of a turn",
        };
        let (cost, tokens) = (worker.mission.max_cost_usd, worker.mission.max_tokens);
        let limits = [cost.map(|most| format!("max_cost_usd {most}")), tokens.map(|most| format!("max_tokens {most}"))];
        let limits: Vec<String> = limits.into_iter().flatten().collect();
        (!limits.is_empty()).then(|| format!("{} ({how})", limits.join(", ")))
    }

    pub(super) fn list(&self, boss: &BossId, scope: Scope) -> ListAnswer {
        let (mine, others): (Vec<_>, Vec<_>) =
            self.registry().workers().partition(|worker| scope == Scope::All || worker.boss == *boss);
        let load = self.load();
        let workers = mine.into_iter().map(|worker| self.view_in(&load, worker)).collect();
        ListAnswer {
            workers,
            others: others.len(),
            in_history: self.journal().map_or(0, Journal::in_history),
            spent: self.spent(boss),
        }
    }

    pub(super) fn page(&self, boss: &BossId, request: &PageRequest) -> ListPage {
        let (mut statuses, mut shown, mut matching, mut others) = (Vec::new(), Vec::new(), 0, 0);
        for worker in self.registry().workers().rev() {
            if request.scope == Scope::Mine && worker.boss != *boss {
                others += 1;
                continue;
            }
            let blocked = graph::block(self.registry(), worker).is_some();
            let live = self.live.get(&worker.id).filter(|_| worker.status.is_live());
            let stalled = live.is_some_and(|live| live.stalled.is_some());
            statuses.push((worker.status, blocked));
            if (request.shows)(&Glance { worker, blocked, stalled }) {
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
            in_history: self.journal().map_or(0, Journal::in_history),
            spent: self.spent(boss),
        }
    }

    pub(super) fn counts(&self) -> HashMap<BackendName, Counts> {
        let load = self.load();
        let mut counts: HashMap<BackendName, Counts> = HashMap::new();
        for worker in self.registry().workers() {
            let of = counts.entry(worker.next.backend.clone()).or_default();
            of.running += usize::from(worker.status.is_live());
            if worker.status == WorkerStatus::Queued {
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

    pub(super) fn known(&self, requests: Vec<String>) -> HashSet<String> {
        let is_known = |request: &String| self.journal().is_some_and(|journal| journal.knows_request(request));
        requests.into_iter().filter(is_known).collect()
    }

    pub(super) fn lookup(&self, name: Option<&str>) -> Result<Lookup> {
        let worker = name.map(|name| self.find(name)).transpose()?;
        let all = if worker.is_some() { Vec::new() } else { self.all_with_worktrees() };
        Ok(Lookup { integration_branch: worker.as_ref().and_then(|worker| self.branch_of(worker)), worker, all })
    }

    /// Returns the workers of the registry, and those in the history whose worktree may still exist. It reads the whole
    /// history, so it is only for rare requests.
    fn all_with_worktrees(&self) -> Vec<Arc<Worker>> {
        let may_be_there =
            |worker: &Arc<Worker>| matches!(worker.mission.place, Place::Worktree { .. }) && !worker.worktree_removed;
        let archived = self.journal().into_iter().flat_map(Journal::archived).filter(may_be_there);
        archived.chain(self.registry().workers().cloned()).collect()
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
    let known: Vec<&Arc<Worker>> = open.chain(settled).collect();
    if known.is_empty() {
        return None;
    }
    let named: Vec<&str> = known.iter().take(NAMED).map(|worker| worker.id.as_str()).collect();
    let more = known.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Some(format!("{}{more}", named.join(", ")))
}
