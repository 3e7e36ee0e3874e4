//! Failed writes of a supervisor and its CLI: the raw log, the events, the status, and messages in the inbox. No work
//! is lost, and a rejected message is reported as such.

use std::fs;

use serde_json::{Value, json};

use crate::disk::with_disk;
use crate::world::{World, create, mission, settled, status, until, until_exists};

#[test]
fn cli_without_disk_space_keeps_its_work() {
    with_disk(6, |disk| {
        let world = World::at(&disk.root());
        let mut boss = world.boss();
        let gate = world.path("gate");
        let script =
            format!("session s\nwrite a.txt x\ncommit work\ntouch ready\nwait-file {}\nflood 20000", gate.display());
        let worker = create(&mut boss, mission("t", &script));
        until_exists(&world.worktree(&worker).join("ready"));
        disk.fill_but(100_000);
        fs::write(&gate, "").unwrap();
        until("the outcome is recorded", || {
            fs::metadata(world.attempt(&worker, 1).join("outcome.json")).is_ok_and(|it| it.len() > 0)
        });
        let recorded = world.outcome(&worker, 1);
        assert_eq!(
            (&recorded["status"], &recorded["changes"]["commits"]),
            (&json!("failed"), &json!(1)),
            "{recorded:#}"
        );
        disk.free();
        assert_eq!(settled(&mut boss, &worker)["status"], "failed");
        let events = fs::read_to_string(world.attempt(&worker, 1).join("events.jsonl")).unwrap();
        let broken = events.lines().filter(|line| serde_json::from_str::<Value>(line).is_err());
        assert_eq!(broken.count(), 0, "each event in the log is complete");
    });
}

#[test]
fn message_is_refused_on_full_disk_then_delivered() {
    with_disk(6, |disk| {
        let world = World::at(&disk.root());
        let mut boss = world.boss();
        let gate = world.path("gate");
        let worker = create(&mut boss, mission("t", &format!("session s\ntouch ready\nwait-file {}", gate.display())));
        until_exists(&world.worktree(&worker).join("ready"));
        until("it runs", || status(&mut boss, &worker)["status"] == "running");
        disk.fill();
        let text = format!("FAKE:\nsay lost\nEND\n{}", "x".repeat(10_000));
        let why = boss.refused("send_message_to_worker", json!({"worker_id": worker, "message": text}));
        assert!(why.contains("no space left") && why.contains("inbox"), "{why}");
        let shown = boss.succeed("get_worker_status", json!({"worker_id": worker, "include": ["messages"]}));
        assert!(!shown.to_string().contains("say lost"), "{shown:#}");
        disk.free();
        boss.succeed("send_message_to_worker", json!({"worker_id": worker, "message": "FAKE:\nsay heard"}));
        fs::write(&gate, "").unwrap();
        let ended = settled(&mut boss, &worker);
        assert_eq!((&ended["status"], &ended["final_message"]), (&json!("completed"), &json!("heard")), "{ended:#}");
    });
}

#[test]
fn unwritable_status_does_not_stop_the_worker() {
    let world = World::new();
    let mut boss = world.boss();
    let gate = world.path("gate");
    let worker = create(&mut boss, mission("t", &format!("touch ready\nwait-file {}\nsay done", gate.display())));
    until_exists(&world.worktree(&worker).join("ready"));
    let place = world.attempt(&worker, 1).join("status.json");
    until_exists(&place);
    // A folder that is not empty replaces the status file.
    until("the folder is in its place", || {
        let _ = fs::remove_file(&place);
        fs::create_dir_all(place.join("in-the-way")).is_ok()
    });
    fs::write(&gate, "").unwrap();
    assert_eq!(settled(&mut boss, &worker)["status"], "completed");
    let shown = boss.succeed("get_worker_status", json!({"worker_id": worker, "include": ["messages", "log"]}));
    assert_eq!(shown["worker"]["status"], "completed", "{shown:#}");
}
