//! A boss: an MCP client that starts the real server as its child and calls its tools as function calls.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use rmcp::model::{CallToolRequestParams, CallToolResult, ClientConfig, JsonObject};
use rmcp::service::RunningService;
use rmcp::transport::TokioChildProcess;
use rmcp::{RoleClient, ServiceExt};
use serde_json::Value;

pub struct Boss {
    client: RunningService<RoleClient, ClientConfig>,
}

impl Boss {
    /// Starts the server by this command, which sets program, directory and environment. Its stderr goes to `log`.
    pub async fn start(command: Command, log: &Path) -> Self {
        let log = File::create(log).expect("a new file for the server's log");
        let command = tokio::process::Command::from(command);
        let (transport, _) = TokioChildProcess::builder(command).stderr(log).spawn().expect("the server starts");
        let client = ClientConfig::default().serve(transport).await.expect("the server answers");
        Self { client }
    }

    /// Calls a tool. Returns its structured answer, or the text of its error.
    pub async fn call(&self, tool: &'static str, arguments: Value) -> Result<Value, String> {
        let arguments: JsonObject = serde_json::from_value(arguments).expect("arguments are an object");
        let request = CallToolRequestParams::new(tool).with_arguments(arguments);
        let answer = self.client.call_tool(request).await.map_err(|error| error.to_string())?;
        if answer.is_error == Some(true) {
            return Err(text(&answer));
        }
        Ok(answer.structured_content.expect("every successful answer is structured"))
    }

    /// Closes the server's stdin, as a client does that exits.
    pub async fn leave(self) {
        self.client.cancel().await.expect("the server ends");
    }
}

fn text(answer: &CallToolResult) -> String {
    answer.content.iter().filter_map(|block| Some(block.as_text()?.text.as_str())).collect::<Vec<_>>().join("\n")
}
