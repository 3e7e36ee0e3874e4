//! No decoder panics on any output of a CLI, and its memory stays bounded.

#[path = "support/recordings.rs"]
mod recordings;

use orchestrator_boss::backend::{Backends, CustomBackend};
use orchestrator_boss::mission::outcome::Exit;
use proptest::prelude::*;
use recordings::{mission, turn};
use serde_json::{Value, json};

const BACKENDS: [&str; 7] = ["claudecode", "codex", "gemini", "opencode", "lines", "plain", "agent"];

/// Words that decoders search for, as keys and as values, so that random lines pass the first checks.
const WORDS: &[&str] = &[
    "type",
    "subtype",
    "item",
    "part",
    "state",
    "status",
    "error",
    "message",
    "content",
    "text",
    "usage",
    "tokens",
    "cache",
    "id",
    "session_id",
    "sessionID",
    "thread_id",
    "tool_use_id",
    "uuid",
    "isReplay",
    "result",
    "is_error",
    "terminal_reason",
    "completed",
    "success",
    "system",
    "init",
    "assistant",
    "user",
    "tool_use",
    "tool_result",
    "step_start",
    "step_finish",
    "thread.started",
    "turn.completed",
    "turn.failed",
    "item.started",
    "item.completed",
    "agent_message",
    "command_execution",
    "file_change",
    "changes",
    "data",
    "responseBody",
    "stats",
    "modelUsage",
    "permission_denials",
    "background_tasks_changed",
    "tasks",
    "api_retry",
    "rate_limit_event",
    "rate_limit_info",
    "resetsAt",
    "reason",
    "stop",
    "You've hit your usage limit",
    "try again at Nov 23rd, 2026 2:13 AM.",
    "Reconnecting... 1/2 (x)",
    "last status: 429",
    "Exit code 3",
    "delta",
    "role",
    "[API Error: {]}",
    "}{",
    "日本",
    "command_lifecycle",
    "command_uuid",
    "queued",
    "started",
    "kind",
    "output",
    "what",
    "jsonrpc",
    "method",
    "params",
    "update",
    "sessionUpdate",
    "session/update",
    "session/request_permission",
    "options",
    "optionId",
    "allow_once",
    "toolCall",
    "toolCallId",
    "tool_call",
    "agent_message_chunk",
    "entries",
    "protocolVersion",
    "sessionId",
    "stopReason",
    "end_turn",
];

fn any_value() -> impl Strategy<Value = Value> {
    let word = proptest::sample::select(WORDS);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word.clone().prop_map(Value::from),
        ".{0,40}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((word.clone(), inner), 0..8)
                .prop_map(|fields| fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        ]
    })
}

fn any_line() -> impl Strategy<Value = String> {
    let kind = proptest::sample::select(WORDS);
    prop_oneof![
        8 => (kind.clone(), kind, any_value()).prop_map(|(kind, subtype, mut value)| {
            if let Some(fields) = value.as_object_mut() {
                fields.insert("type".into(), kind.into());
                fields.insert("subtype".into(), subtype.into());
            }
            value.to_string()
        }),
        1 => any_value().prop_map(|value| value.to_string()),
        1 => proptest::collection::vec(any::<u8>(), 0..200).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
    ]
}

fn any_exit() -> impl Strategy<Value = Exit> {
    prop_oneof![any::<i32>().prop_map(Exit::Code), any::<i32>().prop_map(Exit::Signal)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_output_makes_decoder_panic(lines in proptest::collection::vec(any_line(), 0..30), exit in any_exit(), stderr in ".{0,80}") {
        for backend in BACKENDS {
            let mission = mission(backend);
            let mut decoder = backends().get(backend).unwrap().decoder(&turn(&mission));
            for line in &lines {
                for event in decoder.line(line) {
                    let written = serde_json::to_string(&event).unwrap();
                    prop_assert!(!written.contains('\n'));
                }
            }
            decoder.end(exit, &stderr);
        }
    }

    #[test]
    fn only_structured_end_is_success(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        for backend in BACKENDS.iter().filter(|name| **name != "plain") {
            let mission = mission(backend);
            let mut decoder = backends().get(backend).unwrap().decoder(&turn(&mission));
            for line in String::from_utf8_lossy(&bytes).lines() {
                decoder.line(line);
            }
            prop_assert!(decoder.end(Exit::Code(0), "").end.is_err(), "{}", backend);
        }
    }
}

#[test]
fn flood_is_bounded() {
    let megabyte = "日".repeat(350_000);
    let piece = json!({"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": megabyte}});
    let said: [(&str, Value); 7] = [
        ("claudecode", json!({"type": "assistant", "message": {"content": [{"type": "text", "text": megabyte}]}})),
        ("codex", json!({"type": "item.completed", "item": {"type": "agent_message", "text": megabyte}})),
        ("gemini", json!({"type": "message", "role": "assistant", "content": megabyte, "delta": true})),
        ("opencode", json!({"type": "text", "sessionID": "s", "part": {"text": megabyte}})),
        ("lines", json!({"type": "message", "text": megabyte})),
        ("plain", json!(megabyte)),
        ("agent", json!({"jsonrpc": "2.0", "method": "session/update", "params": {"update": piece}})),
    ];
    for (backend, line) in said {
        let mission = mission(backend);
        let mut decoder = backends().get(backend).unwrap().decoder(&turn(&mission));
        for answer in
            [json!({"protocolVersion": 1}), json!({"sessionId": "s"})].iter().zip(1..).filter(|_| backend == "agent")
        {
            decoder.line(&json!({"jsonrpc": "2.0", "id": answer.1, "result": answer.0}).to_string());
        }
        for _ in 0..5 {
            for event in decoder.line(&line.to_string()) {
                assert!(serde_json::to_string(&event).unwrap().len() < 40 * 1024, "{backend}");
            }
        }
        let report = decoder.end(Exit::Code(1), &megabyte);
        assert!(report.final_message.len() <= 256 * 1024, "{backend}");
        assert!(report.end.unwrap_err().message.len() < 4 * 1024, "{backend}");
    }
}

fn backends() -> Backends {
    let custom = |name: &str, output: &str| -> CustomBackend {
        serde_json::from_value(json!({"name": name, "program": name, "output": output})).unwrap()
    };
    Backends::with_custom(vec![custom("lines", "jsonl"), custom("plain", "plain"), custom("agent", "acp")])
}
