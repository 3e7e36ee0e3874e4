//! Sessions of Claude Code whose servers were started with another session id than that of the conversation.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::Client;

#[test]
fn continued_conversation_with_new_id_keeps_workers() {
    let mut first = start(tempfile::tempdir().unwrap(), "a");
    open_call(first.home.path(), "a", "toolu_1");
    let worker = create(&mut first, 1, "toolu_1");
    let home = take_home(first);

    // `claude -p --continue` starts the server with an id that no conversation has.
    let mut second = start(home, "b");
    open_call(second.home.path(), "a", "toolu_2");
    assert_eq!(workers(&call(&mut second, 1, "toolu_2", "list_worker_missions")), [worker]);
}

#[test]
fn clear_keeps_workers_and_resume_restores_others() {
    let mut resumed = start(tempfile::tempdir().unwrap(), "a");
    open_call(resumed.home.path(), "a", "toolu_1");
    let of_a = create(&mut resumed, 1, "toolu_1");
    let home = take_home(resumed);

    let mut window = start(home, "b");
    open_call(window.home.path(), "b", "toolu_2");
    let of_b = create(&mut window, 1, "toolu_2");
    open_call(window.home.path(), "cleared", "toolu_3");
    assert_eq!(workers(&call(&mut window, 2, "toolu_3", "list_worker_missions")), [of_b.as_str()]);
    open_call(window.home.path(), "a", "toolu_4");
    assert_eq!(workers(&call(&mut window, 3, "toolu_4", "list_worker_missions")), [of_a.as_str()]);
}

#[test]
fn boss_without_workers_sees_those_of_others() {
    let mut first = start(tempfile::tempdir().unwrap(), "a");
    create(&mut first, 1, "toolu_1");
    let home = take_home(first);

    let mut second = start(home, "b");
    for (id, tool) in [(1, "wait_for_any_worker"), (2, "list_worker_missions")] {
        let answer = call(&mut second, id, "toolu_2", tool);
        let next = answer["next_step"].as_str().unwrap();
        assert!(next.contains("other sessions have 1 here") && next.contains("scope all"), "{tool}: {answer:#}");
    }
    assert_ne!(create(&mut second, 3, "toolu_3"), "");
    let list = call(&mut second, 4, "toolu_4", "list_worker_missions");
    assert_eq!(list["next_step"], "wait_for_any_worker", "{list:#}");
}

fn start(home: TempDir, session: &str) -> Client {
    let project = home.path().join("repository");
    fs::create_dir_all(&project).unwrap();
    let project = project.display().to_string();
    let mut client =
        Client::start_in(home, "repository", &[("CLAUDE_CODE_SESSION_ID", session), ("CLAUDE_PROJECT_DIR", &project)]);
    client.initialize("claude-code", "2025-11-25");
    client
}

fn take_home(mut client: Client) -> TempDir {
    std::mem::replace(&mut client.home, tempfile::tempdir().unwrap())
}

/// Writes a transcript with an open call, as Claude Code does before it has the answer.
fn open_call(home: &Path, session: &str, call: &str) {
    let name: String = home.join("repository").to_string_lossy().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    let folder: PathBuf = home.join(".claude/projects").join(name);
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join(session).with_extension("jsonl");
    let before = fs::read_to_string(&path).unwrap_or_default();
    let line = json!({"type": "assistant", "message": {"content": [{"type": "tool_use", "id": call}]}});
    fs::write(path, format!("{before}{line}\n")).unwrap();
}

fn call_with(client: &mut Client, id: i64, call: &str, tool: &str, arguments: Value) -> Value {
    let params = json!({"name": tool, "arguments": arguments, "_meta": {"claudecode/toolUseId": call}});
    let answer = client.ask(id, "tools/call", params);
    assert_ne!(answer["result"]["isError"], true, "{answer:#}");
    answer["result"]["structuredContent"].clone()
}

fn call(client: &mut Client, id: i64, call: &str, tool: &str) -> Value {
    call_with(client, id, call, tool, json!({}))
}

/// Creates a worker that stays queued, and returns its id.
fn create(client: &mut Client, id: i64, call: &str) -> String {
    let mission = json!({"title": "Stay", "prompt": "Nothing.", "backend": "codex", "permissions": "read_only", "working_directory": client.home.path()});
    let answer = call_with(client, id, call, "create_worker_mission", mission);
    answer["worker"]["worker_id"].as_str().unwrap().to_owned()
}

fn workers(list: &Value) -> Vec<&str> {
    list["workers"].as_array().unwrap().iter().map(|worker| worker["worker_id"].as_str().unwrap()).collect()
}
