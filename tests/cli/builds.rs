//! `clean --builds` deletes what tools create again, reports which folders stay, and removes no worktree.

use std::fs;

use serde_json::{Value, json};

use crate::support::sandbox::{PROGRAM, fake_backend};
use crate::world::*;

const BUILD: &str = "run mkdir -p node_modules/x && echo x > node_modules/x/index.js";

fn project(settings: &str) -> World {
    let world = World::with(settings);
    fs::write(world.repo().join(".gitignore"), "node_modules/\n.env\n").unwrap();
    world.git(&["add", "."]);
    world.git(&["commit", "-qm", "ignore"]);
    world
}

fn ids(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|item| item["worker_id"].as_str().unwrap()).collect()
}

#[test]
fn builds_are_deleted_and_everything_else_stays() {
    let world = project("setup_command = \"mkdir -p node_modules && echo x > node_modules/y\"");
    let mut boss = world.boss();
    let one = create(&mut boss, mission("one", &format!("write a.txt a\ncommit a\n{BUILD}")));
    until_status(&mut boss, &one, "completed");
    let two = create(&mut boss, mission("two", "write b.txt b"));
    let plain = create(&mut boss, with(mission("plain", "say done"), "setup_command", "rm -rf node_modules"));
    let runs = create(&mut boss, mission("runs", "wait-file ../../repo/go"));
    for worker in [&two, &plain] {
        until_status(&mut boss, worker, "completed");
    }
    until_exists(&world.worktree(&runs).join("node_modules/y"));

    let plan = world.run(&["clean", "--builds", "--dry-run", "--json"]).json();
    assert_eq!(ids(&plan["pruned"]), [one.as_str(), two.as_str()], "{plan:#}");
    assert_eq!(plan["pruned"][0]["folders"][0]["path"], "node_modules", "{plan:#}");
    assert!(plan["bytes_freed"].as_u64().is_some_and(|bytes| bytes > 0), "{plan:#}");
    let kept = json!([{"worker_id": runs, "path": world.worktree(&runs), "why": "its worker is running"}]);
    assert_eq!(plan["kept"], kept);
    assert!(world.worktree(&one).join("node_modules").exists(), "a dry run deletes nothing");
    let newer = world.run(&["clean", "--builds", "--older-than", "7d", "--dry-run", "--json"]).json();
    assert_eq!(newer["pruned"], json!([]));
    let mut kept = ids(&newer["kept"]);
    kept.sort_unstable();
    assert_eq!(kept, [one.as_str(), two.as_str(), runs.as_str()], "{newer:#}");

    assert_eq!(world.run(&["clean", "--builds"]).code, Some(2), "it asks first");
    assert_eq!(world.run(&["clean", "--builds", "--branches"]).code, Some(2));
    let said = world.run(&["clean", "--builds", "--yes"]).ended(0);
    assert!(said.contains("node_modules (") && said.contains("builds of 2 worktrees deleted, "), "{said}");
    let there = [&one, &two, &plain, &runs].map(|id| world.worktree(id).join("node_modules").exists());
    assert_eq!(there, [false, false, false, true]);
    assert!(world.worktree(&one).join("a.txt").exists() && world.worktree(&two).join("b.txt").exists());
    let status = world.run(&["status", &one]).ended(0);
    assert!(status.contains("pruned: node_modules ("), "{status}");
    let again = world.run(&["clean", "--builds", "--yes", "--json"]).json();
    assert_eq!((&again["pruned"], &again["bytes_freed"]), (&json!([]), &json!(0)));

    world.run(&["retry", &one, "--feedback", "FAKE:\nsay done"]).ended(0);
    until_status(&mut boss, &one, "completed");
    assert!(world.worktree(&one).join("node_modules/y").exists(), "the setup ran again");
    fs::write(world.repo().join("go"), "").unwrap();
    until_status(&mut boss, &runs, "completed");
}

