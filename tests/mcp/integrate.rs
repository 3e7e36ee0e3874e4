//! Integration by the real program. A call joins one that is still running, and repeats one that died with its server.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::client::Client;
use crate::support::git::git;
use crate::support::wait::until;

/// Creates a repository with a branch `work` that is one commit ahead of `main`.
pub fn repository(home: &Path) -> PathBuf {
    let repo = home.join("repo");
    std::fs::create_dir(&repo).unwrap();
    git(&repo, &["init", "-q", "-b", "main"]);
    git(&repo, &["config", "user.name", "T"]);
    git(&repo, &["config", "user.email", "t@example.org"]);
    git(&repo, &["commit", "-q", "--allow-empty", "-m", "first"]);
    git(&repo, &["checkout", "-q", "-b", "work"]);
    std::fs::write(repo.join("work.txt"), "work\n").unwrap();
    git(&repo, &["add", "."]);
    git(&repo, &["commit", "-q", "-m", "work"]);
    git(&repo, &["checkout", "-q", "main"]);
    repo
}

fn start(home: tempfile::TempDir) -> Client {
    let mut client = Client::start_in(home, "repo", &[("ORCHESTRATOR_WAIT_SECONDS", "1")]);
    client.initialize("test", "2025-06-18");
    client
}

fn gated(home: &Path) -> (PathBuf, PathBuf, Value) {
    // The verification can write this folder.
    let shared = home.join("shared");
    let settings = home.join(".config/orchestrator-boss");
    for folder in [&shared, &settings] {
        std::fs::create_dir_all(folder).unwrap();
    }
    std::fs::write(settings.join("config.toml"), format!("confine_writable = [{shared:?}]\n")).unwrap();
    let (here, gate) = (shared.join("here"), shared.join("gate"));
    let command = format!("touch '{}'; while [ ! -e '{}' ]; do sleep 0.02; done", here.display(), gate.display());
    (here, gate, json!({"branch": "work", "verify_command": command}))
}

#[test]
fn repeated_call_joins_an_integration_still_running() {
    let home = tempfile::tempdir().unwrap();
    let repo = repository(home.path());
    let (here, gate, arguments) = gated(home.path());
    let mut boss = start(home);
    let running = boss.succeed(1, "integrate_worker", arguments.clone());
    assert_eq!(running["status"], "running", "{running}");
    assert!(running["next_step"].as_str().unwrap().contains("same arguments"));
    until("the verification runs", || here.exists());
    assert_eq!(boss.succeed(2, "integrate_worker", arguments.clone())["status"], "running");
    std::fs::write(gate, "").unwrap();
    let mut id = 2;
    let merged = loop {
        id += 1;
        let answer = boss.succeed(id, "integrate_worker", arguments.clone());
        if answer["status"] != "running" {
            break answer;
        }
    };
    assert_eq!(
        (&merged["status"], &merged["verification"]["result"]),
        (&json!("merged"), &json!("passed")),
        "{merged}"
    );
    assert_eq!(merged["verification"]["commit"], merged["commit"]);
    assert_eq!(merged["commit"], git(&repo, &["rev-parse", "main"]));
    assert_eq!(boss.succeed(99, "integrate_worker", arguments)["status"], "already_merged");
}

#[test]
fn killed_server_leaves_no_verification() {
    let home = tempfile::tempdir().unwrap();
    let repo = repository(home.path());
    let (here, gate, arguments) = gated(home.path());
    let mut first = start(home);
    assert_eq!(first.succeed(1, "integrate_worker", arguments.clone())["status"], "running");
    until("the verification runs", || here.exists());
    let before = git(&repo, &["rev-parse", "main"]);
    let home = first.kill();
    until("everything is removed", || !repo.join(".orchestrator/integrations").exists());
    assert_eq!(git(&repo, &["worktree", "list"]).lines().count(), 1);
    assert_eq!(git(&repo, &["rev-parse", "main"]), before);
    // The command line of the supervisor has the folder, which it has just removed.
    until("it has exited", || processes_in(&repo).is_empty());
    std::fs::write(gate, "").unwrap();
    let mut second = start(home);
    assert_eq!(second.succeed(1, "integrate_worker", arguments)["status"], "merged");
}

/// Returns the processes that work in the folder or name it.
fn processes_in(folder: &Path) -> Vec<String> {
    let listed = Command::new("ps").args(["-A", "-o", "args="]).output().unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let name = folder.to_string_lossy().into_owned();
    listed.lines().filter(|line| line.contains(&name)).map(str::to_owned).collect()
}
