//! The plugin for Claude Code and Codex, installed from a folder as users install it from a repository. It provides the
//! server and the skill. In Claude Code its guard refuses edits by the boss only if the user has enabled it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::lead::{lead_fake_worker, write};
use crate::model_server::Script;
use crate::real_cli::run_to_end;
use crate::world::{CEILING, World};

with_each_cli!(plugin_provides_server_and_skill: Claude);
with_each_cli!(guard_refuses_edits_by_the_boss: Claude);
with_each_cli!(boss_may_edit_without_the_guard: Claude);
with_each_cli!(plugin_names_installation_of_missing_program: Claude);
with_each_cli!(codex_plugin_provides_server_and_skill: Codex);

const TOOLS: &str = "mcp__plugin_orchestrator-boss_boss";

async fn plugin_provides_server_and_skill(world: &World) {
    install(world, false);
    let listed = run(world, &["mcp", "list"], &world.repo());
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let ours = listed.lines().find(|line| line.contains("plugin:orchestrator-boss:boss"));
    assert!(ours.is_some_and(|line| line.contains("Connected")), "{listed}");

    let ended = lead(world, &Script::new().say("ready").marker());
    assert!(ended.status.success(), "{ended:?}");
    let asked = world.asked();
    let received = asked.iter().map(|request| request.body.to_string()).collect::<String>();
    for name in [format!("{TOOLS}__batch_create_workers"), "orchestrator-boss:orchestrator-boss".to_owned()] {
        assert!(received.contains(&name), "the model never read {name}: {received}");
    }
}

async fn guard_refuses_edits_by_the_boss(world: &World) {
    install(world, true);
    let received = lead_and_edit(world);
    assert!(received.contains("you do not edit its files yourself"), "{received}");
    assert!(!world.repo().join("mine.txt").exists());
    // The guard concerns only the boss: the worker has made its edit.
    assert_eq!(world.git(&["show", "orchestrator/w-1-edit-it:theirs.txt"]), "theirs");
}

async fn boss_may_edit_without_the_guard(world: &World) {
    install(world, false);
    let received = lead_and_edit(world);
    assert!(!received.contains("you do not edit its files yourself"), "{received}");
    assert_eq!(fs::read_to_string(world.repo().join("mine.txt")).expect("a written file"), "mine");
}

async fn plugin_names_installation_of_missing_program(world: &World) {
    install(world, true);
    let mut list = world.home.command(world.cli.path());
    let listed = list.args(["mcp", "list"]).current_dir(world.repo()).output().expect("the CLI starts");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let command = format!("cargo install --locked --path '{}", world.path("").display());
    assert!(listed.contains("which is not installed") && listed.contains(command.trim_end_matches('/')), "{listed}");
    // The edit is allowed, and the hook causes no visible error.
    let mut boss = world.home.command(world.cli.path());
    boss.args(["-p", "--permission-mode", "acceptEdits", "--output-format", "stream-json", "--verbose"]);
    boss.args(["--include-hook-events"]).current_dir(world.repo());
    let edit = Script::new().write("mine.txt", "mine").say("edited");
    let ended = run_to_end(&mut boss, &edit.marker(), CEILING);
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert_eq!(fs::read_to_string(world.repo().join("mine.txt")).expect("a written file"), "mine");
    for noise in ["not found", "failed", "hook error", "127"] {
        let received = said.lines().find(|line| line.contains("hook") && line.contains(noise));
        assert_eq!(received, None, "{noise}");
    }
}

/// Leads a worker that is a Claude Code with the same plugin, then edits a file. Returns all requests to the model.
fn lead_and_edit(world: &World) -> String {
    let work = Script::new().write("theirs.txt", "theirs").say("done");
    let mission = json!({"title": "Edit it", "prompt": work.marker(), "backend": "claudecode"});
    world.model.register("lead", lead_script(mission));
    let ended = lead(world, "SCRIPT:lead");
    assert!(ended.status.success(), "{ended:?}");
    world.asked().iter().map(|request| request.body.to_string()).collect()
}

