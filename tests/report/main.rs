//! `report` and `doctor` of the real program, on the work of real supervisors and the fake CLI. A real browser loads
//! the page.

mod browser;
mod confined;
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

/// Returns a command for the program in this home and directory, where the user's CLIs and settings are invisible.
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
