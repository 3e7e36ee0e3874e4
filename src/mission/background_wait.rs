//! Waits that go on in the background: the call was answered, and the client polls for the end. Any server of the state
//! directory can answer. Data only; `fold` applies the entries, `delivery` decides. Pure.
//!
//! The id is a capability: a client does not name the boss for which it asks, so any caller with the id gets the answer.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::id::{BossId, WaitId, WorkerId};

/// Maximum number of waits in the registry. The answer of an older one is still in its file.
const MAX_WAITS: usize = 200;
/// Maximum number of workers that a description names.
const NAMED: usize = 3;

/// A wait whose call was answered before it ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackgroundWait {
    pub id: WaitId,
    pub boss: BossId,
    /// Empty: all workers of the boss.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workers: Vec<WorkerId>,
    pub opened_at: Timestamp,
    /// Time at which it ends, even if nothing has happened.
    pub deadline: Timestamp,
    /// `None`: it is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<WaitEnd>,
}

/// The end of a wait, after which its answer never changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WaitEnd {
    /// The sequence number of the entry, which identifies the delivery.
    pub delivery: u64,
    /// The settlements and blocks in its answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settled: Vec<(WorkerId, u32)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocked: Vec<WorkerId>,
    /// The reason, if it was cancelled and so reported nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled: Option<String>,
}

impl BackgroundWait {
    pub fn is_open(&self) -> bool {
        self.end.is_none()
    }

    /// Describes it for a conversation that does not show its beginning, since another one began it or was cleared.
    pub fn purpose(&self) -> String {
        let mut text = format!("wait in the background since {}, for ", self.opened_at.strftime("%H:%M UTC"));
        match self.workers.as_slice() {
            [] => text.push_str("all your workers"),
            named => {
                let names: Vec<&str> = named.iter().take(NAMED).map(WorkerId::as_str).collect();
                text.push_str(&names.join(", "));
                if let Some(more @ 1..) = named.len().checked_sub(NAMED) {
                    let _ = write!(text, " and {more} more");
                }
            }
        }
        text
    }
}

/// Returns the id of a wait for these workers. `open` of `all` have not settled.
pub fn name(workers: &[WorkerId], open: usize, all: usize, suffix: &str) -> WaitId {
    match workers {
        [one] => WaitId::new(one.as_str(), suffix),
        _ => WaitId::new(&format!("any-{open}-of-{all}"), suffix),
    }
}

/// Returns the waits to forget before another one is opened: the oldest that have ended, or else the oldest.
pub(super) fn to_forget<'a>(waits: impl ExactSizeIterator<Item = &'a BackgroundWait>) -> Vec<WaitId> {
    let excess = (waits.len() + 1).saturating_sub(MAX_WAITS);
    if excess == 0 {
        return Vec::new();
    }
    let mut waits: Vec<&BackgroundWait> = waits.collect();
    waits.sort_by_key(|wait| (wait.is_open(), wait.opened_at));
    waits.into_iter().take(excess).map(|wait| wait.id.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(id: &str, second: i64, is_open: bool) -> BackgroundWait {
        let end = WaitEnd { delivery: 1, settled: Vec::new(), blocked: Vec::new(), cancelled: None };
        BackgroundWait {
            id: WaitId::from(id),
            boss: BossId::from("b"),
            workers: Vec::new(),
            opened_at: Timestamp::from_second(second).unwrap(),
            deadline: Timestamp::MAX,
            end: (!is_open).then_some(end),
        }
    }

    #[test]
    fn name_says_what_the_wait_is_for() {
        let worker = WorkerId::new(3, "Fix parser");
        let cases = [
            (name(std::slice::from_ref(&worker), 1, 1, "k7f2"), "wait-w-3-fix-parser-k7f2"),
            (name(&[], 3, 5, "k7f2"), "wait-any-3-of-5-k7f2"),
            (name(&[worker.clone(), worker], 2, 2, "k7f2"), "wait-any-2-of-2-k7f2"),
        ];
        for (id, text) in cases {
            assert_eq!(id.as_str(), text);
            assert_eq!(WaitId::parse(text), Some(id));
        }
    }

    #[test]
    fn ended_waits_are_forgotten_first() {
        let mut waits: Vec<BackgroundWait> =
            (0..MAX_WAITS as i64).map(|n| wait(&format!("wait-{n}"), n, n != 7)).collect();
        assert_eq!(to_forget(waits[1..].iter()), []);
        assert_eq!(to_forget(waits.iter()), [WaitId::from("wait-7")]);
        waits[7].end = None;
        assert_eq!(to_forget(waits.iter()), [WaitId::from("wait-0")]);
    }

    #[test]
    fn purpose_names_the_workers() {
        let mut wait = wait("wait-a", 0, true);
        assert_eq!(wait.purpose(), "wait in the background since 00:00 UTC, for all your workers");
        wait.workers = (1..=5).map(|number| WorkerId::new(number, "a")).collect();
        assert!(wait.purpose().ends_with("for w-1-a, w-2-a, w-3-a and 2 more"), "{}", wait.purpose());
    }
}
