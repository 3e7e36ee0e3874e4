//! Results longer than any line kept in memory: Claude Code repeats refused writes in its result.

use serde_json::json;

use crate::model_server::Script;
use crate::world::{World, mission};

with_each_cli!(long_result_with_refused_writes_ends_the_worker: Claude);
with_each_cli!(long_tool_output_hides_no_result: Claude Codex Gemini OpenCode);

async fn long_result_with_refused_writes_ends_the_worker(world: &World) {
    let content = "0123456 ".repeat(349_000 / 8);
    let mut script = Script::new();
    for number in 1..=3 {
        // A path outside the worktree, so that the write is refused.
        script = script.write(&world.path(&format!("refused-{number}.txt")).display().to_string(), &content);
    }
    world.model.register("refused", script.say("three were refused"));
    let mut mission = mission(world.cli, &Script::new());
    mission["prompt"] = "SCRIPT:refused".into();
    let created = world.call("create_worker_mission", mission).await;
    let worker = created["worker"]["worker_id"].as_str().expect("a worker has an id").to_owned();
    let settled = world.settled(&worker).await;
    assert_eq!(settled["status"], "completed", "{settled:#}");
    assert_eq!(settled["final_message"], "three were refused");
    assert_eq!(settled["outcome"]["changes"]["permission_denials"], 3, "{settled:#}");
    let denied = settled["outcome"]["changes"]["denied"].as_array().map(Vec::len);
    assert_eq!(denied, Some(3), "{settled:#}");
    let stdout = world.repo().join(".orchestrator/workers").join(&worker).join("attempts/1/stdout.log");
    let printed = std::fs::read_to_string(&stdout).unwrap_or_else(|error| panic!("{}: {error}", stdout.display()));
    let longest = printed.lines().map(str::len).max();
    assert!(longest > Some(1 << 20), "its longest line has only {longest:?} bytes");
}

async fn long_tool_output_hides_no_result(world: &World) {
    let script = Script::new().run("head -c 3000000 /dev/zero | tr '\\0' x; echo").say("it was long");
    let worker = world.start(&script, json!({})).await;
    let settled = world.settled(&worker).await;
    assert_eq!(
        (&settled["status"], &settled["final_message"]),
        (&json!("completed"), &json!("it was long")),
        "{settled:#}"
    );
}
