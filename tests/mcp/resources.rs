//! Resources in both eras: lists, all pages, notifications of changes, and unknown addresses.

use std::cell::RefCell;
use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::client::Client;
use crate::session::modern;
use crate::support::wait::until;

/// A CLI with long output: messages, commands and edits, and no commit.
const CODEX: &str = r#"#!/bin/sh
case "$*" in --version | "login status") echo 1.0; exit ;; esac
cat > /dev/null
echo '{"type":"thread.started","thread_id":"t-1"}'
echo '{"type":"item.completed","item":{"id":"item_0","type":"agent_message","text":"I look around first."}}'
echo '{"type":"item.started","item":{"id":"item_1","type":"command_execution","command":"cargo test"}}'
echo '{"type":"item.completed","item":{"id":"item_1","type":"command_execution","command":"cargo test","aggregated_output":"1 failed","exit_code":1,"status":"failed"}}'
n=0
while [ $n -lt 600 ]; do
  n=$((n + 1))
  echo "{\"type\":\"item.completed\",\"item\":{\"id\":\"say_$n\",\"type\":\"agent_message\",\"text\":\"step $n: $(printf '%0200d' 0)\"}}"
done
i=0
while [ $i -lt 3000 ]; do i=$((i + 1)); echo "line $i of something long enough"; done > big.txt
echo '{"type":"item.completed","item":{"id":"last","type":"agent_message","text":"All done."}}'
echo '{"type":"turn.completed","usage":{"input_tokens":1,"cached_input_tokens":0,"output_tokens":1}}'
"#;

struct Reader {
    client: Client,
    /// The metadata of every request of the modern era.
    meta: Option<Value>,
    next: i64,
}

impl Reader {
    fn of(client: Client, era: &str) -> Self {
        let mut reader = Self { client, meta: None, next: 100 };
        match era {
            "modern" => reader.meta = Some(modern("claude-code")),
            version => drop(reader.client.initialize("test", version)),
        }
        reader
    }

    fn ask(&mut self, method: &str, mut params: Value) -> Value {
        self.next += 1;
        if let Some(meta) = &self.meta {
            params["_meta"] = meta.clone();
        }
        self.client.ask(self.next, method, params)
    }

    fn call(&mut self, tool: &str, arguments: Value) -> Value {
        let answer = self.ask("tools/call", json!({"name": tool, "arguments": arguments}));
        assert_ne!(answer["result"]["isError"], true, "{answer}");
        answer["result"]["structuredContent"].clone()
    }

    /// Returns the text of one page.
    fn read(&mut self, uri: &str) -> String {
        let answer = self.ask("resources/read", json!({"uri": uri}));
        let contents = &answer["result"]["contents"][0];
        assert_eq!(contents["uri"], uri, "{answer}");
        let size = serde_json::to_vec(&answer["result"]).unwrap().len();
        assert!(size <= 40_000, "{uri}: {size} bytes");
        contents["text"].as_str().unwrap().to_owned()
    }

    /// Returns all pages of a text that is read forwards.
    fn read_all(&mut self, uri: &str) -> (String, usize) {
        let (mut uri, mut whole, mut pages) = (uri.to_owned(), String::new(), 0);
        loop {
            let page = self.read(&uri);
            pages += 1;
            match page.rsplit_once("\n[continued: ") {
                Some((text, next)) => {
                    whole.push_str(text);
                    uri = next.trim_end_matches(']').to_owned();
                }
                None => return (whole + &page, pages),
            }
        }
    }

    fn listed(&mut self) -> Vec<String> {
        let answer = self.ask("resources/list", json!({}));
        let resources = answer["result"]["resources"].as_array().unwrap_or_else(|| panic!("{answer}"));
        resources.iter().map(|resource| resource["uri"].as_str().unwrap().to_owned()).collect()
    }
}

fn repository() -> Client {
    let home = tempfile::tempdir().unwrap();
    let repo = home.path().join("repo");
    fs::create_dir(&repo).unwrap();
    for args in [
        &["init", "-q", "-b", "main"][..],
        &["config", "user.name", "Test"],
        &["config", "user.email", "test@localhost"],
        &["commit", "-q", "--allow-empty", "-m", "first"],
    ] {
        let mut git = Command::new("git");
        assert!(git.args(args).current_dir(&repo).env("GIT_CONFIG_GLOBAL", "/dev/null").status().unwrap().success());
    }
    let client = Client::start_in(home, "repo", &[("ORCHESTRATOR_MAX_WORKERS", "1")]);
    client.install("codex", CODEX);
    client
}

