//! One clock for all processes of a measurement.

use rustix::time::{ClockId, clock_gettime};

/// Returns CLOCK_MONOTONIC in nanoseconds, which is the same in every process.
pub fn now() -> u64 {
    nanoseconds(ClockId::Monotonic)
}

/// Returns nanoseconds since 1970, for comparison with logs.
pub fn wall() -> u64 {
    nanoseconds(ClockId::Realtime)
}

/// Returns the milliseconds between two times.
pub fn between(from: u64, to: u64) -> f64 {
    (to as f64 - from as f64) / 1e6
}

fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
