//! Waits that go on in the background as MCP tasks. The client polls them as Claude Code does in a terminal. Servers are
//! killed and started again, and conversations are cleared.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::Client;
use crate::integrate::repository;
use crate::support::sandbox::fake_cli;
use crate::support::wait::{until, until_exists, until_some};

/// A stand-in for Codex that completes when the file `gate`, or that of its worker, exists.
const CODEX: &str = r#"#!/bin/sh
case "$*" in --version | "login status") echo 1.0; exit ;; esac
cat > /dev/null
gate="$HOME/gate-$(basename "$PWD")"
while [ ! -e "$HOME/gate" ] && [ ! -e "$gate" ]; do sleep 0.02; done
echo '{"type":"thread.started","thread_id":"t-1"}'
echo '{"type":"turn.completed","usage":{"input_tokens":1,"cached_input_tokens":0,"output_tokens":1}}'
"#;

/// A terminal with Claude Code, whose server is started again when it was killed.
struct Terminal {
    client: Client,
    next: i64,
}

impl Terminal {
    fn open() -> Self {
        let home = tempfile::tempdir().unwrap();
        repository(home.path());
        Self::start(home, &[])
    }

    /// Opens a terminal with the policy `ask`, and the scripted agent as a backend.
    fn open_asking() -> Self {
        let home = tempfile::tempdir().unwrap();
        repository(home.path());
        let folder = home.path().join(".config/orchestrator-boss");
        fs::create_dir_all(&folder).unwrap();
        let agent = format!(
            "[[custom]]\nname = \"agent\"\nprogram = {:?}\nargs = [\"--acp\", \"--quick\"]\noutput = \"acp\"\n",
            fake_cli()
        );
        fs::write(folder.join("config.toml"), format!("questions = \"ask\"\n{agent}")).unwrap();
        Self::start(home, &[])
    }

    fn start(home: TempDir, environment: &[(&str, &str)]) -> Self {
        let project = home.path().join("repo").display().to_string();
        let mut all = vec![
            ("ORCHESTRATOR_MAX_WORKERS", "4"),
            ("CLAUDE_CODE_SESSION_ID", "s-1"),
            ("CLAUDE_PROJECT_DIR", &project),
        ];
        all.extend(environment);
        let client = Client::start_in(home, "repo", &all);
        client.install("codex", CODEX);
        Self { client, next: 0 }
    }

    /// Kills the server, and starts another one for the same session.
    fn restart(self) -> Self {
        self.restart_with(&[])
    }

    fn restart_with(self, environment: &[(&str, &str)]) -> Self {
        Self::start(self.client.kill(), environment)
    }

