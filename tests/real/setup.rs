//! After `setup`, each real client lists the server, and its model can call a tool of it. After `setup --remove` the
//! client no longer lists it.

use serde_json::json;

use crate::lead::{command, setup, tool_name, write};
use crate::model_server::Script;
use crate::real_cli::{Cli, run_to_end};
use crate::world::{CEILING, World};

with_each_cli!(client_reaches_the_server_after_setup: Claude Codex Gemini OpenCode);

async fn client_reaches_the_server_after_setup(world: &World) {
    // A name that the model can know only from the server's answer.
    let settings = "[[custom]]\nname = \"known-to-the-server\"\nprogram = \"true\"\noutput = \"plain\"\n";
    write(&world.path(".config/orchestrator-boss/config.toml"), settings);
    assert!(!listing(world, &["mcp", "list"]).contains("orchestrator-boss"), "no server is listed before");

    setup(world, &["--skill"]);
    let shown = listing(world, &["mcp", "list"]);
    assert!(shown.contains("orchestrator-boss"), "{shown}");
    match world.cli {
        // This client lists its configuration without starting the server.
        Cli::Codex => {
            let shown = listing(world, &["mcp", "get", "orchestrator-boss"]);
            for line in
                ["enabled: true", "tool_timeout_sec: 600", "default_tools_approval_mode: approve", "CODEX_HOME="]
            {
                assert!(shown.contains(line), "{line} in {shown}");
            }
        }
        Cli::Claude => assert!(shown.contains("✔ Connected"), "{shown}"),
        Cli::Gemini => assert!(shown.contains("✓") && shown.contains("- Connected"), "{shown}"),
        Cli::OpenCode => assert!(shown.contains("✓ orchestrator-boss") && shown.contains("connected"), "{shown}"),
    }
    let again = String::from_utf8_lossy(&setup(world, &["--skill"]).stdout).into_owned();
    assert!(again.contains("already set up"), "the client's own changes of the file are accepted: {again}");

    let script = Script::new().call(&tool_name(world.cli, "get_backend_status"), json!({})).say("seen");
    let ended = run_to_end(&mut command(world), &format!("Look. {}", script.marker()), CEILING);
    assert!(ended.status.success(), "{ended:?}");
    let received = world.asked().iter().map(|request| request.body.to_string()).collect::<Vec<_>>().join("\n");
    assert!(received.contains("known-to-the-server"), "the model never read the answer: {ended:?}\n{received}");
    assert!(received.contains("Lead many coding agents at once"), "the model never received the skill");

    setup(world, &["--skill", "--remove"]);
    let shown = listing(world, &["mcp", "list"]);
    assert!(!shown.contains("orchestrator-boss"), "{shown}");
}

/// Returns the client's list of servers.
fn listing(world: &World, arguments: &[&str]) -> String {
    let mut list = world.home.command(world.cli.path());
    list.args(arguments).current_dir(world.repo()).env("PWD", world.repo()).env("GEMINI_CLI_TRUST_WORKSPACE", "true");
    let ended = run_to_end(&mut list, "", CEILING);
    assert!(ended.status.success(), "{ended:?}");
    String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned()
}
