//! A sealed world for one row: a folder with a repository or without, and servers in it whose backend `bench` is the
//! agent of [`crate::agent`].

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Value, json};

use crate::agent::{Bell, program};
use crate::server::Server;

pub struct World {
    pub bell: Bell,
    /// `Some` until it is dropped.
    folder: Option<tempfile::TempDir>,
}

/// Folders of worlds that are not needed any more. To remove thousands of files makes the next ones that are made several
/// times slower for minutes (ext4 without a journal looks for other inodes than those), on either side.
static USED: Mutex<Vec<tempfile::TempDir>> = Mutex::new(Vec::new());

impl Drop for World {
    fn drop(&mut self) {
        USED.lock().expect("nobody panics with it").extend(self.folder.take());
    }
}

/// When nothing is measured any more.
pub fn remove_all() {
    USED.lock().expect("nobody panics with it").clear();
}

impl World {
    /// Without a repository.
    pub fn plain() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().canonicalize().expect("it is there");
        for name in ["repo", "run", "work"] {
            std::fs::create_dir(path.join(name)).expect("a folder");
        }
        Self { bell: Bell::hang(path.join("bell")), folder: Some(folder) }
    }

    /// With a repository of so many files of some kilobytes each, thirty in a folder.
    pub fn with_repository(files: usize) -> Self {
        let world = Self::plain();
        world.git(&["init", "-q", "-b", "main"]);
        world.git(&["config", "user.name", "Bench"]);
        world.git(&["config", "user.email", "bench@localhost"]);
        for number in 0..files {
            let path = world.repo().join(file(number));
            std::fs::create_dir_all(path.parent().expect("it has one")).expect("a folder");
            std::fs::write(path, text(number, 80)).expect("a file");
        }
        world.git(&["add", "."]);
        world.git(&["commit", "-q", "--allow-empty", "-m", "first"]);
        // A repository that is worked in is packed, and its index is not younger than its files.
        world.git(&["gc", "-q"]);
        std::thread::sleep(Duration::from_millis(1_100));
        world.git(&["update-index", "-q", "--refresh"]);
        world
    }

    pub fn path(&self, name: &str) -> PathBuf {
        let folder = self.folder.as_ref().expect("it is there while the world is");
        folder.path().canonicalize().expect("it is there").join(name)
    }

    /// The folder that servers are started in.
    pub fn repo(&self) -> PathBuf {
        self.path("repo")
    }

    /// A new folder to work in.
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

    /// A command that sees nothing of the user's own configuration.
    pub fn sealed(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env("HOME", self.path("")).env("XDG_RUNTIME_DIR", self.path("run")).current_dir(self.repo());
        command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
        command.env("CLAUDE_CODE_SESSION_ID", "bench").env_remove("ORCHESTRATOR_WORKER_TAG");
        command
    }

    /// A server that lets so many workers live at once.
    pub fn server(&self, max_workers: usize) -> Server {
        let (program, bell) = (program(), self.bell.path());
        let settings = format!(
            "max_workers = {max_workers}\nmin_free_memory_mib = 0\n\
             [[custom]]\nname = \"bench\"\nprogram = {program:?}\nargs = [\"agent\", {bell:?}]\n\
             [[custom]]\nname = \"lines\"\nprogram = {program:?}\nargs = [\"agent\", {bell:?}]\noutput = \"jsonl\"\n"
        );
        let path = self.path(&format!("{max_workers}.toml"));
        std::fs::write(&path, settings).expect("a settings file");
        let log = std::fs::File::options().create(true).append(true).open(self.path("server.log"));
        let mut command = self.sealed(env!("CARGO_BIN_EXE_orchestrator-boss"));
        command.arg("--config").arg(path).stderr(log.expect("a log"));
        Server::start(command)
    }
}

/// Ends a worker's agent and waits until the worker has settled as it should.
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

/// A mission in a worktree of its own.
pub fn mission(title: &str) -> Value {
    json!({"title": title, "prompt": "Do it.", "backend": "bench"})
}

/// A mission in this folder.
pub fn mission_in(title: &str, folder: &Path) -> Value {
    json!({"title": title, "prompt": "Do it.", "backend": "bench", "working_directory": folder})
}

/// The id of the worker that a call created.
pub fn created(answer: &Value) -> String {
    answer["worker"]["worker_id"].as_str().expect("it was accepted").to_owned()
}

/// Path of a file of the repository.
pub fn file(number: usize) -> String {
    format!("folder-{}/file-{number}.txt", number / 30)
}

/// So many lines that no other file has.
pub fn text(seed: usize, lines: usize) -> String {
    (0..lines).map(|line| format!("line {line} of the text with the number {seed}\n")).collect()
}

/// Lets what was asked for before come to rest, so that it is not measured with what comes next.
pub fn rest() {
    std::thread::sleep(Duration::from_millis(150));
}
