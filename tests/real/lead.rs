//! Each real CLI as the boss: with this server registered by `setup`, it leads a worker from its start to its merge.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::json;

use crate::model_server::Script;
use crate::real_cli::{Cli, run_to_end};
use crate::world::{CEILING, World};

with_each_cli!(boss_leads_a_worker_to_its_merge: Claude Codex Gemini OpenCode);

async fn boss_leads_a_worker_to_its_merge(world: &World) {
    setup(world, &[]);
    lead_fake_worker(world, command(world));
}

/// Lets the boss lead a worker from its start to its merge. Returns all that its model has received.
pub fn lead_fake_worker(world: &World, mut boss: Command) -> String {
    let fake = Path::new(env!("CARGO_BIN_EXE_orchestrator-boss")).with_file_name("examples/fake-cli");
    let settings = format!("[[custom]]\nname = \"fake\"\nprogram = {fake:?}\noutput = \"jsonl\"\n");
    write(&world.path(".config/orchestrator-boss/config.toml"), &settings);
    // Codex passes on no variable with the path of the sealed home's git settings.
    world.git(&["config", "user.name", "Test"]);
    world.git(&["config", "user.email", "test@localhost"]);

    let mission = json!({"title": "Add it", "prompt": "FAKE:\nwrite it.txt here\ncommit Add it", "backend": "fake"});
    let tool = |name: &str| tool_name(world.cli, name);
    let script = Script::new()
        .call(&tool("batch_create_workers"), json!({"workers": [mission]}))
        .until(&tool("wait_for_any_worker"), json!({"timeout_seconds": 30}), "status:settled")
        .call(&tool("integrate_worker"), json!({"worker_id": "w-1"}))
        .say("merged");
    let ended = run_to_end(&mut boss, &format!("Lead. {}", script.marker()), CEILING);
    assert!(ended.status.success(), "{ended:?}");

    let received = world.asked().iter().map(|request| request.body.to_string()).collect::<Vec<_>>().join("\n");
    for words in ["w-1-add-it", "completed", "merged"] {
        assert!(received.contains(words), "the model never read {words}: {ended:?}\n{received}");
    }
    assert_eq!(world.git(&["show", "HEAD:it.txt"]), "here");
    received
}

/// Returns the name under which each CLI offers a tool of this server to its model.
pub fn tool_name(cli: Cli, tool: &str) -> String {
    match cli {
        Cli::Claude => format!("mcp__orchestrator-boss__{tool}"),
        Cli::Codex => format!("mcp__orchestrator_boss__{tool}"),
        Cli::Gemini => format!("mcp_orchestrator-boss_{tool}"),
        Cli::OpenCode => format!("orchestrator-boss_{tool}"),
    }
}

/// Runs `setup` as in the README.
pub fn setup(world: &World, more: &[&str]) -> Output {
    let mut command = world.home.command(env!("CARGO_BIN_EXE_orchestrator-boss"));
    let output = command.args(["setup", world.cli.program()]).args(more).current_dir(world.repo()).output();
    let output = output.expect("the program");
    assert!(output.status.success(), "{output:?}");
    output
}

/// Returns the command of the boss without a terminal, with permission to use the tools.
pub fn command(world: &World) -> Command {
    let mut command = world.home.command(world.cli.path());
    match world.cli {
        Cli::Claude => command.args(["-p", "--allowedTools", "mcp__orchestrator-boss"]),
        Cli::Codex => command.args(["exec", "-s", "workspace-write", "-"]),
        Cli::Gemini => {
            command.args(["-m", world.cli.model(), "--approval-mode", "yolo"]).env("GEMINI_CLI_TRUST_WORKSPACE", "true")
        }
        Cli::OpenCode => command.args(["run", "-m", world.cli.model(), "--title", "T"]),
    };
    command.current_dir(world.repo()).env("PWD", world.repo());
    command
}

pub fn write(path: &Path, content: &str) {
    fs::create_dir_all(path.parent().expect("a path with a parent")).expect("a new folder");
    fs::write(path, content).expect("a writable file");
}
