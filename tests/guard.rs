//! The plugin's guard, as Claude Code calls it: a decision on stdout, or nothing.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// Creates a repository in which the session `leader` has a mission.
fn repository() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let git = Command::new("git").args(["init", "-q"]).current_dir(folder.path()).status().expect("git runs");
    assert!(git.success());
    std::fs::create_dir(folder.path().join(".orchestrator")).expect("a folder");
    let state =
        json!({"version": 1, "tasks": [], "completed_tasks": [{"boss_id": "claude:leader"}], "blocked_tasks": []});
    std::fs::write(folder.path().join(".orchestrator/orchestrator-state.json"), state.to_string()).expect("a file");
    folder
}

/// Returns the hook's output for an edit of this file by this session.
fn decision(folder: &Path, session: &str, file: &Path, environment: &[(&str, &str)]) -> String {
    let call = json!({"session_id": session, "cwd": folder, "hook_event_name": "PreToolUse", "tool_name": "Edit",
                      "tool_input": {"file_path": file, "old_string": "a", "new_string": "b"}});
    asked(&call.to_string(), environment)
}

fn asked(call: &str, environment: &[(&str, &str)]) -> String {
    let mut guard = Command::new(env!("CARGO_BIN_EXE_orchestrator-boss"));
    guard.arg("guard").env_remove(orchestrator_boss::process::TAG_VARIABLE).env_remove("ORCHESTRATOR_STATE_DIR");
    guard.env("HOME", std::env::temp_dir()).envs(environment.iter().copied());
    let mut guard = guard.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the program starts");
    // The hook may exit without reading its input.
    let _ = guard.stdin.take().expect("a piped stream").write_all(call.as_bytes());
    let output = guard.wait_with_output().expect("the program exits");
    assert!(output.status.success(), "a failing hook blocks the user's work");
    String::from_utf8(output.stdout).expect("text output")
}

const ON: (&str, &str) = ("CLAUDE_PLUGIN_OPTION_GUARD", "true");

#[test]
fn edit_by_a_leading_session_is_refused() {
    let folder = repository();
    for file in ["src/new/file.rs", "README.md"] {
        let decision = decision(folder.path(), "leader", &folder.path().join(file), &[ON]);
        let decision: Value = serde_json::from_str(&decision).unwrap_or_else(|_| panic!("no decision for {file}"));
        let decision = &decision["hookSpecificOutput"];
        assert_eq!(decision["permissionDecision"], "deny");
        assert!(decision["permissionDecisionReason"].as_str().expect("a reason").contains("create_worker_mission"));
    }
}

#[test]
fn all_other_edits_are_allowed() {
    let folder = repository();
    let inside = folder.path().join("README.md");
    let elsewhere = tempfile::tempdir().expect("a temporary folder");
    let worker = (orchestrator_boss::process::TAG_VARIABLE, "/some/state:w-1:1");
    let cases = [
        ("it is off", "leader", inside.as_path(), &[][..]),
        ("it was turned off", "leader", &inside, &[("CLAUDE_PLUGIN_OPTION_GUARD", "false")]),
        ("another session", "reader", &inside, &[ON]),
        ("a worker", "leader", &inside, &[ON, worker]),
        ("another place", "leader", &elsewhere.path().join("notes.md"), &[ON]),
    ];
    for (why, session, file, environment) in cases {
        assert_eq!(decision(folder.path(), session, file, environment), "", "{why}");
    }
    assert_eq!(asked("this is no JSON", &[ON]), "");
}
