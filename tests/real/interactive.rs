//! Claude Code as a person uses it, in a terminal: a wait that goes on for long is moved to the background, and its return
//! wakes the boss, which has ended its turn, with the result.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::{Value, json};

use crate::boss_loop::lead_by;
use crate::lead::{tool_name, write};
use crate::model_server::{Recorded, Script};
use crate::world::{CEILING, World};

with_each_cli!(background_wait_wakes_the_boss: Claude);

async fn background_wait_wakes_the_boss(world: &World) {
    lead_by(world);
    answer_first_questions(world);
    let tool = |name: &str| tool_name(world.cli, name);
    let mission = json!({"title": "Be slow", "prompt": "FAKE:\nwait-file go 100\nsay I was slow", "backend": "fake"});
    let script = Script::new()
        .call(&tool("create_worker_mission"), mission)
        .call(&tool("wait_for_any_worker"), json!({"timeout_seconds": 300}))
        .say("I rest");
    world.model.register("rest", script);
    let mut claude = world.home.command(world.cli.path());
    claude.args(["--allowedTools", "mcp__orchestrator-boss"]).current_dir(world.repo());
    claude.env("CLAUDE_CODE_MCP_AUTO_BACKGROUND_MS", "3000").env("TERM", "xterm-256color").env("PWD", world.repo());
    let mut terminal = Terminal::start(claude);
    terminal.until_shown("(shift+tabtocycle)");
    terminal.send("Lead. SCRIPT:rest");
    terminal.until_shown("SCRIPT:rest");
    terminal.send("\r");

    // It has been told that the wait goes on behind it, and has ended its turn.
    terminal.until_shown("Irest");
    let rested = |request: &Recorded| request.body.to_string().contains("moved to the background");
    assert!(world.model.wait_for_request(CEILING, rested).is_some(), "{}", terminal.shown());
    let before = world.asked().len();
    let worker = world.worktree("w-1-be-slow");
    assert!(worker.exists());
    fs::write(worker.join("go"), "").expect("the worktree is there");

    // Nobody types anything: the result alone wakes it.
    let woken = |request: &Recorded| {
        let text = request.body.to_string();
        text.contains("(orchestrator-boss/wait_for_any_worker) completed.") && text.contains("turn_complete")
    };
    assert!(world.model.wait_for_request(CEILING, woken).is_some(), "{}", terminal.shown());
    assert!(world.asked().len() > before, "it was asked again");
    terminal.until_shown("scriptfinished");
    terminal.end();
}

/// Which theme, whether to trust this folder, whether to use that key.
pub fn answer_first_questions(world: &World) {
    let path = world.path(".claude/.claude.json");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).expect("it was registered")).expect("JSON");
    config["hasCompletedOnboarding"] = true.into();
    config["theme"] = "dark".into();
    config["customApiKeyResponses"] = json!({"approved": ["dummy"], "rejected": []});
    let project = json!({"hasTrustDialogAccepted": true, "hasCompletedProjectOnboarding": true});
    config["projects"][world.repo().display().to_string()] = project;
    write(&path, &config.to_string());
}

/// A program in a terminal of its own, and all that it has shown.
pub struct Terminal {
    child: Child,
    keys: File,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    pub fn start(mut command: Command) -> Self {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&controller).and_then(|()| unlockpt(&controller)).expect("it is ours");
        let name = ptsname(&controller, Vec::new()).expect("it has a name");
        let size = Winsize { ws_row: 50, ws_col: 200, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&controller, size).expect("it is ours");
        let path = name.to_str().expect("a plain name").to_owned();
        let side = || Stdio::from(File::options().read(true).write(true).open(&path).expect("its other side"));
        command.stdin(side()).stdout(side()).stderr(side());
        command.process_group(0);
        let child = command.spawn().expect("an installed CLI");
        let keys = File::from(controller);
        let shown = Arc::<Mutex<Vec<u8>>>::default();
        let (mut screen, kept) = (keys.try_clone().expect("a second handle"), shown.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // Reading fails when the program has gone.
            while let Ok(read @ 1..) = screen.read(&mut buffer) {
                kept.lock().expect("nobody panics with it").extend_from_slice(&buffer[..read]);
            }
        });
        Self { child, keys, shown }
    }

    pub fn send(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("the terminal is open");
    }

    /// Without the codes that move and colour, and without spaces, which are shown by moving.
    pub fn shown(&self) -> String {
        let bytes = self.shown.lock().expect("nobody panics with it").clone();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let mut plain = String::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match c {
                '\u{1b}' => skip_code(&mut chars),
                c if c.is_whitespace() || c.is_control() => {}
                c => plain.push(c),
            }
        }
        plain
    }

    pub fn until_shown(&self, words: &str) {
        let began = Instant::now();
        while !self.shown().contains(words) {
            assert!(began.elapsed() < CEILING, "{words} was never shown: {}", self.shown());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn end(mut self) {
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::TERM);
        let began = Instant::now();
        while self.child.try_wait().expect("a child of ours").is_none() {
            assert!(began.elapsed() < CEILING, "it does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn skip_code(chars: &mut std::str::Chars<'_>) {
    match chars.next() {
        Some('[') => drop(chars.find(|c| ('@'..='~').contains(c))),
        // A title or a link ends with a bell or with a backslash after an escape.
        Some(']') => drop(chars.find(|c| matches!(c, '\u{7}' | '\\'))),
        _ => {}
    }
}
