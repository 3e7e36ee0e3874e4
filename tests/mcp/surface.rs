//! All tools: one snapshot, portable schemas, and the table in `src/docs/tools.md`.
//!
//! `ORCHESTRATOR_BLESS=1 cargo test --test mcp` rewrites the snapshot and the table.

use std::path::{Path, PathBuf};

use serde_json::Value;

const BEGIN: &str = "<!-- tools:begin -->\n";
const END: &str = "<!-- tools:end -->";

fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn blessed() -> bool {
    std::env::var_os("ORCHESTRATOR_BLESS").is_some()
}

fn tools() -> Vec<Value> {
    orchestrator_boss::mcp::surface()["tools"].as_array().unwrap().clone()
}

#[test]
fn tools_equal_the_committed_snapshot() {
    let path = in_repository("tests/snapshots/tools.json");
    let surface = format!("{:#}\n", orchestrator_boss::mcp::surface());
    if blessed() {
        std::fs::write(&path, &surface).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap();
    assert!(
        committed == surface,
        "the tools changed: if that is meant, ORCHESTRATOR_BLESS=1 writes {}",
        path.display()
    );
}

#[test]
fn tool_table_is_current() {
    let path = in_repository("src/docs/tools.md");
    let document = std::fs::read_to_string(&path).expect("src/docs/tools.md exists");
    let (before, rest) = document.split_once(BEGIN).expect("src/docs/tools.md has <!-- tools:begin -->");
    let (table, after) = rest.split_once(END).expect("src/docs/tools.md has <!-- tools:end -->");
    let current = orchestrator_boss::mcp::tool_table();
    if blessed() {
        std::fs::write(&path, format!("{before}{BEGIN}{current}{END}{after}")).unwrap();
        return;
    }
    assert_eq!(table, current, "ORCHESTRATOR_BLESS=1 regenerates the table");
}

#[test]
fn readme_names_every_tool() {
    let readme = std::fs::read_to_string(in_repository("README.md")).expect("README.md exists");
    for tool in tools() {
        let name = tool["name"].as_str().unwrap();
        assert!(readme.contains(&format!("`{name}`")), "README.md does not name {name}");
    }
}

#[test]
fn schemas_are_portable() {
    for tool in tools() {
        let name = tool["name"].as_str().unwrap();
        for schema in ["inputSchema", "outputSchema"] {
            assert_eq!(tool[schema]["type"], "object", "{name} {schema}");
            walk(&tool[schema], &format!("{name} {schema}"));
        }
        // Its fields are those of a mission in batch_create_workers, which describes them.
        if name != "create_worker_mission" {
            described(&tool["inputSchema"], name);
        }
    }
}

/// Checks that a schema has only keywords that the models of all clients accept.
fn walk(schema: &Value, at: &str) {
    const ACCEPTED: [&str; 7] =
        ["type", "description", "properties", "required", "additionalProperties", "items", "enum"];
    let schema = schema.as_object().unwrap_or_else(|| panic!("{at} is no schema: {schema}"));
    for keyword in schema.keys() {
        assert!(ACCEPTED.contains(&keyword.as_str()), "{at} uses {keyword}");
    }
    let kind = schema.get("type").and_then(Value::as_str).unwrap_or_else(|| panic!("{at} has no single type"));
    assert_eq!(schema.contains_key("items"), kind == "array", "{at}");
    if let Some(items) = schema.get("items") {
        walk(items, &format!("{at}[]"));
    }
    for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        walk(property, &format!("{at}.{name}"));
    }
}

#[test]
fn single_mission_has_the_fields_of_a_batch() {
    let tools = tools();
    let schema = |name: &str| &tools.iter().find(|tool| tool["name"] == name).unwrap()["inputSchema"];
    let fields = |schema: &Value| schema["properties"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let batch = schema("batch_create_workers");
    assert_eq!(fields(schema("create_worker_mission")), fields(&batch["properties"]["workers"]["items"]));
}

/// Checks that every parameter has a description.
fn described(schema: &Value, at: &str) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let at = format!("{at}.{name}");
        let description = property["description"].as_str().unwrap_or_else(|| panic!("{at} has no description"));
        assert!(!description.contains('\n') && description.len() <= 2_000, "{at}");
        described(property, &at);
        described(&property["items"], &at);
    }
}

#[test]
fn descriptions_are_short_and_searchable() {
    let tools = tools();
    let mut all = String::new();
    for tool in &tools {
        let description = tool["description"].as_str().unwrap();
        assert!((80..=2_000).contains(&description.len()), "{}: {}", tool["name"], description.len());
        all.push_str(description);
    }
    for word in ["spawn", "agent", "delegate", "parallel", "stop", "kill", "cancel", "status", "merge", "message"] {
        assert!(all.contains(word), "no description has {word}");
    }
}

/// Checks the advice for Codex's code mode, which ends a script after 30 s unless it begins this way.
#[test]
fn wait_tools_explain_code_mode() {
    for tool in tools() {
        let waits = tool["name"].as_str().unwrap().starts_with("wait_");
        let hint = tool["description"].as_str().unwrap().contains(r#"// @exec: {"yield_time_ms": 280000}"#);
        assert_eq!(hint, waits, "{}", tool["name"]);
    }
}

#[test]
fn annotations_are_correct() {
    for tool in tools() {
        let name = tool["name"].as_str().unwrap();
        let hints = &tool["annotations"];
        let looks = ["wait_", "get_", "list_"].iter().any(|prefix| name.starts_with(prefix));
        let ends = ["cancel_", "remove_", "integrate_"].iter().any(|prefix| name.starts_with(prefix));
        assert_eq!(hints["readOnlyHint"], looks, "{name}");
        assert_eq!(hints["destructiveHint"], ends, "{name}");
        assert_eq!(hints["idempotentHint"], looks || ends, "{name}");
        assert_eq!(tool["_meta"]["anthropic/alwaysLoad"], true, "{name}");
    }
}

/// Checks a value against a schema, for the part of JSON Schema that the tools use.
pub fn matches_schema(value: &Value, schema: &Value, at: &str) {
    let matches = match schema["type"].as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        other => panic!("{at}: type {other}"),
    };
    assert!(matches, "{at} is {value}, not {}", schema["type"]);
    if let Some(values) = schema["enum"].as_array() {
        assert!(values.contains(value), "{at} is {value}");
    }
    for required in schema["required"].as_array().into_iter().flatten() {
        assert!(value.get(required.as_str().unwrap()).is_some(), "{at} lacks {required}: {value}");
    }
    // A schema without properties accepts any object.
    let described = value.as_object().filter(|_| schema.get("properties").is_some());
    for (name, field) in described.into_iter().flatten() {
        let property =
            schema["properties"].get(name).unwrap_or_else(|| panic!("{at} has {name}, which is not in the schema"));
        matches_schema(field, property, &format!("{at}.{name}"));
    }
    for item in value.as_array().into_iter().flatten() {
        matches_schema(item, &schema["items"], &format!("{at}[]"));
    }
}
