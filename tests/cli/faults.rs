//! Read-only commands change nothing, commands refuse states of newer versions, and generated shell code is valid.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use orchestrator_boss::mission::entry::FORMAT;

use crate::world::*;

/// Returns all files below, with properties that a write changes. Git's objects are left out: comparing uncommitted
/// files creates unreferenced ones, which git removes later.
fn files(folder: &Path) -> BTreeMap<PathBuf, (u64, i64, i64, u64)> {
    let mut found = BTreeMap::new();
    let mut pending = vec![folder.to_owned()];
    while let Some(path) = pending.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        if path.ends_with(".git/objects") {
            continue;
        }
        if metadata.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        found.insert(path, (metadata.len(), metadata.mtime(), metadata.mtime_nsec(), metadata.ino()));
    }
    found
}

#[test]
fn read_only_commands_change_nothing_without_server() {
    let world = World::with("commit_leftovers = false");
    let mut boss = world.boss();
    let worker = create(&mut boss, mission("looked at", "write a.txt a\ncommit a\nwrite b.txt b"));
    until_status(&mut boss, &worker, "completed");
    boss.leave();
    world.until_all_exited();
    let before = files(&world.repo());
    world.run(&["logs", &worker]).ended(0);
    world.run(&["logs", &worker, "--raw"]).ended(0);
    world.run(&["logs", &worker, "--follow"]).ended(0);
    world.run(&["diff", &worker]).ended(0);
    world.run(&["wait", &worker]).ended(0);
    world.run(&["clean", "--dry-run"]).ended(0);
    let after = files(&world.repo());
    let changed: Vec<_> = after.iter().filter(|(path, what)| before.get(*path) != Some(*what)).collect();
    assert!(changed.is_empty() && before.len() == after.len(), "{changed:#?}");
}

#[test]
fn newer_state_is_refused_by_every_command() {
    let world = World::new();
    let mut boss = world.boss();
    let worker = create(&mut boss, mission("old", "say x"));
    until_status(&mut boss, &worker, "completed");
    boss.leave();
    world.until_all_exited();
    let journal = fs::read_dir(world.state_dir().join("journal")).unwrap().map(|entry| entry.unwrap().path());
    let journal = journal.filter(|path| path.metadata().unwrap().len() > 0).max().unwrap();
    let text = fs::read_to_string(&journal).unwrap();
    let format = format!("\"format\":{FORMAT}");
    assert!(text.contains(&format), "{text}");
    fs::write(&journal, text.replacen(&format, "\"format\":99", 1)).unwrap();
    let before = files(&world.state_dir());
    for command in ["logs", "diff", "wait", "cancel", "retry", "integrate"] {
        let ran = world.run(&[command, &worker]);
        assert_eq!(ran.code, Some(1), "{command}: {ran:?}");
        assert!(ran.stderr.contains("newer version") && ran.stderr.contains("--state-dir"), "{command}: {ran:?}");
    }
    let after = files(&world.state_dir());
    let journals = |files: &BTreeMap<PathBuf, _>| files.keys().filter(|it| it.starts_with(&journal)).count();
    assert_eq!(before.get(&journal), after.get(&journal));
    assert_eq!(journals(&before), journals(&after));
}

#[test]
fn closed_pipe_fails_no_command() {
    let world = World::new();
    let mut boss = world.boss();
    let worker = create(&mut boss, mission("piped", "write a.txt a\ncommit a"));
    until_status(&mut boss, &worker, "completed");
    let page = world.path("page.html");
    let page = page.to_str().unwrap();
    for args in [
        &["status"][..],
        &["status", "--json"],
        &["logs", &worker],
        &["logs", &worker, "--raw"],
        &["diff", &worker],
        &["wait", &worker],
        &["clean", "--dry-run"],
        &["doctor"],
        &["doctor", "--json"],
        &["report", "--output", "-"],
        &["report", "--json", "--output", page],
        &["completions", "bash"],
        &["man"],
        &["setup", "codex", "--dry-run"],
        &["setup", "codex", "--yes"],
        &["cancel", &worker],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ran = world.program(args).stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        let ran = Ran::of(ran);
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{args:?}");
    }
    assert!(world.path(".codex/config.toml").exists(), "the change is made all the same");
}

