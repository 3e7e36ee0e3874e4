//! The conformance suite of the protocol passes. It uses HTTP and the server uses lines, so a bridge translates one
//! session. It also gives the tools the names that the suite's scenarios need.
//!
//! Scenarios that do not apply:
//!
//! | scenarios | why |
//! |---|---|
//! | `tools-call-image`, `-audio`, `-embedded-resource`, `-mixed-content` | the tools answer only with text and structured content |
//! | `tools-call-sampling`, `-elicitation`, `elicitation-*` | the server never asks the client's model or user |
//! | `tools-call-with-logging`, `logging-set-level` | the log goes to stderr; the capability is not declared |
//! | `tools-call-with-progress` | needs three reports at once; the server reports every 10 s, see `tests/mcp` |
//! | `completion-complete` | the capability is not declared |
//! | `json-schema-2020-12` | needs a tool whose schema has `$defs`, which not all clients read |
//! | `server-sse-*`, `dns-rebinding-protection` | about HTTP, which the server does not use |

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;
use tiny_http::{Header, Method, Request, Response, Server};

use crate::real_cli::{ScratchHome, run_to_end, skipped};

/// The scenarios, each with the name of a tool or prompt in the suite and in this server.
const SCENARIOS: [(&str, Option<(&str, &str)>); 5] = [
    ("server-initialize", None),
    ("ping", None),
    ("tools-list", None),
    ("tools-call-simple-text", Some(("test_simple_text", "list_worker_missions"))),
    // The suite calls the tool without a worker.
    ("tools-call-error", Some(("test_error_handling", "get_worker_status"))),
];

#[test]
fn conformance_suite_passes() {
    if skipped() {
        return;
    }
    for (scenario, renamed) in SCENARIOS {
        let home = ScratchHome::new("http://127.0.0.1:1");
        let bridge = Bridge::start(&home, renamed);
        let suite = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real/node_modules/.bin/conformance");
        let mut suite = home.command(suite);
        suite.args(["server", "--url", &bridge.url(), "--scenario", scenario]).current_dir(home.path());
        let ran = run_to_end(&mut suite, "", Duration::from_secs(60));
        let printed = String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success(), "{scenario}: {printed}");
        assert!(printed.contains("Passed: 1/1, 0 failed, 0 warnings"), "{scenario}: {printed}");
    }
}

/// A bridge from HTTP on 127.0.0.1 to the program. It ends when dropped.
struct Bridge {
    http: Arc<Server>,
    passing_on: Option<JoinHandle<()>>,
}

impl Bridge {
    fn start(home: &ScratchHome, renamed: Option<(&'static str, &'static str)>) -> Self {
        let mut command = home.command(env!("CARGO_BIN_EXE_orchestrator-boss"));
        let mut line = Line::start(command.current_dir(home.path()));
        let http = Arc::new(Server::http("127.0.0.1:0").expect("a free port on 127.0.0.1"));
        let asked = Arc::clone(&http);
        let passing_on = std::thread::spawn(move || {
            // Fails when the server is unblocked at the end.
            while let Ok(request) = asked.recv() {
                pass_on(request, &mut line, renamed);
            }
        });
        Self { http, passing_on: Some(passing_on) }
    }

    fn url(&self) -> String {
        format!("http://{}/mcp", self.http.server_addr())
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.http.unblock();
        if let Some(passing_on) = self.passing_on.take() {
            let _ = passing_on.join();
        }
    }
}

fn pass_on(mut request: Request, line: &mut Line, renamed: Option<(&str, &str)>) {
    // The bridge offers neither a stream of the server nor an end of the session.
    if *request.method() != Method::Post {
        let _ = request.respond(Response::empty(405));
        return;
    }
    let mut body = String::new();
    let read = request.as_reader().read_to_string(&mut body);
    let Some(mut message) = read.ok().and_then(|_| serde_json::from_str::<Value>(&body).ok()) else {
        let _ = request.respond(Response::empty(400));
        return;
    };
    if let Some((theirs, ours)) = renamed
        && message["params"]["name"] == theirs
    {
        message["params"]["name"] = ours.into();
    }
    line.write(&message);
    let _ = match message.get("id").map(|id| line.answer(id)) {
        None => request.respond(Response::empty(202)),
        Some(None) => request.respond(Response::empty(502)),
        Some(Some(answer)) => {
            let json = Header::from_bytes("content-type", "application/json").expect("an ASCII header");
            request.respond(Response::from_string(answer.to_string()).with_header(json))
        }
    };
}

/// The program, called over lines.
struct Line {
    server: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Line {
    fn start(command: &mut Command) -> Self {
        let mut server =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it is built");
        let input = server.stdin.take();
        let output = BufReader::new(server.stdout.take().expect("a piped stdout"));
        Self { server, input, output }
    }

    fn write(&mut self, message: &Value) {
        let input = self.input.as_mut().expect("open until the end");
        // A program that has exited gives no answer, which is reported.
        let _ = writeln!(input, "{message}");
    }

    /// Returns the answer with this id. Earlier messages are discarded, since these scenarios need no notifications.
    fn answer(&mut self, id: &Value) -> Option<Value> {
        loop {
            let mut line = String::new();
            let length = self.output.read_line(&mut line).ok()?;
            let message: Value = serde_json::from_str(&line).ok().filter(|_| length > 0)?;
            if message["id"] == *id {
                return Some(message);
            }
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.input.take();
        let _ = self.server.wait();
    }
}
