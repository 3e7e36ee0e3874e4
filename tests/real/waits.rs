//! Waits of each real CLI as the boss: the client's name, and the settlement when the client abandons a wait or is
//! killed during one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};

use crate::boss_loop::{lead_by, received};
use crate::lead::{command, tool_name, write};
use crate::model_server::Script;
use crate::real_cli::{Cli, run_to_end};
use crate::world::{CEILING, Process, World, processes};

with_each_cli!(client_is_known_by_its_name: Claude Codex Gemini OpenCode);
with_each_cli!(abandoned_wait_loses_no_settlement: Claude Codex Gemini OpenCode);
with_each_cli!(wait_respects_the_users_limit: Claude);
with_each_cli!(killed_boss_continues_after_a_wait: Claude Codex Gemini OpenCode);

/// Checks the client's name, which determines the default wait.
async fn client_is_known_by_its_name(world: &World) {
    lead_by(world);
    let heard = world.shared("heard");
    let real = env!("CARGO_BIN_EXE_orchestrator-boss");
    replace_program(world, &format!("#!/bin/sh\ntee -a '{}' | '{real}'\n", heard.display()));
    world
        .model
        .register("look", Script::new().call(&tool_name(world.cli, "list_worker_missions"), json!({})).say("ok"));
    let ended = run_to_end(&mut command(world), "Look. SCRIPT:look", CEILING);
    assert!(ended.status.success(), "{ended:?}");
    let name = match world.cli {
        Cli::Claude => "claude-code",
        Cli::Codex => "codex-mcp-client",
        Cli::Gemini => "gemini-cli-mcp-client",
        Cli::OpenCode => "opencode",
    };
    let heard = fs::read_to_string(heard).expect("the client spoke");
    let lines = heard.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    // In the newer protocol each request has the name.
    let in_meta = "io.modelcontextprotocol/clientInfo";
    let name_in = |line: Value| {
        let params = &line["params"];
        let info = [&params["clientInfo"], &params["_meta"][in_meta]].into_iter().find(|info| info.is_object())?;
        Some(info["name"].as_str()?.to_owned())
    };
    let names: Vec<_> = lines.filter_map(name_in).collect();
    assert!(!names.is_empty() && names.iter().all(|it| it == name), "{names:?}");
}

async fn abandoned_wait_loses_no_settlement(world: &World) {
    lead_by(world);
    set_short_timeouts(world);
    // Claude Code reports its timeout to the model up to half a second before it cancels the call: the worker continues
    // after the cancellation.
    let heard = world.shared("heard");
    let real = env!("CARGO_BIN_EXE_orchestrator-boss");
    replace_program(world, &format!("#!/bin/sh\ntee -a '{}' | '{real}'\n", heard.display()));
    let taken_back = format!("grep -q notifications/cancelled '{}'", heard.display());
    let tool = |name: &str| tool_name(world.cli, name);
    let script = Script::new()
        .call(&tool("create_worker_mission"), slow_mission())
        .call(&tool("wait_for_any_worker"), json!({"timeout_seconds": 60}))
        .run(&format!("until {taken_back}; do sleep 0.05; done; touch go"))
        .until(&tool("wait_for_any_worker"), json!({"timeout_seconds": 2}), "status:idle")
        .say("all is told");
    world.model.register("wait", script);
    let mut boss = command(world);
    if world.cli == Cli::Claude {
        boss.args(["--allowedTools", "Bash", "mcp__orchestrator-boss"]);
    }
    let ended = run_to_end(&mut boss, "Lead. SCRIPT:wait", CEILING);
    assert!(ended.status.success(), "{ended:?}\n{}", received(world));
    let results = results(world);
    assert!(results.iter().any(|result| result.to_lowercase().contains("timed out")), "{results:#?}");
    check_reported_once(&results);
}

