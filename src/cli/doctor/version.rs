//! The version of another installed copy of this program.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::check;

/// Time limit for a program to print its version; this program starts fast.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Runs the program and returns the version that it prints.
pub fn version(program: &Path) -> Option<String> {
    let program = program.to_owned();
    let ask = move || Command::new(program).arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output();
    let output = check::start(ask).finish(ANSWER_LIMIT)?.ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().nth(1).map(str::to_owned)
}
