//! `cancel` with the boss's server alive, dead, or dying meanwhile.

use serde_json::json;

use crate::world::*;

#[test]
fn cancel_ends_workers_and_notifies_their_boss() {
    let world = World::new();
    let mut boss = world.boss();
    let one = create(&mut boss, mission("one", "hang"));
    let two = create(&mut boss, mission("two", "hang"));
    until_status(&mut boss, &one, "running");
    until_status(&mut boss, &two, "running");
    let said = world.run(&["cancel", &one, "w-2", "--reason", "enough"]).ended(0);
    assert!(said.contains(&format!("{one}: cancelled, no process is left")), "{said}");
    assert!(said.contains("w-2: cancelled") || said.contains(&format!("{two}: cancelled")), "{said}");
    // The boss did not ask for it, so it is notified.
    let waited = boss.succeed("wait_for_any_worker", json!({}));
    let ids: Vec<_> = waited["settled"].as_array().unwrap().iter().map(|it| it["worker_id"].clone()).collect();
    assert_eq!(ids, [json!(one), json!(two)], "{waited:#}");
    let again = world.run(&["cancel", &one, "--json"]);
    assert_eq!(again.json()[0]["already_settled"], true);
    assert_eq!(again.code, Some(0));
}

#[test]
fn cancel_all_ends_workers_of_every_boss() {
    let world = World::with("max_workers = 1");
    let mut boss = world.boss();
    let mut other = world.boss_named("another-boss");
    let runs = create(&mut boss, mission("runs", "hang"));
    until_status(&mut boss, &runs, "running");
    let waits = create(&mut other, mission("waits", "hang"));
    let ran = world.run(&["cancel", "--all", "--json"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let ran = ran.json();
    let mut ids: Vec<_> = ran.as_array().unwrap().iter().map(|it| it["worker_id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, [&runs, &waits]);
    assert_eq!(status(&mut other, &waits)["status"], "cancelled");
    assert_eq!(world.run(&["cancel", "--all"]).ended(0), "no worker is open\n");
}

#[test]
fn cancel_takes_over_only_the_named_worker() {
    let world = World::new();
    let mut boss = world.boss();
    let ended = create(&mut boss, mission("ended", "hang"));
    let lives = create(&mut boss, mission("lives", "touch here\nwait-file ../../repo/go"));
    until_status(&mut boss, &ended, "running");
    until_exists(&world.worktree(&lives).join("here"));
    until_status(&mut boss, &lives, "running");
    boss.kill_server();
    let said = world.run(&["cancel", &ended]).ended(0);
    assert!(said.contains("cancelled, no process is left"), "{said}");
    let taken: Vec<String> = world
        .journal()
        .lines()
        .filter(|line| line.contains("lease_taken") && line.contains(&lives))
        .map(str::to_owned)
        .collect();
    assert!(taken.is_empty(), "{taken:?}");
    let mut next = world.boss();
    assert_eq!(status(&mut next, &ended)["status"], "cancelled");
    std::fs::write(world.repo().join("go"), "").unwrap();
    until_status(&mut next, &lives, "completed");
}

#[test]
fn cancel_completes_though_the_server_dies() {
    let world = World::new();
    let mut boss = world.boss();
    let worker = create(&mut boss, mission("stubborn", "ignore-term\nignore-int\ntouch here\nhang"));
    until_exists(&world.worktree(&worker).join("here"));
    until_status(&mut boss, &worker, "running");
    let cancel = world.begin(&["cancel", &worker]);
    until("the cancellation is recorded", || world.journal().contains("cancel_requested"));
    boss.kill_server();
    let said = wait_for_end(cancel).ended(0);
    assert!(said.contains("cancelled"), "{said}");
}

#[test]
fn unknown_name_is_refused_before_any_cancellation() {
    let world = World::new();
    let unknown = world.run(&["cancel", "w-1"]);
    assert_eq!(unknown.code, Some(2), "{unknown:?}");
    let searched = world.state_dir().to_string_lossy().into_owned();
    assert!(unknown.stderr.contains("no missions in") && unknown.stderr.contains(&searched), "{unknown:?}");
    assert!(!world.state_dir().exists());
    let mut boss = world.boss();
    let worker = create(&mut boss, mission("continues", "wait-file ../../repo/go"));
    until_status(&mut boss, &worker, "running");
    let ran = world.run(&["cancel", &worker, "w-9"]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.stderr.contains("w-9") && ran.stderr.contains(&worker), "{ran:?}");
    assert_eq!(status(&mut boss, &worker)["status"], "running");
    std::fs::write(world.repo().join("go"), "").unwrap();
    until_status(&mut boss, &worker, "completed");
}

#[test]
fn ctrl_c_leaves_the_cancellation_running() {
    let world = World::new();
    let mut boss = world.boss();
    let worker = create(&mut boss, mission("slow to end", "ignore-term\nignore-int\ntouch here\nhang"));
    until_exists(&world.worktree(&worker).join("here"));
    until_status(&mut boss, &worker, "running");
    let cancel = world.begin(&["cancel", &worker]);
    until("the cancellation is recorded", || world.journal().contains("cancel_requested"));
    interrupt(&cancel);
    wait_for_end(cancel).ended(130);
    until_status(&mut boss, &worker, "cancelled");
}

#[test]
fn worker_cannot_cancel_others() {
    let world = World::new();
    let program = env!("CARGO_BIN_EXE_orchestrator-boss");
    let config = world.path("config.toml");
    let script = format!("run {program} --config {} cancel --all", config.display());
    let mut boss = world.boss();
    let worker = create(&mut boss, mission("mutiny", &script));
    until_status(&mut boss, &worker, "completed");
    let events = std::fs::read_to_string(world.attempt(&worker, 1).join("events.jsonl")).unwrap();
    assert!(events.contains("workers do not manage workers"), "{events}");
}
