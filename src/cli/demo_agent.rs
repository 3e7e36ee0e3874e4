//! The agent of the demo's workers: a small deterministic program in place of a model, so that the demo needs no key
//! and no network. It prints the JSONL of custom backends and executes the lines `DEMO: …` of its prompt. Like any
//! agent, it gets a prompt, a directory and git, and does not depend on the orchestrator.
// Its stdout is its protocol.
#![allow(clippy::print_stdout)]

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use thiserror::Error;

const STEP: Duration = Duration::from_millis(300);
/// Time limit for the agents to meet.
const MEETING_LIMIT: Duration = Duration::from_secs(60);
/// Time limit of the endless mission, longer than that of the demo.
const ENDLESS_LIMIT: Duration = Duration::from_secs(300);

pub const GREETINGS: &str = "greetings.txt";
pub const DICTIONARY: &str = "dictionary.txt";
pub const SHOUT: &str = "SHOUT.txt";
const NOTES: &str = "NOTES.txt";

#[derive(Debug, Clone, clap::Args)]
pub struct AgentArgs {
    /// Id of the new session, or of the session to resume
    #[arg(long)]
    pub session: String,
    /// Working directory; named so that it appears in the list of processes
    pub directory: PathBuf,
}

#[derive(Debug, Error)]
enum AgentError {
    #[error("unknown instruction {0:?}")]
    Unknown(String),
    #[error("cannot {verb} {}", path.display())]
    File { verb: &'static str, path: PathBuf, source: io::Error },
    #[error("{file} has no line for {word}")]
    Missing { file: &'static str, word: String },
    #[error("git {what} failed: {said}")]
    Git { what: String, said: String },
    #[error("only {here} of {wanted} agents ran at the same time")]
    Alone { here: usize, wanted: usize },
}

/// Reads the prompt from stdin and works in the current directory. The result line and the exit status both report
/// whether it succeeded.
pub fn run(args: &AgentArgs) -> ExitCode {
    emit(json!({"type": "session", "id": args.session}));
    let mut prompt = String::new();
    let read = io::stdin().read_to_string(&mut prompt);
    let worked = read
        .map_err(|source| AgentError::File { verb: "read", path: "stdin".into(), source })
        .and_then(|_| work(&prompt));
    match &worked {
        Ok(message) => emit(json!({"type": "result", "status": "success", "message": message})),
        Err(error) => emit(json!({"type": "result", "status": "error", "kind": "other", "message": error.to_string()})),
    }
    if worked.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Executes the lines for the agent and returns its final message. Without any, it notes the request in a file: this
/// happens when a user tries `retry` in the demo's repository.
fn work(prompt: &str) -> Result<&'static str, AgentError> {
    let instructions: Vec<&str> =
        prompt.lines().filter_map(|line| line.trim().strip_prefix("DEMO:")).map(str::trim).collect();
    if instructions.is_empty() {
        note(prompt)?;
        return Ok("This agent is a script, not a model: it noted your request in NOTES.txt and committed it.");
    }
    instructions.into_iter().try_for_each(execute)?;
    Ok("Done and committed.")
}

fn execute(instruction: &str) -> Result<(), AgentError> {
    let words: Vec<&str> = instruction.splitn(3, ' ').collect();
    match words[..] {
        ["think", steps] => think(steps.parse().map_err(|_| AgentError::Unknown(instruction.to_owned()))?),
        ["meet", count, folder] => {
            meet(count.parse().map_err(|_| AgentError::Unknown(instruction.to_owned()))?, Path::new(folder))?
        }
        ["greet", language] => greet(language, str::to_owned)?,
        ["greet", language, "hastily"] => greet(language, hasty)?,
        ["shout", language] => shout(language)?,
        ["search-for-ever"] => search_for_ever()?,
        _ => return Err(AgentError::Unknown(instruction.to_owned())),
    }
    Ok(())
}

fn think(steps: u32) {
    for step in 1..=steps {
        say(&format!("thinking, step {step} of {steps}"));
        thread::sleep(STEP);
    }
}

/// Waits until a number of agents are here, which proves that they run at the same time.
fn meet(wanted: usize, folder: &Path) -> Result<(), AgentError> {
    say(&format!("waiting until {wanted} agents work at the same time"));
    let mark = folder.join(std::process::id().to_string());
    fs::write(&mark, "").map_err(|source| AgentError::File { verb: "write", path: mark, source })?;
    let until = Instant::now() + MEETING_LIMIT;
    loop {
        let here = fs::read_dir(folder).map_or(0, |entries| entries.count());
        match here {
            here if here >= wanted => return Ok(()),
            here if Instant::now() > until => return Err(AgentError::Alone { here, wanted }),
            _ => thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Appends the request to a file, in one line.
fn note(prompt: &str) -> Result<(), AgentError> {
    let request: String = prompt.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(300).collect();
    let known = fs::read_to_string(NOTES).unwrap_or_default();
    save(NOTES, &format!("{known}{request}\n"))?;
    commit(NOTES, "Note a request")
}

fn greet(language: &str, write: fn(&str) -> String) -> Result<(), AgentError> {
    let greeting = entry(&read(DICTIONARY)?, language)
        .ok_or_else(|| AgentError::Missing { file: DICTIONARY, word: language.to_owned() })?;
    let text = with_section(&read(GREETINGS)?, language, &write(&greeting))
        .ok_or_else(|| AgentError::Missing { file: GREETINGS, word: language.to_owned() })?;
    save(GREETINGS, &text)?;
    commit(GREETINGS, &format!("Greet in {language}"))
}

fn shout(language: &str) -> Result<(), AgentError> {
    let greeting = section(&read(GREETINGS)?, language)
        .ok_or_else(|| AgentError::Missing { file: GREETINGS, word: language.to_owned() })?;
    save(SHOUT, &format!("{}\n", greeting.to_uppercase()))?;
    commit(SHOUT, &format!("Shout the greeting in {language}"))
}

/// Works until it is cancelled. Its helper process has to end with it.
fn search_for_ever() -> Result<(), AgentError> {
    let path = std::env::current_dir()
        .map_err(|source| AgentError::File { verb: "find", path: ".".into(), source })?
        .join(GREETINGS);
    let helper = Command::new("tail").arg("-f").arg(&path).stdin(Stdio::null()).stdout(Stdio::null()).spawn();
    let mut helper = helper.map_err(|source| AgentError::File { verb: "watch", path, source })?;
    let until = Instant::now() + ENDLESS_LIMIT;
    while Instant::now() < until {
        say("still searching for one more language");
        thread::sleep(STEP);
    }
    // The helper may have ended already.
    let _ = helper.kill();
    let _ = helper.wait();
    Ok(())
}

/// Returns the greeting of a line `language: greeting`.
fn entry(dictionary: &str, language: &str) -> Option<String> {
    dictionary.lines().find_map(|line| line.strip_prefix(language)?.strip_prefix(": ")).map(str::to_owned)
}

/// Returns the line below `[language]`.
fn section(text: &str, language: &str) -> Option<String> {
    let heading = format!("[{language}]");
    text.lines().skip_while(|line| *line != heading).nth(1).map(str::to_owned)
}

fn with_section(text: &str, language: &str, greeting: &str) -> Option<String> {
    let heading = format!("[{language}]");
    let mut lines: Vec<&str> = text.lines().collect();
    let at = lines.iter().position(|line| *line == heading)? + 1;
    *lines.get_mut(at)? = greeting;
    Some(lines.join("\n") + "\n")
}

/// Swaps two letters: the mistake that the demo's verification finds.
fn hasty(greeting: &str) -> String {
    let mut letters: Vec<char> = greeting.chars().collect();
    if letters.len() > 5 {
        letters.swap(4, 5);
    }
    letters.into_iter().collect()
}

fn read(file: &'static str) -> Result<String, AgentError> {
    fs::read_to_string(file).map_err(|source| AgentError::File { verb: "read", path: file.into(), source })
}

fn save(file: &'static str, text: &str) -> Result<(), AgentError> {
    fs::write(file, text).map_err(|source| AgentError::File { verb: "write", path: file.into(), source })?;
    emit(json!({"type": "edit", "paths": [file]}));
    Ok(())
}

fn commit(file: &str, message: &str) -> Result<(), AgentError> {
    git(&["add", file])?;
    git(&["commit", "--quiet", "--message", message])
}

fn git(args: &[&str]) -> Result<(), AgentError> {
    let what = args.join(" ");
    emit(json!({"type": "tool", "id": what, "name": "git", "what": format!("git {what}")}));
    let ended = Command::new("git")
        .args(args)
        .output()
        .map_err(|error| AgentError::Git { what: what.clone(), said: error.to_string() })?;
    let said = String::from_utf8_lossy(&ended.stderr).trim().to_owned();
    let ok = ended.status.success();
    emit(json!({"type": "tool_end", "id": what, "ok": ok, "exit_code": ended.status.code(), "output": said}));
    if ok { Ok(()) } else { Err(AgentError::Git { what, said }) }
}

fn say(text: &str) {
    emit(json!({"type": "message", "text": text}));
}

fn emit(event: Value) {
    println!("{event}");
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Greetings.\n\n[english]\n-\n\n[french]\n-\n";

    #[test]
    fn greeting_goes_into_its_section() {
        let text = with_section(TEXT, "french", "Bonjour !").unwrap();
        assert_eq!(text, "Greetings.\n\n[english]\n-\n\n[french]\nBonjour !\n");
        assert_eq!(section(&text, "french").as_deref(), Some("Bonjour !"));
        assert_eq!(with_section(TEXT, "latin", "Salve!"), None);
    }

    #[test]
    fn hasty_agent_makes_a_mistake() {
        assert_eq!(hasty("Bonjour, le monde!"), "Bonjuor, le monde!");
    }

    #[test]
    fn unknown_instruction_is_an_error() {
        assert!(matches!(work("DEMO: fly"), Err(AgentError::Unknown(instruction)) if instruction == "fly"));
    }
}
