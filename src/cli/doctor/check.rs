//! A finding of `doctor`, and checks in the background, which may hang.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Ok,
    /// A neutral fact.
    Note,
    /// A fact worth knowing, although a run would work.
    Warn,
    /// A defect.
    Bad,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    pub name: String,
    pub severity: Severity,
    pub message: String,
    /// Commands that fix it, or help to fix it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fix: Vec<String>,
    /// True if nothing can run until it is fixed.
    #[serde(skip)]
    pub stops_all: bool,
}

impl Finding {
    fn new(severity: Severity, name: &str, message: impl Into<String>) -> Self {
        Self { name: name.to_owned(), severity, message: message.into(), fix: Vec::new(), stops_all: false }
    }

    pub fn ok(name: &str, message: impl Into<String>) -> Self {
        Self::new(Severity::Ok, name, message)
    }

    pub fn note(name: &str, message: impl Into<String>) -> Self {
        Self::new(Severity::Note, name, message)
    }

    pub fn warn(name: &str, message: impl Into<String>) -> Self {
        Self::new(Severity::Warn, name, message)
    }

    pub fn bad(name: &str, message: impl Into<String>) -> Self {
        Self::new(Severity::Bad, name, message)
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

/// A check that runs on its own thread.
pub struct BackgroundCheck<T> {
    found: mpsc::Receiver<T>,
    started: Instant,
}

pub fn start<T: Send + 'static>(check: impl FnOnce() -> T + Send + 'static) -> BackgroundCheck<T> {
    let (sender, found) = mpsc::channel();
    thread::spawn(move || sender.send(check()));
    BackgroundCheck { found, started: Instant::now() }
}

impl<T> BackgroundCheck<T> {
    /// Waits for the result until a time limit since the start. `None`: the check hangs or has failed; it is abandoned.
    pub fn finish(self, limit: Duration) -> Option<T> {
        self.found.recv_timeout(limit.saturating_sub(self.started.elapsed())).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hanging_checks_share_one_limit() {
        let (_open, hangs) = mpsc::channel::<()>();
        let hangs = std::sync::Arc::new(std::sync::Mutex::new(hangs));
        let hang = || {
            let hangs = std::sync::Arc::clone(&hangs);
            start(move || drop(hangs.lock().map(|hangs| hangs.recv())))
        };
        let checks = [hang(), hang(), hang()];
        let before = checks[0].started;
        let limit = Duration::from_millis(100);
        assert!(checks.into_iter().all(|check| check.finish(limit).is_none()));
        assert!(before.elapsed() >= limit);
        assert_eq!(start(|| 7).finish(Duration::from_secs(60)), Some(7));
        // A result that is already there is returned after the limit, too.
        let (sender, found) = mpsc::channel();
        sender.send(8).unwrap();
        assert_eq!(BackgroundCheck { found, started: before }.finish(limit), Some(8));
    }
}
