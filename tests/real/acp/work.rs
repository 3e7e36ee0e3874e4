//! An agent works, commits, and gets a message in the same process. Its tokens are those that the model counted.

use serde_json::{Value, json};

use super::with;
use crate::acp_agents::Agent;
use crate::model_server::stream::{INPUT_TOKENS, OUTPUT_TOKENS};
use crate::model_server::{Recorded, Script, Turn};
use crate::world::World;

with_each_agent!(agent_commits_and_gets_messages: Gemini OpenCode Qwen Copilot Claude Codex Vibe Kilo);

async fn agent_commits_and_gets_messages(world: &World, agent: Agent) {
    let waits = "touch started; while [ ! -e go ]; do sleep 0.1; done; rm started go";
    let script = Script::new()
        .write("new.txt", "one\n")
        .run("git add new.txt && git commit -qm 'add it' && echo committed-by-me")
        .run(waits)
        .say("it is done");
    let mut mission = with(agent);
    mission["verify_command"] = "test -f new.txt".into();
    let worker = world.start(&script, mission).await;
    world.until_made(&worker, "started").await;
    let sent = world.call("send_message_to_worker", json!({"worker_id": worker, "message": "and then?"})).await;
    let is_live = agent.takes_live_messages();
    assert_eq!(sent["delivered"], if is_live { "live" } else { "queued" }, "{sent:#}");
    std::fs::write(world.worktree(&worker).join("go"), "").expect("a new file");
    let settled = world.settled(&worker).await;

    assert_eq!((&settled["status"], &settled["attempt"]), (&json!("completed"), &json!(1)), "{settled:#}");
    assert_eq!(settled["final_message"], "heard: and then?", "{settled:#}");
    let changes = &settled["outcome"]["changes"];
    assert_eq!((&changes["files"], &changes["commits"]), (&json!(["new.txt"]), &json!(1)), "{settled:#}");
    assert_eq!(world.git_in(&world.worktree(&worker), &["status", "--porcelain", "--ignored"]), "");
    let log = world.details(&worker, &["log"]).await["log"].to_string();
    for part in ["new.txt", "git commit", "received: and then?"] {
        assert!(log.contains(part), "{part} is not in: {log}");
    }
    assert_eq!(log.contains("said: it is done"), !is_live, "a live message changes the turn: {log}");
    let asked = world.asked();
    let last = asked.iter().find(|it| it.user_message() == "and then?").expect("the message");
    let history = &last.conversation.as_ref().expect("it has a dialect").turns;
    assert!(history.iter().any(|turn| matches!(turn, Turn::User(text) if text.contains("SCRIPT:"))), "{history:?}");

    check_tokens(world, agent, &settled);
}

/// Compares the counted tokens with the calls that the model answered. Only claude-agent-acp counts some of its side
/// requests, such as that for a title.
fn check_tokens(world: &World, agent: Agent, settled: &Value) {
    if !agent.counts_tokens() {
        return assert_eq!(settled["tokens"], json!(null), "{settled:#}");
    }
    let is_work = |it: &&Recorded| it.user_message() == "and then?" || it.user_message().starts_with("SCRIPT:");
    let tokens = |calls: usize| calls as u64 * (INPUT_TOKENS + OUTPUT_TOKENS);
    let least = tokens(world.asked().iter().filter(is_work).count());
    let most = if agent == Agent::Claude { tokens(world.model.requests().len()) } else { least };
    let counted = settled["tokens"].as_u64().unwrap_or(0);
    assert!((least..=most).contains(&counted), "it is not from {least} to {most}: {settled:#}");
}
