//! Places of a boss: a subfolder, a linked worktree, odd paths, a bare repository, and no repository.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::Client;
use crate::support::git::git;
use crate::support::wait::until;

#[test]
fn boss_leads_from_a_subfolder() {
    let home = home("repo");
    fs::create_dir_all(home.path().join("repo/some/folder")).unwrap();
    let led = lead(home, "repo/some/folder");
    assert_eq!(git(&led.path().join("repo"), &["show", "main:it.txt"]), "here");
    assert!(led.path().join("repo/.orchestrator/orchestrator-state.json").exists());
}

#[test]
fn boss_leads_from_a_linked_worktree() {
    let home = home("repo");
    git(&home.path().join("repo"), &["worktree", "add", "-q", "-b", "side", "../linked"]);
    let led = lead(home, "linked");
    assert_eq!(git(&led.path().join("repo"), &["show", "main:it.txt"]), "here");
    assert!(led.path().join("repo/.orchestrator/orchestrator-state.json").exists());
    assert!(!led.path().join("linked/.orchestrator").exists());
}

#[test]
fn boss_leads_at_odd_paths() {
    for name in
        ["with some spaces", "grüße 日本 🦀", "it's \"quoted\" $HOME `x`", "-dash", "a;b & c*?[d]", "back\\slash"]
    {
        let led = lead(home(name), name);
        assert_eq!(git(&led.path().join(name), &["show", "main:it.txt"]), "here", "{name:?}");
    }
}

#[test]
fn boss_leads_in_a_bare_repository() {
    let home = home("repo");
    let bare = home.path().join("bare.git");
    git(home.path(), &["clone", "-q", "--bare", "repo", "bare.git"]);
    git(&bare, &["config", "user.name", "Test"]);
    git(&bare, &["config", "user.email", "test@localhost"]);
    let led = lead(home, "bare.git");
    assert_eq!(git(&led.path().join("bare.git"), &["show", "main:it.txt"]), "here", "{}", bare.display());
}

#[test]
fn boss_leads_outside_a_repository() {
    let home = home("repo");
    fs::create_dir(home.path().join("plain")).unwrap();
    let mut boss = boss(home, "plain");
    let refused = boss.refused(1, "create_worker_mission", mission(json!({})));
    assert!(refused.contains("working_directory"), "{refused}");
    boss.succeed(2, "create_worker_mission", mission(json!({"working_directory": "."})));
    let answer = boss.next_report(3);
    assert_eq!(answer["settled"][0]["status"], "completed", "{answer:#}");
    assert_eq!(fs::read_to_string(boss.home.path().join("plain/it.txt")).unwrap().trim(), "here");
    // The state file follows the journal, and thus the answers, within 100 ms.
    let state_file = boss.home.path().join("plain/.orchestrator/orchestrator-state.json");
    until("the state file exists", || state_file.exists());
}

/// Leads a worker from its start to its merge into main, which only the main worktree has checked out.
fn lead(home: TempDir, folder: &str) -> TempDir {
    let mut boss = boss(home, folder);
    let created = boss.succeed(1, "create_worker_mission", mission(json!({})));
    assert_eq!(created["worker"]["worker_id"], "w-1-make-it", "{created:#}");
    let answer = boss.next_report(2);
    let worker = &answer["settled"][0];
    assert_eq!(worker["status"], "completed", "{folder:?}: {answer:#}");
    assert_eq!(worker["outcome"]["changes"]["files"], json!(["it.txt"]), "{folder:?}: {answer:#}");
    let merged = boss.succeed(3, "integrate_worker", json!({"worker_id": "w-1", "into": "main"}));
    assert_eq!(merged["status"], "merged", "{folder:?}: {merged:#}");
    let removed = boss.succeed(4, "remove_worktree", json!({"worker_id": "w-1"}));
    assert_eq!(removed["removed"].as_array().map(Vec::len), Some(1), "{folder:?}: {removed:#}");
    // The state file may follow the answer; a server writes it before its exit.
    boss.close();
    std::mem::replace(&mut boss.home, tempfile::tempdir().unwrap())
}

fn mission(more: Value) -> Value {
    let mut mission = json!({"title": "Make it", "prompt": "FAKE:\nwrite it.txt here\nrun git add it.txt; git commit -qm it || true", "backend": "fake"});
    mission.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    mission
}

fn boss(home: TempDir, folder: &str) -> Client {
    let mut boss = Client::start_in(home, folder, &[("ORCHESTRATOR_MAX_WORKERS", "1")]);
    boss.initialize("test", "2025-06-18");
    boss
}

/// Creates a home with the fake CLI as a backend and a repository of this name.
fn home(repository: &str) -> TempDir {
    let home = tempfile::tempdir().unwrap();
    let settings = home.path().join(".config/orchestrator-boss");
    fs::create_dir_all(&settings).unwrap();
    let fake = PathBuf::from(env!("CARGO_BIN_EXE_orchestrator-boss")).with_file_name("examples/fake-cli");
    let custom = format!("[[custom]]\nname = \"fake\"\nprogram = {fake:?}\noutput = \"jsonl\"\n");
    fs::write(settings.join("config.toml"), custom).unwrap();
    let repo = home.path().join(repository);
    fs::create_dir(&repo).unwrap();
    git(&repo, &["init", "-q", "-b", "main"]);
    git(&repo, &["config", "user.name", "Test"]);
    git(&repo, &["config", "user.email", "test@localhost"]);
    git(&repo, &["commit", "-q", "--allow-empty", "-m", "begin"]);
    home
}
