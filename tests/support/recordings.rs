//! Recorded output of the CLIs, `fixtures/<backend>/<case>/`, and its decoding by the adapters.

// Each test binary uses a different part.
#![allow(dead_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::tz::TimeZone;
use orchestrator_boss::backend::{AgentEvent, Backend, Backends, Codex, CustomBackend, Decoder, Session, Turn};
use orchestrator_boss::mission::id::{BackendName, TaskId};
use orchestrator_boss::mission::outcome::Exit;
use orchestrator_boss::mission::question::{Decision, Question, QuestionPolicy, QuestionRules};
use orchestrator_boss::mission::spec::{Mission, Permissions, Place};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

/// The content of `case.json`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// The purpose of this case.
    pub why: String,
    pub exit: Exit,
    #[serde(default)]
    pub stderr: String,
    pub custom: Option<CustomBackend>,
    /// The built-in agent, for a case of `acp`.
    pub preset: Option<String>,
    #[serde(default = "edit")]
    pub permissions: Permissions,
    #[serde(default)]
    pub questions: QuestionPolicy,
    /// The session that is resumed.
    pub resumes: Option<String>,
    /// The script with which `real/drift.rs` makes the CLI print this output again.
    pub script: Option<Value>,
}

fn edit() -> Permissions {
    Permissions::Edit
}

/// The results of an adapter, as the files of a case contain them.
pub struct Decoded {
    pub events: String,
    pub report: String,
    pub sent: String,
}

/// Decodes the output of a CLI.
pub fn decode(backend: &str, case: &Case, stream: &[u8]) -> Decoded {
    let mission = Mission { permissions: case.permissions, ..mission(backend) };
    let adapter = adapter(case.preset.as_deref().unwrap_or(backend), case.custom.clone());
    let session = case.resumes.as_deref().map_or(Session::New(Uuid::nil()), Session::Resume);
    // The recordings name files in the folder in which they were made.
    let dir = Path::new(if backend == "acp" { "/repo" } else { "/home/dev/project" });
    let questions = QuestionRules { policy: case.questions, prefix: "q" };
    let turn = Turn { session, dir, questions, ..turn(&mission) };
    let mut decoder = adapter.decoder(&turn);
    let mut asked: Vec<Question> = Vec::new();
    let mut sent = String::new();
    let mut events = String::new();
    for line in stream.split(|byte| *byte == b'\n') {
        let line = String::from_utf8_lossy(line);
        let decoded = match line.strip_prefix("> ") {
            Some("cancel") => {
                assert!(decoder.cancel(), "a turn runs");
                Vec::new()
            }
            Some(words) => match words.split_once(' ').expect("a kind and a text") {
                ("prompt", text) => {
                    assert!(decoder.prompt(&[Uuid::nil()], text), "the turn is over");
                    Vec::new()
                }
                ("message", text) => {
                    assert!(decoder.message(Uuid::nil(), text), "the turn takes messages");
                    Vec::new()
                }
                ("answer", text) => answer(&mut *decoder, &asked, text).expect("an open question"),
                ("late-answer", text) => {
                    assert_eq!(answer(&mut *decoder, &asked, text), None);
                    Vec::new()
                }
                (other, _) => panic!("{other} is no kind of line"),
            },
            None => decoder.line(&line),
        };
        for event in decoded {
            if let AgentEvent::Asked { question } = &event {
                asked.push(question.clone());
            }
            events += &(serde_json::to_string(&event).unwrap() + "\n");
        }
        sent += &decoder.replies().concat();
    }
    let report = decoder.end(case.exit, &case.stderr);
    let report = serde_json::to_string_pretty(&report).unwrap() + "\n";
    Decoded { events, report, sent }
}

/// Answers a question: its id, the decision, and the reason if there is one.
fn answer(decoder: &mut dyn Decoder, asked: &[Question], text: &str) -> Option<Vec<AgentEvent>> {
    let (id, decision) = text.split_once(' ').expect("a question and a decision");
    let (decision, reason) = decision.split_once(' ').map_or((decision, None), |(it, why)| (it, Some(why.to_owned())));
    let question = asked.iter().find(|question| question.id == id).expect("an asked question");
    let verdict = question.verdict(&Decision::from(decision.to_owned()), reason).expect("an accepted decision");
    decoder.answer(id, &verdict)
}

fn adapter(name: &str, custom: Option<CustomBackend>) -> Arc<dyn Backend> {
    match (name, custom) {
        ("custom" | "acp", Some(custom)) => Arc::new(custom),
        // Codex prints times in the zone of its machine.
        ("codex", _) => Arc::new(Codex::in_zone(TimeZone::UTC)),
        _ => Backends::with_custom(Vec::new()).get(name).unwrap(),
    }
}

/// Returns a mission without limits.
pub fn mission(backend: &str) -> Mission {
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
        run_on: None,
        profile: None,
    }
}

/// Returns the first turn of a mission.
pub fn turn(mission: &Mission) -> Turn<'_> {
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
        questions: QuestionRules::default(),
        confined: false,
    }
}

/// Returns the folders of the cases of a backend.
pub fn cases(backend: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(backend);
    let mut folders: Vec<PathBuf> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    folders
}

pub fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
