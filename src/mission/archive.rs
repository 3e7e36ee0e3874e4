//! Which settled workers move out of the registry into the history, so that what every change, save and new generation
//! costs does not grow with the years. Pure; nobody is forgotten: the history is part of every look-up by name.

use std::collections::HashSet;

use jiff::{SignedDuration, Timestamp};

use super::delivery::{self, Notification};
use super::graph;
use super::id::{TaskId, WorkerId};
use super::race;
use super::registry::{Registry, Worker};

/// What was handed to a client this long ago and never proven to have arrived is not waited for any longer.
const PROOF_CEILING: SignedDuration = SignedDuration::from_hours(30 * 24);

/// How many settled workers the registry keeps.
#[derive(Debug, Clone, Copy)]
pub struct Kept {
    pub newest: usize,
    /// So many more are let come together before they move, all at once.
    pub slack: usize,
}

impl Default for Kept {
    fn default() -> Self {
        Self { newest: 500, slack: 100 }
    }
}

/// The oldest first. Empty as long as there are not too many.
///
/// What a boss was not told yet stays, and what an open mission builds on. An older worker that stays holds the newer
/// ones of its task, so that the newest of a task that the registry knows is the newest that there is.
pub fn movable(registry: &Registry, kept: Kept, now: Timestamp) -> Vec<WorkerId> {
    let settled = registry.workers().filter(|worker| worker.status.is_settled()).count();
    if settled <= kept.newest + kept.slack {
        return Vec::new();
    }
    let open = registry.workers().filter(|worker| !delivery::is_final(worker));
    let mut held: HashSet<&TaskId> = open.flat_map(|worker| &worker.mission.depends_on).collect();
    let mut moved = Vec::new();
    let mut racers = HashSet::new();
    for worker in registry.workers() {
        if racers.contains(&worker.id) {
            continue;
        }
        if moved.len() >= settled - kept.newest {
            break;
        }
        let together = together(registry, worker);
        if !held.contains(worker.task()) && together.iter().all(|it| is_done_with(registry, it, now)) {
            moved.extend(together.iter().map(|worker| worker.id.clone()));
            racers.extend(together.iter().skip(1).map(|worker| worker.id.clone()));
        } else {
            held.insert(worker.task());
        }
    }
    moved.sort_by_key(|id| WorkerId::number_in(id.as_str()));
    moved
}

/// A race moves whole, so that whoever has one of its racers has its end.
fn together<'a>(registry: &'a Registry, worker: &'a Worker) -> Vec<&'a Worker> {
    let racers: Vec<&Worker> = race::racers(registry, worker).map(AsRef::as_ref).collect();
    if racers.is_empty() { vec![worker] } else { racers }
}

fn is_done_with(registry: &Registry, worker: &Worker, now: Timestamp) -> bool {
    let reported = |notification: &Notification| match notification {
        Notification::Acknowledged => true,
        Notification::InFlight { .. } => {
            worker.last().is_some_and(|brief| now.duration_since(brief.settled_at) > PROOF_CEILING)
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
    use super::super::testing::{apply, create, draft, needs, settle};
    use super::*;

    const KEPT: Kept = Kept { newest: 1, slack: 1 };

    fn tell(registry: &mut Registry, id: &WorkerId) {
        apply(registry, "s", Entry::Notified { boss: "b".into(), settled: vec![(id.clone(), 1)], blocked: Vec::new() });
    }

    fn deliver(registry: &mut Registry) {
        let offers = (0..=registry.seq).collect();
        apply(registry, "s", Entry::Acknowledged { deliveries: offers, settled: Vec::new(), blocked: Vec::new() });
    }

    fn moved(registry: &Registry, now: Timestamp) -> Vec<String> {
        movable(registry, KEPT, now).iter().map(WorkerId::to_string).collect()
    }

    #[test]
    fn only_what_is_over_and_told_and_not_built_on_moves() {
        let mut registry = Registry::default();
        let drafts = [draft("base"), draft("a"), draft("b"), draft("c"), needs("open", &["base"])];
        let ids: Vec<_> = create(&mut registry, &drafts).into_iter().map(Result::unwrap).collect();
        let start = Timestamp::UNIX_EPOCH;
        ids[..3].iter().for_each(|id| settle(&mut registry, id, Ending::Completed));
        assert_eq!(moved(&registry, start), [""; 0], "nobody was told");
        tell(&mut registry, &ids[0]);
        tell(&mut registry, &ids[1]);
        deliver(&mut registry);
        assert_eq!(moved(&registry, start), ["w-2-a"]);

        tell(&mut registry, &ids[2]);
        settle(&mut registry, &ids[3], Ending::Completed);
        assert_eq!(moved(&registry, start), ["w-2-a"], "the news of w-3 is on its way");
        assert_eq!(moved(&registry, start + SignedDuration::from_hours(31 * 24)), ["w-2-a", "w-3-b"]);
        settle(&mut registry, &ids[4], Ending::Completed);
        assert_eq!(moved(&registry, start), ["w-1-base", "w-2-a"], "nothing waits for the base any more");
    }

    #[test]
    fn the_newest_of_a_task_is_never_out_of_reach_of_an_older_one() {
        let mut registry = Registry::default();
        let mut ids = Vec::new();
        for _again in 0..3 {
            ids.push(create(&mut registry, &[draft("t")]).remove(0).unwrap());
            settle(&mut registry, &ids[ids.len() - 1], Ending::Completed);
        }
        tell(&mut registry, &ids[1]);
        tell(&mut registry, &ids[2]);
        deliver(&mut registry);
        assert_eq!(moved(&registry, Timestamp::UNIX_EPOCH), [""; 0]);
    }
}
