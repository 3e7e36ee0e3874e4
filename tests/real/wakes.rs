//! Codex as the boss of a wait in the background: woken in a terminal with its daemon, and otherwise blocked.

use std::fs;
use std::process::Command;

use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

use crate::boss_loop::{lead_by, received};
use crate::interactive::Terminal;
use crate::lead::{command, tool_name};
use crate::model_server::{Recorded, Script};
use crate::real_cli::run_to_end;
use crate::wait::until;
use crate::world::{CEILING, Process, World, processes};

with_each_cli!(idle_boss_is_woken_for_its_workers: Codex);
with_each_cli!(boss_with_closed_window_is_woken: Codex);
with_each_cli!(resumed_boss_is_woken_by_its_next_server: Codex);
with_each_cli!(boss_without_daemon_waits_in_its_turn: Codex);
with_each_cli!(headless_boss_waits_in_its_turn: Codex);

/// The text that every pointer contains.
const POINTER: &str = "orchestrator-boss:";

async fn idle_boss_is_woken_for_its_workers(world: &World) {
    let terminal = open_terminal(world, "");
    leave_in_background(world, terminal, |terminal| {
        let woken = woken(world);
        assert!(woken.user_message().contains("1 worker settled; call wait_for_any_worker"), "{}", woken.body);
        terminal.until_shown("Iwaswoken");
        // The next turn of the thread gets what settled, and its call is the arrival.
        assert!(received(world).contains("turn_complete"), "{}", terminal.shown());
        until_entry(world, "wake_arrived");
        assert_eq!(entries(world, "wake_sent"), 1);
        for kind in ["settled", "wake_sent", "wake_ran", "wake_arrived"] {
            println!("{kind}: {:?}", times(world, kind));
        }
    });
}

/// Checks the time after a window is closed, in which the daemon still owns the thread.
async fn boss_with_closed_window_is_woken(world: &World) {
    let terminal = open_terminal(world, "");
    let mut terminal = begin(world, terminal);
    terminal.until_shown("Irest");
    terminal.send("/quit");
    terminal.until_shown("/quit");
    terminal.send("\r");
    terminal.until_ended();
    end_worker(world);
    woken(world);
    until_entry(world, "wake_arrived");
    end_daemon(world);
}

/// Checks a worker that ends while neither the daemon nor its server runs. Another server follows it, which cannot wake
/// the boss.
async fn resumed_boss_is_woken_by_its_next_server(world: &World) {
    let terminal = open_terminal(world, "");
    let terminal = begin(world, terminal);
    terminal.until_shown("Irest");
    terminal.end();
    let servers = entries(world, "servers_gone");
    end_daemon(world);
    until("the end of the server", || entries(world, "servers_gone") > servers);
    // The other server joins with its first call.
    world.call("list_worker_missions", json!({})).await;
    end_worker(world);
    until_entry(world, "settled");
    assert_eq!(entries(world, "wake_sent"), 0);
    let mut codex = codex(world);
    codex.args(["resume", "--last"]);
    let terminal = Terminal::start(codex);
    woken(world);
    until_entry(world, "wake_arrived");
    assert_eq!(entries(world, "wake_sent"), 1);
    terminal.end();
    end_daemon(world);
}

async fn boss_without_daemon_waits_in_its_turn(world: &World) {
    let terminal = open_terminal(world, "daemon_auto_start = false\n");
    let terminal = begin(world, terminal);
    let answered = |request: &Recorded| request.body.to_string().contains("Codex runs without its app-server daemon");
    assert!(world.model.wait_for_request(CEILING, answered).is_some(), "{}", terminal.shown());
    end_worker(world);
    terminal.end();
    assert_eq!(entries(world, "wake_requested"), 0);
}

async fn headless_boss_waits_in_its_turn(world: &World) {
    lead_by(world);
    world.model.register("rest", script(world));
    let ended = run_to_end(&mut command(world), "Lead. SCRIPT:rest", CEILING);
    assert!(ended.status.success(), "{ended:?}");
    assert!(received(world).contains("codex exec takes no further message"), "{}", received(world));
    assert_eq!(entries(world, "wake_requested"), 0);
    end_worker(world);
}

