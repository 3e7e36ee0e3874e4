//! The user's `notify_command` gets every event once, and delays nothing. The terminal notifies of finished workers.

use serde_json::{Value, json};

use crate::support::sandbox::fake_cli;
use crate::world::*;

/// Returns all events that the command of [`recording`] has received.
fn received(world: &World) -> Vec<Value> {
    let text = std::fs::read_to_string(world.path("received")).unwrap_or_default();
    let calls = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    calls.flat_map(|call| call["events"].as_array().unwrap().clone()).collect()
}

/// Creates a world in which the command writes its input to a file.
fn recording(settings: &str) -> World {
    World::with(&format!("notify_command = \"cat >> ../received\"\n{settings}"))
}

fn until_all_done(world: &World) -> Vec<Value> {
    until("the last event", || received(world).iter().any(|it| it["event"] == "all_done"));
    received(world)
}

#[test]
fn notify_command_gets_every_event_once() {
    let world = recording("");
    let mut boss = world.boss();
    let workers = [
        mission("good", "say done"),
        mission("bad", "result error it broke"),
        mission("stuck", "say BLOCKED: no key"),
        mission("gone", "hang"),
    ];
    boss.succeed("batch_create_workers", json!({"workers": workers}));
    until_status(&mut boss, "w-4", "running");
    boss.succeed("cancel_worker", json!({"worker_id": "w-4"}));
    let mut events = until_all_done(&world);
    assert_eq!(events.pop().unwrap()["event"], "all_done");
    events.sort_by_key(|it| it["worker_id"].as_str().unwrap().to_owned());
    let brief =
        |it: &Value| ["event", "worker_id", "title", "status"].map(|name| it[name].as_str().unwrap().to_owned());
    assert_eq!(
        events.iter().map(brief).collect::<Vec<_>>(),
        [
            ["finished", "w-1-good", "good", "completed"],
            ["failed", "w-2-bad", "bad", "failed"],
            ["needs_answer", "w-3-stuck", "stuck", "completed"],
        ]
    );
    assert!(events[1]["reason"].as_str().unwrap().contains("it broke"), "{events:#?}");
    assert_eq!(events[2]["reason"], "no key");
    let repository = world.repo().display().to_string();
    assert!(events.iter().all(|it| it["repository"] == *repository && it["time"].is_string()), "{events:#?}");
}

#[test]
fn notify_setting_chooses_the_events() {
    let world = recording("notify = [\"all_done\"]");
    let mut boss = world.boss();
    create(&mut boss, mission("good", "say done"));
    let events = until_all_done(&world);
    assert_eq!(events.len(), 1, "{events:#?}");
}

#[test]
fn hanging_or_failing_command_delays_nothing() {
    let hang = "touch ../started; while [ ! -e ../released ]; do sleep 0.02; done; echo broken >&2; exit 3";
    let world = World::with(&format!("notify_command = \"{hang}\""));
    let mut boss = world.boss();
    let first = create(&mut boss, mission("first", "say done"));
    until_status(&mut boss, &first, "completed");
    until_exists(&world.path("started"));
    let second = create(&mut boss, mission("second", "say done"));
    let answer = boss.succeed("wait_for_worker", json!({"worker_id": second, "timeout_seconds": 60}));
    assert_eq!(answer["status"], "settled", "{answer:#}");
    std::fs::write(world.path("released"), "").unwrap();
    until("its failure is logged", || {
        world.log().contains("notify_command: cannot complete the command: exit status: 3: broken")
    });
}

#[test]
fn next_server_notifies_of_what_ended_without_one() {
    let world = recording("");
    let mut boss = world.boss();
    let before = create(&mut boss, mission("before", "say done"));
    until_status(&mut boss, &before, "completed");
    until_all_done(&world);
    let worker = create(&mut boss, mission("alone", "wait-file ../../repo/go"));
    until_status(&mut boss, &worker, "running");
    boss.kill_server();
    std::fs::write(world.repo().join("go"), "").unwrap();
    until_exists(&world.attempt(&worker, 1).join("outcome.json"));
    std::fs::remove_file(world.path("received")).unwrap();
    let _next = world.boss();
    let events = until_all_done(&world);
    assert_eq!((events[0]["event"].as_str(), events[0]["worker_id"].as_str()), (Some("finished"), Some(&*worker)));
    assert_eq!(events.len(), 2, "{events:#?}");
}

/// Starts workers that end when `go` exists, kills the server, and lets them end.
fn end_without_server(world: &World, titles: &[&str]) -> Vec<String> {
    let mut boss = world.boss();
    let missions: Vec<Value> = titles.iter().map(|title| mission(title, "wait-file ../../repo/go")).collect();
    boss.succeed("batch_create_workers", json!({"workers": missions}));
    let workers: Vec<String> = (1..).zip(titles).map(|(number, title)| format!("w-{number}-{title}")).collect();
    for worker in &workers {
        until_status(&mut boss, worker, "running");
    }
    boss.kill_server();
    std::fs::write(world.repo().join("go"), "").unwrap();
    workers
}

#[test]
fn supervisors_notify_without_server() {
    let world = recording("");
    let workers = end_without_server(&world, &["one", "two", "three"]);
    let mut events = until_all_done(&world);
    assert_eq!(events.pop().unwrap()["event"], "all_done");
    let mut ended: Vec<&str> = events.iter().map(|it| it["worker_id"].as_str().unwrap()).collect();
    ended.sort();
    let mut expected: Vec<&str> = workers.iter().map(|worker| &**worker).collect();
    expected.sort();
    assert_eq!(ended, expected, "{events:#?}");
    assert!(events.iter().all(|it| it["event"] == "finished"), "{events:#?}");

    // The next server records their ends without sending these events again. It sends only that of its own worker.
    let mut boss = world.boss();
    for worker in &workers {
        until_status(&mut boss, worker, "completed");
    }
    let own = create(&mut boss, mission("own", "say done"));
    until("its own event", || received(&world).iter().any(|it| it["worker_id"] == *own));
    for worker in &workers {
        let count = received(&world).iter().filter(|it| it["worker_id"] == **worker).count();
        assert_eq!(count, 1, "{worker}: {:#?}", received(&world));
    }
}

