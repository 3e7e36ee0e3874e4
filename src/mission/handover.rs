//! Which news a boss is owed: every settlement reaches it once, and a second time only, and marked, where nothing shows
//! that the first answer arrived. Pure.

use std::sync::Arc;

use super::graph;
use super::hint::Advice;
use super::id::{BossId, ServerId, WorkerId};
use super::race;
use super::registry::{Registry, Report, Worker};
use super::retry;

/// Whose news a wait asks for.
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

/// What a wait can answer with now.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct News<'a> {
    pub settled: Vec<Settlement<'a>>,
    pub blocked: Vec<(&'a Arc<Worker>, Advice)>,
    /// The wait named only workers whose news had been delivered: it must not hang for them.
    pub already_reported: Vec<&'a Arc<Worker>>,
    /// Not settled and not blocked.
    pub open: usize,
    pub queued: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Settlement<'a> {
    pub worker: &'a Arc<Worker>,
    /// It was offered before, by a server or connection that is gone, and may have arrived.
    pub redelivered: bool,
    /// Told with other news, or when there is nothing left to wait for: see [`race::ends_quietly`].
    pub is_quiet: bool,
}

impl News<'_> {
    /// A wait must answer at once.
    pub fn is_pressing(&self) -> bool {
        self.settled.iter().any(|settlement| !settlement.is_quiet)
            || !self.blocked.is_empty()
            || !self.already_reported.is_empty()
            || self.open == 0
    }
}

/// `server` is the one that asks: what it offered itself is on its way, what another one offered may be lost.
pub fn news<'a>(registry: &'a Registry, boss: &BossId, selection: &Selection, server: &ServerId) -> News<'a> {
    let workers = selection.workers(registry, boss);
    let mut news = News::default();
    for worker in &workers {
        if let Some(why) = graph::block(registry, worker) {
            if due(&worker.block_report, server).is_some() {
                news.blocked.push((worker, why));
            }
        } else if !is_final(worker) {
            news.open += 1;
            news.queued += usize::from(worker.status == super::lifecycle::WorkerStatus::Queued);
        }
        if let Some(redelivered) = due(&worker.report, server).filter(|_| is_final(worker)) {
            let is_quiet = race::ends_quietly(registry, worker);
            news.settled.push(Settlement { worker, redelivered, is_quiet });
        }
    }
    // First what was waited for, of which an answer may have room for a part only.
    news.settled.sort_by_key(|settlement| settlement.is_quiet);
    let quiet = news.settled.is_empty() && news.blocked.is_empty() && news.open == 0;
    if quiet && matches!(selection, Selection::Named(_)) {
        news.already_reported = workers.into_iter().filter(|worker| worker.status.is_settled()).collect();
    }
    news
}

/// Settled, and no further attempt follows by itself.
pub fn is_final(worker: &Worker) -> bool {
    worker.status.is_settled() && retry::automatic(worker).is_none()
}

/// `None`: nothing to report. `Some(true)`: to report once more.
fn due(report: &Report, server: &ServerId) -> Option<bool> {
    match report {
        Report::Due => Some(false),
        Report::Unproven => Some(true),
        Report::Offered { server: by, .. } if by != server => Some(true),
        Report::Offered { .. } | Report::Delivered => None,
    }
}

#[cfg(test)]
mod tests;