    fn send(&mut self, method: &str, mut params: Value, capabilities: Value) -> i64 {
        let call = params["_meta"]["claudecode/toolUseId"].take();
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": {"name": "claude-code", "version": "2.1.332"},
            "io.modelcontextprotocol/clientCapabilities": capabilities,
        });
        if call.is_string() {
            params["_meta"]["claudecode/toolUseId"] = call;
        }
        self.next += 1;
        self.client.send_request(self.next, method, params);
        self.next
    }

    fn ask(&mut self, method: &str, params: Value) -> Value {
        let id = self.send(method, params, tasks());
        let answer = self.client.answer(id);
        assert!(answer["result"].is_object(), "{answer}");
        answer["result"].clone()
    }

    fn call(&mut self, tool: &str, arguments: Value) -> Value {
        self.ask("tools/call", json!({"name": tool, "arguments": arguments}))
    }

    /// Returns the structured answer of a call that is no task.
    fn plain(&mut self, tool: &str, arguments: Value) -> Value {
        let answer = self.call(tool, arguments);
        assert_eq!((&answer["resultType"], &answer["isError"]), (&json!("complete"), &json!(false)), "{answer:#}");
        answer["structuredContent"].clone()
    }

    fn create(&mut self, title: &str) -> String {
        let mission = json!({"title": title, "prompt": "x", "backend": "codex"});
        let created = self.plain("create_worker_mission", mission);
        created["worker"]["worker_id"].as_str().unwrap().to_owned()
    }

    /// Begins a wait that goes on in the background, and returns the id of its task.
    fn begin(&mut self, arguments: Value) -> String {
        let answer = self.call("wait_for_any_worker", arguments);
        assert_eq!(answer["resultType"], "task", "{answer:#}");
        answer["taskId"].as_str().unwrap().to_owned()
    }

    fn get(&mut self, task: &str) -> Value {
        self.ask("tasks/get", json!({ "taskId": task }))
    }

    /// Begins a wait for a worker that then asks, and returns the task.
    fn begin_before_question(&mut self) -> String {
        let prompt = "FAKE:\nwait-file go 100\nask edit /etc/hosts\nsay done";
        let mission = json!({"title": "t", "prompt": prompt, "backend": "agent"});
        self.plain("create_worker_mission", mission);
        let task = self.begin(json!({}));
        let worktree = self.client.home.path().join("repo.worktrees/w-1-t");
        // Git refuses a directory with files, until it has made this one.
        until_exists(&worktree.join(".git"));
        fs::write(worktree.join("go"), "").unwrap();
        task
    }

    /// Asks for a task as a client that can show forms, until there is one.
    fn form(&mut self, task: &str) -> (String, Value) {
        let requests = until_some("a form", || {
            let mut capabilities = tasks();
            capabilities["elicitation"] = json!({"form": {}});
            let id = self.send("tasks/get", json!({ "taskId": task }), capabilities);
            let state = self.client.answer(id)["result"].clone();
            (state["status"] == "input_required").then(|| state["inputRequests"].clone())
        });
        let (key, request) = requests.as_object().unwrap().iter().next().unwrap();
        (key.clone(), request["params"].clone())
    }

    fn cancel(&mut self, task: &str) {
        assert_eq!(self.ask("tasks/cancel", json!({ "taskId": task })), json!({"resultType": "complete"}));
    }

    /// Asks until the task is over.
    fn ended(&mut self, task: &str) -> Value {
        until_some("the task is over", || Some(self.get(task)).filter(|task| task["status"] != "working"))
    }

    fn open_gate(&self, worker: Option<&str>) {
        let name = worker.map_or_else(|| "gate".to_owned(), |worker| format!("gate-{worker}"));
        fs::write(self.client.home.path().join(name), "").unwrap();
    }

    fn state(&self, name: &str) -> PathBuf {
        self.client.home.path().join("repo/.orchestrator").join(name)
    }

    /// Adds a row to the transcript of a conversation.
    fn write_row(&self, session: &str, row: &Value) {
        let home = self.client.home.path();
        let name: String = home.join("repo").to_string_lossy().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        let folder = home.join(".claude/projects").join(name);
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join(session).with_extension("jsonl");
        let before = fs::read_to_string(&path).unwrap_or_default();
        fs::write(path, format!("{before}{row}\n")).unwrap();
    }

    /// Calls a tool in a conversation, as Claude Code does: the call is in its transcript.
    fn call_in(&mut self, session: &str, tool: &str, arguments: Value) -> Value {
        let call = format!("toolu_{session}_{}", self.next);
        self.write_row(
            session,
            &json!({"type": "assistant", "message": {"content": [{"type": "tool_use", "id": call}]}}),
        );
        let meta = json!({"claudecode/toolUseId": call});
        let answer = self.ask("tools/call", json!({"name": tool, "arguments": arguments, "_meta": meta}));
        assert_eq!(answer["resultType"], "complete", "{answer:#}");
        answer["structuredContent"].clone()
    }
}

/// Returns the row by which the model of a conversation gets the end of a task.
fn given(task: &str) -> Value {
    let text = format!(
        "<task-notification>\n<task-id>k1</task-id>\n<status>completed</status>\n<summary>MCP task {task} \
         (orchestrator-boss/wait_for_any_worker) completed.</summary>\n<result>\n{{}}\n</result>\n</task-notification>"
    );
    json!({"type": "user", "message": {"role": "user", "content": text}, "origin": {"kind": "task-notification"}})
}

