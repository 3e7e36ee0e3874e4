//! No answer is too long, whatever its content, and each begins with the facts for the boss's decision.

use serde_json::{Value, json};

use crate::client::Client;

const ANSWER: usize = 8_000;
const LONG_ANSWER: usize = 40_000;
const WORKERS: usize = 1_000;

/// Returns a title of the maximum length, in characters that JSON escapes.
fn title(number: usize) -> String {
    format!("{number} {}", "\"\\".repeat(95))
}

fn missions(client: &Client, count: usize) -> Vec<Value> {
    let mission = |number| {
        json!({
            "title": title(number), "prompt": "\"\\\n".repeat(300), "backend": "codex", "permissions": "read_only",
            "working_directory": client.home.path(), "task_id": format!("{number}{}", "\"".repeat(90)),
        })
    };
    (0..count).map(mission).collect()
}

/// Checks the first keys of an answer.
fn check_first_keys(answer: &Value, keys: &[&str]) {
    let first: Vec<&String> = answer.as_object().unwrap().keys().take(keys.len()).collect();
    assert_eq!(first, keys, "{answer:.300}");
}

#[test]
fn answers_about_1000_workers_keep_their_limit() {
    let mut client = Client::initialized("test");
    let created = client.succeed(1, "batch_create_workers", json!({"workers": missions(&client, WORKERS)}));
    assert_eq!(created["created"], WORKERS, "{created:.500}");
    check_first_keys(&created, &["created", "failed", "next_step"]);
    let bad: Vec<Value> = (0..WORKERS).map(|n| json!({"title": title(n), "backend": "\"".repeat(150)})).collect();
    let refused = client.refused(2, "batch_create_workers", json!({ "workers": bad }));
    assert!(refused.len() <= ANSWER, "{}", refused.len());
    for id in 3..20 {
        let message = json!({"worker_id": "w-1", "message": "\"\\\n".repeat(100_000)});
        client.succeed(id, "send_message_to_worker", message);
    }
    let whole = ["log", "diff", "messages", "attempts"];
    let calls = [
        ("wait_for_any_worker", json!({"timeout_seconds": 0}), ANSWER, &["status", "next_step", "settled"][..]),
        ("wait_for_worker", json!({"worker_id": "w-1", "timeout_seconds": 0}), ANSWER, &["status", "next_step"]),
        ("list_worker_missions", json!({"limit": 100}), ANSWER, &["counts", "next_step", "workers"]),
        ("get_worker_status", json!({"worker_id": "w-1"}), ANSWER, &["next_step", "worker"]),
        ("get_worker_status", json!({"worker_id": "w-1", "include": whole}), LONG_ANSWER, &["next_step", "worker"]),
        ("create_worker_mission", missions(&client, 1_001)[1_000].clone(), ANSWER, &["next_step", "worker"]),
        ("send_message_to_worker", json!({"worker_id": "w-1", "message": "x"}), ANSWER, &["message_id", "delivered"]),
        ("get_backend_status", json!({}), ANSWER, &["next_step", "backends"]),
        ("cancel_worker", json!({"worker_id": "w-1"}), ANSWER, &["worker_id", "status"]),
        (
            "retry_worker",
            json!({"worker_id": "w-1", "feedback": "\"".repeat(100_000)}),
            ANSWER,
            &["next_step", "worker"],
        ),
    ];
    check(&mut client, calls);
}

/// Uses fewer workers, since each is cancelled individually.
#[test]
fn answers_about_many_settlements_keep_their_limit() {
    let mut client = Client::initialized("test");
    client.succeed(1, "batch_create_workers", json!({"workers": missions(&client, 60)}));
    let calls = [
        (
            "cancel_all_workers",
            json!({"reason": "\"".repeat(199)}),
            ANSWER,
            &["survivors", "already_settled", "next_step"][..],
        ),
        ("wait_for_any_worker", json!({"timeout_seconds": 0}), ANSWER, &["status", "next_step", "settled"]),
        ("list_worker_missions", json!({"limit": 100}), ANSWER, &["counts", "next_step", "workers"]),
    ];
    check(&mut client, calls);
}

