//! Registrations of this server with an agent that is also a boss. A worker must not start the server again.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use orchestrator_boss::backend::AcpAgent;
use serde_json::{Value, json};

use super::with;
use crate::acp_agents::Agent;
use crate::model_server::Script;
use crate::world::World;

// codex-acp has no way to leave a server out.
with_each_agent!(worker_does_not_start_this_server, plain: Gemini OpenCode Qwen Copilot Claude Kilo Vibe);

/// Returns settings with the same agent as a backend of the user's own, without its preset.
fn plain(agent: Agent) -> String {
    let facts = AcpAgent::all().map(|it| it.facts()).find(|facts| facts.name == agent.backend()).expect("a preset");
    let (program, arguments) = facts.command.split_once(' ').unwrap_or((&facts.command, ""));
    let mut arguments: Vec<&str> = arguments.split_whitespace().collect();
    if agent == Agent::Gemini {
        // Else it asks a model which model to use, in a form that no script answers, and tries that for minutes.
        arguments.push("--model=gemini-2.5-pro");
    }
    let variables = match agent {
        Agent::OpenCode => r#"OPENCODE_CONFIG_CONTENT = '{"model": "scripted/scripted"}'"#,
        _ => "",
    };
    format!(
        "[[custom]]\nname = 'plain'\nprogram = '{program}'\nargs = {arguments:?}\noutput = 'acp'\nenv = {{ {variables} }}\n"
    )
}

async fn worker_does_not_start_this_server(world: &World, agent: Agent) {
    let trace = register(world, agent);
    let starts = || fs::read_to_string(&trace).unwrap_or_default();
    let mission = |backend: Value| {
        let mut mission = with(agent);
        mission["backend"] = backend;
        mission
    };
    let script = Script::new().run("git status").say("done");
    let worker = world.start(&script, mission(agent.backend().into())).await;
    let settled = world.settled(&worker).await;
    assert_eq!((&settled["status"], &settled["final_message"]), (&json!("completed"), &json!("done")), "{settled:#}");
    assert_eq!(starts(), "");

    // Without its preset the agent starts what its user has registered, so the registration is valid.
    let mut other = mission("plain".into());
    other["model_override"] = Value::Null;
    let worker = world.start(&script, other).await;
    let settled = world.settled(&worker).await;
    assert_eq!(settled["final_message"], "done", "{settled:#}");
    assert!(starts().contains("started"), "without the preset the agent starts it");
}

/// Registers the server with an agent, and returns the file that shows each start.
fn register(world: &World, agent: Agent) -> PathBuf {
    let (program, trace) = (world.path("bin/orchestrator-boss"), world.shared("started"));
    let real = env!("CARGO_BIN_EXE_orchestrator-boss");
    write(&program, &format!("#!/bin/sh\necho started >> '{}'\nexec '{real}'\n", trace.display()));
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a writable file");
    let servers = |entry: Value| json!({"boss": entry});
    let (file, field, entry) = match agent {
        Agent::Gemini => (".gemini/settings.json", "mcpServers", servers(json!({"command": program}))),
        Agent::Qwen => (".qwen/settings.json", "mcpServers", servers(json!({"command": program}))),
        Agent::Claude => {
            (".claude/.claude.json", "mcpServers", servers(json!({"type": "stdio", "command": program, "args": []})))
        }
        Agent::Copilot => {
            let entry = json!({"type": "local", "command": program, "args": [], "tools": ["*"]});
            (".copilot/mcp-config.json", "mcpServers", servers(entry))
        }
        Agent::OpenCode => {
            (".config/opencode/opencode.json", "mcp", servers(json!({"type": "local", "command": [program]})))
        }
        Agent::Kilo => (".config/kilo/kilo.json", "mcp", servers(json!({"type": "local", "command": [program]}))),
        Agent::Vibe => {
            let config = fs::read_to_string(world.path(".vibe/config.toml")).expect("it was written");
            let entry = format!("[[mcp_servers]]\nname = \"boss\"\ntransport = \"stdio\"\ncommand = {program:?}\n");
            write(&world.path(".vibe/config.toml"), &format!("{config}\n{entry}"));
            return trace;
        }
        Agent::Codex => panic!("it is not tested"),
    };
    let file = world.path(file);
    let mut config: Value = fs::read(&file).map_or(json!({}), |text| serde_json::from_slice(&text).expect("JSON"));
    config[field] = entry;
    write(&file, &config.to_string());
    trace
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("a path with a parent")).expect("a folder of the scratch home");
    fs::write(path, text).expect("a file in the scratch home");
}
