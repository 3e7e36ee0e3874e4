//! A world of its own for each test, and the real server in it, spoken to in JSON lines.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Nothing takes this long; what does hangs.
pub const CEILING: Duration = Duration::from_secs(120);

pub struct World {
    folder: tempfile::TempDir,
}

impl World {
    pub fn new() -> Self {
        let world = Self { folder: tempfile::tempdir().expect("a temporary folder") };
        std::fs::create_dir(world.repo()).expect("a folder");
        for args in [
            &["init", "-q", "-b", "main"][..],
            &["config", "user.name", "Test"],
            &["config", "user.email", "test@localhost"],
            &["commit", "-q", "--allow-empty", "-m", "first"],
        ] {
            let mut git = Command::new("git");
            git.args(args).current_dir(world.repo()).env("GIT_CONFIG_GLOBAL", "/dev/null");
            assert!(git.env("GIT_CONFIG_NOSYSTEM", "1").status().expect("git runs").success());
        }
        world
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().canonicalize().expect("it is there").join(name)
    }

    pub fn repo(&self) -> PathBuf {
        self.path("repo")
    }

    /// A server with these settings; the fake CLI is its backend `fake`.
    pub fn server(&self, settings: &str) -> Server {
        self.start("exec \"$0\" \"$@\"", settings)
    }

    /// The same, started by a shell that may set limits before.
    pub fn start(&self, shell: &str, settings: &str) -> Server {
        let program = Path::new(env!("CARGO_BIN_EXE_orchestrator-boss"));
        let fake = program.with_file_name("examples/fake-cli");
        assert!(fake.exists(), "the fake CLI is missing: run `cargo build --examples`");
        let settings = format!("{settings}\n[[custom]]\nname = \"fake\"\nprogram = {fake:?}\noutput = \"jsonl\"\n");
        std::fs::write(self.path("config.toml"), settings).expect("a settings file");
        let mut server = Command::new("/bin/sh")
            .args(["-c", shell])
            .arg(program)
            .arg("--config")
            .arg(self.path("config.toml"))
            .env("HOME", self.folder.path())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("CLAUDE_CODE_SESSION_ID", "the-boss")
            .env_remove("ORCHESTRATOR_MAX_WORKERS")
            .env_remove("ORCHESTRATOR_WORKER_TAG")
            .current_dir(self.repo())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(self.path("server.log")).expect("a log"))
            .spawn()
            .expect("the server starts");
        let (sender, output) = channel();
        let lines = BufReader::new(server.stdout.take().expect("it is piped")).lines();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let input = server.stdin.take();
        let mut server = Server { process: server, input, output, next_id: 0 };
        let hello = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "limits", "version": "1"}});
        server.request("initialize", &hello);
        server.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        server
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("server.log")).unwrap_or_default()
    }
}

pub struct Server {
    process: Child,
    input: Option<ChildStdin>,
    output: Receiver<String>,
    next_id: u64,
}

impl Server {
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The structured answer of a tool that succeeds.
    pub fn call(&mut self, tool: &str, arguments: Value) -> Value {
        let answer = self.request("tools/call", &json!({"name": tool, "arguments": arguments}));
        assert_eq!(answer["result"]["isError"], Value::from(false), "{tool}: {answer}");
        answer["result"]["structuredContent"].clone()
    }

    fn request(&mut self, method: &str, params: &Value) -> Value {
        self.next_id += 1;
        self.send(&json!({"jsonrpc": "2.0", "id": self.next_id, "method": method, "params": params}));
        loop {
            let line = self.output.recv_timeout(CEILING).unwrap_or_else(|_| panic!("no answer to {params}"));
            let message: Value = serde_json::from_str(&line).expect("the server prints JSON lines");
            if message["id"] == self.next_id {
                return message;
            }
        }
    }

    fn send(&mut self, message: &Value) {
        let input = self.input.as_mut().expect("it is open");
        writeln!(input, "{message}").expect("the server reads");
    }

    /// Closes its input, and waits for its end.
    pub fn leave(mut self) {
        self.input = None;
        let _ = self.process.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A mission for the fake CLI.
pub fn mission(title: &str, script: &str) -> Value {
    json!({"title": title, "prompt": format!("FAKE:\n{script}"), "backend": "fake"})
}

/// Polls a condition that depends on other processes.
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(began.elapsed() < CEILING, "waited {} s for {what}", CEILING.as_secs());
        std::thread::sleep(Duration::from_millis(10));
    }
}
