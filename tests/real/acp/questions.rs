//! An agent asks before an action that its mission does not permit, and does what the boss decides.

use std::fs;

use serde_json::{Value, json};

use super::with;
use crate::acp_agents::Agent;
use crate::model_server::Script;
use crate::world::World;

// These ask before an edit outside of their directory, in the mode that the adapter sets.
with_each_agent!(edit_outside_is_asked_and_allowed, asking: OpenCode Copilot);
with_each_agent!(command_of_read_only_agent_is_asked, asking: Gemini);

fn asking(_: Agent) -> String {
    "questions = \"ask\"\n".to_owned()
}

async fn edit_outside_is_asked_and_allowed(world: &World, agent: Agent) {
    let outside = world.shared("outside.txt");
    let script = Script::new().write(outside.to_str().expect("a path as text"), "x\n").say("done");
    let worker = world.start(&script, with(agent)).await;
    let (questions, settled) = answered(world, &worker, "allow").await;
    assert!(questions.iter().all(|question| question["text"].as_str().is_some_and(|it| it.contains("outside"))));
    assert!(!questions.is_empty(), "{:#}", world.details(&worker, &["log"]).await);
    assert_eq!(fs::read_to_string(&outside).expect("it was allowed"), "x\n");
    assert_eq!((&settled["status"], &settled["final_message"]), (&json!("completed"), &json!("done")), "{settled:#}");
}

async fn command_of_read_only_agent_is_asked(world: &World, agent: Agent) {
    for (decision, exists) in [("deny", false), ("allow", true)] {
        let made = world.shared("made");
        let mut mission = with(agent);
        mission["permissions"] = "read_only".into();
        let script = Script::new().run(&format!("touch {}", made.display())).say("done");
        let worker = world.start(&script, mission).await;
        let (questions, settled) = answered(world, &worker, decision).await;
        assert_eq!(questions.len(), 1, "{questions:?}");
        assert!(questions[0]["text"].as_str().is_some_and(|text| text.contains("touch ")), "{questions:?}");
        assert_eq!(made.exists(), exists, "{decision}: {settled:#}");
        let denials = settled["outcome"]["changes"]["permission_denials"].as_u64().unwrap_or(0);
        assert_eq!(denials, u64::from(!exists), "{settled:#}");
    }
}

/// Gives this decision on each question of the worker. Returns the questions, and the settled worker.
async fn answered(world: &World, worker: &str, decision: &str) -> (Vec<Value>, Value) {
    let mut questions = Vec::new();
    loop {
        let answer = world.call("wait_for_worker", json!({"worker_id": worker, "timeout_seconds": 60})).await;
        if answer["status"] == "settled" {
            return (questions, answer["settled"][0].clone());
        }
        assert_eq!(answer["status"], "question", "{answer:#}");
        for question in answer["questions"].as_array().expect("a list").clone() {
            let answers = &question["question_id"];
            let arguments = json!({"worker_id": worker, "answers": answers, "decision": decision});
            let sent = world.call("send_message_to_worker", arguments).await;
            assert_eq!(sent["delivered"], "answered", "{sent:#}");
            questions.push(question);
        }
    }
}
