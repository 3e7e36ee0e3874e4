//! Single-flight: one slow query serves all requests that were made before it began.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

#[derive(Debug)]
pub struct SingleFlight<T> {
    /// The last answer, and the time at which its query began.
    last: Mutex<Option<(Instant, T)>>,
}

impl<T> Default for SingleFlight<T> {
    fn default() -> Self {
        Self { last: Mutex::default() }
    }
}

impl<T: Clone> SingleFlight<T> {
    /// Returns an answer whose query began after `asked`. Concurrent requests wait for one query. `None` if the query
    /// failed; the next request repeats it.
    pub fn since(&self, asked: Instant, query: impl FnOnce() -> Option<T>) -> Option<T> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, seen)) = last.as_ref().filter(|(began, _)| *began >= asked) {
            return Some(seen.clone());
        }
        let began = Instant::now();
        let seen = query()?;
        *last = Some((began, seen.clone()));
        Some(seen)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn query_serves_only_earlier_requests() {
        let queries = AtomicUsize::new(0);
        let shared = SingleFlight::default();
        let query = || Some(queries.fetch_add(1, Ordering::Relaxed) + 1);
        let early = Instant::now();
        // A request during the query must get an answer from after that.
        let mut during = early;
        let first = shared.since(early, || {
            during = Instant::now();
            query()
        });
        assert_eq!((first, shared.since(early, query)), (Some(1), Some(1)));
        assert_eq!((shared.since(during, query), shared.since(during, query)), (Some(2), Some(2)));
        assert_eq!(shared.since(early, query), Some(2), "a newer answer serves as well");
        let later = Instant::now();
        assert_eq!(shared.since(later, || None), None);
        assert_eq!(shared.since(later, query), Some(3), "the query is repeated");
    }

    #[test]
    fn concurrent_requests_share_one_query() {
        let queries = AtomicUsize::new(0);
        let shared = SingleFlight::default();
        let asked = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| shared.since(asked, || Some(queries.fetch_add(1, Ordering::Relaxed))));
            }
        });
        assert_eq!(queries.load(Ordering::Relaxed), 1);
    }
}
