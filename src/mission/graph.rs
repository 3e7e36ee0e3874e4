//! Dependencies of missions (`depends_on`), evaluated on the registry. Pure.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::hint::{Advice, Hint};
use super::id::{TaskId, WorkerId};
use super::lifecycle::{Ending, WorkerStatus};
use super::race::{self, Standing};
use super::registry::Registry;
use super::retry;
use super::summary::AttemptSummary;
use super::worker::Worker;

/// The readiness of a queued worker with regard to other tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    Ready,
    Waiting(Vec<TaskId>),
    /// A dependency failed, and no automatic retry will fix that.
    Blocked(Advice),
}

pub fn readiness(registry: &Registry, worker: &Worker) -> Readiness {
    let mut waiting = Vec::new();
    for task in &worker.mission.depends_on {
        match dependency(registry, task) {
            Dependency::Met => {}
            Dependency::Open => waiting.push(task.clone()),
            Dependency::Broken(why) => return Readiness::Blocked(why),
        }
    }
    if waiting.is_empty() { Readiness::Ready } else { Readiness::Waiting(waiting) }
}

enum Dependency {
    Met,
    Open,
    Broken(Advice),
}

fn dependency(registry: &Registry, task: &TaskId) -> Dependency {
    match end_of(registry, task) {
        Dependency::Open => match registry.task(task).filter(|worker| is_broken_below(registry, worker)) {
            Some(worker) => {
                let why = format!("task {task}, which it depends on, is blocked itself ({})", worker.id);
                Dependency::Broken(Advice::new(why, Vec::new()))
            }
            None => Dependency::Open,
        },
        end => end,
    }
}

/// Returns the state of a task, apart from its own dependencies.
fn end_of(registry: &Registry, task: &TaskId) -> Dependency {
    let Some(worker) = registry.task(task) else {
        let why = format!("task {task}, which it depends on, is not known any more");
        return Dependency::Broken(Advice::new(why, Vec::new()));
    };
    match race::standing(registry, worker) {
        Some(Standing::On) => return Dependency::Open,
        Some(Standing::Lost(reasons)) => {
            let why = format!("no worker won the race for task {task}, which it depends on ({reasons})");
            return Dependency::Broken(Advice::new(
                why,
                vec![Hint::to("retry one of them"), Hint::to("cancel this one")],
            ));
        }
        Some(Standing::Won(_)) | None => {}
    }
    match worker.status {
        WorkerStatus::Settled(Ending::Completed) => Dependency::Met,
        WorkerStatus::Settled(ending) if retry::automatic(worker).is_none() => {
            let why = format!("task {task}, which it depends on, ended as {}", ending.as_str());
            let hints = vec![Hint::Retry(worker.id.to_string()), Hint::to("cancel this one")];
            Dependency::Broken(Advice::new(why, hints))
        }
        _ => Dependency::Open,
    }
}

/// Returns whether something that a queued worker waits for has failed. It is needed for each worker after each
/// change, so it is determined once for all of them.
fn is_broken_below(registry: &Registry, worker: &Worker) -> bool {
    let broken = registry.broken_below.0.get_or_init(|| broken_below(registry));
    !broken.is_empty() && worker.number().is_some_and(|number| broken.contains(&number))
}

/// Returns the numbers of all queued workers with a failed direct or indirect dependency. Each dependency is visited
/// once, since the number of paths can be exponential.
fn broken_below(registry: &Registry) -> HashSet<u64> {
    let number = |worker: &Worker| WorkerId::number_in(worker.id.as_str());
    let mut waiting_for: HashMap<u64, Vec<u64>> = HashMap::new();
    let mut todo = Vec::new();
    for worker in registry.workers().filter(|worker| worker.status == WorkerStatus::Queued) {
        let Some(above) = number(worker) else { continue };
        for task in &worker.mission.depends_on {
            match end_of(registry, task) {
                Dependency::Broken(_) => todo.push(above),
                Dependency::Open => {
                    let below = registry.task(task).and_then(|worker| number(worker));
                    below.into_iter().for_each(|below| waiting_for.entry(below).or_default().push(above));
                }
                Dependency::Met => {}
            }
        }
    }
    let mut broken = HashSet::new();
    while let Some(worker) = todo.pop() {
        if broken.insert(worker) {
            todo.extend(waiting_for.remove(&worker).unwrap_or_default());
        }
    }
    broken
}

/// Returns why the boss has to decide about this worker's task, if it has to.
pub fn block(registry: &Registry, worker: &Worker) -> Option<Advice> {
    match worker.status {
        WorkerStatus::Queued => match readiness(registry, worker) {
            Readiness::Blocked(why) => Some(why),
            _ => None,
        },
        WorkerStatus::Settled(_) if race::is_undecided(worker) => race::block(registry, worker),
        // Another racer completed the task.
        WorkerStatus::Settled(_) if race::lost_to(worker).is_some() => None,
        WorkerStatus::Settled(ending) if ending != Ending::Completed => retry::exhausted(worker),
        _ => None,
    }
}

