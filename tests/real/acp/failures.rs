//! An error of the model service ends an agent with a reason. An agent that retries for minutes can be cancelled.

use serde_json::json;

use super::with;
use crate::acp_agents::Agent;
use crate::model_server::Script;
use crate::wait::eventually;
use crate::world::World;

// The CLI in claude-agent-acp retries a refused key for minutes.
with_each_agent!(refused_key_ends_the_agent: Gemini OpenCode Qwen Copilot Codex Vibe Kilo);
with_each_agent!(unknown_model_ends_the_agent: Gemini OpenCode Qwen Copilot Claude Codex Vibe Kilo);
with_each_agent!(unknown_model_of_the_mission_is_named: Gemini OpenCode Qwen Copilot Claude Codex Vibe Kilo);
with_each_agent!(rate_limit_is_bounded: OpenCode Qwen Copilot Claude Codex Vibe Kilo);

async fn refused_key_ends_the_agent(world: &World, agent: Agent) {
    fails(world, agent, 401, "auth_error").await;
    assert!(world.asked().len() <= 4, "it sent {} requests", world.asked().len());
}

async fn unknown_model_ends_the_agent(world: &World, agent: Agent) {
    fails(world, agent, 404, "model_not_found").await;
}

/// Names a model that some agents refuse by themselves, and the service for the others.
async fn unknown_model_of_the_mission_is_named(world: &World, agent: Agent) {
    let mut mission = with(agent);
    mission["model_override"] = agent.unknown_model().into();
    let worker = world.start(&Script::new().fail(404), mission).await;
    let settled = world.settled(&worker).await;
    assert_eq!(settled["outcome"]["run"]["reason"], "model_not_found", "{settled:#}");
}

async fn rate_limit_is_bounded(world: &World, agent: Agent) {
    if agent == Agent::Codex {
        return fails(world, agent, 429, "rate_limited").await;
    }
    // All others retry for a minute or more.
    let worker = world.start(&Script::new().fail(429), with(agent)).await;
    eventually("a second request", || (world.asked().len() >= 2).then_some(())).await;
    let answer = world.call("cancel_worker", json!({"worker_id": worker, "reason": "enough"})).await;
    assert_eq!((&answer["status"], &answer["survivors"]), (&json!("cancelled"), &json!(0)), "{answer:#}");
}

async fn fails(world: &World, agent: Agent, status: u16, reason: &str) {
    let worker = world.start(&Script::new().fail(status), with(agent)).await;
    let settled = world.settled(&worker).await;
    assert_eq!(settled["status"], "failed", "{settled:#}");
    assert_eq!(settled["outcome"]["run"]["reason"], reason, "{settled:#}");
    assert!(settled["outcome"]["run"]["message"].is_string(), "{settled:#}");
}
