//! The usage of a running attempt, as its supervisor reports it.

use std::time::Duration;

use crate::attempt::status::LiveStatus;
use crate::mission::budget::Spent;
use crate::mission::entry::Start;
use crate::mission::registry::Worker;

/// Returns the usage of a running attempt. In a resumed session, the usage of earlier attempts is not counted.
pub(super) fn so_far(worker: &Worker, status: &LiveStatus) -> Spent {
    let ran = match status.began {
        // A supervisor of an older build leaves zero.
        Duration::ZERO => Duration::ZERO,
        _ => status.ran(),
    };
    let spent = Spent::of(&status.usage, ran.as_secs());
    let goes_on = matches!(worker.next.start, Start::Resume { .. });
    match worker.last().filter(|last| goes_on && last.usage_is_cumulative) {
        Some(last) => spent.since(&last.usage),
        None => spent,
    }
}
