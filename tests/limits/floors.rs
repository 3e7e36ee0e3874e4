//! A machine with too few resources: queued missions wait, every answer shows the reason, and they start later by
//! themselves.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::server::{Server, World, mission};
use crate::support::wait::until_some;

fn create(server: &mut Server, mission: Value) -> String {
    let answer = server.call("create_worker_mission", mission);
    answer["worker"]["worker_id"].as_str().expect("an accepted mission").to_owned()
}

fn state(world: &World) -> Value {
    let path = world.repo().join(".orchestrator/orchestrator-state.json");
    serde_json::from_slice(&std::fs::read(path).unwrap_or_default()).unwrap_or_default()
}

#[test]
fn low_memory_queues_missions_with_the_reason() {
    let world = World::new();
    let mut server = world.server("min_free_memory_mib = 1000000000");
    let id = create(&mut server, mission("t", "say done"));
    let has_reason = |text: &Value| text.as_str().is_some_and(|text| text.contains("min_free_memory_mib"));

    // Nothing runs and nothing may start, so the wait returns before its time limit.
    let answer = server.call("wait_for_any_worker", json!({"timeout_seconds": 100}));
    assert_eq!(answer["status"], "attention", "{answer:#}");
    assert!(has_reason(&answer["waits_for"]) && has_reason(&answer["attention"][0]["waits_for"]), "{answer:#}");
    // But only once, since otherwise a boss would repeat its wait forever.
    let answer = server.call("wait_for_any_worker", json!({"timeout_seconds": 3}));
    assert_eq!((&answer["status"], &answer["queued"]), (&json!("still_running"), &json!(1)), "{answer:#}");
    assert!(has_reason(&answer["waits_for"]), "{answer:#}");

    let answer = server.call("get_worker_status", json!({"worker_id": id}));
    assert!(has_reason(&answer["worker"]["waits_for"]), "{answer:#}");
    let answer = server.call("list_worker_missions", json!({}));
    assert!(has_reason(&answer["workers"][0]["waits_for"]), "{answer:#}");
    let answer = server.call("get_backend_status", json!({"backend": "fake"}));
    assert!(has_reason(&answer["backends"][0]["waits_for"]), "{answer:#}");
    until_some("the reason in the state file", || has_reason(&state(&world)["tasks"][0]["reason"]).then_some(()));
    server.leave();
}

#[test]
fn queued_mission_starts_when_disk_space_returns() {
    let Some(disk) = small_disk() else { return };
    let world = World::new();
    let ballast = disk.path().join("ballast");
    // Free space is below the floor with the ballast and above it without; other writers use less than half of it. The
    // file system is in memory, so the ballast is small.
    let free = free_mib(disk.path());
    let ballast_mib = (free / 2).min(128);
    let floor = free - ballast_mib / 2;
    fill(&ballast, ballast_mib << 20);
    let state_dir = disk.path().join("state");
    let mut server = world.server(&format!("state_dir = {state_dir:?}\nmin_free_disk_mib = {floor}"));
    let id = create(&mut server, mission("t", "say done"));
    let answer = server.call("wait_for_any_worker", json!({"timeout_seconds": 100}));
    assert!(answer["waits_for"].as_str().unwrap_or_default().contains("min_free_disk_mib"), "{answer:#}");
    std::fs::remove_file(&ballast).expect("an existing path");
    let answer = server.call("wait_for_any_worker", json!({"timeout_seconds": 100}));
    assert_eq!(
        (&answer["settled"][0]["worker_id"], &answer["settled"][0]["status"]),
        (&json!(id), &json!("completed"))
    );
    server.leave();
}

#[test]
fn full_server_reports_how_many_run() {
    let world = World::new();
    let gate = world.path("gate");
    let mut server = world.server("max_workers = 1\n");
    create(&mut server, mission("first", &format!("wait-file {} 100", gate.display())));
    let second = create(&mut server, mission("second", "say done"));
    let waits_for = |server: &mut Server| {
        let answer = server.call("get_worker_status", json!({"worker_id": second}));
        answer["worker"]["waits_for"].as_str().map(str::to_owned)
    };
    until_some("the reason", || {
        (waits_for(&mut server)? == "a free slot: 1 of 1 workers run (max_workers)").then_some(())
    });
    std::fs::write(&gate, "").expect("a file");
    until_some("both settle", || {
        let answer = server.call("list_worker_missions", json!({"status": ["completed"]}));
        (answer["counts"]["completed"] == 2).then_some(())
    });
    server.leave();
}

/// Returns a folder on a file system in memory, to which other tests write almost nothing.
fn small_disk() -> Option<tempfile::TempDir> {
    let made = tempfile::tempdir_in("/dev/shm").ok().filter(|disk| free_mib(disk.path()) >= 32);
    if made.is_none() {
        eprintln!("SKIPPED: there is no writable /dev/shm with 32 MiB free, so no disk can be filled here");
        assert!(std::env::var("CI").as_deref() != Ok("true"), "nothing is skipped in continuous integration");
    }
    made
}

fn free_mib(folder: &Path) -> u64 {
    orchestrator_boss::process::free_disk_bytes(folder).expect("an existing path") >> 20
}

/// Allocates a file of this size, without holes.
fn fill(path: &PathBuf, bytes: u64) {
    let file = std::fs::File::create(path).expect("a new file");
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes).expect("there is room");
}
