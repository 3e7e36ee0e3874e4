//! `doctor` tries a CLI and a commit under the rules of a confined worker.

use std::fs;

use orchestrator_boss::process::confine::{Support, support};
use serde_json::Value;

use crate::doctor::{Machine, check};
use crate::support::processes::until_none_in;

fn is_skipped() -> bool {
    let Support::No { why } = support() else { return false };
    assert!(std::env::var_os("CI").is_none(), "the kernel cannot confine: {why}");
    eprintln!("SKIPPED: the kernel cannot confine: {why}");
    true
}

#[test]
fn failures_under_confinement_are_named_with_the_setting() {
    if is_skipped() {
        return;
    }
    let machine = Machine::new();
    machine.install("claude", "touch ~/.claude/x && echo '2.1.330 (Claude Code)'");
    machine.install("codex", "echo x > ~/.elsewhere || exit 1\necho codex-cli 0.169.0");
    for folder in [".claude", ".codex"] {
        fs::create_dir(machine.path("home").join(folder)).unwrap();
    }
    let (found, _) = machine.ask();
    assert_eq!(check(&found, "git", "confined commit").0, "ok", "{found:#}");
    let starts: Vec<&Value> = found["checks"]["machine"].as_array().unwrap().iter().collect();
    let starts: Vec<_> = starts.iter().filter(|check| check["name"] == "confined start").collect();
    assert_eq!(starts.len(), 2, "{found:#}");
    assert!(
        starts[0]["severity"] == "ok" && starts[0]["message"].as_str().unwrap().contains("claudecode"),
        "{starts:?}"
    );
    let refused = starts[1]["message"].as_str().unwrap();
    let path = machine.path("home").join(".elsewhere").display().to_string();
    assert!(starts[1]["severity"] == "bad" && refused.starts_with("codex does not start"), "{starts:?}");
    assert!(refused.contains(&path) && refused.contains("confine_writable"), "{refused}");
}

#[test]
fn cli_that_hangs_confined_leaves_no_process() {
    if is_skipped() {
        return;
    }
    let machine = Machine::new();
    fs::create_dir(machine.path("home/.codex")).unwrap();
    let folder = machine.path("");
    let sleeps = format!("sh -c 'sleep 600; :' {}", folder.display());
    let hangs = format!("{sleeps} & setsid {sleeps} & (setsid {sleeps} &) ; {sleeps}");
    machine.install("codex", &format!("echo > ~/free && echo codex-cli 0.169.0 && exit 0\n{hangs}"));
    let (found, _) = machine.ask();
    let checks = found["checks"]["machine"].as_array().unwrap();
    assert!(!checks.iter().any(|check| check["name"] == "confined start"), "its result is unknown: {found:#}");
    until_none_in(&folder);
}
