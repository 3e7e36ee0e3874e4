//! The inspector of the protocol reads the resources and prompts, in both eras.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::real_cli::{ScratchHome, run_to_end, skipped};

#[test]
fn inspector_reads_resources_and_prompts() {
    if skipped() {
        return;
    }
    for era in [&[][..], &["--protocol-era", "modern"]] {
        let ask = |arguments: &[&str]| inspect(&[arguments, era].concat());
        let listed = ask(&["--method", "resources/list"]);
        assert_eq!(listed["resources"][0]["uri"], "orchestrator://state", "{era:?}: {listed}");
        let templates = ask(&["--method", "resources/templates/list"]);
        assert_eq!(templates["resourceTemplates"].as_array().map(Vec::len), Some(4), "{era:?}: {templates}");
        let read = ask(&["--method", "resources/read", "--uri", "orchestrator://state"]);
        let text = read["contents"][0]["text"].as_str().expect("the state is text");
        let state: Value = serde_json::from_str(text).expect("the state is JSON");
        assert!(state["tasks"].as_array().is_some_and(Vec::is_empty), "{era:?}: {state}");
        let prompts = ask(&["--method", "prompts/list"]);
        assert_eq!(prompts["prompts"][3]["name"], "review-workers", "{era:?}: {prompts}");
        let goal = ["--method", "prompts/get", "--prompt-name", "orchestrate", "--prompt-args", "goal=Port the parser"];
        let given = ask(&goal);
        let text = given["messages"][0]["content"]["text"].as_str().expect("a prompt is text");
        assert!(text.ends_with("Port the parser"), "{era:?}: {text}");
    }
}

fn inspect(arguments: &[&str]) -> Value {
    let home = ScratchHome::new("http://127.0.0.1:1");
    let inspector = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real/node_modules/.bin/mcp-inspector");
    let mut command = home.command(inspector);
    command.args(["--cli", env!("CARGO_BIN_EXE_orchestrator-boss")]).args(arguments).current_dir(home.path());
    let ended = run_to_end(&mut command, "", Duration::from_secs(60));
    let (stdout, stderr) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success(), "{arguments:?}: {stdout}{stderr}");
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {stdout}"))
}