#[test]
fn supervisor_notifies_of_a_stall_without_server() {
    let world = recording("stall_minutes = 0.02");
    let mut boss = world.boss();
    let worker = create(&mut boss, mission("quiet", "burn-until ../../repo/go\nhang"));
    until_status(&mut boss, &worker, "running");
    boss.kill_server();
    std::fs::write(world.repo().join("go"), "").unwrap();
    until("the stall", || received(&world).len() == 1);
    let event = received(&world).remove(0);
    assert_eq!((event["event"].as_str(), event["worker_id"].as_str()), (Some("needs_answer"), Some(&*worker)));
    assert!(event["reason"].as_str().unwrap().starts_with("stalled: no event, no output"), "{event:#}");

    // The next server does not send it again.
    let mut boss = world.boss();
    until("the next server sees it", || status(&mut boss, &worker)["stalled"] == true);
    let own = create(&mut boss, mission("own", "say done"));
    until("its own event", || received(&world).iter().any(|it| it["worker_id"] == *own));
    assert_eq!(received(&world).iter().filter(|it| it["worker_id"] == *worker).count(), 1);
    world.run(&["cancel", &worker]).ended(0);
}

/// Creates a world with the policy `ask`, and the scripted agent as the backend `agent`.
fn asking() -> World {
    let agent = format!(
        "questions = \"ask\"\n[[custom]]\nname = \"agent\"\nprogram = {:?}\nargs = [\"--acp\"]\noutput = \"acp\"\n",
        fake_cli()
    );
    recording(&agent)
}

fn asks(title: &str, script: &str) -> Value {
    with(mission(title, script), "backend", "agent")
}

/// Returns the questions in the events.
fn questions(world: &World) -> Vec<Value> {
    let asks =
        |event: &Value| event["reason"].as_str().is_some_and(|reason| reason.starts_with("asks: permission for"));
    received(world).into_iter().filter(asks).collect()
}

#[test]
fn each_question_notifies_the_user_once() {
    let world = asking();
    let mut boss = world.boss();
    let worker = create(&mut boss, asks("asks", "ask edit /etc/one\nask edit /etc/two\nsay done"));
    for number in 1..=2 {
        until("the question", || questions(&world).len() == number);
        boss.succeed("send_message_to_worker", json!({"worker_id": worker, "decision": "deny"}));
    }
    let events = until_all_done(&world);
    let brief = |it: &Value| ["event", "status"].map(|name| it[name].as_str().unwrap_or_default().to_owned());
    let expected = [
        ["needs_answer", "needs_answer"],
        ["needs_answer", "needs_answer"],
        ["finished", "completed"],
        ["all_done", ""],
    ];
    assert_eq!(events.iter().map(brief).collect::<Vec<_>>(), expected, "{events:#?}");
}

#[test]
fn supervisor_notifies_of_a_question_without_server() {
    let world = asking();
    let mut boss = world.boss();
    let worker = create(&mut boss, asks("asks", "wait-file ../../repo/go\nask edit /etc/hosts\nsay done"));
    until_status(&mut boss, &worker, "running");
    boss.kill_server();
    std::fs::write(world.repo().join("go"), "").unwrap();
    until("the question", || questions(&world).len() == 1);
    // The next server does not send it again.
    let mut boss = world.boss();
    until_status(&mut boss, &worker, "needs_answer");
    let own = create(&mut boss, mission("own", "say done"));
    until("its own event", || received(&world).iter().any(|it| it["worker_id"] == *own));
    assert_eq!(questions(&world).len(), 1);
    world.run(&["cancel", &worker]).ended(0);
}

#[test]
fn doctor_shows_the_last_failure_until_a_success() {
    let world = World::with("notify_command = \"test -e ../works || { echo broken >&2; exit 3; }\"");
    let line = |world: &World| {
        let found = world.run(&["doctor", "--json"]).json();
        let checks = found["checks"]["place"].as_array().unwrap().clone();
        checks.into_iter().find(|it| it["name"] == "notify")
    };
    assert_eq!(line(&world), None);
    let mut boss = world.boss();
    create(&mut boss, mission("first", "say done"));
    until("the failure is recorded", || line(&world).is_some());
    let found = line(&world).unwrap();
    let message = found["message"].as_str().unwrap();
    assert!(message.contains("cannot complete the command: exit status: 3: broken"), "{message}");
    assert!(found["severity"] == "warn" && found["fix"][1].as_str().unwrap().starts_with("echo '{}' | "), "{found:#}");
    std::fs::write(world.path("works"), "").unwrap();
    create(&mut boss, mission("second", "say done"));
    until("a success clears it", || line(&world).is_none());
}

#[test]
fn event_of_killed_sender_reaches_next_server() {
    let world = recording("");
    let worker = end_without_server(&world, &["one"]).remove(0);
    until_exists(&world.attempt(&worker, 1).join("event-pending"));
    world.kill_supervisor(&worker);
    assert!(received(&world).is_empty());
    let _next = world.boss();
    let events = until_all_done(&world);
    assert_eq!(events[0]["worker_id"], *worker, "{events:#?}");
}
