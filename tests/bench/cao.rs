//! The peer, CLI Agent Orchestrator (CAO), in a sealed world: its server, its own tmux, and the HTTP API that its MCP
//! tools `assign` and `handoff` call.
//!
//! Its workers use the provider `mock_cli` for tests without a real CLI. It waits only for the shell and the CLI's
//! prompt, so no other provider starts sooner.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::agent::{Bell, program};
use crate::clock;

/// Time limit of every wait. An operation that takes longer hangs.
const CEILING: Duration = Duration::from_secs(120);
const SESSION: &str = "cao-bench";

/// Runs the CLI of both sides: it reports when it began, when it has read its mission, and when it has ended its turn
/// on command. If the benchmark disconnects, it dies during its turn.
pub fn run_cli(began: u64, socket: &Path) {
    let mut stream = UnixStream::connect(socket).expect("the benchmark listens");
    let directory = std::env::current_dir().expect("a working directory");
    writeln!(stream, "{began} {}", directory.display()).expect("the benchmark reads");
    print!("❯ ");
    std::io::stdout().flush().expect("a reader");
    let mut typed = std::io::stdin().lines().map_while(Result::ok);
    if !typed.any(|line| !line.trim().is_empty()) {
        return;
    }
    writeln!(stream, "{}", clock::now()).expect("the benchmark reads");
    let mut words = BufReader::new(stream.try_clone().expect("one more")).lines().map_while(Result::ok);
    if words.next().is_none() {
        std::process::exit(1);
    }
    let ended = clock::now();
    print!("> MOCK: done\n❯ ");
    std::io::stdout().flush().expect("a reader");
    writeln!(stream, "{ended}").expect("the benchmark reads");
    // In a terminal it stays until it is asked to exit; a pipe is at its end.
    typed.any(|line| line.contains("/exit"));
}

pub struct Cao {
    server: Child,
    /// Ends all processes at any end of this one.
    guard: Child,
    port: u16,
    bin: PathBuf,
    home: PathBuf,
    /// The boss's terminal, whose CLI waits.
    boss: String,
}

impl Cao {
    /// Starts CAO from the programs in `bin`. It writes only to `home`, which does not exist yet.
    pub fn start(bin: &Path, home: &Path, bell: &Bell) -> Self {
        let programs = home.join("programs");
        for folder in [&programs, &home.join("tmux")] {
            fs::create_dir_all(folder).expect("a folder");
        }
        let cli = programs.join("mock_cli");
        fs::write(&cli, format!("#!/bin/sh\nexec {:?} agent {:?}\n", program(), bell.path())).expect("a script");
        fs::set_permissions(&cli, fs::Permissions::from_mode(0o755)).expect("a writable file");
        // The shells in its terminals are login shells.
        fs::write(home.join(".profile"), format!("PATH={programs:?}:$PATH\n")).expect("a file");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a free port").port();
        let log = fs::File::create(home.join("server.log")).expect("a log");
        let mut command = sealed(bin.join("cao-server"), home, port);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("one more")).stderr(log);
        let server = command.spawn().expect("its server starts");
        let mut guard = sealed("sh", home, port);
        guard.env_remove("HOME").args(["-c", "cat; tmux kill-server; kill \"$0\""]).arg(server.id().to_string());
        guard.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let guard = guard.spawn().expect("a shell");
        let mut cao = Self { server, guard, port, bin: bin.to_owned(), home: home.to_owned(), boss: String::new() };
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(began.elapsed() < CEILING, "its server listens");
            std::thread::sleep(Duration::from_millis(20));
        }
        cao.boss = cao.create(&format!("/sessions?session_name={SESSION}"), home, &json!({}));
        bell.answer();
        cao
    }

    /// Creates a terminal with a CLI, and returns its id.
    fn create(&self, path: &str, folder: &Path, body: &Value) -> String {
        let what = "provider=mock_cli&agent_profile=developer";
        let path = format!("{path}&{what}&working_directory={}", folder.display());
        self.request("POST", &path, body)["id"].as_str().expect("an id").to_owned()
    }

    /// Does the same as `assign`, and returns the terminal's id.
    pub fn assign(&self, folder: &Path) -> String {
        let path = format!("/sessions/{SESSION}/terminals?caller_id={}&defer_init=true", self.boss);
        let mission = json!({"initial_message": "Do it.", "initial_message_orchestration_type": "assign"});
        self.create(&path, folder, &mission)
    }

    /// Does the same as `handoff`: returns when the worker has ended its turn and its terminal is gone.
    pub fn hand_off(&self, folder: &Path) {
        let step = json!({
            "provider": "mock_cli", "agent": "developer", "prompt": "Do it.", "teardown": true, "timeout": 120,
            "session_name": SESSION, "caller_id": self.boss, "working_directory": folder,
        });
        let answer = self.request("POST", "/terminals/run-step", &step);
        assert_eq!(answer["status"], "completed", "{answer}");
    }

    /// Polls a worker's status every 10 ms until it is this one or the time is up, and returns the last status.
    pub fn until(&self, terminal: &str, status: &str, ceiling: Duration) -> String {
        let began = Instant::now();
        loop {
            let answer = self.request("GET", &format!("/terminals/{terminal}"), &Value::Null);
            let is = answer["status"].as_str().expect("a status");
            if is == status || began.elapsed() > ceiling {
                return is.to_owned();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn delete(&self, terminal: &str) {
        self.request("DELETE", &format!("/terminals/{terminal}"), &Value::Null);
    }

    /// Returns the command of the MCP server that CAO's built-in profiles start in each terminal.
    pub fn mcp_server(&self) -> Command {
        let mut command = sealed(self.bin.join("cao-mcp-server"), &self.home, self.port);
        command.env("CAO_TERMINAL_ID", &self.boss).stderr(Stdio::null());
        command
    }

    fn request(&self, method: &str, path: &str, body: &Value) -> Value {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("its server listens");
        stream.set_read_timeout(Some(CEILING)).expect("a ceiling");
        let (port, body) = (self.port, if body.is_null() { String::new() } else { body.to_string() });
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).expect("its server reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("its server answers");
        let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
        assert!(head.starts_with("HTTP/1.1 2"), "{method} {path}: {answer}");
        serde_json::from_str(body).expect("JSON")
    }
}

impl Drop for Cao {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
        let _ = self.server.wait();
    }
}

/// Returns a command without the user's configuration and without another tmux.
fn sealed(program: impl AsRef<std::ffi::OsStr>, home: &Path, port: u16) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", home).current_dir(home);
    command.env("TMUX_TMPDIR", home.join("tmux")).env("CAO_API_PORT", port.to_string());
    command.envs([("SHELL", "/bin/sh"), ("LC_ALL", "C.UTF-8"), ("TERM", "xterm-256color")]);
    command
}
