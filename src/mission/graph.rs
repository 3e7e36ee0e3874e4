//! What a mission waits for: `depends_on`, read off the registry. Pure.

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
    let Some(worker) = registry.task(task) else {
        return Dependency::Broken(format!("task {task}, which it depends on, is not known any more"));
    };
    match worker.status {
        WorkerStatus::Settled(Ending::Completed) => Dependency::Met,
        WorkerStatus::Settled(ending) => Dependency::Broken(format!(
            "task {task}, which it depends on, ended as {}: retry_worker {} would unblock it, cancel_worker drops it",
            ending.as_str(),
            worker.id
        )),
        WorkerStatus::Queued => match readiness(registry, worker) {
            Readiness::Blocked(_) => {
                Dependency::Broken(format!("task {task}, which it depends on, is blocked itself ({})", worker.id))
            }
            _ => Dependency::Open,
        },
        _ => Dependency::Open,
    }
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

/// What a dependant is built on: the branches of what it needs, in the order in which it names them.
pub fn base_branches<'a>(registry: &'a Registry, worker: &Worker) -> Vec<&'a str> {
    let needed = worker.mission.depends_on.iter().filter_map(|task| registry.task(task));
    needed.filter(|worker| worker.last().is_some_and(has_commits)).filter_map(|it| it.mission.place.branch()).collect()
}

fn has_commits(brief: &Brief) -> bool {
    brief.changes.commits > 0
}