/// Checks that each call succeeds, keeps its size limit, and begins with the expected keys.
fn check<'a>(client: &mut Client, calls: impl IntoIterator<Item = (&'a str, Value, usize, &'a [&'a str])>) {
    for (id, (tool, arguments, most, first)) in calls.into_iter().enumerate() {
        let answer = client.succeed(id as i64 + 100, tool, arguments);
        let size = answer.to_string().len();
        println!("{tool}: {size} bytes");
        assert!(size <= most, "{tool}: {size} bytes");
        check_first_keys(&answer, first);
        for worker in answer["settled"].as_array().into_iter().flatten() {
            check_first_keys(worker, &["worker_id", "status", "outcome", "next_step"]);
            check_first_keys(&worker["outcome"], &["run", "verification", "changes"]);
        }
    }
}

#[test]
fn common_errors_name_the_next_step() {
    let mut client = Client::initialized("test");
    let none = client.refused(1, "wait_for_any_worker", json!({"worker_ids": ["w-9"]}));
    assert!(none.contains("batch_create_workers"), "{none}");
    let worker = client.create_queued(2);
    let known = [worker.as_str(), "list_worker_missions"];
    let here = client.home.path().to_owned();
    let mission = |more: Value| {
        let mut mission = json!({"title": "t", "prompt": "p", "backend": "codex"});
        mission.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        mission
    };
    let cases = [
        ("wait_for_any_worker", json!({"worker_ids": ["w-9", "w-1"]}), &known[..]),
        ("wait_for_worker", json!({"worker_id": "fix"}), &known),
        ("get_worker_status", json!({"worker_id": "w-9"}), &known),
        ("send_message_to_worker", json!({"worker_id": "w-9", "message": "x"}), &known),
        ("cancel_worker", json!({"worker_id": "w-9"}), &known),
        ("retry_worker", json!({"worker_id": "w-9"}), &known),
        ("integrate_worker", json!({"worker_id": "w-9"}), &known),
        ("remove_worktree", json!({"worker_id": "w-9"}), &known),
        ("retry_worker", json!({"worker_id": "w-1"}), &["still queued", "send_message_to_worker"]),
        ("integrate_worker", json!({}), &["one of worker_id, worker_ids and branch"]),
        ("integrate_worker", json!({"worker_id": "w-1", "strategy": "rebase"}), &["`merge`, `squash`"]),
        ("create_worker_mission", mission(json!({})), &["working_directory"]),
        ("create_worker_mission", mission(json!({"backend": "claude"})), &["claudecode, codex, gemini, opencode"]),
        ("create_worker_mission", mission(json!({"backend": "gemini"})), &["not on the PATH", "get_backend_status"]),
        (
            "create_worker_mission",
            mission(json!({"backend": "cursor"})),
            &["cursor-agent is not on the PATH", "cursor.com/install"],
        ),
        ("create_worker_mission", mission(json!({"backend": "kilo", "max_tokens": 5})), &["use timeout_minutes"]),
        ("create_worker_mission", mission(json!({"backend": "copilot", "max_cost_usd": 1})), &["use max_tokens"]),
        ("create_worker_mission", mission(json!({"working_directory": "/nowhere"})), &["/nowhere"]),
        ("create_worker_mission", mission(json!({"working_directory": here})), &["another directory", worker.as_str()]),
        ("create_worker_mission", mission(json!({"working_directory": here, "depends_on": ["w-77"]})), &["w-77"]),
        ("create_worktree", json!({"branch": "x"}), &["repo_path"]),
        ("list_worker_missions", json!({"status": ["done"]}), &["`completed`"]),
        ("get_worker_status", json!({}), &["missing field `worker_id`"]),
    ];
    for (id, (tool, arguments, needed)) in cases.into_iter().enumerate() {
        let text = client.refused(id as i64 + 10, tool, arguments.clone());
        for needed in needed {
            assert!(text.contains(needed), "{tool} {arguments} lacks {needed:?}: {text}");
        }
        assert!(text.len() < 1_500 && !text.contains("Error {"), "{text}");
    }
}

/// The kernel keeps confined workers from writing. Without it, some backends cannot.
#[test]
fn backend_that_cannot_only_read_is_refused_without_confinement() {
    let home = tempfile::tempdir().unwrap();
    let settings = home.path().join(".config/orchestrator-boss");
    std::fs::create_dir_all(&settings).unwrap();
    std::fs::write(settings.join("config.toml"), "confine = \"off\"\n").unwrap();
    let mut client = Client::start_in(home, "", &[]);
    client.initialize("test", "2025-06-18");
    let mission = json!({
        "title": "t", "prompt": "p", "backend": "qwen", "permissions": "read_only", "working_directory": ".",
    });
    let refused = client.refused(1, "create_worker_mission", mission);
    assert!(refused.contains("cannot limit") && refused.contains("claudecode, codex, gemini"), "{refused}");
}
