//! Replays recorded output of each CLI through its decoder: `fixtures/<backend>/<case>/`.
//!
//! `stream.jsonl` is the output of the CLI, `case.json` its exit and the purpose of the case. `events.jsonl`,
//! `report.json` and, for a CLI that gets answers, `sent.jsonl` are the expected results. `UPDATE_FIXTURES=1` rewrites
//! them, to be read before they are committed. In `stream.jsonl` a line `> prompt TEXT` begins a further turn there, and
//! `> cancel` cancels one.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::tz::TimeZone;
use orchestrator_boss::backend::{Backend, Backends, Codex, CustomBackend, Session, Turn};
use orchestrator_boss::mission::id::{BackendName, TaskId};
use orchestrator_boss::mission::outcome::Exit;
use orchestrator_boss::mission::spec::{Mission, Permissions, Place};
use serde::Deserialize;
use uuid::Uuid;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// The purpose of this case.
    #[allow(dead_code)]
    why: String,
    exit: Exit,
    #[serde(default)]
    stderr: String,
    custom: Option<CustomBackend>,
    /// The built-in agent, for a case of `acp`.
    preset: Option<String>,
    #[serde(default = "edit")]
    permissions: Permissions,
    /// The session that is resumed.
    resumes: Option<String>,
}

fn edit() -> Permissions {
    Permissions::Edit
}

#[test]
fn recorded_streams_are_decoded() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut wrong = Vec::new();
    for (backend, least) in
        [("claudecode", 12), ("codex", 12), ("gemini", 10), ("opencode", 10), ("custom", 4), ("acp", 30)]
    {
        let cases = folders(&root.join(backend));
        assert!(cases.len() >= least, "{backend} has only {} cases", cases.len());
        for case in cases {
            wrong.extend(replay(backend, &case));
        }
    }
    assert!(wrong.is_empty(), "these differ from what is expected:\n{}", wrong.join("\n"));
}

fn replay(backend: &str, folder: &Path) -> Vec<String> {
    let case: Case = serde_json::from_str(&read(&folder.join("case.json"))).unwrap();
    let mission = Mission { permissions: case.permissions, ..mission(backend) };
    let adapter = adapter(case.preset.as_deref().unwrap_or(backend), case.custom);
    let session = case.resumes.as_deref().map_or(Session::New(Uuid::nil()), Session::Resume);
    // The recordings name files in the folder in which they were made.
    let dir = Path::new(if backend == "acp" { "/repo" } else { "/home/dev/project" });
    let turn = Turn { session, dir, ..turn(&mission) };
    let mut decoder = adapter.decoder(&turn);
    let mut sent = String::new();
    let mut events = String::new();
    for line in fs::read(folder.join("stream.jsonl")).unwrap().split(|byte| *byte == b'\n') {
        let line = String::from_utf8_lossy(line);
        let decoded = match line.strip_prefix("> ") {
            Some("cancel") => {
                assert!(decoder.cancel(), "{}: a turn runs", folder.display());
                Vec::new()
            }
            Some(prompt) => {
                let text = prompt.strip_prefix("prompt ").expect("a prompt");
                assert!(decoder.prompt(&[Uuid::nil()], text), "{}: the turn is over", folder.display());
                Vec::new()
            }
            None => decoder.line(&line),
        };
        for event in decoded {
            events += &(serde_json::to_string(&event).unwrap() + "\n");
        }
        sent += &decoder.replies().concat();
    }
    let report = decoder.end(case.exit, &case.stderr);
    let report = serde_json::to_string_pretty(&report).unwrap() + "\n";
    let sent = (!sent.is_empty()).then_some(("sent.jsonl", sent));
    let found = [("events.jsonl", events), ("report.json", report)];
    found.into_iter().chain(sent).filter_map(|(file, found)| compare(&folder.join(file), &found)).collect()
}

fn compare(expected: &Path, found: &str) -> Option<String> {
    if std::env::var_os("UPDATE_FIXTURES").is_some() {
        fs::write(expected, found).unwrap();
        return None;
    }
    let wanted = fs::read_to_string(expected).unwrap_or_default();
    (wanted != found).then(|| format!("{}\n--- expected\n{wanted}--- found\n{found}", expected.display()))
}

fn adapter(name: &str, custom: Option<CustomBackend>) -> Arc<dyn Backend> {
    match (name, custom) {
        ("custom" | "acp", Some(custom)) => Arc::new(custom),
        // Codex prints times in the zone of its machine.
        ("codex", _) => Arc::new(Codex::in_zone(TimeZone::UTC)),
        _ => Backends::with_custom(Vec::new()).get(name).unwrap(),
    }
}

fn mission(backend: &str) -> Mission {
    Mission {
        title: "Replay".into(),
        prompt: "do it".into(),
        backend: BackendName::from(backend),
        model: None,
        effort: None,
        place: Place::Directory { path: PathBuf::from("/home/dev/project") },
        setup_command: None,
        verify_command: None,
        task_id: TaskId::from("t"),
        depends_on: Vec::new(),
        context_from: Vec::new(),
        timeout_minutes: 120,
        max_cost_usd: None,
        max_tokens: None,
        fallback_backends: Vec::new(),
        max_attempts: 1,
        request_id: None,
        permissions: Permissions::Edit,
        profile: None,
    }
}

fn turn(mission: &Mission) -> Turn<'_> {
    Turn {
        mission,
        prompt: "do it",
        prompt_anew: "do it",
        dir: Path::new("/home/dev/project"),
        session: Session::New(Uuid::nil()),
        message_id: Uuid::nil(),
        git: None,
        identity: None,
        scratch: Path::new("/home/dev/scratch"),
        own_registrations: &[],
        root: false,
    }
}

fn folders(root: &Path) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    folders
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