#[test]
fn known_conflicts_survive_a_one_shot_client() {
    let world = World::new();
    let mut boss = world.boss();
    let one = create(&mut boss, mission("one", "write README one\ncommit one"));
    let two = create(&mut boss, mission("two", "write README two\ncommit two"));
    for worker in [&one, &two] {
        until_status(&mut boss, worker, "completed");
    }
    let conflicts = |worker: &str| world.run(&["status", worker, "--json"]).json()["conflicts_with"].clone();
    until("their conflict is known", || {
        conflicts(&one) == serde_json::json!([{"worker_id": two, "paths": ["README"]}])
    });
    boss.leave();
    assert!(world.run(&["cancel", &two]).ended(0).contains("already finished"));
    assert_eq!(conflicts(&one), serde_json::json!([{"worker_id": two, "paths": ["README"]}]));
    assert_eq!(conflicts(&two), serde_json::json!([{"worker_id": one, "paths": ["README"]}]));
}

#[test]
fn pipe_as_state_file_does_not_block() {
    let world = World::new();
    let mut boss = world.boss();
    let worker = create(&mut boss, mission("piped", "say x"));
    until_status(&mut boss, &worker, "completed");
    boss.leave();
    let path = world.state_dir().join("orchestrator-state.json");
    fs::remove_file(&path).unwrap();
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let mut status = world.begin(&["status"]);
    let mut ended = None;
    until("it ends", || {
        ended = status.try_wait().unwrap();
        ended.is_some()
    });
    assert!(ended.unwrap().success());
}

#[test]
fn completions_and_manual_page_are_valid() {
    let world = World::new();
    let bash = world.run(&["completions", "bash"]).ended(0);
    assert!(bash.contains("complete bash --"), "{bash}");
    let mut check = Command::new("bash").arg("-n").stdin(Stdio::piped()).spawn().expect("bash is there");
    std::io::Write::write_all(&mut check.stdin.take().unwrap(), bash.as_bytes()).unwrap();
    assert!(check.wait().unwrap().success());
    for shell in ["zsh", "fish"] {
        assert!(world.run(&["completions", shell]).ended(0).contains(&format!("complete {shell} --")), "{shell}");
    }
    assert!(world.run(&["man"]).ended(0).contains(".SS logs"));
    assert_eq!(world.run(&["completions", "cmd"]).code, Some(2));
}

#[test]
fn missing_state_names_the_searched_folder() {
    let world = World::new();
    let place = world.path("no/such/place").to_string_lossy().into_owned();
    let said = world.run(&["status", "--state-dir", &place]).ended(0);
    assert!(said.contains("No workers here yet") && said.contains(&place), "{said}");
    for command in [["status", "w-1"], ["wait", "w-1"], ["diff", "w-1"], ["retry", "w-1"]] {
        let ran = world.run(&[&command[..], &["--state-dir", &place]].concat());
        assert!(ran.code == Some(2) && ran.stderr.contains(&place), "{command:?}: {ran:?}");
    }
    assert!(!world.path("no").exists());
}

#[test]
fn unreadable_state_differs_from_missing_state() {
    let world = World::new();
    let file = world.path("a-file");
    fs::write(&file, "").unwrap();
    let below = file.join("state");
    for place in [&file, &below] {
        for command in [&["status"][..], &["wait"], &["retry", "w-1"], &["cancel", "w-1"], &["logs", "w-1"]] {
            let ran = world.run(&[command, &["--state-dir", &place.to_string_lossy()]].concat());
            assert_eq!(ran.code, Some(1), "{command:?}: {ran:?}");
            assert!(ran.stderr.contains(&*place.to_string_lossy()) && !ran.stderr.contains("no workers"), "{ran:?}");
        }
    }
}
