//! A separate world for each test, and a real server in it that is called over JSON lines.

use std::io::{BufRead, BufReader, Write};
use std::ops::Deref;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};

pub use crate::support::sandbox::mission;
use crate::support::sandbox::{PROGRAM, Sandbox};

/// The longest wait for an answer, with hundreds of workers alive.
const CEILING: Duration = Duration::from_secs(120);

pub struct World {
    sandbox: Sandbox,
}

impl Deref for World {
    type Target = Sandbox;

    fn deref(&self) -> &Sandbox {
        &self.sandbox
    }
}

impl World {
    pub fn new() -> Self {
        Self { sandbox: Sandbox::new() }
    }

    /// Starts a server with these settings; the fake CLI is its backend `fake`.
    pub fn server(&self, settings: &str) -> Server {
        self.start("exec \"$0\" \"$@\"", settings)
    }

    /// Starts a server by a shell, which may set limits first.
    pub fn start(&self, shell: &str, settings: &str) -> Server {
        self.write_settings(settings, &["fake"]);
        let mut server = self.command("/bin/sh");
        server.args(["-c", shell, PROGRAM, "--config"]).arg(self.settings_file());
        let mut server = server
            .env("CLAUDE_CODE_SESSION_ID", "the-boss")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(self.path("server.log")).expect("a log"))
            .spawn()
            .expect("the server starts");
        let (sender, output) = channel();
        let lines = BufReader::new(server.stdout.take().expect("a piped stream")).lines();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let input = server.stdin.take();
        let mut server = Server { process: server, input, output, next_id: 0 };
        let hello = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "limits", "version": "1"}});
        server.request("initialize", &hello);
        server.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        server
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

    /// Returns the structured answer of a call that must succeed.
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
        let input = self.input.as_mut().expect("an open input");
        writeln!(input, "{message}").expect("the server reads");
    }

    /// Closes the server's stdin and waits for its exit.
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
