//! The user removes folders, worktrees and branches of workers, at each stage of a worker's life. Remaining work is not
//! lost, the removal is reported, and everything possible is recreated.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::support::json_lines::Boss;
use crate::world::{World, create, mission, reason, settled, status, try_git, until, until_exists, with};

fn remove_tree(path: &Path) {
    // A process may still write into it.
    until("a folder is removed", || fs::remove_dir_all(path).is_ok() || !path.exists());
}

fn retry(boss: &mut Boss, worker: &str, script: &str) -> serde_json::Value {
    boss.succeed("retry_worker", json!({"worker_id": worker, "prompt": format!("FAKE:\n{script}")}));
    settled(boss, worker)
}

/// Runs a worker that commits. Returns its boss and its id.
fn with_a_result(world: &World) -> (Boss, String) {
    let mut boss = world.boss();
    let worker = create(&mut boss, mission("t", "session s\nwrite a.txt first\ncommit work\nsay done"));
    assert_eq!(settled(&mut boss, &worker)["status"], "completed");
    (boss, worker)
}

#[test]
fn folder_of_queued_worker_is_recreated() {
    let world = World::new().set("max_workers = 1");
    let mut boss = world.boss();
    let gate = world.path("gate");
    let first = create(&mut boss, mission("first", &format!("wait-file {}", gate.display())));
    let second = create(&mut boss, mission("second", "say done"));
    until("the first runs", || status(&mut boss, &first)["status"] == "running");
    let answer = boss.succeed("send_message_to_worker", json!({"worker_id": second, "message": "FAKE:\nsay received"}));
    assert_eq!(answer["delivered"], "queued", "{answer:#}");
    let _ = fs::remove_dir_all(world.state_dir().join("workers").join(&second));
    fs::write(&gate, "").unwrap();
    assert_eq!(settled(&mut boss, &second)["final_message"], "received");
}

#[test]
fn removed_worker_folder_keeps_the_worktree() {
    let world = World::new();
    let mut boss = world.boss();
    let worker = create(&mut boss, mission("t", "write a.txt x\ncommit work\nwrite b.txt y\ntouch ready\nhang"));
    until_exists(&world.worktree(&worker).join("ready"));
    until("it runs", || status(&mut boss, &worker)["status"] == "running");
    remove_tree(&world.state_dir().join("workers").join(&worker));
    let ended = settled(&mut boss, &worker);
    assert_eq!(ended["status"], "lost", "{ended:#}");
    assert!(reason(&ended).contains("folder was removed"), "{ended:#}");
    assert_eq!(fs::read_to_string(world.worktree(&worker).join("b.txt")).unwrap(), "y\n");
    let again = retry(&mut boss, &worker, "say again");
    assert_eq!(again["status"], "completed", "{again:#}");
    assert_eq!(world.git(&["show", &format!("orchestrator/{worker}:a.txt")]), "x");
    assert_eq!(world.git(&["show", &format!("orchestrator/{worker}:b.txt")]), "y", "the uncommitted work was kept");
}

#[test]
fn removed_worker_folder_keeps_uncommitted_changes() {
    let world = World::new().set("commit_leftovers = false");
    let mut boss = world.boss();
    let worker = create(&mut boss, mission("t", "write new.txt n\nwrite a.txt x\nrun git add a.txt\nsay done"));
    assert_eq!(settled(&mut boss, &worker)["status"], "completed");
    remove_tree(&world.state_dir().join("workers").join(&worker));
    let again = retry(&mut boss, &worker, "say again");
    assert_eq!(again["status"], "completed", "{again:#}");
    assert_eq!(fs::read_to_string(world.worktree(&worker).join("a.txt")).unwrap(), "x\n");
    assert_eq!(fs::read_to_string(world.worktree(&worker).join("new.txt")).unwrap(), "n\n");
}

#[test]
fn removed_folder_ends_a_verification() {
    let world = World::new();
    let mut boss = world.boss();
    let ready = world.shared("verifying");
    let command = format!("touch {}; sleep 300", ready.display());
    let worker = create(&mut boss, with(mission("t", "write a.txt x\nsay done"), "verify_command", command));
    until_exists(&ready);
    until("it verifies", || status(&mut boss, &worker)["status"] == "verifying");
    remove_tree(&world.state_dir().join("workers").join(&worker));
    assert_eq!(settled(&mut boss, &worker)["status"], "lost");
    assert_eq!(world.git(&["show", &format!("orchestrator/{worker}:a.txt")]), "x");
    until("no process of it runs", || {
        let left = crate::support::processes::processes_in(&world.worktree(&worker));
        left.is_empty()
    });
}

#[test]
fn settled_worker_works_without_its_folder() {
    let world = World::new();
    let (mut boss, worker) = with_a_result(&world);
    remove_tree(&world.state_dir().join("workers").join(&worker));
    let all = boss
        .succeed("get_worker_status", json!({"worker_id": worker, "include": ["log", "diff", "messages", "attempts"]}));
    assert_eq!(all["worker"]["status"], "completed", "{all:#}");
    let merged = boss.succeed("integrate_worker", json!({"worker_id": worker}));
    assert_eq!(merged["status"], "merged", "{merged:#}");
    let removed = boss.succeed("remove_worktree", json!({"worker_id": worker}));
    assert!(!world.worktree(&worker).exists(), "{removed:#}");
}

