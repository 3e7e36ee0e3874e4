//! A server that is called over JSON lines, with the time of each answer.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};

use crate::clock;

/// Time limit of every wait. An operation that takes longer hangs.
const CEILING: Duration = Duration::from_secs(120);

pub struct Server {
    process: Child,
    input: Option<ChildStdin>,
    output: Receiver<(u64, String)>,
    next_id: u64,
}

impl Server {
    pub fn start(mut command: Command) -> Self {
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the server starts");
        let (sender, output) = channel();
        let lines = BufReader::new(process.stdout.take().expect("a piped stream")).lines();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send((clock::now(), line))));
        let input = process.stdin.take();
        let mut server = Self { process, input, output, next_id: 0 };
        let client = json!({"name": "bench", "version": "1"});
        let hello = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client});
        let hello = server.send_request("initialize", &hello);
        server.answer(hello);
        server.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        server
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Returns the structured answer of a call that must succeed.
    pub fn call(&mut self, tool: &str, arguments: Value) -> Value {
        let id = self.begin(tool, arguments);
        self.end(id).1
    }

    /// Returns the duration of a call, in milliseconds.
    pub fn time(&mut self, tool: &str, arguments: Value) -> f64 {
        let began = clock::now();
        let id = self.begin(tool, arguments);
        clock::between(began, self.end(id).0)
    }

    /// Sends a call without waiting for its answer.
    pub fn begin(&mut self, tool: &str, arguments: Value) -> u64 {
        self.send_request("tools/call", &json!({"name": tool, "arguments": arguments}))
    }

    /// Returns the time of the answer to a call that must succeed, and the answer.
    pub fn end(&mut self, id: u64) -> (u64, Value) {
        let (at, answer) = self.answer(id);
        assert_ne!(answer["result"]["isError"], true, "{answer}");
        assert!(answer.get("result").is_some(), "{answer}");
        (at, answer["result"]["structuredContent"].clone())
    }

    /// Returns the answer to a call, with its time. Earlier answers to other calls are discarded.
    pub fn answer(&mut self, id: u64) -> (u64, Value) {
        loop {
            let (at, line) = self.output.recv_timeout(CEILING).expect("the server answers");
            let message: Value = serde_json::from_str(&line).expect("the server prints JSON lines");
            if message["id"] == id {
                return (at, message);
            }
        }
    }

    /// Returns the answers to all of these calls in order of arrival, with their times.
    pub fn answers(&mut self, ids: &[u64]) -> Vec<(u64, Value)> {
        let mut found = Vec::new();
        while found.len() < ids.len() {
            let (at, line) = self.output.recv_timeout(CEILING).expect("the server answers");
            let message: Value = serde_json::from_str(&line).expect("the server prints JSON lines");
            if ids.iter().any(|id| message["id"] == *id) {
                found.push((at, message));
            }
        }
        found
    }

    pub fn give_up(&mut self, id: u64) {
        let params = json!({"requestId": id});
        self.send(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}));
    }

    fn send_request(&mut self, method: &str, params: &Value) -> u64 {
        self.next_id += 1;
        self.send(&json!({"jsonrpc": "2.0", "id": self.next_id, "method": method, "params": params}));
        self.next_id
    }

    fn send(&mut self, message: &Value) {
        let input = self.input.as_mut().expect("it is open");
        let mut line = message.to_string();
        line.push('\n');
        input.write_all(line.as_bytes()).expect("the server reads");
    }

    /// Closes the server's stdin and waits for its exit.
    pub fn leave(mut self) {
        self.input = None;
        let _ = self.process.wait();
    }

    /// Kills the server as in a power failure.
    pub fn kill(mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
