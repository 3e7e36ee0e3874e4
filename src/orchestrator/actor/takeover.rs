//! Takeovers from servers that are gone: their leases, exactly once, by the first server that notices, and their
//! unfinished work. A worker keeps its boss, except that the next boss without a session inherits from the last.

use std::path::Path;
use std::sync::Arc;

use super::{Actor, Effect};
use crate::attempt::inbox::Instruction;
use crate::attempt::launch::PassedEnvironment;
use crate::attempt::servers::Servers;
use crate::crash_point::{self, Point};
use crate::mission::delivery;
use crate::mission::entry::{AttemptSummary, Entry};
use crate::mission::id::{BossId, ServerId, WorkerId};
use crate::mission::lifecycle::WorkerStatus;
use crate::mission::registry::{Registry, Worker};
use crate::orchestrator::context::Context;
use crate::orchestrator::follow;
use crate::orchestrator::views::lacks;

impl Actor {
    /// Checks for dead servers, which is cheap when there are none. Called at the start and every few seconds.
    pub(super) fn take_over(&mut self) {
        if self.is_one_shot() {
            self.settle_unowned();
            if self.cancellations.is_empty() {
                return;
            }
        }
        if !self.state.records.is_open() {
            return;
        }
        if !self.is_one_shot() {
            let _runtime = self.runtime.enter();
            self.state.context.clusters.check_for_ended_attempts();
        }
        self.state.records.catch_up();
        let me = self.state.context.server.clone();
        let heir = self.state.context.anonymous
            && !predecessors(self.registry(), &me, &[], &self.state.context.directory).is_empty();
        let context = Arc::clone(&self.state.context);
        // A worker whose key is missing here waits for a server that has it.
        let cancellations = &self.cancellations;
        let can_own = |worker: &Worker| {
            if context.is_one_shot {
                // A one-shot client takes over only the workers that it is to end.
                cancellations.is_awaited(&worker.id)
            } else {
                worker.status != WorkerStatus::Queued || lacks(&context, worker).is_none()
            }
        };
        if !heir && !anything_left(self.registry(), &context, can_own) {
            return;
        }
        let (boss, directory, anonymous) =
            (self.state.context.boss.clone(), self.state.context.directory.clone(), self.state.context.anonymous);
        let taken = self.state.records.transact(|registry| {
            let mut dead = dead_servers(registry, &me, &context.servers);
            let left: Vec<WorkerId> =
                orphans(registry, &me, &dead).filter(|it| can_own(it)).map(|worker| worker.id.clone()).collect();
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
            if context.is_one_shot {
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
                    self.state.context.servers.remove(&server);
                }
                self.settle_found(&workers);
                self.cancel_again(&workers);
                self.follow_again();
            }
            Err(error) => tracing::error!(%error, "cannot take over from a dead server; retrying"),
        }
    }

    /// Settles what ended while no server was alive, for a one-shot client. The leases stay, and the next server does
    /// the rest.
    fn settle_unowned(&mut self) {
        let (registry, context) = (self.registry(), &self.state.context);
        let me = &context.server;
        if !registry.workers().any(|worker| worker.status.is_live() && worker.lease != *me) {
            return;
        }
        let dead = dead_servers(registry, me, &context.servers);
        let unowned: Vec<WorkerId> = orphans(registry, me, &dead).map(|worker| worker.id.clone()).collect();
        self.settle_found(&unowned);
    }

