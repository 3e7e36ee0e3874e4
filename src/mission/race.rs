//! Races: the same task given to several workers, of which the first to do it well wins. Pure.
//!
//! A race is decided by the journal's own order: the first settlement in it that qualifies wins, and in taking in that
//! line every registry calls off the others too. So there is nothing to decide twice, no step between the decision and
//! its consequences, and no server that could be missing for it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::entry::Brief;
use super::hint::{Advice, Hint};
use super::id::{RaceId, WorkerId};
use super::lifecycle::{Ending, WorkerStatus};
use super::name::Name;
use super::outcome::{Changes, Usage};
use super::registry::{Registry, Worker};
use super::retry;
use super::spec::{Mission, Permissions};

/// The state of a worker's race. The decision is stored with each racer and never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Race {
    pub id: RaceId,
    /// All of them, this worker too, in the order in which they were asked for.
    pub racers: Vec<WorkerId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub winner: Option<WorkerId>,
    /// It was begun again after the race was decided, and is a worker like any other since.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_over_for_it: bool,
}

impl Race {
    pub fn new(id: RaceId, racers: Vec<WorkerId>) -> Self {
        Self { id, racers, winner: None, is_over_for_it: false }
    }
}

/// How a race stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Somebody may still win.
    On,
    Won(WorkerId),
    /// Nobody won and nobody runs any more, with each racer's reason. A retry puts it on again.
    Lost(String),
}

/// Whether this outcome wins a race that is not decided. Where nothing was to be verified, it must have changed
/// something, if it was allowed to.
pub fn qualifies(mission: &Mission, brief: &Brief) -> bool {
    let may_change = mission.permissions != Permissions::ReadOnly;
    let proven = mission.verify_command.is_some() || !may_change || is_change(&brief.changes);
    brief.status == Ending::Completed && proven
}

fn is_change(changes: &Changes) -> bool {
    changes.commits > 0 || changes.files_changed > 0 || changes.uncommitted > 0
}

/// All of its race that the registry has, with itself; none for a worker that does not race.
pub fn racers<'a>(registry: &'a Registry, worker: &'a Worker) -> impl Iterator<Item = &'a Arc<Worker>> {
    let race = worker.race.as_ref();
    race.into_iter()
        .flat_map(|race| &race.racers)
        .filter_map(|id| registry.get(id))
        .filter(move |racer| racer.race.as_ref().map(|race| &race.id) == race.map(|race| &race.id))
}

/// `None` for a worker that does not race.
pub fn standing(registry: &Registry, worker: &Worker) -> Option<Standing> {
    let race = worker.race.as_ref()?;
    if let Some(winner) = &race.winner {
        return Some(Standing::Won(winner.clone()));
    }
    match racers(registry, worker).all(|racer| is_final(racer)) {
        true => Some(Standing::Lost(reasons(registry, worker))),
        false => Some(Standing::On),
    }
}

/// Returns whether the worker races and no racer has won yet.
pub fn is_undecided(worker: &Worker) -> bool {
    worker.race.as_ref().is_some_and(|race| race.winner.is_none())
}

/// Returns whether a name means the task of an undecided race and not the id of this racer.
pub fn is_named_by_task(worker: &Worker, name: &str) -> bool {
    is_undecided(worker) && worker.task().as_str() == name.trim() && !Name::new(name).is_id_of(worker)
}

/// Returns whether another racer has won and this one was not retried since.
pub fn has_lost(worker: &Worker) -> bool {
    worker
        .race
        .as_ref()
        .is_some_and(|race| !race.is_over_for_it && race.winner.as_ref().is_some_and(|winner| *winner != worker.id))
}

/// The race's winner, if it is another.
pub fn lost_to(worker: &Worker) -> Option<&WorkerId> {
    worker.race.as_ref()?.winner.as_ref().filter(|winner| **winner != worker.id)
}

/// What is to be known by whoever takes its work for the task's.
pub fn note_on_loser(worker: &Worker) -> Option<String> {
    let winner = lost_to(worker)?;
    Some(format!(
        "{} is not the winner of its race: that is {winner}, and what depends on the task is built on that",
        worker.id
    ))
}

/// Its end by itself is no news: others run on, or have won. It is told with the next news that is some.
pub fn ends_quietly(registry: &Registry, worker: &Worker) -> bool {
    has_lost(worker) || (is_undecided(worker) && standing(registry, worker) == Some(Standing::On))
}

