//! Tab completion in bash, zsh and fish, in a real terminal and without the shells' start-up files.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::terminal::{Terminal, skipped};
use crate::world::{World, mission};

/// Returns whether the shell is missing, and prints that the test is skipped. Fails if `CI` is set.
fn is_missing(shell: &str) -> bool {
    if Command::new(shell).arg("--version").output().is_ok() {
        return false;
    }
    let why = format!("{shell} is not installed (apt-get install {shell}, brew install {shell})");
    assert!(std::env::var_os("CI").is_none(), "{why}");
    eprintln!("SKIPPED: {why}");
    true
}

#[test]
fn tab_completes_in_bash() {
    let ready = "bind 'set enable-bracketed-paste off'; bind 'set show-all-if-ambiguous on'; source <(orchestrator-boss completions bash)";
    tab_completes("bash", &["--noprofile", "--norc", "-i"], ready);
}

#[test]
fn tab_completes_in_zsh() {
    let ready = "autoload -Uz compinit && compinit -D -u; source <(orchestrator-boss completions zsh)";
    tab_completes("zsh", &["-f", "-i"], ready);
}

#[test]
fn tab_completes_in_fish() {
    tab_completes("fish", &["--no-config", "-i"], "orchestrator-boss completions fish | source");
}

fn tab_completes(shell: &str, arguments: &[&str], ready: &str) {
    if skipped() || is_missing(shell) {
        return;
    }
    let world = World::new();
    let mut boss = world.boss("the-boss");
    let workers = json!([
        mission("Fix the parser: it's \"slow\"", "session ses-1\nsay done"),
        mission("Hold on", &world.hold("go")),
        mission("Fail", "say no\nresult error no"),
    ]);
    boss.succeed("batch_create_workers", json!({"workers": workers}));
    boss.succeed("wait_for_worker", json!({"worker_id": "w-1", "timeout_seconds": 60}));
    boss.succeed("wait_for_worker", json!({"worker_id": "w-3", "timeout_seconds": 60}));
    boss.succeed("remove_worktree", json!({"worker_id": "w-3", "force": true}));
    std::fs::write(world.repo().join("some-file"), "").expect("a file");

    let program = Path::new(World::program()).parent().expect("a path with a parent");
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin:/opt/homebrew/bin", program.display());
    let command: Vec<String> = [shell].iter().chain(arguments).map(|it| (*it).to_owned()).collect();
    let terminal = Terminal::open(&world, (100, 30), &command, &[("PATH", &path), ("PS1", "$ ")]);
    let typed = |text: &str| {
        terminal.press(&["C-l", "C-u"]);
        terminal.type_text(text);
        terminal.until(text.trim_end());
        terminal.press(&["Tab"]);
    };
    terminal.type_text(&format!("{ready}; echo now it is re''ady"));
    terminal.press(&["Enter"]);
    terminal.until("now it is ready");

    // A command, the value of an argument, and the value of an option in both notations.
    for (text, becomes) in [
        ("orchestrator-boss stat", "orchestrator-boss status"),
        ("orchestrator-boss setup cl", "orchestrator-boss setup claude"),
        ("orchestrator-boss integrate --strategy sq", "orchestrator-boss integrate --strategy squash"),
        ("orchestrator-boss integrate --strategy=sq", "orchestrator-boss integrate --strategy=squash"),
        ("orchestrator-boss setup claude --sc", "orchestrator-boss setup claude --scope"),
        // Only workers that the command accepts.
        ("orchestrator-boss retry w-1", "orchestrator-boss retry w-1-fix-the-parser-it-s-slow"),
        ("orchestrator-boss attach ", "orchestrator-boss attach w-1-fix-the-parser-it-s-slow"),
        ("orchestrator-boss integrate ", "orchestrator-boss integrate w-1-fix-the-parser-it-s-slow"),
        ("orchestrator-boss cancel ", "orchestrator-boss cancel w-2-hold-on"),
        ("orchestrator-boss --config ../con", "orchestrator-boss --config ../config.toml"),
    ] {
        typed(text);
        terminal.until(becomes);
    }
    // All commands are offered, but neither hidden commands nor files of the directory.
    typed("orchestrator-boss ");
    terminal.press(&["Tab"]);
    terminal.until_screen("the commands", |screen| screen.contains("status") && screen.contains("doctor"));
    let screen = terminal.screen();
    for hidden in ["guard", "supervise", "demo-agent", "some-file"] {
        assert!(!screen.contains(hidden), "{hidden} in\n{screen}");
    }
    // Zsh and fish show the title and status beside the id.
    typed("orchestrator-boss logs ");
    terminal.press(&["Tab"]);
    terminal.until_screen("both workers", |screen| screen.contains("w-1-fix") && screen.contains("w-2-hold"));
    if shell != "bash" {
        terminal.until("Hold on · running");
    }
    for command in ["diff", "message", "status"] {
        typed(&format!("orchestrator-boss {command} "));
        terminal.press(&["Tab"]);
        terminal.until_screen("all workers", |screen| screen.contains("w-2-hold") && screen.contains("w-3-fail"));
    }
    // The worktree of the third one was removed.
    for command in ["open", "path"] {
        typed(&format!("orchestrator-boss {command} "));
        terminal.press(&["Tab"]);
        terminal.until_screen("two workers", |screen| screen.contains("w-1-fix") && screen.contains("w-2-hold"));
        assert!(!terminal.screen().contains("w-3-fail"), "{}", terminal.screen());
    }
    // Completion prints no error if it cannot read the state or the settings.
    typed("orchestrator-boss --state-dir /dev/null/x retry ");
    terminal.press(&["Tab"]);
    typed("orchestrator-boss --config /no/such/file setup cod");
    terminal.until("setup codex");
    let screen = terminal.screen();
    for noise in ["error", "Error", "No such", "cannot", "panicked"] {
        assert!(!screen.contains(noise), "{noise} in\n{screen}");
    }
    world.release("go");
    boss.succeed("wait_for_worker", json!({"worker_id": "w-2", "timeout_seconds": 60}));
}
