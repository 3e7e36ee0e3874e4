//! Reads the conversation in a request, uniformly for all four dialects.
//!
//! The next step depends only on the conversation, so a resumed session continues where it stopped.

use serde_json::Value;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `POST /v1/messages`: Claude Code.
    Anthropic,
    /// `POST /v1/responses`: Codex.
    Responses,
    /// `POST /v1beta/models/<model>:streamGenerateContent`: Gemini CLI.
    Gemini,
    /// `POST /v1/chat/completions`: OpenCode with `@ai-sdk/openai-compatible`, and most agents of the Agent Client
    /// Protocol.
    Chat,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Turn {
    /// Text of the user or program that runs the CLI, without text that the CLI inserted.
    User(String),
    /// One answer of the model, with the tools that it called.
    Model {
        tools: Vec<String>,
    },
    ToolResult(String),
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Conversation {
    pub turns: Vec<Turn>,
    /// The names of the tools that the CLI offers. A side request, such as one for a title, has none.
    pub tools: Vec<String>,
    /// The working directory, for a CLI whose file tool accepts only absolute paths: Qwen Code.
    pub directory: Option<String>,
}

/// The words before the working directory in the instructions of Qwen Code.
const DIRECTORY: &str = "I'm currently working in the directory: ";

/// The words before a message that Qwen Code received during a tool call.
const DURING_TOOL_OF_QWEN: &str = "[User message received during tool execution]: ";

/// Elements that a CLI inserts into user messages: Claude Code, Copilot, Kilo.
const ELEMENTS_OF_CLI: [&str; 3] = ["system-reminder", "current_datetime", "environment_details"];

/// Prefixes of texts that a CLI inserts into the conversation with the role `user`.
const INSERTED_BY_CLI: [&str; 7] = [
    "<environment_context>",
    "<user_instructions>",
    "# AGENTS.md instructions",
    "<turn_aborted>",
    "<session_context>",
    "This is the Gemini CLI",
    "[Request interrupted by user",
];

impl Conversation {
    pub fn read(dialect: Dialect, body: &Value) -> Self {
        let mut conversation = Self { tools: tool_names(dialect, body), ..Self::default() };
        match dialect {
            Dialect::Anthropic => conversation.read_anthropic(body),
            Dialect::Responses => conversation.read_responses(body),
            Dialect::Gemini => conversation.read_gemini(body),
            Dialect::Chat => conversation.read_chat(body),
        }
        conversation
    }

    /// Returns the last user message, and the tool results of each later answer of the model. An answer that only polls
    /// a running command belongs to the answer before.
    pub fn last_user_message(&self) -> Option<(&str, Vec<&str>)> {
        let at = self.turns.iter().rposition(|turn| matches!(turn, Turn::User(_)))?;
        let Turn::User(text) = &self.turns[at] else {
            return None;
        };
        let mut results = Vec::new();
        for turn in &self.turns[at..] {
            match turn {
                Turn::Model { tools } if !tools.iter().any(|tool| is_poll(tool)) => results.push(""),
                Turn::ToolResult(result) => {
                    if let Some(last) = results.last_mut() {
                        *last = result.as_str();
                    }
                }
                _ => {}
            }
        }
        Some((text, results))
    }

    pub fn tool_results(&self) -> Vec<&str> {
        let results = self.turns.iter().map(|turn| match turn {
            Turn::ToolResult(text) => Some(text.as_str()),
            _ => None,
        });
        results.flatten().collect()
    }

    pub fn last_tool_result(&self) -> Option<&str> {
        match self.turns.last()? {
            Turn::ToolResult(text) => Some(text),
            _ => None,
        }
    }

    fn read_anthropic(&mut self, body: &Value) {
        for message in items(body, "messages") {
            let blocks = blocks_of(&message["content"]);
            match message["role"].as_str() {
                Some("assistant") => {
                    for block in blocks {
                        self.model(block["name"].as_str());
                    }
                }
                Some("user") => {
                    for block in blocks.iter().filter(|block| block["type"] == "tool_result") {
                        self.turns.push(Turn::ToolResult(text_of(&block["content"])));
                    }
                    let words = blocks.iter().map(text_of).filter(|text| !is_inserted(text));
                    let words = words.collect::<Vec<_>>().join("\n");
                    self.user(message_during_turn(&words).unwrap_or(&words));
                }
                Some("system") => {
                    let words = text_of(&message["content"]);
                    if let Some(said) = message_during_turn(&words) {
                        self.user(said);
                    }
                }
                _ => {}
            }
        }
    }

    fn read_responses(&mut self, body: &Value) {
        for item in items(body, "input") {
            match (item["type"].as_str(), item["role"].as_str()) {
                (Some("function_call" | "custom_tool_call"), _) => self.model(item["name"].as_str()),
                (Some("function_call_output" | "custom_tool_call_output"), _) => {
                    self.turns.push(Turn::ToolResult(text_of(&item["output"])));
                }
                (_, Some("assistant")) => self.model(None),
                (_, Some("user")) => self.user(&text_of(&item["content"])),
                _ => {}
            }
        }
    }

    fn read_gemini(&mut self, body: &Value) {
        for content in items(body, "contents") {
            for part in items(content, "parts") {
                if content["role"] == "model" {
                    self.model(part["functionCall"]["name"].as_str());
                } else if let Some(text) = part["text"].as_str() {
                    self.user(text);
                } else if part["functionResponse"].is_object() {
                    self.turns.push(Turn::ToolResult(part["functionResponse"]["response"].to_string()));
                }
            }
        }
    }

    fn read_chat(&mut self, body: &Value) {
        for message in items(body, "messages") {
            self.read_directory(&message["content"]);
            match message["role"].as_str() {
                Some("assistant") => {
                    self.model(None);
                    for call in items(message, "tool_calls") {
                        self.model(call["function"]["name"].as_str());
                    }
                }
                Some("tool") => self.turns.push(Turn::ToolResult(text_of(&message["content"]))),
                Some("user") => self.user(&text_of(&message["content"])),
                _ => {}
            }
        }
    }

    fn read_directory(&mut self, content: &Value) {
        if self.directory.is_none() {
            let text = text_of(content);
            let after = text.split_once(DIRECTORY).and_then(|(_, after)| after.lines().next());
            self.directory = after.map(|line| line.trim().to_owned());
        }
    }

    /// Adds a part of an answer of the model. Consecutive parts are one answer.
    fn model(&mut self, tool: Option<&str>) {
        if !matches!(self.turns.last(), Some(Turn::Model { .. })) {
            self.turns.push(Turn::Model { tools: Vec::new() });
        }
        if let (Some(Turn::Model { tools }), Some(tool)) = (self.turns.last_mut(), tool) {
            tools.push(tool.to_owned());
        }
    }

    fn user(&mut self, text: &str) {
        let text = without_insertions(text);
        let text = message_during_turn(&text).unwrap_or(&text).trim();
        let text = text.strip_prefix(DURING_TOOL_OF_QWEN).unwrap_or(text);
        if !text.is_empty() && !is_inserted(text) {
            self.turns.push(Turn::User(text.to_owned()));
        }
    }
}

fn is_inserted(text: &str) -> bool {
    let starts_with = |start: &&str| text.starts_with(*start);
    INSERTED_BY_CLI.iter().any(starts_with)
}

/// Returns the user message in the text with which Claude Code sends it during a turn.
fn message_during_turn(text: &str) -> Option<&str> {
    const BEFORE: &str = "The user sent a new message while you were working:\n";
    const AFTER: &str = "\n\nThis is how Claude Code surfaces";
    let (_, said) = text.split_once(BEFORE)?;
    said.split(AFTER).next()
}

/// Returns whether this is a tool of Codex that polls a running command.
fn is_poll(tool: &str) -> bool {
    tool == "write_stdin" || tool == "wait"
}

fn tool_names(dialect: Dialect, body: &Value) -> Vec<String> {
    let name = |tool: &Value| tool["name"].as_str().map(str::to_owned);
    match dialect {
        Dialect::Anthropic => items(body, "tools").iter().filter_map(name).collect(),
        Dialect::Responses => {
            // The newer models of Codex get their tools in an input item, grouped by namespace.
            let namespaces = items(body, "input").iter().flat_map(|item| items(item, "tools"));
            let nested = namespaces.flat_map(|namespace| items(namespace, "tools"));
            items(body, "tools").iter().chain(nested).filter_map(name).collect()
        }
        Dialect::Chat => items(body, "tools").iter().filter_map(|tool| name(&tool["function"])).collect(),
        Dialect::Gemini => {
            let groups = items(body, "tools").iter();
            groups.flat_map(|group| items(group, "functionDeclarations")).filter_map(name).collect()
        }
    }
}

fn items<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn blocks_of(content: &Value) -> &[Value] {
    match content {
        Value::Array(blocks) => blocks,
        _ => std::slice::from_ref(content),
    }
}

/// Returns the text of a content that is either a string or a list of blocks with a `text`.
fn text_of(content: &Value) -> String {
    let text = |block: &Value| block.as_str().or(block["text"].as_str()).map(str::to_owned);
    blocks_of(content).iter().filter_map(text).collect::<Vec<_>>().join("\n")
}

/// Removes the elements that a CLI inserts into user messages.
fn without_insertions(text: &str) -> String {
    ELEMENTS_OF_CLI.iter().fold(text.to_owned(), |text, name| without_element(&text, name))
}

fn without_element(text: &str, name: &str) -> String {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let mut kept = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(&open) {
        kept.push_str(&rest[..start]);
        rest = rest[start..].split_once(&close).map_or("", |(_, after)| after);
    }
    kept + rest
}
