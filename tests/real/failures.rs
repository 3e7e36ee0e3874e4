//! An error of the model service settles the worker soon, with a reason.

use serde_json::json;

use crate::model_server::{Failure, Script};
use crate::world::World;

with_each_cli!(refused_key_ends_the_worker: Claude Codex Gemini OpenCode);
with_each_cli!(unknown_model_is_named: Claude Codex Gemini OpenCode);
with_each_cli!(refused_request_is_named: Claude Codex Gemini OpenCode);
// Gemini CLI and OpenCode retry for minutes without output.
with_each_cli!(rate_limit_ends_the_worker: Claude Codex);
with_each_cli!(rate_limit_with_an_end_is_not_awaited: Codex);
with_each_cli!(rate_limit_backs_off_and_uses_fallbacks: Codex);

async fn refused_key_ends_the_worker(world: &World) {
    fails(world, &Script::new().fail(401), "auth_error").await;
    assert!(world.asked().len() <= 3, "it sent {} requests", world.asked().len());
}

async fn unknown_model_is_named(world: &World) {
    fails(world, &Script::new().fail(404), "model_not_found").await;
}

async fn refused_request_is_named(world: &World) {
    let failure =
        Failure { status: 400, times: None, kind: Some("invalid_request_error".into()), retry_after_seconds: None };
    fails(world, &Script::new().fail_with(failure), "bad_request").await;
}

async fn rate_limit_ends_the_worker(world: &World) {
    fails(world, &Script::new().fail(429), "rate_limited").await;
}

async fn rate_limit_with_an_end_is_not_awaited(world: &World) {
    let failure = Failure { status: 429, times: None, kind: None, retry_after_seconds: Some(600) };
    fails(world, &Script::new().fail_with(failure), "rate_limited").await;
}

/// Checks the backoff of the server, since Codex gives up at the first 429.
async fn rate_limit_backs_off_and_uses_fallbacks(world: &World) {
    fails(world, &Script::new().fail(429), "rate_limited").await;
    let elsewhere = world.start(&Script::new().say("done there"), json!({"fallback_backends": ["claudecode"]})).await;
    let waits = world.start(&Script::new().say("done here"), json!({})).await;

    let status = world.call("get_backend_status", json!({"backend": "codex"})).await;
    assert!(status["backends"][0]["held_until"].is_string(), "{status:#}");
    let waiting = world.details(&waits, &[]).await;
    let why = waiting["worker"]["waits_for"].as_str().unwrap_or_default();
    assert!(why.starts_with("codex to accept work again at") && why.contains("429"), "{waiting:#}");

    let settled = world.settled(&elsewhere).await;
    assert_eq!((&settled["status"], &settled["backend"]), (&json!("completed"), &json!("claudecode")), "{settled:#}");
    assert_eq!(settled["final_message"], "done there");
    assert!(settled["diverted"].as_str().unwrap_or_default().contains("instead of waiting for codex"), "{settled:#}");
    let settled = world.settled(&waits).await;
    assert_eq!((&settled["status"], &settled["backend"]), (&json!("completed"), &json!("codex")), "{settled:#}");
}

async fn fails(world: &World, script: &Script, reason: &str) {
    let worker = world.start(script, json!({})).await;
    // The limit is shorter than the retries of a CLI take.
    let settled = world.settled(&worker).await;
    assert_eq!(settled["status"], "failed", "{settled:#}");
    assert_eq!(settled["outcome"]["run"]["reason"], reason, "{settled:#}");
    assert!(settled["outcome"]["run"]["message"].is_string(), "{settled:#}");
}