fn lead_script(mission: serde_json::Value) -> Script {
    Script::new()
        .call(&format!("{TOOLS}__create_worker_mission"), mission)
        .until(&format!("{TOOLS}__wait_for_any_worker"), json!({"timeout_seconds": 60}), "status:settled")
        .write("mine.txt", "mine")
        .say("led")
}

fn lead(world: &World, prompt: &str) -> Output {
    let mut boss = command(world);
    boss.args(["-p", "--permission-mode", "acceptEdits", "--allowedTools", TOOLS]).current_dir(world.repo());
    run_to_end(&mut boss, &format!("Lead. {prompt}"), CEILING)
}

/// Checks the plugin with a boss that needs the longer calls and the approval of its entry.
async fn codex_plugin_provides_server_and_skill(world: &World) {
    let config = world.path(".codex/config.toml");
    let text = fs::read_to_string(&config).expect("the home has it").replace("plugins = false", "plugins = true");
    write(&config, &text);
    let source = source(world);
    for command in ["plugin marketplace add", "plugin add"] {
        run(world, &in_guide("codex", command), &source);
    }
    let listed = run(world, &["mcp", "list", "--json"], &world.repo());
    let listed: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    let entry = listed.as_array().and_then(|servers| servers.iter().find(|it| it["name"] == "orchestrator-boss"));
    let entry = entry.unwrap_or_else(|| panic!("{listed:#}"));
    assert_eq!(entry["tool_timeout_sec"], 600.0, "{entry:#}");

    let mut boss = command(world);
    boss.args(["exec", "-s", "workspace-write", "-"]).current_dir(world.repo());
    let received = lead_fake_worker(world, boss);
    assert!(received.contains("orchestrator-boss:orchestrator-boss"), "the model never read the skill: {received}");
}

/// Returns a folder with the plugin's files from this repository.
fn source(world: &World) -> PathBuf {
    let source = world.path("marketplace");
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    for file in [
        ".claude-plugin/plugin.json",
        ".claude-plugin/marketplace.json",
        ".claude-plugin/launch.sh",
        ".codex-plugin/plugin.json",
        "Cargo.toml",
        "skills/orchestrator-boss/SKILL.md",
        "README.md",
        "LICENSE",
    ] {
        write(&source.join(file), &fs::read_to_string(here.join(file)).expect("the repository has it"));
    }
    source
}

/// Installs the plugin from a folder.
fn install(world: &World, guard: bool) {
    let source = source(world);
    run(world, &["plugin", "validate", "--strict", "."], &source);
    run(world, &in_guide("claude", "plugin marketplace add"), &source);
    let guard = format!("guard={guard}");
    let install = [&in_guide("claude", "plugin install")[..], &["--config", &guard]].concat();
    run(world, &install, &source);
}

/// Returns the arguments of a command of a client, as the guide to clients has it.
fn in_guide(client: &str, command: &str) -> Vec<&'static str> {
    let guide = include_str!("../../src/docs/clients.md");
    let commands = guide.split('`').filter_map(|code| code.strip_prefix(client)?.strip_prefix(' '));
    let arguments = commands.into_iter().find(|code| code.starts_with(command)).expect("the guide has the command");
    arguments.split_whitespace().collect()
}

fn run(world: &World, arguments: &[&str], directory: &Path) -> Output {
    let output = command(world).args(arguments).current_dir(directory).output().expect("the CLI starts");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    output
}

/// Returns a command for the CLI with the program on its PATH, as after `cargo install`.
fn command(world: &World) -> Command {
    let mut command = world.home.command(world.cli.path());
    let program = PathBuf::from(env!("CARGO_BIN_EXE_orchestrator-boss"));
    let folder = program.parent().expect("a path with a parent");
    let path = world.home.env().get("PATH").cloned().unwrap_or_default();
    command.env("PATH", format!("{}:{path}", folder.display()));
    command
}
