//! Messages to a running worker: delivered during the turn if the CLI supports that, otherwise at its end, or at once
//! by an interrupt. The session stays the same.

use std::fs;

use serde_json::{Value, json};

use crate::model_server::Script;
use crate::real_cli::Cli;
use crate::world::World;

with_each_cli!(message_arrives_in_the_same_turn: Claude);
with_each_cli!(message_arrives_after_the_turn: Codex Gemini OpenCode);
with_each_cli!(message_interrupts_and_the_session_continues: Claude Codex Gemini OpenCode);

/// Returns a script whose command waits for a file.
fn until_released() -> Script {
    Script::new()
        .run("touch started; while [ ! -e released ]; do sleep 0.1; done; rm started released")
        .say("never released")
}

async fn message_arrives_in_the_same_turn(world: &World) {
    let delivery = deliver(world, "live").await;
    assert_eq!(
        (&delivery.worker["attempt"], &delivery.turns, &delivery.receipt),
        (&json!(1), &json!(1), &json!("received"))
    );
}

async fn message_arrives_after_the_turn(world: &World) {
    let delivery = deliver(world, "queued").await;
    assert_eq!(
        (&delivery.worker["attempt"], &delivery.turns, &delivery.receipt),
        (&json!(1), &json!(2), &json!("turn"))
    );
}

async fn message_interrupts_and_the_session_continues(world: &World) {
    let worker = world.start(&Script::new().run("sh -c 'touch started; exec sleep 300'").say("slept"), json!({})).await;
    world.until_made(&worker, "started").await;
    let delivery = send_and_wait(world, &worker, "interrupt", "live").await;
    assert_eq!((&delivery.worker["attempt"], &delivery.turns), (&json!(1), &json!(2)));
    // Claude Code reports when the model has received a message.
    let receipt = if world.cli == Cli::Claude { "received" } else { "turn" };
    assert_eq!(delivery.receipt, receipt);
}

/// The fate of a message.
struct Delivery {
    worker: Value,
    turns: Value,
    receipt: Value,
}

async fn deliver(world: &World, delivered: &str) -> Delivery {
    let worker = world.start(&until_released(), json!({})).await;
    world.until_made(&worker, "started").await;
    send_and_wait(world, &worker, "when_ready", delivered).await
}

async fn send_and_wait(world: &World, worker: &str, delivery: &str, delivered: &str) -> Delivery {
    let message = json!({"worker_id": worker, "message": "do that too", "delivery": delivery});
    let sent = world.call("send_message_to_worker", message).await;
    assert_eq!(sent["delivered"], delivered, "{sent:#}");
    fs::write(world.worktree(worker).join("released"), "").expect("a new file in the worktree");

    let settled = world.settled(worker).await;
    assert_eq!(settled["status"], "completed", "{settled:#}");
    assert_eq!(settled["final_message"], "heard: do that too", "{settled:#}");
    let asked = world.asked();
    let last = asked.last().expect("a request to the model");
    assert!(last.body.to_string().contains("SCRIPT:"), "the session was lost: {}", last.body);
    let details = world.details(worker, &["messages"]).await;
    assert_eq!(details["messages"][0]["message_id"], sent["message_id"], "{details:#}");
    Delivery {
        worker: settled,
        turns: world.attempt_file(worker, 1, "status.json")["turn"].clone(),
        receipt: details["messages"][0]["receipt"].clone(),
    }
}
