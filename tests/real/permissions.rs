//! A worker that may only read changes nothing, and its CLI is what holds it.

use std::fs;

use serde_json::json;

use crate::model_server::Script;
use crate::world::World;

with_each_cli!(a_worker_that_may_only_read_changes_nothing: claude codex gemini opencode);

async fn a_worker_that_may_only_read_changes_nothing(world: &World) {
    let script = Script::new()
        .write("by-tool.txt", "x\n")
        .run("echo x > by-command.txt")
        .run("git commit -q --allow-empty -m 'by command'")
        .say("I could not");
    let worker = world.start(&script, json!({"permissions": "read_only"})).await;
    let told = world.settled(&worker).await;

    let worktree = world.worktree(&worker);
    assert_eq!(world.git_in(&worktree, &["status", "--porcelain", "--ignored"]), "");
    assert_eq!(world.git_in(&worktree, &["rev-parse", "HEAD"]), world.git(&["rev-parse", "main"]));
    assert_eq!(fs::read_dir(&worktree).expect("it is kept").count(), 2, "README and .git");
    assert_eq!(told["outcome"]["changes"]["commits"], 0);
    assert_eq!(told["status"], "completed", "{told:#}");
    assert_eq!(told["final_message"], "I could not", "{told:#}");
    // That all three were tried is seen from what came back to the model.
    let results = world.asked().last().and_then(|it| it.conversation.clone()).expect("it asked its model");
    assert!(results.turns.len() >= 6, "{:?}", results.turns);
}
