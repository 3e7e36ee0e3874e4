//! Claude Code in a terminal with waits that block: it moves a long one to the background, and the result of the wait
//! wakes the boss, which has ended its turn.

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
use crate::wait::until;
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
    claude.env("CLAUDE_CODE_DISABLE_MCP_TASKS", "1").env("CLAUDE_CODE_MCP_AUTO_BACKGROUND_MS", "3000");
    claude.env("TERM", "xterm-256color").env("PWD", world.repo());
    let mut terminal = Terminal::start(claude);
    terminal.until_shown("(shift+tabtocycle)");
    terminal.send("Lead. SCRIPT:rest");
    terminal.until_shown("SCRIPT:rest");
    terminal.send("\r");

    // The model knows that the wait continues in the background, and has ended its turn.
    terminal.until_shown("Irest");
    let rested = |request: &Recorded| request.body.to_string().contains("moved to the background");
    assert!(world.model.wait_for_request(CEILING, rested).is_some(), "{}", terminal.shown());
    let before = world.asked().len();
    let worker = world.worktree("w-1-be-slow");
    assert!(worker.exists());
    fs::write(worker.join("go"), "").expect("the worktree is there");

    // No key is pressed: the result alone wakes the boss.
    let woken = |request: &Recorded| {
        let text = request.body.to_string();
        text.contains("(orchestrator-boss/wait_for_any_worker) completed.") && text.contains("turn_complete")
    };
    assert!(world.model.wait_for_request(CEILING, woken).is_some(), "{}", terminal.shown());
    assert!(world.asked().len() > before, "a second request to the model");
    terminal.until_shown("scriptfinished");
    terminal.end();
}

/// Answers the questions of the first start: the theme, trust in the folder, and use of the key.
pub fn answer_first_questions(world: &World) {
    let path = world.path(".claude/.claude.json");
    let mut config: Value =
        serde_json::from_str(&fs::read_to_string(&path).expect("a registered server")).expect("JSON");
    config["hasCompletedOnboarding"] = true.into();
    config["theme"] = "dark".into();
    config["customApiKeyResponses"] = json!({"approved": ["dummy"], "rejected": []});
    let project = json!({"hasTrustDialogAccepted": true, "hasCompletedProjectOnboarding": true});
    config["projects"][world.repo().display().to_string()] = project;
    write(&path, &config.to_string());
}

/// The query for the position of the cursor.
const CURSOR_QUERY: &[u8] = b"\x1b[6n";

/// A program in its own terminal, with all its output.
pub struct Terminal {
    child: Child,
    keys: File,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    pub fn start(mut command: Command) -> Self {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&controller).and_then(|()| unlockpt(&controller)).expect("a terminal of this process");
        let name = ptsname(&controller, Vec::new()).expect("a name");
        let size = Winsize { ws_row: 50, ws_col: 200, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&controller, size).expect("a terminal of this process");
        let path = name.to_str().expect("a plain name").to_owned();
        let side = || Stdio::from(File::options().read(true).write(true).open(&path).expect("its other side"));
        command.stdin(side()).stdout(side()).stderr(side());
        command.process_group(0);
        let child = command.spawn().expect("an installed CLI");
        let keys = File::from(controller);
        let shown = Arc::<Mutex<Vec<u8>>>::default();
        let (mut screen, kept) = (keys.try_clone().expect("a second handle"), shown.clone());
        let mut answers = keys.try_clone().expect("a third handle");
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // Reading fails after the program's exit.
            while let Ok(read @ 1..) = screen.read(&mut buffer) {
                // Codex does not start without the position of the cursor.
                if buffer[..read].windows(CURSOR_QUERY.len()).any(|bytes| bytes == CURSOR_QUERY) {
                    let _ = answers.write_all(b"\x1b[1;1R");
                }
                kept.lock().expect("an unpoisoned lock").extend_from_slice(&buffer[..read]);
            }
        });
        Self { child, keys, shown }
    }

    pub fn send(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("the terminal is open");
    }

    /// Returns the output without control codes and without spaces, which the program shows by cursor moves.
    pub fn shown(&self) -> String {
        let bytes = self.shown.lock().expect("an unpoisoned lock").clone();
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

    /// Sends keys until the words are shown. A busy program ignores a key that comes right after it has drawn.
    pub fn send_until_shown(&mut self, keys: &str, words: &str) {
        let mut sent = Instant::now();
        self.send(keys);
        until(words, || {
            if sent.elapsed() > Duration::from_secs(5) {
                sent = Instant::now();
                self.send(keys);
            }
            self.shown().contains(words)
        });
    }

    pub fn end(mut self) {
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::TERM);
        self.until_ended();
    }

    pub fn until_ended(&mut self) {
        let began = Instant::now();
        while self.child.try_wait().expect("a child of ours").is_none() {
            assert!(began.elapsed() < CEILING, "the program does not exit");
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
        // A title or a link ends with BEL, or with ESC and a backslash.
        Some(']') => drop(chars.find(|c| matches!(c, '\u{7}' | '\\'))),
        _ => {}
    }
}
