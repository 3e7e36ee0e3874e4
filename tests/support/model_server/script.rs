//! The steps of the scripted model, and how a prompt has them.
//!
//! A prompt names its script by a marker anywhere in its text: `SCRIPT:[...]` with the steps as JSON, or `SCRIPT:name`
//! for steps that the test registered under that name.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

const MARKER: &str = "SCRIPT:";

/// One step of the model. Steps with a tool are independent of the CLI: each dialect uses the tools that its CLI
/// offers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Text. Before a tool step it is commentary in the same answer; with nothing after it, it ends the turn.
    Say(String),
    /// Text that ends the turn. The next step follows when something else starts another turn.
    Rest(String),
    /// A command in the CLI's own shell tool. Claude Code refuses a bare `sleep N`, Gemini CLI refuses `$(...)`.
    Run(String),
    /// A new file by the CLI's own file tool, `path` relative to its working directory.
    /// Claude Code refuses to overwrite a file it has not read: change existing files with `Run`.
    Write { path: String, content: String },
    /// Any tool by the name that this CLI gives it. A tool `t` of an MCP server `s` is `mcp__s__t` for Claude Code
    /// and Codex, `mcp_s_t` for Gemini CLI and `s_t` for OpenCode.
    /// `{worker:x}` in a text of the arguments becomes the id `w-<number>-x` from an earlier result.
    Call { tool: String, arguments: Value },
    /// A call that is repeated until its result contains these words, compared without quotes and spaces:
    /// `status:idle`.
    Until { tool: String, arguments: Value, words: String },
    /// An HTTP error instead of an answer, for `times` requests or forever.
    Fail(Failure),
    /// No answer at all until the server stops.
    Hang,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    pub status: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// The provider's error code (`usage_limit_reached`, `insufficient_quota`, ...); without it a typical one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u32>,
}

/// Steps, in order of execution.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Script(pub Vec<Step>);

impl Script {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn say(self, text: &str) -> Self {
        self.then(Step::Say(text.into()))
    }

    pub fn rest(self, text: &str) -> Self {
        self.then(Step::Rest(text.into()))
    }

    pub fn run(self, command: &str) -> Self {
        self.then(Step::Run(command.into()))
    }

    pub fn write(self, path: &str, content: &str) -> Self {
        self.then(Step::Write { path: path.into(), content: content.into() })
    }

    pub fn call(self, tool: &str, arguments: Value) -> Self {
        self.then(Step::Call { tool: tool.into(), arguments })
    }

    pub fn until(self, tool: &str, arguments: Value, words: &str) -> Self {
        self.then(Step::Until { tool: tool.into(), arguments, words: words.into() })
    }

    pub fn fail(self, status: u16) -> Self {
        self.fail_with(Failure { status, times: None, kind: None, retry_after_seconds: None })
    }

    pub fn fail_times(self, status: u16, times: u32) -> Self {
        self.fail_with(Failure { status, times: Some(times), kind: None, retry_after_seconds: Some(1) })
    }

    pub fn fail_with(self, failure: Failure) -> Self {
        self.then(Step::Fail(failure))
    }

    pub fn hang(self) -> Self {
        self.then(Step::Hang)
    }

    /// Returns the marker of these steps for a prompt.
    pub fn marker(&self) -> String {
        let steps = serde_json::to_string(&self.0).expect("steps are plain data");
        format!("{MARKER}{steps}")
    }

    fn then(mut self, step: Step) -> Self {
        self.0.push(step);
        self
    }
}

/// Returns the steps of the last marker in `text`; `None` without a marker. An invalid marker becomes a step with an
/// error message, so that the test shows it.
pub fn steps_named_in(text: &str, registered: &HashMap<String, Script>) -> Option<Vec<Step>> {
    let after = &text[text.rfind(MARKER)? + MARKER.len()..];
    if after.starts_with('[') {
        let mut values = serde_json::Deserializer::from_str(after).into_iter::<Vec<Step>>();
        return Some(match values.next() {
            Some(Ok(steps)) => steps,
            Some(Err(error)) => vec![Step::Say(format!("bad script: {error}"))],
            None => Vec::new(),
        });
    }
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    let name = after.split(|c: char| !is_name(c)).next().unwrap_or("");
    Some(match registered.get(name) {
        Some(script) => script.0.clone(),
        None => vec![Step::Say(format!("no script is registered as {name:?}"))],
    })
}

/// One answer of the model.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// Text (may be empty) and at most one tool step. Without a tool the turn ends.
    Speak {
        text: String,
        tool: Option<Step>,
    },
    Fail(Failure),
    Hang,
}

/// Returns the answer after those with these results. `failed_before` returns the earlier failures of each step, by its
/// index: failures are not in the conversation, so only the server knows them.
pub fn answer_at(steps: &[Step], results: &[&str], failed_before: impl Fn(usize) -> u32) -> (Answer, Option<usize>) {
    let position = results.len();
    let mut given = 0;
    let mut said: Vec<&str> = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        match step {
            Step::Say(text) => said.push(text),
            Step::Fail(failure) if given == position => {
                if failure.times.is_none_or(|times| failed_before(index) < times) {
                    return (Answer::Fail(failure.clone()), Some(index));
                }
            }
            Step::Fail(_) => {}
            Step::Rest(text) if given == position => {
                said.push(text);
                return (Answer::Speak { text: said.join("\n"), tool: None }, Some(index));
            }
            Step::Hang if given == position => return (Answer::Hang, Some(index)),
            Step::Hang => {}
            Step::Until { words, .. } if given < position => {
                let matching = results[given..].iter().position(|result| plain(result).contains(&plain(words)));
                given = matching.map_or(position, |rounds| given + rounds + 1);
                said.clear();
                if matching.is_none() {
                    return (Answer::Speak { text: String::new(), tool: Some(step.clone()) }, Some(index));
                }
            }
            tool if given == position => {
                let tool = Some(tool.clone());
                return (Answer::Speak { text: said.join("\n"), tool }, Some(index));
            }
            _ => {
                given += 1;
                said.clear();
            }
        }
    }
    let text = if said.is_empty() || given < position { "script finished".into() } else { said.join("\n") };
    (Answer::Speak { text, tool: None }, None)
}

/// Removes blanks, quotes and backslashes. Results are JSON, sometimes as a string in JSON.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace() && !"\"\\".contains(*c)).collect()
}

/// Returns the arguments with their placeholders replaced by ids from these results.
pub fn with_ids(arguments: &Value, results: &[&str]) -> Value {
    match arguments {
        Value::String(text) => {
            let name = text.strip_prefix("{worker:").and_then(|rest| rest.strip_suffix('}'));
            name.map_or_else(|| arguments.clone(), |name| worker_id(name, results).into())
        }
        Value::Array(items) => items.iter().map(|item| with_ids(item, results)).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| (key.clone(), with_ids(value, results)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        other => other.clone(),
    }
}

fn worker_id(name: &str, results: &[&str]) -> String {
    let is_of_an_id = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let words = results.iter().flat_map(|result| result.split(|c| !is_of_an_id(c)));
    let is_it = |word: &&str| {
        let number = word.strip_prefix("w-").and_then(|rest| rest.strip_suffix(name)?.strip_suffix('-'));
        number.is_some_and(|number| number.parse::<u64>().is_ok())
    };
    words.into_iter().find(is_it).map_or_else(|| format!("no result has the id of {name}"), str::to_owned)
}