#[test]
fn resources_of_a_worker_are_paged() {
    for era in ["2025-06-18", "2025-11-25", "modern"] {
        let mut reader = Reader::of(repository(), era);
        let mission = json!({"title": "Fix parser", "prompt": "Fix {it} properly.", "backend": "codex"});
        let id = reader.call("create_worker_mission", mission)["worker"]["worker_id"].as_str().unwrap().to_owned();
        let mut answer = json!({"status": "still_running"});
        while answer["status"] == "still_running" {
            answer = reader.call("wait_for_worker", json!({"worker_id": id, "timeout_seconds": 18}));
        }
        assert_eq!(answer["settled"][0]["status"], "completed", "{answer:#}");

        let uri = |part: &str| format!("orchestrator://workers/{id}/{part}");
        let expected: Vec<String> = ["log", "diff", "transcript", "prompt"].map(uri).into_iter().collect();
        let listed = reader.listed();
        assert_eq!((listed[0].as_str(), &listed[1..]), ("orchestrator://state", &expected[..]));

        let prompt = reader.read(&uri("prompt"));
        assert!(prompt.starts_with("Fix {it} properly.\n") && prompt.contains("You are a worker"), "{prompt}");

        let (transcript, pages) = reader.read_all(&uri("transcript"));
        assert!(pages > 1, "the text is long");
        for part in
            ["== attempt 1 ==", "said: I look around first.", "cargo test", "exit 1: 1 failed", "== completed =="]
        {
            assert!(transcript.contains(part), "{part} is not in {transcript:.2000}");
        }
        for step in 1..=600 {
            assert!(transcript.contains(&format!("said: step {step}: ")), "step {step} is lost between pages");
        }

        let (diff, pages) = reader.read_all(&uri("diff"));
        assert!(pages > 1 && diff.starts_with("diff --git"), "{pages}");
        assert_eq!(diff.lines().filter(|line| line.starts_with("+line ")).count(), 3_000);

        // The log is read backwards from its end.
        let mut next = Some(uri("log"));
        let (mut lines, mut pages) = (Vec::new(), 0);
        while let Some(uri) = next {
            let page = reader.read(&uri);
            pages += 1;
            next = page.strip_prefix("[earlier: ").map(|rest| rest.split(']').next().unwrap().to_owned());
            let own = page.lines().filter(|line| !line.starts_with('[')).map(str::to_owned);
            lines.splice(0..0, own);
        }
        assert!(pages > 1 && lines.iter().rev().take(4).any(|line| line.contains("All done.")), "{:?}", lines.last());
        assert_eq!(lines.iter().filter(|line| line.contains("said: step ")).count(), 600);

        // The state file follows within 100 ms.
        let reader = RefCell::new(reader);
        until("the state file has the worker", || {
            let (state, _) = reader.borrow_mut().read_all("orchestrator://state");
            let state: Value = serde_json::from_str(&state).unwrap();
            state["completed_tasks"].to_string().contains(&id)
        });
        let mut reader = reader.into_inner();
        // A number alone is accepted too.
        assert!(reader.read("orchestrator://workers/w-1/prompt").starts_with("Fix {it}"));
    }
}

#[test]
fn unknown_resource_has_the_error_of_the_era() {
    for (era, code) in [("2025-11-25", -32002), ("modern", -32602)] {
        let mut reader = Reader::of(Client::start(), era);
        let worker = reader.client_queued();
        let cases = [
            ("orchestrator://workers/w-99/log", worker.as_str()),
            ("orchestrator://workers/w-1/logs", "/transcript"),
            ("file:///etc/passwd", "orchestrator://state"),
            ("orchestrator://workers/../../log", "orchestrator://state"),
        ];
        for (uri, fix) in cases {
            let error = &reader.ask("resources/read", json!({ "uri": uri }))["error"];
            assert_eq!(error["code"], code, "{era} {uri}: {error}");
            assert!(error["message"].as_str().unwrap().contains(fix), "{error}");
        }
        let templates = reader.ask("resources/templates/list", json!({}));
        let templates = templates["result"]["resourceTemplates"].as_array().unwrap().clone();
        let templates: Vec<&str> = templates.iter().map(|it| it["uriTemplate"].as_str().unwrap()).collect();
        assert_eq!(templates[0], "orchestrator://workers/{id}/log{?cursor}");
        assert_eq!(templates.len(), 4);
        // A queued worker has only its prompt.
        assert_eq!(reader.listed()[1..], [format!("orchestrator://workers/{worker}/prompt")]);
        assert_eq!(reader.read(&format!("orchestrator://workers/{worker}/prompt")), "Nothing.");
    }
}

