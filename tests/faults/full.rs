//! A disk with the repository and the state fills up, at each moment of a write. Settled results remain, impossible
//! actions are reported, and everything continues once there is space.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use serde_json::{Value, json};

use crate::disk::{Disk, with_disk};
use crate::world::{World, create, mission, reason, settled, status, try_git, until, until_exists, with};

/// Reads the state file repeatedly and checks that it is valid whenever it exists.
struct Watch {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<u32>>,
}

impl Watch {
    fn over(world: &World) -> Self {
        // On a full disk no state file would appear.
        until_exists(&world.state_file());
        let (path, over): (PathBuf, Arc<AtomicBool>) = (world.state_file(), Arc::default());
        let ended = Arc::clone(&over);
        let thread = thread::spawn(move || {
            let mut looks = 0;
            loop {
                let is_last = ended.load(Ordering::Relaxed);
                if let Ok(bytes) = fs::read(&path) {
                    let parsed: Result<Value, _> = serde_json::from_slice(&bytes);
                    assert!(parsed.is_ok(), "the state file was seen invalid: {}", String::from_utf8_lossy(&bytes));
                    looks += 1;
                }
                if is_last {
                    return looks;
                }
                thread::yield_now();
            }
        });
        Self { over, thread: Some(thread) }
    }

    fn end(mut self) {
        self.over.store(true, Ordering::Relaxed);
        let looks = self.thread.take().expect("a single end").join().expect("the state file was always valid");
        assert!(looks > 0, "the state file never existed");
    }
}

fn with_world(mib: u32, test: impl FnOnce(&Disk, World)) {
    with_disk(mib, |disk| test(disk, World::at(&disk.root())));
}

#[test]
fn setup_that_fills_the_disk_is_reported() {
    with_world(16, |_, world| {
        let world = world.set("setup_command = \"head -c 100000000 /dev/zero > big\"");
        let mut boss = world.boss();
        let worker = create(&mut boss, mission("t", "touch ran"));
        let record = world.attempt(&worker, 1).join("outcome.json");
        until("the outcome is recorded on the full disk", || fs::metadata(&record).is_ok_and(|it| it.len() > 0));
        let worktree = world.worktree(&worker);
        assert!(!worktree.join("ran").exists(), "no CLI was started");
        fs::remove_file(worktree.join("big")).unwrap();
        let settled = settled(&mut boss, &worker);
        assert_eq!(settled["status"], "failed", "{settled:#}");
        assert_eq!(settled["outcome"]["run"]["reason"], "setup_failed", "{settled:#}");
        assert!(reason(&settled).contains("no space was left on the disk"), "{settled:#}");
    });
}

#[test]
fn outcome_on_full_disk_is_recorded_and_reported() {
    with_world(6, |disk, world| {
        let mut boss = world.boss();
        let gate = world.path("gate");
        let script = format!("write a.txt x\ncommit work\ntouch ready\nwait-file {}", gate.display());
        let worker = create(&mut boss, mission("t", &script));
        let earlier = create(&mut boss, mission("earlier", "say done"));
        assert_eq!(settled(&mut boss, &earlier)["status"], "completed");
        until_exists(&world.worktree(&worker).join("ready"));
        let watch = Watch::over(&world);
        disk.fill();
        fs::write(&gate, "").unwrap();
        let record = world.attempt(&worker, 1).join("outcome.json");
        until("the outcome is recorded on the full disk", || fs::metadata(&record).is_ok_and(|it| it.len() > 0));
        let recorded = world.outcome(&worker, 1);
        assert_eq!(recorded["changes"]["commits"], 1, "{recorded:#}");
        assert_eq!(status(&mut boss, &earlier)["status"], "completed", "a settled worker stays settled");
        disk.free();
        let worker_now = settled(&mut boss, &worker);
        assert_eq!(worker_now["status"], recorded["status"], "{worker_now:#}");
        assert_eq!(world.outcome(&worker, 1), recorded, "a record never changes");
        until("the state file has both", || {
            let state = world.state();
            [&worker, &earlier].iter().all(|id| state.to_string().contains(&format!("\"worker_id\":\"{id}\"")))
        });
        watch.end();
        assert_eq!(try_git(&world.repo(), &["show", &format!("orchestrator/{worker}:a.txt")]).unwrap(), "x");
    });
}

#[test]
fn outcome_survives_server_death_on_full_disk() {
    with_world(6, |disk, world| {
        let mut boss = world.boss();
        let gate = world.path("gate");
        let worker = create(&mut boss, mission("t", &format!("touch ready\nwait-file {}", gate.display())));
        until_exists(&world.worktree(&worker).join("ready"));
        disk.fill();
        boss.kill_server();
        fs::write(&gate, "").unwrap();
        until("the outcome is recorded", || {
            fs::metadata(world.attempt(&worker, 1).join("outcome.json")).is_ok_and(|it| it.len() > 0)
        });
        let mut next = world.boss();
        // The record may leave enough space for a new server; otherwise its error names the cause.
        if let Some(Err(why)) = next.call("wait_for_worker", json!({"worker_id": worker})) {
            assert!(why.contains("no space left") && why.contains(".orchestrator"), "{why}");
        }
        disk.free();
        let worker_now = settled(&mut next, &worker);
        assert_eq!(worker_now["status"], world.outcome(&worker, 1)["status"], "without a restart");
    });
}

