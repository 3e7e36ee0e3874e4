//! The prompts that a client offers its user, in both eras.

use serde_json::{Value, json};

use crate::client::Client;
use crate::session::modern;

#[test]
fn prompts_are_served_in_both_eras() {
    for era in [None, Some(modern("claude-code"))] {
        let mut client = Client::start();
        if era.is_none() {
            client.initialize("test", "2025-06-18");
        }
        let mut ask = |id: i64, method: &str, mut params: Value| {
            if let Some(meta) = &era {
                params["_meta"] = meta.clone();
            }
            client.ask(id, method, params)
        };
        let listed = ask(1, "prompts/list", json!({}))["result"]["prompts"].clone();
        let names: Vec<&str> = listed.as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["orchestrate", "race", "continue", "review-workers"]);
        assert_eq!(listed[0]["arguments"][0]["required"], true);
        assert_eq!((&listed[1]["arguments"][0]["required"], &listed[2]["arguments"]), (&json!(true), &Value::Null));

        let goal = "Port the parser {x} to Rust";
        let given = ask(2, "prompts/get", json!({"name": "orchestrate", "arguments": {"goal": goal}}));
        let text = given["result"]["messages"][0]["content"]["text"].as_str().unwrap();
        assert!(text.ends_with(goal) && text.contains("wait_for_any_worker") && text.contains("skill"), "{text}");
        assert!(text.len() < 1_500, "{} bytes", text.len());
        let given = ask(4, "prompts/get", json!({"name": "race", "arguments": {"goal": goal}}));
        let text = given["result"]["messages"][0]["content"]["text"].as_str().unwrap();
        assert!(text.ends_with(goal) && text.contains("race true") && text.len() < 1_500, "{text}");
        let given = ask(5, "prompts/get", json!({"name": "continue"}));
        let text = given["result"]["messages"][0]["content"]["text"].as_str().unwrap();
        assert!(text.contains("list_worker_missions") && text.contains("already has one"), "{text}");
        let review = ask(3, "prompts/get", json!({"name": "review-workers"}));
        let text = review["result"]["messages"][0]["content"]["text"].as_str().unwrap();
        assert!(text.contains("list_worker_missions"), "{text}");

        let cases = [
            (json!({"name": "orchestrate"}), "the argument goal is missing"),
            (json!({"name": "race"}), "the argument goal is missing"),
            (json!({"name": "orchestrate", "arguments": {"goal": " "}}), "goal is empty"),
            (json!({"name": "orchestrate", "arguments": {"goal": "x".repeat(40_000)}}), "at most 32768 are allowed"),
            (json!({"name": "lead"}), "there are orchestrate and race (argument goal), continue and review-workers"),
        ];
        for (id, (params, wrong)) in cases.into_iter().enumerate() {
            let error = &ask(id as i64 + 10, "prompts/get", params)["error"];
            assert_eq!(error["code"], -32602);
            assert!(error["message"].as_str().unwrap().contains(wrong), "{error}");
        }
    }
}

/// Checks that every tool that a prompt names exists.
#[test]
fn prompts_name_existing_tools() {
    let mut client = Client::initialized("test");
    let surface = orchestrator_boss::mcp::surface();
    let known: Vec<&str> =
        surface["tools"].as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap()).collect();
    let goal = json!({"goal": "g"});
    let prompts = [("orchestrate", &goal), ("race", &goal), ("continue", &json!({})), ("review-workers", &json!({}))];
    for (id, (name, arguments)) in prompts.into_iter().enumerate() {
        let given = client.ask(id as i64 + 1, "prompts/get", json!({"name": name, "arguments": arguments}));
        let text = given["result"]["messages"][0]["content"]["text"].as_str().unwrap();
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter(|word| word.contains('_'));
        for word in words.filter(|word| *word != "verify_command" && *word != "depends_on" && *word != "next_step") {
            assert!(known.contains(&word), "{name} names {word}");
        }
    }
}
