//! A clock that nobody can set, the same for all processes of this host: what lasts is measured by it. The time of day is
//! for people to read, and decides nothing.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Since this host was started, or some other moment that is the same for all of its processes.
pub fn monotonic() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or_default())
}
