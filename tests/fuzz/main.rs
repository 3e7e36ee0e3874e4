//! The entry functions for fuzzing, with randomly damaged real files. Few cases by default, more with
//! `ORCHESTRATOR_INPUT_CASES=100000`.

#[path = "../mcp/client.rs"]
#[allow(dead_code)]
mod client;
#[path = "../support/mod.rs"]
mod support;
mod targets;

use std::path::Path;

use orchestrator_boss::mission::spec::Mission;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;

use crate::client::Client;

const SETTINGS: &str = r#"
max_workers = 4
worktree_roots = ["/a"]
[backends.codex]
model = "m"
[[custom]]
name = "mine"
program = "x"
args = ["--model={model}", "{dir}", "${HOME}"]
resume_args = ["{session_id}"]
output = "jsonl"
env = { A = "b" }
stop = "terminate"
[[custom]]
name = "agent"
program = "x"
output = "acp"
"#;

/// A change that cuts, repeats or replaces a part of the bytes.
#[derive(Debug, Clone)]
enum Damage {
    Cut(Index),
    Replace(Index, u8),
    Insert(Index, Vec<u8>),
    Repeat(Index, Index),
    Remove(Index, Index),
}

fn damages() -> impl Strategy<Value = Vec<Damage>> {
    let words: Vec<&[u8]> = vec![
        b"\0",
        b"\n",
        b"{",
        b"}",
        b"[",
        b"\"",
        b"null",
        b"-1",
        b"1e999",
        b"\xff",
        b"\\ud800",
        b"99999999999999999999",
    ];
    let word = prop::sample::select(words).prop_map(<[u8]>::to_vec);
    let one = prop_oneof![
        1 => any::<Index>().prop_map(Damage::Cut),
        3 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Replace(at, byte)),
        3 => (any::<Index>(), word).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        1 => (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Damage::Repeat(from, to)),
        1 => (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Damage::Remove(from, to)),
    ];
    prop::collection::vec(one, 0..6)
}

fn damaged(whole: &[u8], damages: &[Damage]) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    for damage in damages.iter().filter(|_| !whole.is_empty()) {
        let length = bytes.len().max(1);
        let range = |from: &Index, to: &Index| {
            let (from, to) = (from.index(length), to.index(length));
            from.min(to)..from.max(to)
        };
        match damage {
            Damage::Cut(at) => bytes.truncate(at.index(length)),
            Damage::Replace(at, byte) if !bytes.is_empty() => bytes[at.index(length)] = *byte,
            Damage::Replace(..) => {}
            Damage::Insert(at, more) => {
                let at = at.index(length).min(bytes.len());
                bytes.splice(at..at, more.iter().copied());
            }
            Damage::Repeat(from, to) if !bytes.is_empty() => {
                let part = bytes[range(from, to)].to_vec();
                bytes.extend(part);
            }
            Damage::Remove(from, to) if !bytes.is_empty() => drop(bytes.drain(range(from, to))),
            Damage::Repeat(..) | Damage::Remove(..) => {}
        }
    }
    bytes
}

fn run(whole: &[u8], target: impl Fn(&[u8])) {
    run_cases(300, whole, target);
}

fn run_cases(usual: u32, whole: &[u8], target: impl Fn(&[u8])) {
    let cases = std::env::var("ORCHESTRATOR_INPUT_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(usual);
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    target(whole);
    let found = TestRunner::new(config).run(&damages(), |damages| {
        target(&damaged(whole, &damages));
        Ok(())
    });
    found.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn damaged_settings_cause_no_panic() {
    assert!(toml::from_str::<orchestrator_boss::config::Settings>(SETTINGS).is_ok(), "valid material");
    run(SETTINGS.as_bytes(), targets::settings);
}

#[test]
fn damaged_state_file_is_never_lost() {
    let folder = tempfile::tempdir().unwrap();
    let whole =
        json!({"version": 1, "seq": 7, "as_of": "2026-01-01T00:00:00Z", "tasks": [{"id": "t", "status": "running"}]});
    run(whole.to_string().as_bytes(), |bytes| targets::state_file(folder.path(), bytes));
}

#[test]
fn damaged_streams_are_read_to_their_end() {
    let mission: Mission = serde_json::from_value(json!({
        "title": "t", "prompt": "do it", "backend": "codex", "place": {"kind": "directory", "path": "/srv/tree"},
        "task_id": "t", "depends_on": [], "timeout_minutes": 120, "fallback_backends": [], "max_attempts": 1, "permissions": "edit",
    }))
    .unwrap();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    for backend in ["claudecode", "codex", "gemini", "opencode"] {
        let cases: Vec<_> = std::fs::read_dir(fixtures.join(backend)).unwrap().flatten().collect();
        assert!(cases.len() >= 10, "{backend} has only {} recorded streams", cases.len());
        for case in cases {
            let stream = std::fs::read(case.path().join("stream.jsonl")).unwrap();
            run_cases(20, &stream, |bytes| targets::cli_stream(backend, &mission, bytes));
        }
    }
}

/// Returns the journal files of a real server.
fn journal_of_a_server(copy: &Path) -> Vec<(String, Vec<u8>)> {
    let mut client = Client::initialized("test");
    let mission = |number: u32| json!({"title": format!("n {number}"), "prompt": "x", "backend": "codex", "working_directory": ".", "depends_on": []});
    for number in 0..3 {
        client.call(i64::from(number) + 1, "create_worker_mission", mission(number));
    }
    client.call(9, "cancel_worker", json!({"worker_id": "w-1"}));
    client.close();
    let folder = client.home.path().join(".orchestrator/journal");
    let entries = std::fs::read_dir(folder).unwrap().flatten();
    entries
        .filter(|entry| entry.path().is_file())
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            let bytes = std::fs::read(entry.path()).unwrap();
            std::fs::write(copy.join(&name), &bytes).unwrap();
            (name, bytes)
        })
        .collect()
}

#[test]
fn damaged_journal_causes_no_panic() {
    let made = tempfile::tempdir().unwrap();
    let files = journal_of_a_server(made.path());
    assert!(files.iter().any(|(_, bytes)| bytes.len() > 300), "valid material");
    for (damaged_name, whole) in files.iter().filter(|(_, bytes)| !bytes.is_empty()) {
        run(whole, |bytes| {
            let folder = tempfile::tempdir().unwrap();
            for (name, bytes) in &files {
                std::fs::write(folder.path().join(name), bytes).unwrap();
            }
            targets::journal(folder.path(), damaged_name, bytes);
        });
    }
}

#[test]
fn damaged_attempt_files_cause_no_panic() {
    let folder = tempfile::tempdir().unwrap();
    let inbox_entry = json!({"id": "5f0c9d0e-8d5b-4c39-9a55-8b4a4d1c9a01", "at": "2026-01-01T00:00:00Z",
        "content": {"message": {"text": "hear", "delivery": "when_ready"}}, "worker_id": "w-1-x", "attempt": 1, "status": "completed"});
    run(inbox_entry.to_string().as_bytes(), |bytes| targets::attempt(folder.path(), bytes));
}
