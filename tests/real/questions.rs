//! The questions of a real Claude Code: with the policy `ask`, what it would deny waits for a boss or the user.

use std::path::PathBuf;
use std::process::Output;

use serde_json::{Value, json};

use crate::model_server::Script;
use crate::real_cli::Cli;
use crate::world::{World, with_settings};

const ASK: &str = "questions = \"ask\"\n";

/// Defines a test in a world whose user has the policy `ask`.
macro_rules! asking {
    ($($test:ident)*) => {
        mod asks {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::with_settings(super::Cli::Claude, super::ASK, super::$test).await;
            })*
        }
    };
}

asking! {
    boss_allows_an_action
    boss_denies_with_a_reason
    user_answers_by_the_command
    form_is_answered_with_a_choice
    message_waits_for_the_answer
    cancel_while_asking_leaves_no_process
}

/// A file beside the repository, where the worker may not write.
fn outside(world: &World) -> PathBuf {
    world.shared("outside.txt")
}

/// Returns a script that writes inside the worktree, which asks nothing, and then outside.
fn writes_outside(world: &World) -> Script {
    let arguments = json!({"file_path": outside(world), "content": "x\n"});
    Script::new().write("inside.txt", "x\n").call("Write", arguments).say("done")
}

/// Waits for the question of a worker.
async fn asked(world: &World, worker: &str) -> Value {
    let answer = world.next_report().await;
    assert_eq!(
        (&answer["status"], &answer["questions"][0]["worker_id"]),
        (&json!("question"), &json!(worker)),
        "{answer:#}"
    );
    assert_eq!(world.details(worker, &[]).await["worker"]["status"], "needs_answer");
    answer["questions"][0].clone()
}

async fn decide(world: &World, worker: &str, question: &Value, decision: &str, message: Value) {
    let mut answer = json!({"worker_id": worker, "answers": question["question_id"], "decision": decision});
    if !message.is_null() {
        answer["message"] = message;
    }
    let sent = world.call("send_message_to_worker", answer).await;
    assert_eq!(sent["delivered"], "answered", "{sent:#}");
}

/// Runs the program as the user does.
fn run(world: &World, args: &[&str]) -> Output {
    let mut command = world.home.command(env!("CARGO_BIN_EXE_orchestrator-boss"));
    command.args(args).current_dir(world.repo()).output().expect("the program runs")
}

async fn boss_allows_an_action(world: &World) {
    let worker = world.start(&writes_outside(world), json!({})).await;
    let question = asked(world, &worker).await;
    let text = question["text"].as_str().expect("a text");
    assert!(text.contains(&format!("Write: {}", outside(world).display())), "{text}");
    assert!(world.worktree(&worker).join("inside.txt").exists() && !outside(world).exists());
    decide(world, &worker, &question, "allow", Value::Null).await;

    let settled = world.settled(&worker).await;
    assert_eq!((&settled["status"], &settled["final_message"]), (&json!("completed"), &json!("done")), "{settled:#}");
    assert!(outside(world).exists());
    assert_eq!(settled["outcome"]["changes"]["denied"], Value::Null, "{settled:#}");
    let late = run(world, &["answer", &worker, "deny"]);
    assert_eq!(late.status.code(), Some(1), "{late:?}");
}

async fn boss_denies_with_a_reason(world: &World) {
    let worker = world.start(&writes_outside(world), json!({})).await;
    let question = asked(world, &worker).await;
    decide(world, &worker, &question, "deny", json!("stay in your worktree")).await;
    let settled = world.settled(&worker).await;
    assert_eq!(settled["status"], "completed", "{settled:#}");
    assert!(!outside(world).exists());
    let changes = &settled["outcome"]["changes"];
    assert_eq!(changes["permission_denials"], 1, "{settled:#}");
    assert!(changes["denied"].to_string().contains("Write: "), "{changes:#}");
    let request = world.asked().last().map(|request| request.body.to_string()).unwrap_or_default();
    assert!(request.contains("This was denied: stay in your worktree"), "{request}");
    let log = world.details(&worker, &["log"]).await.to_string();
    assert!(log.contains("answered by the boss: deny"), "{log}");
}

async fn user_answers_by_the_command(world: &World) {
    let arguments = json!({"file_path": outside(world), "content": "x\n"});
    let script = Script::new().call("Write", arguments.clone()).call("Write", arguments).say("done");
    let worker = world.start(&script, json!({})).await;
    let first = asked(world, &worker).await;
    let first_id = first["question_id"].as_str().expect("an id");
    let answered = run(world, &["answer", &worker, "deny", "-m", "not there"]);
    assert!(answered.status.success(), "{answered:?}");
    let second = asked(world, &worker).await;
    assert_ne!(second["question_id"], first["question_id"]);
    let late = run(world, &["answer", &worker, "--question", first_id, "allow"]);
    let said = String::from_utf8_lossy(&late.stderr).into_owned();
    assert!(late.status.code() == Some(1) && said.contains("already answered by the user: deny"), "{said}");
    assert!(run(world, &["answer", &worker, "allow"]).status.success());
    let settled = world.settled(&worker).await;
    assert_eq!((&settled["status"], outside(world).exists()), (&json!("completed"), true), "{settled:#}");
}

async fn form_is_answered_with_a_choice(world: &World) {
    let options =
        json!([{"label": "Red", "description": "as today"}, {"label": "Blue", "description": "as in the sketch"}]);
    let question = json!({"question": "Which colour?", "header": "Colour", "multiSelect": false, "options": options});
    let script = Script::new().call("AskUserQuestion", json!({"questions": [question]})).say("done");
    let worker = world.start(&script, json!({})).await;
    let question = asked(world, &worker).await;
    assert!(question["text"].as_str().is_some_and(|text| text.starts_with("Which colour?")), "{question:#}");
    decide(world, &worker, &question, "2", Value::Null).await;
    assert_eq!(world.settled(&worker).await["status"], "completed");
    let request = world.asked().last().map(|request| request.body.to_string()).unwrap_or_default();
    assert!(request.contains(r#"\"Which colour?\"=\"Blue\""#), "{request}");
}

async fn message_waits_for_the_answer(world: &World) {
    let worker = world.start(&writes_outside(world), json!({})).await;
    let question = asked(world, &worker).await;
    let message = json!({"worker_id": worker, "message": "and be quick"});
    assert_eq!(world.call("send_message_to_worker", message).await["delivered"], "live");
    decide(world, &worker, &question, "allow", Value::Null).await;
    let settled = world.settled(&worker).await;
    assert_eq!(settled["final_message"], "heard: and be quick", "{settled:#}");
    assert!(outside(world).exists());
}

async fn cancel_while_asking_leaves_no_process(world: &World) {
    let worker = world.start(&writes_outside(world), json!({})).await;
    asked(world, &worker).await;
    let answer = world.call("cancel_worker", json!({"worker_id": worker, "reason": "enough"})).await;
    assert_eq!((&answer["status"], &answer["survivors"]), (&json!("cancelled"), &json!(0)), "{answer:#}");
    assert!(!outside(world).exists());
    let late = run(world, &["answer", &worker, "allow"]);
    assert_eq!(late.status.code(), Some(1), "{late:?}");
}
