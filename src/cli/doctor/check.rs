//! One thing that was looked at, and how to look at things that may hang.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    Ok,
    /// A neutral fact.
    Note,
    /// A fact worth knowing, although a run would work.
    Warn,
    /// A defect.
    Bad,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Check {
    pub name: String,
    pub mark: Mark,
    pub says: String,
    /// Commands that fix it, or help to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fix: Vec<String>,
    /// True if nothing can run until it is fixed.
    #[serde(skip)]
    pub stops_all: bool,
}

impl Check {
    fn new(mark: Mark, name: &str, says: impl Into<String>) -> Self {
        Self { name: name.to_owned(), mark, says: says.into(), fix: Vec::new(), stops_all: false }
    }

    pub fn ok(name: &str, says: impl Into<String>) -> Self {
        Self::new(Mark::Ok, name, says)
    }

    pub fn note(name: &str, says: impl Into<String>) -> Self {
        Self::new(Mark::Note, name, says)
    }

    pub fn warn(name: &str, says: impl Into<String>) -> Self {
        Self::new(Mark::Warn, name, says)
    }

    pub fn bad(name: &str, says: impl Into<String>) -> Self {
        Self::new(Mark::Bad, name, says)
    }

    pub fn fix(mut self, command: impl Into<String>) -> Self {
        self.fix.push(command.into());
        self
    }

    pub fn stops_all(mut self) -> Self {
        self.stops_all = true;
        self
    }
}

/// A look that goes on on a thread of its own.
pub struct Look<T> {
    found: mpsc::Receiver<T>,
    begun: Instant,
}

pub fn begin<T: Send + 'static>(look: impl FnOnce() -> T + Send + 'static) -> Look<T> {
    let (sender, found) = mpsc::channel();
    thread::spawn(move || sender.send(look()));
    Look { found, begun: Instant::now() }
}

impl<T> Look<T> {
    /// `limit` since it began. `None`: it hangs (or broke), and is left behind; it ends with this process.
    pub fn end(self, limit: Duration) -> Option<T> {
        self.found.recv_timeout(limit.saturating_sub(self.begun.elapsed())).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_that_hang_together_cost_one_limit() {
        let (_open, hangs) = mpsc::channel::<()>();
        let hangs = std::sync::Arc::new(std::sync::Mutex::new(hangs));
        let hang = || {
            let hangs = std::sync::Arc::clone(&hangs);
            begin(move || drop(hangs.lock().map(|hangs| hangs.recv())))
        };
        let looks = [hang(), hang(), hang()];
        let before = looks[0].begun;
        let limit = Duration::from_millis(100);
        assert!(looks.into_iter().all(|look| look.end(limit).is_none()));
        assert!(before.elapsed() >= limit);
        assert_eq!(begin(|| 7).end(Duration::from_secs(60)), Some(7));
        // It began long ago, and what it found is there.
        let (sender, found) = mpsc::channel();
        sender.send(8).unwrap();
        assert_eq!(Look { found, begun: before }.end(limit), Some(8));
    }
}
