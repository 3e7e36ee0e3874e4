//! A sealed world for one row: a folder with or without a repository, and servers whose backend `bench` is the agent of
//! [`crate::agent`].

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Value, json};

use crate::agent::{Bell, program};
use crate::server::Server;

pub struct World {
    pub bell: Bell,
    /// `Some` until the world is dropped.
    folder: Option<tempfile::TempDir>,
}

/// Folders of finished worlds, which are removed at the end. Removing thousands of files makes later creations several
/// times slower for minutes (ext4 without a journal avoids recently freed inodes), on both sides.
static USED: Mutex<Vec<tempfile::TempDir>> = Mutex::new(Vec::new());

impl Drop for World {
    fn drop(&mut self) {
        USED.lock().expect("an unpoisoned lock").extend(self.folder.take());
    }
}

/// Removes the folders of all finished worlds, after all measurements.
pub fn remove_all() {
    USED.lock().expect("an unpoisoned lock").clear();
}

impl World {
    /// Creates a world without a repository.
    pub fn plain() -> Self {
        Self::within(&std::env::temp_dir())
    }

    /// Creates a world without a repository in this folder.
    pub fn within(folder: &Path) -> Self {
        let folder = tempfile::tempdir_in(folder).expect("a temporary folder");
        let path = folder.path().canonicalize().expect("an existing path");
        for name in ["repo", "run", "work"] {
            std::fs::create_dir(path.join(name)).expect("a folder");
        }
        Self { bell: Bell::hang(path.join("bell")), folder: Some(folder) }
    }

    /// Creates a world with a repository of this many files of some kilobytes each, thirty in a folder.
    pub fn with_repository(files: usize) -> Self {
        let world = Self::plain();
        world.git(&["init", "-q", "-b", "main"]);
        world.git(&["config", "user.name", "Bench"]);
        world.git(&["config", "user.email", "bench@localhost"]);
        for number in 0..files {
            let path = world.repo().join(file(number));
            std::fs::create_dir_all(path.parent().expect("a path with a parent")).expect("a folder");
            std::fs::write(path, text(number, 80)).expect("a file");
        }
        world.git(&["add", "."]);
        world.git(&["commit", "-q", "--allow-empty", "-m", "first"]);
        // A repository in use is packed, and its index is not newer than its files.
        world.git(&["gc", "-q"]);
        std::thread::sleep(Duration::from_millis(1_100));
        world.git(&["update-index", "-q", "--refresh"]);
        world
    }

    pub fn path(&self, name: &str) -> PathBuf {
        let folder = self.folder.as_ref().expect("a folder until the drop");
        folder.path().canonicalize().expect("an existing path").join(name)
    }

    /// Returns the folder in which servers are started.
    pub fn repo(&self) -> PathBuf {
        self.path("repo")
    }

    /// Creates a working directory.
    pub fn place(&self, name: &str) -> PathBuf {
        let place = self.path("work").join(name);
        std::fs::create_dir_all(&place).expect("a folder");
        place
    }

    pub fn git(&self, arguments: &[&str]) -> String {
        self.git_in(&self.repo(), arguments)
    }

    pub fn git_in(&self, folder: &Path, arguments: &[&str]) -> String {
        let output = self.sealed("git").args(arguments).current_dir(folder).output().expect("git runs");
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Returns a command without the user's configuration.
    pub fn sealed(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env("HOME", self.path("")).env("XDG_RUNTIME_DIR", self.path("run")).current_dir(self.repo());
        command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
        command.env("CLAUDE_CODE_SESSION_ID", "bench").env_remove("ORCHESTRATOR_WORKER_TAG");
        command
    }

    /// Starts a server that allows this many workers at once.
    pub fn server(&self, max_workers: usize) -> Server {
        self.server_with(max_workers, "")
    }

    /// Starts a server with one more line of settings.
    pub fn server_with(&self, max_workers: usize, line: &str) -> Server {
        let path = self.settings(max_workers, line, "");
        let log = std::fs::File::options().create(true).append(true).open(self.path("server.log"));
        let mut command = self.sealed(env!("CARGO_BIN_EXE_orchestrator-boss"));
        command.arg("--config").arg(path).stderr(log.expect("a log"));
        Server::start(command)
    }

    /// Writes settings with one more line and these tables. Returns their path.
    pub fn settings(&self, max_workers: usize, line: &str, tables: &str) -> PathBuf {
        let (program, bell) = (program(), self.bell.path());
        let settings = format!(
            "{line}\nmax_workers = {max_workers}\nmin_free_memory_mib = 0\n\
             [[custom]]\nname = \"bench\"\nprogram = {program:?}\nargs = [\"agent\", {bell:?}]\n\
             [[custom]]\nname = \"lines\"\nprogram = {program:?}\nargs = [\"agent\", {bell:?}]\noutput = \"jsonl\"\n\
             {tables}"
        );
        let letters: String = line.chars().filter(char::is_ascii_alphanumeric).collect();
        let path = self.path(&format!("{max_workers}{letters}.toml"));
        std::fs::write(&path, settings).expect("a settings file");
        path
    }
}

/// Waits until these workers have settled as expected.
pub fn until_settled(server: &mut Server, workers: &[String]) {
    let mut left = workers.to_vec();
    while !left.is_empty() {
        let answer = server.call("wait_for_any_worker", json!({"worker_ids": left, "timeout_seconds": 50}));
        for worker in answer["settled"].as_array().expect("a list") {
            assert_eq!(worker["status"], "completed", "{worker:#}");
            left.retain(|id| worker["worker_id"] != id.as_str());
        }
    }
}

/// Returns a mission in its own worktree.
pub fn mission(title: &str) -> Value {
    json!({"title": title, "prompt": "Do it.", "backend": "bench"})
}

/// Returns a mission in this folder.
pub fn mission_in(title: &str, folder: &Path) -> Value {
    json!({"title": title, "prompt": "Do it.", "backend": "bench", "working_directory": folder})
}

/// Returns the id of the worker that a call created.
pub fn created(answer: &Value) -> String {
    answer["worker"]["worker_id"].as_str().expect("an accepted mission").to_owned()
}

/// Returns the path of a file of the repository.
pub fn file(number: usize) -> String {
    format!("folder-{}/file-{number}.txt", number / 30)
}

/// Returns this many unique lines.
pub fn text(seed: usize, lines: usize) -> String {
    (0..lines).map(|line| format!("line {line} of the text with the number {seed}\n")).collect()
}

/// Waits until earlier work has finished, so that it does not affect the next measurement.
pub fn rest() {
    std::thread::sleep(Duration::from_millis(150));
}
