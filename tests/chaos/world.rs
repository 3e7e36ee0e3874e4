//! The world of one round: a repository, settings in which the fake CLI is a backend, and helpers that inspect it from
//! outside. It stays on disk when its round fails.

use std::fs;
use std::ops::Deref;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use orchestrator_boss::process::{Identity, Signal, send};
use serde_json::Value;

use crate::hosts::{Hosts, has_supervisor, pids_with, seen_here};
use crate::support::git::try_git;
use crate::support::processes::{processes_in, until_none_in};
use crate::support::sandbox::{PROGRAM, Sandbox, fake_cli};
pub use crate::support::wait::CEILING;
use crate::support::wait::until;

/// The longest wait in a round with a cluster: a worker is lost after a minute without a heartbeat, and workers wait for
/// each other.
const CEILING_ON_CLUSTER: Duration = Duration::from_secs(300);

/// Settings of the launcher. Without `memory`, a job takes all memory of its node.
const LAUNCHER: &str =
    "[launchers.cluster]\nkind = \"slurm\"\ncpus = 1\nmemory = \"200M\"\npoll_seconds = 5\nlost_after_seconds = 60\n";

pub struct World {
    sandbox: Sandbox,
    /// `None` in a round in which all workers run on this host.
    pub cluster: Option<Hosts>,
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
        Self { sandbox, cluster: None }
    }

    /// Creates a world on a cluster of its own, in the folder that its hosts share.
    pub fn on_cluster(seed: u64) -> Self {
        let hosts = Hosts::start(seed);
        let sandbox = Sandbox::within(&hosts.shared());
        let recorder = sandbox.path("recorded-cli");
        fs::write(&recorder, recorder_of(&sandbox.shared("starts"))).expect("a script");
        fs::set_permissions(&recorder, fs::Permissions::from_mode(0o755)).expect("a mode");
        let backend = |name: &str, more: &str| format!("[[custom]]\nname = {name:?}\nprogram = {recorder:?}\n{more}\n");
        let lines = "output = \"jsonl\"\nresume_args = [\"--resume\", \"{session_id}\"]";
        let backends = [("fake", lines), ("other", lines), ("agent", "args = [\"--acp\"]\noutput = \"acp\"")];
        let backends: String = backends.iter().map(|(name, more)| backend(name, more)).collect();
        sandbox.write_settings(&format!("max_workers = 6\n{LAUNCHER}{backends}"), &[]);
        Self { sandbox, cluster: Some(hosts) }
    }

    /// Returns a command of this program in the repository, on the host of the servers.
    pub fn program(&self) -> Command {
        match &self.cluster {
            Some(hosts) => hosts.command_on_login(&self.repo(), PROGRAM),
            None => {
                let mut command = Command::new(PROGRAM);
                command.current_dir(self.repo());
                command
            }
        }
    }

    /// Returns the longest wait for a condition in this world.
    pub fn ceiling(&self) -> Duration {
        if self.cluster.is_some() { CEILING_ON_CLUSTER } else { CEILING }
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
        let entries = fs::read_dir(&attempts).into_iter().flatten().flatten();
        let mut found: Vec<(u64, PathBuf)> =
            entries.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path()))).collect();
        found.sort();
        found
    }

    /// Returns the status file of the newest attempt.
    pub fn status_of(&self, worker: &str) -> Option<Value> {
        let (_, newest) = self.attempts(worker).pop()?;
        serde_json::from_slice(&fs::read(newest.join("status.json")).ok()?).ok()
    }

    /// Returns the process `supervisor` or `cli` of the newest attempt, by its status file.
    pub fn process_of(&self, worker: &str, which: &str) -> Option<Identity> {
        let process = serde_json::from_value(self.status_of(worker)?[which].clone()).ok()?;
        if self.cluster.is_some() { seen_here(&process, &self.root()) } else { Some(process) }
    }

    /// Returns whether the supervisor of the newest attempt, a job that has begun, is dead and has left no record. Its server
    /// must find that out.
    pub fn is_abandoned(&self, worker: &str) -> bool {
        let Some((_, newest)) = self.attempts(worker).pop().filter(|_| self.cluster.is_some()) else { return false };
        let has_begun = newest.join("launch.json").exists() && newest.join("claim").exists();
        has_begun && !has_supervisor(&newest) && !newest.join("outcome.json").exists()
    }

    /// Checks that no process names this world or works in it.
    pub fn check_nothing_left(&self) {
        until_none_in(&self.root());
        if self.cluster.is_some() {
            until("no process of any host has a path of this world", || pids_with(&self.root()).is_empty());
        }
    }

    /// Ends remaining processes after a failure, keeps all files, and returns their folder.
    pub fn keep(self) -> PathBuf {
        for _ in 0..3 {
            for process in processes_in(&self.root()).into_iter().filter_map(|(pid, _)| Identity::of(pid)) {
                send(&process, Signal::Kill);
            }
        }
        match &self.cluster {
            Some(hosts) => hosts.keep_files(),
            None => self.sandbox.keep(),
        }
    }
}

/// Returns a script that starts the fake CLI, and before that records its attempt, its host and the process that started
/// it.
fn recorder_of(starts: &Path) -> String {
    let (starts, cli) = (starts.display(), fake_cli());
    format!(
        "#!/bin/sh\n[ -z \"$ORCHESTRATOR_WORKER_TAG\" ] || \
         echo \"$ORCHESTRATOR_WORKER_TAG $(hostname) $PPID\" >> '{starts}'\nexec {cli:?} \"$@\"\n"
    )
}
