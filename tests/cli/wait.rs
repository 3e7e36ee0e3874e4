//! `wait` for scripts: its exit codes. It consumes no notification of a boss.

use std::io::Read;
use std::process::Child;

use serde_json::json;

use crate::world::*;

/// Returns the first line. Reads byte by byte, so that later readers get all other output.
fn first_line(child: &mut Child) -> String {
    let (mut line, mut byte) = (Vec::new(), [0; 1]);
    while byte != *b"\n" {
        child.stdout.as_mut().expect("a piped stream").read_exact(&mut byte).expect("it prints a line");
        line.extend(byte);
    }
    String::from_utf8(line).expect("text")
}

#[test]
fn wait_prints_ends_without_consuming_notifications() {
    let world = World::new();
    let mut boss = world.boss();
    let good = create(&mut boss, mission("good", "write a.txt a\ncommit a"));
    let bad = create(&mut boss, mission("bad", "wait-file ../../repo/go\nresult error broken"));
    let mut wait = world.begin(&["wait", &good, &bad, "--json"]);
    let first = first_line(&mut wait);
    assert!(first.contains(&good) && first.contains("completed"), "{first}");
    // Without names it waits for all open workers.
    let open = world.run(&["wait", "--json", "--timeout", "0"]);
    assert_eq!((open.code, open.json()["open"].clone()), (Some(124), json!([bad])), "{open:?}");
    std::fs::write(world.repo().join("go"), "").unwrap();
    let ran = wait_for_end(wait);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let rest = ran.json_lines();
    assert_eq!(rest.len(), 1, "{ran:?}");
    assert_eq!((&rest[0]["worker_id"], &rest[0]["reason"]), (&json!(bad), &json!("broken")));
    let waited = boss.succeed("wait_for_any_worker", json!({}));
    assert_eq!(waited["settled"].as_array().unwrap().len(), 2, "{waited:#}");
    assert_eq!(world.run(&["wait", &good]).ended(0).lines().count(), 1);
    assert!(world.run(&["wait", &good, "w-2"]).ended(1).contains("failed"));
    assert_eq!(world.run(&["wait"]).ended(0), "no worker is open\n");
}

#[test]
fn wait_any_returns_first_and_timeout_exits_124() {
    let world = World::new();
    let mut boss = world.boss();
    let quick = create(&mut boss, mission("quick", "say done"));
    let slow = create(&mut boss, mission("slow", "wait-file ../../repo/go"));
    let said = world.run(&["wait", "--any", &quick, &slow]).ended(0);
    assert!(said.contains(&quick) && !said.contains(&slow), "{said}");
    let said = world.run(&["wait", &slow, "--timeout", "0"]).ended(124);
    assert!(said.contains(&slow), "{said}");
    let wait = world.begin(&["wait", &slow]);
    std::fs::write(world.repo().join("go"), "").unwrap();
    wait_for_end(wait).ended(0);
    let ran = world.run(&["wait", &slow, "--timeout", "-1"]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.stderr.contains("'-1' for '--timeout <SECONDS>': give a whole number of seconds"), "{ran:?}");
    // Longer than any clock can represent.
    world.run(&["wait", &slow, "--timeout", &u64::MAX.to_string()]).ended(0);
}

#[test]
fn queued_worker_without_server_needs_attention() {
    let world = World::with("max_workers = 0");
    let mut boss = world.boss();
    let worker = create(&mut boss, mission("queued", "hang"));
    boss.kill_server();
    let ran = world.run(&["wait"]);
    let said = ran.ended(3);
    assert!(said.contains(&worker) && said.contains("no server runs here"), "{said}");
}

#[test]
fn blocked_worker_ends_the_wait() {
    let world = World::new();
    let mut boss = world.boss();
    let below = create(&mut boss, mission("below", "result error no"));
    let above = create(&mut boss, with(mission("above", "hang"), "depends_on", json!([below])));
    until_status(&mut boss, &below, "failed");
    let ran = world.run(&["wait", &above, "--json"]);
    assert_eq!(ran.code, Some(3), "{ran:?}");
    assert_eq!(ran.json_lines()[0]["event"], "needs_attention");
    let shown = [world.run(&["wait", &above]).stdout, world.run(&["status", &above]).stdout];
    for said in shown {
        assert!(said.contains("orchestrator-boss retry w-1") && !said.contains("retry_worker"), "{said}");
    }
    world.run(&["cancel", &above]).ended(0);
}

#[test]
fn worker_reporting_a_block_needs_attention() {
    let world = World::new();
    let mut boss = world.boss();
    let worker = create(&mut boss, mission("asks", "say BLOCKED: which key?"));
    let said = world.run(&["wait", &worker]).ended(3);
    assert!(said.contains("which key?"), "{said}");
    let ran = world.run(&["wait", &worker, "--json"]);
    assert_eq!((ran.code, &ran.json_lines()[0]["says_blocked"]), (Some(3), &json!("which key?")), "{ran:?}");
}

#[test]
fn wait_sees_an_end_without_server() {
    let world = World::new();
    let mut boss = world.boss();
    let worker = create(&mut boss, mission("alone", "wait-file ../../repo/go"));
    until_status(&mut boss, &worker, "running");
    boss.kill_server();
    let wait = world.begin(&["wait", &worker]);
    std::fs::write(world.repo().join("go"), "").unwrap();
    assert!(wait_for_end(wait).ended(0).contains("completed"));
    let wait = world.begin(&["wait", &worker]);
    wait_for_end(wait).ended(0);
}

#[test]
fn ctrl_c_ends_a_wait_with_130() {
    let world = World::new();
    let mut boss = world.boss();
    let done = create(&mut boss, mission("done", "say done"));
    let open = create(&mut boss, mission("open", "wait-file ../../repo/go"));
    until_status(&mut boss, &done, "completed");
    let mut wait = world.begin(&["wait", &done, &open]);
    let line = first_line(&mut wait);
    assert!(line.contains(&done), "{line}");
    interrupt(&wait);
    interrupt(&wait);
    wait_for_end(wait).ended(130);
    std::fs::write(world.repo().join("go"), "").unwrap();
    until_status(&mut boss, &open, "completed");
}

#[test]
fn dead_supervisor_without_server_needs_attention() {
    let world = World::new();
    let mut boss = world.boss();
    let worker = create(&mut boss, mission("orphan", "touch here\nhang"));
    until_exists(&world.worktree(&worker).join("here"));
    until_status(&mut boss, &worker, "running");
    boss.kill_server();
    world.kill_supervisor(&worker);
    assert!(world.run(&["wait"]).ended(3).contains("its supervisor has ended"));
    // The next server ends its remaining processes.
    until_status(&mut world.boss(), &worker, "lost");
}
