//! Converts a step into a call of the tool that the CLI offers for it.

use serde_json::{Value, json};

use super::conversation::{Conversation, Dialect};
use super::script::Step;

/// A tool call of the model.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolCall {
    pub name: String,
    pub input: Input,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    Json(Value),
    /// Codex's freeform tools take text, not JSON.
    Freeform(String),
}

/// The longest timeout that each shell tool accepts, so that the CLI's default does not end a scripted `sleep`.
const TEN_MINUTES_IN_MS: u64 = 600_000;
/// The longest timeout that the shell tool of Mistral Vibe accepts.
const FIVE_MINUTES_IN_S: u64 = 300;
/// Codex returns a command's output after at most this time, and the model then polls for more.
const CODEX_YIELD_MS: u64 = 30_000;

/// A script that waits for the command inside one `exec`, as a model in code mode does.
const CODE_MODE_RUN: &str = r#"let run = await tools.exec_command(ARGUMENTS);
while (run.session_id !== undefined) {
  run = await tools.write_stdin({session_id: run.session_id, chars: "", yield_time_ms: 30000});
}
text(run.output);"#;

/// Returns the call for a step, or `None` for a step without a tool.
pub fn call_for(dialect: Dialect, conversation: &Conversation, step: &Step) -> Option<ToolCall> {
    match step {
        Step::Run(command) => Some(run(dialect, conversation, command)),
        Step::Write { path, content } => Some(write(dialect, conversation, path, content)),
        Step::Call { tool, arguments } | Step::Until { tool, arguments, .. } if in_code_mode(conversation) => {
            Some(code(&format!("text(await tools.{tool}({arguments}));")))
        }
        Step::Call { tool, arguments } | Step::Until { tool, arguments, .. } => {
            Some(json_call(tool, arguments.clone()))
        }
        Step::Say(_) | Step::Rest(_) | Step::Fail(_) | Step::Hang => None,
    }
}

/// Returns the call with which Codex's model polls a running command.
pub fn poll_running_command(conversation: &Conversation) -> Option<ToolCall> {
    let result = conversation.last_tool_result()?;
    let id_after = |words: &str| {
        let (_, after) = result.split_once(words)?;
        let id: String = after.chars().take_while(char::is_ascii_alphanumeric).collect();
        (!id.is_empty()).then_some(id)
    };
    if let Some(cell) = id_after("Script running with cell ID ") {
        let arguments = json!({"cell_id": cell, "yield_time_ms": CODEX_YIELD_MS});
        return Some(json_call("wait", arguments));
    }
    let session: u64 = id_after("Process running with session ID ")?.parse().ok()?;
    let arguments = json!({"session_id": session, "chars": "", "yield_time_ms": CODEX_YIELD_MS});
    Some(json_call("write_stdin", arguments))
}

fn run(dialect: Dialect, conversation: &Conversation, command: &str) -> ToolCall {
    let described = json!({"command": command, "description": "scripted command"});
    let timed = json!({"command": command, "description": "scripted command", "timeout": TEN_MINUTES_IN_MS});
    match dialect {
        Dialect::Anthropic => json_call("Bash", timed),
        Dialect::Chat if offers(conversation, "run_shell_command") => json_call("run_shell_command", timed),
        Dialect::Chat if is_of_vibe(conversation) => {
            json_call("bash", json!({"command": command, "timeout_seconds": FIVE_MINUTES_IN_S}))
        }
        Dialect::Chat => json_call("bash", timed),
        Dialect::Gemini => json_call("run_shell_command", described),
        Dialect::Responses => {
            let arguments = json!({"cmd": command, "yield_time_ms": CODEX_YIELD_MS});
            if in_code_mode(conversation) {
                return code(&CODE_MODE_RUN.replace("ARGUMENTS", &arguments.to_string()));
            }
            json_call("exec_command", arguments)
        }
    }
}

fn write(dialect: Dialect, conversation: &Conversation, path: &str, content: &str) -> ToolCall {
    match dialect {
        Dialect::Anthropic => json_call("Write", json!({"file_path": path, "content": content})),
        Dialect::Gemini => json_call("write_file", json!({"file_path": path, "content": content})),
        Dialect::Chat if is_of_vibe(conversation) => json_call("write_file", json!({"path": path, "content": content})),
        Dialect::Chat if offers(conversation, "write_file") => {
            let directory = conversation.directory.as_deref().unwrap_or("/the directory is unknown");
            json_call("write_file", json!({"file_path": format!("{directory}/{path}"), "content": content}))
        }
        Dialect::Chat if offers(conversation, "create") => {
            json_call("create", json!({"path": path, "file_text": content}))
        }
        Dialect::Chat => json_call("write", json!({"filePath": path, "content": content})),
        Dialect::Responses => {
            let patch = add_file_patch(path, content);
            if in_code_mode(conversation) {
                return code(&format!("text(await tools.apply_patch({}));", Value::from(patch)));
            }
            ToolCall { name: "apply_patch".into(), input: Input::Freeform(patch) }
        }
    }
}

/// Returns whether the model is in code mode: most models of Codex get a single tool `exec`, whose JavaScript calls
/// others.
fn in_code_mode(conversation: &Conversation) -> bool {
    offers(conversation, "exec") && !offers(conversation, "exec_command")
}

/// Returns whether the CLI is Mistral Vibe, whose tools refuse unknown arguments.
fn is_of_vibe(conversation: &Conversation) -> bool {
    offers(conversation, "run_typescript")
}

fn offers(conversation: &Conversation, name: &str) -> bool {
    conversation.tools.iter().any(|tool| tool == name)
}

fn code(script: &str) -> ToolCall {
    ToolCall { name: "exec".into(), input: Input::Freeform(script.into()) }
}

fn add_file_patch(path: &str, content: &str) -> String {
    let lines: String = content.lines().map(|line| format!("+{line}\n")).collect();
    format!("*** Begin Patch\n*** Add File: {path}\n{lines}*** End Patch\n")
}

fn json_call(name: &str, arguments: Value) -> ToolCall {
    ToolCall { name: name.into(), input: Input::Json(arguments) }
}
