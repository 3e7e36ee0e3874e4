//! At-least-once delivery of notifications to a boss. Every settlement and block reaches its boss once. It comes a
//! second time, marked, only if nothing shows that the first answer arrived. Pure: time comes in as an argument.
//!
//! [`Notification`] is the journaled state, with all its transitions. [`due`] selects what a wait can answer with.
//! [`Deliveries`] tracks the answers of one server until the boss's next request acknowledges them.
//! [`acknowledge_receipts`] acknowledges what any server sent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::entry::Entry;
use super::graph;
use super::hint::Advice;
use super::id::{BossId, ServerId, TaskId, WorkerId};
use super::lifecycle::WorkerStatus;
pub use super::notification::Notification;
use super::race;
use super::registry::{Registry, Worker};
use super::retry;

/// A request that follows an answer sooner than this may have been sent before the answer arrived (clients call in
/// parallel), so it acknowledges nothing.
const ACKNOWLEDGED_AFTER: Duration = Duration::from_millis(100);

/// The workers that a wait is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// All workers of the boss.
    Mine,
    /// These and no others.
    Named(Vec<WorkerId>),
}

impl Selection {
    pub fn workers<'a>(&self, registry: &'a Registry, boss: &BossId) -> Vec<&'a Arc<Worker>> {
        match self {
            Selection::Mine => registry.workers().filter(|worker| worker.boss == *boss).collect(),
            Selection::Named(ids) => ids.iter().filter_map(|id| registry.get(id)).collect(),
        }
    }
}

/// Notifications that a wait can answer with now, and the number of workers that are still open.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Due<'a> {
    pub settled: Vec<DueSettlement<'a>>,
    pub blocked: Vec<(&'a Arc<Worker>, Advice)>,
    /// Settled workers, if the wait named only workers that were reported before: it must not hang for them.
    pub already_reported: Vec<&'a Arc<Worker>>,
    /// Number of workers that are neither settled nor blocked.
    pub open: usize,
    pub queued: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub struct DueSettlement<'a> {
    pub worker: &'a Arc<Worker>,
    /// True if it was sent before, by a server or connection that is gone, and may have arrived.
    pub redelivered: bool,
    /// True if it is sent only with others, or when nothing is left to wait for: see [`race::ends_quietly`].
    pub is_quiet: bool,
}

impl Due<'_> {
    /// Returns whether a wait must answer at once.
    pub fn is_pressing(&self) -> bool {
        self.settled.iter().any(|settlement| !settlement.is_quiet)
            || !self.blocked.is_empty()
            || !self.already_reported.is_empty()
            || self.open == 0
    }

    /// Returns whether nothing is due and nothing is open.
    pub fn is_exhausted(&self) -> bool {
        self.settled.is_empty() && self.blocked.is_empty() && self.open == 0
    }
}

/// Returns the notifications that are due when `server` asks for a boss.
pub fn due<'a>(registry: &'a Registry, boss: &BossId, selection: &Selection, server: &ServerId) -> Due<'a> {
    let workers = selection.workers(registry, boss);
    let mut due = Due::default();
    for worker in &workers {
        if let Some(why) = graph::block(registry, worker) {
            if worker.block_notification.due(server).is_some() {
                due.blocked.push((worker, why));
            }
        } else if !is_final(worker) {
            due.open += 1;
            due.queued += usize::from(worker.status == WorkerStatus::Queued);
        }
        if let Some(redelivered) = worker.notification.due(server).filter(|_| is_final(worker)) {
            let is_quiet = race::ends_quietly(registry, worker);
            due.settled.push(DueSettlement { worker, redelivered, is_quiet });
        }
    }
    // An answer may have room for a part only, and quiet ones can wait.
    due.settled.sort_by_key(|settlement| settlement.is_quiet);
    if due.is_exhausted() && matches!(selection, Selection::Named(_)) {
        due.already_reported = workers.into_iter().filter(|worker| worker.status.is_settled()).collect();
    }
    due
}

/// Returns whether a worker is settled and no automatic attempt follows.
pub fn is_final(worker: &Worker) -> bool {
    worker.status.is_settled() && retry::automatic(worker).is_none()
}

/// The content of an answer to a wait.
#[derive(Debug, Clone)]
pub struct Content {
    pub settled: Vec<SentSettlement>,
    pub blocked: Vec<TaskId>,
}

#[derive(Debug, Clone)]
pub struct SentSettlement {
    pub worker: WorkerId,
    pub attempt: u32,
    pub redelivered: bool,
}

impl Content {
    pub fn is_empty(&self) -> bool {
        self.settled.is_empty() && self.blocked.is_empty()
    }

    /// Returns whether everything is still due, with the same mark: another server of this boss may have sent it.
    fn is_still_due(&self, due: &Due<'_>) -> bool {
        let is_due = |sent: &SentSettlement| {
            due.settled.iter().any(|it| {
                it.worker.id == sent.worker && it.worker.attempt == sent.attempt && it.redelivered == sent.redelivered
            })
        };
        self.settled.iter().all(is_due)
    }
}

