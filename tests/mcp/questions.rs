//! A worker asks: the question in a wait, the answer by `send_message_to_worker`, and the errors of wrong answers.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::client::Client;
use crate::integrate::repository;

/// Starts a server with the policy `ask`, and the scripted agent as a backend.
fn boss() -> Client {
    let home = tempfile::tempdir().unwrap();
    repository(home.path());
    let fake = Path::new(env!("CARGO_BIN_EXE_orchestrator-boss")).with_file_name("examples/fake-cli");
    assert!(fake.exists(), "the fake CLI is missing: run `cargo build --examples`");
    let folder = home.path().join(".config/orchestrator-boss");
    fs::create_dir_all(&folder).unwrap();
    let custom = format!(
        "[[custom]]\nname = \"agent\"\nprogram = {fake:?}\nargs = [\"--acp\", \"--quick\"]\noutput = \"acp\"\n"
    );
    fs::write(folder.join("config.toml"), format!("questions = \"ask\"\n{custom}")).unwrap();
    let mut client = Client::start_in(home, "repo", &[("ORCHESTRATOR_MAX_WORKERS", "2")]);
    client.initialize("test", "2025-06-18");
    client
}

#[test]
fn boss_answers_a_question() {
    let mut boss = boss();
    let mission = json!({"title": "t", "prompt": "FAKE:\nask edit /etc/hosts\nsay done", "backend": "agent"});
    boss.succeed(1, "create_worker_mission", mission);
    let asked = boss.next_report(2);
    assert_eq!((&asked["status"], asked["questions"].as_array().map(Vec::len)), (&json!("question"), Some(1)));
    let question = &asked["questions"][0];
    assert_eq!(question["worker_id"], "w-1-t");
    assert_eq!(question["text"], "permission for edit: /etc/hosts (outside its worktree)");
    let ids: Vec<&Value> = question["choices"].as_array().unwrap().iter().map(|choice| &choice["id"]).collect();
    assert_eq!(ids, ["once", "no"]);
    assert!(question["default_after"].as_u64().is_some_and(|seconds| (500..=600).contains(&seconds)), "{question:#}");
    assert_eq!(asked["still_running"][0]["status"], "needs_answer");

    let status = boss.succeed(3, "get_worker_status", json!({"worker_id": "w-1"}));
    assert_eq!(status["worker"]["questions"][0]["question_id"], question["question_id"], "{status:#}");
    let list = boss.succeed(4, "list_worker_missions", json!({"status": ["needs_answer"]}));
    assert_eq!((&list["counts"]["needs_answer"], list["workers"].as_array().map(Vec::len)), (&json!(1), Some(1)));
    let again = boss.succeed(5, "wait_for_any_worker", json!({"timeout_seconds": 0}));
    let repeated = &again["questions"][0]["question_id"];
    assert_eq!((&again["status"], repeated), (&json!("still_running"), &question["question_id"]), "{again:#}");

    for (id, wrong, cause) in [
        (6, json!({"decision": "always"}), "it is not among its choices"),
        (7, json!({"answers": "q7", "decision": "deny"}), "it has no open question \"q7\""),
        (8, json!({"answers": question["question_id"]}), "decision is missing"),
        (9, json!({}), "message"),
    ] {
        let mut arguments = wrong;
        arguments["worker_id"] = json!("w-1");
        let error = boss.refused(id, "send_message_to_worker", arguments);
        assert!(error.contains(cause), "{error}");
    }
    let arguments = json!({"worker_id": "w-1", "answers": question["question_id"], "decision": "allow"});
    let sent = boss.succeed(10, "send_message_to_worker", arguments.clone());
    assert_eq!(sent["delivered"], "answered", "{sent:#}");
    let settled = boss.next_report(11);
    assert_eq!(settled["settled"][0]["status"], "completed", "{settled:#}");
    let late = boss.refused(12, "send_message_to_worker", arguments);
    assert!(late.contains("it is completed, so it waits for no answer"), "{late}");
}
