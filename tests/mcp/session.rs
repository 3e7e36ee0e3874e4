//! Both eras of the protocol, and the first calls of a boss.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::Client;
use crate::surface::matches_schema;

pub fn modern(client: &str) -> Value {
    json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": client, "version": "1"}
    })
}

#[test]
fn modern_era_opens_with_discovery() {
    let mut client = Client::start();
    let found = client.ask("d", "server/discover", json!({"_meta": modern("claude-code")}));
    assert_eq!(found["result"]["instructions"], orchestrator_boss::mcp::surface()["instructions"]);
    let tools = client.ask(1, "tools/list", json!({"_meta": modern("claude-code")}));
    assert_eq!(tools["result"]["tools"], orchestrator_boss::mcp::surface()["tools"]);
    let params = json!({"name": "list_worker_missions", "arguments": {}, "_meta": modern("claude-code")});
    let answer = client.ask(2, "tools/call", params);
    assert_eq!(answer["result"]["resultType"], "complete", "{answer}");
    let line = answer["result"]["content"][0]["text"].as_str().unwrap();
    assert!(line.starts_with("list_worker_missions: "), "claude-code is shown the structured part: {line}");
}

#[test]
fn older_era_opens_with_initialize() {
    for version in ["2025-06-18", "2025-11-25"] {
        let mut client = Client::start();
        let begun = client.initialize("gemini-cli-mcp-client", version);
        assert_eq!(begun["result"]["protocolVersion"], version);
        assert_eq!(begun["result"]["serverInfo"]["name"], "orchestrator-boss");
        assert_eq!(begun["result"]["instructions"], orchestrator_boss::mcp::surface()["instructions"]);
        assert!(client.ask(1, "ping", json!({})).get("result").is_some());
        let tools = client.ask(2, "tools/list", json!({}));
        assert_eq!(tools["result"]["tools"], orchestrator_boss::mcp::surface()["tools"]);
        let result = client.call(3, "list_worker_missions", json!({}));
        let text: Value = serde_json::from_str(result["content"][0]["text"].as_str().unwrap()).unwrap();
        assert_eq!(text, result["structuredContent"], "gemini shows the text");
    }
}

/// Takes the best of several runs, since the machine may be busy. On a slow machine the limit depends on the time that
/// the program takes to print its version.
#[test]
fn first_request_is_answered_within_50_ms() {
    let best = |run: fn()| (0..10).map(|_| timed(run)).min().unwrap();
    let started = best(|| {
        let version = Command::new(env!("CARGO_BIN_EXE_orchestrator-boss")).arg("--version").output().unwrap();
        assert!(version.status.success(), "{version:?}");
    });
    let answered = best(|| drop(Client::initialized("test")));
    let most = Duration::from_millis(50).max(started * 8);
    assert!(answered < most, "{answered:?}, to start {started:?}");
}

fn timed(run: fn()) -> Duration {
    let began = Instant::now();
    run();
    began.elapsed()
}

#[test]
fn answers_match_their_schemas() {
    let mut client = Client::initialized("test");
    let surface = orchestrator_boss::mcp::surface();
    let worker = client.create_queued(1);
    let here = json!({
        "title": "a", "prompt": "b", "backend": "codex", "working_directory": ".", "permissions": "read_only",
    });
    let missions = json!([here.clone(), {"title": "c"}]);
    let calls = [
        ("batch_create_workers", json!({"workers": missions})),
        ("batch_create_workers", json!({"workers": [here, here], "race": true})),
        ("get_worker_status", json!({"worker_id": "w-4"})),
        ("wait_for_any_worker", json!({"timeout_seconds": 0})),
        ("list_worker_missions", json!({})),
        ("get_worker_status", json!({"worker_id": worker, "include": ["messages", "attempts"]})),
        ("get_backend_status", json!({})),
        ("cancel_worker", json!({"worker_id": worker})),
        ("wait_for_worker", json!({"worker_id": worker})),
        ("cancel_all_workers", json!({"reason": "done"})),
    ];
    for (id, (tool, arguments)) in calls.into_iter().enumerate() {
        let answer = client.succeed(id as i64 + 2, tool, arguments);
        let definition = surface["tools"].as_array().unwrap().iter().find(|definition| definition["name"] == tool);
        matches_schema(&answer, &definition.unwrap()["outputSchema"], tool);
    }
}