/// Returns the commits that a dependent worker is built on: those of its dependencies, in the order in which it names
/// them. The integration branch stands for the merged ones, since their own branches may be deleted. Empty means the
/// integration branch alone.
pub fn bases(registry: &Registry, worker: &Worker, integration_branch: Option<&str>) -> Vec<String> {
    let needed: Vec<_> = worker.mission.depends_on.iter().filter_map(|task| registry.task(task)).collect();
    let target = integration_branch.map(|full| full.strip_prefix("refs/heads/").unwrap_or(full));
    let is_merged =
        |worker: &&Arc<Worker>| worker.integrated.as_ref().is_some_and(|it| Some(it.into.as_str()) == target);
    let (merged, own): (Vec<_>, Vec<_>) = needed.into_iter().partition(is_merged);
    let own =
        own.into_iter().filter(|worker| worker.mission.place.branch().is_some()).filter_map(|it| work_of(it.last()?));
    let integration = integration_branch.filter(|_| !merged.is_empty());
    integration.map(str::to_owned).into_iter().chain(own).collect()
}

/// Returns the commit that holds an attempt's work, if it has any commits.
fn work_of(brief: &AttemptSummary) -> Option<String> {
    brief.changes.head.clone().filter(|_| brief.changes.commits > 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::registry::Registry;
    use super::super::testing::{create, draft, needs, settle};
    use super::*;

    /// Each task of a wave needs all tasks of the wave before, so there are 4^30 paths.
    #[test]
    fn many_paths_to_a_task_take_linear_time() {
        let name = |wave: usize, at: usize| format!("t{wave}-{at}");
        let mut drafts = Vec::new();
        for wave in 0..30 {
            let before: Vec<String> = (0..4).filter(|_| wave > 0).map(|at| name(wave - 1, at)).collect();
            let before: Vec<&str> = before.iter().map(String::as_str).collect();
            drafts.extend((0..4).map(|at| needs(&name(wave, at), &before)));
        }
        let mut registry = Registry::default();
        let ids: Vec<_> = create(&mut registry, &drafts).into_iter().map(Result::unwrap).collect();
        let last = registry.get(&ids[ids.len() - 1]).unwrap();
        assert!(matches!(readiness(&registry, last), Readiness::Waiting(tasks) if tasks.len() == 4));

        settle(&mut registry, &ids[0], Ending::Failed);
        let last = registry.get(&ids[ids.len() - 1]).unwrap();
        assert!(matches!(readiness(&registry, last), Readiness::Blocked(why) if why.text.contains("blocked itself")));
    }

    #[test]
    fn automatically_retried_failure_blocks_no_worker() {
        let mut registry = Registry::default();
        let twice = super::super::create::Draft { max_attempts: 2, ..draft("a") };
        let ids: Vec<_> = create(&mut registry, &[twice, needs("b", &["a"])]).into_iter().map(Result::unwrap).collect();
        settle(&mut registry, &ids[0], Ending::Failed);
        let waits = Readiness::Waiting(vec!["a".into()]);
        assert_eq!(readiness(&registry, registry.get(&ids[1]).unwrap()), waits);
    }

    /// Follows all paths of dependencies to a failed task.
    fn is_broken_by_walking(registry: &Registry, worker: &Worker) -> bool {
        worker.status == WorkerStatus::Queued
            && worker.mission.depends_on.iter().any(|task| {
                matches!(end_of(registry, task), Dependency::Broken(_))
                    || registry.task(task).is_some_and(|below| is_broken_by_walking(registry, below))
            })
    }

    proptest! {
        #[test]
        fn all_broken_workers_are_found_at_once(
            below in prop::collection::vec(prop::collection::vec(0..12usize, 0..3), 12),
            ends in prop::collection::vec((0..12usize, any::<bool>()), 0..8),
        ) {
            let name = |at: usize| format!("t{at}");
            let drafts: Vec<_> = below.iter().enumerate().map(|(at, below)| {
                let below: Vec<String> = below.iter().filter(|it| **it < at).map(|it| name(*it)).collect();
                needs(&name(at), &below.iter().map(String::as_str).collect::<Vec<_>>())
            }).collect();
            let mut registry = Registry::default();
            let ids: Vec<_> = create(&mut registry, &drafts).into_iter().map(Result::unwrap).collect();
            for (at, good) in ends {
                settle(&mut registry, &ids[at], if good { Ending::Completed } else { Ending::Failed });
                for worker in registry.workers() {
                    prop_assert_eq!(is_broken_below(&registry, worker), is_broken_by_walking(&registry, worker));
                }
            }
        }
    }
}
