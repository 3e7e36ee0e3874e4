//! The session of an agent continues in the next attempt, even if the supervisor was killed.

use serde_json::json;

use super::with;
use crate::acp_agents::Agent;
use crate::model_server::{Script, Turn};
use crate::world::World;

// Gemini CLI finds a session only from the next minute on.
with_each_agent!(agent_resumes_after_a_killed_supervisor: OpenCode Qwen Copilot Claude Codex Vibe Kilo);

async fn agent_resumes_after_a_killed_supervisor(world: &World, agent: Agent) {
    let command = "sh -c 'touch started; sleep 300; true'";
    let worker = world.start(&Script::new().write("new.txt", "one\n").run(command).say("slept"), with(agent)).await;
    world.until_made(&worker, "started").await;
    let before = world.attempt_file(&worker, 1, "status.json");
    assert!(before["session_id"].is_string(), "{before:#}");
    world.kill_supervisor(&worker, 1);
    let first = world.settled(&worker).await;
    assert_eq!(first["status"], "lost", "{first:#}");
    assert_eq!(world.git_in(&world.worktree(&worker), &["status", "--porcelain", "new.txt"]).len(), 10, "it is kept");

    world.call("send_message_to_worker", json!({"worker_id": worker, "message": "go on"})).await;
    let second = world.settled(&worker).await;
    assert_eq!((&second["status"], &second["attempt"]), (&json!("completed"), &json!(2)), "{second:#}");
    assert_eq!(second["final_message"], "heard: go on", "{second:#}");
    assert_eq!(second["session_id"], before["session_id"], "{second:#}");
    let asked = world.asked().into_iter().find(|it| it.user_message() == "go on").expect("the message");
    let history = &asked.conversation.expect("it has a dialect").turns;
    assert!(history.iter().any(|turn| matches!(turn, Turn::User(text) if text.contains("SCRIPT:"))), "{history:?}");
}
