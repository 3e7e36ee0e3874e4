//! A repository, a server beside it, and workers that are scripted.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::json_lines::{Boss, CEILING};

const PROGRAM: &str = env!("CARGO_BIN_EXE_orchestrator-boss");

pub struct World {
    folder: tempfile::TempDir,
    /// Where the repository lies.
    root: PathBuf,
    settings: String,
    environment: Vec<(String, String)>,
    /// A program with arguments that starts the server.
    through: Vec<String>,
}

impl World {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let root = folder.path().canonicalize().expect("it is there");
        Self::with_root(folder, root)
    }

    /// With the repository, and all that we keep for it, in a folder of its own (which a test has put a disk on).
    pub fn at(root: &Path) -> Self {
        Self::with_root(tempfile::tempdir().expect("a temporary folder"), root.to_owned())
    }

    fn with_root(folder: tempfile::TempDir, root: PathBuf) -> Self {
        // The disks of these tests are smaller than the usual floor, below which nothing starts.
        let settings = "min_free_disk_mib = 0\n".to_owned();
        let world = Self { folder, root, settings, environment: Vec::new(), through: Vec::new() };
        world.write_settings();
        fs::create_dir(world.repo()).expect("a folder");
        for args in [
            &["init", "-q", "-b", "main", "--template="][..],
            &["config", "user.name", "Test"],
            &["config", "user.email", "test@localhost"],
            &["commit", "-q", "--allow-empty", "-m", "first"],
        ] {
            world.git(args);
        }
        world
    }

    /// One line of the settings file, above the backend.
    pub fn set(mut self, line: &str) -> Self {
        self.settings.push_str(&format!("{line}\n"));
        self.write_settings();
        self
    }

    /// Before anything is started: what runs may read it at any moment.
    fn write_settings(&self) {
        let fake = Path::new(PROGRAM).with_file_name("examples/fake-cli");
        assert!(fake.exists(), "the fake CLI is missing: run `cargo build --examples`");
        let settings = format!(
            "{}[[custom]]\nname = \"fake\"\nprogram = {fake:?}\nresume_args = [\"--resume\", \"{{session_id}}\"]\noutput = \"jsonl\"\n",
            self.settings
        );
        fs::write(self.path("config.toml"), settings).expect("a settings file");
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn through(mut self, program: &[&str]) -> Self {
        self.through = program.iter().map(|part| (*part).to_owned()).collect();
        self
    }

    /// Beside the repository, on an ordinary disk.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().canonicalize().expect("it is there").join(name)
    }

    pub fn repo(&self) -> PathBuf {
        self.root.join("repo")
    }

    pub fn state_dir(&self) -> PathBuf {
        self.repo().join(".orchestrator")
    }

    pub fn state_file(&self) -> PathBuf {
        self.state_dir().join("orchestrator-state.json")
    }

    pub fn worktree(&self, worker: &str) -> PathBuf {
        self.repo().with_extension("worktrees").join(worker)
    }

    pub fn attempt(&self, worker: &str, number: u32) -> PathBuf {
        self.state_dir().join("workers").join(worker).join("attempts").join(number.to_string())
    }

    pub fn git(&self, args: &[&str]) -> String {
        git_in(&self.repo(), args).unwrap_or_else(|error| panic!("git {args:?}: {error}"))
    }

    /// The same boss each time, and another server.
    pub fn boss(&self) -> Boss {
        self.boss_in(&self.repo())
    }

    pub fn boss_in(&self, directory: &Path) -> Boss {
        self.boss_with(directory, &[])
    }

    pub fn boss_with(&self, directory: &Path, arguments: &[&str]) -> Boss {
        let log = fs::File::options().create(true).append(true).open(self.path("server.log")).expect("a log file");
        Boss::start_logging(self.server(directory, arguments), Stdio::from(log))
    }

    fn server(&self, directory: &Path, arguments: &[&str]) -> Command {
        let mut command = match self.through.split_first() {
            Some((wrapper, rest)) => {
                let mut command = Command::new(wrapper);
                command.args(rest).arg(PROGRAM);
                command
            }
            None => Command::new(PROGRAM),
        };
        command
            .arg("--config")
            .arg(self.path("config.toml"))
            .args(arguments)
            .env("HOME", self.folder.path())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("CLAUDE_CODE_SESSION_ID", "the-boss")
            .env_remove("ORCHESTRATOR_MAX_WORKERS")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(directory);
        command
    }

    /// A command of the program, called to its end.
    pub fn run(&self, arguments: &[&str]) -> std::process::Output {
        self.server(&self.repo(), arguments).stdin(Stdio::null()).output().expect("it runs")
    }

    /// All that the servers logged; for messages of failed tests, and to see that nothing panicked.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("server.log")).unwrap_or_default()
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
        let log = self.log();
        if thread::panicking() {
            eprintln!("--- the servers' log\n{log}");
        } else {
            assert!(!log.contains("panicked at"), "something panicked:\n{log}");
        }
    }
}

pub fn git_in(directory: &Path, args: &[&str]) -> Result<String, String> {
    let mut git = Command::new("git");
    git.args(args).current_dir(directory).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    let output = git.output().map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

pub fn read_json(path: &Path) -> Option<Value> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

pub fn mission(title: &str, script: &str) -> Value {
    json!({"title": title, "prompt": format!("FAKE:\n{script}"), "backend": "fake"})
}

/// The same mission with one more field.
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

/// What it settled as.
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

/// What a settled worker says of why.
pub fn reason(worker: &Value) -> &str {
    worker["outcome"]["run"]["message"].as_str().unwrap_or_default()
}

/// Polls; every fault shows itself in its own time.
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

/// Says that a test cannot produce its fault here. In continuous integration nothing is skipped.
pub fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "not skipped in CI: {why}");
    eprintln!("SKIPPED: {why}");
}
