//! What people look at: `report` and `doctor`, by the real program, over what real supervisors and the fake CLI left. The
//! page is looked at by a real browser.

mod browser;
mod doctor;
mod page;
mod story;
#[path = "../support/mod.rs"]
mod support;
#[allow(dead_code)]
#[path = "../workers/world.rs"]
mod world;

use std::path::Path;
use std::process::{Command, Output};

/// The program in a home and a directory of its own, where no CLI and no settings of the user's are seen.
pub fn program(home: &Path, directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_orchestrator-boss"));
    command
        .current_dir(directory)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", home)
        .env("TZ", "UTC")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1");
    command
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
