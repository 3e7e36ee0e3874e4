//! A boss that speaks raw JSON lines to a real server. The server may be killed at any moment.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};

use serde_json::{Value, json};

use super::wait::CEILING;

pub struct Boss {
    server: Child,
    input: Option<ChildStdin>,
    output: Receiver<String>,
    next_id: u64,
    dead: bool,
}

impl Boss {
    /// Starts the server by this command, which sets program, directory and environment.
    pub fn start(command: Command) -> Self {
        Self::start_logging(command, Stdio::null())
    }

    pub fn start_logging(mut command: Command, log: Stdio) -> Self {
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut server = piped.spawn().expect("the server starts");
        let input = server.stdin.take();
        let output = lines_of(server.stdout.take().expect("a piped stream"));
        let mut boss = Self { server, input, output, next_id: 0, dead: false };
        let hello = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}});
        boss.request("initialize", hello).expect("a new server answers");
        boss.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        boss
    }

    /// Returns the answer of a call that must succeed.
    pub fn succeed(&mut self, tool: &str, arguments: Value) -> Value {
        let answer = self.call(tool, arguments).expect("the server is alive");
        answer.unwrap_or_else(|error| panic!("{tool}: {error}"))
    }

    /// Returns the error of a call that must be refused.
    pub fn refused(&mut self, tool: &str, arguments: Value) -> String {
        match self.call(tool, arguments).expect("the server is alive") {
            Ok(answer) => panic!("{tool} was not refused: {answer:#}"),
            Err(error) => error,
        }
    }

    /// Returns the structured answer or the tool's error; `None` if the server died before it answered.
    pub fn call(&mut self, tool: &str, arguments: Value) -> Option<Result<Value, String>> {
        let answer = self.request("tools/call", json!({"name": tool, "arguments": arguments}))?;
        let result = &answer["result"];
        assert!(result.is_object(), "{tool}: {answer}");
        let text = || result["content"][0]["text"].as_str().unwrap_or_default().to_owned();
        Some(if result["isError"] == true { Err(text()) } else { Ok(result["structuredContent"].clone()) })
    }

    /// Sends a call and kills the server at once, which may or may not have answered.
    pub fn call_and_kill(&mut self, tool: &str, arguments: Value) {
        self.start_call(tool, arguments);
        self.kill_server();
    }

    /// Sends a call, and does not wait for its answer.
    pub fn start_call(&mut self, tool: &str, arguments: Value) {
        self.next_id += 1;
        let params = json!({"name": tool, "arguments": arguments});
        self.send(&json!({"jsonrpc": "2.0", "id": self.next_id, "method": "tools/call", "params": params}));
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

    /// Closes the server's stdin and waits for its exit.
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
