//! Replays recorded output of each CLI through its decoder: `fixtures/<backend>/<case>/`.
//!
//! `stream.jsonl` is the output of the CLI, `case.json` its exit and the purpose of the case. `events.jsonl`,
//! `report.json` and, for a CLI that gets answers, `sent.jsonl` are the expected results. `UPDATE_FIXTURES=1` rewrites
//! them, to be read before they are committed. Lines of `stream.jsonl` can be steps:
//!
//! - `> prompt TEXT` begins a further turn.
//! - `> message TEXT` gives a message to the running turn.
//! - `> answer QUESTION DECISION REASON` answers a question; `> late-answer` expects that it is not
//!   open any more.
//! - `> cancel` cancels the turn.

#[path = "support/recordings.rs"]
mod recordings;

use std::fs;
use std::path::Path;

use recordings::{Case, Decoded, cases, decode, read};

#[test]
fn recorded_streams_are_decoded() {
    let mut wrong = Vec::new();
    for (backend, least) in
        [("claudecode", 12), ("codex", 12), ("gemini", 10), ("opencode", 10), ("custom", 4), ("acp", 150)]
    {
        let cases = cases(backend);
        assert!(cases.len() >= least, "{backend} has only {} cases", cases.len());
        for case in cases {
            wrong.extend(replay(backend, &case));
        }
    }
    assert!(wrong.is_empty(), "these differ from what is expected:\n{}", wrong.join("\n"));
}

fn replay(backend: &str, folder: &Path) -> Vec<String> {
    println!("{}", folder.display());
    let case: Case = serde_json::from_str(&read(&folder.join("case.json"))).unwrap();
    let Decoded { events, report, sent } = decode(backend, &case, &fs::read(folder.join("stream.jsonl")).unwrap());
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
