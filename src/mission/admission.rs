//! Who may start now: limits over all and per backend, first come first served. Pure.

use std::collections::HashMap;

use super::graph::{self, Readiness};
use super::id::{BackendName, ServerId, WorkerId};
use super::lifecycle::WorkerStatus;
use super::registry::{Registry, Worker};

/// How many workers may live at once, over all servers of a state directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    pub total: usize,
    pub per_backend: HashMap<BackendName, usize>,
}

impl Limits {
    pub fn of(&self, backend: &BackendName) -> usize {
        self.per_backend.get(backend).copied().unwrap_or(self.total).min(self.total)
    }
}

/// The queued workers of this server that can start now, in the order in which they were asked for.
pub fn admit(
    registry: &Registry,
    limits: &Limits,
    server: &ServerId,
    can_start: impl Fn(&Worker) -> bool,
) -> Vec<WorkerId> {
    let mut live = 0;
    let mut per_backend: HashMap<&BackendName, usize> = HashMap::new();
    for worker in registry.workers().filter(|worker| worker.status.is_live()) {
        live += 1;
        *per_backend.entry(&worker.next.backend).or_default() += 1;
    }
    let mut queue: Vec<_> = registry
        .workers()
        .filter(|worker| worker.status == WorkerStatus::Queued && worker.lease == *server && worker.cancel.is_none())
        .collect();
    queue.sort_by_key(|worker| worker.queued_seq);

    let mut admitted = Vec::new();
    for worker in queue {
        if live >= limits.total {
            break;
        }
        let running = per_backend.entry(&worker.next.backend).or_default();
        let free = *running < limits.of(&worker.next.backend);
        if free && can_start(worker) && graph::readiness(registry, worker) == Readiness::Ready {
            *running += 1;
            live += 1;
            admitted.push(worker.id.clone());
        }
    }
    admitted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::entry::Entry;
    use super::super::lifecycle::Ending;
    use super::super::testing::{apply, brief, create, draft, needs};
    use super::*;

    fn limits() -> Limits {
        Limits { total: 4, per_backend: HashMap::from([("codex".into(), 3)]) }
    }

    proptest! {
        /// However workers start and end, the limits hold, nobody runs twice at once, and in the end all have run.
        #[test]
        fn limits_hold_and_nobody_is_forgotten(ends in prop::collection::vec(0..8usize, 0..60)) {
            let mut registry = Registry::default();
            let drafts: Vec<_> = (0..8).map(|n| match n % 2 {
                0 => draft(&format!("t{n}")),
                _ => needs(&format!("t{n}"), &[&format!("t{}", n - 1)]),
            }).collect();
            let ids: Vec<_> = create(&mut registry, &drafts).into_iter().map(Result::unwrap).collect();
            let me = ServerId::from("s");
            for at in ends.into_iter().chain((0..8).cycle().take(24)) {
                for id in admit(&registry, &limits(), &me, |_| true) {
                    prop_assert_eq!(registry.get(&id).unwrap().status, WorkerStatus::Queued);
                    apply(&mut registry, "s", Entry::Starting { worker: id, attempt: 1 });
                }
                let live = registry.workers().filter(|worker| worker.status.is_live()).count();
                prop_assert!(live <= 3, "{live} at once");
                if registry.get(&ids[at]).unwrap().status.is_live() {
                    let brief = Box::new(brief(1, Ending::Completed));
                    apply(&mut registry, "s", Entry::Settled { worker: ids[at].clone(), brief });
                }
            }
            let open = registry.workers().filter(|worker| !worker.status.is_settled()).count();
            prop_assert_eq!(open, 0);
        }
    }

    #[test]
    fn only_this_servers_workers_and_those_that_it_can_start() {
        let mut registry = Registry::default();
        create(&mut registry, &[draft("a"), draft("b")]);
        assert!(admit(&registry, &limits(), &ServerId::from("other"), |_| true).is_empty());
        let able = |worker: &Worker| worker.task().as_str() == "b";
        let admitted = admit(&registry, &limits(), &ServerId::from("s"), able);
        assert_eq!(admitted.iter().map(WorkerId::as_str).collect::<Vec<_>>(), ["w-2-b"]);
    }
}
