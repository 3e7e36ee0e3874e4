//! The demo's MCP client: this server as a child over stdio, and its tools as function calls.
//!
//! It writes JSON lines itself: the client half of the library would add a twentieth to the program.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use thiserror::Error;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::oneshot;

use super::DemoError;
use super::project::Project;

/// Time limit for the server to end after its input is closed.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(30);

/// The pending requests by id; `None` once the server has ended.
type Pending = Arc<Mutex<Option<HashMap<u64, oneshot::Sender<Value>>>>>;

/// The reason why the server did not answer a request.
#[derive(Debug, Error)]
enum RequestError {
    #[error("the server ended")]
    Ended,
    #[error(transparent)]
    Write(#[from] io::Error),
    #[error("{0}")]
    Refused(String),
    #[error("the answer has no result")]
    NoResult,
}

pub struct BossClient {
    server: Child,
    requests: tokio::sync::Mutex<ChildStdin>,
    pending: Pending,
    last_id: AtomicU64,
}

impl BossClient {
    /// Starts the server in the repository, as an MCP client would.
    pub async fn start(program: &Path, project: &Project) -> Result<Self, DemoError> {
        let no_server =
            |why: RequestError| DemoError::Server { said: why.to_string(), log: project.server_log.clone() };
        let log = File::create(&project.server_log).map_err(|source| DemoError::Folder { source })?;
        let mut command = Command::new(program);
        // In its own process group, so that Ctrl-C reaches only the demo and the server can still cancel the workers.
        command.process_group(0);
        command.arg("--config").arg(&project.settings).current_dir(&project.repository);
        // Settings of the user's own servers do not apply here, nor does the tag of a worker that runs this demo.
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("ORCHESTRATOR_") {
                command.env_remove(variable);
            }
        }
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).spawn();
        let mut server = spawned.map_err(|error| no_server(error.into()))?;
        let (Some(stdin), Some(stdout)) = (server.stdin.take(), server.stdout.take()) else {
            return Err(no_server(RequestError::Ended));
        };
        let pending: Pending = Arc::new(Mutex::new(Some(HashMap::new())));
        tokio::spawn(dispatch_answers(stdout, Arc::clone(&pending)));
        let boss = Self { server, requests: tokio::sync::Mutex::new(stdin), pending, last_id: AtomicU64::new(0) };
        let hello = json!({
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "orchestrator-boss-demo", "version": env!("CARGO_PKG_VERSION")},
        });
        boss.request("initialize", hello).await.map_err(no_server)?;
        boss.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}))
            .await
            .map_err(|error| no_server(error.into()))?;
        Ok(boss)
    }

    /// Calls a tool. An `isError` answer is an error.
    pub async fn call(&self, tool: &'static str, arguments: Value) -> Result<Value, DemoError> {
        let failed = |said: String| DemoError::Tool { tool, said };
        let answer = self.request("tools/call", json!({"name": tool, "arguments": arguments})).await;
        let mut answer = answer.map_err(|error| failed(error.to_string()))?;
        if answer["isError"] == true {
            return Err(failed(text(&answer)));
        }
        match answer["structuredContent"].take() {
            Value::Null => Err(failed("the answer has no structured content".to_owned())),
            content => Ok(content),
        }
    }

    /// Closes the server's stdin, as a disconnecting client does, and waits until it has ended.
    pub async fn close(self) -> Result<(), DemoError> {
        let Self { mut server, requests, .. } = self;
        drop(requests);
        let reason = match tokio::time::timeout(SHUTDOWN_LIMIT, server.wait()).await {
            Ok(Ok(status)) if status.success() => return Ok(()),
            Ok(Ok(status)) => status.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => {
                let _ = server.kill().await;
                format!("killed, since it was still running {} s after its input was closed", SHUTDOWN_LIMIT.as_secs())
            }
        };
        Err(DemoError::Shutdown { said: reason })
    }

    async fn request(&self, method: &str, params: Value) -> Result<Value, RequestError> {
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let (answer, answered) = oneshot::channel();
        let pending = || self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending().as_mut().ok_or(RequestError::Ended)?.insert(id, answer);
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})).await?;
        let mut answer = answered.await.map_err(|_| RequestError::Ended)?;
        match answer["result"].take() {
            Value::Null => match answer["error"]["message"].as_str() {
                Some(said) => Err(RequestError::Refused(said.to_owned())),
                None => Err(RequestError::NoResult),
            },
            result => Ok(result),
        }
    }

    async fn send(&self, message: &Value) -> io::Result<()> {
        let line = format!("{message}\n");
        self.requests.lock().await.write_all(line.as_bytes()).await
    }
}

/// Passes answers to the pending requests until the server ends. Progress notifications are ignored.
async fn dispatch_answers(stdout: ChildStdout, pending: Pending) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let message: Value = serde_json::from_str(&line).unwrap_or_default();
        let answered = message["id"].as_u64().filter(|_| message.get("method").is_none());
        let mut pending = pending.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiter) = answered.and_then(|id| pending.as_mut()?.remove(&id)) {
            let _ = waiter.send(message);
        }
    }
    *pending.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

fn text(answer: &Value) -> String {
    let blocks = answer["content"].as_array().map(Vec::as_slice).unwrap_or_default();
    blocks.iter().filter_map(|block| block["text"].as_str()).collect::<Vec<_>>().join("\n")
}
