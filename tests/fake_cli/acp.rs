//! The fake CLI as an agent of the Agent Client Protocol (`--acp`). Each prompt is a script, which runs in a thread of
//! its own, so that the agent reads a cancellation meanwhile.
//!
//! `session/cancel` answers the prompt, but does not end what the script has started, like some real agents. The end of
//! stdin ends the agent. `--silent` answers nothing, `--logged-out` has no login, `--forgetful` cannot resume a session.

use std::io::{self, BufRead, Write};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use serde_json::{Value, json};

use super::output::Output;
use super::script::Script;

/// The ids of the agent's requests begin at 0, so they overlap with those of the client.
static NEXT_ID: AtomicU64 = AtomicU64::new(0);

#[derive(Debug, Default)]
pub struct Quirks {
    pub silent: bool,
    pub logged_out: bool,
    pub forgetful: bool,
}

/// The prompt that a script answers.
pub struct AcpTurn {
    session: String,
    prompt: Value,
    is_over: Arc<AtomicBool>,
    /// The client's answers to the script's requests.
    answers: Receiver<Value>,
}

struct Running {
    prompt: Value,
    is_over: Arc<AtomicBool>,
    answers: Sender<Value>,
}

impl AcpTurn {
    pub fn update(&self, update: Value) {
        if !self.is_over.load(Ordering::SeqCst) {
            print(&json!({
                "jsonrpc": "2.0", "method": "session/update",
                "params": {"sessionId": self.session, "update": update},
            }));
        }
    }

    /// Answers the prompt, once.
    pub fn end(&self, answer: Value) {
        end(&self.prompt, &self.is_over, answer);
    }

    /// Sends a request and waits for its answer. `None` if the client answers no more.
    pub fn request(&self, method: &str, params: Value) -> Option<Value> {
        let id = NEXT_ID.fetch_add(1, Ordering::SeqCst);
        print(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        self.answers.iter().find(|answer| answer["id"] == id)
    }
}

fn end(prompt: &Value, is_over: &AtomicBool, answer: Value) {
    if is_over.swap(true, Ordering::SeqCst) {
        return;
    }
    let mut line = json!({"jsonrpc": "2.0", "id": prompt});
    line.as_object_mut().expect("an object").extend(answer.as_object().cloned().unwrap_or_default());
    print(&line);
}

pub fn print(line: &Value) {
    print_line(&line.to_string());
}

pub fn print_line(line: &str) {
    let mut stdout = io::stdout().lock();
    if writeln!(stdout, "{line}").and_then(|()| stdout.flush()).is_err() {
        process::exit(101);
    }
}

/// Serves the client until stdin ends.
pub fn serve(quirks: &Quirks) {
    let mut running: Option<Running> = None;
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        let Ok(message) = serde_json::from_str::<Value>(&line) else { continue };
        if quirks.silent {
            continue;
        }
        let (id, params) = (&message["id"], &message["params"]);
        let answer = |result: Value| print(&json!({"jsonrpc": "2.0", "id": id, "result": result}));
        match message["method"].as_str() {
            None => {
                if let Some(running) = &running {
                    let _ = running.answers.send(message);
                }
            }
            Some("initialize") => answer(json!({
                "protocolVersion": 1,
                "agentCapabilities": {"loadSession": !quirks.forgetful},
            })),
            Some("session/new") if quirks.logged_out => print(&json!({
                "jsonrpc": "2.0", "id": id, "error": {"code": -32000, "message": "Authentication required"},
            })),
            Some("session/new") => answer(json!({"sessionId": format!("s-{}", process::id())})),
            Some("session/load") => {
                let history =
                    json!({"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": "old words"}});
                print(&json!({"jsonrpc": "2.0", "method": "session/update", "params": {"update": history}}));
                answer(Value::Null);
            }
            Some("session/prompt") => running = Some(run(id, params)),
            Some("session/cancel") => {
                if let Some(running) = &running {
                    end(&running.prompt, &running.is_over, json!({"result": {"stopReason": "cancelled"}}));
                }
            }
            Some(_) => {
                print(&json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "Method not found"}}))
            }
        }
    }
}

fn run(prompt: &Value, params: &Value) -> Running {
    let (sender, answers) = mpsc::channel();
    let is_over = Arc::new(AtomicBool::new(false));
    let turn = AcpTurn {
        session: params["sessionId"].as_str().unwrap_or_default().to_owned(),
        prompt: prompt.clone(),
        is_over: Arc::clone(&is_over),
        answers,
    };
    let text = params["prompt"][0]["text"].as_str().unwrap_or_default().to_owned();
    thread::spawn(move || {
        let script = Script::of(&text);
        match script.run(&mut Output::of_agent(turn)) {
            Ok(code) if script.exits() => process::exit(code.into()),
            Ok(_) => {}
            Err(error) => {
                eprintln!("fake-cli: {error}");
                process::exit(64);
            }
        }
    });
    Running { prompt: prompt.clone(), is_over, answers: sender }
}
