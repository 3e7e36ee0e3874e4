//! The demo's side of the protocol: this very server as a child over stdio, and its tools as function calls.
//!
//! Lines of JSON by hand: the client half of the library would be a twentieth of the whole program, for the demo alone.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::oneshot;

use super::DemoError;
use super::project::Project;

/// How long a server may take to go when its input has ended.
const LEAVING: Duration = Duration::from_secs(30);

/// Who waits for which answer; empty for ever once the server is gone.
type Waiting = Arc<Mutex<Option<HashMap<u64, oneshot::Sender<Value>>>>>;

pub struct Boss {
    server: Child,
    requests: tokio::sync::Mutex<ChildStdin>,
    waiting: Waiting,
    last_id: AtomicU64,
}

impl Boss {
    /// Starts the server as an MCP client would, in the repository.
    pub async fn start(program: &Path, project: &Project) -> Result<Self, DemoError> {
        let no_server = |said: String| DemoError::Server { said, log: project.server_log.clone() };
        let log = File::create(&project.server_log).map_err(|source| DemoError::Folder { source })?;
        let mut command = Command::new(program);
        // In a group of its own, so that Ctrl-C reaches the demo alone and the server is there to cancel the workers.
        command.process_group(0);
        command.arg("--config").arg(&project.settings).current_dir(&project.repository);
        // What is set for the user's own servers is not meant for this one; nor is what tells a worker's programs that they
        // are a worker's, should a worker run this demo.
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("ORCHESTRATOR_") {
                command.env_remove(variable);
            }
        }
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).spawn();
        let mut server = spawned.map_err(|error| no_server(error.to_string()))?;
        let (Some(stdin), Some(stdout)) = (server.stdin.take(), server.stdout.take()) else {
            return Err(no_server("it has no input and output".to_owned()));
        };
        let waiting: Waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        tokio::spawn(hand_out_answers(stdout, Arc::clone(&waiting)));
        let boss = Self { server, requests: tokio::sync::Mutex::new(stdin), waiting, last_id: AtomicU64::new(0) };
        let hello = json!({
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "orchestrator-boss-demo", "version": env!("CARGO_PKG_VERSION")},
        });
        boss.ask("initialize", hello).await.map_err(no_server)?;
        boss.say(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await.map_err(no_server)?;
        Ok(boss)
    }

    /// Calls a tool; an `isError` answer is an error here.
    pub async fn call(&self, tool: &'static str, arguments: Value) -> Result<Value, DemoError> {
        let failed = |said: String| DemoError::Tool { tool, said };
        let mut answer = self.ask("tools/call", json!({"name": tool, "arguments": arguments})).await.map_err(failed)?;
        if answer["isError"] == true {
            return Err(failed(text(&answer)));
        }
        match answer["structuredContent"].take() {
            Value::Null => Err(failed("the answer has no structured content".to_owned())),
            content => Ok(content),
        }
    }

    /// Closes the server's stdin, as a client that goes does, and waits until it has ended.
    pub async fn leave(self) -> Result<(), DemoError> {
        let Self { mut server, requests, .. } = self;
        drop(requests);
        let said = match tokio::time::timeout(LEAVING, server.wait()).await {
            Ok(Ok(status)) if status.success() => return Ok(()),
            Ok(Ok(status)) => status.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => {
                let _ = server.kill().await;
                format!("it was still there {} s after its input had ended, and was killed", LEAVING.as_secs())
            }
        };
        Err(DemoError::Leave { said })
    }

    async fn ask(&self, method: &str, params: Value) -> Result<Value, String> {
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let (answer, answered) = oneshot::channel();
        let gone = || "the server ended".to_owned();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).as_mut().ok_or_else(gone)?.insert(id, answer);
        self.say(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})).await?;
        let mut answer = answered.await.map_err(|_| gone())?;
        match answer["result"].take() {
            Value::Null => Err(answer["error"]["message"].as_str().unwrap_or("an answer without a result").to_owned()),
            result => Ok(result),
        }
    }

    async fn say(&self, message: &Value) -> Result<(), String> {
        let line = format!("{message}\n");
        self.requests.lock().await.write_all(line.as_bytes()).await.map_err(|error| error.to_string())
    }
}

/// Until the server ends. What is no answer (progress) is of no interest here.
async fn hand_out_answers(stdout: ChildStdout, waiting: Waiting) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let message: Value = serde_json::from_str(&line).unwrap_or_default();
        let answered = message["id"].as_u64().filter(|_| message.get("method").is_none());
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiter) = answered.and_then(|id| waiting.as_mut()?.remove(&id)) {
            let _ = waiter.send(message);
        }
    }
    *waiting.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

fn text(answer: &Value) -> String {
    let blocks = answer["content"].as_array().map(Vec::as_slice).unwrap_or_default();
    blocks.iter().filter_map(|block| block["text"].as_str()).collect::<Vec<_>>().join("\n")
}
