//! A worker edits and commits files, its facts are right, and a later message resumes the session.

use serde_json::json;

use crate::model_server::{Script, Turn};
use crate::real_cli::Cli;
use crate::world::{OF_THE_BOSS, World};

with_each_cli!(commits_and_is_resumed: Claude Codex Gemini OpenCode);
with_each_cli!(long_prompt_arrives_whole: Claude Codex Gemini OpenCode);

/// CLIs that send an effort. OpenCode has no variants for a custom provider, and Gemini CLI no efforts.
const SENDS_EFFORT: [Cli; 2] = [Cli::Claude, Cli::Codex];

async fn commits_and_is_resumed(world: &World) {
    let script = Script::new()
        .say("I begin")
        .write("new.txt", "one\ntwo\n")
        .run("git add new.txt && git commit -qm 'add new.txt' && echo committed-by-me")
        .run("env | sort")
        .say("it is done");
    let mut more = json!({"verify_command": "test -f new.txt"});
    if SENDS_EFFORT.contains(&world.cli) {
        more["model_effort"] = "high".into();
    }
    let worker = world.start(&script, more).await;
    let first = world.settled(&worker).await;

    assert_eq!(first["status"], "completed", "{first:#}");
    assert_eq!(first["outcome"]["run"], json!({"result": "completed", "reason": "turn_complete", "exit_code": 0}));
    assert_eq!(first["outcome"]["verification"]["result"], "passed");
    assert_eq!(first["final_message"], "it is done");
    let changes = &first["outcome"]["changes"];
    let branch = first["branch"].as_str().expect("it has a branch");
    let expected = json!({
        "commits": 1, "files_changed": 1, "insertions": 2, "deletions": 0, "files": ["new.txt"],
        "head_commit": world.git(&["rev-parse", branch]), "base_commit": world.git(&["rev-parse", "main"]),
    });
    assert_eq!(*changes, expected);
    assert_eq!(world.git(&["show", &format!("{branch}:new.txt")]), "one\ntwo");
    assert_eq!(world.git(&["log", "-1", "--format=%s by %an", branch]), "add new.txt by Scratch");
    assert!(first["tokens"].as_u64() > Some(0), "{first:#}");
    assert_eq!(first["cost_usd"].is_number(), matches!(world.cli, Cli::Claude | Cli::OpenCode), "{first:#}");
    let session = first["session_id"].as_str().expect("it has a session");
    let asked = world.asked().last().map(|it| it.body.to_string()).expect("a request to the model");
    assert_eq!(asked.contains(r#""effort":"high""#), SENDS_EFFORT.contains(&world.cli), "{asked}");
    assert!(asked.contains("ORCHESTRATOR_WORKER_TAG") && !asked.contains(OF_THE_BOSS), "{asked}");

    let log = world.details(&worker, &["log"]).await["log"].to_string();
    for line in ["said: I begin", "git add new.txt", "edited ", "committed-by-me", "said: it is done"] {
        assert!(log.contains(line), "{line} is not in: {log}");
    }

    let sent = world.call("send_message_to_worker", json!({"worker_id": worker, "message": "and then?"})).await;
    assert_eq!(sent["delivered"], "next_attempt");
    let second = world.settled(&worker).await;
    assert_eq!((&second["status"], &second["attempt"]), (&json!("completed"), &json!(2)), "{second:#}");
    assert_eq!(second["final_message"], "heard: and then?");
    assert_eq!(second["session_id"], session);
    assert_eq!(second["outcome"]["changes"], expected, "the commit of the first attempt counts");
    let asked = world.asked();
    let history = &asked.last().and_then(|it| it.conversation.as_ref()).expect("a request to the model").turns;
    assert!(history.len() > 3 && matches!(&history[0], Turn::User(text) if text.contains("SCRIPT:")), "{history:?}");
}

/// Checks a prompt of almost the maximum length, which is far longer than an argument may be.
async fn long_prompt_arrives_whole(world: &World) {
    let long = "some line of the mission\n".repeat(40_000);
    let prompt = format!("begin {long} {}", Script::new().say("I read it all").marker());
    let worker = world.start(&Script::new(), json!({"prompt": prompt})).await;
    let settled = world.settled(&worker).await;
    assert_eq!(settled["final_message"], "I read it all", "{settled:#}");
    let asked = world.asked();
    assert!(asked.iter().any(|it| it.user_message().starts_with(&prompt)), "it was cut");
}
