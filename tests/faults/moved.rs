//! A repository is moved while a server runs, while workers run, or while nothing runs. A worker's end is found, or it
//! is reported as lost with the known facts. Nothing is created at the old place, and the fixes are named.

use std::fs;
use std::path::PathBuf;

use serde_json::json;

use crate::world::{World, create, mission, reason, settled, status, try_git, until, until_exists};

fn elsewhere(world: &World) -> PathBuf {
    world.path("elsewhere")
}

#[test]
fn moved_repository_is_refused_until_it_is_back() {
    let world = World::new();
    let mut boss = world.boss();
    let worker = create(&mut boss, mission("t", "session s\nwrite a.txt x\ncommit work\nsay done"));
    settled(&mut boss, &worker);
    fs::rename(world.repo(), elsewhere(&world)).unwrap();
    let refusals = [
        boss.refused("create_worker_mission", mission("u", "say done")),
        boss.refused("send_message_to_worker", json!({"worker_id": worker, "message": "go on"})),
        boss.refused("integrate_worker", json!({"worker_id": worker})),
    ];
    for why in refusals {
        assert!(
            why.contains("it was moved or removed") && why.contains("move it back") && why.contains("where it is now"),
            "{why}"
        );
    }
    assert_eq!(status(&mut boss, &worker)["status"], "completed", "known facts are still reported");
    assert!(!world.repo().exists(), "nothing was created at the old place");
    fs::rename(elsewhere(&world), world.repo()).unwrap();
    assert_eq!(boss.succeed("integrate_worker", json!({"worker_id": worker}))["status"], "merged");
    let next = create(&mut boss, mission("u", "say done"));
    assert_eq!(settled(&mut boss, &next)["status"], "completed");
}

#[test]
fn running_workers_are_recorded_at_the_new_place() {
    for with_server in [true, false] {
        let world = World::new();
        let mut boss = world.boss();
        let gate = world.path("gate");
        let script = format!("write a.txt x\ncommit work\ntouch ready\nwait-file {}\nsay done", gate.display());
        let worker = create(&mut boss, mission("t", &script));
        until_exists(&world.worktree(&worker).join("ready"));
        until("it runs", || status(&mut boss, &worker)["status"] == "running");
        if !with_server {
            boss.kill_server();
        }
        fs::rename(world.repo(), elsewhere(&world)).unwrap();
        fs::write(&gate, "").unwrap();
        let record = elsewhere(&world).join(".orchestrator/workers").join(&worker).join("attempts/1/outcome.json");
        until_exists(&record);
        if with_server {
            boss.leave();
        }
        let mut next = world.boss_in(&elsewhere(&world));
        let ended = settled(&mut next, &worker);
        assert!(["failed", "lost"].contains(&ended["status"].as_str().unwrap()), "{ended:#}");
        assert_eq!(ended["outcome"]["run"]["reason"], "lost", "{ended:#}");
        assert!(reason(&ended).contains("moved") && reason(&ended).contains("git worktree repair"), "{ended:#}");
        assert!(!world.repo().exists(), "nothing was created at the old place");
        let branch = format!("orchestrator/{worker}");
        assert_eq!(try_git(&elsewhere(&world), &["show", &format!("{branch}:a.txt")]).unwrap(), "x");
        let merged = next.succeed("integrate_worker", json!({"branch": branch}));
        assert_eq!(merged["status"], "merged", "{merged:#}");
    }
}

#[test]
fn settled_workers_remain_after_a_move() {
    let world = World::new();
    let mut boss = world.boss();
    let worker = create(&mut boss, mission("t", "session s\nwrite a.txt x\ncommit work\nsay done"));
    settled(&mut boss, &worker);
    boss.leave();
    fs::rename(world.repo(), elsewhere(&world)).unwrap();
    let mut next = world.boss_in(&elsewhere(&world));
    assert_eq!(settled(&mut next, &worker)["status"], "completed");
    // The mission has the old path of its worktree; the work is on the branch.
    next.succeed("retry_worker", json!({"worker_id": worker}));
    let again = settled(&mut next, &worker);
    assert_eq!(again["outcome"]["run"]["reason"], "could_not_start", "{again:#}");
    assert!(reason(&again).contains("git worktree repair"), "{again:#}");
    assert!(!world.repo().exists(), "nothing was created at the old place");
}