#[test]
fn bad_mission_fails_alone_with_its_index() {
    let mut client = Client::initialized("test");
    let missions = json!([
        {"title": "Good", "prompt": "p", "backend": "codex", "working_directory": client.home.path()},
        {"title": "Bad", "prompt": "p", "backend": "claude"},
        {"title": "Worse", "prompt": "p", "backend": "codex", "timeout": 5},
        {"title": "Worst", "prompt": "p", "backend": "codex", "worktree": {"branch": "--force"}},
        "not a mission",
    ]);
    let answer = client.succeed(1, "batch_create_workers", json!({"workers": missions}));
    assert_eq!((&answer["created"], &answer["failed"]), (&json!(1), &json!(4)), "{answer}");
    let expected = [
        (1, "cannot use the backend \"claude\""),
        (2, "unknown field `timeout`, expected one of `title`"),
        (3, "worktree.branch \"--force\" begins with a dash"),
        (4, "invalid type: string"),
    ];
    for (index, error) in expected {
        let result = &answer["results"][index];
        assert_eq!(result["index"], index);
        assert!(result["error"].as_str().unwrap().contains(error), "{result}");
    }
}

#[test]
fn wrong_arguments_get_a_hint() {
    let mut client = Client::initialized("test");
    let mission = |more: Value| {
        let mut mission = json!({"title": "t", "prompt": "p", "backend": "codex"});
        mission.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        mission
    };
    let looks = |prompt| json!({"title": "t", "prompt": prompt, "backend": "codex", "working_directory": ".", "permissions": "read_only"});
    let cases = [
        ("create_worker_mission", json!({"title": "t"}), "missing field `prompt`"),
        ("create_worker_mission", mission(json!({"title": " "})), "title is empty"),
        ("create_worker_mission", mission(json!({"title": "a\u{7}b"})), "control character"),
        ("create_worker_mission", mission(json!({"prompt": "a\u{0}b"})), "prompt contains a NUL"),
        (
            "create_worker_mission",
            mission(json!({"timeout_minutes": 0})),
            "timeout_minutes is 0: it must be from 1 to 10080",
        ),
        ("create_worker_mission", mission(json!({"timeout_minutes": "soon"})), "timeout_minutes: invalid type"),
        ("create_worker_mission", mission(json!({"max_cost_usd": -1})), "max_cost_usd is -1"),
        ("create_worker_mission", mission(json!({"permissions": "full"})), "allow_full_permissions"),
        ("create_worker_mission", mission(json!({"permissions": "root"})), "expected one of `read_only`"),
        ("create_worker_mission", mission(json!({"fallback_backends": ["gpt"]})), "cannot use the backend \"gpt\""),
        ("create_worker_mission", mission(json!({"working_directory": "/", "worktree": {}})), "exclude each other"),
        ("create_worker_mission", mission(json!({"worktree": {"brunch": "x"}})), "worktree.brunch: unknown field"),
        ("batch_create_workers", json!({"workers": []}), "workers is empty"),
        ("batch_create_workers", json!({"workers": "[]"}), "workers is empty"),
        ("batch_create_workers", json!({"workers": [], "races": true}), "unknown field `races`"),
        (
            "batch_create_workers",
            json!({"race": true, "workers": [looks("b")]}),
            "a race needs two or more; add a mission",
        ),
        (
            "batch_create_workers",
            json!({"race": true, "workers": [looks("b"), looks("c")]}),
            "prompt of mission 1 differs",
        ),
        ("batch_create_workers", json!({"workers": [{}, {}]}), "0: missing field `title`"),
        (
            "wait_for_any_worker",
            json!({"timeout_seconds": 99999}),
            "timeout_seconds is 99999: it must be from 0 to 21600",
        ),
        ("wait_for_any_worker", json!({"worker_ids": ["w-9"]}), "create some with batch_create_workers"),
        ("wait_for_worker", json!({}), "missing field `worker_id`"),
        ("get_worker_status", json!({"worker_id": "w-1", "include": ["logs"]}), "include[0]: unknown variant `logs`"),
        ("get_worker_status", json!({"mission_id": "w-9"}), "w-9"),
        ("list_worker_missions", json!({"cursor": "abc"}), "cursor \"abc\" is not from this tool"),
        ("remove_worktree", json!({}), "one of path, worker_id and all_integrated"),
        ("integrate_worker", json!({"worker_id": "w-1", "branch": "x"}), "exclude each other"),
        ("integrate_worker", json!({"workers": ["w-1"]}), "unknown field `workers`, expected one of `worker_id`"),
        ("create_worktree", json!({"branch": ""}), "branch is empty"),
        ("get_backend_status", json!({"backend": "gpt"}), "there are only claudecode, codex, gemini, opencode"),
    ];
    for (id, (tool, arguments, fix)) in cases.into_iter().enumerate() {
        let text = client.refused(id as i64 + 1, tool, arguments.clone());
        assert!(text.starts_with("ERROR: ") && text.contains(fix), "{tool} {arguments}: {text}");
    }
}

