//! `status --watch`: the live screen with real workers, real keys, and faults.

use serde_json::json;

use crate::terminal::{Terminal, skipped};
use crate::world::{World, mission, until};

const WATCH: &[&str] = &["status", "--watch"];

/// Creates two workers that print output and wait for their release.
fn two_workers(world: &World) -> crate::support::json_lines::Boss {
    let mut boss = world.boss("6f1c2f3a-1111");
    let first = format!(
        "say I look at \u{1b}[2Jthe parser\nwrite parser.rs fn parse()\n{}\nsay Onwards\n{}",
        world.hold("on"),
        world.hold("go")
    );
    let second = format!("say I write the tutorial\n{}", world.hold("go"));
    let workers = json!([mission("Fix the parser", &first), mission("Write a tutorial", &second)]);
    boss.succeed("batch_create_workers", json!({"workers": workers}));
    boss
}

#[test]
fn watch_follows_workers_and_restores_the_terminal() {
    if skipped() {
        return;
    }
    let world = World::new();
    // No mission was ever created.
    let terminal = Terminal::start(&world, (80, 24), WATCH, &[]);
    terminal.until("No workers here yet");
    let mut boss = two_workers(&world);
    terminal.until("2 running");
    terminal.until("said: I look at ␛[2Jthe parser");
    world.release("on");
    terminal.until("said: Onwards");
    // A bar appears after a second or two.
    terminal.until("█");
    terminal.until_screen("the first is selected", |screen| screen.contains("› ● running") && screen.contains("[Log]"));

    terminal.press(&["Down"]);
    terminal.until("said: I write the tutorial");
    terminal.press(&["k"]);
    terminal.until("said: Onwards");
    terminal.press(&["Tab"]);
    terminal.until("+fn parse()");
    terminal.press(&["Enter"]);
    terminal.until("worker     w-1-fix-the-parser");

    terminal.resize(20, 5);
    terminal.until_screen("a tiny screen", |screen| screen.contains("› ● w-1") && !screen.contains("worker     w-1"));
    terminal.resize(200, 50);
    terminal
        .until_screen("a large screen", |screen| screen.contains("w-1-fix-the-parser") && screen.contains("BACKEND"));
    terminal.press(&["?"]);
    terminal.until("cancel the worker, after a confirmation");
    terminal.press(&["Escape"]);
    // A key pressed right after Escape would form an escape sequence.
    terminal.until_gone("cancel the worker, after a confirmation");

    world.release("go");
    terminal.until("2 completed");
    terminal.press(&["y"]);
    terminal.until("repo.worktrees/w-1-fix-the-parser");
    let path = world.repo().with_extension("worktrees").join("w-1-fix-the-parser");
    until("the path is in the clipboard", || terminal.clipboard() == path.to_string_lossy());
    boss.succeed("wait_for_any_worker", json!({"timeout_seconds": 0}));
    terminal.press(&["q"]);
    terminal.until("ended with 0");
    terminal.check_restored();
}

#[test]
fn watch_shows_last_changes_and_reselected_workers() {
    if skipped() {
        return;
    }
    let world = World::new();
    let mut boss = world.boss("6f1c2f3a-1111");
    let script = format!("write a.txt early\n{}\nwrite b.txt late", world.hold("go"));
    let workers = json!([mission("Two files", &script), mission("Words", "say a word")]);
    boss.succeed("batch_create_workers", json!({"workers": workers}));
    let terminal = Terminal::start(&world, (100, 30), WATCH, &[]);
    terminal.until("1 running · 1 completed");
    terminal.press(&["Home", "Tab"]);
    terminal.until("+early");
    world.release("go");
    terminal.until("2 completed");
    terminal.until("+late");
    // Both changes happen between two polls.
    terminal.press(&["j", "k"]);
    terminal.until("+late");
    terminal.press(&["q"]);
    terminal.until("ended with 0");
}