#[test]
fn unsaved_call_is_refused_and_leaves_nothing() {
    with_world(8, |disk, world| {
        let mut boss = world.boss();
        let first = create(&mut boss, mission("first", "say done"));
        settled(&mut boss, &first);
        let watch = Watch::over(&world);
        disk.fill();
        // Longer than the rest of the journal's last block.
        let long = |title: &str| mission(title, &format!("say done\nEND\n{}", "x".repeat(20_000)));
        let why = boss.refused("create_worker_mission", with(long("t"), "request_id", "r0"));
        assert!(why.contains("no space left") && why.contains("free some space"), "{why}");
        let batch = json!({"workers": (1..=20).map(|n| {
            with(long(&format!("t{n}")), "request_id", format!("r{n}"))
        }).collect::<Vec<_>>()});
        let why = boss.refused("batch_create_workers", batch.clone());
        assert!(why.contains("no space left"), "{why}");
        let why = boss.refused("retry_worker", json!({"worker_id": first, "feedback": "x".repeat(20_000)}));
        assert!(why.contains("no space left"), "{why}");
        let listed = boss.succeed("list_worker_missions", json!({}));
        assert_eq!(listed["workers"].as_array().map(Vec::len), Some(1), "{listed:#}");
        disk.free();
        let answer = boss.succeed("batch_create_workers", batch);
        let ids: Vec<String> = answer["results"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| it["worker_id"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(ids.len(), 20, "{answer:#}");
        for id in &ids[..3] {
            assert_eq!(settled(&mut boss, id)["status"], "completed");
        }
        watch.end();
    });
}

#[test]
fn first_mission_on_full_disk_is_refused() {
    with_world(6, |disk, world| {
        disk.fill();
        let mut boss = world.boss();
        let why = boss.refused("create_worker_mission", mission("t", "say done"));
        assert!(why.contains("no space left"), "{why}");
        disk.free();
        let worker = create(&mut boss, mission("t", "say done"));
        assert_eq!(settled(&mut boss, &worker)["status"], "completed");
    });
}

#[test]
fn worktree_beyond_free_space_is_undone() {
    with_world(12, |disk, world| {
        let noise = format!("head -c 3000000 /dev/urandom > {}", world.repo().join("big").display());
        assert!(std::process::Command::new("sh").args(["-c", &noise]).status().unwrap().success());
        world.git(&["add", "."]);
        world.git(&["commit", "-q", "-m", "big"]);
        let mut boss = world.boss();
        disk.fill_but(1_500_000);
        let worker = create(&mut boss, mission("t", "say done"));
        let ended = settled(&mut boss, &worker);
        assert_eq!(ended["outcome"]["run"]["reason"], "could_not_start", "{ended:#}");
        assert!(reason(&ended).contains("no space left"), "{ended:#}");
        assert!(!world.worktree(&worker).exists(), "no partial worktree is left");
        assert_eq!(world.git(&["worktree", "list"]).lines().count(), 1);
        assert_eq!(world.git(&["branch", "--list", "orchestrator/*"]), "");
        disk.free();
        boss.succeed("retry_worker", json!({"worker_id": worker}));
        assert_eq!(settled(&mut boss, &worker)["status"], "completed");
    });
}

#[test]
fn next_attempt_commits_what_the_full_disk_refused() {
    with_world(12, |disk, world| {
        let mut boss = world.boss();
        let gate = world.path("gate");
        let script = format!(
            "session s\nrun head -c 2000000 /dev/urandom > big\ntouch {{ready}}\nwait-file {}\nsay done",
            gate.display()
        );
        let ready = world.shared("ready");
        let worker = create(&mut boss, mission("t", &script.replace("{ready}", &ready.to_string_lossy())));
        until_exists(&ready);
        disk.fill_but(1_000_000);
        fs::write(&gate, "").unwrap();
        let ended = settled(&mut boss, &worker);
        let recorded = world.outcome(&worker, 1);
        assert_eq!(recorded["changes"]["uncommitted"], 1, "{recorded:#}");
        let named = recorded["changes"]["not_on_branch"].to_string();
        assert!(named.contains("big") && named.contains("No space left"), "{recorded:#}");
        assert_ne!(ended["status"], "running");
        assert_eq!(fs::metadata(world.worktree(&worker).join("big")).unwrap().len(), 2_000_000);
        disk.free();
        boss.succeed("retry_worker", json!({"worker_id": worker, "feedback": "FAKE:\nsay again"}));
        assert_eq!(settled(&mut boss, &worker)["status"], "completed");
        let size = world.git(&["cat-file", "-s", &format!("orchestrator/{worker}:big")]);
        assert_eq!(size, "2000000");
    });
}

#[test]
fn verification_without_disk_space_could_not_run() {
    with_world(6, |disk, world| {
        let mut boss = world.boss();
        let (ready, gate) = (world.shared("verifying"), world.path("gate"));
        // The second verification hides the cause of its failure.
        for (title, loud) in [("loud", ""), ("quiet", " 2>/dev/null")] {
            let command = format!(
                "touch {}; while [ ! -e {} ]; do sleep 0.01; done; head -c 500000 /dev/zero > probe{loud}",
                ready.display(),
                gate.display()
            );
            let worker = create(&mut boss, with(mission(title, "say done"), "verify_command", command));
            until_exists(&ready);
            disk.fill();
            fs::write(&gate, "").unwrap();
            until("the outcome is recorded", || {
                fs::metadata(world.attempt(&worker, 1).join("outcome.json")).is_ok_and(|it| it.len() > 0)
            });
            disk.free();
            let ended = settled(&mut boss, &worker);
            assert_eq!(ended["outcome"]["verification"]["result"], "could_not_run", "{title}: {ended:#}");
            let recorded = world.outcome(&worker, 1);
            assert!(recorded["verification"]["why"].as_str().unwrap().contains("space"), "{recorded:#}");
            fs::remove_file(&ready).unwrap();
            fs::remove_file(&gate).unwrap();
        }
    });
}
