//! A sealed repository, a boss whose workers are scripted, and the program as a person calls it.

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

    /// With lines of the settings file.
    pub fn with(settings: &str) -> Self {
        let sandbox = Sandbox::new();
        sandbox.write_settings(&format!("min_free_disk_mib = 1\n{settings}"), &["fake"]);
        Self { sandbox }
    }

    /// The same boss each time, and another server.
    pub fn boss(&self) -> Boss {
        self.boss_named("the-boss")
    }

    pub fn boss_named(&self, session: &str) -> Boss {
        let mut command = self.program(&[]);
        command.env("CLAUDE_CODE_SESSION_ID", session);
        self.boss_of(command)
    }

    /// The program, as it is called in the repository.
    pub fn program(&self, args: &[&str]) -> Command {
        let mut command = self.bare_command(PROGRAM);
        command.env_remove("LANG").arg("--config").arg(self.settings_file()).args(args);
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, args: &[&str]) -> Ran {
        Ran::of(self.program(args).stdin(Stdio::null()).output().expect("it runs"))
    }

    /// Starts a command and returns at once.
    pub fn begin(&self, args: &[&str]) -> Child {
        let mut command = self.program(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts")
    }

    /// Waits until no process of this world runs.
    pub fn until_all_have_gone(&self) {
        processes::until_none_in(&self.root());
    }

    /// The content of the journal's files.
    pub fn journal(&self) -> String {
        let mut files: Vec<PathBuf> = fs::read_dir(self.state_dir().join("journal"))
            .expect("a journal")
            .map(|entry| entry.expect("it can be read").path())
            .filter(|path| path.is_file())
            .collect();
        files.sort();
        files.iter().map(|path| fs::read_to_string(path).unwrap_or_default()).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.check_log();
        if !std::thread::panicking() {
            self.until_all_have_gone();
        }
    }
}

/// What came of a call.
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

    /// What it printed, if it ended with this code.
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

/// What a call came to that was left to itself.
pub fn end_of(child: Child) -> Ran {
    Ran::of(child.wait_with_output().expect("it ends"))
}

pub fn interrupt(child: &Child) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it lives");
}