#[test]
fn wait_that_would_block_is_a_task() {
    let mut boss = Terminal::open();
    let worker = boss.create("slow");
    let created = boss.call("wait_for_any_worker", json!({}));
    assert_eq!((&created["resultType"], &created["status"]), (&json!("task"), &json!("working")), "{created:#}");
    let task = created["taskId"].as_str().unwrap().to_owned();
    assert!(task.starts_with("wait-any-1-of-1-"), "{task}");
    assert_eq!((created.get("ttlMs"), &created["pollIntervalMs"]), (Some(&Value::Null), &json!(1_000)));
    assert!(created["statusMessage"].as_str().unwrap().starts_with("0 of 1 settled"), "{created:#}");
    assert_eq!(boss.get(&task)["status"], "working");

    boss.open_gate(None);
    let ended = boss.ended(&task);
    assert_eq!(ended["status"], "completed", "{ended:#}");
    let result = &ended["result"];
    let answer = &result["structuredContent"];
    let text: Value = serde_json::from_str(result["content"][0]["text"].as_str().unwrap()).unwrap();
    assert_eq!((&text, &result["isError"]), (answer, &json!(false)));
    assert_eq!((&answer["status"], &answer["settled"][0]["worker_id"]), (&json!("settled"), &json!(worker)));
    assert!(answer["settled"][0].get("redelivered").is_none(), "{answer:#}");
    assert!(answer["waited_for"].as_str().unwrap().ends_with("for all your workers"), "{answer:#}");
    let status = boss.plain("get_backend_status", json!({"backend": "codex"}));
    assert!(status["waking"].as_str().unwrap().contains("its end wakes you"), "{status:#}");
    boss.cancel(&task);
    boss.cancel(&task);
    assert_eq!(boss.get(&task), ended, "the answer never changes");
}

#[test]
fn wait_without_need_or_support_is_no_task() {
    let mut boss = Terminal::open();
    assert_eq!(boss.plain("wait_for_any_worker", json!({}))["status"], "idle");
    let worker = boss.create("slow");
    assert_eq!(boss.plain("wait_for_any_worker", json!({"timeout_seconds": 0}))["status"], "still_running");
    let arguments = json!({"name": "wait_for_worker", "arguments": {"worker_id": worker, "timeout_seconds": 1}});
    // A subagent of the same terminal.
    let id = boss.send("tools/call", arguments.clone(), json!({"elicitation": {"form": {}}}));
    let undeclared = boss.client.answer(id)["result"]["structuredContent"]["status"].clone();
    assert_eq!(undeclared, "still_running");
    let task = boss.ask("tools/call", arguments)["taskId"].as_str().unwrap().to_owned();
    assert!(task.starts_with(&format!("wait-{worker}-")), "{task}");
    let ended = boss.ended(&task);
    assert_eq!(ended["result"]["structuredContent"]["status"], "still_running", "its own time is up: {ended:#}");
    boss.open_gate(None);
    until("it has settled", || {
        boss.plain("get_worker_status", json!({"worker_id": worker}))["worker"]["status"] == "completed"
    });
    assert_eq!(boss.plain("wait_for_any_worker", json!({}))["status"], "settled");

    let blocking = Terminal::open();
    let settings = blocking.client.home.path().join(".config/orchestrator-boss");
    fs::create_dir_all(&settings).unwrap();
    fs::write(settings.join("config.toml"), "wake = \"off\"\n").unwrap();
    let mut blocking = blocking.restart();
    blocking.create("slow");
    assert_eq!(blocking.plain("wait_for_any_worker", json!({"timeout_seconds": 1}))["status"], "still_running");
}

#[test]
fn every_later_server_gives_the_same_answer() {
    let mut boss = Terminal::open();
    let worker = boss.create("slow");
    let task = boss.begin(json!({"worker_ids": [worker]}));
    let mut boss = boss.restart();
    let open = boss.get(&task);
    assert_eq!((&open["status"], &open["taskId"]), (&json!("working"), &json!(task)), "{open:#}");
    boss.open_gate(None);
    let ended = boss.ended(&task);
    assert_eq!(ended["result"]["structuredContent"]["settled"][0]["worker_id"], json!(worker), "{ended:#}");
    assert_eq!(boss.restart().get(&task), ended);
}

