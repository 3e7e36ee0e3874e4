//! Renders every error of this room, so that a reader sees all messages in one file.

use std::io;
use std::path::PathBuf;

use super::Settings;
use super::error::{ConfigError, InvalidSettings};
use crate::mission::hint::with_hints;
use crate::mission::testing::{MessageRow, all_messages, row, variant_of};

#[test]
fn every_message_is_as_recorded() {
    let texts = [
        "max_workers = many",
        "max_workers = \"6\"",
        "max_worker = 6",
        "[backends.codx]\nprogram = \"x\"",
        "stall_minutes = -1",
        "setup_timeout_minutes = -1",
        "seed = [\"../cache\"]",
        "integration_branch = \"\"",
        "commit_name = \"A\"",
        "commit_message = \"{titel}\"",
        "prompt_frame = \"Be nice.\"",
        "prompt_frame = \"{prompt} {branch}\"",
        "[boss]\nmax_cost_usd = -1.0",
    ];
    let mut rows = vec![
        row(ConfigError::Read { path: path(), source: io::ErrorKind::PermissionDenied.into() }),
        row(ConfigError::Invalid { path: path(), source: InvalidSettings::EmptyBranch }),
        row(ConfigError::Variable { found: "ORCHESTRATOR_WAIT".into(), meant: "ORCHESTRATOR_WAIT_SECONDS" }),
        row(ConfigError::NotANumber { variable: "ORCHESTRATOR_WAIT_SECONDS", value: "long".into() }),
    ];
    rows.extend(texts.map(invalid));
    insta::assert_snapshot!(all_messages(&rows, "src/config"));
}

fn path() -> PathBuf {
    "/home/user/config.toml".into()
}

fn invalid(text: &str) -> MessageRow {
    let source = Settings::parse(text).expect_err("an invalid text");
    (variant_of(&source), with_hints(&ConfigError::Invalid { path: path(), source }))
}
