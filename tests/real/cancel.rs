//! Cancellation leaves no process of a worker, however its CLI runs commands.

use serde_json::json;

use crate::model_server::Script;
use crate::world::{World, processes};

with_each_cli!(cancel_ends_a_sleeping_worker: Claude Codex Gemini OpenCode);
with_each_cli!(cancel_ends_a_daemon_of_the_turn: Claude Codex Gemini OpenCode);

/// Only on Linux can the tests read all processes.
const NOT_LINUX: bool = cfg!(not(target_os = "linux"));

async fn cancel_ends_a_sleeping_worker(world: &World) {
    let sleep = sleep_of(world);
    let command = format!("sh -c 'touch started; (setsid {sleep} &) ; {sleep}; true'");
    let worker = world.start(&Script::new().run(&command).say("slept"), json!({})).await;
    world.until_made(&worker, "started").await;
    let tag = world.attempt_file(&worker, 1, "assignment.json")["tag"].as_str().expect("a tag").to_owned();
    let of_the_worker = || {
        let all = processes().into_iter();
        all.filter(|it| it.command.contains(&sleep) || it.has_in_its_environment(&tag)).collect::<Vec<_>>()
    };
    assert!(NOT_LINUX || of_the_worker().len() >= 2, "{:?}", of_the_worker());

    let answer = world.call("cancel_worker", json!({"worker_id": worker, "reason": "enough"})).await;
    let left = of_the_worker();
    assert!(left.is_empty(), "{left:?} of {answer:#}");
    assert_eq!((&answer["status"], &answer["survivors"]), (&json!("cancelled"), &json!(0)), "{answer:#}");
    assert!(NOT_LINUX || answer["proof"] == "full", "{answer:#}");

    // The session still exists and can be resumed.
    world.call("send_message_to_worker", json!({"worker_id": worker, "message": "go on"})).await;
    let settled = world.settled(&worker).await;
    assert_eq!((&settled["status"], &settled["attempt"]), (&json!("completed"), &json!(2)), "{settled:#}");
    assert_eq!(settled["final_message"], "heard: go on");
    assert!(world.asked().last().is_some_and(|it| it.body.to_string().contains("SCRIPT:")), "the session was lost");
}

async fn cancel_ends_a_daemon_of_the_turn(world: &World) {
    let sleep = sleep_of(world);
    let daemon = format!("(setsid {sleep} >/dev/null 2>&1 </dev/null & echo started; touch started)");
    let worker = world.start(&Script::new().run(&daemon).say("it runs"), json!({})).await;
    let settled = world.settled(&worker).await;
    assert_eq!(
        (&settled["status"], &settled["final_message"]),
        (&json!("completed"), &json!("it runs")),
        "{settled:#}"
    );
    assert!(world.worktree(&worker).join("started").exists());
    let left: Vec<_> = processes().into_iter().filter(|it| it.command.contains(&sleep)).collect();
    assert!(left.is_empty(), "{left:?}");
}

/// Returns a duration with which no other process on this machine sleeps.
fn sleep_of(world: &World) -> String {
    format!("sleep 300.{}", world.model.url().rsplit(':').next().expect("an address has a port"))
}