#[test]
fn killed_server_leaves_one_answer() {
    for point in ["WaitOpened", "WaitAnswerStored", "WaitEnded"] {
        let mut boss = Terminal::open();
        let worker = boss.create("slow");
        let log = boss.client.home.path().join("crashes").display().to_string();
        let mut boss = boss.restart_with(&[("ORCHESTRATOR_CRASH_AT", point), ("ORCHESTRATOR_CRASH_LOG", &log)]);
        let task = if point == "WaitOpened" {
            boss.send("tools/call", json!({"name": "wait_for_any_worker", "arguments": {}}), tasks());
            boss.client.end();
            boss = boss.restart();
            let task = boss.begin(json!({}));
            boss.open_gate(None);
            task
        } else {
            let task = boss.begin(json!({}));
            boss.open_gate(None);
            until("it dies", || {
                boss.send("tasks/get", json!({ "taskId": task }), tasks());
                boss.client.try_answer(boss.next).is_none()
            });
            boss.client.end();
            boss = boss.restart();
            task
        };
        let ended = boss.ended(&task);
        let settled = &ended["result"]["structuredContent"]["settled"];
        assert_eq!(settled[0]["worker_id"], json!(worker), "{point}: {ended:#}");
        assert!(settled[0].get("redelivered").is_none(), "{point}: it was never sent: {ended:#}");
        let mut boss = boss.restart();
        assert_eq!(boss.get(&task), ended, "{point}");
        assert_eq!(boss.plain("wait_for_any_worker", json!({}))["settled"][0]["redelivered"], true, "{point}");
    }
}

#[test]
fn settlement_is_repeated_until_the_conversation_shows_it() {
    let mut boss = Terminal::open();
    boss.call_in("s-1", "list_worker_missions", json!({}));
    boss.create("slow");
    let task = boss.begin(json!({}));
    boss.open_gate(None);
    boss.ended(&task);
    let queued =
        json!({"type": "queue-operation", "operation": "enqueue", "content": given(&task)["message"]["content"]});
    boss.write_row("s-1", &queued);
    let repeated = boss.call_in("s-1", "wait_for_any_worker", json!({"timeout_seconds": 0}));
    assert_eq!(repeated["settled"][0]["redelivered"], true, "{repeated:#}");

    let mut boss = boss.restart();
    let repeated = boss.call_in("s-1", "wait_for_any_worker", json!({"timeout_seconds": 0}));
    assert_eq!(repeated["settled"][0]["redelivered"], true, "{repeated:#}");
    // The conversation was cleared, so another one was given it.
    let mut boss = boss.restart();
    boss.call_in("s-1", "list_worker_missions", json!({}));
    boss.write_row("cleared", &given(&task));
    let after = boss.call_in("cleared", "wait_for_any_worker", json!({}));
    assert_eq!((&after["status"], &after["settled"]), (&json!("idle"), &json!([])), "{after:#}");
    let last = boss.restart().plain("wait_for_any_worker", json!({}));
    assert_eq!(last["status"], "idle", "{last:#}");
}

#[test]
fn own_conversation_shows_it_before_it_shows_the_call() {
    let mut boss = Terminal::open();
    boss.create("slow");
    let task = boss.begin(json!({}));
    boss.open_gate(None);
    boss.ended(&task);
    boss.write_row("s-1", &given(&task));
    let mut boss = boss.restart();
    let call = json!({"name": "wait_for_any_worker", "arguments": {}, "_meta": {"claudecode/toolUseId": "toolu_late"}});
    let answer = boss.ask("tools/call", call);
    assert_eq!(answer["structuredContent"]["status"], "idle", "{answer:#}");
}

