//! A continued conversation of Claude Code keeps its workers, whatever id its servers are started with: without a
//! terminal, and by `/resume` in a window of another conversation. A cleared conversation keeps its workers too.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::boss_loop::lead_by;
use crate::interactive::{Terminal, answer_first_questions};
use crate::lead::{command, tool_name};
use crate::model_server::{Recorded, Script};
use crate::real_cli::run_to_end;
use crate::world::{CEILING, World};

with_each_cli!(continued_conversation_keeps_its_workers: Claude);
with_each_cli!(resumed_conversation_keeps_its_workers: Claude);

const SESSION: &str = "5f0c1c1e-8d1b-4c0e-9a53-0d8f4a3c2b12";

async fn continued_conversation_keeps_its_workers(world: &World) {
    for (number, goes_on) in [(1, "--continue".to_owned()), (2, format!("--resume={SESSION}"))] {
        begin(world, number, if number == 1 { format!("--session-id={SESSION}") } else { "--continue".to_owned() });
        finish(world, number);
        let script = format!("wait{number}");
        world.model.register(&script, wait_for(world));
        let ended = run_to_end(command(world).arg(&goes_on), &format!("Go on. SCRIPT:{script}"), CEILING);
        assert!(ended.status.success(), "{ended:?}");
        assert!(is_reported(world, number), "{goes_on}: {ended:?}");
    }
}

async fn resumed_conversation_keeps_its_workers(world: &World) {
    begin(world, 1, format!("--session-id={SESSION}"));
    finish(world, 1);
    answer_first_questions(world);
    let mut claude = world.home.command(world.cli.path());
    claude.args(["--allowedTools", "mcp__orchestrator-boss"]).current_dir(world.repo());
    claude.env("TERM", "xterm-256color").env("PWD", world.repo());
    let mut terminal = Terminal::start(claude);
    terminal.until_shown("(shift+tabtocycle)");

    world.model.register("wait", wait_for(world).say("I was told"));
    type_in(&mut terminal, &format!("/resume {SESSION}"));
    terminal.until_shown("Ihaveset1towork");
    type_in(&mut terminal, "Go on. SCRIPT:wait");
    terminal.until_shown("Iwastold");
    assert!(is_reported(world, 1), "{:?}", world.asked().last());

    let list = Script::new().call(&tool_name(world.cli, "list_worker_missions"), json!({})).say("I have seen");
    world.model.register("list", list);
    let before = transcripts(world);
    type_in(&mut terminal, "/clear");
    let began = Instant::now();
    while transcripts(world) == before {
        assert!(began.elapsed() < CEILING, "no new conversation begins: {}", terminal.shown());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    type_in(&mut terminal, "Look. SCRIPT:list");
    terminal.until_shown("Ihaveseen");
    let seen =
        |request: &Recorded| !request.body.to_string().contains("SCRIPT:wait") && results(request).contains("w-1");
    let seen = |request: &Recorded| request.user_message().contains("SCRIPT:list") && seen(request);
    assert!(world.asked().iter().any(seen), "after /clear: {:?}", world.asked().last());
    terminal.end();
}

fn transcripts(world: &World) -> usize {
    let folder = world.repo().to_string_lossy().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    let files =
        fs::read_dir(world.path(".claude/projects").join(folder)).expect("a transcript of the conversation").flatten();
    files.filter(|file| file.path().extension().is_some_and(|extension| extension == "jsonl")).count()
}

fn type_in(terminal: &mut Terminal, text: &str) {
    terminal.send(text);
    terminal.until_shown(&text.replace(' ', ""));
    terminal.send("\r");
}

/// Runs a session that starts a worker and ends.
fn begin(world: &World, number: u32, session: String) {
    if number == 1 {
        lead_by(world);
    }
    let mission = json!({"title": "Go on", "prompt": "FAKE:\nwait-file go 100\nsay I went on", "backend": "fake"});
    let script = Script::new()
        .call(&tool_name(world.cli, "create_worker_mission"), mission)
        // The next server starts a worker that had not started.
        .until(&tool_name(world.cli, "get_worker_status"), json!({"worker_id": worker(number)}), "status:running")
        .say(&format!("I have set {number} to work"));
    let name = format!("begin{number}");
    world.model.register(&name, script);
    let ended = run_to_end(command(world).arg(session), &format!("Begin. SCRIPT:{name}"), CEILING);
    assert!(ended.status.success(), "{ended:?}");
}

fn finish(world: &World, number: u32) {
    fs::write(world.worktree(&worker(number)).join("go"), "").expect("the worktree is there");
}

fn worker(number: u32) -> String {
    format!("w-{number}-go-on")
}

fn wait_for(world: &World) -> Script {
    Script::new().call(&tool_name(world.cli, "wait_for_any_worker"), json!({"timeout_seconds": 60}))
}

fn is_reported(world: &World, number: u32) -> bool {
    let has_worker = |request: &Recorded| {
        let results = results(request);
        results.contains(&worker(number)) && results.contains("turn_complete")
    };
    world.asked().iter().any(has_worker)
}

fn results(request: &Recorded) -> String {
    request.conversation.as_ref().map(|it| it.tool_results().join("\n")).unwrap_or_default()
}
