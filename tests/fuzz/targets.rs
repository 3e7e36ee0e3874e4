//! One function for each kind of external bytes. It may refuse them, but must not panic. A coverage-guided fuzzer could
//! call the same functions.

use std::path::Path;

use jiff::Timestamp;
use orchestrator_boss::attempt::assignment::Assignment;
use orchestrator_boss::attempt::status::LiveStatus;
use orchestrator_boss::attempt::worker_dir::AttemptDir;
use orchestrator_boss::backend::{Backends, Session, Turn};
use orchestrator_boss::config::Settings;
use orchestrator_boss::files;
use orchestrator_boss::mission::id::ServerId;
use orchestrator_boss::mission::outcome::Exit;
use orchestrator_boss::mission::question::QuestionRules;
use orchestrator_boss::mission::spec::Mission;
use orchestrator_boss::store::journal::Journal;
use orchestrator_boss::store::state_file;
use uuid::Uuid;

/// Reads the user's settings.
pub fn settings(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(settings) = Settings::parse(text) else { return };
    for custom in &settings.custom {
        custom.check_settings().expect("accepted settings are valid");
    }
    let backends = Backends::with_custom(settings.custom);
    assert!(backends.names().count() >= 4, "the built-in backends always exist");
}

/// Decodes the whole output of a CLI.
pub fn cli_stream(backend: &str, mission: &Mission, bytes: &[u8]) {
    let backend = Backends::with_custom(Vec::new()).get(backend).expect("a built-in backend");
    let turn = Turn {
        mission,
        prompt: "do it",
        prompt_anew: "do it",
        dir: Path::new("/srv/tree"),
        session: Session::New(Uuid::nil()),
        message_id: Uuid::nil(),
        git: None,
        identity: None,
        scratch: Path::new("/srv/scratch"),
        own_registrations: &[],
        root: false,
        questions: QuestionRules::default(),
        confined: false,
    };
    let mut decoder = backend.decoder(&turn);
    for line in String::from_utf8_lossy(bytes).lines() {
        for event in decoder.line(line) {
            let written = serde_json::to_string(&event).expect("events are JSON");
            assert!(!written.contains('\n'), "an event is one line of the event log");
        }
    }
    decoder.end(Exit::Code(0), &String::from_utf8_lossy(bytes));
}

/// Opens a folder with these bytes as its state file, which is set aside or refused, and never lost.
pub fn state_file(folder: &Path, bytes: &[u8]) {
    let path = folder.join("orchestrator-state.json");
    std::fs::write(&path, bytes).expect("a file of the test's own");
    let aside = state_file::make_way(&path, Timestamp::UNIX_EPOCH);
    let kept = aside.ok().flatten().unwrap_or(path);
    assert_eq!(std::fs::read(&kept).expect("the old file is kept"), bytes);
    std::fs::remove_file(kept).expect("a file of the test's own");
}

/// Opens a journal in which one file has these bytes, as after a crash, on a full disk, or of another version. It is
/// read or refused.
pub fn journal(folder: &Path, name: &str, bytes: &[u8]) {
    std::fs::write(folder.join(name), bytes).expect("a file of the test's own");
    let Ok(mut journal) = Journal::open(folder, ServerId::from("s-fuzz")) else { return };
    if journal.catch_up().is_ok() {
        let registry = journal.registry();
        for worker in registry.workers() {
            assert!(registry.get(&worker.id).is_some());
        }
    }
}

/// Reads these bytes as each file of an attempt.
pub fn attempt(folder: &Path, bytes: &[u8]) {
    let dir = AttemptDir::at(folder.to_owned());
    for path in [dir.assignment(), dir.status(), dir.outcome_path()] {
        std::fs::write(path, bytes).expect("a file of the test's own");
    }
    let _ = files::read_json::<Assignment>(&dir.assignment());
    let _ = LiveStatus::read(&dir);
    let _ = dir.outcome();
    let inbox = folder.join("inbox");
    std::fs::create_dir_all(&inbox).expect("a folder of the test's own");
    std::fs::write(inbox.join("000001.json"), bytes).expect("a file of the test's own");
    let _ = dir.inbox_entries(0);
}
