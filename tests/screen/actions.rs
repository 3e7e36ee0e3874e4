//! The keys of `status --watch` that act on a worker: merge, retry, answer and search, with real git and servers.

use serde_json::json;

use crate::support::json_lines::Boss;
use crate::terminal::{Terminal, skipped};
use crate::world::{World, mission, until};

const WATCH: &[&str] = &["status", "--watch"];

fn create(boss: &mut Boss, workers: serde_json::Value) {
    boss.succeed("batch_create_workers", json!({"workers": workers}));
}

/// Sends a signal to the program that runs in the terminal.
fn interrupt(terminal: &Terminal) {
    let children = std::process::Command::new("pgrep").args(["-P", &terminal.knows("pane_pid")]).output();
    let child = String::from_utf8_lossy(&children.expect("pgrep runs").stdout).trim().to_owned();
    let killed = std::process::Command::new("kill").args(["-INT", &child]).status();
    assert!(killed.expect("kill runs").success());
}

#[test]
fn merge_key_merges_after_the_check() {
    if skipped() {
        return;
    }
    let world = World::new();
    let mut boss = world.boss("6f1c2f3a-1111");
    let mut good = mission("Good", "write a.txt a\ncommit the good work");
    good["verify_command"] = json!("test -f a.txt");
    let clash = mission("Clash", "write README theirs\ncommit theirs");
    create(&mut boss, json!([good, clash, mission("Idle", "say nothing")]));
    let terminal = Terminal::start(&world, (120, 30), WATCH, &[]);
    terminal.until("3 completed");
    terminal.press(&["/"]);
    terminal.type_text("good");
    terminal.until("/good▏  1 of 1");
    terminal.press(&["Enter", "i"]);
    terminal.until("Merge w-1 into main if `test -f a.txt` passes on the result? y/n");
    terminal.press(&["n"]);
    terminal.until("not merged");
    assert!(!world.repo().join("a.txt").exists());
    terminal.press(&["i", "y"]);
    terminal.until("merged w-1-good into main, now at ");
    terminal.until("verification: passed");
    let log = world.git(&["log", "--format=%s", "main"]);
    assert!(log.contains("the good work") && world.repo().join("a.txt").exists(), "{log}");
    terminal.until("merged into main");
    terminal.press(&["i"]);
    terminal.until("w-1 is already merged into main");

    std::fs::write(world.repo().join("README"), "ours\n").expect("a file");
    world.git(&["commit", "-qam", "ours"]);
    let main = world.git(&["rev-parse", "main"]);
    terminal.press(&["Escape"]);
    terminal.press(&["/"]);
    terminal.type_text("clash");
    terminal.press(&["Enter", "i"]);
    terminal.until("Merge w-2 into main, without a check? y/n");
    terminal.press(&["y"]);
    terminal.until("not merged into main · conflict: README (");
    terminal.press(&["/"]);
    terminal.type_text("idle");
    terminal.press(&["Enter", "i", "y"]);
    terminal.until("w-3-idle has no commits to merge into main");
    assert_eq!(world.git(&["rev-parse", "main"]), main);
    terminal.press(&["q"]);
    terminal.until("ended with 0");
    terminal.check_restored();
}

#[test]
fn two_merges_run_one_after_the_other() {
    if skipped() {
        return;
    }
    let world = World::new();
    let mut boss = world.boss("6f1c2f3a-1111");
    let (begun, go) = (world.shared("begun"), world.shared("go"));
    let mut first = mission("First", "write a.txt a\ncommit first");
    first["verify_command"] =
        json!(format!("touch '{}'; until test -e '{}'; do sleep 0.05; done", begun.display(), go.display()));
    world.release("go");
    create(&mut boss, json!([first, mission("Second", "write b.txt b\ncommit second")]));
    let terminal = Terminal::start(&world, (120, 30), WATCH, &[]);
    terminal.until("2 completed");
    std::fs::remove_file(&go).and_then(|()| std::fs::remove_file(&begun)).expect("both are there");
    for search in ["first", "second"] {
        terminal.press(&["/"]);
        terminal.type_text(search);
        terminal.press(&["Enter", "i", "y"]);
        terminal.until(&format!("merging w-{}", if search == "first" { "1-first" } else { "2-second" }));
    }
    until("the check of the first merge", || begun.exists());
    // The screen takes keys meanwhile.
    terminal.press(&["?"]);
    terminal.until("attach: continue its session");
    terminal.press(&["Escape"]);
    world.release("go");
    terminal.until("merged w-2-second into main");
    let log = world.git(&["log", "--first-parent", "--format=%s", "main"]);
    assert_eq!(log.lines().take(2).collect::<Vec<_>>(), ["Second", "First"], "{log}");
    terminal.press(&["q"]);
    terminal.until("ended with 0");
}

