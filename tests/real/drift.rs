//! Makes the real CLIs print the recorded output of `tests/fixtures/` again, and compares its shape: the kinds of
//! lines, the fields of each kind, the decoded events. So it finds a new version of a CLI that prints something else.
//!
//! A case with a `script` in its `case.json` is repeated by a worker with the scripted model. `UPDATE_RECORDINGS=1`
//! replaces the recordings that differ. Then `UPDATE_FIXTURES=1 cargo test --test backend_streams` writes the expected
//! events. Read both.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use orchestrator_boss::mission::outcome::Exit;
use regex_lite::Regex;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use similar::TextDiff;

use crate::model_server::{Script, Step};
use crate::real_cli::{Cli, cli_folder, skipped};
use crate::recordings::{Case, cases, decode, read};
use crate::world::{World, backend, with};

/// The way to produce the output of a case again.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Repetition {
    steps: Vec<Step>,
    /// A message while a command runs, which creates the file `started` and waits for `released`.
    during: Option<String>,
    /// The steps after a message to the finished worker. The recording is that of the resumed session.
    after: Option<Vec<Step>>,
    model: Option<String>,
}

/// Numbers of an event that must be the same in each run.
const COMPARED_NUMBERS: [&str; 2] = ["exit_code", "denials"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claude_code_prints_what_was_recorded() {
    repeat_all(Cli::Claude).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn codex_prints_what_was_recorded() {
    repeat_all(Cli::Codex).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gemini_cli_prints_what_was_recorded() {
    repeat_all(Cli::Gemini).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn opencode_prints_what_was_recorded() {
    repeat_all(Cli::OpenCode).await;
}

#[test]
fn kinds_fields_and_events_are_compared() {
    let case: Case = serde_json::from_value(json!({"why": "", "exit": {"code": 0}})).expect("a valid case");
    let differences = |old: [Value; 2], new: [Value; 2]| {
        let [old, new] = [old, new].map(|lines| lines.map(|line| format!("{line}\n")).concat());
        Printed::new("codex", &case, old).differences(&Printed::new("codex", &case, new))
    };
    let said =
        |text: &str| json!({"type": "item.completed", "item": {"type": "agent_message", "id": "item_1", "text": text}});
    let end = |usage: Value| json!({"type": "turn.completed", "usage": usage});
    let usage = |count: u64| end(json!({"input_tokens": count}));
    assert_eq!(differences([said("a"), usage(1)], [said("a"), usage(2)]), "");
    assert!(differences([said("a"), usage(1)], [said("b"), usage(1)]).contains("-{\"event\":\"said\",\"text\":\"a\"}"));
    let renamed = differences([said("a"), usage(1)], [said("a"), end(json!({"tokens": 1}))]);
    assert!(
        renamed.starts_with("+ turn.completed: .usage.tokens\n- turn.completed: .usage.input_tokens\n"),
        "{renamed}"
    );
    let other = differences([said("a"), usage(1)], [said("a"), json!({"type": "turn.done"})]);
    assert!(other.starts_with("+ lines of the kind turn.done\n- lines of the kind turn.completed\n"), "{other}");
}

async fn repeat_all(cli: Cli) {
    if skipped() {
        return;
    }
    let (mut repeated, mut differences) = (0, String::new());
    for folder in cases(backend(cli)) {
        let case: Case = serde_json::from_str(&read(&folder.join("case.json"))).expect("a valid case");
        let Some(script) = &case.script else { continue };
        let script = serde_json::from_value(script.clone()).expect("a valid script");
        repeated += 1;
        // A world for each case: a backend that failed starts no further worker for a while.
        with(cli, async |world| differences += &repeat(world, &folder, case, script).await).await;
    }
    assert!(repeated >= 6, "only {repeated} cases are repeated");
    assert!(differences.is_empty(), "the CLI prints something else than what was recorded:\n{differences}");
}

/// Repeats one case. Returns the differences, or replaces the recording if that is wanted.
async fn repeat(world: &World, folder: &Path, mut case: Case, script: Repetition) -> String {
    let name = backend(world.cli);
    let new = record(world, &script).await;
    let old = Printed::new(name, &case, read(&folder.join("stream.jsonl")));
    case.exit = new.exit;
    // The other cases do not depend on stderr.
    if !case.stderr.is_empty() {
        case.stderr = new.stderr;
    }
    let new = Printed::new(name, &case, new.stdout);
    let differences = old.differences(&new);
    if differences.is_empty() {
        return differences;
    }
    let differences = format!("\n== {}\n{differences}", folder.display());
    if std::env::var_os("UPDATE_RECORDINGS").is_none() {
        return differences;
    }
    println!("{differences}");
    replace(folder, &case, &new.stream);
    String::new()
}

/// The output of one attempt, without paths and addresses of this machine.
struct Recording {
    stdout: String,
    stderr: String,
    exit: Exit,
}

async fn record(world: &World, script: &Repetition) -> Recording {
    let more = script.model.as_ref().map_or(json!({}), |model| json!({"model_override": model}));
    let worker = world.start(&Script(script.steps.clone()), more).await;
    if let Some(message) = &script.during {
        world.until_made(&worker, "started").await;
        world.call("send_message_to_worker", json!({"worker_id": worker, "message": message})).await;
        fs::write(world.worktree(&worker).join("released"), "").expect("a new file in the worktree");
    }
    world.settled(&worker).await;
    let mut attempt = 1;
    if let Some(steps) = &script.after {
        let message = Script(steps.clone()).marker();
        world.call("send_message_to_worker", json!({"worker_id": worker, "message": message})).await;
        world.settled(&worker).await;
        attempt = 2;
    }
    let names = names_of_this_machine(world, &worker);
    let text = |file: &str| {
        let text = world.attempt_text(&worker, attempt, file);
        names.iter().fold(text, |text, (name, neutral)| text.replace(name, neutral))
    };
    Recording {
        stdout: text("stdout.log").lines().map(without_script).collect(),
        stderr: text("stderr.log").trim().to_owned(),
        exit: serde_json::from_value(world.attempt_file(&worker, attempt, "outcome.json")["run"]["exit"].clone())
            .expect("the CLI has ended"),
    }
}

/// Returns paths and addresses of this machine, each with its replacement in recordings.
fn names_of_this_machine(world: &World, worker: &str) -> Vec<(String, &'static str)> {
    let resolved = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let modules = cli_folder();
    let paths = [
        (world.worktree(worker), "/home/dev/project"),
        (world.repo(), "/home/dev/repository"),
        (resolved(world.home.path()), "/home/dev"),
        (world.home.path().to_owned(), "/home/dev"),
        (resolved(&modules), "/home/dev/node_modules"),
        (modules, "/home/dev/node_modules"),
    ];
    let paths = paths.into_iter().map(|(path, neutral)| (path.display().to_string(), neutral));
    // Claude Code names folders after paths.
    let slug = |path: &str| path.replace(|letter: char| !letter.is_ascii_alphanumeric(), "-");
    let both = |(path, neutral): (String, &'static str)| {
        let slug = (slug(&path), if neutral == "/home/dev/project" { "-home-dev-project" } else { "-home-dev" });
        [(path, neutral), slug]
    };
    paths.flat_map(both).chain([(world.model.url(), "http://127.0.0.1:18700")]).collect()
}

/// Returns a line with its newline. Its prompt is replaced by that of all recordings.
fn without_script(line: &str) -> String {
    fn replace(value: &mut Value) {
        match value {
            Value::String(text) if text.contains("SCRIPT:") => *text = "do it".into(),
            Value::Array(items) => items.iter_mut().for_each(replace),
            Value::Object(fields) => fields.values_mut().for_each(replace),
            _ => {}
        }
    }
    let Ok(mut value) = serde_json::from_str::<Value>(line) else { return format!("{line}\n") };
    replace(&mut value);
    format!("{value}\n")
}

/// Writes the recording. Another test writes the expected events.
fn replace(folder: &Path, case: &Case, stream: &str) {
    let path = folder.join("case.json");
    let mut fields: Map<String, Value> = serde_json::from_str(&read(&path)).expect("a valid case");
    fields.insert("exit".into(), serde_json::to_value(case.exit).expect("plain data"));
    if !case.stderr.is_empty() {
        fields.insert("stderr".into(), case.stderr.clone().into());
    }
    let text = serde_json::to_string_pretty(&fields).expect("plain data");
    fs::write(path, text + "\n").expect("a case that can be written");
    fs::write(folder.join("stream.jsonl"), stream).expect("a recording that can be written");
}

/// A recording, prepared for a comparison.
struct Printed {
    stream: String,
    /// The fields of each kind of lines.
    kinds: BTreeMap<String, BTreeSet<String>>,
    /// The exit, the events and the report, without ids, times and counts.
    decoded: String,
}

impl Printed {
    fn new(backend: &str, case: &Case, stream: String) -> Self {
        let mut kinds = BTreeMap::<String, BTreeSet<String>>::new();
        for line in stream.lines() {
            let line = serde_json::from_str(line).unwrap_or(Value::Null);
            add_fields(kinds.entry(kind_of(&line)).or_default(), "", &line);
        }
        let decoded = decode(backend, case, stream.as_bytes());
        let report = serde_json::from_str(&decoded.report).expect("valid JSON");
        let events = decoded.events.lines().map(|line| serde_json::from_str(line).expect("valid JSON"));
        let mut lines: Vec<String> = events.chain([report]).map(|value| masked("", value).to_string()).collect();
        lines.dedup();
        lines.insert(0, format!("{:?}", case.exit));
        Self { stream, kinds, decoded: lines.join("\n") + "\n" }
    }

    /// Describes what is new (+) and what is missing (-).
    fn differences(&self, new: &Self) -> String {
        let mut text = String::new();
        for (mark, one, other) in [('+', new, self), ('-', self, new)] {
            for (kind, fields) in &one.kinds {
                let Some(others) = other.kinds.get(kind) else {
                    text += &format!("{mark} lines of the kind {kind}\n");
                    continue;
                };
                fields.difference(others).for_each(|field| text += &format!("{mark} {kind}: {field}\n"));
            }
        }
        if self.decoded != new.decoded {
            text += &TextDiff::from_lines(&self.decoded, &new.decoded).unified_diff().context_radius(2).to_string();
        }
        text
    }
}

/// Returns the fields that distinguish lines, in any of the CLIs' formats.
fn kind_of(line: &Value) -> String {
    let pointers = ["/type", "/subtype", "/role", "/item/type", "/part/type", "/part/state/status", "/status"];
    let words: Vec<&str> = pointers.iter().filter_map(|at| line.pointer(at)?.as_str()).collect();
    if line.is_object() { words.join(" ") } else { "no JSON".into() }
}

/// Adds the paths of all fields. A field name that is data, such as the name of a model, becomes `*`.
fn add_fields(fields: &mut BTreeSet<String>, path: &str, value: &Value) {
    match value {
        Value::Object(inner) => {
            for (name, value) in inner {
                let is_data = name.contains(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
                add_fields(fields, &format!("{path}.{}", if is_data { "*" } else { name }), value);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| add_fields(fields, &format!("{path}[]"), item)),
        _ => {
            fields.insert(path.to_owned());
        }
    }
}

/// Replaces what differs from run to run.
fn masked(name: &str, value: Value) -> Value {
    const MASKS: [(&str, &str); 5] = [
        ("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "ID"),
        (r"\b(ses|toolu|call|item|req)_[A-Za-z0-9_]+", "ID"),
        (r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.-]+Z?", "TIME"),
        ("[0-9]{6,}", "N"),
        // The shell of the user.
        ("/bin/[a-z]+ -lc", "SHELL"),
    ];
    match value {
        Value::Number(_) if !COMPARED_NUMBERS.contains(&name) => json!(0),
        Value::String(text) => MASKS
            .iter()
            .fold(text, |text, (pattern, mask)| {
                let pattern = Regex::new(pattern).expect("a valid pattern");
                pattern.replace_all(&text, *mask).into_owned()
            })
            .into(),
        Value::Array(items) => items.into_iter().map(|item| masked(name, item)).collect(),
        Value::Object(fields) => {
            let fields = fields.into_iter().map(|(name, value)| (name.clone(), masked(&name, value)));
            fields.collect::<Map<_, _>>().into()
        }
        other => other,
    }
}
