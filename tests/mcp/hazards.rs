//! Errors of clients. The server sends the right answer or none, and the connection survives.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::client::Client;

/// By default the library waits 5 s for an unanswered call.
const PROMPTLY: Duration = Duration::from_secs(5);

/// Checks that the connection is alive, and that the server sends nothing but this answer.
fn check_alive(client: &mut Client) {
    client.others.clear();
    let answer = client.ask("alive", "tools/list", json!({}));
    assert_eq!(answer["result"]["tools"].as_array().unwrap().len(), 14);
    assert_eq!(client.others, Vec::<Value>::new());
}

#[test]
fn notifications_before_the_first_request_are_ignored() {
    let mut client = Client::start();
    client.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
    client.send(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}}));
    client.send(&json!({"jsonrpc": "2.0", "id": 3, "result": {}}));
    client.initialize("test", "2025-06-18");
    check_alive(&mut client);
}

#[test]
fn cancelled_discovery_does_not_end_the_server() {
    let mut client = Client::start();
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {}
    });
    client.ask("probe", "server/discover", json!({"_meta": meta}));
    client.send(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "probe"}}));
    client.initialize("test", "2025-11-25");
    check_alive(&mut client);
}

#[test]
fn invalid_json_is_ignored() {
    let mut client = Client::initialized("test");
    for line in [&b"{\"jsonrpc\": "[..], b"hello", b"", b"   ", b"\xff\xfe\x80", b"{\"a\": \"\\ud800\"}", b"\r"] {
        client.send_bytes(line);
    }
    client.send_bytes(b"{\"jsonrpc\":\"2.0\",\"id\":5,\"method\":\"ping\",\"x\":\"\xff\"}");
    check_alive(&mut client);
}

#[test]
fn invalid_message_is_refused_with_its_id() {
    let mut client = Client::initialized("test");
    client.send(&json!([{"jsonrpc": "2.0", "id": 1, "method": "ping"}]));
    client.send(&json!({"id": 2, "method": "ping"}));
    assert_eq!(client.answer(2)["error"]["code"], -32600);
    // Refusals have no fixed order, so that of the batch, which has no id, may follow the other one.
    let batch = client.next(|message| message.get("id").is_none_or(Value::is_null));
    assert!(batch["error"]["message"].as_str().unwrap().contains("one message per line"), "{batch}");
    check_alive(&mut client);
}

#[test]
fn malformed_call_names_the_error() {
    let mut client = Client::initialized("test");
    let cases = [
        (json!({"name": "list_worker_missions", "arguments": "all"}), "params.arguments is not an object"),
        (json!({"arguments": {}}), "params has no name"),
        (json!({"name": 3}), "params.name is not a string"),
        (json!([]), "params must be an object"),
    ];
    for (id, (params, wrong)) in cases.into_iter().enumerate() {
        let error = &client.ask(id as i64 + 1, "tools/call", params)["error"];
        assert_eq!(error["code"], -32602, "{error}");
        assert!(error["message"].as_str().unwrap().contains(wrong), "{error}");
    }
    client.send(&json!({"jsonrpc": "2.0", "id": 9, "method": "tools/call"}));
    assert_eq!(client.answer(9)["error"]["code"], -32602);
    assert_eq!(client.ask(10, "tools/destroy", json!({}))["error"]["code"], -32601);
    check_alive(&mut client);
}

#[test]
fn unknown_tool_lists_known_ones() {
    let mut client = Client::initialized("test");
    let error = &client.ask(1, "tools/call", json!({"name": "spawn_agent", "arguments": {}}))["error"];
    assert_eq!(error["code"], -32602);
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("spawn_agent") && message.contains("batch_create_workers"), "{message}");
    check_alive(&mut client);
}

