//! The programs that `status --watch` starts: an editor in the terminal, one beside it, and a worker's session. The
//! screen leaves the terminal to them and returns, however they end.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde_json::json;

use crate::terminal::{Terminal, skipped};
use crate::world::{World, mission, until};

const WATCH: &[&str] = &["status", "--watch"];

/// Writes an editor of this name. It prints its directory and the mode of the terminal, and ends after one line of
/// input, with status 3 if that line is `fail`.
fn editor(world: &World, name: &str) -> PathBuf {
    let program = world.path(name);
    let script = "#!/bin/sh\necho $$ > \"$0.pid\"\necho \"editor in $PWD for $1\"\nstty -a | grep -q '[^-]icanon' && echo 'lines and signals'\n\
                  read line\necho \"$line\" > \"$0.record\"\n[ \"$line\" != fail ] || exit 3\n";
    // Another process writes the file: a child forked meanwhile could keep it open, and an open file cannot be
    // executed.
    let mut writer = std::process::Command::new("sh");
    writer.args(["-c", "printf %s \"$1\" > \"$2\"", "sh", script]).arg(&program);
    assert!(writer.status().expect("sh runs").success());
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("its mode is set");
    program
}

/// Starts the screen with a completed worker, which has a session, and this editor.
fn screen(world: &World, editor: &str) -> (Terminal, PathBuf) {
    let mut boss = world.boss("6f1c2f3a-1111");
    let work = mission("Fix the parser", "session ses-9\nwrite a.txt a\ncommit a");
    boss.succeed("batch_create_workers", json!({"workers": [work]}));
    boss.succeed("wait_for_worker", json!({"worker_id": "w-1", "timeout_seconds": 60}));
    boss.leave();
    let terminal = Terminal::start(world, (120, 30), WATCH, &[("EDITOR", editor)]);
    terminal.until("1 completed");
    (terminal, world.worktree("w-1-fix-the-parser"))
}

fn until_back(terminal: &Terminal) {
    until("the screen is back", || terminal.knows("alternate_on") == "1");
    terminal.until("[Log]");
}

#[test]
fn editor_in_the_terminal_replaces_the_screen() {
    if skipped() {
        return;
    }
    let world = World::new();
    let editor = editor(&world, "an-editor");
    let record = world.path("an-editor.record");
    let (terminal, worktree) = screen(&world, &editor.display().to_string());
    let shows = format!("editor in {0} for {0}", worktree.display());
    terminal.press(&["o"]);
    terminal.until(&shows);
    terminal.until("lines and signals");
    assert_eq!((terminal.knows("alternate_on").as_str(), terminal.knows("cursor_flag").as_str()), ("0", "1"));
    // As keys of the screen, these would merge the worker and quit.
    terminal.type_text("iyq");
    // No shell could continue the screen, so both continue after Ctrl-Z.
    terminal.press(&["C-z"]);
    terminal.type_text(" twice");
    terminal.press(&["Enter"]);
    until_back(&terminal);
    until("the editor's line", || std::fs::read_to_string(&record).is_ok_and(|line| line.contains("twice")));
    assert!(!world.repo().join("a.txt").exists(), "nothing was merged");

    terminal.press(&["o"]);
    terminal.until(&shows);
    terminal.press(&["C-c"]);
    until_back(&terminal);
    terminal.until("ended with signal: 2");
    terminal.press(&["o"]);
    terminal.until(&shows);
    terminal.type_text("fail");
    terminal.press(&["Enter"]);
    until_back(&terminal);
    terminal.until("cannot open w-1-fix-the-parser: the editor");
    terminal.until("ended with exit status: 3");
    // The screen takes keys and sizes again.
    terminal.press(&["?"]);
    terminal.until("open its worktree in your editor");
    terminal.press(&["Escape"]);
    terminal.resize(60, 20);
    terminal.until_gone("open its worktree in your editor");
    terminal.press(&["q"]);
    terminal.until("ended with 0");
    terminal.check_restored();
}

