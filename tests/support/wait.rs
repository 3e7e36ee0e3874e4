//! Polling of conditions that depend on other processes, with a ceiling instead of a sleep.

use std::path::Path;
use std::time::{Duration, Instant};

/// The longest wait for a condition. A condition that takes longer counts as never true.
pub const CEILING: Duration = Duration::from_secs(90);

const INTERVAL: Duration = Duration::from_millis(10);

/// Waits until the condition holds.
#[track_caller]
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    until_some(what, || condition().then_some(()));
}

/// Waits until the condition returns a value, and returns it.
#[track_caller]
pub fn until_some<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(began.elapsed() < CEILING, "not within {} s: {what}", CEILING.as_secs());
        std::thread::sleep(INTERVAL);
    }
}

#[track_caller]
pub fn until_exists(path: &Path) {
    until(&format!("{} exists", path.display()), || path.exists());
}

/// Returns whether the condition became true before the ceiling. Does not block the runtime.
pub async fn in_time(mut condition: impl AsyncFnMut() -> bool) -> bool {
    let reached = async {
        while !condition().await {
            tokio::time::sleep(INTERVAL).await;
        }
    };
    tokio::time::timeout(CEILING, reached).await.is_ok()
}

/// Waits until the condition returns a value, and returns it. Does not block the runtime.
pub async fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let mut found = None;
    let in_time = in_time(async || {
        found = condition();
        found.is_some()
    });
    assert!(in_time.await, "not within {} s: {what}", CEILING.as_secs());
    found.expect("the condition returned a value")
}