#[test]
fn overlong_line_is_refused() {
    let mut client = Client::initialized("test");
    let long = "a".repeat(17 * 1024 * 1024);
    let call = format!(
        r#""method":"tools/call","params":{{"name":"create_worker_mission","arguments":{{"prompt":"{long}"}}}}"#
    );
    client.send_bytes(format!(r#"{{"jsonrpc":"2.0","id":1,{call}}}"#).as_bytes());
    client.send_bytes(format!(r#"{{{call},"jsonrpc":"2.0","id":"last"}}"#).as_bytes());
    // The line was discarded while it was read, including its id.
    for _ in 0..2 {
        let error = client.next(|message| message.get("id").is_none_or(Value::is_null))["error"].clone();
        assert_eq!(error["code"], -32600);
        assert!(error["message"].as_str().unwrap().contains("put long material into a file"), "{error}");
    }
    check_alive(&mut client);
}

#[test]
fn line_of_ten_megabytes_is_read() {
    let mut client = Client::initialized("test");
    let mission = json!({"title": "Long", "prompt": "a".repeat(10 * 1024 * 1024), "backend": "codex"});
    let text = client.refused(1, "create_worker_mission", mission);
    assert!(text.contains("prompt has 10485760 bytes, but at most 1048576 are allowed"), "{text}");
}

#[test]
fn repeated_id_runs_one_call() {
    let mut client = Client::initialized("test");
    client.create_queued(1);
    client.send_call(5, "wait_for_any_worker", json!({"timeout_seconds": 1}));
    client.send_call(5, "cancel_all_workers", json!({}));
    let answer = client.answer(5);
    assert_eq!(answer["result"]["structuredContent"]["status"], "still_running", "{answer}");
    let list = client.succeed(6, "list_worker_missions", json!({}));
    assert_eq!(list["counts"]["queued"], 1, "{list}");
    check_alive(&mut client);
}

#[test]
fn answered_id_may_be_reused() {
    let mut client = Client::initialized("test");
    for _ in 0..2 {
        client.succeed(5, "list_worker_missions", json!({}));
    }
}

#[test]
fn cancelled_wait_has_no_answer_and_consumes_nothing() {
    let mut client = Client::initialized("test");
    let worker = client.create_queued(1);
    client.send_call(2, "wait_for_any_worker", json!({"timeout_seconds": 50}));
    let cancelled = json!({"requestId": 2, "reason": "no more"});
    client.send(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": cancelled}));
    client.succeed(3, "cancel_worker", json!({"worker_id": worker}));
    let wait = client.succeed(4, "wait_for_any_worker", json!({}));
    assert_eq!(wait["settled"][0]["worker_id"], worker, "{wait}");
    assert!(client.others.iter().all(|message| message["id"] != 2), "{:?}", client.others);
    check_alive(&mut client);
}

#[test]
fn cancelling_finished_or_unknown_calls_changes_nothing() {
    let mut client = Client::initialized("test");
    client.succeed(1, "list_worker_missions", json!({}));
    for id in [json!(1), json!(99), json!("x"), Value::Null] {
        client.send(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}}));
    }
    check_alive(&mut client);
}

#[test]
fn wait_blocks_no_other_call() {
    let mut client = Client::initialized("test");
    client.create_queued(1);
    client.send_call(2, "wait_for_any_worker", json!({"timeout_seconds": 50}));
    client.succeed(3, "list_worker_missions", json!({}));
    assert_eq!(client.others, Vec::<Value>::new());
}

#[test]
fn end_of_input_ends_the_server() {
    let mut client = Client::initialized("test");
    client.create_queued(1);
    client.send_call(2, "wait_for_any_worker", json!({"timeout_seconds": 50}));
    client.succeed(3, "list_worker_missions", json!({}));
    let (status, took) = client.close();
    assert!(status.success(), "{status}");
    assert!(took < PROMPTLY, "{took:?}");
}

#[test]
fn signal_ends_the_server_at_once() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mut client = Client::initialized("test");
        client.create_queued(1);
        client.send_call(2, "wait_for_any_worker", json!({"timeout_seconds": 50}));
        client.succeed(3, "list_worker_missions", json!({}));
        kill_process(Pid::from_raw(client.pid() as i32).unwrap(), signal).unwrap();
        let (status, took) = client.end();
        assert!(status.success(), "{signal:?}: {status}");
        assert!(took < PROMPTLY, "{signal:?}: {took:?}");
    }
}

#[test]
fn end_of_input_before_requests_is_success() {
    let (status, took) = Client::start().close();
    assert!(status.success(), "{status}");
    assert!(took < PROMPTLY, "{took:?}");
}