impl Reader {
    fn client_queued(&mut self) -> String {
        let mission = json!({
            "title": "Stay queued", "prompt": "Nothing.", "backend": "codex", "permissions": "read_only",
            "working_directory": self.client.home.path(),
        });
        self.call("create_worker_mission", mission)["worker"]["worker_id"].as_str().unwrap().to_owned()
    }
}

#[test]
fn older_era_notifies_subscribers() {
    let mut reader = Reader::of(Client::start(), "2025-06-18");
    reader.client_queued();
    let uri = "orchestrator://state";
    assert!(reader.ask("resources/subscribe", json!({ "uri": uri })).get("result").is_some());
    assert_eq!(reader.ask("resources/subscribe", json!({"uri": "x://y"}))["error"]["code"], -32002);
    reader.client_queued();
    let note = reader.client.next(|message| message["method"] == "notifications/resources/updated");
    assert_eq!(note["params"]["uri"], uri);
    assert!(reader.ask("resources/unsubscribe", json!({ "uri": uri })).get("result").is_some());
}

#[test]
fn modern_era_notifies_listeners() {
    let mut reader = Reader::of(Client::start(), "modern");
    reader.client_queued();
    let uri = "orchestrator://state";
    let filter = json!({"resourceSubscriptions": [uri, "x://y"]});
    let meta = reader.meta.clone().unwrap();
    reader.client.send_request(7, "subscriptions/listen", json!({"notifications": filter, "_meta": meta}));
    let began = reader.client.next(|message| message["method"] == "notifications/subscriptions/acknowledged");
    assert_eq!(began["params"]["notifications"]["resourceSubscriptions"], json!([uri]), "{began}");
    let is_updated = |message: &Value| message["method"] == "notifications/resources/updated";
    // The first notification confirms the subscription; the second one reports the change.
    reader.client.next(is_updated);
    reader.client_queued();
    let note = reader.client.next(is_updated);
    assert_eq!(note["params"]["uri"], uri);
    assert_eq!(note["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], 7, "{note}");
    reader.client.send(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}}));
    assert!(reader.ask("tools/list", json!({})).get("result").is_some(), "the connection is alive");
    let (status, _) = reader.client.close();
    assert!(status.success());
}

#[test]
fn lists_are_answered_without_a_repository() {
    let mut client = Client::start_with(&[("ORCHESTRATOR_WAIT_SECONDS", "soon")]);
    client.initialize("test", "2025-06-18");
    let listed = client.ask(1, "resources/list", json!({}));
    assert_eq!(listed["result"]["resources"].as_array().unwrap().len(), 1, "{listed}");
    let error = client.ask(2, "resources/read", json!({"uri": "orchestrator://state"}))["error"].clone();
    assert!(error["message"].as_str().unwrap().contains("ORCHESTRATOR_WAIT_SECONDS"), "{error}");
}

#[test]
fn resources_list_only_own_workers() {
    let mut client = Client::initialized("codex-mcp-client");
    let mission = json!({"title": "One", "prompt": "p", "backend": "codex", "working_directory": client.home.path()});
    let as_session = |mut params: Value, session: &str| {
        params["_meta"] = json!({ "sessionId": session });
        params
    };
    client.ask(1, "tools/call", as_session(json!({"name": "create_worker_mission", "arguments": mission}), "a"));
    let mut count = |id: i64, session: &str| {
        let listed = client.ask(id, "resources/list", as_session(json!({}), session));
        listed["result"]["resources"].as_array().unwrap().len()
    };
    assert_eq!((count(2, "a"), count(3, "b")), (2, 1));
    // It can be read by its id, as with get_worker_status.
    let read = client.ask(4, "resources/read", as_session(json!({"uri": "orchestrator://workers/w-1/prompt"}), "b"));
    assert_eq!(read["result"]["contents"][0]["text"], "p");
}
