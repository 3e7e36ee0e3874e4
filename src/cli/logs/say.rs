//! How an attempt is told: to people with times of their own clock, to programs as one JSON object a line.

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::backend::AgentEvent;
use crate::cli::out::{self, End};
use crate::cli::terminal::{self, Tone, count, paint};
use crate::cli::visit::for_people;
use crate::mission::lifecycle::WorkerStatus;
use crate::mission::outcome::{Outcome, Verification};
use crate::orchestrator::LoggedEvent;
use crate::store::file;
use crate::store::worker_dir::{AttemptDir, Content};
use crate::supervisor::assignment::{Assignment, LiveStatus};

/// Of what a tool printed, these last lines are shown.
const OUTPUT_LINES: usize = 12;
/// Below the time of day.
const INDENT: &str = "          ";

pub(super) struct Teller {
    attempt: AttemptDir,
    number: u32,
    json: bool,
    zone: TimeZone,
}

impl Teller {
    pub fn new(attempt: &AttemptDir, number: u32, json: bool) -> Self {
        Self { attempt: attempt.clone(), number, json, zone: TimeZone::system() }
    }

    pub fn begin(&self) -> Result<(), End> {
        if self.json {
            return Ok(());
        }
        let assignment: Option<Assignment> = file::read_json(&self.attempt.assignment()).ok().flatten();
        let with = assignment.map_or_else(String::new, |assignment| match assignment.model {
            Some(model) => format!(", {} ({model})", assignment.backend),
            None => format!(", {}", assignment.backend),
        });
        out::line(&paint(Tone::Strong, &out::harmless(&format!("attempt {}{with}", self.number))))
    }

    /// What people want to see; the rest is bookkeeping.
    pub fn is_told(&self, logged: &LoggedEvent) -> bool {
        self.json || !matches!(logged.event, AgentEvent::Usage { .. } | AgentEvent::Idle | AgentEvent::Busy)
    }

    pub fn tell(&self, logged: &LoggedEvent) -> Result<(), End> {
        if !self.is_told(logged) {
            return Ok(());
        }
        if self.json {
            let mut line = json!({"attempt": self.number});
            if let (Value::Object(line), Ok(Value::Object(event))) = (&mut line, serde_json::to_value(logged)) {
                line.extend(event);
            }
            return out::json_line(&line);
        }
        let text = match &logged.event {
            AgentEvent::Received { message_id } => self.message(*message_id).unwrap_or_else(|| logged.event.words()),
            AgentEvent::ToolEnded { id, ok, exit_code, output } => {
                let output = last_lines(output.trim_end(), OUTPUT_LINES);
                AgentEvent::ToolEnded { id: id.clone(), ok: *ok, exit_code: *exit_code, output }.words()
            }
            event => event.words(),
        };
        self.say(logged.at, tone(&logged.event), &text)
    }

    /// How it ended, or that it has not.
    pub fn end(&self) -> Result<(), End> {
        let outcome = self.attempt.outcome().map_err(|error| End::Failed(error.to_string()))?;
        let Some(outcome) = outcome else { return self.is_open() };
        if self.json {
            let at = outcome.settled_at;
            return out::json_line(&json!({"attempt": self.number, "at": at, "event": "settled", "outcome": outcome}));
        }
        if let Some((tone, text)) = verification(&outcome.verification) {
            self.say(outcome.settled_at, tone, &text)?;
        }
        self.say(outcome.settled_at, Some(terminal::tone(WorkerStatus::Settled(outcome.status))), &ending(&outcome))
    }

    fn is_open(&self) -> Result<(), End> {
        let live: Option<LiveStatus> = file::read_json(&self.attempt.status()).ok().flatten();
        match live {
            Some(live) if !self.json => {
                let text = format!("{INDENT}not settled yet: {}", out::harmless(&live.activity));
                out::line(&paint(Tone::Quiet, &text))
            }
            _ => Ok(()),
        }
    }

    fn message(&self, id: Uuid) -> Option<String> {
        let letters = self.attempt.letters(0).ok()?;
        letters.into_iter().find(|letter| letter.id == id).and_then(|letter| match letter.content {
            Content::Message { text, .. } => Some(format!("was told: {text}")),
            _ => None,
        })
    }

    fn say(&self, at: Timestamp, tone: Option<Tone>, text: &str) -> Result<(), End> {
        let text = out::harmless(text);
        let at = Zoned::new(at, self.zone.clone()).strftime("%H:%M:%S").to_string();
        let mut time = format!("{}  ", paint(Tone::Quiet, &at));
        for line in text.trim_end().lines() {
            let line = line.trim_end();
            let line = tone.map_or_else(|| line.to_owned(), |tone| paint(tone, line));
            out::line(&format!("{time}{line}"))?;
            INDENT.clone_into(&mut time);
        }
        Ok(())
    }
}

pub(in crate::cli) fn tone(event: &AgentEvent) -> Option<Tone> {
    match event {
        AgentEvent::Said { .. } => None,
        AgentEvent::ToolStarted { .. } => Some(Tone::Busy),
        AgentEvent::ToolEnded { exit_code: Some(1..), .. } | AgentEvent::ToolEnded { ok: Some(false), .. } => {
            Some(Tone::Bad)
        }
        AgentEvent::Edited { .. } => Some(Tone::Good),
        AgentEvent::Denied { .. } | AgentEvent::Retrying { .. } | AgentEvent::Warning { .. } => Some(Tone::Waiting),
        AgentEvent::Received { .. } => Some(Tone::Strong),
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

fn verification(verification: &Verification) -> Option<(Option<Tone>, String)> {
    match verification {
        Verification::NotAsked => None,
        Verification::Passed { seconds, .. } => {
            Some((Some(Tone::Good), format!("verification passed ({seconds:.1} s)")))
        }
        other => {
            let note = other.note().unwrap_or_default();
            let note = last_lines(note.trim_end(), OUTPUT_LINES);
            Some((Some(Tone::Bad), format!("verification {}: {note}", other.as_str().replace('_', " "))))
        }
    }
}

fn ending(outcome: &Outcome) -> String {
    let mut text = outcome.status.as_str().replace('_', " ");
    if let Some(seconds) = outcome.run.seconds {
        text.push_str(&format!(" after {}", terminal::duration(seconds)));
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
    if let Some(failure) = &outcome.run.failure {
        text.push_str(&format!(": {}", for_people(&failure.message)));
    }
    if outcome.cleanup.survivors > 0 {
        text.push_str(&format!("\n{} of its processes could not be ended", outcome.cleanup.survivors));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_output_the_end_is_shown_and_how_much_is_not() {
        assert_eq!(last_lines("a\nb", 2), "a\nb");
        assert_eq!(last_lines("a\nb\nc", 2), "(the last 2 of 3 lines)\nb\nc");
    }
}
