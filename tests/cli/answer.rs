//! `answer` does what a boss's answer does: the first one counts, and a late one names it.

use serde_json::json;

use crate::support::json_lines::Boss;
use crate::support::sandbox::fake_cli;
use crate::world::*;

/// The question of the first `ask` of a worker.
const FIRST: &str = "q1.1.1";

/// Creates a world in which the agent asks before an action that its mission does not permit.
pub fn asking_world() -> World {
    let agent =
        format!("[[custom]]\nname = \"agent\"\nprogram = {:?}\nargs = [\"--acp\"]\noutput = \"acp\"", fake_cli());
    World::with(&format!("questions = \"ask\"\n{agent}"))
}

/// Starts a worker that asks once for each of these paths, and waits for its first question.
pub fn start_asking(boss: &mut Boss, paths: &[&str]) -> String {
    let script: String = paths.iter().map(|path| format!("ask edit {path}\n")).collect();
    let worker = create(boss, with(mission("asks", &script), "backend", "agent"));
    until_status(boss, &worker, "needs_answer");
    worker
}

fn until_asked(boss: &mut Boss, worker: &str, question: &str) {
    until(question, || status(boss, worker)["questions"][0]["question_id"] == question);
}

#[test]
fn user_allows_what_a_worker_asks() {
    let world = asking_world();
    let mut boss = world.boss();
    let worker = start_asking(&mut boss, &["/etc/hosts"]);
    let listed = world.run(&["answer", "w-1"]);
    assert_eq!(listed.code, Some(2), "{listed:?}");
    assert!(
        listed
            .stdout
            .contains("q1.1.1: permission for edit: /etc/hosts (outside its worktree)\n  choices: allow, deny\n"),
        "{listed:?}"
    );
    assert!(listed.stderr.contains("orchestrator-boss answer w-1 --question q1.1.1 allow"), "{listed:?}");
    let listed = world.run(&["answer", &worker, "--json"]);
    assert_eq!((listed.code, &listed.json()["questions"][0]["id"]), (Some(2), &json!(FIRST)), "{listed:?}");

    let shown = world.run(&["status", "w-1"]).ended(0);
    assert!(shown.contains("needs_answer") && shown.contains("permission for edit: /etc/hosts"), "{shown}");
    assert!(world.run(&["status"]).ended(0).contains("needs an answer: permission for edit"));

    assert_eq!(world.run(&["answer", "w-1", "allow"]).ended(0), format!("q1.1.1 of {worker} is allowed\n"));
    until_status(&mut boss, &worker, "completed");
    let log = world.run(&["logs", &worker]).ended(0);
    for part in ["permission for edit: /etc/hosts", "q1.1.1 was answered by the user: allow", "ask: once"] {
        assert!(log.contains(part), "{part} in\n{log}");
    }
    let late = world.run(&["answer", "w-1", "deny"]);
    assert_eq!(late.code, Some(1), "{late:?}");
    assert!(late.stderr.contains("it is completed"), "{late:?}");
    let late = world.run(&["answer", "w-1"]);
    assert_eq!(late.code, Some(1), "{late:?}");
    assert!(late.stderr.contains("it has no open question (completed)"), "{late:?}");
}

#[test]
fn unusable_answer_changes_nothing() {
    let world = asking_world();
    let mut boss = world.boss();
    let worker = start_asking(&mut boss, &["/etc/hosts"]);
    for (args, code, says) in [
        (&["answer", "w-7", "allow"][..], 2, "no worker is called"),
        (&["answer", "w-1", "perhaps"], 2, "use one of allow, deny, once, no"),
        (&["answer", "w-1", "always"], 2, "use one of allow, deny, once, no"),
        (&["answer", "w-1", "--question", "q9.9.9", "allow"], 1, "no open question"),
        (&["answer", "w-1", "deny", "-m", " "], 2, "the message is empty"),
    ] {
        let ran = world.run(args);
        assert_eq!(ran.code, Some(code), "{ran:?}");
        assert!(ran.stderr.contains(says), "{says} in {ran:?}");
    }
    assert_eq!(status(&mut boss, &worker)["status"], "needs_answer");
    let answered = world.run(&["answer", "w-1", "no", "--json"]);
    let expected = json!({"worker_id": worker, "question_id": FIRST, "decision": "no"});
    let mut found = answered.json();
    found.as_object_mut().and_then(|fields| fields.remove("status")).expect("a status");
    assert_eq!(found, expected, "{answered:?}");
    until_status(&mut boss, &worker, "completed");
    let denied = &status(&mut boss, &worker)["outcome"]["changes"]["denied"];
    assert!(denied.to_string().contains("edit: /etc/hosts"), "{denied}");
}

#[test]
fn second_answer_names_the_first() {
    let world = asking_world();
    let mut boss = world.boss();
    let worker = start_asking(&mut boss, &["/etc/hosts", "/etc/passwd"]);
    boss.succeed("send_message_to_worker", json!({"worker_id": worker, "answers": FIRST, "decision": "deny"}));
    until_asked(&mut boss, &worker, "q1.1.2");
    let late = world.run(&["answer", "w-1", "--question", FIRST, "allow"]);
    assert_eq!(late.code, Some(1), "{late:?}");
    assert!(late.stderr.contains("it was already answered by the boss: deny"), "{late:?}");

    world.run(&["answer", "w-1", "allow"]).ended(0);
    until_status(&mut boss, &worker, "completed");
    let answer = json!({"worker_id": worker, "answers": "q1.1.2", "decision": "deny"});
    boss.refused("send_message_to_worker", answer);
    let log = world.run(&["logs", &worker]).ended(0);
    assert!(log.contains("ask: no") && log.contains("ask: once"), "{log}");
}

#[test]
fn question_ends_with_its_worker() {
    let world = asking_world();
    let mut boss = world.boss();
    let worker = start_asking(&mut boss, &["/etc/hosts"]);
    world.run(&["cancel", &worker]).ended(0);
    assert!(status(&mut boss, &worker)["questions"].as_array().is_none_or(Vec::is_empty));
    let late = world.run(&["answer", "w-1", "allow"]);
    assert_eq!(late.code, Some(1), "{late:?}");
    assert!(late.stderr.contains("it is cancelled"), "{late:?}");
}

#[test]
fn answer_needs_no_server() {
    let world = asking_world();
    let mut boss = world.boss();
    let worker = start_asking(&mut boss, &["/etc/hosts"]);
    boss.kill_server();
    world.run(&["answer", "w-1", "allow"]).ended(0);
    let mut boss = world.boss();
    until_status(&mut boss, &worker, "completed");
}