/// Why the boss has to decide about a task for which racers ran: nobody did it. Whom it called off itself, all of them,
/// it need not be told.
pub fn block(registry: &Registry, worker: &Worker) -> Option<Advice> {
    let called_off = |racer: &Arc<Worker>| racer.status == WorkerStatus::Settled(Ending::Cancelled);
    match standing(registry, worker)? {
        Standing::Lost(reasons) if !racers(registry, worker).all(called_off) => Some(Advice::new(
            format!("no worker won the race ({reasons})"),
            vec![Hint::to("retry one of them with feedback"), Hint::to("narrow the task"), Hint::to("do without it")],
        )),
        _ => None,
    }
}

fn is_final(racer: &Worker) -> bool {
    racer.status.is_settled() && retry::automatic(racer).is_none()
}

fn reasons(registry: &Registry, worker: &Worker) -> String {
    let reason = |racer: &Arc<Worker>| {
        let Some(last) = racer.last() else { return format!("{}: {}", racer.id, racer.status) };
        let why = match (&last.failure, last.status) {
            (Some(failure), _) => failure.message.as_str(),
            (None, Ending::Completed) => "completed, but changed nothing and had nothing to verify",
            (None, status) => status.as_str(),
        };
        format!("{} ({}): {why}", racer.id, last.backend)
    };
    racers(registry, worker).map(reason).collect::<Vec<_>>().join("; ")
}

/// Which worker stands for a task for which racers run: the winner; before there is one, one that shows whether the
/// race can go on.
pub(super) fn spokesman<'a>(registry: &'a Registry, newest: &'a Arc<Worker>) -> &'a Arc<Worker> {
    let Some(race) = &newest.race else { return newest };
    if let Some(winner) = &race.winner {
        return registry.get(winner).unwrap_or(newest);
    }
    let rank = |racer: &&Arc<Worker>| (racer.status.is_live(), !is_final(racer), racer.number());
    racers(registry, newest).max_by_key(rank).unwrap_or(newest)
}

/// What the settlement of a worker decides, to be asked once it is in the registry.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decision {
    pub racers: Vec<WorkerId>,
    /// Those who may still run, or would be tried again.
    pub called_off: Vec<WorkerId>,
}

pub(super) fn decide(registry: &Registry, worker: &Worker) -> Option<Decision> {
    let won = worker.status.is_settled() && worker.settled.iter().any(|brief| qualifies(&worker.mission, brief));
    if !won || !is_undecided(worker) || racers(registry, worker).any(|racer| !is_undecided(racer)) {
        return None;
    }
    let others = racers(registry, worker).filter(|racer| racer.id != worker.id && !is_final(racer));
    Some(Decision {
        racers: racers(registry, worker).map(|racer| racer.id.clone()).collect(),
        called_off: others.map(|racer| racer.id.clone()).collect(),
    })
}

/// Returns the winners of races whose end no racer has recorded. Such races are in a registry that was rebuilt from the
/// workers' folders, without the journal's order. The earliest record wins.
pub(super) fn winners_by_time(registry: &Registry) -> Vec<WorkerId> {
    let first = |worker: &Arc<Worker>| {
        let good = worker.settled.iter().filter(|brief| qualifies(&worker.mission, brief));
        good.map(|brief| (brief.settled_at, worker.number())).min()
    };
    let is_first = |worker: &&Arc<Worker>| {
        let mine = first(worker);
        mine.is_some() && racers(registry, worker).filter_map(first).min() == mine
    };
    registry.workers().filter(|it| is_undecided(it)).filter(is_first).map(|worker| worker.id.clone()).collect()
}

/// What all its attempts together took, as their CLIs said; `live` is that of the one that runs. `None`: nobody said.
pub fn spent(worker: &Worker, live: Option<Usage>) -> Option<Usage> {
    let never_ran = worker.status.is_settled() && worker.started_at.is_none() && worker.settled.len() <= 1;
    let known = |usage: &Usage| usage.cost_usd.is_some() || usage.input_tokens + usage.output_tokens > 0;
    let all = worker.settled.iter().map(|brief| brief.usage).chain(live).filter(known);
    let total = all.reduce(|sum, usage| Usage {
        input_tokens: sum.input_tokens + usage.input_tokens,
        cached_tokens: sum.cached_tokens + usage.cached_tokens,
        output_tokens: sum.output_tokens + usage.output_tokens,
        cost_usd: match (sum.cost_usd, usage.cost_usd) {
            (Some(one), Some(other)) => Some(one + other),
            (one, other) => one.or(other),
        },
    });
    total.or_else(|| never_ran.then(|| Usage { cost_usd: Some(0.0), ..Usage::default() }))
}

#[cfg(test)]
mod tests;
