//! All that a client sees of the tools, as one value for the snapshot and one table for `src/docs/tools.md`.

use std::fmt::Write;

use rmcp::model::Tool;
use serde_json::{Value, json};

use super::instructions::INSTRUCTIONS;
use super::tools;

/// Returns the instructions and the tools with their schemas, as in both eras of the protocol.
pub fn surface() -> Value {
    json!({ "instructions": INSTRUCTIONS, "tools": tools::definitions() })
}

/// Returns the names of the tools that change nothing.
pub fn reading_tools() -> impl Iterator<Item = &'static str> {
    let reads = |tool: &&Tool| tool.annotations.as_ref().and_then(|hints| hints.read_only_hint) == Some(true);
    tools::definitions().iter().filter(reads).map(|tool| &*tool.name)
}

/// Returns the table for `src/docs/tools.md`: the purpose of each tool and its parameters, required ones with a star.
pub fn tool_table() -> String {
    let mut table = "| tool | what it does | parameters |\n|---|---|---|\n".to_owned();
    for tool in tools::definitions() {
        let what = tool.description.as_deref().unwrap_or_default().split(". ").next().unwrap_or_default();
        let required = tool.input_schema.get("required").and_then(Value::as_array);
        let is_required = |name: &str| required.is_some_and(|names| names.iter().any(|required| required == name));
        let parameters = tool.input_schema.get("properties").and_then(Value::as_object);
        let parameters: Vec<String> = parameters
            .into_iter()
            .flat_map(|parameters| parameters.keys())
            .map(|name| format!("`{name}`{}", if is_required(name) { "\\*" } else { "" }))
            .collect();
        // Writing to a string cannot fail.
        let _ = writeln!(table, "| `{}` | {} | {} |", tool.name, what.trim_end_matches('.'), parameters.join(", "));
    }
    table
}