    /// Settles the workers that ended while no server followed them, all at once, before any request is answered.
    fn settle_found(&mut self, workers: &[WorkerId]) {
        let Some(dir) = self.state.records.dir().cloned() else { return };
        let live = workers.iter().filter_map(|id| self.registry().get(id)).filter(|worker| worker.status.is_live());
        let found = live.filter_map(|worker| {
            // The follower of the attempt reports a record that cannot be read.
            let attempt = dir.worker(&worker.id).attempt(worker.attempt);
            let outcome = attempt.outcome().ok().flatten()?;
            PassedEnvironment::remove(attempt.root());
            let brief = Box::new(AttemptSummary::of(&outcome, worker.next.model.clone()));
            Some((worker.attempt, Entry::Settled { worker: worker.id.clone(), brief }))
        });
        let found: Vec<(u32, Entry)> = found.collect();
        if found.is_empty() {
            return;
        }
        let context = Arc::clone(&self.state.context);
        let (me, is_one_shot) = (context.server.clone(), context.is_one_shot);
        let settled = self.state.records.transact(|registry| {
            let has_server = |worker: &Worker| {
                registry.servers.contains_key(&worker.lease) && context.servers.is_alive(&worker.lease)
            };
            let is_ours = |worker: &Worker| worker.lease == me || (is_one_shot && !has_server(worker));
            let is_still = |(attempt, entry): &(u32, Entry)| {
                let Entry::Settled { worker, .. } = entry else { return false };
                let worker = registry.get(worker);
                worker.is_some_and(|it| is_ours(it) && it.attempt == *attempt && it.status.is_live())
            };
            (found.into_iter().filter(is_still).map(|(_, entry)| entry).collect(), ())
        });
        if let Err(error) = settled {
            tracing::error!(%error, "cannot save the ends of workers; they are followed one by one");
        }
    }

    /// Repeats cancellations: a server may have died between recording one and notifying the supervisor.
    fn cancel_again(&mut self, workers: &[WorkerId]) {
        let live = workers.iter().filter_map(|id| self.registry().get(id)).filter(|it| it.status.is_live());
        let cancelled = live.filter_map(|worker| {
            let instruction = Instruction::Cancel { reason: worker.cancel.clone()? };
            Some(Effect::Post { worker: Arc::clone(worker), by: worker.cancelled_by, instruction })
        });
        let effects = cancelled.collect();
        self.apply(effects);
    }

    /// Follows the workers of this server that no task follows. It has taken them over, or could not follow them for a
    /// while (a full disk, too many open files). Queued workers are started as usual.
    pub(super) fn follow_again(&mut self) {
        self.following.retain(|_, task| !task.is_finished());
        let me = &self.state.context.server;
        // A one-shot client follows the workers that it cancels, whichever server owns the lease, since that server may
        // hang. A starting worker is left to its server, which would find the attempt claimed.
        let is_ended = |worker: &Worker| {
            self.is_one_shot() && worker.status != WorkerStatus::Starting && self.cancellations.is_awaited(&worker.id)
        };
        let is_mine = |worker: &&Arc<Worker>| worker.status.is_live() && (worker.lease == *me || is_ended(worker));
        let mine = self.registry().workers().filter(is_mine);
        let alone: Vec<_> = mine.filter(|worker| !self.following.contains_key(&worker.id)).cloned().collect();
        for worker in alone {
            let Some(attempt) = self.state.records.dir().map(|dir| dir.worker(&worker.id).attempt(worker.attempt))
            else {
                continue;
            };
            let reporter = follow::Reporter::new(self.mailbox.clone(), &worker);
            let (context, id) = (Arc::clone(&self.state.context), worker.id.clone());
            let task = async move { follow::follow(&context, attempt, worker, reporter, false).await };
            self.following.insert(id, self.runtime.spawn(task));
        }
    }
}

fn anything_left(registry: &Registry, context: &Context, can_own: impl Fn(&Worker) -> bool) -> bool {
    let me = &context.server;
    let dead = dead_servers(registry, me, &context.servers);
    (!dead.is_empty() && !context.is_one_shot) || orphans(registry, me, &dead).any(|worker| can_own(worker))
}

/// Returns the server that owns a worker which a one-shot client has queued. It is the last lease owner if it is alive,
/// or else another server of its boss.
pub(super) fn lease_owner(registry: &Registry, worker: &Worker, servers: &Servers) -> Option<ServerId> {
    let last = registry.servers.get_key_value(&worker.lease);
    let of_boss = registry.servers.iter().filter(|(_, server)| server.boss == worker.boss);
    let mut candidates = last.into_iter().chain(of_boss).filter(|(_, server)| !server.boss.is_one_shot_client());
    candidates.find(|(id, _)| servers.is_alive(id)).map(|(id, _)| id.clone())
}

fn dead_servers(registry: &Registry, me: &ServerId, servers: &Servers) -> Vec<ServerId> {
    let others = registry.servers.keys().filter(|server| *server != me);
    others.filter(|server| !servers.is_alive(server)).cloned().collect()
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
