//! A clock that cannot be set and is the same for all processes of this host. Durations are measured by it. The time of
//! day is only displayed.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Returns the time since a moment that is the same for all processes of this host, such as its start.
pub fn monotonic() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or_default())
}
