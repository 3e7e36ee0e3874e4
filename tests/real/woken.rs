//! Claude Code in a terminal, whose waits answer as MCP tasks. The end of a wait wakes the boss that has ended its turn.
//! It does so after the server or the client was killed, too, and in a cleared conversation. Settlements that its
//! conversation shows are not reported again.

use std::fs;

use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

use crate::boss_loop::lead_by;
use crate::interactive::{Terminal, answer_first_questions};
use crate::lead::tool_name;
use crate::model_server::{Recorded, Script};
use crate::wait::until_exists;
use crate::world::{CEILING, Process, World, processes};

with_each_cli!(end_of_a_wait_is_reported_once: Claude);
with_each_cli!(boss_is_woken_after_a_restart: Claude);
with_each_cli!(settlements_at_once_arrive_unmarked: Claude);
with_each_cli!(cleared_conversation_is_woken: Claude);
with_each_cli!(compacted_conversation_is_woken: Claude);
with_each_cli!(call_of_a_subagent_blocks: Claude);

async fn end_of_a_wait_is_reported_once(world: &World) {
    let script = Script::new()
        .call(&wait_tool(world, "create_worker_mission"), slow("be-slow"))
        .call(&wait_tool(world, "wait_for_any_worker"), json!({}))
        .rest("I rest")
        .call(&wait_tool(world, "wait_for_any_worker"), json!({}))
        .say("All is done");
    let mut terminal = open(world, script);
    begin(&mut terminal);
    terminal.until_shown("Irest");
    finish(world, "w-1-be-slow");
    terminal.until_shown("Allisdone");
    let last = last_request(world);
    assert!(last.contains("MCP task wait-any-1-of-1-"), "{last}");
    assert!(last.contains("for all your workers"), "{last}");
    assert!(last.contains(r#""status":"idle""#) && !last.contains("redelivered"), "{last}");
    terminal.end();
}

async fn boss_is_woken_after_a_restart(world: &World) {
    let script = Script::new()
        .call(&wait_tool(world, "create_worker_mission"), slow("be-slow"))
        .call(&wait_tool(world, "wait_for_any_worker"), json!({}))
        .rest("I rest")
        .call(&wait_tool(world, "wait_for_any_worker"), json!({}))
        .say("All is done");
    let mut terminal = open(world, script);
    begin(&mut terminal);
    terminal.until_shown("Irest");
    // The server is killed, then the client. The worker finishes while neither runs.
    kill_server(world);
    terminal.end();
    finish(world, "w-1-be-slow");
    let terminal = Terminal::start(claude(world, &["--continue"]));
    terminal.until_shown("Allisdone");
    let last = last_request(world);
    assert!(last.contains(r#""status":"idle""#) && !last.contains("redelivered"), "{last}");
    terminal.end();
}

async fn settlements_at_once_arrive_unmarked(world: &World) {
    let mut script = Script::new();
    for title in ["one", "two", "three"] {
        script = script.call(&wait_tool(world, "create_worker_mission"), slow(title));
    }
    for number in 1..=4 {
        let wait = wait_tool(world, "wait_for_any_worker");
        script = script.call(&wait, json!({})).rest(&format!("I rest {number}"));
    }
    let mut terminal = open(world, script);
    begin(&mut terminal);
    terminal.until_shown("Irest1");
    for worker in ["w-1-one", "w-2-two", "w-3-three"] {
        finish(world, worker);
    }
    let is_over = |request: &Recorded| plain(request).contains(r#""status":"idle""#);
    assert!(world.model.wait_for_request(CEILING, is_over).is_some(), "{}", terminal.shown());
    let last = last_request(world);
    for worker in ["w-1-one", "w-2-two", "w-3-three"] {
        let settled = format!(r#"{{"worker_id":"{worker}""#);
        assert!(last.contains(&settled), "{worker}: {last}");
    }
    assert!(!last.contains("redelivered"), "{last}");
    terminal.end();
}

async fn cleared_conversation_is_woken(world: &World) {
    let mut terminal = resting(world);
    type_in(&mut terminal, "/clear");
    conversation_is_notified_anew(world, terminal);
}

async fn compacted_conversation_is_woken(world: &World) {
    let mut terminal = resting(world);
    world.model.reply_to("summary of the conversation", Script::new().say("A worker runs."));
    type_in(&mut terminal, "/compact");
    terminal.until_shown("Compacted");
    conversation_is_notified_anew(world, terminal);
}

/// Opens a terminal whose boss has ended its turn, while its wait for a worker is open.
fn resting(world: &World) -> Terminal {
    let script = Script::new()
        .call(&wait_tool(world, "create_worker_mission"), slow("be-slow"))
        .call(&wait_tool(world, "wait_for_any_worker"), json!({}))
        .rest("I rest");
    let mut terminal = open(world, script);
    begin(&mut terminal);
    terminal.until_shown("Irest");
    terminal
}

/// Checks that the end of the wait wakes a conversation that does not contain its start, and is not repeated afterwards.
fn conversation_is_notified_anew(world: &World, mut terminal: Terminal) {
    finish(world, "w-1-be-slow");
    let is_notified = |request: &Recorded| {
        let text = plain(request);
        text.contains("waited_for") && text.contains("w-1-be-slow") && !text.contains("SCRIPT:begin")
    };
    assert!(world.model.wait_for_request(CEILING, is_notified).is_some(), "{}", terminal.shown());
    let script = Script::new().call(&wait_tool(world, "wait_for_any_worker"), json!({})).say("I was notified");
    world.model.register("after", script);
    type_in(&mut terminal, "Go on. SCRIPT:after");
    terminal.until_shown("Iwasnotified");
    let last = last_request(world);
    assert!(last.contains(r#""status":"idle""#) && !last.contains("redelivered"), "{last}");
    terminal.end();
}

async fn call_of_a_subagent_blocks(world: &World) {
    let wait =
        Script::new().call(&wait_tool(world, "wait_for_any_worker"), json!({"timeout_seconds": 2})).say("Looked");
    world.model.register("subagent", wait);
    let agent = json!({"description": "Wait", "prompt": "Wait. SCRIPT:subagent", "subagent_type": "general-purpose"});
    let script = Script::new()
        .call(&wait_tool(world, "create_worker_mission"), slow("be-slow"))
        .call("Agent", agent)
        .say("It has looked");
    // In the default mode, a safety check that the scripted model does not answer would come before.
    let mut terminal = open_with(world, script, &["--permission-mode", "acceptEdits"]);
    begin(&mut terminal);
    let is_plain = |request: &Recorded| {
        let results = request.conversation.as_ref().map(|it| it.tool_results().join("\n")).unwrap_or_default();
        request.body.to_string().contains("SCRIPT:subagent") && results.contains("still_running")
    };
    assert!(world.model.wait_for_request(CEILING, is_plain).is_some(), "{}", terminal.shown());
    finish(world, "w-1-be-slow");
    terminal.end();
}

fn slow(title: &str) -> Value {
    json!({"title": title, "prompt": "FAKE:\nwait-file go 100\nsay I was slow", "backend": "fake"})
}

pub fn wait_tool(world: &World, tool: &str) -> String {
    tool_name(world.cli, tool)
}

/// Opens a terminal whose model does this when the user types the first message.
fn open(world: &World, script: Script) -> Terminal {
    open_with(world, script, &[])
}

fn open_with(world: &World, script: Script, arguments: &[&str]) -> Terminal {
    lead_by(world);
    start(world, script, arguments)
}

/// Starts the terminal of a boss whose settings are written.
pub fn start(world: &World, script: Script, arguments: &[&str]) -> Terminal {
    answer_first_questions(world);
    world.model.register("begin", script);
    let terminal = Terminal::start(claude(world, arguments));
    terminal.until_shown("(shift+tabtocycle)");
    terminal
}

fn claude(world: &World, arguments: &[&str]) -> std::process::Command {
    let mut claude = world.home.command(world.cli.path());
    claude.args(["--allowedTools", "mcp__orchestrator-boss"]).args(arguments).current_dir(world.repo());
    claude.env("TERM", "xterm-256color").env("PWD", world.repo());
    claude
}

pub fn begin(terminal: &mut Terminal) {
    type_in(terminal, "Lead. SCRIPT:begin");
}

pub fn type_in(terminal: &mut Terminal, text: &str) {
    terminal.send(text);
    terminal.until_shown(&text.replace(' ', ""));
    terminal.send("\r");
}

pub fn finish(world: &World, worker: &str) {
    let worktree = world.worktree(worker);
    // Git refuses a directory with files, until it has made this one.
    until_exists(&worktree.join(".git"));
    fs::write(worktree.join("go"), "").expect("the worktree is there");
}

/// Kills the server of the terminal.
fn kill_server(world: &World) {
    let (program, home) = (env!("CARGO_BIN_EXE_orchestrator-boss"), world.home.path().display().to_string());
    let serves = |it: &Process| {
        it.command.starts_with(program)
            && !it.command.contains(" supervise ")
            && it.has_in_its_environment(&home)
            && it.has_in_its_environment("CLAUDE_CODE_SESSION_ID=")
    };
    let server = processes().into_iter().find(serves).expect("the terminal has a server");
    kill_process(server.pid, Signal::KILL).expect("a live process");
}

/// Returns the last request to the model, without backslashes.
pub fn last_request(world: &World) -> String {
    plain(world.asked().last().expect("a request to the model"))
}

fn plain(request: &Recorded) -> String {
    request.body.to_string().replace('\\', "")
}
