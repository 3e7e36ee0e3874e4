//! `logs --grep`: the lines of all events that match, of one worker or of all, including those in the history.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::ExitCode;
use std::sync::Arc;

use jiff::Zoned;
use jiff::tz::TimeZone;
use regex_lite::Regex;
use serde_json::{Value, json};

use crate::attempt::worker_dir::AttemptDir;
use crate::cli::error::{self, CliError};
use crate::cli::output;
use crate::cli::sanitize;
use crate::cli::terminal::{Tone, paint};
use crate::mission::registry::Worker;
use crate::orchestrator::{LoggedEvent, Observer};

/// Prints the matching lines, oldest worker first. As with `grep`, no match is exit code 1.
pub(super) fn grep(
    pattern: &Regex,
    worker: Option<&str>,
    json: bool,
    mut observer: Observer,
) -> Result<ExitCode, CliError> {
    let overview = observer.read()?;
    let workers: Vec<Arc<Worker>> = match worker {
        Some(name) => vec![observer.find(name)?.worker],
        None => {
            let archived = observer.archived(|_| true);
            let mut all: Vec<_> = archived.iter().chain(overview.workers()).map(|view| view.worker.clone()).collect();
            all.sort_by_key(|worker| worker.number());
            all
        }
    };
    let grep = Grep { pattern, json, zone: TimeZone::system() };
    let mut found = false;
    for worker in &workers {
        let folder = observer.folder(&worker.id);
        for number in folder.attempts() {
            found |= grep.attempt(worker, number, &folder.attempt(number))?;
        }
    }
    Ok(if found { ExitCode::SUCCESS } else { ExitCode::from(error::FAILED) })
}

struct Grep<'a> {
    pattern: &'a Regex,
    json: bool,
    zone: TimeZone,
}

impl Grep<'_> {
    /// Prints the matches of one attempt. Returns whether there are any.
    fn attempt(&self, worker: &Worker, number: u32, attempt: &AttemptDir) -> Result<bool, CliError> {
        let Ok(file) = File::open(attempt.events()) else { return Ok(false) };
        let mut found = false;
        for line in BufReader::new(file).split(b'\n') {
            let line = line.map_err(|error| super::cannot_read(attempt, &error))?;
            // After a crash, half a line may be left, which is no event.
            let Ok(logged) = serde_json::from_slice::<LoggedEvent>(&line) else { continue };
            if !logged.event.is_bookkeeping() {
                found |= self.event(worker, number, &logged)?;
            }
        }
        Ok(found)
    }

    fn event(&self, worker: &Worker, number: u32, logged: &LoggedEvent) -> Result<bool, CliError> {
        let text = sanitize::text(&logged.event.words());
        let mut matching = text.lines().map(str::trim).filter(|line| self.pattern.is_match(line)).peekable();
        if matching.peek().is_none() {
            return Ok(false);
        }
        if self.json {
            let mut line = json!({"worker_id": worker.id.as_str(), "attempt": number});
            if let (Value::Object(line), Ok(Value::Object(event))) = (&mut line, serde_json::to_value(logged)) {
                line.extend(event);
            }
            output::json_line(&line)?;
            return Ok(true);
        }
        let id = worker.number().map_or_else(|| worker.id.to_string(), |number| format!("w-{number}"));
        let at = Zoned::new(logged.at, self.zone.clone()).strftime("%H:%M:%S").to_string();
        let prefix = format!("{}  {}", paint(Tone::Strong, &format!("{id:<4}")), paint(Tone::Quiet, &at));
        matching.try_for_each(|line| output::line(&format!("{prefix}  {line}")))?;
        Ok(true)
    }
}
