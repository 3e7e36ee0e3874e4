//! A client that sends raw JSON lines to the real program, so that it can also send invalid ones.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// Time limit of every wait. An operation that takes longer hangs.
pub const CEILING: Duration = Duration::from_secs(60);

pub struct Client {
    server: Child,
    input: Option<ChildStdin>,
    output: Receiver<Value>,
    /// Messages that arrived during the wait for another one.
    pub others: Vec<Value>,
    pub home: TempDir,
}

impl Client {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server in a sealed environment in which no worker starts: created workers stay queued.
    pub fn start_with(environment: &[(&str, &str)]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), "", environment)
    }

    /// Starts a server in a home that the test has prepared, in any directory. The umask is 000,
    /// since the server must keep its files private under any umask. Its stderr goes to `server.log`.
    pub fn start_in(home: TempDir, directory: impl AsRef<Path>, environment: &[(&str, &str)]) -> Self {
        Self::start_program(Path::new(env!("CARGO_BIN_EXE_orchestrator-boss")), home, directory, environment)
    }

    /// Starts a server as `start_in` does, from the program at this path.
    pub fn start_program(
        program: &Path,
        home: TempDir,
        directory: impl AsRef<Path>,
        environment: &[(&str, &str)],
    ) -> Self {
        let directory = home.path().join(directory);
        fake_codex(&home.path().join("bin"));
        let log = std::fs::File::create(home.path().join("server.log")).unwrap();
        let mut server = Command::new("/bin/sh")
            .args(["-c", "umask 000; exec \"$0\""])
            .arg(program)
            .env_clear()
            .env("HOME", home.path())
            .env("PATH", format!("{}:/usr/bin:/bin", home.path().join("bin").display()))
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("ORCHESTRATOR_MAX_WORKERS", "0")
            .envs(environment.iter().copied())
            .current_dir(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let lines = BufReader::new(server.stdout.take().unwrap()).lines();
        let (sender, output) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let message = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
                if sender.send(message).is_err() {
                    break;
                }
            }
        });
        let input = server.stdin.take();
        Self { server, input, output, others: Vec::new(), home }
    }

    /// Starts a server, and opens a session of the older era.
    pub fn initialized(name: &str) -> Self {
        let mut client = Self::start();
        client.initialize(name, "2025-06-18");
        client
    }

    pub fn initialize(&mut self, name: &str, version: &str) -> Value {
        let info = json!({"name": name, "version": "1"});
        let params = json!({"protocolVersion": version, "capabilities": {}, "clientInfo": info});
        let answer = self.ask(0, "initialize", params);
        self.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        answer
    }

    pub fn send(&mut self, message: &Value) {
        self.send_bytes(message.to_string().as_bytes());
    }

    pub fn send_bytes(&mut self, line: &[u8]) {
        let input = self.input.as_mut().expect("the input is open");
        input.write_all(line).and_then(|()| input.write_all(b"\n")).unwrap();
    }

    pub fn send_request(&mut self, id: impl Into<Value>, method: &str, params: Value) {
        self.send(&json!({"jsonrpc": "2.0", "id": id.into(), "method": method, "params": params}));
    }

    /// Returns the next message with this id; earlier messages are kept in `others`.
    pub fn answer(&mut self, id: impl Into<Value>) -> Value {
        let id = id.into();
        loop {
            let message = self.output.recv_timeout(CEILING).unwrap_or_else(|_| panic!("no answer to {id}"));
            if message["id"] == id {
                return message;
            }
            self.others.push(message);
        }
    }

    /// Returns the answer with this id; `None` if the server has died.
    pub fn try_answer(&mut self, id: i64) -> Option<Value> {
        loop {
            match self.output.recv_timeout(CEILING) {
                Ok(message) if message["id"] == id => return Some(message),
                Ok(message) => self.others.push(message),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => panic!("no answer to {id}"),
            }
        }
    }

    /// Returns the next message that matches, also among the kept ones.
    pub fn next(&mut self, meant: impl Fn(&Value) -> bool) -> Value {
        if let Some(at) = self.others.iter().position(&meant) {
            return self.others.remove(at);
        }
        loop {
            let message = self.output.recv_timeout(CEILING).expect("it comes");
            if meant(&message) {
                return message;
            }
            self.others.push(message);
        }
    }

    pub fn ask(&mut self, id: impl Into<Value> + Clone, method: &str, params: Value) -> Value {
        self.send_request(id.clone(), method, params);
        self.answer(id)
    }

    pub fn send_call(&mut self, id: impl Into<Value>, tool: &str, arguments: Value) {
        self.send_request(id, "tools/call", json!({"name": tool, "arguments": arguments}));
    }

    /// Calls a tool, and returns the result.
    pub fn call(&mut self, id: i64, tool: &str, arguments: Value) -> Value {
        self.send_call(id, tool, arguments);
        let answer = self.answer(id);
        assert!(answer.get("result").is_some(), "{answer}");
        answer["result"].clone()
    }

    /// Returns the structured answer of a call that must succeed.
    pub fn succeed(&mut self, id: i64, tool: &str, arguments: Value) -> Value {
        let result = self.call(id, tool, arguments);
        assert_ne!(result["isError"], true, "{result}");
        result["structuredContent"].clone()
    }

    /// Returns the text of a call that must fail with a tool error, not with a protocol error.
    pub fn refused(&mut self, id: i64, tool: &str, arguments: Value) -> String {
        let result = self.call(id, tool, arguments);
        assert_eq!(result["isError"], true, "{result}");
        result["content"][0]["text"].as_str().unwrap().to_owned()
    }

    /// Creates a worker that stays queued, and returns its id.
    pub fn create_queued(&mut self, id: i64) -> String {
        let mission = json!({
            "title": "Stay queued", "prompt": "Nothing.", "backend": "codex", "working_directory": self.home.path()
        });
        let answer = self.succeed(id, "create_worker_mission", mission);
        assert_eq!(answer["worker"]["status"], "queued");
        answer["worker"]["worker_id"].as_str().unwrap().to_owned()
    }

    /// Repeats a wait until it has something to report. Each wait lasts up to 20 s.
    pub fn next_report(&mut self, id: i64) -> Value {
        let began = Instant::now();
        loop {
            let answer = self.succeed(id, "wait_for_any_worker", json!({"timeout_seconds": 18}));
            if answer["status"] != "still_running" || began.elapsed() > 3 * CEILING {
                return answer;
            }
        }
    }

    /// Installs a script in the folder in which the server searches for CLIs.
    pub fn install(&self, program: &str, text: &str) {
        script(&self.home.path().join("bin").join(program), text);
    }

    pub fn pid(&self) -> u32 {
        self.server.id()
    }

    /// Closes the input. Returns the exit status and the time until the server's exit.
    pub fn close(&mut self) -> (ExitStatus, Duration) {
        drop(self.input.take());
        self.end()
    }

    /// Kills the server as in a power failure, and returns its home.
    pub fn kill(mut self) -> TempDir {
        let _ = self.server.kill();
        let _ = self.server.wait();
        std::mem::replace(&mut self.home, tempfile::tempdir().unwrap())
    }

    /// Waits for the server's exit.
    pub fn end(&mut self) -> (ExitStatus, Duration) {
        let start = Instant::now();
        loop {
            if let Some(status) = self.server.try_wait().unwrap() {
                return (status, start.elapsed());
            }
            assert!(start.elapsed() < CEILING, "the server does not exit");
            std::thread::yield_now();
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Writes a minimal CLI that can be found and reports its version.
fn fake_codex(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    script(&folder.join("codex"), "#!/bin/sh\necho codex-cli 99.0.0\n");
}

pub fn script(program: &Path, text: &str) {
    std::fs::write(program, text).unwrap();
    std::fs::set_permissions(program, std::fs::Permissions::from_mode(0o755)).unwrap();
}
