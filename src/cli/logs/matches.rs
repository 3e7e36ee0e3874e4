//! Prints the lines of one worker's log that match a regular expression, each with the worker's id. It reads no file.

use std::sync::atomic::{AtomicBool, Ordering};

use regex_lite::Regex;
use serde_json::{Value, json};

use crate::cli::error::CliError;
use crate::cli::output;
use crate::cli::terminal::{Tone, paint};
use crate::mission::registry::Worker;

/// A search in the log of one worker.
pub(super) struct Matches<'a> {
    pattern: &'a Regex,
    json: bool,
    worker: &'a Worker,
    found: AtomicBool,
}

impl<'a> Matches<'a> {
    pub fn new(pattern: &'a Regex, json: bool, worker: &'a Worker) -> Self {
        Self { pattern, json, worker, found: AtomicBool::new(false) }
    }

    /// Returns whether anything has matched.
    pub fn any(&self) -> bool {
        self.found.load(Ordering::Relaxed)
    }

    /// Prints the lines of a sanitised text that match, or the JSON object if any does. `at` is the time of day.
    pub fn print(&self, at: &str, text: &str, json: impl FnOnce() -> Value) -> Result<(), CliError> {
        let mut matching = text.lines().map(str::trim).filter(|line| self.pattern.is_match(line)).peekable();
        if matching.peek().is_none() {
            return Ok(());
        }
        self.found.store(true, Ordering::Relaxed);
        let worker = self.worker;
        if self.json {
            let mut line = json!({"worker_id": worker.id.as_str()});
            if let (Value::Object(line), Value::Object(event)) = (&mut line, json()) {
                line.extend(event);
            }
            return output::json_line(&line);
        }
        let id = worker.number().map_or_else(|| worker.id.to_string(), |number| format!("w-{number}"));
        let prefix = format!("{}  {}", paint(Tone::Strong, &format!("{id:<4}")), paint(Tone::Quiet, at));
        matching.try_for_each(|line| output::line(&format!("{prefix}  {line}")))
    }
}
