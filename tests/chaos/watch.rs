//! Watches a world during its round: the state file is valid at every moment, no outcome record ever changes, and no job is
//! called lost while its supervisor lives.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

/// Pause between two scans, which keeps the CPU use low.
const PAUSE: Duration = Duration::from_millis(30);

pub struct Watch {
    done: Arc<AtomicBool>,
    thread: JoinHandle<Result<(), String>>,
}

impl Watch {
    /// Starts to watch this state directory.
    pub fn begin(state: PathBuf) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let inner = Arc::clone(&done);
        let thread = std::thread::spawn(move || {
            let mut seen = Seen::default();
            while !inner.load(Ordering::Relaxed) {
                seen.scan(&state)?;
                std::thread::sleep(PAUSE);
            }
            seen.scan(&state)
        });
        Self { done, thread }
    }

    pub fn end(self) -> Result<(), String> {
        self.done.store(true, Ordering::Relaxed);
        self.thread.join().expect("the watch does not panic")
    }
}

#[derive(Default)]
struct Seen {
    state_file: bool,
    outcomes: HashMap<PathBuf, Vec<u8>>,
}

impl Seen {
    fn scan(&mut self, state: &Path) -> Result<(), String> {
        match std::fs::read(state.join("orchestrator-state.json")) {
            Ok(bytes) => {
                self.state_file = true;
                serde_json::from_slice::<Value>(&bytes)
                    .map_err(|error| format!("the state file was damaged: {error}"))?;
            }
            Err(error) if self.state_file => return Err(format!("the state file went away: {error}")),
            Err(_) => {}
        }
        for worker in folders(&state.join("workers")) {
            for attempt in folders(&worker.join("attempts")) {
                self.check_outcome(attempt.join("outcome.json"))?;
            }
        }
        Ok(())
    }

    fn check_outcome(&mut self, path: PathBuf) -> Result<(), String> {
        match (std::fs::read(&path), self.outcomes.get(&path)) {
            (Ok(now), Some(before)) if now != *before => Err(format!("{} was changed", path.display())),
            (Err(error), Some(_)) => Err(format!("{} went away: {error}", path.display())),
            (Ok(now), None) => {
                check_loss(&path, &now)?;
                self.outcomes.insert(path, now);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Checks a new record: the supervisor of a lost job is dead.
fn check_loss(path: &Path, record: &[u8]) -> Result<(), String> {
    let Some(attempt) = path.parent().filter(|attempt| attempt.join("launch.json").exists()) else { return Ok(()) };
    let outcome: Value = serde_json::from_slice(record).map_err(|error| format!("{}: {error}", path.display()))?;
    let is_lost = ["lost", "host_lost"].iter().any(|kind| outcome["run"]["failure"]["kind"] == *kind);
    if is_lost && crate::hosts::is_owner_alive(attempt) {
        return Err(format!("{} is lost, and its supervisor lives: {outcome:#}", attempt.display()));
    }
    Ok(())
}

fn folders(path: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}
