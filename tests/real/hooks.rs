//! Hooks in the project's settings, as Claude Code runs them in a worker.

use std::fs;

use serde_json::{Value, json};

use crate::model_server::Script;
use crate::world::World;

with_each_cli!(blocking_stop_hook_keeps_the_final_message: Claude);
with_each_cli!(stop_hook_that_ends_the_turn_succeeds: Claude);

async fn blocking_stop_hook_keeps_the_final_message(world: &World) {
    let settled = run_with_hook(world, json!({"decision": "block", "reason": "not yet"})).await;
    assert_eq!(settled["status"], "completed", "{settled:#}");
    assert!(!settled["final_message"].as_str().unwrap_or_default().is_empty(), "{settled:#}");
}

async fn stop_hook_that_ends_the_turn_succeeds(world: &World) {
    let settled = run_with_hook(world, json!({"continue": false, "stopReason": "enough"})).await;
    assert_eq!(
        (&settled["status"], &settled["final_message"]),
        (&json!("completed"), &json!("all is done")),
        "{settled:#}"
    );
}

/// Runs a worker in a project whose Stop hook always gives this answer, and returns the settled worker.
async fn run_with_hook(world: &World, answer: Value) -> Value {
    let hook = json!({"type": "command", "command": format!("echo '{answer}'")});
    let settings = json!({"hooks": {"Stop": [{"hooks": [hook]}]}});
    fs::create_dir(world.repo().join(".claude")).expect("a new folder");
    fs::write(world.repo().join(".claude/settings.json"), settings.to_string()).expect("a new file");
    world.git(&["add", "."]);
    world.git(&["commit", "-q", "-m", "hooks"]);
    let worker = world.start(&Script::new().say("all is done"), json!({})).await;
    world.settled(&worker).await
}
