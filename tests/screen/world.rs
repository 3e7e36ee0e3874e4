//! A sealed world for one test: a repository, settings in which the fake CLI is a backend, and servers of the real program.
//! Nothing of the user's configuration is seen, and whatever happens, `Drop` ends the workers.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::json_lines::Boss;

/// Nothing that is waited for takes this long on any machine.
pub const CEILING: Duration = Duration::from_secs(60);

pub struct World {
    folder: tempfile::TempDir,
}

impl World {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let world = Self { folder };
        std::fs::create_dir_all(world.repo()).expect("a folder for the repository");
        world.git(&["init", "-q", "-b", "main"]);
        world.git(&["config", "user.name", "Test"]);
        world.git(&["config", "user.email", "test@localhost"]);
        std::fs::write(world.repo().join("README"), "hello\n").expect("a file");
        world.git(&["add", "."]);
        world.git(&["commit", "-q", "-m", "first"]);
        let fake = fake_cli();
        let settings = format!(
            "max_workers = 8\n[[custom]]\nname = \"fake\"\nprogram = {fake:?}\noutput = \"jsonl\"\nreports_cost = true\n\
             resume_args = [\"--resume\", \"{{session_id}}\"]\n"
        );
        std::fs::write(world.path("config.toml"), settings).expect("settings");
        world
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().canonicalize().expect("the folder is there").join(name)
    }

    pub fn repo(&self) -> PathBuf {
        self.path("repo")
    }

    pub fn state(&self) -> PathBuf {
        self.repo().join(".orchestrator")
    }

    fn git(&self, args: &[&str]) {
        let mut command = self.sealed("git");
        assert!(command.args(args).status().expect("git runs").success(), "git {args:?}");
    }

    /// The whole environment of all that is started here.
    pub fn environment(&self) -> Vec<(String, String)> {
        let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        vec![
            set("HOME", &self.path("").to_string_lossy()),
            set("PATH", "/usr/local/bin:/usr/bin:/bin:/opt/homebrew/bin"),
            set("LANG", "C.UTF-8"),
            set("GIT_CONFIG_GLOBAL", "/dev/null"),
            set("GIT_CONFIG_NOSYSTEM", "1"),
        ]
    }

    fn sealed(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command.env_clear().envs(self.environment()).current_dir(self.repo());
        command
    }

    /// The program's arguments, with those that every call in this world has.
    pub fn arguments(&self, args: &[&str]) -> Vec<String> {
        let config = self.path("config.toml").to_string_lossy().into_owned();
        args.iter().map(|arg| (*arg).to_owned()).chain(["--config".to_owned(), config]).collect()
    }

    pub fn program() -> &'static str {
        env!("CARGO_BIN_EXE_orchestrator-boss")
    }

    /// Runs a command to its end, outside of any terminal.
    pub fn run(&self, args: &[&str]) -> Output {
        self.sealed(Self::program()).args(self.arguments(args)).stdin(Stdio::null()).output().expect("it runs")
    }

    /// What it prints when it succeeds.
    pub fn says(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    pub fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.says(args)).expect("JSON")
    }

    /// A server of the boss with this session.
    pub fn boss(&self, session: &str) -> Boss {
        let mut command = self.sealed(Self::program());
        command.args(self.arguments(&["serve"])).env("CLAUDE_CODE_SESSION_ID", session);
        Boss::start(command)
    }

    /// Lets go what waits for it (`hold`).
    pub fn release(&self, name: &str) {
        std::fs::write(self.path(name), "").expect("a file");
    }

    /// A line of a script that waits until [`World::release`].
    pub fn hold(&self, name: &str) -> String {
        format!("wait-file {} 600", self.path(name).display())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !self.state().exists() {
            return;
        }
        let everything = json!({"scope": "all", "reason": "the test is over"});
        drop(self.boss("the-end").call("cancel_all_workers", everything));
    }
}

pub fn mission(title: &str, script: &str) -> Value {
    json!({"title": title, "prompt": format!("FAKE:\n{script}"), "backend": "fake"})
}

/// Looked at again and again: it depends on other processes.
pub fn until(what: &str, mut is: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is() {
        assert!(began.elapsed() < CEILING, "it never came: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Built by cargo with the tests.
fn fake_cli() -> PathBuf {
    let target = Path::new(World::program()).parent().expect("it lies in a folder");
    let fake = target.join("examples/fake-cli");
    assert!(fake.exists(), "the fake CLI is missing: run `cargo build --examples` (`cargo test` does)");
    fake
}
