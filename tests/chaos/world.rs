//! The world of one round: a repository, settings in which the fake CLI is a backend, and helpers that inspect it from
//! outside. It stays on disk when its round fails.

use std::ops::Deref;
use std::path::PathBuf;

use orchestrator_boss::process::{Identity, Signal, send};
use serde_json::Value;

use crate::support::git::try_git;
use crate::support::processes::{processes_in, until_none_in};
use crate::support::sandbox::{Sandbox, fake_cli};
pub use crate::support::wait::CEILING;

pub struct World {
    sandbox: Sandbox,
}

impl Deref for World {
    type Target = Sandbox;

    fn deref(&self) -> &Sandbox {
        &self.sandbox
    }
}

impl World {
    pub fn new() -> Self {
        let sandbox = Sandbox::prefixed("chaos-");
        let agent =
            format!("[[custom]]\nname = \"agent\"\nprogram = {:?}\nargs = [\"--acp\"]\noutput = \"acp\"\n", fake_cli());
        sandbox.write_settings(&format!("max_workers = 6\n{agent}"), &["fake", "other"]);
        Self { sandbox }
    }

    /// Returns the file in which the fake CLIs record their progress.
    pub fn trace(&self) -> PathBuf {
        self.shared("trace")
    }

    /// Returns git's output, or its error output.
    pub fn git(&self, args: &[&str]) -> Result<String, String> {
        try_git(&self.repo(), args)
    }

    /// Returns the folders of a worker's attempts, oldest first.
    pub fn attempts(&self, worker: &str) -> Vec<(u64, PathBuf)> {
        let attempts = self.state_dir().join("workers").join(worker).join("attempts");
        let entries = std::fs::read_dir(&attempts).into_iter().flatten().flatten();
        let mut found: Vec<(u64, PathBuf)> =
            entries.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path()))).collect();
        found.sort();
        found
    }

    /// Returns the process `supervisor` or `cli` of the newest attempt, by its status file.
    pub fn process_of(&self, worker: &str, which: &str) -> Option<Identity> {
        let (_, newest) = self.attempts(worker).pop()?;
        let status: Value = serde_json::from_slice(&std::fs::read(newest.join("status.json")).ok()?).ok()?;
        serde_json::from_value(status[which].clone()).ok()
    }

    /// Checks that no process names this world or works in it.
    pub fn check_nothing_left(&self) {
        until_none_in(&self.root());
    }

    /// Ends remaining processes after a failure, keeps all files, and returns their folder.
    pub fn keep(self) -> PathBuf {
        for _ in 0..3 {
            for process in processes_in(&self.root()).into_iter().filter_map(|(pid, _)| Identity::of(pid)) {
                send(&process, Signal::Kill);
            }
        }
        self.sandbox.keep()
    }
}
