//! `integrate` waits for the end, and its exit code shows whether everything was merged.

use crate::world::*;

#[test]
fn integrate_merges_workers_and_informs_their_boss() {
    let world = World::new();
    let mut boss = world.boss();
    let mut other = world.boss_named("another-boss");
    let one = create(&mut boss, mission("one", "write a.txt a\ncommit a"));
    let two = create(&mut other, mission("two", "write b.txt b\ncommit b"));
    until_status(&mut boss, &one, "completed");
    until_status(&mut other, &two, "completed");
    let said = world.run(&["integrate", &one, &two, "--dry-run"]).ended(0);
    assert!(said.contains("would merge into main"), "{said}");
    let said = world.run(&["integrate", &one, &two, "--verify-command", "test -f a.txt && test -f b.txt"]).ended(0);
    assert!(
        said.contains(&format!("merged {one}, {two} into main")) && said.lines().any(|it| it == "verification: passed"),
        "{said}"
    );
    assert!(world.repo().join("b.txt").exists());
    assert_eq!(status(&mut boss, &one)["integrated"]["into"], "main");
    assert!(world.run(&["integrate", &one]).ended(0).contains("already"));
}

#[test]
fn second_ctrl_c_merges_nothing_and_ends_verification() {
    let world = World::new();
    let mut boss = world.boss();
    let worker = create(&mut boss, mission("one", "write a.txt a\ncommit a"));
    until_status(&mut boss, &worker, "completed");
    let (main, begun) = (world.git(&["rev-parse", "main"]), world.shared("begun"));
    let command = format!("touch '{}'; sleep 1000", begun.display());
    let mut integrate = world.begin(&["integrate", &worker, "--verify-command", &command]);
    until_exists(&begun);
    let mut code = None;
    until("it ends", || {
        interrupt(&integrate);
        code = integrate.try_wait().unwrap();
        code.is_some()
    });
    assert_eq!(code.unwrap().code(), Some(130));
    assert_eq!(world.git(&["rev-parse", "main"]), main);
    let verifications = world.state_dir().join("integrations");
    until("the server removes the verification", || {
        std::fs::read_dir(&verifications).map_or(0, |found| found.count()) == 0
    });
    world.run(&["integrate", &worker, "--verify-command", "test -f a.txt"]).ended(0);
}

#[test]
fn conflicts_and_failed_verifications_exit_with_1() {
    let world = World::new();
    let mut boss = world.boss();
    let worker = create(&mut boss, mission("clash", "write README theirs\ncommit theirs"));
    until_status(&mut boss, &worker, "completed");
    let ran = world.run(&["integrate", &worker, "--verify-command", "echo no; exit 5", "--json"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert_eq!(ran.json()["status"], "verification_failed");
    let said = world.run(&["integrate", &worker, "--verify-command", "exit 5"]).ended(1);
    assert!(said.contains("verification: failed: exit status"), "{said}");
    std::fs::write(world.repo().join("README"), "ours\n").unwrap();
    world.git(&["commit", "-qam", "ours"]);
    let said = world.run(&["integrate", &worker]).ended(1);
    assert!(said.contains("conflict: README"), "{said}");
    let ran = world.run(&["integrate", "--branch", "nowhere"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert_eq!(world.run(&["integrate"]).code, Some(2));
    assert_eq!(world.run(&["integrate", &worker, "--verify-command", " "]).code, Some(2));
}

/// The branch of a failed worker is one of its names, which `integrate` takes for the worker.
#[test]
fn failed_worker_is_integrated_by_its_branch() {
    let world = World::new();
    let mut boss = world.boss();
    let worker = create(&mut boss, mission("failer", "write a.txt a\ncommit a\nexit 3"));
    until_status(&mut boss, &worker, "failed");
    let branch = format!("orchestrator/{worker}");
    let ran = world.run(&["integrate", &branch]);
    let hint =
        format!("read `orchestrator-boss diff {worker}` and run `orchestrator-boss integrate --branch {branch}`");
    assert!(ran.code == Some(1) && ran.stderr.contains(&hint), "{hint} in {ran:?}");
    world.run(&["integrate", "--branch", &branch]).ended(0);
    assert!(world.repo().join("a.txt").exists());
}
