//! Damage to `orchestrator-state.json`. The file is a projection, so the server writes it again. A file in its place is
//! not lost, a link not followed, and a pipe not waited for.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;

use crate::world::{World, create, mission, settled, until};

/// Creates a world with a settled worker whose server has exited.
fn world_with_a_result() -> (World, String) {
    let world = World::new();
    let mut boss = world.boss();
    let worker = create(&mut boss, mission("t", "write a.txt x\nsay done"));
    assert_eq!(settled(&mut boss, &worker)["status"], "completed");
    boss.leave();
    (world, worker)
}

/// Checks that a new server reports the result and that the file is valid again.
fn check_restored(world: &World, worker: &str) {
    let mut boss = world.boss();
    assert_eq!(settled(&mut boss, worker)["status"], "completed");
    until("the state file is there again", || {
        fs::symlink_metadata(world.state_file()).is_ok_and(|it| it.is_file() && it.len() > 2)
    });
    assert_eq!(world.state()["completed_tasks"][0]["worker_id"], worker);
}

fn set_aside(world: &World) -> Vec<PathBuf> {
    let entries = fs::read_dir(world.state_dir()).expect("the state folder").flatten();
    entries.map(|entry| entry.path()).filter(|path| path.to_string_lossy().contains("json.")).collect()
}

#[test]
fn damaged_state_file_is_set_aside_and_rewritten() {
    for damage in ["", "{\"version\": 1, \"tas", "\0\0\0\0", "[]"] {
        let (world, worker) = world_with_a_result();
        fs::write(world.state_file(), damage).unwrap();
        check_restored(&world, &worker);
        let aside = set_aside(&world);
        assert_eq!(aside.len(), 1, "{damage:?}: {aside:?}");
        assert_eq!(fs::read_to_string(&aside[0]).unwrap(), damage);
    }
}

#[test]
fn newer_state_file_is_refused_until_removed() {
    let (world, worker) = world_with_a_result();
    fs::write(world.state_file(), "{\"version\": 99}").unwrap();
    let mut boss = world.boss();
    let why = boss.refused("list_worker_missions", serde_json::json!({}));
    assert!(why.contains("newer version") && why.contains("--state-dir"), "{why}");
    assert_eq!(fs::read_to_string(world.state_file()).unwrap(), "{\"version\": 99}");
    fs::remove_file(world.state_file()).unwrap();
    assert_eq!(settled(&mut boss, &worker)["status"], "completed", "without a restart");
}

#[test]
fn link_as_state_file_is_set_aside() {
    for target_text in ["precious", "{\"version\": 1}"] {
        let (world, worker) = world_with_a_result();
        let target = world.path("precious");
        fs::write(&target, target_text).unwrap();
        fs::remove_file(world.state_file()).unwrap();
        symlink(&target, world.state_file()).unwrap();
        check_restored(&world, &worker);
        assert_eq!(fs::read_to_string(&target).unwrap(), target_text);
    }
}

#[test]
fn folder_as_state_file_is_set_aside() {
    let (world, worker) = world_with_a_result();
    fs::remove_file(world.state_file()).unwrap();
    fs::create_dir(world.state_file()).unwrap();
    fs::write(world.state_file().join("precious"), "x").unwrap();
    check_restored(&world, &worker);
    assert_eq!(fs::read_to_string(set_aside(&world)[0].join("precious")).unwrap(), "x");
}

#[test]
fn pipe_as_state_file_blocks_no_server() {
    let (world, worker) = world_with_a_result();
    fs::remove_file(world.state_file()).unwrap();
    assert!(Command::new("mkfifo").arg(world.state_file()).status().unwrap().success());
    check_restored(&world, &worker);
}

/// Replaces the state file, and repeats that if the server writes it before the replacement.
fn replace_state_file(world: &World, put: impl Fn() -> std::io::Result<()>) {
    until("something else is in the state file's place", || {
        let _ = fs::remove_file(world.state_file());
        put().is_ok()
    });
}

#[test]
fn removed_or_replaced_state_file_is_rewritten() {
    let world = World::new();
    let mut boss = world.boss();
    let worker = create(&mut boss, mission("t", "say done"));
    settled(&mut boss, &worker);
    let is_back = || fs::symlink_metadata(world.state_file()).is_ok_and(|it| it.is_file() && it.len() > 2);
    until("the state file is there", is_back);
    fs::remove_file(world.state_file()).unwrap();
    until("a deleted state file is there again", is_back);
    replace_state_file(&world, || fs::create_dir(world.state_file()));
    until("a state file that became a folder is there again", is_back);
    let target = world.path("precious");
    fs::write(&target, "precious").unwrap();
    replace_state_file(&world, || symlink(&target, world.state_file()));
    until("a state file that became a link is there again", is_back);
    assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
}

#[test]
fn read_only_state_file_is_still_updated() {
    let world = World::new();
    let mut boss = world.boss();
    let first = create(&mut boss, mission("t", "say done"));
    settled(&mut boss, &first);
    until("the state file is there", || world.state_file().exists());
    fs::set_permissions(world.state_file(), fs::Permissions::from_mode(0o400)).unwrap();
    let second = create(&mut boss, mission("u", "say done"));
    settled(&mut boss, &second);
    until("the second task is in it", || world.state()["completed_tasks"].as_array().is_some_and(|it| it.len() == 2));
}
