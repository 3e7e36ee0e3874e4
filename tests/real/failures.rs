//! What the model's service refuses settles the worker soon, with the reason in a word.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::model_server::{Failure, Script};
use crate::world::World;

with_each_cli!(a_refused_key_ends_the_worker: Claude Codex Gemini OpenCode);
// The other two try again in silence for minutes.
with_each_cli!(a_rate_limit_ends_the_worker: Claude Codex);
with_each_cli!(a_rate_limit_that_says_when_it_ends_is_not_waited_for: Codex);

async fn a_refused_key_ends_the_worker(world: &World) {
    fails(world, &Script::new().fail(401), "auth_error").await;
    assert!(world.asked().len() <= 3, "it asked {} times", world.asked().len());
}

async fn a_rate_limit_ends_the_worker(world: &World) {
    fails(world, &Script::new().fail(429), "rate_limited").await;
}

async fn a_rate_limit_that_says_when_it_ends_is_not_waited_for(world: &World) {
    let failure = Failure { status: 429, times: None, kind: None, retry_after_seconds: Some(600) };
    fails(world, &Script::new().fail_with(failure), "rate_limited").await;
}

async fn fails(world: &World, script: &Script, reason: &str) {
    let began = Instant::now();
    let worker = world.start(script, json!({})).await;
    let told = world.settled(&worker).await;
    assert_eq!(told["status"], "failed", "{told:#}");
    assert_eq!(told["outcome"]["run"]["reason"], reason, "{told:#}");
    assert!(told["outcome"]["run"]["message"].is_string(), "{told:#}");
    assert!(began.elapsed() < Duration::from_secs(60), "it took {:?}", began.elapsed());
}