#[test]
fn status_and_doctor_show_the_size_of_builds() {
    let world = project("");
    let mut boss = world.boss();
    let worker = create(&mut boss, mission("one", BUILD));
    until_status(&mut boss, &worker, "completed");
    boss.kill_server();
    let shown = world.run(&["status", "--json"]).json();
    let bytes = shown["builds"]["bytes"].as_u64().unwrap_or_default();
    assert!(bytes > 0 && shown["builds"]["worktrees"] == 1 && shown["builds"]["is_whole"] == true, "{shown:#}");
    let shown = world.run(&["status", &worker, "--json"]).json();
    assert_eq!(shown["builds"]["folders"], json!([{"path": "node_modules", "bytes": bytes}]), "{shown:#}");
    let few = world.run(&["status"]).ended(0);
    assert!(!few.contains("clean --builds"), "{few}");
    let doctor = world.run(&["doctor", "--json"]).json();
    let left = doctor["checks"]["left_over"].as_array().unwrap().iter().find(|it| it["name"] == "builds");
    let left = left.unwrap_or_else(|| panic!("{doctor:#}"));
    assert!(left["message"].as_str().unwrap().contains("in 1 worktree of finished workers"), "{left:#}");
    assert_eq!(left["fix"], json!(["orchestrator-boss clean --builds"]));

    // On a disk that is nearly full, it shows a small size too.
    let full = world.path("full.toml");
    fs::write(&full, format!("prune_below_mib = 1000000000000\n{}", fake_backend("fake"))).unwrap();
    let mut command = world.bare_command(PROGRAM);
    let output = command.arg("--config").arg(full).arg("status").output().unwrap();
    let said = Ran::of(output).ended(0);
    assert!(said.contains(" of builds in 1 worktree: orchestrator-boss clean --builds"), "{said}");
}

#[test]
fn builds_of_merged_workers_are_deleted_too() {
    let world = project("");
    let mut boss = world.boss();
    let worker = create(&mut boss, mission("one", &format!("write a.txt a\ncommit a\n{BUILD}")));
    until_status(&mut boss, &worker, "completed");
    world.run(&["integrate", &worker]).ended(0);
    boss.kill_server();
    world.run(&["clean", "--builds", "--yes"]).ended(0);
    assert!(world.worktree(&worker).join("a.txt").exists());
    assert!(!world.worktree(&worker).join("node_modules").exists());
    let plan = world.run(&["clean", "--dry-run", "--json"]).json();
    assert_eq!(ids(&plan["removed"]), [worker.as_str()], "{plan:#}");
}

#[test]
fn two_runs_at_once_delete_and_count_each_build_once() {
    let world = project("");
    let mut boss = world.boss();
    let build = "run for i in 1 2 3 4 5 6 7 8 9; do for j in 1 2 3 4 5 6 7 8 9; do \
                 mkdir -p node_modules/$i/$j && echo x > node_modules/$i/$j/x; done; done";
    let workers: Vec<String> = ["one", "two", "three"].map(|title| create(&mut boss, mission(title, build))).into();
    for worker in &workers {
        until_status(&mut boss, worker, "completed");
    }
    boss.kill_server();
    for worker in &workers {
        assert!(world.worktree(worker).join("node_modules/9/9/x").exists());
    }
    let bytes = |report: &Value| report["bytes_freed"].as_u64().unwrap();
    let planned = bytes(&world.run(&["clean", "--builds", "--dry-run", "--json"]).json());
    let running = [(); 3].map(|()| world.begin(&["clean", "--builds", "--yes", "--json"]));
    let reports = running.map(wait_for_end).map(|ran| (ran.code, ran.json()));
    for (code, report) in &reports {
        assert_eq!((*code, &report["kept"]), (Some(0), &json!([])), "{reports:#?}");
    }
    assert_eq!(reports.iter().map(|(_, report)| bytes(report)).sum::<u64>(), planned, "{reports:#?}");
    let mut deleted: Vec<&str> = reports.iter().flat_map(|(_, report)| ids(&report["pruned"])).collect();
    deleted.sort_unstable();
    assert_eq!(deleted, workers, "{reports:#?}");
}
