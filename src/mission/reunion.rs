//! Two servers that know different things of one state directory, after its journal was damaged or lost and begun anew:
//! what the one that knows more puts back. Pure.

use std::sync::Arc;

use super::entry::Entry;
use super::id::ServerId;
use super::registry::{Registry, Worker};

/// What `known` says and the journal, as it was begun anew and as it is `now`, does not. `is_archived` tells which
/// numbers are in the history, and so in no registry by right.
pub fn missing(
    known: &Registry,
    begun: &Registry,
    now: &Registry,
    me: &ServerId,
    is_archived: impl Fn(u64) -> bool,
) -> Vec<Entry> {
    // Whose last change is older than what it was begun with slept meanwhile.
    let is_awake = known.seq >= begun.seq;
    let lacks = |worker: &&Arc<Worker>| {
        worker.number().is_some_and(|number| match (begun.by_number(number), now.by_number(number)) {
            (_, None) => !is_archived(number),
            (_, Some(there)) if there.id != worker.id => false,
            // What was changed since it was begun anew is as new as can be, unless an attempt is missing from it.
            (Some(begun), Some(there)) if is_awake && begun == there => {
                there != *worker && progress(there) <= progress(worker)
            }
            (_, Some(there)) => progress(there) < progress(worker),
        })
    };
    let workers: Vec<Arc<Worker>> = known.workers().filter(lacks).cloned().collect();
    let mut entries = Vec::new();
    if let Some(server) = known.servers.get(me).filter(|_| !now.servers.contains_key(me)) {
        entries.push(Entry::ServerJoined { boss: server.boss.clone(), directory: server.directory.clone() });
    }
    if let (Some(branch), None) = (&known.integration_branch, &now.integration_branch) {
        entries.push(Entry::IntegrationBranch { branch: branch.clone() });
    }
    if !workers.is_empty() {
        entries.push(Entry::Recalled { workers });
    }
    entries
}

/// Who is called otherwise under the same number in both: one of them was given while the other was not known.
pub fn conflicts<'a>(known: &'a Registry, now: &'a Registry) -> impl Iterator<Item = &'a Arc<Worker>> {
    known.workers().filter(|worker| {
        worker.number().and_then(|number| now.by_number(number)).is_some_and(|there| there.id != worker.id)
    })
}

fn progress(worker: &Worker) -> (usize, u32) {
    (worker.settled.len(), worker.attempt)
}
