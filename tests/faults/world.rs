//! A repository, a server, and scripted workers.

use std::fs;
use std::ops::Deref;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

pub use crate::support::git::try_git;
use crate::support::json_lines::Boss;
use crate::support::sandbox::{PROGRAM, Sandbox};
pub use crate::support::sandbox::{create, mission, status, with};
use crate::support::wait::CEILING;
pub use crate::support::wait::{until, until_exists};

pub struct World {
    sandbox: Sandbox,
    settings: String,
    environment: Vec<(String, String)>,
    /// A program with arguments that starts the server.
    through: Vec<String>,
}

impl Deref for World {
    type Target = Sandbox;

    fn deref(&self) -> &Sandbox {
        &self.sandbox
    }
}

impl World {
    pub fn new() -> Self {
        Self::with_sandbox(Sandbox::new())
    }

    /// Creates a world whose repository and state are in this folder, for example on a separate disk.
    pub fn at(root: &Path) -> Self {
        Self::with_sandbox(Sandbox::with_repo_in(root))
    }

    fn with_sandbox(sandbox: Sandbox) -> Self {
        // The disks of these tests are smaller than the default floor, below which nothing starts.
        let settings = "min_free_disk_mib = 0\n".to_owned();
        let world = Self { sandbox, settings, environment: Vec::new(), through: Vec::new() };
        world.write_settings();
        world
    }

    /// Adds a line to the settings file, above the backend.
    pub fn set(mut self, line: &str) -> Self {
        self.settings.push_str(&format!("{line}\n"));
        self.write_settings();
        self
    }

    fn write_settings(&self) {
        self.sandbox.write_settings(&self.settings, &["fake"]);
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn through(mut self, program: &[&str]) -> Self {
        self.through = program.iter().map(|part| (*part).to_owned()).collect();
        self
    }

    /// Starts another server of the same boss.
    pub fn boss(&self) -> Boss {
        self.boss_in(&self.repo())
    }

    pub fn boss_in(&self, directory: &Path) -> Boss {
        self.boss_with(directory, &[])
    }

    pub fn boss_with(&self, directory: &Path, arguments: &[&str]) -> Boss {
        self.boss_of(self.server(directory, arguments))
    }

    fn server(&self, directory: &Path, arguments: &[&str]) -> Command {
        let mut command = match self.through.split_first() {
            Some((wrapper, rest)) => {
                let mut command = self.command(wrapper);
                command.args(rest).arg(PROGRAM);
                command
            }
            None => self.command(PROGRAM),
        };
        command.arg("--config").arg(self.settings_file()).args(arguments).current_dir(directory);
        command.env("CLAUDE_CODE_SESSION_ID", "the-boss");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a command of the program to its end.
    pub fn run(&self, arguments: &[&str]) -> std::process::Output {
        self.server(&self.repo(), arguments).stdin(Stdio::null()).output().expect("the program runs")
    }

    pub fn state(&self) -> Value {
        let bytes = fs::read(self.state_file()).expect("the state file is there");
        serde_json::from_slice(&bytes).expect("the state file is valid")
    }

    pub fn outcome(&self, worker: &str, attempt: u32) -> Value {
        read_json(&self.attempt(worker, attempt).join("outcome.json")).expect("the attempt has an outcome record")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.check_log();
    }
}

pub fn read_json(path: &Path) -> Option<Value> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Waits for the settlement, and returns the worker.
pub fn settled(boss: &mut Boss, worker: &str) -> Value {
    let began = Instant::now();
    loop {
        let answer = boss.succeed("wait_for_worker", json!({"worker_id": worker, "timeout_seconds": 5}));
        let now = status(boss, worker);
        if now.get("outcome").is_some_and(Value::is_object) {
            return now;
        }
        assert!(began.elapsed() < CEILING, "{worker} does not settle: {answer:#}\n{now:#}");
    }
}

/// Returns the reason of a settled worker's end.
pub fn reason(worker: &Value) -> &str {
    worker["outcome"]["run"]["message"].as_str().unwrap_or_default()
}

/// Prints that a test cannot produce its fault on this machine. In continuous integration it fails instead.
pub fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "not skipped in CI: {why}");
    eprintln!("SKIPPED: {why}");
}
