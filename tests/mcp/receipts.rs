//! Receipts of settlements, across servers that are killed before anything else acknowledges their answers.

use serde_json::json;
use tempfile::TempDir;

use crate::client::Client;
use crate::integrate::repository;

/// A stand-in for Codex that completes at once.
const CODEX: &str = r#"#!/bin/sh
case "$*" in --version | "login status") echo 1.0; exit ;; esac
cat > /dev/null
echo '{"type":"thread.started","thread_id":"t-1"}'
echo '{"type":"turn.completed","usage":{"input_tokens":1,"cached_input_tokens":0,"output_tokens":1}}'
"#;

/// Starts a server of the same boss.
fn start(home: TempDir) -> Client {
    let environment = [("ORCHESTRATOR_MAX_WORKERS", "2"), ("CLAUDE_CODE_SESSION_ID", "s-1")];
    let mut client = Client::start_in(home, "repo", &environment);
    client.install("codex", CODEX);
    client.initialize("test", "2025-06-18");
    client
}

#[test]
fn receipt_acknowledges_what_a_killed_server_sent() {
    let home = tempfile::tempdir().unwrap();
    repository(home.path());
    let mut boss = start(home);
    boss.succeed(1, "create_worker_mission", json!({"title": "t", "prompt": "x", "backend": "codex"}));
    let first = boss.next_report(2)["settled"][0].clone();
    let receipt = first["receipt"].as_str().unwrap_or_else(|| panic!("no receipt: {first:#}")).to_owned();

    let mut boss = start(boss.kill());
    let second = boss.next_report(1)["settled"][0].clone();
    assert_eq!((&second["redelivered"], &second["receipt"]), (&json!(true), &json!(receipt)), "{second:#}");

    let mut boss = start(boss.kill());
    let receipts = json!([receipt, "r-9-1-0"]).to_string();
    let third = boss.succeed(1, "wait_for_any_worker", json!({"timeout_seconds": 0, "receipts": receipts}));
    assert_eq!((&third["status"], &third["settled"]), (&json!("idle"), &json!([])), "{third:#}");
    let named = json!({"worker_id": first["worker_id"], "timeout_seconds": 0, "receipts": receipt});
    let named = boss.succeed(2, "wait_for_worker", named);
    assert_eq!(named["settled"][0]["already_reported"], true, "{named:#}");

    let mut boss = start(boss.kill());
    let last = boss.succeed(1, "wait_for_any_worker", json!({"timeout_seconds": 0}));
    assert_eq!(last["status"], "idle", "{last:#}");
}
