//! A server below a worker: it refuses missions unless the user's settings allow them, and leaves no trace.

use std::fs;

use serde_json::json;

use crate::client::Client;

const TAG: &str = "ORCHESTRATOR_WORKER_TAG";

/// A CLI that reports its worker tag.
const CODEX: &str = r#"#!/bin/sh
case "$*" in --version | "login status") echo 1.0; exit ;; esac
cat > /dev/null
echo "$ORCHESTRATOR_WORKER_TAG" > "$HOME/.codex/tag"
echo '{"type":"thread.started","thread_id":"t-1"}'
echo '{"type":"turn.completed","usage":{"input_tokens":1,"cached_input_tokens":0,"output_tokens":1}}'
"#;

#[test]
fn server_below_a_worker_refuses_missions() {
    let mut worker = Client::start_with(&[(TAG, "w-1-x.1.0123")]);
    worker.initialize("claude-code", "2025-11-25");
    let tools = worker.ask(1, "tools/list", json!({}))["result"]["tools"].as_array().unwrap().len();
    assert_eq!(tools, 14, "it answers as usual");
    for (id, tool) in [(2, "list_worker_missions"), (3, "get_backend_status"), (4, "wait_for_any_worker")] {
        let refused = worker.refused(id, tool, json!({}));
        assert!(refused.contains("w-1-x.1.0123") && refused.contains("max_depth is 1"), "{refused}");
    }
    assert!(!worker.home.path().join(".orchestrator").exists());
}

#[test]
fn worker_leads_to_the_configured_depth() {
    let mut worker = deep("w-1-x.1.0123");
    worker.install("codex", CODEX);
    // Also without confinement, which would create the folder for its state.
    fs::create_dir_all(worker.home.path().join(".codex")).unwrap();
    let mission = json!({
        "title": "Below", "prompt": "x", "backend": "codex", "working_directory": ".", "permissions": "read_only",
    });
    worker.succeed(1, "create_worker_mission", mission);
    let answer = worker.next_report(2);
    assert_eq!(answer["settled"][0]["status"], "completed", "{answer:#}");
    let tag = fs::read_to_string(worker.home.path().join(".codex/tag")).unwrap();

    let mut below = deep(tag.trim());
    let refused = below.refused(1, "list_worker_missions", json!({}));
    assert!(refused.contains("max_depth is 2"), "{tag}: {refused}");
}

/// Starts a server below a worker with this tag, whose user allows workers of workers.
fn deep(tag: &str) -> Client {
    let home = tempfile::tempdir().unwrap();
    let settings = home.path().join(".config/orchestrator-boss");
    fs::create_dir_all(&settings).unwrap();
    fs::write(settings.join("config.toml"), "max_depth = 2\n").unwrap();
    let mut client = Client::start_in(home, "", &[(TAG, tag), ("ORCHESTRATOR_MAX_WORKERS", "1")]);
    client.initialize("test", "2025-06-18");
    client
}
