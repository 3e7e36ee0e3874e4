//! The inspector of the protocol lists the tools without a warning, in both eras.

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use serde_json::Value;

use crate::real_cli::{ScratchHome, run_to_end, skipped};

#[test]
fn inspector_lists_the_tools_without_warning() {
    if skipped() {
        return;
    }
    for era in [None, Some("modern")] {
        let inspected = inspect(era);
        let (stdout, stderr) = (text(&inspected.stdout), text(&inspected.stderr));
        assert!(inspected.status.success(), "{era:?}: {stdout}{stderr}");
        let warned = [&stdout, &stderr].into_iter().any(|printed| printed.to_lowercase().contains("warning"));
        assert!(!warned, "{era:?}: {stdout}{stderr}");
        let listed: Value = serde_json::from_str(&stdout).expect("the inspector prints JSON");
        assert_eq!(listed["tools"].as_array().map(Vec::len), Some(14), "{era:?}: {listed}");
    }
}

fn inspect(era: Option<&str>) -> Output {
    let home = ScratchHome::new("http://127.0.0.1:1");
    let inspector = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real/node_modules/.bin/mcp-inspector");
    let mut command = home.command(inspector);
    command.args(["--cli", env!("CARGO_BIN_EXE_orchestrator-boss"), "--method", "tools/list", "--strict"]);
    command.args(era.map(|era| ["--protocol-era", era]).into_iter().flatten()).current_dir(home.path());
    run_to_end(&mut command, "", Duration::from_secs(60))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