/// Checks a variable that the client passes on: the wait returns before the client's timeout.
async fn wait_respects_the_users_limit(world: &World) {
    lead_by(world);
    let tool = |name: &str| tool_name(world.cli, name);
    let script = Script::new()
        .call(&tool("create_worker_mission"), slow_mission())
        .call(&tool("wait_for_any_worker"), json!({"timeout_seconds": 600}))
        .run("touch go")
        .until(&tool("wait_for_any_worker"), json!({"timeout_seconds": 600}), "status:idle")
        .say("all is told");
    world.model.register("limit", script);
    let mut boss = command(world);
    boss.args(["--allowedTools", "Bash", "mcp__orchestrator-boss"]).env("MCP_TOOL_TIMEOUT", "20000");
    let ended = run_to_end(&mut boss, "Lead. SCRIPT:limit", CEILING);
    assert!(ended.status.success(), "{ended:?}\n{}", received(world));
    let results = results(world);
    assert!(results[1].contains(r#""status":"still_running""#), "{results:#?}");
    assert!(!results.iter().any(|result| result.to_lowercase().contains("timed out")), "{results:#?}");
    check_reported_once(&results);
}

async fn killed_boss_continues_after_a_wait(world: &World) {
    lead_by(world);
    let tool = |name: &str| tool_name(world.cli, name);
    let script = Script::new()
        .call(&tool("create_worker_mission"), slow_mission())
        .call(&tool("wait_for_any_worker"), json!({"timeout_seconds": 200}))
        .say("never said");
    world.model.register("wait", script);
    let mut boss = command(world);
    if world.cli == Cli::Claude {
        boss.arg(format!("--session-id={SESSION}"));
    }
    let prompt = world.shared("prompt");
    write(&prompt, "Lead. SCRIPT:wait");
    boss.stdin(fs::File::open(prompt).expect("it was just written")).process_group(0);
    let output = |name: &str| fs::File::create(world.path(name)).expect("a new file");
    let mut boss = boss.stdout(output("out")).stderr(output("err")).spawn().expect("the CLI starts");
    // The model knows the worker and has requested a wait. Whether the wait began does not matter, since a wait that
    // did not begin loses nothing.
    world.until_made("w-1-be-slow", "started").await;
    let asked = |request: &crate::model_server::Recorded| {
        request
            .conversation
            .as_ref()
            .is_some_and(|it| it.tool_results().iter().any(|result| result.contains("w-1-be-slow")))
    };
    assert!(world.model.wait_for_request(CEILING, asked).is_some(), "{}", received(world));
    kill_process_group(Pid::from_child(&boss), Signal::KILL).expect("the program runs");
    boss.wait().expect("a child of ours");
    // The server detects the death a moment later, and until then would answer a wait without a reader.
    let began = Instant::now();
    while servers(world) > 1 {
        assert!(began.elapsed() < CEILING, "the server exits");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    fs::write(world.repo().join("go"), "").expect("the repository is there");

    let before = world.asked().len();
    let script =
        Script::new().until(&tool("wait_for_any_worker"), json!({"timeout_seconds": 5}), "status:idle").say("ok");
    world.model.register("again", script);
    let ended = run_to_end(&mut continued(world), "Go on. SCRIPT:again", CEILING);
    assert!(ended.status.success(), "{ended:?}");
    assert!(world.asked().len() > before, "it asked its model");
    check_reported_once(&results(world));
}

/// Returns the number of servers; one is that of the world's boss.
fn servers(world: &World) -> usize {
    let (program, home) = (env!("CARGO_BIN_EXE_orchestrator-boss"), world.home.path().display().to_string());
    let serves = |it: &Process| it.command.starts_with(program) && !it.command.contains(" supervise ");
    processes().into_iter().filter(|it| serves(it) && it.has_in_its_environment(&home)).count()
}

/// Returns all tool results that the model knows at the end.
fn results(world: &World) -> Vec<String> {
    let asked = world.asked();
    let last = asked.last().and_then(|request| request.conversation.as_ref()).expect("a request to the model");
    last.tool_results().iter().map(|result| result.replace('\\', "")).collect()
}

fn check_reported_once(results: &[String]) {
    let times = results.iter().filter(|result| result.contains(r#""status":"settled""#)).collect::<Vec<_>>();
    let unmarked = times.iter().filter(|result| !result.contains(r#""redelivered":true"#)).count();
    assert_eq!((unmarked, times.len() <= 2), (1, true), "{results:#?}");
    assert!(times[0].contains("w-1-be-slow") && times[0].contains("completed"), "{times:#?}");
}

/// Returns a mission that waits for a file in the repository: OpenCode refuses commands with paths outside of it.
fn slow_mission() -> Value {
    json!({"title": "Be slow", "prompt": "FAKE:\ntouch started\nwait-file ../../repository/go 100", "backend": "fake"})
}

const SESSION: &str = "5f0c1c1e-8d1b-4c0e-9a53-0d8f4a3c2b11";

/// Returns a command that continues the killed session. Gemini CLI and OpenCode name no session, so the next one in the
/// directory continues it.
fn continued(world: &World) -> Command {
    let mut boss = command(world);
    match world.cli {
        Cli::Claude => {
            boss.arg(format!("--resume={SESSION}"));
        }
        Cli::Codex => {
            let mut again = world.home.command(world.cli.path());
            again.args(["exec", "-s", "workspace-write", "resume", "--last", "-"]);
            again.current_dir(world.repo()).env("PWD", world.repo());
            boss = again;
        }
        Cli::Gemini | Cli::OpenCode => {}
    }
    boss
}

/// Sets each client's timeout of a call to 5 s. That is before the first progress of a wait, which would extend the
/// timeout of OpenCode.
fn set_short_timeouts(world: &World) {
    match world.cli {
        Cli::Claude => patience(&world.path(".claude/.claude.json"), "mcpServers"),
        Cli::Codex => {
            let config = world.path(".codex/config.toml");
            let text = fs::read_to_string(&config).expect("a registered server");
            let lines = text.lines().filter(|line| !line.starts_with("tool_timeout_sec"));
            let header = "[mcp_servers.orchestrator-boss]";
            let text = lines.collect::<Vec<_>>().join("\n").replace(header, &format!("{header}\ntool_timeout_sec = 5"));
            write(&config, &text);
        }
        Cli::Gemini => patience(&world.path(".gemini/settings.json"), "mcpServers"),
        Cli::OpenCode => patience(&world.path(".config/opencode/opencode.json"), "mcp"),
    }
}

fn patience(file: &Path, key: &str) {
    let mut config: Value = serde_json::from_str(&fs::read_to_string(file).expect("the home has it")).expect("JSON");
    config[key]["orchestrator-boss"]["timeout"] = 5_000.into();
    write(file, &config.to_string());
}

/// Replaces the program in the registration by a script.
fn replace_program(world: &World, script: &str) {
    let program = world.path("bin/orchestrator-boss");
    write(&program, script);
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a writable file");
    let config = match world.cli {
        Cli::Claude => ".claude/.claude.json",
        Cli::Codex => ".codex/config.toml",
        Cli::Gemini => ".gemini/settings.json",
        Cli::OpenCode => ".config/opencode/opencode.json",
    };
    let text = fs::read_to_string(world.path(config)).expect("a registered server");
    let real = env!("CARGO_BIN_EXE_orchestrator-boss");
    assert!(text.contains(real), "{text}");
    write(&world.path(config), &text.replace(real, &program.display().to_string()));
}
