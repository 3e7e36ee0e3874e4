//! `retry` hands the next attempt to a live server, starts it itself, or leaves it to the next server.

use serde_json::json;

use crate::world::*;

#[test]
fn live_server_starts_the_next_attempt_at_once() {
    let world = World::new();
    let mut other = world.boss_named("another-boss");
    other.succeed("get_backend_status", json!({"backend": "fake"}));
    let mut boss = world.boss();
    let worker = create(&mut boss, mission("again", "fail-once ../../shared/failed\nwait-file ../../repo/go"));
    until_status(&mut boss, &worker, "failed");
    let ran = world.run(&["retry", &worker, "--fresh", "--json"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!((ran.json()["status"].clone(), ran.json()["attempt"].clone()), (json!("running"), json!(2)), "{ran:?}");
    let journal = world.journal();
    let starts: Vec<serde_json::Value> = journal
        .lines()
        .filter(|line| line.contains("\"starting\""))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(starts.len(), 2, "{journal}");
    assert_eq!(starts[0]["server"], starts[1]["server"], "the server that led it continues");
    std::fs::write(world.repo().join("go"), "").unwrap();
    until_status(&mut boss, &worker, "completed");
}

#[test]
fn retry_without_server_starts_the_attempt_itself() {
    let world = World::new();
    let mut boss = world.boss();
    let worker = create(
        &mut boss,
        mission("again", "fail-once ../../shared/failed\nwait-file ../../repo/go\nwrite a.txt a\ncommit a"),
    );
    until_status(&mut boss, &worker, "failed");
    boss.kill_server();
    let said = world.run(&["retry", &worker, "--fresh"]).ended(0);
    assert_eq!(said, format!("{worker}: running (attempt 2, fake)\n"));
    // No server runs now; the supervisor continues.
    std::fs::write(world.repo().join("go"), "").unwrap();
    until_exists(&world.attempt(&worker, 2).join("outcome.json"));
    let mut next = world.boss_named("a-third-boss");
    until_status(&mut next, &worker, "completed");
}

#[test]
fn queued_retry_starts_with_the_next_server() {
    let world = World::with("max_workers = 1");
    let mut boss = world.boss();
    let again = create(&mut boss, mission("again", "fail-once ../../shared/failed\nwrite a.txt a\ncommit a"));
    until_status(&mut boss, &again, "failed");
    let runs = create(&mut boss, mission("runs", "wait-file ../../repo/go"));
    until_status(&mut boss, &runs, "running");
    boss.kill_server();
    let said = world.run(&["retry", &again, "--fresh"]).ended(0);
    assert!(said.contains("queued (attempt 2, fake), waiting for a free slot: 1 of 1 workers run"), "{said}");
    let mut next = world.boss();
    std::fs::write(world.repo().join("go"), "").unwrap();
    until_status(&mut next, &again, "completed");
}

#[test]
fn retry_of_open_worker_hints_at_cancel() {
    let world = World::new();
    let mut boss = world.boss();
    let worker = create(&mut boss, mission("open", "wait-file ../../repo/go"));
    until_status(&mut boss, &worker, "running");
    let ran = world.run(&["retry", &worker]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("orchestrator-boss cancel"), "{ran:?}");
    assert!(!ran.stderr.contains("cancel_worker"), "{ran:?}");
    std::fs::write(world.repo().join("go"), "").unwrap();
    until_status(&mut boss, &worker, "completed");
}

/// Runs the program without naming a settings file.
fn without_config(world: &World, args: &[&str]) -> Ran {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_orchestrator-boss"));
    let environment = world.program(&[]);
    command.env_clear().envs(environment.get_envs().filter_map(|(name, value)| Some((name, value?))));
    Ran::of(command.args(args).current_dir(world.repo()).output().expect("the program runs"))
}

#[test]
fn retry_finds_the_backend_without_settings() {
    let world = World::new();
    let mut boss = world.boss();
    let worker = create(&mut boss, mission("again", "fail-once ../../shared/failed\nsay done"));
    until_status(&mut boss, &worker, "failed");
    boss.leave();
    world.until_all_exited();
    without_config(&world, &["retry", &worker, "--fresh"]).ended(0);
    let mut next = world.boss();
    until_status(&mut next, &worker, "completed");
    next.leave();
    world.until_all_exited();
    // Without the settings file, the backend comes from the worker's record.
    let settings = world.path("config.toml");
    std::fs::rename(&settings, world.path("elsewhere.toml")).unwrap();
    without_config(&world, &["retry", &worker, "--fresh"]).ended(0);
    std::fs::rename(world.path("elsewhere.toml"), &settings).unwrap();
    let mut next = world.boss();
    until_status(&mut next, &worker, "completed");
    without_config(&world, &["cancel", &worker]).ended(0);
}
