//! Arguments in the forms that real clients send, and all names of a worker.

use serde_json::{Value, json};

use crate::client::Client;

fn missions(client: &Client) -> Value {
    let home = client.home.path();
    let mission = |title: &str, task: Value| {
        json!({
            "title": title, "prompt": "Nothing.", "backend": "codex", "working_directory": home,
            "permissions": "read_only", "task_id": task,
        })
    };
    json!([mission("Fix parser", json!(null)), mission("Numeric", json!(1)), mission("Named", json!("tax"))])
}

#[test]
fn arguments_sent_as_json_text_are_accepted() {
    let mut client = Client::initialized("test");
    let workers = missions(&client).to_string();
    let made = client.succeed(1, "batch_create_workers", json!({"workers": workers, "race": "false"}));
    assert_eq!((&made["created"], &made["failed"]), (&json!(3), &json!(0)), "{made}");
    for (id, (tool, arguments)) in [
        ("wait_for_any_worker", json!({"worker_ids": "[\"w-1\", 3]", "timeout_seconds": "0"})),
        ("wait_for_any_worker", json!({"worker_ids": "w-1", "timeout_seconds": "0"})),
        ("list_worker_missions", json!({"status": "[\"queued\"]", "limit": "5"})),
        ("get_worker_status", json!({"worker_id": 3, "include": "[\"messages\"]", "log_lines": "3"})),
        ("remove_worktree", json!({"all_integrated": "true", "force": "false"})),
    ]
    .into_iter()
    .enumerate()
    {
        let result = client.call(id as i64 + 2, tool, arguments.clone());
        let text = result["content"][0]["text"].as_str().unwrap_or_default();
        assert!(!text.contains("wrong arguments"), "{tool} {arguments}: {text}");
    }
    let nested = json!({
        "title": "Nested", "prompt": "[1]", "backend": "codex", "depends_on": "[\"tax\"]", "timeout_minutes": "30",
        "working_directory": client.home.path(), "permissions": "read_only",
    });
    let made = client.succeed(20, "batch_create_workers", json!({"workers": [nested.to_string()]}));
    assert_eq!(made["created"], 1, "{made}");
    let refused = client.refused(21, "wait_for_any_worker", json!({"timeout_seconds": "soon"}));
    assert!(refused.contains("timeout_seconds: invalid type: string \"soon\""), "{refused}");
}

#[test]
fn arguments_as_one_json_text_are_accepted() {
    let mut client = Client::initialized("test");
    let params = json!({"name": "list_worker_missions", "arguments": "{\"limit\": \"5\"}"});
    let answer = client.ask(1, "tools/call", params);
    assert_eq!(answer["result"]["structuredContent"]["workers"], json!([]), "{answer}");
    let params = json!({"name": "list_worker_missions", "arguments": "all of them"});
    let answer = client.ask(2, "tools/call", params);
    assert_eq!(answer["error"]["code"], -32602, "{answer}");
}

#[test]
fn worker_is_found_by_each_name() {
    let mut client = Client::initialized("test");
    client.succeed(1, "batch_create_workers", json!({"workers": missions(&client)}));
    let names =
        [json!("w-3"), json!("W-3"), json!("3"), json!(3), json!("w-3-named"), json!("W-3-Named"), json!("tax")];
    for (id, name) in names.into_iter().enumerate() {
        let found = client.succeed(id as i64 + 2, "get_worker_status", json!({"worker_id": name}));
        assert_eq!(found["worker"]["worker_id"], "w-3-named", "{name}");
    }
    let refused = client.refused(30, "cancel_worker", json!({"worker_id": "1"}));
    let says = "\"1\" is the number of w-1-fix-parser and the task of w-2-numeric; use the whole id of one";
    assert!(refused.contains(says), "{refused}");
    let mission = json!({
        "title": "After", "prompt": "p", "backend": "codex", "depends_on": ["1"],
        "working_directory": client.home.path(), "permissions": "read_only",
    });
    let refused = client.refused(31, "create_worker_mission", mission);
    assert!(refused.contains("cannot depend on \"1\": it is the number of w-1-fix-parser"), "{refused}");
    let mission = json!({
        "title": "After", "prompt": "p", "backend": "codex", "depends_on": "3",
        "working_directory": client.home.path(), "permissions": "read_only",
    });
    client.succeed(32, "create_worker_mission", mission);
}

#[test]
fn unknown_worker_gets_a_short_error() {
    let mut client = Client::initialized("test");
    let refused = client.refused(1, "cancel_worker", json!({"worker_id": "w-9"}));
    assert!(refused.contains("there are no workers yet; create some with batch_create_workers"), "{refused}");
    client.succeed(2, "batch_create_workers", json!({"workers": missions(&client)}));
    client.succeed(3, "batch_create_workers", json!({"workers": [
        {"title": "Last", "prompt": "p", "backend": "codex", "working_directory": client.home.path(), "permissions": "read_only"}
    ]}));
    let refused = client.refused(4, "cancel_worker", json!({"worker_id": "w-3-nmed"}));
    let says = "no worker is called \"w-3-nmed\": there are w-4-last, w-3-named, w-2-numeric and 1 more; use w-3-named, or list all with list_worker_missions";
    assert_eq!(refused, format!("ERROR: {says}"));
    let refused = client.refused(5, "cancel_worker", json!({"worker_id": "w-9"}));
    let says = "no worker is called \"w-9\": there are w-4-last, w-3-named, w-2-numeric and 1 more; list all with list_worker_missions";
    assert_eq!(refused, format!("ERROR: {says}"));
    let refused = client.refused(6, "cancel_worker", json!({"worker_id": "x".repeat(200)}));
    assert!(refused.len() < 250, "{refused}");
}
