//! Lines that no correct client sends, and the one answer to each request.

use serde_json::{Value, json};

use crate::check::Sealed;

#[test]
fn unrepresentable_json_is_refused_with_its_id() {
    let mut sealed = Sealed::new();
    let call = |id: u32, argument: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"list_worker_missions","arguments":{argument}}}}}"#
        )
    };
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let lines = [
        call(501, &format!(r#"{{"x":{}}}"#, deep(500))),
        call(502, &format!(r#"{{"x":{}}}"#, deep(100_000))),
        call(503, r#"{"limit":1e999}"#),
        call(504, r#"{"cursor":"half a \ud83d character"}"#),
        r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"x","arguments":{"limit":-1e999}},"id":505}"#
            .to_owned(),
    ];
    for (at, line) in lines.iter().enumerate() {
        sealed.client.send_bytes(line.as_bytes());
        let answer = sealed.client.answer(501 + at as i64);
        assert_eq!(answer["error"]["code"], -32700, "{answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains("levels of nesting"), "{answer}");
    }
    sealed.check_end_state();
}

#[test]
fn duplicate_keys_get_one_answer() {
    let mut sealed = Sealed::new();
    for arguments in [r#"{"limit":1,"limit":2}"#, r#"{"limit":"x","limit":2}"#, r#"{"scope":"all","scope":"mine"}"#] {
        let line = format!(
            r#"{{"jsonrpc":"2.0","id":700,"method":"tools/call","params":{{"name":"list_worker_missions","arguments":{arguments}}}}}"#
        );
        sealed.client.send_bytes(line.as_bytes());
        assert!(sealed.client.answer(700)["result"].is_object());
    }
    let line = r#"{"jsonrpc":"2.0","id":701,"id":702,"method":"ping"}"#;
    sealed.client.send_bytes(line.as_bytes());
    // No document defines which of the two counts; the server must only survive.
    let alive = sealed.client.ask(703, "tools/list", json!({}));
    assert_eq!(alive["result"]["tools"].as_array().map(Vec::len), Some(14));
    sealed.client.others.retain(|message| message["method"] != Value::Null);
    sealed.check_end_state();
}
