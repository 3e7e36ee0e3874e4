//! One server, seen from its boss: the real binary over raw JSON lines. It may be killed or stopped at any moment;
//! calls can overlap and be cancelled.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use orchestrator_boss::process::{Identity, Signal, send};
use serde_json::{Value, json};

use crate::world::World;

/// The structured answer, or the tool's refusal.
pub type Answer = Result<Value, String>;

pub struct Server {
    child: Child,
    input: Option<ChildStdin>,
    output: Receiver<String>,
    next_id: u64,
    /// Answers that arrived during the wait for another one.
    early: HashMap<u64, Value>,
    dead: bool,
    /// The longest wait for an answer, or for its exit.
    ceiling: Duration,
    is_on_login: bool,
}

impl Server {
    /// Starts a server for a boss with this session, or without one.
    pub fn start(world: &World, boss: Option<&str>) -> Self {
        Self::start_with(world, boss, &[])
    }

    pub fn start_with(world: &World, boss: Option<&str>, environment: &[(&str, String)]) -> Self {
        let mut server = Self::spawn(world, boss, environment);
        let hello = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "chaos", "version": "1"}});
        let id = server.request("initialize", hello);
        if server.response(id).is_some() {
            server.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        }
        server
    }

    fn spawn(world: &World, boss: Option<&str>, environment: &[(&str, String)]) -> Self {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(world.path("servers.log"));
        let mut command = world.program();
        command
            .arg("--config")
            .arg(world.path("config.toml"))
            .env("HOME", world.root())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env_remove("CLAUDE_CODE_SESSION_ID")
            .env_remove("ORCHESTRATOR_MAX_WORKERS")
            .envs(boss.map(|boss| ("CLAUDE_CODE_SESSION_ID", boss)))
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log.expect("a log file"));
        let mut child = command.spawn().expect("the server starts");
        let input = child.stdin.take();
        let output = lines_of(child.stdout.take().expect("a piped stream"));
        Self {
            child,
            input,
            output,
            next_id: 0,
            early: HashMap::new(),
            dead: false,
            ceiling: world.ceiling(),
            is_on_login: world.cluster.is_some(),
        }
    }

    /// Calls a tool. Returns `None` if the server died before it answered.
    pub fn call(&mut self, tool: &str, arguments: Value) -> Option<Answer> {
        let id = self.begin(tool, arguments);
        self.answer(id)
    }

    /// Waits as a client does that can be woken. Returns the id of the task, or the answer if there is no task. `None` if
    /// the server died before.
    pub fn begin_background_wait(&mut self, arguments: &Value) -> Option<Result<String, Value>> {
        let params = json!({"name": "wait_for_any_worker", "arguments": arguments, "_meta": with_tasks()});
        let id = self.request("tools/call", params);
        let result = self.response(id)?["result"].take();
        Some(match result["taskId"].as_str() {
            Some(task) => Ok(task.to_owned()),
            None => Err(result["structuredContent"].clone()),
        })
    }

    /// Returns the state of a task. `None` if the server died before it answered.
    pub fn task(&mut self, task: &str) -> Option<Value> {
        let id = self.request("tasks/get", json!({"taskId": task, "_meta": with_tasks()}));
        let message = self.response(id)?;
        assert!(message["result"].is_object(), "a protocol error: {message}");
        Some(message["result"].clone())
    }

    /// Sends a call; [`Server::answer`] returns its answer.
    pub fn begin(&mut self, tool: &str, arguments: Value) -> u64 {
        self.request("tools/call", json!({"name": tool, "arguments": arguments}))
    }

    pub fn answer(&mut self, id: u64) -> Option<Answer> {
        self.response(id).map(|message| to_answer(&message))
    }

    /// Waits this long for an answer. Returns `None` if it has not come, and `Some(None)` if the server died before it.
    pub fn answer_within(&mut self, id: u64, time: Duration) -> Option<Option<Answer>> {
        match self.response_within(id, time) {
            Ok(message) => Some(Some(to_answer(&message))),
            Err(RecvTimeoutError::Disconnected) => Some(None),
            Err(RecvTimeoutError::Timeout) => None,
        }
    }

    /// Returns the answer to a cancelled call, if the server sent one.
    pub fn early_answer(&mut self, id: u64) -> Option<Answer> {
        while let Ok(line) = self.output.try_recv() {
            self.keep(&line);
        }
        self.early.remove(&id).map(|message| to_answer(&message))
    }

    /// Reads the remaining answers of a dead server. An incomplete last line is ignored.
    fn read_remaining(&mut self) {
        while let Ok(line) = self.output.recv_timeout(self.ceiling) {
            if serde_json::from_str::<Value>(&line).is_ok() {
                self.keep(&line);
            }
        }
    }

    pub fn cancel(&mut self, id: u64) {
        self.send(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}}));
    }

    fn request(&mut self, method: &str, params: Value) -> u64 {
        self.next_id += 1;
        self.send(&json!({"jsonrpc": "2.0", "id": self.next_id, "method": method, "params": params}));
        self.next_id
    }

    fn response(&mut self, id: u64) -> Option<Value> {
        match self.response_within(id, self.ceiling) {
            Ok(message) => Some(message),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("no answer to request {id} within {:?}", self.ceiling),
        }
    }

    fn response_within(&mut self, id: u64, time: Duration) -> Result<Value, RecvTimeoutError> {
        let until = Instant::now() + time;
        loop {
            if let Some(message) = self.early.remove(&id) {
                return Ok(message);
            }
            match self.output.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => self.keep(&line),
                Err(error) => {
                    self.dead |= error == RecvTimeoutError::Disconnected;
                    return Err(error);
                }
            }
        }
    }

    fn keep(&mut self, line: &str) {
        let message: Value = serde_json::from_str(line).expect("the server prints JSON lines");
        if let Some(id) = message["id"].as_u64() {
            self.early.insert(id, message);
        }
    }

    fn send(&mut self, message: &Value) {
        if let Some(input) = &mut self.input
            && writeln!(input, "{message}").is_err()
        {
            self.dead = true;
        }
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.dead = true;
        self.read_remaining();
    }

    /// Stops the server for this time, so that it continues with outdated knowledge.
    pub fn stop_for(&self, time: Duration) {
        let Some(child) = Identity::of(self.child.id()) else { return };
        let process = self.process_on_login().unwrap_or(child);
        send(&process, Signal::Stop);
        std::thread::spawn(move || {
            std::thread::sleep(time);
            send(&process, Signal::Continue);
            send(&child, Signal::Continue);
        });
    }

    /// Returns the server itself if it runs on the login host of a cluster. Its parent is the child of this process, and
    /// stops and continues with it.
    fn process_on_login(&self) -> Option<Identity> {
        let pid = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        // A server on this host has children of its own.
        let first = children.split_whitespace().next()?.parse().ok().filter(|_| self.is_on_login)?;
        Identity::of(first)
    }

    pub fn is_dead(&self) -> bool {
        self.dead
    }

    /// Closes the server's stdin and waits for its exit.
    pub fn leave(&mut self) {
        self.input = None;
        let began = Instant::now();
        while self.child.try_wait().expect("a child of this process").is_none() {
            assert!(began.elapsed() < self.ceiling, "the server does not exit after its boss");
            std::thread::sleep(Duration::from_millis(10));
        }
        self.read_remaining();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the `_meta` of a request of the newer era whose client supports tasks.
fn with_tasks() -> Value {
    json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "chaos", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {"extensions": {"io.modelcontextprotocol/tasks": {}}},
    })
}

fn to_answer(message: &Value) -> Answer {
    let result = &message["result"];
    assert!(result.is_object(), "a protocol error: {message}");
    if result["isError"] == true {
        Err(result["content"][0]["text"].as_str().unwrap_or_default().to_owned())
    } else {
        Ok(result["structuredContent"].clone())
    }
}

/// Reads lines in a separate thread, so that waiting for one has a ceiling.
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
