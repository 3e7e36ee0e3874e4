//! The skill describes exactly what the server offers.

use std::collections::BTreeSet;

use orchestrator_boss::mcp::surface;
use serde_json::Value;

const SKILL: &str = include_str!("../skills/orchestrator-boss/SKILL.md");

/// Returns the tools, each with the schema of its arguments.
fn tools() -> Vec<Value> {
    let surface = surface();
    let tools = surface.get("tools").unwrap_or(&surface);
    tools.as_array().expect("a list of tools").clone()
}

fn names(tools: &[Value]) -> BTreeSet<&str> {
    tools.iter().map(|tool| tool["name"].as_str().expect("a name")).collect()
}

/// Returns the words in backticks, outside of code blocks.
fn code_words() -> impl Iterator<Item = &'static str> {
    SKILL.lines().filter(|line| !line.starts_with("```")).flat_map(|line| line.split('`').skip(1).step_by(2))
}

#[test]
fn skill_name_and_size_fit_the_clis() {
    let front = SKILL.strip_prefix("---\n").and_then(|rest| rest.split_once("\n---\n")).expect("a front matter").0;
    let fields: Vec<(&str, &str)> = front.lines().filter_map(|line| line.split_once(": ")).collect();
    let [("name", "orchestrator-boss"), ("description", description)] = fields[..] else {
        panic!("a front matter with other fields than name and description: {front}");
    };
    // A strict parser would read a colon and a blank as another field.
    assert!(description.len() <= 1024 && !description.contains(": "), "{description}");
}

#[test]
fn skill_names_exactly_the_tools() {
    let tools = tools();
    let known = names(&tools);
    let looks_like_a_tool = |word: &&str| {
        let verbs =
            ["batch_", "create_w", "wait_", "list_", "get_", "send_", "cancel_", "remove_", "retry_", "integrate_"];
        verbs.iter().any(|verb| word.starts_with(verb)) && word.chars().all(|c| c.is_ascii_lowercase() || c == '_')
    };
    let named: BTreeSet<&str> =
        code_words().filter_map(|words| words.split_whitespace().next()).filter(looks_like_a_tool).collect();
    assert_eq!(named, known);
}

#[test]
fn example_in_the_skill_is_a_mission() {
    let example = SKILL.split("```json\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let example: Value = serde_json::from_str(example).expect("the example is JSON");
    let tools = tools();
    let create = tools.iter().find(|tool| tool["name"] == "create_worker_mission").expect("the tool");
    let accepted = create["inputSchema"]["properties"].as_object().expect("properties");
    for field in example.as_object().expect("an object").keys() {
        assert!(accepted.contains_key(field), "a mission has no {field}");
    }
}
