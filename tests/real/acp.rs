//! Real agents of the Agent Client Protocol as backends of the user's own, without any knowledge of them.

use serde_json::{Value, json};

use crate::model_server::{Script, Turn};
use crate::real_cli::Cli;
use crate::world::{World, processes, with_settings};

/// Two CLIs that speak the protocol when they are asked to. Their models come from the settings.
const SETTINGS: &str = r#"
[[custom]]
name = "gemini-acp"
program = "gemini"
args = ["--acp", "--model=gemini-2.5-pro"]
output = "acp"
env = { GEMINI_CLI_NO_RELAUNCH = "1", GEMINI_CLI_TRUST_WORKSPACE = "true" }

[[custom]]
name = "opencode-acp"
program = "opencode"
args = ["acp"]
output = "acp"
env = { OPENCODE_CONFIG_CONTENT = '{"model": "scripted/scripted"}' }
"#;

const AGENTS: [Cli; 2] = [Cli::Gemini, Cli::OpenCode];

fn agent(world: &World) -> Value {
    let name = format!("{}-acp", world.cli.program());
    json!({"backend": name, "model_override": null, "verify_command": "test -f new.txt"})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agent_works_and_gets_messages_in_the_same_process() {
    for cli in AGENTS {
        with_settings(cli, SETTINGS, works_and_gets_messages).await;
    }
}

async fn works_and_gets_messages(world: &World) {
    let waits = "touch started; while [ ! -e go ]; do sleep 0.1; done; rm started go";
    let script = Script::new().write("new.txt", "one\n").run(waits).say("it is done");
    let worker = world.start(&script, agent(world)).await;
    world.until_made(&worker, "started").await;
    let sent = world.call("send_message_to_worker", json!({"worker_id": worker, "message": "and then?"})).await;
    assert_eq!(sent["delivered"], "queued", "{sent:#}");
    std::fs::write(world.worktree(&worker).join("go"), "").expect("a new file");
    let settled = world.settled(&worker).await;

    assert_eq!((&settled["status"], &settled["attempt"]), (&json!("completed"), &json!(1)), "{settled:#}");
    assert_eq!(settled["final_message"], "heard: and then?", "{settled:#}");
    assert_eq!(settled["outcome"]["run"]["exit_code"], 0, "the end of stdin ends it: {settled:#}");
    assert_eq!(settled["outcome"]["changes"]["files"], json!(["new.txt"]), "{settled:#}");
    let log = world.details(&worker, &["log"]).await["log"].to_string();
    for part in ["new.txt", "said: it is done", "received: and then?"] {
        assert!(log.contains(part), "{part} is not in: {log}");
    }
    let asked = world.asked();
    let history = &asked.last().and_then(|it| it.conversation.as_ref()).expect("a request to the model").turns;
    assert!(history.iter().any(|turn| matches!(turn, Turn::User(text) if text.contains("SCRIPT:"))), "{history:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_agent_leaves_no_process() {
    for cli in AGENTS {
        with_settings(cli, SETTINGS, cancelled_in_a_command).await;
    }
}

async fn cancelled_in_a_command(world: &World) {
    let sleep = format!("sleep 300.{}", world.model.url().rsplit(':').next().expect("an address has a port"));
    let command = format!("sh -c 'touch started; (setsid {sleep} &) ; {sleep}; true'");
    let worker = world.start(&Script::new().run(&command).say("slept"), agent(world)).await;
    world.until_made(&worker, "started").await;
    let answer = world.call("cancel_worker", json!({"worker_id": worker, "reason": "enough"})).await;
    assert_eq!((&answer["status"], &answer["survivors"]), (&json!("cancelled"), &json!(0)), "{answer:#}");
    let left: Vec<_> = processes().into_iter().filter(|it| it.command.contains(&sleep)).collect();
    assert!(left.is_empty(), "{left:?} of {answer:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_is_resumed_in_the_next_attempt() {
    with_settings(Cli::OpenCode, SETTINGS, resumed).await;
}

async fn resumed(world: &World) {
    let worker = world.start(&Script::new().write("new.txt", "one\n").say("it is done"), agent(world)).await;
    let first = world.settled(&worker).await;
    assert_eq!((&first["status"], &first["final_message"]), (&json!("completed"), &json!("it is done")), "{first:#}");
    world.call("send_message_to_worker", json!({"worker_id": worker, "message": "and then?"})).await;
    let second = world.settled(&worker).await;
    assert_eq!((&second["final_message"], &second["attempt"]), (&json!("heard: and then?"), &json!(2)), "{second:#}");
    assert_eq!(second["session_id"], first["session_id"]);
    let asked = world.asked();
    let history = &asked.last().and_then(|it| it.conversation.as_ref()).expect("a request to the model").turns;
    assert!(history.len() > 3, "the session was lost: {history:?}");
}
