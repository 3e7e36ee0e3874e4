//! Real agents as backends of the user's own, without a preset.

use serde_json::{Value, json};

use crate::model_server::Script;
use crate::real_cli::Cli;
use crate::world::{World, with_settings};

/// Two CLIs that speak the protocol if an argument asks for it. Their models come from the settings.
const SETTINGS: &str = r#"
[[custom]]
name = "my-gemini"
program = "gemini"
args = ["--acp", "--model=gemini-2.5-pro"]
output = "acp"
env = { GEMINI_CLI_NO_RELAUNCH = "1", GEMINI_CLI_TRUST_WORKSPACE = "true" }

[[custom]]
name = "my-opencode"
program = "opencode"
args = ["acp"]
output = "acp"
env = { OPENCODE_CONFIG_CONTENT = '{"model": "scripted/scripted"}' }
"#;

fn agent(world: &World) -> Value {
    let name = format!("my-{}", world.cli.program());
    json!({"backend": name, "model_override": null, "verify_command": "test -f new.txt"})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_agent_works_and_is_resumed() {
    with_settings(Cli::Gemini, SETTINGS, async |world| {
        works(world).await;
    })
    .await;
    with_settings(Cli::OpenCode, SETTINGS, async |world| {
        let first = works(world).await;
        let worker = &first["worker_id"];
        world.call("send_message_to_worker", json!({"worker_id": worker, "message": "and then?"})).await;
        let second = world.settled(worker.as_str().expect("an id")).await;
        assert_eq!(
            (&second["attempt"], &second["final_message"]),
            (&json!(2), &json!("heard: and then?")),
            "{second:#}"
        );
        assert_eq!(second["session_id"], first["session_id"]);
    })
    .await;
}

async fn works(world: &World) -> Value {
    let script = Script::new().write("new.txt", "one\n").run("echo two >> new.txt").say("it is done");
    let worker = world.start(&script, agent(world)).await;
    let settled = world.settled(&worker).await;
    assert_eq!((&settled["status"], &settled["attempt"]), (&json!("completed"), &json!(1)), "{settled:#}");
    assert_eq!(settled["final_message"], "it is done", "{settled:#}");
    assert_eq!(settled["outcome"]["run"]["exit_code"], 0, "the end of stdin ends it: {settled:#}");
    assert_eq!(settled["outcome"]["changes"]["files"], json!(["new.txt"]), "{settled:#}");
    settled
}
