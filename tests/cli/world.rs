//! A sealed repository, a boss with scripted workers, and the program as a user calls it.

use std::fs;
use std::ops::Deref;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use crate::support::json_lines::Boss;
use crate::support::processes;
use crate::support::sandbox::{PROGRAM, Sandbox};
pub use crate::support::sandbox::{create, mission, status, with};
pub use crate::support::wait::{until, until_exists};

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
        Self::with("")
    }

    /// Creates a world with these lines in the settings file.
    pub fn with(settings: &str) -> Self {
        let sandbox = Sandbox::new();
        sandbox.write_settings(&format!("min_free_disk_mib = 1\n{settings}"), &["fake"]);
        Self { sandbox }
    }

    /// Starts another server of the same boss.
    pub fn boss(&self) -> Boss {
        self.boss_named("the-boss")
    }

    pub fn boss_named(&self, session: &str) -> Boss {
        let mut command = self.program(&[]);
        command.env("CLAUDE_CODE_SESSION_ID", session);
        self.boss_of(command)
    }

    /// Returns a command that runs the program in the repository.
    pub fn program(&self, args: &[&str]) -> Command {
        let mut command = self.bare_command(PROGRAM);
        command.env_remove("LANG").arg("--config").arg(self.settings_file()).args(args);
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, args: &[&str]) -> Ran {
        Ran::of(self.program(args).stdin(Stdio::null()).output().expect("the program runs"))
    }

    /// Starts a command and returns at once.
    pub fn begin(&self, args: &[&str]) -> Child {
        let mut command = self.program(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts")
    }

    /// Waits until no process of this world runs.
    pub fn until_all_exited(&self) {
        processes::until_none_in(&self.root());
    }

    /// Returns the content of the journal's files.
    pub fn journal(&self) -> String {
        let mut files: Vec<PathBuf> = fs::read_dir(self.state_dir().join("journal"))
            .expect("a journal")
            .map(|entry| entry.expect("a readable file").path())
            .filter(|path| path.is_file())
            .collect();
        files.sort();
        files.iter().map(|path| fs::read_to_string(path).unwrap_or_default()).collect()
    }
}

impl World {
    /// Kills the supervisor of a worker's first attempt.
    pub fn kill_supervisor(&self, worker: &str) {
        let status = fs::read(self.attempt(worker, 1).join("status.json")).expect("a status");
        let status: Value = serde_json::from_slice(&status).expect("JSON");
        let pid = status["supervisor"]["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).expect("a pid");
        let pid = rustix::process::Pid::from_raw(pid).expect("a pid above 0");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("a live process");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.check_log();
        if !std::thread::panicking() {
            self.until_all_exited();
        }
    }
}

/// The result of a command.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    pub fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Checks the exit code, and returns the output.
    #[track_caller]
    pub fn ended(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{}\n{}", self.stdout, self.stderr);
        self.stdout
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    #[track_caller]
    pub fn json_lines(&self) -> Vec<Value> {
        let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        self.stdout.lines().map(parse).collect()
    }
}

pub fn until_status(boss: &mut Boss, worker: &str, wanted: &str) {
    until(&format!("{worker} is {wanted}"), || status(boss, worker)["status"] == wanted);
}

/// Waits for the end of a command, and returns its result.
pub fn wait_for_end(child: Child) -> Ran {
    Ran::of(child.wait_with_output().expect("the program exits"))
}

pub fn interrupt(child: &Child) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("a live process");
}
