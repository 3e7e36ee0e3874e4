//! A login that expires while workers are queued stops only that queue, until it is renewed.

use std::fs;

use serde_json::{Value, json};

use crate::client::Client;
use crate::support::wait::until;

/// A CLI whose login seems valid but is rejected by the service.
const CODEX: &str = r#"#!/bin/sh
case "$*" in
  --version) echo codex-cli 0.1.0; exit ;;
  "login status") echo asked >> "$HOME/asked"; exit 0 ;;
esac
cat > /dev/null
echo '{"type":"thread.started","thread_id":"t-1"}'
echo '{"type":"turn.started"}'
if [ -e "$HOME/.codex/auth.json" ]; then
  echo '{"type":"item.completed","item":{"id":"1","type":"agent_message","text":"done"}}'
  echo '{"type":"turn.completed","usage":{"input_tokens":1,"cached_input_tokens":0,"output_tokens":1}}'
else
  echo '{"type":"turn.failed","error":{"message":"unexpected status 401 Unauthorized: expired"}}'
  exit 1
fi
"#;

const GEMINI: &str = r#"#!/bin/sh
[ "$1" = --version ] && { echo 99.0.0; exit; }
cat > /dev/null
echo '{"type":"init","session_id":"s-1","model":"m"}'
echo '{"type":"message","role":"assistant","content":"done","delta":true}'
echo '{"type":"result","status":"success","stats":{"total_tokens":2,"input_tokens":1,"output_tokens":1}}'
"#;

#[test]
fn lost_login_stops_only_its_queue() {
    let mut boss = Client::start_with(&[("ORCHESTRATOR_MAX_WORKERS", "1"), ("GEMINI_API_KEY", "x")]);
    boss.install("codex", CODEX);
    boss.install("gemini", GEMINI);
    boss.initialize("test", "2025-06-18");
    let mission = |title: &str, more: Value| {
        let mut mission = json!({
            "title": title, "prompt": "x", "backend": "codex", "working_directory": ".", "permissions": "read_only",
        });
        mission.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        mission
    };
    let workers = [
        mission("First", json!({})),
        mission("Second", json!({})),
        mission("Elsewhere", json!({"fallback_backends": ["gemini"]})),
    ];
    boss.succeed(1, "batch_create_workers", json!({"workers": workers}));

    // One worker fails, one moves to its fallback, one waits with a reason.
    let (mut settled, mut call) = (Vec::new(), 2);
    while settled.len() < 2 {
        settled.extend(wait(&mut boss, &mut call));
    }
    settled.sort();
    assert_eq!(settled, ["w-1-first codex auth_error", "w-3-elsewhere gemini turn_complete"]);
    let second = boss.succeed(90, "get_worker_status", json!({"worker_id": "w-2"}));
    assert_eq!(second["worker"]["status"], "queued", "{second:#}");
    let reason = second["worker"]["waits_for"].as_str().unwrap_or_default();
    assert!(reason.starts_with("codex to be logged in again: `codex login`"), "{second:#}");
    until_checked(&boss, 2);
    let status = boss.succeed(91, "get_backend_status", json!({"backend": "codex"}));
    let codex = &status["backends"][0];
    assert_eq!((&codex["queued"], &codex["how_to_fix"]), (&json!(1), &json!("codex login")), "{codex:#}");
    assert!(codex["held_until"].is_string(), "{codex:#}");
    assert!(codex["untested"].as_str().unwrap().starts_with("untested: older than"), "{codex:#}");

    fs::create_dir_all(boss.home.path().join(".codex")).unwrap();
    fs::write(boss.home.path().join(".codex/auth.json"), "{}").unwrap();
    assert_eq!(wait(&mut boss, &mut call), ["w-2-second codex turn_complete"]);
    let status = boss.succeed(92, "get_backend_status", json!({"backend": "codex"}));
    assert!(status["backends"][0]["held_until"].is_null(), "{status:#}");
}

#[test]
fn doubtful_login_is_unknown_and_explained() {
    let mut boss = Client::initialized("test");
    boss.install("gemini", GEMINI);
    fs::create_dir_all(boss.home.path().join(".gemini")).unwrap();
    fs::write(boss.home.path().join(".gemini/oauth_creds.json"), "{}").unwrap();
    let status = boss.succeed(1, "get_backend_status", json!({"backend": "gemini"}));
    let gemini = &status["backends"][0];
    assert_eq!(gemini["authenticated"], "unknown", "{gemini:#}");
    let fix = gemini["how_to_fix"].as_str().unwrap_or_default();
    assert!(fix.contains("private account") && fix.contains("GEMINI_API_KEY"), "{fix}");
}

/// Returns the settled workers, each with its backend and the reason of its end.
fn wait(boss: &mut Client, call: &mut i64) -> Vec<String> {
    *call += 1;
    let answer = boss.next_report(*call);
    assert_eq!(answer["status"], "settled", "{answer:#}");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let settled = answer["settled"].as_array().unwrap().iter().map(|worker| {
        let reason = text(&worker["outcome"]["run"]["reason"]);
        format!("{} {} {reason}", text(&worker["worker_id"]), text(&worker["backend"]))
    });
    settled.collect()
}

/// Waits until the login was checked this many times: before the batch, and after the failure.
fn until_checked(boss: &Client, times: usize) {
    let asked = boss.home.path().join("asked");
    until("the login is checked again", || fs::read_to_string(&asked).unwrap_or_default().lines().count() >= times);
}
