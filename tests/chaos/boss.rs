//! The world of one round, and a boss in it: a real server over raw JSON lines, which may die at any moment.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Nothing takes this long; what does hangs.
pub const CEILING: Duration = Duration::from_secs(90);

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
        let mut server = Command::new(env!("CARGO_BIN_EXE_orchestrator-boss"))
            .arg("--config")
            .arg(self.path("config.toml"))
            .env("HOME", self.folder.path())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("CLAUDE_CODE_SESSION_ID", "the-boss")
            .env_remove("ORCHESTRATOR_MAX_WORKERS")
            .current_dir(self.repo())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the server starts");
        let input = server.stdin.take();
        let output = lines_of(server.stdout.take().expect("it is piped"));
        let mut boss = Boss { server, input, output, next_id: 0, dead: false };
        let hello = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "chaos", "version": "1"}});
        boss.request("initialize", hello).expect("a new server answers");
        boss.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        boss
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

pub struct Boss {
    server: Child,
    input: Option<ChildStdin>,
    output: Receiver<String>,
    next_id: u64,
    dead: bool,
}

impl Boss {
    /// The structured answer; the tool's refusal; or nothing, because the server died before it answered.
    pub fn call(&mut self, tool: &str, arguments: Value) -> Option<Result<Value, String>> {
        let answer = self.request("tools/call", json!({"name": tool, "arguments": arguments}))?;
        let result = &answer["result"];
        assert!(result.is_object(), "{tool}: {answer}");
        let text = || result["content"][0]["text"].as_str().unwrap_or_default().to_owned();
        Some(if result["isError"] == true { Err(text()) } else { Ok(result["structuredContent"].clone()) })
    }

    /// Sends a call and kills the server before it can have answered, or just after.
    pub fn call_and_kill(&mut self, tool: &str, arguments: Value) {
        self.next_id += 1;
        let params = json!({"name": tool, "arguments": arguments});
        self.send(&json!({"jsonrpc": "2.0", "id": self.next_id, "method": "tools/call", "params": params}));
        self.kill_server();
    }

    fn request(&mut self, method: &str, params: Value) -> Option<Value> {
        let named = params["name"].as_str().unwrap_or_default().to_owned();
        self.next_id += 1;
        self.send(&json!({"jsonrpc": "2.0", "id": self.next_id, "method": method, "params": params}));
        loop {
            let line = match self.output.recv_timeout(CEILING) {
                Ok(line) => line,
                Err(RecvTimeoutError::Disconnected) => {
                    self.dead = true;
                    return None;
                }
                Err(RecvTimeoutError::Timeout) => panic!("no answer to {method} {named}"),
            };
            let message: Value = serde_json::from_str(&line).expect("the server prints JSON lines");
            if message["id"] == self.next_id {
                return Some(message);
            }
        }
    }

    fn send(&mut self, message: &Value) {
        if let Some(input) = &mut self.input
            && writeln!(input, "{message}").is_err()
        {
            self.dead = true;
        }
    }

    pub fn kill_server(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        self.dead = true;
    }

    pub fn is_dead(&self) -> bool {
        self.dead
    }

    /// In order.
    pub fn leave(mut self) {
        self.input = None;
        let _ = self.server.wait();
    }
}

impl Drop for Boss {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Read by a thread of its own, so that waiting for one has a ceiling.
fn lines_of(output: ChildStdout) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    lines
}

/// Command lines of the processes that name a folder or work in it.
pub fn processes_in(folder: &Path) -> Vec<(u32, String)> {
    let folder = folder.canonicalize().expect("it is there");
    let entries = std::fs::read_dir("/proc").expect("this test runs on Linux").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let works_there = std::fs::read_link(proc.join("cwd")).is_ok_and(|cwd| cwd.starts_with(&folder));
        let command = std::fs::read(proc.join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        (works_there || command.contains(&*folder.to_string_lossy())).then_some((pid, command))
    })
    .collect()
}