#[test]
fn missing_editor_is_an_error_on_the_screen() {
    if skipped() {
        return;
    }
    let world = World::new();
    let (terminal, _) = screen(&world, "no-such-editor");
    terminal.press(&["o"]);
    terminal.until("cannot start the editor no-such-editor: there is no such program");
    until_back(&terminal);
    terminal.press(&["q"]);
    terminal.until("ended with 0");
    terminal.check_restored();
}

#[test]
fn graphical_editor_does_not_block_the_screen() {
    if skipped() {
        return;
    }
    let world = World::new();
    let mark = world.path("mark");
    let code = world.path("code");
    let script = format!("#!/bin/sh\necho \"$1\" > '{0}.new' && mv '{0}.new' '{0}'\nexit 4\n", mark.display());
    let mut writer = std::process::Command::new("sh");
    writer.args(["-c", "printf %s \"$1\" > \"$2\" && chmod 755 \"$2\"", "sh", &script]).arg(&code);
    assert!(writer.status().expect("sh runs").success());
    let (terminal, worktree) = screen(&world, &format!("FOO=1 '{}' --reuse-window", code.display()));
    terminal.press(&["o"]);
    until("the editor starts", || mark.exists());
    assert_eq!(std::fs::read_to_string(&mark).expect("a record").trim(), "--reuse-window");
    assert_eq!(terminal.knows("alternate_on"), "1");
    // It failed later.
    terminal.until("ended with exit status: 4");
    terminal.press(&["y"]);
    terminal.until(&worktree.display().to_string());
    terminal.press(&["q"]);
    terminal.until("ended with 0");
}

#[test]
fn attach_continues_the_session_and_returns() {
    if skipped() {
        return;
    }
    let world = World::new();
    let (terminal, worktree) = screen(&world, "true");
    terminal.press(&["a"]);
    until("the CLI has the terminal", || terminal.knows("pane_current_command") == "fake-cli");
    terminal.type_text("FAKE:");
    terminal.press(&["Enter"]);
    terminal.type_text("touch by-hand");
    terminal.press(&["Enter", "C-d"]);
    until_back(&terminal);
    terminal.until("left the session of w-1-fix-the-parser");
    assert!(worktree.join("by-hand").exists());
    terminal.press(&["a"]);
    until("the CLI has the terminal", || terminal.knows("pane_current_command") == "fake-cli");
    terminal.press(&["C-c"]);
    until_back(&terminal);
    terminal.until("left the session of w-1-fix-the-parser: its CLI ended with signal: 2");
    terminal.press(&["q"]);
    terminal.until("ended with 0");
    terminal.check_restored();
}

#[test]
fn signal_to_the_screen_ends_the_editor_too() {
    if skipped() {
        return;
    }
    let world = World::new();
    let editor = editor(&world, "an-editor");
    // A shell that waits for the editor must not leave it behind.
    let (terminal, _) = screen(&world, &format!("f() {{ '{}' \"$@\"; }}; f", editor.display()));
    terminal.press(&["o"]);
    terminal.until("editor in ");
    let children = std::process::Command::new("pgrep").args(["-P", &terminal.knows("pane_pid")]).output();
    let child = String::from_utf8_lossy(&children.expect("pgrep runs").stdout).trim().to_owned();
    assert!(std::process::Command::new("kill").args(["-TERM", &child]).status().expect("kill runs").success());
    terminal.until("ended with 143");
    let pid = std::fs::read_to_string(world.path("an-editor.pid")).expect("its pid");
    until("the editor has ended", || {
        let state = std::process::Command::new("ps").args(["-o", "stat=", "-p", pid.trim()]).output().expect("ps runs");
        let state = String::from_utf8_lossy(&state.stdout).trim().to_owned();
        state.is_empty() || state.starts_with('Z')
    });
    terminal.check_restored();
}
