//! Dependencies of missions (`depends_on`) and the reports that they wait for (`context_from`), evaluated on the
//! registry. Pure.
//!
//! A dependency must be completed. A report is awaited until its worker has settled with any outcome, so it blocks a
//! mission only while its worker is itself blocked. No cycle of dependencies and reports is registered. A retry can
//! close one later, since a task is represented by its newest worker. Reports within a cycle are not awaited, which
//! breaks it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::hint::{Advice, Hint};
use super::id::{TaskId, WorkerId};
use super::lifecycle::{Ending, WorkerStatus};
use super::race::{self, Standing};
use super::registry::Registry;
use super::retry;
use super::spec::ContextSource;
use super::summary::AttemptSummary;
use super::worker::Worker;

/// The readiness of a queued worker with regard to other tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    Ready,
    /// The ids of the tasks that it waits for, or `w-2's report`.
    Waiting(Vec<String>),
    /// A dependency failed, and no automatic retry will fix that.
    Blocked(Advice),
}

pub fn readiness(registry: &Registry, worker: &Worker) -> Readiness {
    let mut waiting = Vec::new();
    for task in &worker.mission.depends_on {
        match dependency(registry, task) {
            Dependency::Met => {}
            Dependency::Open => waiting.push(task.to_string()),
            Dependency::Broken(why) => return Readiness::Blocked(why),
        }
    }
    for source in &worker.mission.context_from {
        let Some(other) = awaited(registry, worker, source) else { continue };
        if is_broken_below(registry, other) {
            let why = format!("{}, whose report it waits for, is blocked itself", other.id);
            return Readiness::Blocked(Advice::new(why, Vec::new()));
        }
        waiting.push(format!("{}'s report", short(source, other)));
    }
    if waiting.is_empty() { Readiness::Ready } else { Readiness::Waiting(waiting) }
}

/// Returns the worker to which a source of context currently refers.
pub fn source<'a>(registry: &'a Registry, source: &ContextSource) -> Option<&'a Arc<Worker>> {
    match source {
        ContextSource::Task(task) => registry.task(task),
        ContextSource::Worker(id) => registry.get(id),
    }
}

/// Returns the worker whose report this one still waits for.
fn awaited<'a>(registry: &'a Registry, worker: &Worker, of: &ContextSource) -> Option<&'a Arc<Worker>> {
    let other = source(registry, of).filter(|_| worker.next.takes_context())?;
    let has_reported = other.status.is_settled() && retry::automatic(other).is_none();
    (!has_reported && !is_in_cycle(registry, worker, other)).then_some(other)
}