#[test]
fn watch_cancels_after_confirmation_and_sends_messages() {
    if skipped() {
        return;
    }
    let world = World::new();
    let mut boss = two_workers(&world);
    let terminal = Terminal::start(&world, (100, 30), WATCH, &[]);
    terminal.until("2 running");
    terminal.press(&["c"]);
    terminal.until("Cancel w-1-fix-the-parser and all its processes? y/n");
    terminal.press(&["n"]);
    terminal.until("not cancelled");
    terminal.press(&["c", "y"]);
    terminal.until("1 running · 1 cancelled");
    terminal.until("no process is left");

    // The cancelled worker is first now.
    terminal.press(&["Home", "m"]);
    terminal.until("to w-2");
    terminal.type_text("be quick, ");
    terminal.paste("please");
    terminal.press(&["Enter"]);
    terminal.until("w-2-write-a-tutorial receives it");
    let answer = boss.succeed("get_worker_status", json!({"worker_id": "w-2", "include": ["messages"]}));
    assert_eq!(answer["messages"][0]["text"], "(by the user) be quick, please", "{answer:#}");
    // As keys, this text would cancel the worker.
    terminal.paste("cy");
    terminal.press(&["c"]);
    terminal.until("Cancel w-2-write-a-tutorial and all its processes? y/n");
    terminal.press(&["n"]);
    terminal.until("not cancelled");
    terminal.until("1 running");
    terminal.press(&["C-c"]);
    terminal.until("ended with 0");
    terminal.check_restored();
    world.release("go");
    boss.succeed("wait_for_worker", json!({"worker_id": "w-2", "timeout_seconds": 60}));
}

#[test]
fn watch_survives_server_deaths_and_missing_state() {
    if skipped() {
        return;
    }
    let world = World::new();
    let mut boss = two_workers(&world);
    let terminal = Terminal::start(&world, (120, 30), WATCH, &[]);
    terminal.until("2 running");
    terminal.until("here");
    boss.kill_server();
    terminal.until("its server has ended");
    let mut boss = world.boss("6f1c2f3a-1111");
    boss.succeed("list_worker_missions", json!({}));
    terminal.until_gone("its server has ended");
    world.release("on");
    world.release("go");
    terminal.until("2 completed");
    boss.leave();
    let aside = world.path("aside");
    until("the state can be moved away", || std::fs::rename(world.state_dir(), &aside).is_ok());
    terminal.until("No workers here yet");
    std::fs::rename(&aside, world.state_dir()).expect("it comes back");
    terminal.until("2 completed");
    terminal.press(&["q"]);
    terminal.until("ended with 0");
}

#[test]
fn two_hundred_workers_can_be_scrolled() {
    if skipped() {
        return;
    }
    let world = World::new();
    let mut boss = world.boss("many");
    let first = mission("The first", &world.hold("go"));
    boss.succeed("batch_create_workers", json!({"workers": [first]}));
    // The queued workers depend on it, and so cost nothing.
    let later = |number: u32| {
        let mut mission = mission(&format!("Later {number}"), "say x");
        mission["depends_on"] = json!(["w-1"]);
        mission
    };
    for part in 0..4 {
        let workers: Vec<_> = (0..50).map(|number| later(part * 50 + number)).collect();
        boss.succeed("batch_create_workers", json!({"workers": workers}));
    }
    let terminal = Terminal::start(&world, (80, 24), WATCH, &[]);
    terminal.until("1 running · 200 queued");
    terminal.press(&["End"]);
    terminal.until("› ○ queued    w-201");
    terminal.press(&["Home"]);
    terminal.until("› ● running   w-1");
    terminal.press(&["q"]);
    terminal.until("ended with 0");
    boss.succeed("cancel_all_workers", json!({"reason": "the test is over"}));
}

#[test]
fn every_exit_restores_the_terminal_of_watch() {
    if skipped() {
        return;
    }
    let world = World::new();
    for (signal, code) in [("TERM", 143), ("HUP", 129), ("INT", 130)] {
        let terminal = Terminal::start(&world, (80, 24), WATCH, &[]);
        terminal.until("No workers here yet");
        let shell = terminal.knows("pane_pid");
        let children = std::process::Command::new("pgrep").args(["-P", &shell]).output().expect("pgrep runs");
        let child = String::from_utf8_lossy(&children.stdout).trim().to_owned();
        let killed = std::process::Command::new("kill").args([format!("-{signal}"), child]).status();
        assert!(killed.expect("kill runs").success());
        terminal.until(&format!("ended with {code}"));
        terminal.check_restored();
    }
    let piped = world.run(WATCH);
    let said = String::from_utf8_lossy(&piped.stderr).into_owned();
    assert!(piped.status.code() == Some(2) && said.contains("status --json"), "{said}");
}
