//! What it is measured on.

use std::ffi::OsStr;
use std::process::Command;

/// Cores, file system of the temporary folder, versions of Linux and git.
pub fn describe() -> String {
    let cores = std::thread::available_parallelism().map_or(0, |cores| cores.get());
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let folder = std::env::temp_dir().display().to_string();
    let (files, git) = (said("stat", &["-f", "-c", "%T", &folder]), said("git", &["--version"]));
    format!("{cores} cores, {files}, Linux {}, {git}", kernel.trim())
}

/// What a program prints.
pub fn said(program: impl AsRef<OsStr>, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect("it runs");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
