//! A look at something slow, that serves all who asked for it before it began.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

#[derive(Debug)]
pub struct SharedLook<T> {
    /// What was seen last, and when that look began.
    last: Mutex<Option<(Instant, T)>>,
}

impl<T> Default for SharedLook<T> {
    fn default() -> Self {
        Self { last: Mutex::default() }
    }
}

impl<T: Clone> SharedLook<T> {
    /// What is there, as seen at some time after `asked`. Many who ask at once wait here for one look. `None`: it could not
    /// be looked, and whoever comes next tries again.
    pub fn since(&self, asked: Instant, look: impl FnOnce() -> Option<T>) -> Option<T> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, seen)) = last.as_ref().filter(|(began, _)| *began >= asked) {
            return Some(seen.clone());
        }
        let began = Instant::now();
        let seen = look()?;
        *last = Some((began, seen.clone()));
        Some(seen)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn one_look_serves_all_who_asked_before_it_began_and_nobody_who_asked_later() {
        let looks = AtomicUsize::new(0);
        let shared = SharedLook::default();
        let look = || Some(looks.fetch_add(1, Ordering::Relaxed) + 1);
        let early = Instant::now();
        // While it was looked, somebody asked: he must see what came after that.
        let mut during = early;
        let first = shared.since(early, || {
            during = Instant::now();
            look()
        });
        assert_eq!((first, shared.since(early, look)), (Some(1), Some(1)));
        assert_eq!((shared.since(during, look), shared.since(during, look)), (Some(2), Some(2)));
        assert_eq!(shared.since(early, look), Some(2), "what is newer serves as well");
        let later = Instant::now();
        assert_eq!(shared.since(later, || None), None);
        assert_eq!(shared.since(later, look), Some(3), "it is tried again");
    }

    #[test]
    fn those_who_come_at_once_wait_for_one_look() {
        let looks = AtomicUsize::new(0);
        let shared = SharedLook::default();
        let asked = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| shared.since(asked, || Some(looks.fetch_add(1, Ordering::Relaxed))));
            }
        });
        assert_eq!(looks.load(Ordering::Relaxed), 1);
    }
}
