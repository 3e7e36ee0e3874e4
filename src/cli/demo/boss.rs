//! The demo's side of the protocol: this very server as a child over stdio, and its tools as function calls.

use std::fs::File;
use std::path::Path;

use rmcp::model::{CallToolRequestParams, CallToolResult, ClientConfig, JsonObject};
use rmcp::service::RunningService;
use rmcp::transport::TokioChildProcess;
use rmcp::{RoleClient, ServiceExt};
use serde_json::Value;
use tokio::process::Command;

use super::DemoError;
use super::project::Project;

pub struct Boss {
    client: RunningService<RoleClient, ClientConfig>,
}

impl Boss {
    /// Starts the server as an MCP client would, in the repository.
    pub async fn start(program: &Path, project: &Project) -> Result<Self, DemoError> {
        let no_server = |error: String| DemoError::Server { said: error, log: project.server_log.clone() };
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
        let (transport, _) =
            TokioChildProcess::builder(command).stderr(log).spawn().map_err(|error| no_server(error.to_string()))?;
        let client = ClientConfig::default().serve(transport).await.map_err(|error| no_server(error.to_string()))?;
        Ok(Self { client })
    }

    /// Calls a tool; an `isError` answer is an error here.
    pub async fn call(&self, tool: &'static str, arguments: Value) -> Result<Value, DemoError> {
        let arguments: JsonObject = match arguments {
            Value::Object(arguments) => arguments,
            _ => JsonObject::new(),
        };
        let failed = |said: String| DemoError::Tool { tool, said };
        let request = CallToolRequestParams::new(tool).with_arguments(arguments);
        let answer = self.client.call_tool(request).await.map_err(|error| failed(error.to_string()))?;
        if answer.is_error == Some(true) {
            return Err(failed(text(&answer)));
        }
        answer.structured_content.ok_or_else(|| failed("the answer has no structured content".to_owned()))
    }

    /// Closes the server's stdin, as a client that goes does, and waits until it has ended.
    pub async fn leave(self) -> Result<(), DemoError> {
        self.client.cancel().await.map(drop).map_err(|error| DemoError::Leave { said: error.to_string() })
    }
}

fn text(answer: &CallToolResult) -> String {
    answer.content.iter().filter_map(|block| Some(block.as_text()?.text.as_str())).collect::<Vec<_>>().join("\n")
}
