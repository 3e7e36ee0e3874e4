//! The world of one round, and a boss in it: a real server over raw JSON lines, which may die at any moment.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

pub use crate::json_lines::{Boss, CEILING, processes_in};

pub struct World {
    folder: tempfile::TempDir,
}

impl World {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
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
        let settings = format!(
            "max_workers = 6\n[[custom]]\nname = \"fake\"\nprogram = {fake:?}\nresume_args = [\"--resume\", \"{{session_id}}\"]\noutput = \"jsonl\"\n"
        );
        std::fs::write(world.path("config.toml"), settings).expect("a settings file");
        world
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().canonicalize().expect("it is there").join(name)
    }

    pub fn repo(&self) -> PathBuf {
        self.path("repo")
    }

    pub fn workers(&self) -> PathBuf {
        self.repo().join(".orchestrator/workers")
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

    /// Always the same boss; each time another server.
    pub fn boss(&self) -> Boss {
        let mut server = Command::new(env!("CARGO_BIN_EXE_orchestrator-boss"));
        server
            .arg("--config")
            .arg(self.path("config.toml"))
            .env("HOME", self.folder.path())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("CLAUDE_CODE_SESSION_ID", "the-boss")
            .env_remove("ORCHESTRATOR_MAX_WORKERS")
            .current_dir(self.repo());
        Boss::start(server)
    }

    /// No process names this world or works in it.
    pub fn check_nothing_left(&self) {
        let began = Instant::now();
        loop {
            let left = processes_in(self.folder.path());
            if left.is_empty() {
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(15), "processes are left: {left:#?}");
            std::thread::yield_now();
        }
    }
}
