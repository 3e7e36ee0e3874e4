//! At-least-once delivery of notifications to a boss. Every settlement and block reaches its boss once. It comes a
//! second time, marked, only if nothing shows that the first answer arrived. Pure: time comes in as an argument.
//!
//! [`Notification`] is the journaled state, with all its transitions. [`due`] selects what a wait can answer with.
//! [`Deliveries`] tracks the answers of one server until the boss's next request acknowledges them.
//! [`acknowledge_receipts`] acknowledges what any server sent, and [`acknowledge_waits`] the content of background waits
//! that a conversation shows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::background_wait::BackgroundWait;
use super::entry::Entry;
use super::graph;
use super::hint::Advice;
use super::id::{BossId, ServerId, TaskId, WaitId, WorkerId};
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
    /// Returns the workers of a background wait.
    pub fn of(wait: &BackgroundWait) -> Self {
        if wait.workers.is_empty() { Selection::Mine } else { Selection::Named(wait.workers.clone()) }
    }

    /// Returns the ids of the named workers; none for all workers of the boss.
    pub fn named(&self) -> &[WorkerId] {
        match self {
            Selection::Named(ids) => ids,
            Selection::Mine => &[],
        }
    }

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
            due.queued += usize::from(worker.shown_status(false) == WorkerStatus::Queued);
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
#[derive(Debug, Clone, Default)]
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

    /// Returns the settlements and blocks to record, if the content may be sent according to the newest registry.
    pub fn to_record(
        &self,
        registry: &Registry,
        server: &ServerId,
        boss: &BossId,
        selection: &Selection,
    ) -> Option<Recorded> {
        let due = due(registry, boss, selection, server);
        if !self.is_still_due(&due) {
            return None;
        }
        let blocked = due.blocked.iter().filter(|(worker, _)| self.blocked.contains(worker.task()));
        let blocked = blocked.map(|(worker, _)| worker.id.clone()).collect();
        let settled = self.settled.iter().map(|it| (it.worker.clone(), it.attempt)).collect();
        Some(Recorded { settled, blocked })
    }
}

/// The content of an answer as entries name it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Recorded {
    pub settled: Vec<(WorkerId, u32)>,
    pub blocked: Vec<WorkerId>,
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
        let Recorded { settled, blocked } = content.to_record(registry, server, boss, selection)?;
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

/// Returns the background waits of a boss whose end reported something that is not acknowledged yet.
pub fn unacknowledged_waits(registry: &Registry, boss: &BossId) -> Vec<WaitId> {
    let waits = registry.waits.values().filter(|wait| wait.boss == *boss && is_unacknowledged(registry, wait));
    waits.map(|wait| wait.id.clone()).collect()
}

fn is_unacknowledged(registry: &Registry, wait: &BackgroundWait) -> bool {
    let Some(end) = &wait.end else { return false };
    let is_sent = |(id, attempt): &(WorkerId, u32)| {
        let worker = registry.get(id).filter(|worker| worker.attempt == *attempt);
        worker.is_some_and(|it| !matches!(it.notification, Notification::Pending | Notification::Acknowledged))
    };
    let is_block_sent = |id: &WorkerId| {
        let sent = registry.get(id).map(|worker| &worker.block_notification);
        matches!(sent, Some(Notification::InFlight { delivery, .. }) if *delivery == end.delivery)
    };
    end.settled.iter().any(is_sent) || end.blocked.iter().any(is_block_sent)
}

/// Returns the entries that acknowledge the content of these background waits, since a conversation of the boss shows
/// their ends. Another server may have sent a settlement again; a block may be a later one, so only its own delivery
/// counts.
pub fn acknowledge_waits(registry: &Registry, boss: &BossId, shown: &[WaitId]) -> Vec<Entry> {
    let waits = shown.iter().filter_map(|id| registry.waits.get(id));
    let waits = waits.filter(|wait| wait.boss == *boss && is_unacknowledged(registry, wait));
    let ends: Vec<_> = waits.filter_map(|wait| wait.end.as_ref()).collect();
    if ends.is_empty() {
        return Vec::new();
    }
    let deliveries = ends.iter().map(|end| end.delivery).collect();
    let settled = ends.iter().flat_map(|end| end.settled.clone()).collect();
    vec![Entry::Acknowledged { deliveries, settled, blocked: Vec::new() }]
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
