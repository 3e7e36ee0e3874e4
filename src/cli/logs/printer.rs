//! Prints an attempt: with local times for users, as one JSON object per line for programs, or only what `--grep`
//! matches.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use serde_json::{Value, json};
use uuid::Uuid;

use super::matches::Matches;
use crate::attempt::assignment::Assignment;
use crate::attempt::inbox::{InboxEntry, Instruction};
use crate::attempt::status::LiveStatus;
use crate::attempt::worker_dir::AttemptDir;
use crate::backend::AgentEvent;
use crate::cli::error::CliError;
use crate::cli::output;
use crate::cli::sanitize;
use crate::cli::terminal::{self, Tone, paint};
use crate::files;
use crate::mission::entry::AttemptSummary;
use crate::mission::lifecycle::WorkerStatus;
use crate::mission::message::Author;
use crate::mission::outcome::{Outcome, Verification, blocked_by};
use crate::mission::words::count;
use crate::orchestrator::{self, DeliveryState, LoggedEvent};

/// Maximum number of lines shown of a tool's output, from its end.
const OUTPUT_LINES: usize = 12;
/// Indentation below the time of day.
const INDENT: &str = "          ";

#[derive(Clone, Copy)]
pub(super) enum Format<'a> {
    Text,
    Json,
    /// The lines of all events, messages and endings that match, without headings and current activity.
    Matches(&'a Matches<'a>),
}

pub(super) struct LogPrinter<'a> {
    attempt: AttemptDir,
    number: u32,
    format: Format<'a>,
    zone: TimeZone,
    /// Messages that were read and not yet printed; `read` is the number of all that were read.
    messages: Mutex<VecDeque<InboxEntry>>,
    read: Mutex<usize>,
}

impl<'a> LogPrinter<'a> {
    pub fn new(attempt: &AttemptDir, number: u32, format: Format<'a>) -> Self {
        Self {
            attempt: attempt.clone(),
            number,
            format,
            zone: TimeZone::system(),
            messages: Mutex::default(),
            read: Mutex::default(),
        }
    }

    pub fn begin(&self) -> Result<(), CliError> {
        if self.is_json() {
            return Ok(());
        }
        self.read_messages();
        let assignment: Option<Assignment> = files::read_json(&self.attempt.assignment()).ok().flatten();
        let started = assignment.is_some();
        let written = assignment.as_ref().map(|assignment| assignment.written.clone()).unwrap_or_default();
        let with = assignment.map_or_else(String::new, |assignment| match assignment.model {
            Some(model) => format!(", {} ({model})", assignment.backend),
            None => format!(", {}", assignment.backend),
        });
        let never = match (started, self.attempt.outcome_path().exists()) {
            (true, _) => "",
            (false, true) => " never started",
            (false, false) => " has not started",
        };
        if !self.is_search() {
            output::line(&paint(Tone::Strong, &sanitize::text(&format!("attempt {}{with}{never}", self.number))))?;
        }
        written.iter().try_for_each(|it| self.print_message(it.at, &wrote(Some(it.by), &it.text)))
    }

    fn is_json(&self) -> bool {
        matches!(self.format, Format::Json)
    }

    fn is_search(&self) -> bool {
        matches!(self.format, Format::Matches(_))
    }

    /// Returns the maximum number of lines shown of a tool's output. A search covers all of them.
    fn output_lines(&self) -> usize {
        if self.is_search() { usize::MAX } else { OUTPUT_LINES }
    }

    /// Prints the messages to the worker up to this time that were not printed yet.
    fn print_messages_until(&self, until: Timestamp) -> Result<(), CliError> {
        let mut inbox_entries = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        let until = inbox_entries.iter().take_while(|inbox_entry| inbox_entry.at <= until).count();
        for inbox_entry in inbox_entries.drain(..until) {
            if let Some(text) = message_line(&inbox_entry) {
                self.print_message(inbox_entry.at, &text)?;
            }
        }
        Ok(())
    }

    fn print_message(&self, at: Timestamp, text: &str) -> Result<(), CliError> {
        let json = || json!({"attempt": self.number, "at": at, "event": "message", "text": text});
        self.print_lines(at, Some(Tone::Strong), text, json)
    }

