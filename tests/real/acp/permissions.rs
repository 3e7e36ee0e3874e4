//! An agent that offers `read_only` changes nothing.

use std::fs;

use serde_json::{Value, json};

use super::with;
use crate::acp_agents::Agent;
use crate::model_server::Script;
use crate::world::{World, enforced};

// The others end their turn when an action is refused, so their backends do not offer it.
with_each_agent!(read_only_agent_changes_nothing: Gemini OpenCode Claude Codex Vibe);

async fn read_only_agent_changes_nothing(world: &World, agent: Agent) {
    // A refused edit ends the turn of codex-acp; its sandbox refuses commands.
    let begin = if agent == Agent::Codex { Script::new() } else { Script::new().write("by-tool.txt", "x\n") };
    let script =
        begin.run("echo x > by-command.txt").run("git commit -q --allow-empty -m 'by command'").say("I could not");
    let mut mission = with(agent);
    mission["permissions"] = "read_only".into();
    let worker = world.start(&script, mission.clone()).await;
    let settled = world.settled(&worker).await;

    check_unchanged(world, &worker, &settled);
    assert_eq!(
        (&settled["status"], &settled["final_message"]),
        (&json!("completed"), &json!("I could not")),
        "{settled:#}"
    );
    let otherwise = if agent == Agent::Codex { "sandbox" } else { "cli" };
    assert_eq!(settled["enforced"], enforced(otherwise), "{settled:#}");
    let tried = world.asked().iter().filter_map(|it| Some(it.conversation.as_ref()?.tool_results().len())).max();
    assert_eq!(tried, Some(script.0.len() - 1), "all actions were tried");

    if agent == Agent::Codex {
        let worker = world.start(&Script::new().write("by-tool.txt", "x\n").say("I could not"), mission).await;
        let settled = world.settled(&worker).await;
        check_unchanged(world, &worker, &settled);
        assert_eq!(settled["outcome"]["run"]["reason"], "permission", "{settled:#}");
    }
}

fn check_unchanged(world: &World, worker: &str, settled: &Value) {
    let worktree = world.worktree(worker);
    assert_eq!(world.git_in(&worktree, &["status", "--porcelain", "--ignored"]), "", "{settled:#}");
    assert_eq!(world.git_in(&worktree, &["rev-parse", "HEAD"]), world.git(&["rev-parse", "main"]), "{settled:#}");
    assert_eq!(fs::read_dir(&worktree).expect("it is kept").count(), 2, "README and .git");
    assert_eq!(settled["outcome"]["changes"]["commits"], 0, "{settled:#}");
}
