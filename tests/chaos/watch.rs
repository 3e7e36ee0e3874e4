//! Looks at a world without a pause while its round goes on: the state file is whole at every moment, and no outcome
//! record changes once it is there.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

/// So that looking takes little of the processor.
const PAUSE: Duration = Duration::from_millis(30);

pub struct Watch {
    done: Arc<AtomicBool>,
    thread: JoinHandle<Result<(), String>>,
}

impl Watch {
    /// `state`: the state directory.
    pub fn begin(state: PathBuf) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let inner = Arc::clone(&done);
        let thread = std::thread::spawn(move || {
            let mut seen = Seen::default();
            while !inner.load(Ordering::Relaxed) {
                seen.look(&state)?;
                std::thread::sleep(PAUSE);
            }
            seen.look(&state)
        });
        Self { done, thread }
    }

    pub fn end(self) -> Result<(), String> {
        self.done.store(true, Ordering::Relaxed);
        self.thread.join().expect("looking does not panic")
    }
}

#[derive(Default)]
struct Seen {
    state_file: bool,
    outcomes: HashMap<PathBuf, Vec<u8>>,
}

impl Seen {
    fn look(&mut self, state: &Path) -> Result<(), String> {
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
                self.look_at_outcome(attempt.join("outcome.json"))?;
            }
        }
        Ok(())
    }

    fn look_at_outcome(&mut self, path: PathBuf) -> Result<(), String> {
        match (std::fs::read(&path), self.outcomes.get(&path)) {
            (Ok(now), Some(before)) if now != *before => Err(format!("{} was changed", path.display())),
            (Err(error), Some(_)) => Err(format!("{} went away: {error}", path.display())),
            (Ok(now), None) => {
                self.outcomes.insert(path, now);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn folders(path: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}
