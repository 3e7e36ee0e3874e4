//! A repository with a server that never starts a worker, and the checks of every answer.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::client::Client;
use crate::support::git::git;

/// The documented 8 kB and the envelope around them.
const ANSWER: usize = 8_192;
const LONG_ANSWER: usize = 40_960;

pub struct Sealed {
    pub client: Client,
    /// A folder that must stay empty.
    outside: tempfile::TempDir,
    id: i64,
}

impl Sealed {
    pub fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        let repo = home.path().join("around/repo");
        std::fs::create_dir_all(&repo).unwrap();
        git(&repo, &["init", "-q", "-b", "main"]);
        git(&repo, &["config", "user.name", "T"]);
        git(&repo, &["config", "user.email", "t@localhost"]);
        std::fs::write(repo.join("README"), "hello\n").unwrap();
        git(&repo, &["add", "."]);
        git(&repo, &["commit", "-q", "-m", "first"]);
        std::os::unix::fs::symlink(outside.path(), repo.join("link")).unwrap();
        let mut client = Client::start_in(home, &repo, &[("ORCHESTRATOR_LOG", "info")]);
        client.initialize("test", "2025-06-18");
        Self { client, outside, id: 0 }
    }

    pub fn repo(&self) -> PathBuf {
        self.client.home.path().join("around/repo")
    }

    pub fn outside(&self) -> &Path {
        self.outside.path()
    }

    /// Calls a tool and checks the form of the answer. Returns whether it is an error, and its text.
    pub fn ask(&mut self, tool: &str, arguments: &Value) -> Result<(bool, String), String> {
        self.id += 1;
        let mut arguments = arguments.clone();
        if tool.starts_with("wait_") && arguments["timeout_seconds"].as_u64() != Some(0) && arguments.is_object() {
            // A valid wait would block.
            arguments["timeout_seconds"] = json!(0);
        }
        self.client.send_call(self.id, tool, arguments.clone());
        let answer = self.client.answer(self.id);
        let result = &answer["result"];
        if !result.is_object() {
            return Err(format!("a protocol error: {answer}"));
        }
        let text = result["content"][0]["text"].as_str().unwrap_or_default().to_owned();
        let refused = result["isError"] == true;
        let most = if arguments["include"].is_array() { LONG_ANSWER } else { ANSWER };
        for part in [&json!(text), &result["structuredContent"]] {
            let size = part.to_string().len();
            if size > most && tool != "list_worker_missions" || size > LONG_ANSWER {
                return Err(format!("an answer of {size} bytes"));
            }
        }
        if refused && (!text.starts_with("ERROR: ") || text.len() < 30) {
            return Err(format!("a refusal that teaches nothing: {text}"));
        }
        if text.contains("because of a bug") || text.contains("os error") || text.contains("panicked") {
            return Err(format!("an inner failure: {text}"));
        }
        match first_control(&json!([text, result["structuredContent"]])) {
            Some(text) => Err(format!("control characters: {text:?}")),
            None => Ok((refused, text)),
        }
    }

    /// Checks after all calls that the server runs, its files are valid, and nothing was created or run outside.
    pub fn check_end_state(&mut self) {
        let mission = json!({"title": "last", "prompt": "x", "backend": "codex"});
        let (refused, text) = self.ask("create_worker_mission", &mission).unwrap();
        assert!(!refused, "{text}");
        assert_eq!(
            std::fs::read_dir(self.outside()).unwrap().count(),
            0,
            "a file was created outside, or a text was run"
        );
        let state = self.repo().join(".orchestrator");
        for entry in std::fs::read_dir(state.join("journal")).unwrap().flatten() {
            let bytes = std::fs::read(entry.path()).unwrap();
            // A line without its newline is still being written.
            for line in bytes.split_inclusive(|byte| *byte == b'\n') {
                if line.starts_with(b"{") && line.ends_with(b"\n") {
                    serde_json::from_slice::<Value>(line).expect("each line of the journal is JSON");
                }
            }
        }
        let around: Vec<_> = std::fs::read_dir(self.client.home.path()).unwrap().flatten().collect();
        let known = ["around", "bin", "server.log"];
        for entry in around {
            assert!(known.iter().any(|it| entry.file_name() == *it), "{} was created", entry.path().display());
        }
        let log = std::fs::read_to_string(self.client.home.path().join("server.log")).unwrap();
        assert!(!log.contains("panicked"), "{log}");
        let is_raw = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
        let raw = log.split('\n').find(|line| line.contains(is_raw));
        assert_eq!(raw, None, "the log holds raw control characters");
        let forged = log.lines().find(|line| !line.starts_with("20"));
        assert_eq!(forged, None, "each line of the log is an event");
    }
}

/// Returns the first text with a control character other than newline, tab and carriage return.
fn first_control(value: &Value) -> Option<&str> {
    match value {
        Value::String(text) => {
            text.contains(|c: char| c.is_control() && !matches!(c, '\n' | '\t' | '\r')).then_some(text)
        }
        Value::Array(items) => items.iter().find_map(first_control),
        Value::Object(fields) => fields.values().find_map(first_control),
        _ => None,
    }
}