#[test]
fn unknown_task_says_which_call_to_make() {
    let mut boss = Terminal::open();
    let check = |boss: &mut Terminal| {
        for task in ["wait-any-1-of-1-k7f2", "../../etc/passwd", "", "w-1", &"a".repeat(5_000)] {
            let gone = boss.get(task);
            assert_eq!((&gone["status"], &gone["result"]["isError"]), (&json!("completed"), &json!(false)), "{gone:#}");
            let next = gone["result"]["structuredContent"]["next_step"].as_str().unwrap().to_owned();
            assert_eq!(next, "this wait is gone: call wait_for_any_worker");
            boss.cancel(task);
            let update = boss.ask("tasks/update", json!({"taskId": task, "inputResponses": {}}));
            assert_eq!(update, json!({"resultType": "complete"}));
        }
    };
    check(&mut boss);
    boss.create("slow");
    check(&mut boss);
}

#[test]
fn cancelled_task_consumes_nothing_and_ends_no_worker() {
    let mut boss = Terminal::open();
    let worker = boss.create("slow");
    let task = boss.begin(json!({}));
    boss.cancel(&task);
    boss.cancel(&task);
    let cancelled = boss.get(&task);
    assert_eq!(cancelled["status"], "cancelled", "{cancelled:#}");
    assert!(cancelled["statusMessage"].as_str().unwrap().contains("call wait_for_any_worker"), "{cancelled:#}");
    boss.open_gate(None);
    let next = boss.begin(json!({}));
    let ended = boss.ended(&next);
    let settled = &ended["result"]["structuredContent"]["settled"][0];
    assert_eq!((&settled["worker_id"], &settled["status"]), (&json!(worker), &json!("completed")), "{ended:#}");
    assert!(settled.get("redelivered").is_none(), "{ended:#}");
    assert_eq!(boss.restart().get(&task)["status"], "cancelled");
}

#[test]
fn second_wait_for_the_same_workers_is_plain() {
    let mut boss = Terminal::open();
    let (first, second) = (boss.create("a"), boss.create("b"));
    let task = boss.begin(json!({}));
    let again = boss.plain("wait_for_any_worker", json!({}));
    let next = format!("already waiting in the background as {task}: end your turn");
    assert_eq!((&again["status"], &again["next_step"]), (&json!("still_running"), &json!(next)), "{again:#}");
    let other = boss.begin(json!({"worker_ids": [second]}));

    // No client has asked this server for it, so the new wait replaces it.
    let mut boss = boss.restart();
    let newer = boss.begin(json!({}));
    let replaced = boss.get(&task);
    let why = format!("replaced by {newer}, which reports instead");
    assert_eq!((&replaced["status"], &replaced["statusMessage"]), (&json!("cancelled"), &json!(why)), "{replaced:#}");
    assert_eq!(boss.get(&other)["status"], "working");
    boss.open_gate(Some(&first));
    let ended = boss.ended(&newer);
    assert_eq!(ended["result"]["structuredContent"]["settled"][0]["worker_id"], json!(first), "{ended:#}");
    assert_eq!(boss.get(&other)["status"], "working");
    boss.open_gate(None);
    let ended = boss.ended(&other);
    assert_eq!(ended["result"]["structuredContent"]["settled"][0]["worker_id"], json!(second), "{ended:#}");
}

#[test]
fn blocking_wait_beside_a_task_loses_nothing() {
    let mut boss = Terminal::open();
    let worker = boss.create("slow");
    let task = boss.begin(json!({}));
    let wait = json!({"name": "wait_for_any_worker", "arguments": {"timeout_seconds": 30}});
    let blocking = boss.send("tools/call", wait, json!({}));
    boss.open_gate(None);
    let blocking = boss.client.answer(blocking)["result"]["structuredContent"].clone();
    assert_eq!(blocking["settled"][0]["worker_id"], json!(worker), "{blocking:#}");
    let ended = boss.ended(&task);
    let answer = &ended["result"]["structuredContent"];
    let is_marked = answer["settled"][0]["redelivered"] == true;
    assert!(is_marked || answer["status"] == "idle", "nothing is sent twice without a mark: {answer:#}");
}

