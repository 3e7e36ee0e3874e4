//! A scripted model on 127.0.0.1 for the real CLIs, so that they run without an account.
//!
//! It supports four dialects (see [`Dialect`]). The prompt has the script of the model (see [`Script`]). The next step
//! depends on the conversation in each request, so resumed sessions and restarted CLIs continue. The answer to a user
//! message without a script is `heard: <message>`, at the end of a script `script finished`, and to a request without
//! tools (a title, a classification) `side answer`.
//!
//! Failures with a limited number of times are counted per prompt, so give such workers prompts that differ.
//! It uses nothing of the crate under test. It stops when dropped, including all open requests.

// Each test binary uses a different part.
#![allow(dead_code, unused_imports)]

pub mod conversation;
pub mod script;
pub mod stream;
pub mod tools;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};
use tiny_http::{Header, Request, Response, Server};

pub use conversation::{Conversation, Dialect, Turn};
use script::{Answer, answer_at, steps_named_in, with_ids};
pub use script::{Failure, Script, Step};
use stream::{Spoken, error_body, stream, whole};
use tools::{ToolCall, call_for, poll_running_command};

/// The beginning of a side request of Codex that has tools: it asks for a title of the quoted prompt.
const TITLE_OF_CODEX: &str = "Your task is to generate a very short title";

/// One received request.
#[derive(Debug, Clone)]
pub struct Recorded {
    pub path: String,
    /// All headers, with names in lower case. Keys are dummies.
    pub headers: BTreeMap<String, String>,
    /// `Null` if the body is not JSON.
    pub body: Value,
    /// The conversation, if the path belongs to a dialect.
    pub conversation: Option<Conversation>,
}

impl Recorded {
    /// Returns the last user message of this request.
    pub fn user_message(&self) -> &str {
        let last = self.conversation.as_ref().and_then(Conversation::last_user_message);
        last.map_or("", |(text, _)| text)
    }
}

pub struct ModelServer {
    server: Arc<Server>,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Notified of every request, and of the end.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    requests: Vec<Recorded>,
    scripts: HashMap<String, Script>,
    /// Scripts for messages without a marker that contain these words.
    replies: Vec<(String, Script)>,
    /// The number of failures of each step, by the user message and the step's index.
    failures: HashMap<(String, usize), u32>,
    stopped: bool,
}

impl ModelServer {
    pub fn start() -> Self {
        let server = Arc::new(Server::http("127.0.0.1:0").expect("a free port on 127.0.0.1"));
        let shared = Arc::new(Shared::default());
        let accepting = std::thread::spawn({
            let (server, shared) = (server.clone(), shared.clone());
            move || accept(&server, &shared)
        });
        Self { server, shared, accepting: Some(accepting) }
    }

    /// Returns `http://127.0.0.1:<port>`, without a path.
    pub fn url(&self) -> String {
        format!("http://{}", self.server.server_addr())
    }

    /// Registers a script for `SCRIPT:name` in prompts.
    pub fn register(&self, name: &str, script: Script) {
        self.shared.lock().scripts.insert(name.to_owned(), script);
    }

    /// Registers a script for user messages with these words, which the test does not write itself.
    pub fn reply_to(&self, words: &str, script: Script) {
        self.shared.lock().replies.push((words.to_owned(), script));
    }

    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.lock().requests.clone()
    }

    /// Waits until one request satisfies `wanted` and returns it; `None` when `ceiling` is over.
    pub fn wait_for_request(&self, ceiling: Duration, wanted: impl Fn(&Recorded) -> bool) -> Option<Recorded> {
        let missing = |state: &mut State| !state.requests.iter().any(&wanted);
        let waited = self.shared.changed.wait_timeout_while(self.shared.lock(), ceiling, missing);
        let (state, _) = waited.expect("no thread of the server panics with the lock");
        state.requests.iter().find(|request| wanted(request)).cloned()
    }
}

impl Drop for ModelServer {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.changed.notify_all();
        self.server.unblock();
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread of the server panics with the lock")
    }

    fn record(&self, request: Recorded) -> usize {
        let mut state = self.lock();
        state.requests.push(request);
        self.changed.notify_all();
        state.requests.len()
    }

    /// Returns the model's next answer, from the conversation and the scripts.
    fn answer(&self, conversation: &Conversation) -> Answer {
        let speak = |text: String| Answer::Speak { text, tool: None };
        let Some((message, results)) = conversation.last_user_message() else {
            return speak("no user message".into());
        };
        if conversation.tools.is_empty() || message.starts_with(TITLE_OF_CODEX) {
            return speak("side answer".into());
        }
        let mut state = self.lock();
        let reply = || state.replies.iter().find(|(words, _)| message.contains(words));
        let steps = steps_named_in(message, &state.scripts).or_else(|| Some(reply()?.1.0.clone()));
        let Some(steps) = steps else {
            return speak(format!("heard: {message}"));
        };
        let failures = |index| state.failures.get(&(message.to_owned(), index)).copied().unwrap_or(0);
        let (mut answer, index) = answer_at(&steps, &results, failures);
        if let (Answer::Fail(_), Some(index)) = (&answer, index) {
            *state.failures.entry((message.to_owned(), index)).or_default() += 1;
        }
        if let Answer::Speak { tool: Some(Step::Call { arguments, .. } | Step::Until { arguments, .. }), .. } =
            &mut answer
        {
            *arguments = with_ids(arguments, &conversation.tool_results());
        }
        answer
    }

    fn wait_until_stopped(&self) {
        drop(self.changed.wait_while(self.lock(), |state| !state.stopped));
    }
}

