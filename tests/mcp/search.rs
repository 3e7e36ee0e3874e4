//! Models find tools by search: Codex by BM25 over names, descriptions and parameters, Claude Code by words in names
//! and descriptions. Typical queries must find the right tool first.

use std::collections::BTreeSet;

use serde_json::Value;

const K1: f64 = 1.2;
const B: f64 = 0.75;

/// Splits lower-cased text at all characters but letters and digits. No stemming: "agents" does not find "agent".
fn tokens(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect()
}

/// Returns a tool as Codex indexes it: its name (whole, and in words), its description, and its parameters.
fn document(tool: &Value) -> Vec<String> {
    let mut text = format!("{} {}", tool["name"].as_str().unwrap(), tool["description"].as_str().unwrap());
    parameters(&tool["inputSchema"], &mut text);
    tokens(&text)
}

fn parameters(schema: &Value, text: &mut String) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        text.push_str(&format!(" {name} {}", property["description"].as_str().unwrap_or_default()));
        parameters(property, text);
        parameters(&property["items"], text);
    }
}

/// Returns the matching tools in order of their score.
fn search<'a>(documents: &'a [(String, Vec<String>)], query: &str) -> Vec<(&'a str, f64)> {
    let count = documents.len() as f64;
    let average = documents.iter().map(|(_, words)| words.len()).sum::<usize>() as f64 / count;
    let terms: BTreeSet<String> = tokens(query).into_iter().collect();
    let frequency = |words: &[String], term: &String| words.iter().filter(|word| *word == term).count() as f64;
    let score = |words: &[String]| {
        let of_term = |term: &String| {
            let holding = documents.iter().filter(|(_, words)| words.contains(term)).count() as f64;
            let weight = (1.0 + (count - holding + 0.5) / (holding + 0.5)).ln();
            let often = frequency(words, term);
            weight * often * (K1 + 1.0) / (often + K1 * (1.0 - B + B * words.len() as f64 / average))
        };
        terms.iter().map(of_term).sum::<f64>()
    };
    let scored = documents.iter().map(|(name, words)| (name.as_str(), score(words)));
    let mut found: Vec<(&str, f64)> = scored.filter(|(_, score)| *score > 0.0).collect();
    found.sort_by(|a, b| b.1.total_cmp(&a.1));
    found
}

#[test]
fn typical_queries_find_the_right_tool_first() {
    let surface = orchestrator_boss::mcp::surface();
    let documents: Vec<(String, Vec<String>)> = surface["tools"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tool| (tool["name"].as_str().unwrap().to_owned(), document(tool)))
        .collect();
    let create = &["batch_create_workers", "create_worker_mission"][..];
    let wait = &["wait_for_any_worker", "wait_for_worker"][..];
    let cancel = &["cancel_worker", "cancel_all_workers"][..];
    let cases = [
        ("spawn agents", create),
        ("spawn subagent", create),
        ("run tasks in parallel", &["batch_create_workers"]),
        ("start several agents at once", &["batch_create_workers"]),
        ("delegate", create),
        ("wait", wait),
        ("wait until finished", wait),
        ("stop", cancel),
        ("cancel", cancel),
        ("kill", cancel),
        ("stop everything", &["cancel_all_workers"]),
        ("status", &["get_worker_status", "list_worker_missions", "get_backend_status"]),
        ("worker status", &["get_worker_status"]),
        ("list agents", &["list_worker_missions"]),
        ("merge", &["integrate_worker"]),
        ("merge branch", &["integrate_worker"]),
        ("message", &["send_message_to_worker"]),
        ("send input to agent", &["send_message_to_worker"]),
        ("retry", &["retry_worker"]),
        ("create worktree", &["create_worktree"]),
        ("worktree", &["create_worktree", "remove_worktree"]),
        ("remove worktree", &["remove_worktree"]),
        ("diff", &["get_worker_status"]),
        ("log", &["get_worker_status"]),
        ("which backends are installed", &["get_backend_status"]),
        ("login", &["get_backend_status"]),
    ];
    let mut wrong = Vec::new();
    for (query, meant) in cases {
        let found = search(&documents, query);
        if !found.first().is_some_and(|(name, _)| meant.contains(name)) {
            wrong.push(format!("{query:?} finds {:?}, not {meant:?}", &found[..found.len().min(3)]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