/// An answer that is recorded as sent, and that the boss has not acknowledged yet.
#[derive(Debug)]
pub struct InFlight {
    ticket: u64,
    boss: BossId,
    delivery: u64,
    settled: Vec<(WorkerId, u32)>,
    blocked: Vec<WorkerId>,
    /// Time at which the answer was written to the client. It may have arrived a moment later.
    sent: Option<Instant>,
}

impl InFlight {
    /// Decides, on the newest registry, whether the content may be sent. Returns the entry that records it.
    pub fn begin(
        registry: &Registry,
        server: &ServerId,
        (ticket, boss, selection): (u64, &BossId, &Selection),
        content: &Content,
    ) -> Option<(Entry, Self)> {
        let due = due(registry, boss, selection, server);
        if !content.is_still_due(&due) {
            return None;
        }
        let blocked = due.blocked.iter().filter(|(worker, _)| content.blocked.contains(worker.task()));
        let blocked: Vec<WorkerId> = blocked.map(|(worker, _)| worker.id.clone()).collect();
        let settled: Vec<_> = content.settled.iter().map(|it| (it.worker.clone(), it.attempt)).collect();
        let entry = Entry::Notified { boss: boss.clone(), settled: settled.clone(), blocked: blocked.clone() };
        let delivery = registry.seq + 1;
        Some((entry, Self { ticket, boss: boss.clone(), delivery, settled, blocked, sent: None }))
    }
}

/// Returns the receipt of a worker's settlement, the same in every server. `None` while the worker is open. A boss that
/// hands it back has the settlement.
pub fn receipt(worker: &Worker) -> Option<String> {
    let last = worker.last().filter(|_| worker.status.is_settled())?;
    let number = WorkerId::number_in(worker.id.as_str())?;
    // The nanoseconds distinguish it from one that was guessed or comes from another state directory.
    Some(format!("r-{number}-{}-{:x}", last.attempt, last.settled_at.subsec_nanosecond()))
}

/// Returns the entries that acknowledge the settlements of a boss by their receipts, whichever server sent them.
/// Receipts that are unknown, of an earlier attempt or already acknowledged have no effect.
pub fn acknowledge_receipts(registry: &Registry, boss: &BossId, receipts: &[String]) -> Vec<Entry> {
    let is_new = |worker: &&Arc<Worker>| {
        worker.boss == *boss
            && worker.notification != Notification::Acknowledged
            && receipt(worker).is_some_and(|receipt| receipts.iter().any(|text| text.trim() == receipt))
    };
    let settled: Vec<_> = registry.workers().filter(is_new).map(|worker| (worker.id.clone(), worker.attempt)).collect();
    if settled.is_empty() {
        return Vec::new();
    }
    // The journal may have lost that it was sent, and what was never sent cannot be acknowledged.
    let sent = Entry::Notified { boss: boss.clone(), settled: settled.clone(), blocked: Vec::new() };
    vec![sent, Entry::Acknowledged { deliveries: Vec::new(), settled, blocked: Vec::new() }]
}

/// The answers of this server that are in flight.
#[derive(Debug, Default)]
pub struct Deliveries {
    in_flight: Vec<InFlight>,
}

impl Deliveries {
    pub fn add(&mut self, recorded: InFlight) {
        self.in_flight.push(recorded);
    }

    /// Marks the answer of a wait as written to the client. Returns false if it reported nothing.
    pub fn mark_sent(&mut self, ticket: u64, now: Instant) -> bool {
        let answer = self.in_flight.iter_mut().find(|it| it.ticket == ticket);
        answer.map(|it| it.sent = Some(now)).is_some()
    }

    /// Forgets an answer that was not sent. Returns the entry that makes its content due again.
    pub fn withdraw(&mut self, ticket: u64) -> Option<Entry> {
        let at = self.in_flight.iter().position(|it| it.ticket == ticket && it.sent.is_none())?;
        Some(Entry::Withdrawn { delivery: self.in_flight.swap_remove(at).delivery })
    }

    /// Returns the entry for the answers that a request of this boss acknowledges, and forgets them.
    pub fn acknowledge(&mut self, boss: &BossId, now: Instant) -> Option<Entry> {
        let has_arrived = |it: &InFlight| {
            it.boss == *boss && it.sent.is_some_and(|sent| now.saturating_duration_since(sent) >= ACKNOWLEDGED_AFTER)
        };
        let arrived: Vec<InFlight> = self.in_flight.extract_if(.., |it| has_arrived(it)).collect();
        (!arrived.is_empty()).then(|| Entry::Acknowledged {
            deliveries: arrived.iter().map(|it| it.delivery).collect(),
            settled: arrived.iter().flat_map(|it| it.settled.clone()).collect(),
            blocked: arrived.iter().flat_map(|it| it.blocked.clone()).collect(),
        })
    }

    /// Returns whether an answer to this boss may still be withdrawn.
    pub fn has_unsent(&self, boss: &BossId) -> bool {
        self.in_flight.iter().any(|it| it.boss == *boss && it.sent.is_none())
    }
}

#[cfg(test)]
mod tests;