/// Accepts requests until `recv` is unblocked at the end, which returns an error.
fn accept(server: &Server, shared: &Arc<Shared>) {
    while let Ok(request) = server.recv() {
        let shared = shared.clone();
        std::thread::spawn(move || handle(request, &shared));
    }
}

fn handle(mut request: Request, shared: &Shared) {
    let mut bytes = Vec::new();
    let _ = request.as_reader().read_to_end(&mut bytes);
    let body: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    let path = request.url().to_owned();
    let headers = request.headers().iter().map(|header| {
        let name = header.field.as_str().as_str().to_ascii_lowercase();
        (name, header.value.as_str().to_owned())
    });
    let dialect = dialect_of(&path);
    let conversation = dialect.map(|dialect| Conversation::read(dialect, &body));
    let serial = shared.record(Recorded {
        headers: headers.collect(),
        body: body.clone(),
        conversation: conversation.clone(),
        path: path.clone(),
    });
    match (dialect, conversation) {
        (Some(dialect), Some(conversation)) => {
            let exchange = Exchange { dialect, conversation, body, path, serial };
            exchange.finish(request, shared);
        }
        _ if path.contains("count_tokens") || path.contains("countTokens") => {
            let count = json!({"input_tokens": stream::INPUT_TOKENS, "totalTokens": stream::INPUT_TOKENS});
            send_json(request, 200, &count, None);
        }
        _ => send_json(request, 404, &json!({"error": {"message": "not a path of the scripted model"}}), None),
    }
}

fn dialect_of(path: &str) -> Option<Dialect> {
    let path = path.split('?').next().unwrap_or(path);
    if path.ends_with("/messages") {
        Some(Dialect::Anthropic)
    } else if path.ends_with("/responses") {
        Some(Dialect::Responses)
    } else if path.ends_with("/chat/completions") {
        Some(Dialect::Chat)
    } else if path.ends_with(":streamGenerateContent") || path.ends_with(":generateContent") {
        Some(Dialect::Gemini)
    } else {
        None
    }
}

/// A request to the model that waits for an answer.
struct Exchange {
    dialect: Dialect,
    conversation: Conversation,
    body: Value,
    path: String,
    serial: usize,
}

impl Exchange {
    fn finish(&self, request: Request, shared: &Shared) {
        if let Some(call) = poll_running_command(&self.conversation) {
            return self.speak(request, "", Some(&call));
        }
        match shared.answer(&self.conversation) {
            Answer::Hang => shared.wait_until_stopped(),
            Answer::Fail(failure) => {
                let body = error_body(self.dialect, &failure);
                send_json(request, failure.status, &body, failure.retry_after_seconds);
            }
            Answer::Speak { text, tool } => {
                let call = tool.and_then(|step| call_for(self.dialect, &self.conversation, &step));
                self.speak(request, &text, call.as_ref());
            }
        }
    }

    /// Returns the model's name, which requests of Gemini have only in the path.
    fn model(&self) -> &str {
        let in_path = || self.path.split("/models/").nth(1)?.split(':').next();
        self.body["model"].as_str().or_else(in_path).unwrap_or("scripted")
    }

    fn speak(&self, request: Request, text: &str, call: Option<&ToolCall>) {
        let spoken = Spoken { model: self.model(), serial: self.serial, text, call };
        let wants_stream = self.path.contains(":streamGenerateContent") || self.body["stream"] == true;
        if wants_stream {
            let events = stream(self.dialect, &spoken);
            send(request, 200, "text/event-stream", events, None);
        } else {
            send_json(request, 200, &whole(self.dialect, &spoken), None);
        }
    }
}

fn send_json(request: Request, status: u16, body: &Value, retry_after_seconds: Option<u32>) {
    send(request, status, "application/json", body.to_string(), retry_after_seconds);
}

/// Sends an answer. A killed CLI does not read it, which is no error here.
fn send(request: Request, status: u16, content_type: &str, body: String, retry_after_seconds: Option<u32>) {
    let mut response =
        Response::from_string(body).with_status_code(status).with_header(header("content-type", content_type));
    if let Some(seconds) = retry_after_seconds {
        response.add_header(header("retry-after", &seconds.to_string()));
    }
    let _ = request.respond(response);
}

fn header(name: &str, value: &str) -> Header {
    Header::from_bytes(name, value).expect("an ASCII header")
}
