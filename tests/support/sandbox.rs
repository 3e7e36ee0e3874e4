//! A folder with a repository and settings in which the fake CLI is a backend. Nothing of the user's configuration is
//! visible in it.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::git;
use super::json_lines::Boss;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_orchestrator-boss");

pub struct Sandbox {
    folder: tempfile::TempDir,
    repo: PathBuf,
}

impl Sandbox {
    pub fn new() -> Self {
        Self::named("repo")
    }

    /// Creates a sandbox whose repository has this name.
    pub fn named(name: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let repo = canonical(folder.path()).join(name);
        Self::with(folder, repo)
    }

    /// Creates a sandbox whose folder name has this prefix, which identifies the folders kept by failed tests.
    pub fn prefixed(prefix: &str) -> Self {
        let folder = tempfile::Builder::new().prefix(prefix).tempdir().expect("a temporary folder");
        let repo = canonical(folder.path()).join("repo");
        Self::with(folder, repo)
    }

    /// Creates a sandbox whose repository and its state are in another folder.
    pub fn with_repo_in(root: &Path) -> Self {
        Self::with(tempfile::tempdir().expect("a temporary folder"), root.join("repo"))
    }

    /// Creates a sandbox in a folder that hosts share.
    pub fn within(root: &Path) -> Self {
        let folder = tempfile::tempdir_in(root).expect("a folder that can be written");
        let repo = canonical(folder.path()).join("repo");
        Self::with(folder, repo)
    }

    fn with(folder: tempfile::TempDir, repo: PathBuf) -> Self {
        git::init(&repo);
        fs::write(repo.join("README"), "hello\n").expect("a file");
        git::commit_all(&repo, "first");
        let sandbox = Self { folder, repo };
        fs::create_dir(sandbox.shared("")).expect("a folder");
        sandbox
    }

    /// Returns the folder around the repository, which is also the home directory.
    pub fn root(&self) -> PathBuf {
        canonical(self.folder.path())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    /// Returns a path outside of the repository that confined workers can write, for what a script leaves for its test.
    pub fn shared(&self, name: &str) -> PathBuf {
        self.path("shared").join(name)
    }

    pub fn repo(&self) -> PathBuf {
        self.repo.clone()
    }

    pub fn state_dir(&self) -> PathBuf {
        self.repo.join(".orchestrator")
    }

    pub fn state_file(&self) -> PathBuf {
        self.state_dir().join("orchestrator-state.json")
    }

    /// Returns the default path of a worker's worktree.
    pub fn worktree(&self, worker: impl AsRef<Path>) -> PathBuf {
        let mut folder = self.repo.clone().into_os_string();
        folder.push(".worktrees");
        PathBuf::from(folder).join(worker)
    }

    pub fn attempt(&self, worker: &str, number: u32) -> PathBuf {
        self.state_dir().join("workers").join(worker).join("attempts").join(number.to_string())
    }

    #[track_caller]
    pub fn git(&self, args: &[&str]) -> String {
        git::git(&self.repo, args)
    }

    /// Returns the line of the settings that lets workers write to [`Self::shared`].
    pub fn sharing(&self) -> String {
        format!("confine_writable = [{:?}]\n", self.shared(""))
    }

    /// Writes the settings file: these lines, then the backends. Call it once and before any process starts, since
    /// processes may read the file at any moment.
    pub fn write_settings(&self, settings: &str, backends: &[&str]) {
        let backends: String = backends.iter().map(|name| fake_backend(name)).collect();
        fs::write(self.settings_file(), format!("{}{settings}\n{backends}", self.sharing())).expect("a settings file");
    }

    pub fn settings_file(&self) -> PathBuf {
        self.path("config.toml")
    }

    /// Returns a command in the repository with this home and otherwise the environment of the test.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        git::seal(&mut command).env("HOME", self.root()).current_dir(&self.repo);
        command.env_remove("ORCHESTRATOR_MAX_WORKERS").env_remove("ORCHESTRATOR_WORKER_TAG");
        command
    }

    /// Returns a command in the repository that inherits only the PATH of the test.
    pub fn bare_command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        git::seal(&mut command).env("HOME", self.root()).env("LANG", "C.UTF-8").env("TZ", "UTC");
        command.current_dir(&self.repo);
        command
    }

    /// Starts a server that logs to `server.log`, and returns the boss that speaks to it.
    pub fn boss_of(&self, server: Command) -> Boss {
        let log = fs::File::options().create(true).append(true).open(self.path("server.log")).expect("a log file");
        Boss::start_logging(server, Stdio::from(log))
    }

    /// Returns the log of all servers.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("server.log")).unwrap_or_default()
    }

    /// Prints the servers' log if the test failed; otherwise checks that no server panicked.
    pub fn check_log(&self) {
        let log = self.log();
        if std::thread::panicking() {
            eprintln!("--- the servers' log\n{log}");
        } else {
            assert!(!log.contains("panicked at"), "a server panicked:\n{log}");
        }
    }

    /// Keeps the files after a failure, and returns their folder.
    pub fn keep(self) -> PathBuf {
        self.folder.keep()
    }
}

fn canonical(path: &Path) -> PathBuf {
    path.canonicalize().expect("the folder exists")
}

/// Returns the path of the fake CLI, which cargo builds with the tests.
pub fn fake_cli() -> PathBuf {
    let fake = Path::new(PROGRAM).with_file_name("examples/fake-cli");
    assert!(fake.exists(), "the fake CLI is missing: run `cargo build --examples` (`cargo test` does)");
    fake
}

/// Returns the lines of the settings file that define the fake CLI as a backend of this name.
pub fn fake_backend(name: &str) -> String {
    format!(
        "[[custom]]\nname = \"{name}\"\nprogram = {:?}\noutput = \"jsonl\"\n\
         resume_args = [\"--resume\", \"{{session_id}}\"]\n",
        fake_cli()
    )
}

/// Returns a mission whose script the fake CLI runs line by line.
pub fn mission(title: &str, script: &str) -> Value {
    json!({"title": title, "prompt": format!("FAKE:\n{script}"), "backend": "fake"})
}

/// Returns the mission with one more field.
pub fn with(mut mission: Value, field: &str, value: impl Into<Value>) -> Value {
    mission[field] = value.into();
    mission
}

/// Creates a worker and returns its id.
pub fn create(boss: &mut Boss, mission: Value) -> String {
    let answer = boss.succeed("create_worker_mission", mission);
    answer["worker"]["worker_id"].as_str().unwrap_or_else(|| panic!("{answer:#}")).to_owned()
}

pub fn status(boss: &mut Boss, worker: &str) -> Value {
    boss.succeed("get_worker_status", json!({"worker_id": worker}))["worker"].clone()
}