/// Creates a slow worker and waits in the background, for a few seconds where that has no effect.
fn script(world: &World) -> Script {
    let mission = json!({"title": "Be slow", "prompt": "FAKE:\nwait-file go 100\nsay I was slow", "backend": "fake"});
    let wait = json!({"background": true, "timeout_seconds": 2});
    Script::new()
        .call(&tool_name(world.cli, "create_worker_mission"), mission)
        .call(&tool_name(world.cli, "wait_for_any_worker"), wait)
        .say("I rest")
}

/// Starts Codex in a terminal. `features` are further lines of its settings.
fn open_terminal(world: &World, features: &str) -> Terminal {
    lead_by(world);
    let path = world.path(".codex/config.toml");
    let config = fs::read_to_string(&path).expect("registered settings");
    let config = config.replace("plugins = false\n", &format!("plugins = false\n{features}"));
    let trusted = format!("\n[projects.{:?}]\ntrust_level = \"trusted\"\n", world.repo());
    fs::write(&path, format!("check_for_update_on_startup = false\n{config}{trusted}")).expect("a writable file");
    let terminal = Terminal::start(codex(world));
    terminal.until_shown("OpenAICodex");
    terminal
}

fn codex(world: &World) -> Command {
    let mut codex = world.home.command(world.cli.path());
    codex.current_dir(world.repo()).env("TERM", "xterm-256color").env("PWD", world.repo());
    codex
}

/// Gives the boss its task, with the words for its later turn.
fn begin(world: &World, mut terminal: Terminal) -> Terminal {
    world.model.register("rest", script(world));
    let wait = Script::new().call(&tool_name(world.cli, "wait_for_any_worker"), json!({"timeout_seconds": 20}));
    world.model.reply_to(POINTER, wait.say("I was woken"));
    terminal.send("Lead. SCRIPT:rest");
    terminal.until_shown("SCRIPT:rest");
    terminal.send("\r");
    terminal
}

fn leave_in_background(world: &World, terminal: Terminal, check: impl FnOnce(&Terminal)) {
    let terminal = begin(world, terminal);
    terminal.until_shown("Irest");
    assert!(received(world).contains("end your turn"), "{}", received(world));
    end_worker(world);
    check(&terminal);
    terminal.end();
    end_daemon(world);
}

fn end_worker(world: &World) {
    let worker = world.worktree("w-1-be-slow");
    until("the worktree", || worker.exists());
    fs::write(worker.join("go"), "").expect("the worktree is there");
}

/// Returns the first request of the woken turn.
fn woken(world: &World) -> Recorded {
    let is_woken = |request: &Recorded| request.user_message().contains(POINTER);
    world.model.wait_for_request(CEILING, is_woken).unwrap_or_else(|| panic!("never woken: {}", journal(world)))
}

fn journal(world: &World) -> String {
    let files = fs::read_dir(world.repo().join(".orchestrator/journal")).into_iter().flatten().flatten();
    files.filter_map(|file| fs::read_to_string(file.path()).ok()).collect()
}

fn entries(world: &World, kind: &str) -> usize {
    times(world, kind).len()
}

/// Returns the times of the journal's entries of this kind.
fn times(world: &World, kind: &str) -> Vec<String> {
    let lines = journal(world);
    let lines = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["entry"]["kind"] == kind).map(|line| line["at"].to_string()).collect()
}

fn until_entry(world: &World, kind: &str) {
    until(kind, || entries(world, kind) > 0);
}

/// Ends the daemon that the terminal has started, and its updater. Both would outlive the test.
fn end_daemon(world: &World) {
    let folder = world.path(".codex/packages/app-server-daemon").display().to_string();
    for process in processes().into_iter().filter(|it: &Process| it.command.starts_with(&folder)) {
        // One may have ended with the other.
        let _ = kill_process(process.pid, Signal::TERM);
    }
}