#[test]
fn many_polls_write_nothing() {
    let mut boss = Terminal::open();
    boss.create("slow");
    let task = boss.begin(json!({}));
    until("it runs", || boss.get(&task)["statusMessage"].as_str().unwrap().contains("; w-1"));
    let journal = |boss: &Terminal| {
        let files = fs::read_dir(boss.state("journal")).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len());
        files.sum::<u64>()
    };
    let before = journal(&boss);
    for _ in 0..500 {
        assert_eq!(boss.get(&task)["status"], "working");
    }
    assert_eq!(journal(&boss), before);
    assert!(!boss.state("waits").exists());
}

#[test]
fn end_that_cannot_be_stored_stays_open() {
    let mut boss = Terminal::open();
    let worker = boss.create("slow");
    let task = boss.begin(json!({}));
    fs::write(boss.state("waits"), "not a folder").unwrap();
    boss.open_gate(None);
    until("it has settled", || {
        boss.plain("get_worker_status", json!({"worker_id": worker}))["worker"]["status"] == "completed"
    });
    assert_eq!(boss.get(&task)["status"], "working");
    fs::remove_file(boss.state("waits")).unwrap();
    let ended = boss.ended(&task);
    let settled = &ended["result"]["structuredContent"]["settled"][0];
    assert_eq!(settled["worker_id"], json!(worker), "{ended:#}");
    assert!(settled.get("redelivered").is_none(), "{ended:#}");
}

#[test]
fn user_answers_a_question_in_a_form() {
    for (response, is_allowed) in
        [(json!({"action": "accept", "content": {"decision": "allow"}}), true), (json!({"action": "decline"}), false)]
    {
        let mut boss = Terminal::open_asking();
        let task = boss.begin_before_question();
        let (key, form) = boss.form(&task);
        assert!(key.starts_with("w-1-t/"), "{key}");
        assert!(form["message"].as_str().unwrap().contains("/etc/hosts"), "{form:#}");
        let decisions = &form["requestedSchema"]["properties"]["decision"]["oneOf"];
        assert_eq!(decisions[0]["const"], "allow", "{form:#}");
        for _clients_repeat_it in 0..2 {
            let update = boss.ask("tasks/update", json!({"taskId": task, "inputResponses": {&key: response}}));
            assert_eq!(update, json!({"resultType": "complete"}));
        }
        let ended = boss.ended(&task);
        let settled = &ended["result"]["structuredContent"]["settled"][0];
        assert_eq!(settled["status"], "completed", "{ended:#}");
        let denials = settled["outcome"]["changes"]["permission_denials"].as_u64().unwrap_or_default();
        assert_eq!(denials == 0, is_allowed, "{ended:#}");
    }
}

#[test]
fn question_without_a_form_wakes_the_boss() {
    let mut boss = Terminal::open_asking();
    let task = boss.begin_before_question();
    let ended = boss.ended(&task);
    let answer = &ended["result"]["structuredContent"];
    assert_eq!((&answer["status"], &answer["questions"][0]["worker_id"]), (&json!("question"), &json!("w-1-t")));
    let decision = json!({"worker_id": "w-1", "answers": answer["questions"][0]["question_id"], "decision": "allow"});
    let next = boss.begin(json!({}));
    boss.plain("send_message_to_worker", decision);
    let ended = boss.ended(&next);
    assert_eq!(ended["result"]["structuredContent"]["settled"][0]["status"], "completed", "{ended:#}");
}

#[test]
fn cancelled_call_leaves_no_open_wait() {
    let mut boss = Terminal::open();
    boss.create("slow");
    let task = boss.begin(json!({}));
    boss.cancel(&task);
    let id = boss.send("tools/call", json!({"name": "wait_for_any_worker", "arguments": {}}), tasks());
    boss.client.send(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}}));
    // Whether the answer or the cancellation was first, another wait can begin.
    let next = boss.call("wait_for_any_worker", json!({}));
    let is_open = next["resultType"] == "task" || next["structuredContent"]["status"] == "still_running";
    assert!(is_open, "{next:#}");
}

fn tasks() -> Value {
    json!({"extensions": {"io.modelcontextprotocol/tasks": {}}})
}
