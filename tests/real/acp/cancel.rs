//! Cancellation leaves no process of an agent.

use serde_json::json;

use super::with;
use crate::acp_agents::Agent;
use crate::model_server::Script;
use crate::world::{World, processes};

with_each_agent!(cancelled_agent_leaves_no_process: Gemini OpenCode Qwen Copilot Claude Codex Vibe Kilo);

async fn cancelled_agent_leaves_no_process(world: &World, agent: Agent) {
    // The port makes the command line unique on this machine.
    let sleep = format!("sleep 300.{}", world.model.url().rsplit(':').next().expect("an address has a port"));
    let command = format!("sh -c 'touch started; (setsid {sleep} &) ; {sleep}; true'");
    let worker = world.start(&Script::new().run(&command).say("slept"), with(agent)).await;
    world.until_made(&worker, "started").await;
    let answer = world.call("cancel_worker", json!({"worker_id": worker, "reason": "enough"})).await;
    assert_eq!((&answer["status"], &answer["survivors"]), (&json!("cancelled"), &json!(0)), "{answer:#}");
    let left: Vec<_> = processes().into_iter().filter(|it| it.command.contains(&sleep)).collect();
    assert!(left.is_empty(), "{left:?} of {answer:#}");
}
