//! Output of the fake CLI: one JSON object a line, plain text, or updates of the Agent Client Protocol. Each line is
//! flushed at once, since tests wait for it.

use std::io::{self, Write};
use std::process::Output as Ended;

use serde_json::{Value, json};

use super::acp::AcpTurn;

pub struct Output {
    format: Format,
    tools: u32,
}

enum Format {
    Jsonl,
    Plain,
    Agent(AcpTurn),
}

impl Output {
    pub fn new(plain: bool) -> Self {
        Self { format: if plain { Format::Plain } else { Format::Jsonl }, tools: 0 }
    }

    pub fn of_agent(turn: AcpTurn) -> Self {
        Self { format: Format::Agent(turn), tools: 0 }
    }

    /// Returns the prompt that is answered; `None` if this is no agent of the protocol.
    pub fn turn(&self) -> Option<&AcpTurn> {
        match &self.format {
            Format::Agent(turn) => Some(turn),
            Format::Jsonl | Format::Plain => None,
        }
    }

    fn is_plain(&self) -> bool {
        matches!(self.format, Format::Plain)
    }

    pub fn session(&mut self, id: &str) {
        self.line(&format!("session {id}"), json!({"type": "session", "id": id}));
    }

    pub fn say(&self, text: &str) {
        self.line(text, json!({"type": "message", "text": text}));
    }

    /// Prints the start of a tool call, and returns the id for its end.
    pub fn tool(&mut self, what: &str) -> String {
        self.tools += 1;
        let id = format!("tool-{}", self.tools);
        self.line(&format!("$ {what}"), json!({"type": "tool", "id": id, "name": "shell", "what": what}));
        id
    }

    pub fn tool_end(&mut self, id: &str, ended: &Ended) {
        let text = [&ended.stdout[..], &ended.stderr[..]].concat();
        let text = String::from_utf8_lossy(&text);
        let code = ended.status.code();
        self.line(
            &text,
            json!({"type": "tool_end", "id": id, "ok": ended.status.success(), "exit_code": code, "output": text}),
        );
    }

    pub fn edit(&mut self, path: &str) {
        self.line(&format!("edited {path}"), json!({"type": "edit", "paths": [path]}));
    }

    pub fn denied(&mut self, what: &str) {
        self.line(&format!("denied {what}"), json!({"type": "denied", "what": what}));
    }

    pub fn usage(&mut self, input: u64, output: u64, cost: f64) {
        self.line(
            &format!("used {input} and {output} tokens, {cost} USD"),
            json!({"type": "usage", "input_tokens": input, "output_tokens": output, "cost_usd": cost}),
        );
    }

    /// Prints the result; `failure` is its message and optionally its kind. In plain text only the exit code shows it.
    pub fn result(&mut self, failure: Option<(&str, Option<&str>)>) {
        let Some((message, kind)) = failure else {
            return self.line("", json!({"type": "result", "status": "success"}));
        };
        let mut result = json!({"type": "result", "status": "error", "message": message});
        if let Some(kind) = kind {
            result["kind"] = Value::from(kind);
        }
        self.line(message, result);
    }

    pub fn used_up(&mut self, message: &str, resets_at: u64) {
        let result = json!({
            "type": "result", "status": "error", "kind": "usage_limit", "message": message, "resets_at": resets_at,
        });
        self.line(message, result);
    }

    /// Prints one message whose line is `bytes` long, including the newline.
    pub fn big_line(&mut self, bytes: usize) {
        let around = if self.is_plain() { 1 } else { json!({"type": "message", "text": ""}).to_string().len() + 1 };
        self.say(&"x".repeat(bytes.saturating_sub(around)));
    }

    pub fn flood(&mut self, lines: u64) {
        if self.turn().is_some() {
            return (1..=lines).for_each(|number| self.say(&format!("line {number}\n")));
        }
        let mut stdout = io::BufWriter::new(io::stdout().lock());
        for number in 1..=lines {
            let text = format!("line {number}");
            let line = if self.is_plain() { text } else { json!({"type": "message", "text": text}).to_string() };
            written(writeln!(stdout, "{line}"));
        }
        written(stdout.flush());
    }

    /// Prints a line that is not UTF-8.
    pub fn garbage(&mut self) {
        let mut stdout = io::stdout().lock();
        written(stdout.write_all(b"\xff\xfe\x00\xc3\x28 no text\n"));
        written(stdout.flush());
    }

    fn line(&self, plain: &str, event: Value) {
        if let Some(turn) = self.turn() {
            return print_update(turn, &event);
        }
        let text = if self.is_plain() { plain.to_owned() } else { event.to_string() };
        if self.is_plain() && text.is_empty() {
            return;
        }
        let mut stdout = io::stdout().lock();
        written(writeln!(stdout, "{text}"));
        written(stdout.flush());
    }
}

/// Prints an event in the words of the Agent Client Protocol. It has no word for some of them.
fn print_update(turn: &AcpTurn, event: &Value) {
    match event["type"].as_str().unwrap_or_default() {
        "message" => turn.update(json!({
            "sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": event["text"]},
        })),
        "tool" => turn.update(json!({
            "sessionUpdate": "tool_call", "toolCallId": event["id"], "kind": "execute", "status": "in_progress",
            "title": event["what"], "rawInput": {"command": event["what"]},
        })),
        "tool_end" => turn.update(json!({
            "sessionUpdate": "tool_call_update", "toolCallId": event["id"],
            "status": if event["ok"] == true { "completed" } else { "failed" },
            "rawOutput": {"output": event["output"], "exitCode": event["exit_code"]},
        })),
        "edit" => turn.update(json!({
            "sessionUpdate": "tool_call", "toolCallId": "edit", "kind": "edit", "status": "completed",
            "title": "Edit", "locations": [{"path": event["paths"][0]}],
        })),
        "result" if event["status"] == "success" => turn.end(json!({"result": {"stopReason": "end_turn"}})),
        "result" => turn.end(json!({"error": {"code": -32603, "message": event["message"]}})),
        _ => {}
    }
}

/// Exits if the output failed, as the real CLIs do.
fn written(result: io::Result<()>) {
    if let Err(error) = result {
        eprintln!("fake-cli: failed printing to stdout: {error}");
        std::process::exit(101);
    }
}