    /// Drops messages up to this time, for a log whose beginning is left out.
    pub fn skip_messages_until(&self, until: Timestamp) {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner).retain(|inbox_entry| inbox_entry.at > until);
    }

    /// Reads messages that were posted since the last call.
    pub fn read_messages(&self) {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let new = self.attempt.inbox_entries(*read).unwrap_or_default();
        *read += new.len();
        self.messages.lock().unwrap_or_else(PoisonError::into_inner).extend(new);
    }

    /// Returns whether the event is printed. For users, bookkeeping is left out.
    pub fn is_printed(&self, logged: &LoggedEvent) -> bool {
        self.is_json() || !logged.event.is_bookkeeping()
    }

    pub fn print(&self, logged: &LoggedEvent) -> Result<(), CliError> {
        if !self.is_printed(logged) {
            return Ok(());
        }
        if self.is_json() {
            return output::json_line(&self.document(logged));
        }
        self.print_messages_until(logged.at)?;
        let text = match &logged.event {
            AgentEvent::Received { message_id, text: None } => {
                self.message(*message_id).unwrap_or_else(|| logged.event.words())
            }
            AgentEvent::ToolEnded { id, ok, exit_code, output } => {
                let output = last_lines(output.trim_end(), self.output_lines());
                AgentEvent::ToolEnded { id: id.clone(), ok: *ok, exit_code: *exit_code, output }.words()
            }
            event => event.words(),
        };
        self.print_lines(logged.at, tone(&logged.event), &text, || self.document(logged))
    }

    /// Returns an event as a JSON object.
    fn document(&self, logged: &LoggedEvent) -> Value {
        let mut line = json!({"attempt": self.number});
        if let (Value::Object(line), Ok(Value::Object(event))) = (&mut line, serde_json::to_value(logged)) {
            line.extend(event);
        }
        line
    }

    /// Prints the outcome, or the current activity of an open attempt.
    pub fn end(&self) -> Result<(), CliError> {
        let outcome = self.attempt.outcome().map_err(|error| CliError::Failed(error.to_string()))?;
        let Some(outcome) = outcome else { return self.print_open() };
        let at = outcome.settled_at;
        let json = || json!({"attempt": self.number, "at": at, "event": "settled", "outcome": outcome});
        if self.is_json() {
            return output::json_line(&json());
        }
        self.read_messages();
        self.print_messages_until(if self.is_search() { Timestamp::MAX } else { at })?;
        let verified = verification(&outcome.verification, self.output_lines());
        let ending = ending(&outcome, self.seconds_before());
        if self.is_search() {
            // One call, since both are one event.
            let verified = verified.map_or_else(String::new, |(_, text)| format!("{text}\n"));
            return self.print_lines(at, None, &format!("{verified}{ending}"), json);
        }
        if let Some((tone, text)) = verified {
            self.print_lines(at, tone, &text, json)?;
        }
        self.print_lines(at, Some(terminal::tone(WorkerStatus::Settled(outcome.status))), &ending, json)
    }

    /// Returns the seconds that the attempts before this one took.
    fn seconds_before(&self) -> u64 {
        let Some(attempts) = self.attempt.root().parent() else { return 0 };
        let before = (1..self.number).map(|number| AttemptDir::at(attempts.join(number.to_string())));
        before
            .filter_map(|attempt| attempt.outcome().ok().flatten())
            .map(|it| AttemptSummary::of(&it, None).elapsed())
            .sum()
    }

    fn print_open(&self) -> Result<(), CliError> {
        if self.is_search() {
            return self.print_messages_until(Timestamp::MAX);
        }
        let live = LiveStatus::read(&self.attempt).ok().flatten();
        match live {
            Some(live) if !self.is_json() => {
                self.read_messages();
                self.print_messages_until(Timestamp::MAX)?;
                for waiting in orchestrator::inbox_entries(self.number, &self.attempt, false) {
                    if waiting.state == DeliveryState::Waiting {
                        let text = format!("{INDENT}not delivered yet: {}", sanitize::text(&waiting.text));
                        output::line(&paint(Tone::Waiting, &text))?;
                    }
                }
                let text = format!("{INDENT}not finished yet: {}", sanitize::text(&live.activity));
                output::line(&paint(Tone::Quiet, &text))
            }
            _ => Ok(()),
        }
    }

    fn message(&self, id: Uuid) -> Option<String> {
        let inbox_entries = self.attempt.inbox_entries(0).ok()?;
        let text = inbox_entries.into_iter().find(|inbox_entry| inbox_entry.id == id)?.into_text()?;
        Some(format!("received: {text}"))
    }

    /// Prints a text with its time. `json`: the same for programs, for a search that prints JSON.
    fn print_lines(
        &self,
        at: Timestamp,
        tone: Option<Tone>,
        text: &str,
        json: impl FnOnce() -> Value,
    ) -> Result<(), CliError> {
        let text = sanitize::text(text);
        let at = Zoned::new(at, self.zone.clone()).strftime("%H:%M:%S").to_string();
        if let Format::Matches(matches) = self.format {
            return matches.print(&at, &text, json);
        }
        let mut time = format!("{}  ", paint(Tone::Quiet, &at));
        for line in text.trim_end().lines() {
            let line = line.trim_end();
            let line = tone.map_or_else(|| line.to_owned(), |tone| paint(tone, line));
            output::line(&format!("{time}{line}"))?;
            INDENT.clone_into(&mut time);
        }
        Ok(())
    }
}

