//! Selects the settled workers that move from the registry into the history, so that the cost of a change does not grow
//! over the years. Look-ups by name include the history. Pure.

use std::collections::HashSet;

use jiff::{SignedDuration, Timestamp};

use super::delivery::{self, Notification};
use super::graph;
use super::id::{TaskId, WorkerId};
use super::race;
use super::registry::{Registry, Worker};

/// A notification that has been in flight this long counts as acknowledged.
const ACKNOWLEDGED_AFTER: SignedDuration = SignedDuration::from_hours(30 * 24);

/// The number of settled workers that the registry keeps.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    pub newest: usize,
    /// The number by which they may exceed this before they move, all at once.
    pub slack: usize,
}

impl Default for Retention {
    fn default() -> Self {
        Self { newest: 500, slack: 100 }
    }
}

/// Returns the workers to move, oldest first. Empty if there are not too many.
///
/// Workers whose end is not acknowledged stay, and so do those that open missions wait for. A worker that stays keeps
/// the newer ones of its task too, so that the newest worker of a task in the registry is the newest of all.
pub fn movable(registry: &Registry, retention: Retention, now: Timestamp) -> Vec<WorkerId> {
    let settled = registry.workers().filter(|worker| worker.status.is_settled()).count();
    if settled <= retention.newest + retention.slack {
        return Vec::new();
    }
    let open = registry.workers().filter(|worker| !delivery::is_final(worker));
    let mut blocked: HashSet<&TaskId> = HashSet::new();
    for worker in open {
        blocked.extend(&worker.mission.depends_on);
        let sources = worker.mission.context_from.iter().filter_map(|source| graph::source(registry, source));
        blocked.extend(sources.map(|source| source.task()));
    }
    let mut moved = Vec::new();
    let mut racers = HashSet::new();
    for worker in registry.workers() {
        if racers.contains(&worker.id) {
            continue;
        }
        if moved.len() >= settled - retention.newest {
            break;
        }
        let together = together(registry, worker);
        if !blocked.contains(worker.task()) && together.iter().all(|it| is_movable(registry, it, now)) {
            moved.extend(together.iter().map(|worker| worker.id.clone()));
            racers.extend(together.iter().skip(1).map(|worker| worker.id.clone()));
        } else {
            blocked.insert(worker.task());
        }
    }
    moved.sort_by_key(|id| WorkerId::number_in(id.as_str()));
    moved
}

/// Returns all racers, or only the worker. A race moves as a whole.
fn together<'a>(registry: &'a Registry, worker: &'a Worker) -> Vec<&'a Worker> {
    let racers: Vec<&Worker> = race::racers(registry, worker).map(AsRef::as_ref).collect();
    if racers.is_empty() { vec![worker] } else { racers }
}

fn is_movable(registry: &Registry, worker: &Worker, now: Timestamp) -> bool {
    let reported = |notification: &Notification| match notification {
        Notification::Acknowledged => true,
        Notification::InFlight { .. } => {
            worker.last().is_some_and(|brief| now.duration_since(brief.settled_at) > ACKNOWLEDGED_AFTER)
        }
        Notification::Pending | Notification::Unconfirmed => false,
    };
    delivery::is_final(worker)
        && reported(&worker.notification)
        && (reported(&worker.block_notification) || graph::block(registry, worker).is_none())
}

#[cfg(test)]
mod tests {
    use super::super::entry::Entry;
    use super::super::lifecycle::Ending;
    use super::super::testing::{apply, create, draft, needs, settle, takes};
    use super::*;

    const RETENTION: Retention = Retention { newest: 1, slack: 1 };

    fn report(registry: &mut Registry, id: &WorkerId) {
        apply(registry, "s", Entry::Notified { boss: "b".into(), settled: vec![(id.clone(), 1)], blocked: Vec::new() });
    }

    fn deliver(registry: &mut Registry) {
        let deliveries = (0..=registry.seq).collect();
        apply(registry, "s", Entry::Acknowledged { deliveries, settled: Vec::new(), blocked: Vec::new() });
    }

    fn moved(registry: &Registry, now: Timestamp) -> Vec<String> {
        movable(registry, RETENTION, now).iter().map(WorkerId::to_string).collect()
    }

    #[test]
    fn only_finished_acknowledged_workers_move() {
        let mut registry = Registry::default();
        let drafts = [draft("base"), draft("a"), draft("b"), draft("c"), needs("open", &["base"])];
        let ids: Vec<_> = create(&mut registry, &drafts).into_iter().map(Result::unwrap).collect();
        let start = Timestamp::UNIX_EPOCH;
        ids[..3].iter().for_each(|id| settle(&mut registry, id, Ending::Completed));
        assert_eq!(moved(&registry, start), [""; 0], "none was reported");
        report(&mut registry, &ids[0]);
        report(&mut registry, &ids[1]);
        deliver(&mut registry);
        assert_eq!(moved(&registry, start), ["w-2-a"]);

        report(&mut registry, &ids[2]);
        settle(&mut registry, &ids[3], Ending::Completed);
        assert_eq!(moved(&registry, start), ["w-2-a"], "the notification of w-3 is in flight");
        assert_eq!(moved(&registry, start + SignedDuration::from_hours(31 * 24)), ["w-2-a", "w-3-b"]);
        settle(&mut registry, &ids[4], Ending::Completed);
        assert_eq!(moved(&registry, start), ["w-1-base", "w-2-a"], "nothing waits for the base any more");
    }

    #[test]
    fn worker_whose_report_is_awaited_stays() {
        for name in ["a", "w-1"] {
            let mut registry = Registry::default();
            let drafts = [draft("a"), draft("b"), draft("c")];
            let mut ids: Vec<_> = create(&mut registry, &drafts).into_iter().map(Result::unwrap).collect();
            ids.extend(create(&mut registry, &[takes("open", &[name])]).into_iter().map(Result::unwrap));
            ids[..3].iter().for_each(|id| settle(&mut registry, id, Ending::Completed));
            ids[..3].iter().for_each(|id| report(&mut registry, id));
            deliver(&mut registry);
            assert_eq!(moved(&registry, Timestamp::UNIX_EPOCH), ["w-2-b", "w-3-c"], "{name}");
        }
    }

    #[test]
    fn newest_worker_of_a_task_moves_last() {
        let mut registry = Registry::default();
        let mut ids = Vec::new();
        for _again in 0..3 {
            ids.push(create(&mut registry, &[draft("t")]).remove(0).unwrap());
            settle(&mut registry, &ids[ids.len() - 1], Ending::Completed);
        }
        report(&mut registry, &ids[1]);
        report(&mut registry, &ids[2]);
        deliver(&mut registry);
        assert_eq!(moved(&registry, Timestamp::UNIX_EPOCH), [""; 0]);
    }
}
