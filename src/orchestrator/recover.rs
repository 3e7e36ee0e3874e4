//! Taking over from servers that are gone: their leases, exactly once, by whoever notices first; and what they had not
//! finished. Whose worker it is does not change, but for bosses without a session, whose place the next one takes.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use super::actor::Actor;
use super::{follow, schedule};
use crate::attempt::state_dir::StateDir;
use crate::crash_point::{self, Point};
use crate::files::lease;
use crate::mission::delivery;
use crate::mission::entry::{AttemptSummary, Entry};
use crate::mission::id::{BossId, ServerId, WorkerId};
use crate::mission::lifecycle::WorkerStatus;
use crate::mission::registry::{Registry, Worker};

impl Actor {
    /// Looks for dead servers; cheap when there are none. The actor does it at its start and every few seconds.
    pub(super) fn take_over(&mut self) {
        if self.context.visitor {
            self.settle_unled();
            if self.cancels.is_empty() {
                return;
            }
        }
        let Some(dir) = self.state_dir().cloned() else { return };
        self.look_at_journal();
        let me = self.context.server.clone();
        let heir =
            self.context.anonymous && !predecessors(self.registry(), &me, &[], &self.context.directory).is_empty();
        let context = Arc::clone(&self.context);
        // What waits for a key that is not here waits for a server that has it.
        let ends = self.cancels.keys().cloned().collect::<HashSet<_>>();
        let can_lead = |worker: &Worker| match context.visitor {
            // What it was asked to end, and nothing else.
            true => ends.contains(&worker.id),
            false => worker.status != WorkerStatus::Queued || schedule::lacks(&context, worker).is_none(),
        };
        if !heir && !anything_left(self.registry(), &me, context.visitor, &dir, can_lead) {
            return;
        }
        let (boss, directory, anonymous) =
            (self.context.boss.clone(), self.context.directory.clone(), self.context.anonymous);
        let dir_of_locks = dir.clone();
        let taken = self.transact(|registry| {
            let mut dead = dead_servers(registry, &me, &dir);
            let left: Vec<WorkerId> =
                orphans(registry, &me, &dead).filter(|it| can_lead(it)).map(|worker| worker.id.clone()).collect();
            let mut entries = Vec::new();
            if anonymous {
                let from: Vec<BossId> = predecessors(registry, &me, &dead, &directory);
                if !from.is_empty() {
                    entries.push(Entry::BossSucceeded { from, to: boss });
                }
            }
            if !left.is_empty() {
                entries.push(Entry::LeaseTaken { workers: left.clone() });
            }
            if context.visitor {
                dead.clear();
            }
            if !dead.is_empty() {
                entries.push(Entry::ServersGone { servers: dead.clone() });
            }
            (entries, (left, dead))
        });
        match taken {
            Ok((workers, dead)) => {
                crash_point::at(Point::TakenOver);
                for server in dead {
                    let _ = std::fs::remove_file(dir_of_locks.server_lock(&server));
                }
                self.settle_found(&workers);
                self.cancel_again(&workers);
                self.follow_again();
            }
            Err(error) => tracing::error!(%error, "could not take over from a dead server; trying again"),
        }
    }

    /// Settles what ended while no server lived, for a one-shot client, which leads nothing: the leases stay, and the
    /// next server does the rest.
    fn settle_unled(&mut self) {
        let Some(dir) = self.state_dir() else { return };
        let (registry, me) = (self.registry(), &self.context.server);
        if !registry.workers().any(|worker| worker.status.is_live() && worker.lease != *me) {
            return;
        }
        let dead = dead_servers(registry, me, dir);
        let unled: Vec<WorkerId> = orphans(registry, me, &dead).map(|worker| worker.id.clone()).collect();
        self.settle_found(&unled);
    }

    /// Settles the workers that ended while no server followed them, all at once, before any request is answered.
    fn settle_found(&mut self, workers: &[WorkerId]) {
        let Some(dir) = self.state_dir().cloned() else { return };
        let live = workers.iter().filter_map(|id| self.registry().get(id)).filter(|worker| worker.status.is_live());
        let found = live.filter_map(|worker| {
            // One that cannot be read is told by following it.
            let outcome = dir.worker(&worker.id).attempt(worker.attempt).outcome().ok().flatten()?;
            let brief = Box::new(AttemptSummary::of(&outcome, worker.next.model.clone()));
            Some((worker.attempt, Entry::Settled { worker: worker.id.clone(), brief }))
        });
        let found: Vec<(u32, Entry)> = found.collect();
        if found.is_empty() {
            return;
        }
        let (me, visitor) = (self.context.server.clone(), self.context.visitor);
        let settled = self.transact(|registry| {
            let has_server = |worker: &Worker| {
                registry.servers.contains_key(&worker.lease) && lease::is_held(&dir.server_lock(&worker.lease))
            };
            let is_ours = |worker: &Worker| worker.lease == me || (visitor && !has_server(worker));
            let is_still = |(attempt, entry): &(u32, Entry)| {
                let Entry::Settled { worker, .. } = entry else { return false };
                let worker = registry.get(worker);
                worker.is_some_and(|it| is_ours(it) && it.attempt == *attempt && it.status.is_live())
            };
            (found.into_iter().filter(is_still).map(|(_, entry)| entry).collect(), ())
        });
        if let Err(error) = settled {
            tracing::error!(%error, "could not save what became of workers; they are looked at one by one");
        }
    }

