//! One clock for all processes of a measurement.

use rustix::time::{ClockId, clock_gettime};

/// CLOCK_MONOTONIC in nanoseconds, the same in every process.
pub fn now() -> u64 {
    nanoseconds(ClockId::Monotonic)
}

/// Nanoseconds since 1970, to compare with what is written into logs.
pub fn wall() -> u64 {
    nanoseconds(ClockId::Realtime)
}

/// From a stamp to a later one, in milliseconds.
pub fn between(from: u64, to: u64) -> f64 {
    (to as f64 - from as f64) / 1e6
}

fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