#[test]
fn removed_worktree_of_running_worker_keeps_commits() {
    for by_git in [false, true] {
        let world = World::new();
        let mut boss = world.boss();
        let (ready, gate) = (world.shared("ready"), world.path("gate"));
        let script =
            format!("write a.txt x\ncommit work\ntouch {}\nwait-file {}\nsay done", ready.display(), gate.display());
        let worker = create(&mut boss, with(mission("t", &script), "verify_command", "true"));
        until_exists(&ready);
        let worktree = world.worktree(&worker);
        if by_git {
            drop(world.git(&["worktree", "remove", "--force", "--force", &worktree.to_string_lossy()]))
        } else {
            remove_tree(&worktree)
        }
        fs::write(&gate, "").unwrap();
        let ended = settled(&mut boss, &worker);
        assert_eq!(
            (&ended["status"], &ended["outcome"]["run"]["reason"]),
            (&json!("failed"), &json!("lost")),
            "{ended:#}"
        );
        assert!(reason(&ended).contains("was removed or moved while it ran"), "{ended:#}");
        assert!(reason(&ended).contains(&format!("orchestrator/{worker}")), "{ended:#}");
        assert_eq!(ended["outcome"]["changes"]["commits"], 1, "what it committed is on its branch: {ended:#}");
        let again = retry(&mut boss, &worker, "say again");
        assert_eq!(again["status"], "completed", "{again:#}");
        assert_eq!(fs::read_to_string(worktree.join("a.txt")).unwrap(), "x\n", "it continues its branch");
    }
}

#[test]
fn retry_recreates_a_worktree_removed_by_hand() {
    for by_git in [false, true] {
        let world = World::new();
        let (mut boss, worker) = with_a_result(&world);
        let worktree = world.worktree(&worker);
        if by_git {
            drop(world.git(&["worktree", "remove", "--force", "--force", &worktree.to_string_lossy()]))
        } else {
            remove_tree(&worktree)
        }
        let again = retry(&mut boss, &worker, "say again");
        assert_eq!(again["status"], "completed", "by git: {by_git}: {again:#}");
        assert_eq!(fs::read_to_string(worktree.join("a.txt")).unwrap(), "first\n");
    }
}

#[test]
fn worker_with_removed_worktree_can_be_integrated() {
    for by_git in [false, true] {
        let world = World::new();
        let (mut boss, worker) = with_a_result(&world);
        let worktree = world.worktree(&worker);
        if by_git {
            drop(world.git(&["worktree", "remove", "--force", "--force", &worktree.to_string_lossy()]))
        } else {
            remove_tree(&worktree)
        }
        let shown = boss.succeed("get_worker_status", json!({"worker_id": worker, "include": ["diff"]}));
        assert!(shown.to_string().contains("a.txt"), "the diff is that of its branch: {shown:#}");
        let merged = boss.succeed("integrate_worker", json!({"worker_id": worker}));
        assert_eq!(merged["status"], "merged", "{merged:#}");
        let removed = boss.succeed("remove_worktree", json!({"worker_id": worker, "delete_branch": true}));
        assert_eq!(removed["removed"].as_array().map(Vec::len), Some(1), "by git: {by_git}: {removed:#}");
        assert_eq!(world.git(&["worktree", "list"]).lines().count(), 1);
        assert_eq!(world.git(&["branch", "--list", "orchestrator/*"]), "", "by git: {by_git}");
        assert_eq!(world.git(&["show", "main:a.txt"]), "first");
    }
}

#[test]
fn retry_recreates_a_deleted_branch() {
    for with_worktree in [true, false] {
        let world = World::new();
        let (mut boss, worker) = with_a_result(&world);
        let branch = format!("refs/heads/orchestrator/{worker}");
        if !with_worktree {
            world.git(&["worktree", "remove", "--force", "--force", &world.worktree(&worker).to_string_lossy()]);
        }
        world.git(&["update-ref", "-d", &branch]);
        let again = retry(&mut boss, &worker, "append a.txt second\ncommit more\nsay again");
        assert_eq!(again["status"], "completed", "worktree: {with_worktree}: {again:#}");
        assert_eq!(world.git(&["show", &format!("{branch}:a.txt")]), "first\nsecond");
        assert_eq!(world.git(&["rev-list", "--count", "main"]), "1");
        assert_eq!(world.git(&["rev-list", "--count", &branch]), "3", "with its history");
    }
}

#[test]
fn integrate_names_last_commit_of_deleted_branch() {
    let world = World::new();
    let (mut boss, worker) = with_a_result(&world);
    let branch = format!("orchestrator/{worker}");
    let head = world.git(&["rev-parse", &branch]);
    world.git(&["worktree", "remove", "--force", "--force", &world.worktree(&worker).to_string_lossy()]);
    world.git(&["branch", "-D", &branch]);
    let why = boss.refused("integrate_worker", json!({"worker_id": worker}));
    assert!(why.contains(&branch) && why.contains(&format!("git branch {branch} {head}")), "{why}");
    try_git(&world.repo(), &["branch", &branch, &head]).unwrap();
    assert_eq!(boss.succeed("integrate_worker", json!({"worker_id": worker}))["status"], "merged");
}