    /// Repeats cancellations: a server may have died between recording one and notifying the supervisor.
    fn cancel_again(&self, workers: &[WorkerId]) {
        for worker in workers.iter().filter_map(|id| self.registry().get(id)).filter(|it| it.status.is_live()) {
            let Some(reason) = &worker.cancel else { continue };
            if let Err(error) = self.post_cancel(worker, worker.cancelled_by, reason) {
                tracing::error!(worker = %worker.id, %error, "could not tell a supervisor of a cancellation");
            }
        }
    }

    /// Follows the workers of this server that no task follows. It has taken them over, or could not follow them for a
    /// while (a full disk, too many open files). Queued workers are started as usual.
    pub(super) fn follow_again(&mut self) {
        self.following.retain(|_, task| !task.is_finished());
        let me = &self.context.server;
        // A one-shot client follows the workers that it cancels, whichever server owns the lease, since that server may
        // hang. A starting worker is left to its server, which would find the attempt claimed.
        let is_ended = |worker: &Worker| {
            self.context.visitor && worker.status != WorkerStatus::Starting && self.cancels.contains_key(&worker.id)
        };
        let is_mine = |worker: &&Arc<Worker>| worker.status.is_live() && (worker.lease == *me || is_ended(worker));
        let mine = self.registry().workers().filter(is_mine);
        let alone: Vec<_> = mine.filter(|worker| !self.following.contains_key(&worker.id)).cloned().collect();
        for worker in alone {
            let Some(attempt) = self.state_dir().map(|dir| dir.worker(&worker.id).attempt(worker.attempt)) else {
                continue;
            };
            let reporter = follow::Reporter::new(self.mailbox.clone(), &worker);
            let task = self.runtime.spawn(follow::follow(attempt, Arc::clone(&worker), reporter));
            self.following.insert(worker.id.clone(), task);
        }
    }
}

fn anything_left(
    registry: &Registry,
    me: &ServerId,
    visits: bool,
    dir: &StateDir,
    can_lead: impl Fn(&Worker) -> bool,
) -> bool {
    let dead = dead_servers(registry, me, dir);
    (!dead.is_empty() && !visits) || orphans(registry, me, &dead).any(|worker| can_lead(worker))
}

/// Returns the server that owns a worker which a one-shot client has queued. It is the last lease owner if it is alive,
/// or else another server of its boss.
pub(super) fn leader(registry: &Registry, worker: &Worker, dir: &StateDir) -> Option<ServerId> {
    let last = registry.servers.get_key_value(&worker.lease);
    let of_boss = registry.servers.iter().filter(|(_, server)| server.boss == worker.boss);
    let mut candidates = last.into_iter().chain(of_boss).filter(|(_, server)| !server.boss.is_one_shot_client());
    candidates.find(|(id, _)| lease::is_held(&dir.server_lock(id))).map(|(id, _)| id.clone())
}

/// A server lives as long as it holds the lock on its file.
fn dead_servers(registry: &Registry, me: &ServerId, dir: &StateDir) -> Vec<ServerId> {
    let others = registry.servers.keys().filter(|server| *server != me);
    others.filter(|server| !lease::is_held(&dir.server_lock(server))).cloned().collect()
}

/// Workers whose server is dead, or went in order, and that are open or about to be tried again.
fn orphans<'a>(
    registry: &'a Registry,
    me: &'a ServerId,
    dead: &'a [ServerId],
) -> impl Iterator<Item = &'a Arc<Worker>> {
    registry.workers().filter(move |worker| {
        let gone = dead.contains(&worker.lease) || !registry.servers.contains_key(&worker.lease);
        !delivery::is_final(worker) && worker.lease != *me && gone
    })
}

/// Bosses without a session that worked in this directory and whose servers are gone.
fn predecessors(registry: &Registry, me: &ServerId, dead: &[ServerId], directory: &Path) -> Vec<BossId> {
    let lives = |boss: &BossId| {
        let mut servers = registry.servers.keys().filter(|server| !dead.contains(server));
        boss.is_of(me) || servers.any(|server| boss.is_of(server))
    };
    let here = registry.anonymous.iter().filter(|(boss, place)| *place == directory && !lives(boss));
    here.map(|(boss, _)| boss.clone()).collect()
}
