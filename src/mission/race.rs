//! Races: several workers with the same task, of which the first verified one wins. Pure.
//!
//! The order of the journal decides a race. The first settlement that qualifies wins, and the fold of that line cancels
//! the other racers too. So no race is decided twice, and no server is needed to carry out the decision.

use std::sync::Arc;

use super::hint::{Advice, Hint};
use super::id::{TaskId, WorkerId};
use super::lifecycle::{Ending, WorkerStatus};
use super::name::Name;
use super::outcome::{Changes, Usage};
use super::registry::Registry;
use super::retry;
use super::spec::{Mission, Permissions};
use super::summary::AttemptSummary;
pub use super::worker::Race;
use super::worker::Worker;

/// The state of a race.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// A racer may still win.
    On,
    Won(WorkerId),
    /// All racers ended without a winner, for these reasons. A retry reopens the race.
    Lost(String),
}

/// Returns whether this outcome wins an undecided race. Without a verification, it must have changed something, if it
/// was allowed to.
pub fn qualifies(mission: &Mission, brief: &AttemptSummary) -> bool {
    let may_change = mission.permissions != Permissions::ReadOnly;
    let has_result = mission.verify_command.is_some() || !may_change || is_change(&brief.changes);
    brief.status == Ending::Completed && has_result
}

fn is_change(changes: &Changes) -> bool {
    changes.commits > 0 || changes.files_changed > 0 || changes.uncommitted > 0
}

/// Returns the racers that the registry has, including this worker. None for a worker that does not race.
pub fn racers<'a>(registry: &'a Registry, worker: &'a Worker) -> impl Iterator<Item = &'a Arc<Worker>> {
    let race = worker.race.as_ref();
    race.into_iter()
        .flat_map(|race| &race.racers)
        .filter_map(|id| registry.get(id))
        .filter(move |racer| racer.race.as_ref().map(|race| &race.id) == race.map(|race| &race.id))
}

/// Returns the state of a worker's race. `None` if it does not race.
pub fn standing(registry: &Registry, worker: &Worker) -> Option<Standing> {
    let race = worker.race.as_ref()?;
    if let Some(winner) = &race.winner {
        return Some(Standing::Won(winner.clone()));
    }
    let is_over = racers(registry, worker).all(|racer| is_final(racer));
    Some(if is_over { Standing::Lost(reasons(registry, worker)) } else { Standing::On })
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
    worker.has_lost_race()
}

/// Returns the race's winner, if it is another worker.
pub fn lost_to(worker: &Worker) -> Option<&WorkerId> {
    worker.race.as_ref()?.winner.as_ref().filter(|winner| **winner != worker.id)
}

/// Returns a note for a caller that uses a worker's work although another racer won.
pub fn note_on_loser(worker: &Worker) -> Option<String> {
    let winner = lost_to(worker)?;
    Some(format!(
        "{} did not win its race: {winner} did, and the missions that depend on the task build on that worker",
        worker.id
    ))
}

/// Returns whether its end alone notifies no boss, since other racers still run or have won. It is reported together
/// with the next notification.
pub fn ends_quietly(registry: &Registry, worker: &Worker) -> bool {
    has_lost(worker) || (is_undecided(worker) && standing(registry, worker) == Some(Standing::On))
}

/// Returns why the boss has to decide about a task: the race has no winner. `None` if the boss cancelled all racers.
pub fn block(registry: &Registry, worker: &Worker) -> Option<Advice> {
    let cancelled = |racer: &Arc<Worker>| racer.status == WorkerStatus::Settled(Ending::Cancelled);
    match standing(registry, worker)? {
        Standing::Lost(reasons) if !racers(registry, worker).all(cancelled) => Some(Advice::new(
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

impl Registry {
    /// Returns the newest worker of a task. For a race, it is the winner, or a racer that may still win.
    pub fn task(&self, task: &TaskId) -> Option<&Arc<Worker>> {
        self.newest_of_task(task).map(|newest| representative(self, newest))
    }
}

/// Returns the worker that represents a task with racers: the winner, or else one that shows whether the race can go
/// on.
fn representative<'a>(registry: &'a Registry, newest: &'a Arc<Worker>) -> &'a Arc<Worker> {
    let Some(race) = &newest.race else { return newest };
    if let Some(winner) = &race.winner {
        return registry.get(winner).unwrap_or(newest);
    }
    let rank = |racer: &&Arc<Worker>| (racer.status.is_live(), !is_final(racer), racer.number());
    racers(registry, newest).max_by_key(rank).unwrap_or(newest)
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct RaceDecision {
    pub racers: Vec<WorkerId>,
    /// Racers that may still run, or would be retried.
    pub called_off: Vec<WorkerId>,
}

/// Returns the decision that follows from the settlement of this worker.
pub(super) fn decide(registry: &Registry, worker: &Worker) -> Option<RaceDecision> {
    let won = worker.status.is_settled() && worker.settled.iter().any(|brief| qualifies(&worker.mission, brief));
    if !won || !is_undecided(worker) || racers(registry, worker).any(|racer| !is_undecided(racer)) {
        return None;
    }
    let others = racers(registry, worker).filter(|racer| racer.id != worker.id && !is_final(racer));
    Some(RaceDecision {
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

/// Returns the usage of all attempts of a worker, as the CLIs reported it. `live` is that of the running attempt.
/// `None` if no CLI reported any.
pub fn spent(worker: &Worker, live: Option<Usage>) -> Option<Usage> {
    let never_ran = worker.status.is_settled() && worker.started_at.is_none() && worker.settled.len() <= 1;
    let known = |usage: &Usage| usage.cost_usd.is_some() || usage.tokens() > 0;
    let all = worker.settled.iter().map(|brief| brief.usage).chain(live).filter(known);
    let total = all.reduce(|sum, usage| Usage {
        input_tokens: sum.input_tokens.saturating_add(usage.input_tokens),
        cached_tokens: sum.cached_tokens.saturating_add(usage.cached_tokens),
        output_tokens: sum.output_tokens.saturating_add(usage.output_tokens),
        cost_usd: match (sum.cost_usd, usage.cost_usd) {
            (Some(one), Some(other)) => Some(one + other),
            (one, other) => one.or(other),
        },
    });
    total.or_else(|| never_ran.then(|| Usage { cost_usd: Some(0.0), ..Usage::default() }))
}

#[cfg(test)]
mod tests;