/// Returns a short name: the id of the task, or the number of the worker.
fn short(source: &ContextSource, other: &Worker) -> String {
    match (source, other.number()) {
        (ContextSource::Task(task), _) if task.as_str() != other.id.as_str() => task.to_string(),
        (_, Some(number)) => format!("w-{number}"),
        (_, None) => other.id.to_string(),
    }
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
        let why = format!("task {task}, which it depends on, is no longer known");
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

/// Returns the numbers of all queued workers that wait, directly or indirectly, for a task that failed. Each dependency
/// is visited once, since the number of paths can be exponential.
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
        for source in &worker.mission.context_from {
            let below = awaited(registry, worker, source).and_then(|worker| number(worker));
            below.into_iter().for_each(|below| waiting_for.entry(below).or_default().push(above));
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

/// Returns whether two queued workers wait for each other, directly or indirectly. `worker` waits for `other`.
fn is_in_cycle(registry: &Registry, worker: &Worker, other: &Worker) -> bool {
    let circular = registry.in_cycles.0.get_or_init(|| in_cycles(registry));
    let is_in = |worker: &Worker| worker.number().is_some_and(|number| circular.contains(&number));
    if !is_in(worker) || !is_in(other) {
        return false;
    }
    let (mut todo, mut seen) = (vec![other], HashSet::new());
    while let Some(at) = todo.pop() {
        if at.id == worker.id {
            return true;
        }
        if seen.insert(&at.id) {
            todo.extend(queued_below(registry, at));
        }
    }
    false
}

/// Returns the queued workers for which a queued worker waits, including those in a cycle.
fn queued_below<'a>(registry: &'a Registry, worker: &'a Worker) -> impl Iterator<Item = &'a Worker> {
    let is_queued = |worker: &Worker| worker.status == WorkerStatus::Queued;
    let tasks = worker.mission.depends_on.iter().filter_map(move |task| registry.task(task));
    let sources = worker.mission.context_from.iter().filter(move |_| worker.next.takes_context());
    let below = tasks.chain(sources.filter_map(move |of| source(registry, of)));
    below.map(|below| &**below).filter(move |below| is_queued(worker) && is_queued(below))
}

/// Returns the numbers of all queued workers that are in a cycle, or wait for one. Without a retry there are none,
/// since no cycle is registered.
fn in_cycles(registry: &Registry) -> HashSet<u64> {
    let queued = || registry.workers().filter(|worker| worker.status == WorkerStatus::Queued);
    if queued().all(|worker| worker.settled.is_empty()) {
        return HashSet::new();
    }
    let mut left: HashMap<u64, usize> = HashMap::new();
    let mut needed_by: HashMap<u64, Vec<u64>> = HashMap::new();
    for worker in queued() {
        let Some(above) = worker.number() else { continue };
        let below: Vec<u64> = queued_below(registry, worker).filter_map(Worker::number).collect();
        left.insert(above, below.len());
        below.into_iter().for_each(|below| needed_by.entry(below).or_default().push(above));
    }
    let mut free: Vec<u64> = left.iter().filter(|(_, below)| **below == 0).map(|(number, _)| *number).collect();
    while let Some(number) = free.pop() {
        left.remove(&number);
        for above in needed_by.remove(&number).unwrap_or_default() {
            if let Some(below) = left.get_mut(&above) {
                *below -= 1;
                if *below == 0 {
                    free.push(above);
                }
            }
        }
    }
    left.into_keys().collect()
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

    use super::super::create::Draft;
    use super::super::registry::Registry;
    use super::super::testing::{apply, create, draft, needs, requeued, settle, takes};
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
        let twice = Draft { max_attempts: 2, ..draft("a") };
        let ids: Vec<_> = create(&mut registry, &[twice, needs("b", &["a"])]).into_iter().map(Result::unwrap).collect();
        settle(&mut registry, &ids[0], Ending::Failed);
        let waits = Readiness::Waiting(vec!["a".into()]);
        assert_eq!(readiness(&registry, registry.get(&ids[1]).unwrap()), waits);
    }

    fn create_all(registry: &mut Registry, drafts: &[Draft]) -> Vec<WorkerId> {
        create(registry, drafts).into_iter().map(Result::unwrap).collect()
    }

    fn state(registry: &Registry, id: &WorkerId) -> Readiness {
        readiness(registry, registry.get(id).unwrap())
    }

    #[test]
    fn report_is_awaited_however_its_worker_ends() {
        for ending in [Ending::Completed, Ending::Failed, Ending::Cancelled, Ending::Lost] {
            let mut registry = Registry::default();
            let ids = create_all(&mut registry, &[draft("a"), takes("b", &["a"])]);
            let waits = Readiness::Waiting(vec!["a's report".into()]);
            assert_eq!(state(&registry, &ids[1]), waits);
            settle(&mut registry, &ids[0], ending);
            assert_eq!(state(&registry, &ids[1]), Readiness::Ready, "{ending:?}");
            apply(&mut registry, "s", requeued(&ids[0]));
            assert_eq!(state(&registry, &ids[1]), waits, "the new attempt is awaited too");
        }
    }

    #[test]
    fn automatic_retry_is_awaited_too() {
        let mut registry = Registry::default();
        let twice = Draft { max_attempts: 2, ..draft("a") };
        let first = create_all(&mut registry, &[twice]);
        let second = create_all(&mut registry, &[takes("b", &["w-1"])]);
        settle(&mut registry, &first[0], Ending::Failed);
        assert_eq!(state(&registry, &second[0]), Readiness::Waiting(vec!["w-1's report".into()]));
    }

    #[test]
    fn worker_that_cannot_begin_blocks_those_that_wait_for_its_report() {
        let mut registry = Registry::default();
        let ids = create_all(&mut registry, &[draft("a"), needs("b", &["a"]), takes("c", &["b"]), needs("d", &["c"])]);
        settle(&mut registry, &ids[0], Ending::Failed);
        let blocked = |registry: &Registry, id: &WorkerId| match state(registry, id) {
            Readiness::Blocked(why) => why.text,
            other => panic!("{id} is {other:?}"),
        };
        assert_eq!(blocked(&registry, &ids[2]), "w-2-b, whose report it waits for, is blocked itself");
        assert!(blocked(&registry, &ids[3]).contains("is blocked itself"));
        settle(&mut registry, &ids[1], Ending::Cancelled);
        assert_eq!(state(&registry, &ids[2]), Readiness::Ready);
    }

    #[test]
    fn circle_closed_by_a_retry_dissolves() {
        let mut registry = Registry::default();
        let ids = create_all(&mut registry, &[draft("a"), takes("b", &["a"])]);
        ids.iter().for_each(|id| settle(&mut registry, id, Ending::Completed));
        let again = create_all(&mut registry, &[takes("a", &["b"])]);
        assert_eq!(state(&registry, &again[0]), Readiness::Ready);
        apply(&mut registry, "s", requeued(&ids[1]));
        assert_eq!(state(&registry, &again[0]), Readiness::Ready, "it waits for what waits for it");
        let after = create_all(&mut registry, &[takes("c", &["b"])]);
        assert_eq!(state(&registry, &after[0]), Readiness::Waiting(vec!["b's report".into()]));
    }

    /// Follows all paths of dependencies to a failed task.
    fn is_broken_by_walking(registry: &Registry, worker: &Worker) -> bool {
        if worker.status != WorkerStatus::Queued {
            return false;
        }
        worker.mission.depends_on.iter().any(|task| {
            matches!(end_of(registry, task), Dependency::Broken(_))
                || registry.task(task).is_some_and(|below| is_broken_by_walking(registry, below))
        }) || worker
            .mission
            .context_from
            .iter()
            .any(|source| awaited(registry, worker, source).is_some_and(|below| is_broken_by_walking(registry, below)))
    }

    proptest! {
        #[test]
        fn all_broken_workers_are_found_at_once(
            below in prop::collection::vec(prop::collection::vec(0..12usize, 0..3), 12),
            from in prop::collection::vec(prop::collection::vec(0..12usize, 0..3), 12),
            ends in prop::collection::vec((0..12usize, any::<bool>()), 0..8),
        ) {
            let name = |at: usize| format!("t{at}");
            let drafts: Vec<_> = below.iter().zip(&from).enumerate().map(|(at, (below, from))| {
                let before = |all: &[usize]| all.iter().filter(|it| **it < at).map(|it| name(*it)).collect();
                Draft { depends_on: before(below), context_from: before(from), ..draft(&name(at)) }
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

        /// Checks with any sequence of new, settled and retried tasks that, while nothing runs, a worker that waits
        /// only for reports can start.
        #[test]
        fn reports_never_hold_up_everything(
            steps in prop::collection::vec((0..4u8, 0..6usize, prop::collection::vec(0..8usize, 0..3)), 0..60),
        ) {
            let mut registry = Registry::default();
            for (what, at, from) in steps {
                let numbered: Vec<WorkerId> = registry.workers().map(|worker| worker.id.clone()).collect();
                let chosen = numbered.get(at * numbered.len() / 6);
                let is_settled = chosen.is_some_and(|id| registry.get(id).unwrap().status.is_settled());
                match (what, chosen) {
                    (0 | 1, _) => {
                        let name = |it: &usize| if *it < 6 { format!("t{it}") } else { format!("w-{}", it - 5) };
                        let context_from = from.iter().map(name).collect();
                        let _ = create(&mut registry, &[Draft { context_from, ..draft(&format!("t{at}")) }]);
                    }
                    (2, Some(id)) if is_settled => apply(&mut registry, "s", requeued(id)),
                    (_, Some(id)) if state(&registry, id) == Readiness::Ready && !is_settled => {
                        settle(&mut registry, id, Ending::Failed);
                    }
                    _ => {}
                }
                let mut queued = registry.workers().filter(|worker| worker.status == WorkerStatus::Queued).peekable();
                let is_stuck = queued.peek().is_some() && queued.all(|it| readiness(&registry, it) != Readiness::Ready);
                prop_assert!(!is_stuck, "{:?}", registry.workers().map(|it| &it.mission).collect::<Vec<_>>());
            }
        }
    }
}
