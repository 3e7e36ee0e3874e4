//! The build script: puts the commit and its date into optimised programs, for `--version`. A development build has
//! none, so that a commit does not cause a new compilation.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=PROFILE");
    println!("cargo::rerun-if-changed=src");
    let release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let commit = if release { commit() } else { None };
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let of = commit.unwrap_or_else(|| if release { "commit unknown" } else { "development build" }.to_owned());
    println!("cargo::rustc-env=ORCHESTRATOR_VERSION={version} ({of})");
}

/// Returns the commit from which the program is built, with its date. `None` outside a clone.
fn commit() -> Option<String> {
    println!("cargo::rerun-if-changed={}", git(&["rev-parse", "--git-path", "logs/HEAD"])?);
    let dirty = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|changed| !changed.is_empty());
    Some(git(&["log", "-1", "--format=%h %cs"])? + if dirty { ", changed" } else { "" })
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