#[test]
fn aliases_and_nulls_in_calls_are_accepted() {
    let mut client = Client::initialized("test");
    let worker = client.create_queued(1);
    let status = client.succeed(2, "get_worker_status", json!({"mission_id": worker, "cursor": null}));
    assert_eq!(status["worker"]["worker_id"], worker);
    let waited = client.succeed(3, "wait_for_any_worker", json!({"mission_ids": [worker], "timeout_seconds": 0}));
    assert_eq!(waited["status"], "still_running");
    let sent = client.succeed(4, "send_message_to_worker", json!({"mission_id": worker, "content": "hello"}));
    assert_eq!(sent["delivered"], "queued", "{sent}");
}

#[test]
fn wait_reports_progress_every_ten_seconds() {
    let mut client = Client::initialized("test");
    client.create_queued(1);
    let arguments = json!({"timeout_seconds": 15});
    let params = json!({"name": "wait_for_any_worker", "arguments": arguments, "_meta": {"progressToken": "p-1"}});
    let answer = client.ask(2, "tools/call", params);
    assert_eq!(answer["result"]["structuredContent"]["status"], "still_running");
    assert_eq!(client.others.len(), 1, "{:?}", client.others);
    let note = &client.others[0];
    assert_eq!(note["method"], "notifications/progress");
    assert_eq!(note["params"]["progressToken"], "p-1");
    assert_eq!(note["params"]["progress"].as_f64(), Some(10.0));
    let line = note["params"]["message"].as_str().unwrap();
    assert!(line.starts_with("0 of 1 settled, 1 queued"), "{line}");
}

#[test]
fn worker_cannot_lead_workers() {
    let mut client = Client::start_with(&[("ORCHESTRATOR_WORKER_TAG", "state-1/w-3/1")]);
    client.initialize("codex-mcp-client", "2025-06-18");
    assert_eq!(client.ask(1, "tools/list", json!({}))["result"]["tools"].as_array().unwrap().len(), 14);
    for (id, tool) in ["list_worker_missions", "wait_for_any_worker", "cancel_all_workers"].into_iter().enumerate() {
        let text = client.refused(id as i64 + 2, tool, json!({}));
        assert!(text.contains("state-1/w-3/1") && text.contains("workers do not manage workers"), "{text}");
    }
}

#[test]
fn invalid_settings_are_reported_to_the_boss() {
    let mut client = Client::start_with(&[("ORCHESTRATOR_WAIT_SECONDS", "soon")]);
    client.initialize("test", "2025-06-18");
    let text = client.refused(1, "list_worker_missions", json!({}));
    assert!(text.contains("ORCHESTRATOR_WAIT_SECONDS=\"soon\": it is not a whole number"), "{text}");
}

#[test]
fn codex_sessions_see_their_own_workers() {
    let mut client = Client::initialized("codex-mcp-client");
    let mission = json!({
        "title": "One", "prompt": "p", "backend": "codex", "working_directory": client.home.path()
    });
    let call = |tool: &str, arguments: Value, session: &str| json!({"name": tool, "arguments": arguments, "_meta": {"sessionId": session, "threadId": "t"}});
    client.ask(1, "tools/call", call("create_worker_mission", mission, "a"));
    let mine = client.ask(2, "tools/call", call("list_worker_missions", json!({}), "a"));
    let theirs = client.ask(3, "tools/call", call("list_worker_missions", json!({}), "b"));
    assert_eq!(mine["result"]["structuredContent"]["workers"].as_array().unwrap().len(), 1);
    assert_eq!(theirs["result"]["structuredContent"]["workers"], json!([]));
    assert_eq!(theirs["result"]["structuredContent"]["others"], 1);
}

#[test]
fn mission_without_login_is_refused_with_the_fix() {
    let mut client = Client::initialized("test");
    client.install("claude", "#!/bin/sh\n[ \"$1\" = auth ] && echo '{\"loggedIn\": false}' && exit 1\necho 99.0.0\n");
    let mission = json!({"title": "a", "prompt": "b", "backend": "claudecode", "working_directory": "."});
    let error = client.refused(1, "create_worker_mission", mission.clone());
    assert!(error.contains("claude auth login") && error.contains("get_backend_status"), "{error}");
    assert_eq!(client.succeed(2, "list_worker_missions", json!({}))["workers"], json!([]));
    let error = client.refused(9, "retry_worker", json!({"worker_id": "w-1", "backend": "claudecode"}));
    assert!(error.contains("claude auth login"), "{error}");

    client.install("claude", "#!/bin/sh\n[ \"$1\" = auth ] && echo '{\"loggedIn\": true}' && exit 0\necho 99.0.0\n");
    assert_eq!(client.succeed(3, "create_worker_mission", mission)["worker"]["status"], "queued");
}
