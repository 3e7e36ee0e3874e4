//! The world of one round: a repository, settings in which the fake CLI is a backend, and what can be seen of it from
//! outside. It stays on disk when its round fails.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use orchestrator_boss::process::{Identity, Signal, send};
use serde_json::Value;

/// Nothing takes this long; what does hangs.
pub const CEILING: Duration = Duration::from_secs(90);

pub struct World {
    folder: tempfile::TempDir,
}

impl World {
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("chaos-").tempdir().expect("a temporary folder");
        let world = Self { folder };
        std::fs::create_dir(world.repo()).expect("a folder");
        for args in [
            &["init", "-q", "-b", "main"][..],
            &["config", "user.name", "Test"],
            &["config", "user.email", "test@localhost"],
            &["commit", "-q", "--allow-empty", "-m", "first"],
        ] {
            world.git(args).expect("git works");
        }
        let fake = Path::new(env!("CARGO_BIN_EXE_orchestrator-boss")).with_file_name("examples/fake-cli");
        assert!(fake.exists(), "the fake CLI is missing: run `cargo build --examples`");
        let custom = |name: &str| {
            format!(
                "[[custom]]\nname = \"{name}\"\nprogram = {fake:?}\nresume_args = [\"--resume\", \"{{session_id}}\"]\noutput = \"jsonl\"\n"
            )
        };
        let settings = format!("max_workers = 6\n{}{}", custom("fake"), custom("other"));
        std::fs::write(world.path("config.toml"), settings).expect("a settings file");
        world
    }

    pub fn root(&self) -> PathBuf {
        self.folder.path().canonicalize().expect("it is there")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    pub fn repo(&self) -> PathBuf {
        self.path("repo")
    }

    pub fn state(&self) -> PathBuf {
        self.repo().join(".orchestrator")
    }

    /// Where the fake CLIs say how far they came.
    pub fn trace(&self) -> PathBuf {
        self.path("trace")
    }

    /// What git says, or why it does not.
    pub fn git(&self, args: &[&str]) -> Result<String, String> {
        let mut git = Command::new("git");
        git.args(args).current_dir(self.repo()).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
        let output = git.output().map_err(|error| error.to_string())?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    /// The folders of a worker's attempts, oldest first.
    pub fn attempts(&self, worker: &str) -> Vec<(u64, PathBuf)> {
        let attempts = self.state().join("workers").join(worker).join("attempts");
        let entries = std::fs::read_dir(&attempts).into_iter().flatten().flatten();
        let mut found: Vec<(u64, PathBuf)> =
            entries.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path()))).collect();
        found.sort();
        found
    }

    /// A process that the newest attempt's status file names, `supervisor` or `cli`.
    pub fn process_of(&self, worker: &str, which: &str) -> Option<Identity> {
        let (_, newest) = self.attempts(worker).pop()?;
        let status: Value = serde_json::from_slice(&std::fs::read(newest.join("status.json")).ok()?).ok()?;
        serde_json::from_value(status[which].clone()).ok()
    }

    /// No process names this world or works in it.
    pub fn check_nothing_left(&self) {
        let began = Instant::now();
        loop {
            let left = processes_in(&self.root());
            if left.is_empty() {
                return;
            }
            assert!(began.elapsed() < CEILING, "processes are left: {left:#?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// After a failure: what could still run is ended, and all files stay.
    pub fn keep(self) -> PathBuf {
        for _ in 0..3 {
            for (process, _) in processes_in(&self.root()) {
                send(&process, Signal::Kill);
            }
        }
        self.folder.keep()
    }
}

/// Processes that name a folder or work in it, with their command lines.
#[cfg(target_os = "linux")]
fn processes_in(folder: &Path) -> Vec<(Identity, String)> {
    let entries = std::fs::read_dir("/proc").expect("Linux has /proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let works_there = std::fs::read_link(proc.join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder));
        let command = std::fs::read(proc.join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let named = works_there || command.contains(&*folder.to_string_lossy());
        named.then(|| Some((Identity::of(pid)?, command))).flatten()
    })
    .collect()
}

#[cfg(not(target_os = "linux"))]
fn processes_in(_folder: &Path) -> Vec<(Identity, String)> {
    Vec::new()
}
