//! What a mission waits for: `depends_on`, read off the registry. Pure.

use std::collections::HashSet;

use super::entry::Brief;
use super::id::TaskId;
use super::lifecycle::{Ending, WorkerStatus};
use super::registry::{Registry, Worker};
use super::retry;

/// Whether a queued worker may start as far as other tasks are concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    Ready,
    Waiting(Vec<TaskId>),
    /// Something it needs ended badly and nothing will mend that by itself.
    Blocked(String),
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
    Broken(String),
}

fn dependency(registry: &Registry, task: &TaskId) -> Dependency {
    match end_of(registry, task) {
        Dependency::Open if is_broken_below(registry, task) => {
            let worker = registry.task(task).map_or_else(String::new, |worker| format!(" ({})", worker.id));
            Dependency::Broken(format!("task {task}, which it depends on, is blocked itself{worker}"))
        }
        end => end,
    }
}

/// What this task by itself came to, whatever it waits for.
fn end_of(registry: &Registry, task: &TaskId) -> Dependency {
    let Some(worker) = registry.task(task) else {
        return Dependency::Broken(format!("task {task}, which it depends on, is not known any more"));
    };
    match worker.status {
        WorkerStatus::Settled(Ending::Completed) => Dependency::Met,
        WorkerStatus::Settled(ending) if retry::automatic(worker).is_none() => Dependency::Broken(format!(
            "task {task}, which it depends on, ended as {}: retry_worker {} would unblock it, cancel_worker drops it",
            ending.as_str(),
            worker.id
        )),
        _ => Dependency::Open,
    }
}

/// Whether something that a queued task waits for, however far below, has ended badly. Each task is looked at once: in a
/// plan of waves the ways down are too many to be walked.
fn is_broken_below(registry: &Registry, task: &TaskId) -> bool {
    let mut seen = HashSet::from([task]);
    let mut todo = vec![task];
    while let Some(task) = todo.pop() {
        let Some(worker) = registry.task(task).filter(|worker| worker.status == WorkerStatus::Queued) else { continue };
        for below in &worker.mission.depends_on {
            if matches!(end_of(registry, below), Dependency::Broken(_)) {
                return true;
            }
            if seen.insert(below) {
                todo.push(below);
            }
        }
    }
    false
}

/// Why the boss has to decide about this worker's task, if it has to.
pub fn block(registry: &Registry, worker: &Worker) -> Option<String> {
    match worker.status {
        WorkerStatus::Queued => match readiness(registry, worker) {
            Readiness::Blocked(why) => Some(why),
            _ => None,
        },
        WorkerStatus::Settled(ending) if ending != Ending::Completed => retry::exhausted(worker),
        _ => None,
    }
}

/// What a dependant is built on: the commits of what it needs, in the order in which it names them. What was integrated
/// meanwhile is in the integration branch, where its own branch may be gone. Empty: the integration branch alone.
pub fn bases(registry: &Registry, worker: &Worker) -> Vec<String> {
    let needed: Vec<_> = worker.mission.depends_on.iter().filter_map(|task| registry.task(task)).collect();
    let (merged, own): (Vec<_>, Vec<_>) = needed.into_iter().partition(|worker| worker.integrated.is_some());
    let own =
        own.into_iter().filter(|worker| worker.mission.place.branch().is_some()).filter_map(|it| work_of(it.last()?));
    let integration = registry.integration_branch.clone().filter(|_| !merged.is_empty());
    integration.into_iter().chain(own).collect()
}

/// The commit that holds what an attempt did, if it did anything.
fn work_of(brief: &Brief) -> Option<String> {
    brief.changes.head.clone().filter(|_| brief.changes.commits > 0)
}

#[cfg(test)]
mod tests {
    use super::super::registry::Registry;
    use super::super::testing::{create, draft, needs, settle};
    use super::*;

    /// Each of a wave needs all of the wave before it: there are 4^30 ways from the last to the first.
    #[test]
    fn many_ways_to_a_task_are_walked_once() {
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
        assert!(matches!(readiness(&registry, last), Readiness::Blocked(why) if why.contains("blocked itself")));
    }

    #[test]
    fn a_failure_that_is_tried_again_by_itself_blocks_nobody() {
        let mut registry = Registry::default();
        let twice = super::super::create::Draft { max_attempts: 2, ..draft("a") };
        let ids: Vec<_> = create(&mut registry, &[twice, needs("b", &["a"])]).into_iter().map(Result::unwrap).collect();
        settle(&mut registry, &ids[0], Ending::Failed);
        let waits = Readiness::Waiting(vec!["a".into()]);
        assert_eq!(readiness(&registry, registry.get(&ids[1]).unwrap()), waits);
    }
}