/// Describes a message to the worker, with its author.
pub(in crate::cli) fn message_line(inbox_entry: &InboxEntry) -> Option<String> {
    match &inbox_entry.instruction {
        Instruction::Message { text, .. } => Some(wrote(inbox_entry.by, text)),
        Instruction::Cancel { reason } => {
            let by = inbox_entry.by.map_or_else(String::new, |by| format!(" by the {}", by.as_str()));
            Some(format!("cancelled{by}: {reason}"))
        }
        Instruction::OverBudget { reason } => Some(format!("stopped: {reason}")),
        // The event log has the answer that counted.
        Instruction::Answer { .. } => None,
    }
}

fn wrote(by: Option<Author>, text: &str) -> String {
    format!("{} wrote: {text}", by.map_or("unknown", Author::as_str))
}

pub(in crate::cli) fn tone(event: &AgentEvent) -> Option<Tone> {
    match event {
        AgentEvent::Said { .. } => None,
        AgentEvent::ToolStarted { .. } => Some(Tone::Busy),
        AgentEvent::ToolEnded { exit_code: Some(1..), .. } | AgentEvent::ToolEnded { ok: Some(false), .. } => {
            Some(Tone::Bad)
        }
        AgentEvent::Edited { .. } | AgentEvent::SetUp { .. } => Some(Tone::Good),
        AgentEvent::Denied { .. }
        | AgentEvent::Asked { .. }
        | AgentEvent::Retrying { .. }
        | AgentEvent::Warning { .. } => Some(Tone::Waiting),
        AgentEvent::Received { .. } | AgentEvent::Answered { .. } => Some(Tone::Strong),
        _ => Some(Tone::Quiet),
    }
}

fn last_lines(text: &str, most: usize) -> String {
    let count = text.lines().count();
    if count <= most {
        return text.to_owned();
    }
    let last: Vec<&str> = text.lines().skip(count - most).collect();
    format!("(the last {most} of {count} lines)\n{}", last.join("\n"))
}

fn verification(verification: &Verification, most: usize) -> Option<(Option<Tone>, String)> {
    match verification {
        Verification::NotRequested => None,
        Verification::Passed { seconds, .. } => {
            Some((Some(Tone::Good), format!("verification passed ({seconds:.1} s)")))
        }
        other => {
            let note = other.note().unwrap_or_default();
            let note = last_lines(note.trim_end(), most);
            Some((Some(Tone::Bad), format!("verification {}: {note}", other.as_str().replace('_', " "))))
        }
    }
}

fn ending(outcome: &Outcome, seconds_before: u64) -> String {
    let mut text = outcome.status.as_str().replace('_', " ");
    // Every command counts the elapsed time like this.
    let brief = AttemptSummary::of(outcome, None);
    if outcome.run.seconds.or(outcome.run.elapsed_seconds).is_some() {
        text.push_str(&format!(" after {}", terminal::duration(brief.elapsed())));
    }
    if seconds_before > 0 {
        let all = terminal::duration(seconds_before + brief.elapsed());
        text.push_str(&format!(" ({all} in all attempts)"));
    }
    let changes = &outcome.changes;
    if changes.commits > 0 {
        let (plus, minus) = (changes.insertions, changes.deletions);
        let (commits, files) = (count(changes.commits, "commit"), count(changes.files_changed, "file"));
        text.push_str(&format!(", {commits} in {files} (+{plus} -{minus})"));
    }
    if let Some(branch) = &changes.branch {
        text.push_str(&format!(" on {branch}"));
    }
    if let Some(reasons) = brief.reasons() {
        text.push_str(&format!(": {reasons}"));
    }
    if let Some(what) = blocked_by(&outcome.run.final_message).filter(|_| outcome.run.says_blocked) {
        text.push_str(&format!("\nreports that it is blocked: {what}"));
    }
    for note in &changes.notes {
        text.push_str(&format!("\n{note}"));
    }
    if outcome.cleanup.survivors > 0 {
        text.push_str(&format!("\n{} of its processes are still running", outcome.cleanup.survivors));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_output_shows_its_end() {
        assert_eq!(last_lines("a\nb", 2), "a\nb");
        assert_eq!(last_lines("a\nb\nc", 2), "(the last 2 of 3 lines)\nb\nc");
    }
}
