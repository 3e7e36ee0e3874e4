//! `message` does what a boss's message does: a running worker receives it, a finished one resumes with it.

use std::io::Write;
use std::process::Stdio;

use serde_json::json;

use crate::world::*;

#[test]
fn running_worker_receives_messages_of_the_user() {
    let world = World::new();
    let mut boss = world.boss();
    let worker = create(&mut boss, mission("listen", "session ses-1\nwait-file ../../repo/go"));
    until_status(&mut boss, &worker, "running");
    let said = world.run(&["message", "w-1", "be quick"]).ended(0);
    assert_eq!(said, format!("{worker} receives it at the next opportunity\n"));
    let mut command = world.program(&["message", &worker, "-"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"and\ncareful").unwrap();
    wait_for_end(child).ended(0);
    std::fs::write(world.repo().join("go"), "").unwrap();
    until_status(&mut boss, &worker, "completed");
    let log = world.run(&["logs", &worker]).ended(0);
    for part in ["user wrote: be quick", "user wrote: and", "careful"] {
        assert!(log.contains(part), "{part} in\n{log}");
    }
}

#[test]
fn interrupt_stops_the_turn_first() {
    let world = World::new();
    let mut boss = world.boss();
    // Nothing else ends it.
    let worker = create(&mut boss, mission("stubborn", "session ses-1\ntouch here\nhang"));
    until_exists(&world.worktree(&worker).join("here"));
    let ran = world.run(&["message", &worker, "--interrupt", "go on", "--json"]);
    let json = ran.json();
    assert_eq!((&json["worker_id"], &json["delivered"]), (&json!(worker), &json!("live")), "{ran:?}");
    until_status(&mut boss, &worker, "completed");
}

#[test]
fn finished_worker_resumes_with_the_message() {
    let world = World::new();
    let mut boss = world.boss();
    let worker = create(&mut boss, mission("again", "say one"));
    until_status(&mut boss, &worker, "completed");
    let said = world.run(&["message", &worker, "one more thing"]).ended(0);
    assert_eq!(said, format!("{worker} resumes with it: its next attempt\n"));
    until("the second attempt completed", || {
        let now = status(&mut boss, &worker);
        now["attempt"] == 2 && now["status"] == "completed"
    });
}

#[test]
fn unusable_message_sends_nothing() {
    let world = World::with("max_workers = 0");
    let mut boss = world.boss();
    let worker = create(&mut boss, mission("queued", "say x"));
    for (args, says) in [
        (["message", "w-7", "hello"], "no worker is called"),
        (["message", "w-1", " "], "the message is empty"),
        // There is no stdin.
        (["message", "w-1", "-"], "the message is empty"),
    ] {
        let ran = world.run(&args);
        assert_eq!(ran.code, Some(2), "{ran:?}");
        assert!(ran.stderr.contains(says), "{says} in {ran:?}");
    }
    let answer = boss.succeed("get_worker_status", json!({"worker_id": worker, "include": ["messages"]}));
    assert!(answer["messages"].as_array().is_none_or(Vec::is_empty), "{answer:#}");
}