#[test]
fn interrupted_merge_is_undone_after_quitting() {
    if skipped() {
        return;
    }
    let world = World::new();
    let mut boss = world.boss("6f1c2f3a-1111");
    let begun = world.shared("begun");
    let mut slow = mission("Slow", "write a.txt a\ncommit slow");
    // The check of the worker passes, that of the merge never ends.
    slow["verify_command"] = json!(format!("test ! -e '{0}' && exit 0; touch '{0}.too'; sleep 1000", begun.display()));
    create(&mut boss, json!([slow]));
    let terminal = Terminal::start(&world, (120, 30), WATCH, &[]);
    terminal.until("1 completed");
    world.release("begun");
    let main = world.git(&["rev-parse", "main"]);
    terminal.press(&["i", "y"]);
    until("the check of the merge", || world.shared("begun.too").exists());
    terminal.press(&["q"]);
    terminal.until("merging w-1-slow … (Ctrl-C stops a merge and undoes it)");
    interrupt(&terminal);
    terminal.until("the merge of w-1-slow was stopped before it was done: nothing was merged");
    terminal.until("ended with 130");
    terminal.check_restored();
    assert_eq!(world.git(&["rev-parse", "main"]), main);
    let answer = boss.succeed("integrate_worker", json!({"worker_id": "w-1", "verify_command": "true"}));
    assert_eq!(answer["status"], "merged", "{answer:#}");
}

#[test]
fn retry_and_answer_start_the_next_attempt() {
    if skipped() {
        return;
    }
    let world = World::new();
    let mut boss = world.boss("6f1c2f3a-1111");
    let failed = world.shared("failed");
    let workers = json!([
        mission("Asks", "session ses-1\nsay BLOCKED: which key?"),
        mission("Fails", &format!("session ses-2\nfail-once {}", failed.display())),
    ]);
    create(&mut boss, workers);
    let terminal = Terminal::start(&world, (120, 30), WATCH, &[]);
    terminal.until("1 needs you · 1 failed");
    terminal.press(&["Home"]);
    terminal.until("m answer");
    terminal.press(&["m"]);
    terminal.until("w-1 is blocked: which key?");
    terminal.type_text("the second one");
    terminal.press(&["Enter"]);
    terminal.until("w-1-asks resumes with it: its next attempt");
    terminal.until("1 completed");
    terminal.press(&["/"]);
    terminal.type_text("fails");
    terminal.press(&["Enter", "r"]);
    terminal.until("retry w-2 (enter: start, esc: discard), with feedback:");
    terminal.type_text("try harder");
    terminal.press(&["Enter"]);
    terminal.until("w-2-fails: ");
    terminal.until("2 completed");
    let answer = boss.succeed("get_worker_status", json!({"worker_id": "w-2", "include": ["messages"]}));
    assert_eq!(answer["worker"]["attempt"], 2, "{answer:#}");
    assert!(answer["messages"][0]["text"].as_str().expect("a text").ends_with("try harder"), "{answer:#}");
    terminal.press(&["q"]);
    terminal.until("ended with 0");
}

#[test]
fn questions_are_answered_on_the_screen() {
    if skipped() {
        return;
    }
    let world = World::new();
    let mut boss = world.boss("6f1c2f3a-1111");
    let mut asks = mission("Asks", "ask edit /etc/hosts\nask edit /etc/passwd");
    asks["backend"] = json!("agent");
    create(&mut boss, json!([asks]));
    let terminal = Terminal::start(&world, (120, 30), WATCH, &[]);
    terminal.until("needs an answer: permission for edit: /etc/hosts");
    terminal.until("a allow  d deny");
    terminal.press(&["a"]);
    terminal.until("w-1 asks q1.1.1: permission for edit: /etc/hosts (outside its worktree)");
    terminal.until("Allow it once? y/n");
    terminal.press(&["y"]);
    terminal.until("q1.1.1 of w-1-asks is allowed");
    terminal.until("needs an answer: permission for edit: /etc/passwd");
    terminal.press(&["d"]);
    terminal.type_text("not yours");
    terminal.press(&["Enter"]);
    terminal.until("q1.1.2 of w-1-asks is denied");
    terminal.until("1 completed");
    terminal.press(&["q"]);
    terminal.until("ended with 0");
    let log = world.says(&["logs", "w-1"]);
    assert!(log.contains("ask: once") && log.contains("ask: no"), "{log}");
}
