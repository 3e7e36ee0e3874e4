//! Commands report the same facts about a worker: its messages and their authors, how it ended, its time and its names.

use std::fs;

use serde_json::json;

use crate::world::*;

#[test]
fn user_messages_are_shown_on_every_screen() {
    let world = World::new();
    let mut boss = world.boss();
    let worker =
        create(&mut boss, mission("written", &format!("fail-once {}\nhang", world.shared("failed").display())));
    until_status(&mut boss, &worker, "failed");
    world.run(&["retry", &worker, "--fresh", "--feedback", "mind the tests in api"]).ended(0);
    until_status(&mut boss, &worker, "running");
    let status = world.run(&["status", &worker]).ended(0);
    assert!(status.contains("user, delivered: mind the tests in api"), "{status}");
    boss.succeed("send_message_to_worker", json!({"worker_id": worker, "message": "look at b"}));
    let status = world.run(&["status", &worker]).ended(0);
    assert!(status.contains("boss, waiting: look at b"), "{status}");
    let logs = world.run(&["logs", &worker]).ended(0);
    for says in ["user wrote: mind the tests in api", "boss wrote: look at b", "not delivered yet: look at b"] {
        assert!(logs.contains(says), "{says} in\n{logs}");
    }

    let said = world.run(&["cancel", &worker, "--reason", "the plan has changed"]).ended(0);
    assert!(said.contains("1 message was not delivered: \"look at b\""), "{said}");
    let status = world.run(&["status", &worker]).ended(0);
    for says in ["cancelled  by the user: the plan has changed", "boss, not delivered: look at b"] {
        assert!(status.contains(says), "{says} in\n{status}");
    }
    let logs = world.run(&["logs", &worker, "--attempt", "all"]).ended(0);
    for says in ["cancelled by the user: the plan has changed", "1 message was not delivered: \"look at b\""] {
        assert!(logs.contains(says), "{says} in\n{logs}");
    }
    let all = world.run(&["status"]).ended(0);
    assert!(all.contains("by the user"), "{all}");
    let answer = boss.succeed("get_worker_status", json!({"worker_id": worker, "include": ["messages"]}));
    let message = &answer["worker"]["outcome"]["run"]["message"];
    assert!(message.as_str().unwrap().contains("cancelled by the user: the plan has changed"), "{answer:#}");
    let texts: Vec<_> = answer["messages"].as_array().unwrap().iter().map(|it| it["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["(not delivered) look at b", "(by the user) mind the tests in api"]);

    world.run(&["report", "--output", world.path("r.html").to_str().unwrap()]).ended(0);
    let html = fs::read_to_string(world.path("r.html")).unwrap();
    for says in ["<b>User: </b>mind the tests in api", "<b>Boss: </b>look at b", "by the user: the plan has changed"] {
        assert!(html.contains(says), "{says}");
    }
}

#[test]
fn blocked_worker_has_no_green_tick() {
    let world = World::new();
    let mut boss = world.boss();
    let stuck = create(&mut boss, mission("stuck", "say BLOCKED: no key for the payment provider"));
    let good = create(&mut boss, mission("good", &format!("fail-once {}\nsay done", world.shared("failed").display())));
    until_status(&mut boss, &stuck, "completed");
    until_status(&mut boss, &good, "failed");
    let all = world.run(&["status"]).ended(0);
    assert!(all.starts_with("1 needs you · 1 failed"), "{all}");
    let row = all.lines().find(|line| line.contains("w-1")).unwrap();
    assert!(row.starts_with("◆ needs you") && !all.contains('✓'), "{all}");
    let waited = world.run(&["wait", &stuck]);
    assert!(waited.stdout.contains("but reports that it is blocked: no key for the payment provider"), "{waited:?}");
    let logs = world.run(&["logs", &stuck]).ended(0);
    assert!(logs.contains("reports that it is blocked: no key for the payment provider"), "{logs}");

    // The retry of `good` completes; `worse` fails in both attempts.
    world.run(&["retry", &good, "--fresh"]).ended(0);
    until_status(&mut boss, &good, "completed");
    let worse = create(&mut boss, with(mission("worse", "exit 3"), "max_attempts", 2));
    until("it has failed twice", || {
        let status = status(&mut boss, &worse);
        status["status"] == "failed" && status["attempt"] == 2
    });
    world.run(&["report", "--output", world.path("r.html").to_str().unwrap()]).ended(0);
    let html = fs::read_to_string(world.path("r.html")).unwrap();
    for says in
        ["<dt>needs you</dt><dd>1</dd>", "<dt>completed<small>1 after a retry</small></dt><dd>1</dd>", "◆ needs you"]
    {
        assert!(html.contains(says), "{says}");
    }
}

#[test]
fn time_is_the_same_on_every_screen() {
    let world = World::new();
    let mut boss = world.boss();
    let worker = create(
        &mut boss,
        with(
            mission("timed", "say done"),
            "verify_command",
            format!("while [ ! -e {} ]; do sleep 0.05; done", world.shared("go").display()),
        ),
    );
    until("it is verified for a while", || status(&mut boss, &worker)["elapsed_seconds"].as_u64() >= Some(2));
    fs::write(world.shared("go"), "").unwrap();
    until_status(&mut boss, &worker, "completed");
    let seconds = status(&mut boss, &worker)["elapsed_seconds"].as_u64().unwrap();
    assert!(seconds >= 2);
    let after = format!("completed after {seconds}s");
    assert!(world.run(&["logs", &worker]).ended(0).contains(&after));
    assert!(world.run(&["wait", &worker]).ended(0).contains(&after));
    assert_eq!(world.run(&["wait", &worker, "--json"]).json_lines()[0]["seconds"], seconds);
    let detail = world.run(&["status", &worker]).ended(0);
    assert!(detail.contains(&format!("time       {seconds}s")), "{detail}");
    assert_eq!(world.run(&["status", &worker, "--json"]).json()["elapsed_seconds"], seconds);
    let waited = boss.succeed("wait_for_worker", json!({"worker_id": worker}));
    assert_eq!(waited["settled"][0]["elapsed_seconds"], seconds, "{waited:#}");
    world.run(&["report", "--output", world.path("r.html").to_str().unwrap()]).ended(0);
    let html = fs::read_to_string(world.path("r.html")).unwrap();
    assert!(html.contains(&format!("data-name=\"Time\">{seconds}s<")), "{seconds}");
}

#[test]
fn commands_find_workers_by_every_name() {
    let world = World::new();
    let mut boss = world.boss();
    let worker = create(&mut boss, with(mission("Named", "write a.txt a\ncommit a"), "task_id", "tax"));
    until_status(&mut boss, &worker, "completed");
    let branch = status(&mut boss, &worker)["branch"].as_str().unwrap().to_owned();
    for name in ["1", "W-1", "w-1-named", "W-1-NAMED", "tax", &branch, &format!("refs/heads/{branch}")] {
        assert_eq!(world.run(&["status", name, "--json"]).json()["worker_id"], *worker, "{name}");
        world.run(&["logs", name]).ended(0);
        world.run(&["wait", name]).ended(0);
    }
    create(&mut boss, with(mission("Other", "hang"), "task_id", "1"));
    let ran = world.run(&["cancel", "1"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("\"1\" is the number of w-1-named and the task of w-2-other"), "{ran:?}");
    let ran = world.run(&["status", "w-1-nmed"]);
    assert!(ran.stderr.contains("use w-1-named, or `orchestrator-boss status` lists all"), "{ran:?}");
    world.run(&["cancel", "w-2"]).ended(0);
}

#[test]
fn only_unmerged_changes_of_retry_are_to_merge() {
    let world = World::new();
    let mut boss = world.boss();
    let worker = create(&mut boss, mission("again", "session s\nwrite a.txt a\ncommit a\nwrite b.txt b\ncommit b"));
    until_status(&mut boss, &worker, "completed");
    let all = world.run(&["status"]).ended(0);
    assert!(all.contains("to merge: 2 commits"), "{all}");
    world.run(&["integrate", &worker]).ended(0);
    let feedback = "FAKE:\nsession s\nwrite c.txt c\ncommit c";
    boss.succeed("retry_worker", json!({"worker_id": worker, "feedback": feedback}));
    until("it has completed twice", || {
        let status = status(&mut boss, &worker);
        status["status"] == "completed" && status["attempt"] == 2
    });
    let all = world.run(&["status"]).ended(0);
    assert!(all.contains("to merge: 1 commit"), "{all}");
    let detail = world.run(&["status", &worker]).ended(0);
    for says in ["3 commits, 3 files +3 -0", "1 commit, 1 file +1 -0"] {
        assert!(detail.contains(says), "{says} in {detail}");
    }
}

#[test]
fn empty_unstarted_and_refused_work_is_described_correctly() {
    let world = World::with("max_workers = 1");
    let mut boss = world.boss();
    let empty = create(&mut boss, mission("empty", "say nothing to do"));
    until_status(&mut boss, &empty, "completed");
    let said = world.run(&["integrate", &empty]).ended(0);
    assert!(said.contains("has no commits to merge into main"), "{said}");
    let answer = boss.succeed("integrate_worker", json!({"worker_id": empty}));
    assert!(answer["next_step"].as_str().unwrap().contains("the worker has no commits"), "{answer:#}");

    let runs = create(&mut boss, mission("runs", "hang"));
    until_status(&mut boss, &runs, "running");
    let waits = create(&mut boss, mission("waits", "hang"));
    world.run(&["cancel", &waits]).ended(0);
    let logs = world.run(&["logs", &waits]).ended(0);
    assert!(logs.starts_with("attempt 1 never started\n"), "{logs}");
    let needs = with(mission("needs", "hang"), "depends_on", json!([waits]));
    let blocked = create(&mut boss, needs);
    let refused = boss.refused("retry_worker", json!({"worker_id": blocked}));
    assert!(refused.contains("it has not begun, since it is blocked"), "{refused}");
    world.run(&["cancel", "--all"]).ended(0);

    let nowhere = world.path("nowhere/r.html");
    let ran = world.run(&["report", "--output", nowhere.to_str().unwrap()]);
    assert!(ran.stderr.contains("there is no folder") && !ran.stderr.contains(".report-"), "{ran:?}");
    let backends = boss.succeed("get_backend_status", json!({"backend": "fake"}));
    assert!(backends["backends"][0]["models"].as_array().is_none_or(|models| models.is_empty()), "{backends:#}");
}

/// The reason why a worker waits is that of its last server, which cannot start it any more.
#[test]
fn queued_worker_without_server_waits_for_its_boss() {
    let world = World::new();
    let mut boss = world.boss();
    let long = create(&mut boss, mission("long", "touch begun\nwait-file ../../repo/go"));
    let after = create(&mut boss, with(mission("after", "say done"), "context_from", json!([long])));
    until_exists(&world.worktree(&long).join("begun"));
    let detail = |world: &World| world.run(&["status", &after]).ended(0);
    let waiting = |said: &str| said.lines().any(|line| line.starts_with("waiting "));
    until("the reason is saved", || waiting(&detail(&world)));
    boss.kill_server();
    std::fs::write(world.repo().join("go"), "").unwrap();
    world.until_all_exited();
    let said = detail(&world);
    let server = said.lines().find(|line| line.starts_with("server ")).unwrap_or_else(|| panic!("{said}"));
    assert!(server.ends_with("none: start its boss again") && !waiting(&said), "{said}");
    let table = world.run(&["status"]).ended(0);
    assert!(table.contains("no server: start its boss again") && !table.contains("waiting for"), "{table}");
    let json = world.run(&["status", &after, "--json"]).json();
    assert!(json["waits_for"].is_null(), "{json:#}");
}
