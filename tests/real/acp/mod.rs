//! Agents of the Agent Client Protocol as workers. Each test names its agents, and skips those that are not installed.
//!
//! A change must pass with Gemini CLI, OpenCode, Qwen Code and Copilot CLI. The others are installed by hand and by the
//! nightly workflow (`tests/real/agents`).

/// Defines a test for each of these agents from a function that takes a world and an agent. A second function, if there
/// is one, returns the settings of the user.
macro_rules! with_each_agent {
    ($test:ident: $($agent:ident)*) => {
        with_each_agent!(@ $test, (|_| String::new()): $($agent)*);
    };
    ($test:ident, $settings:ident: $($agent:ident)*) => {
        with_each_agent!(@ $test, (super::$settings): $($agent)*);
    };
    (@ $test:ident, $settings:tt: $($agent:ident)*) => {
        mod $test {
            use crate::acp_agents::Agent;

            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[allow(non_snake_case)]
            async fn $agent() {
                let agent = Agent::$agent;
                let settings = $settings(agent);
                crate::world::with_agent(agent, &settings, async |world| super::$test(world, agent).await).await;
            })*
        }
    };
}

mod cancel;
mod custom;
mod failures;
mod permissions;
mod questions;
mod registrations;
mod resume;
mod work;

use serde_json::{Value, json};

use crate::acp_agents::Agent;

/// Returns the fields of a mission for this agent.
fn with(agent: Agent) -> Value {
    json!({"backend": agent.backend(), "model_override": agent.model()})
}
