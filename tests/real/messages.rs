//! Messages to a worker that works: heard in the same turn where the CLI can, else at its end, or at once by interrupt.
//! The session stays the same.

use std::fs;

use serde_json::{Value, json};

use crate::model_server::Script;
use crate::real_cli::Cli;
use crate::world::World;

with_each_cli!(message_arrives_in_the_same_turn: Claude);
with_each_cli!(message_arrives_after_the_turn: Codex Gemini OpenCode);
with_each_cli!(message_interrupts_and_the_session_continues: Claude Codex Gemini OpenCode);

/// A command that is told when to end by a file.
fn until_told() -> Script {
    Script::new().run("touch started; while [ ! -e told ]; do sleep 0.1; done; rm started told").say("never told")
}

async fn message_arrives_in_the_same_turn(world: &World) {
    let told = tell(world, "live").await;
    assert_eq!((&told.worker["attempt"], &told.turns, &told.receipt), (&json!(1), &json!(1), &json!("received")));
}

async fn message_arrives_after_the_turn(world: &World) {
    let told = tell(world, "queued").await;
    assert_eq!((&told.worker["attempt"], &told.turns, &told.receipt), (&json!(1), &json!(2), &json!("turn")));
}

async fn message_interrupts_and_the_session_continues(world: &World) {
    let worker = world.start(&Script::new().run("sh -c 'touch started; exec sleep 300'").say("slept"), json!({})).await;
    world.until_made(&worker, "started").await;
    let told = hears(world, &worker, "interrupt", "live").await;
    assert_eq!((&told.worker["attempt"], &told.turns), (&json!(1), &json!(2)));
    // Claude Code says of each message when the model has it.
    let receipt = if world.cli == Cli::Claude { "received" } else { "turn" };
    assert_eq!(told.receipt, receipt);
}

/// What became of a message.
struct Told {
    worker: Value,
    turns: Value,
    receipt: Value,
}

async fn tell(world: &World, delivered: &str) -> Told {
    let worker = world.start(&until_told(), json!({})).await;
    world.until_made(&worker, "started").await;
    hears(world, &worker, "when_ready", delivered).await
}

async fn hears(world: &World, worker: &str, delivery: &str, delivered: &str) -> Told {
    let message = json!({"worker_id": worker, "message": "do that too", "delivery": delivery});
    let sent = world.call("send_message_to_worker", message).await;
    assert_eq!(sent["delivered"], delivered, "{sent:#}");
    fs::write(world.worktree(worker).join("told"), "").expect("a new file in the worktree");

    let settled = world.settled(worker).await;
    assert_eq!(settled["status"], "completed", "{settled:#}");
    assert_eq!(settled["final_message"], "heard: do that too", "{settled:#}");
    let asked = world.asked();
    let last = asked.last().expect("it asked its model");
    assert!(last.body.to_string().contains("SCRIPT:"), "the session has forgotten what was before: {}", last.body);
    let details = world.details(worker, &["messages"]).await;
    assert_eq!(details["messages"][0]["message_id"], sent["message_id"], "{details:#}");
    Told {
        worker: settled,
        turns: world.attempt_file(worker, 1, "status.json")["turn"].clone(),
        receipt: details["messages"][0]["receipt"].clone(),
    }
}
