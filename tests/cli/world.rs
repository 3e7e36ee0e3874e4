//! A sealed repository, a boss whose workers are scripted, and the program as a person calls it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::json_lines::{Boss, CEILING, processes_in};

const PROGRAM: &str = env!("CARGO_BIN_EXE_orchestrator-boss");

pub struct World {
    folder: tempfile::TempDir,
}

impl World {
    pub fn new() -> Self {
        Self::with("")
    }

    /// With lines of the settings file.
    pub fn with(settings: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let world = Self { folder };
        world.write_settings(settings);
        fs::create_dir(world.repo()).expect("a folder");
        for args in [
            &["init", "-q", "-b", "main", "--template="][..],
            &["config", "user.name", "Test"],
            &["config", "user.email", "test@localhost"],
        ] {
            world.git(args);
        }
        fs::write(world.repo().join("README"), "hello\n").expect("a file");
        world.git(&["add", "."]);
        world.git(&["commit", "-q", "-m", "first"]);
        world
    }

    /// Once: processes that were begun may read it at any moment.
    fn write_settings(&self, settings: &str) {
        let fake = Path::new(PROGRAM).with_file_name("examples/fake-cli");
        assert!(fake.exists(), "the fake CLI is missing: run `cargo build --examples`");
        let settings = format!(
            "min_free_disk_mib = 1\n{settings}\n[[custom]]\nname = \"fake\"\nprogram = {fake:?}\nresume_args = [\"--resume\", \"{{session_id}}\"]\noutput = \"jsonl\"\n",
        );
        fs::write(self.path("config.toml"), settings).expect("a settings file");
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().canonicalize().expect("it is there").join(name)
    }

    pub fn repo(&self) -> PathBuf {
        self.path("repo")
    }

    pub fn state_dir(&self) -> PathBuf {
        self.repo().join(".orchestrator")
    }

    pub fn worktree(&self, worker: &str) -> PathBuf {
        self.repo().with_extension("worktrees").join(worker)
    }

    pub fn attempt(&self, worker: &str, number: u32) -> PathBuf {
        self.state_dir().join("workers").join(worker).join("attempts").join(number.to_string())
    }

    pub fn git(&self, args: &[&str]) -> String {
        let mut git = Command::new("git");
        git.args(args).current_dir(self.repo()).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
        let output = git.output().expect("git runs");
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// The same boss each time, and another server.
    pub fn boss(&self) -> Boss {
        self.boss_named("the-boss")
    }

    pub fn boss_named(&self, session: &str) -> Boss {
        let log = fs::File::options().create(true).append(true).open(self.path("server.log")).expect("a log file");
        let mut command = self.program(&[]);
        command.env("CLAUDE_CODE_SESSION_ID", session);
        Boss::start_logging(command, Stdio::from(log))
    }

    /// The program, as it is called in the repository.
    pub fn program(&self, args: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command
            .arg("--config")
            .arg(self.path("config.toml"))
            .args(args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.folder.path())
            .env("TZ", "UTC")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .current_dir(self.repo());
        command
    }

    /// Called to its end.
    pub fn run(&self, args: &[&str]) -> Ran {
        Ran::of(self.program(args).stdin(Stdio::null()).output().expect("it runs"))
    }

    /// Called, and left to itself.
    pub fn begin(&self, args: &[&str]) -> Child {
        let mut command = self.program(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts")
    }

    /// Whoever has told of an end has a moment to go, and may still write.
    pub fn until_all_have_gone(&self) {
        if cfg!(target_os = "linux") {
            until("nothing is left running", || processes_in(self.folder.path()).is_empty());
        }
    }

    /// All that the registry of a boss says of a worker.
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
        let log = fs::read_to_string(self.path("server.log")).unwrap_or_default();
        if thread::panicking() {
            return eprintln!("--- the servers' log\n{log}");
        }
        assert!(!log.contains("panicked at"), "something panicked:\n{log}");
        self.until_all_have_gone();
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

pub fn mission(title: &str, script: &str) -> Value {
    json!({"title": title, "prompt": format!("FAKE:\n{script}"), "backend": "fake"})
}

pub fn with(mut mission: Value, field: &str, value: impl Into<Value>) -> Value {
    mission[field] = value.into();
    mission
}

/// The id of the new worker.
pub fn create(boss: &mut Boss, mission: Value) -> String {
    let answer = boss.succeed("create_worker_mission", mission);
    answer["worker"]["worker_id"].as_str().unwrap_or_else(|| panic!("{answer:#}")).to_owned()
}

pub fn status(boss: &mut Boss, worker: &str) -> Value {
    boss.succeed("get_worker_status", json!({"worker_id": worker}))["worker"].clone()
}

pub fn until_status(boss: &mut Boss, worker: &str, wanted: &str) {
    until(&format!("{worker} is {wanted}"), || status(boss, worker)["status"] == wanted);
}

/// Depends on other processes, so it is looked at again and again.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < CEILING, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

pub fn until_exists(path: &Path) {
    until(&format!("{} is there", path.display()), || path.exists());
}

/// What a call came to that was left to itself.
pub fn end_of(child: Child) -> Ran {
    Ran::of(child.wait_with_output().expect("it ends"))
}

pub fn interrupt(child: &Child) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it lives");
}
