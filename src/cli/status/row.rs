//! The facts about one worker as short, clean texts. Pure, and the same for `status` and for the live screen of
//! `status --watch`.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::attempt::status::Phase;
use crate::cli::hint;
use crate::cli::terminal::{self, Tone};
use crate::cli::text;
use crate::mission::budget::Spent;
use crate::mission::entry::{AttemptSummary, FailureSummary};
use crate::mission::id::WorkerId;
use crate::mission::lifecycle::{Ending, WorkerStatus};
use crate::mission::message::describe_undelivered;
use crate::mission::outcome::{Changes, FailureKind, Verification, blocked_by};
use crate::mission::race;
use crate::mission::registry::Worker;
use crate::mission::words::{self, count};
use crate::orchestrator::{Collision, Unchecked, WorkerView};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WorkerRow {
    /// The id, such as `w-3-fix-parser`, and its short form `w-3`, which every command accepts.
    pub id: String,
    pub short: String,
    pub title: String,
    pub state: DisplayState,
    pub backend: String,
    pub model: String,
    /// Duration of its run; empty before the start.
    pub time: String,
    /// Time since its last sign of life; empty once it has settled.
    pub idle: String,
    /// Time since its end.
    pub ended: String,
    /// Money if the CLI reports it, else tokens.
    pub cost: String,
    pub branch: String,
    pub check: String,
    pub check_tone: Tone,
    pub conflicts: String,
    /// The conflicts with their files, and the files alone.
    pub conflicts_in: String,
    pub conflict_files: String,
    /// Other facts that matter, the most important first.
    pub notes: Vec<String>,
}

/// A worker's state as a sign and a word, so that no colour is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DisplayState {
    pub sign: &'static str,
    pub word: &'static str,
    pub tone: Tone,
}

/// The state of a worker that needs an answer: it asks something, or it completed but reports that it is blocked.
pub(super) const NEEDS_YOU: &str = "needs you";

/// All states, in the order in which they are counted.
const WORDS: [(&str, &str); 15] = [
    ("needs_answer", "◆"),
    (NEEDS_YOU, "◆"),
    ("running", "●"),
    ("verifying", "◐"),
    ("setting up", "◌"),
    ("starting", "◌"),
    ("stalled", "!"),
    ("queued", "○"),
    ("blocked", "■"),
    ("completed", "✓"),
    ("failed", "✗"),
    ("timed_out", "✗"),
    ("cancelled", "–"),
    ("interrupted", "✗"),
    ("lost", "?"),
];

impl DisplayState {
    /// Returns the state. A stalled live worker and a blocked queued one have states of their own.
    pub fn of(view: &WorkerView) -> Self {
        let status = view.worker.status;
        let stalled = status.is_live() && view.live.as_ref().is_some_and(|live| live.stalled.is_some());
        let sets_up = status.is_live() && view.live.as_ref().is_some_and(|live| live.phase == Phase::SettingUp);
        let (word, tone) = match status {
            _ if sets_up => ("setting up", terminal::tone(status)),
            _ if stalled => ("stalled", Tone::Bad),
            _ if view.worker.needs_you() => (NEEDS_YOU, Tone::Waiting),
            WorkerStatus::Queued if view.block.is_some() => ("blocked", Tone::Bad),
            status => (status.as_str(), terminal::tone(status)),
        };
        Self { sign: sign_of(word), word, tone }
    }
}

pub(super) fn sign_of(word: &str) -> &'static str {
    WORDS.iter().find(|(it, _)| *it == word).map_or("?", |(_, sign)| sign)
}

/// Counts the workers by state, in a fixed order.
pub(super) fn counts<'a>(states: impl Iterator<Item = &'a DisplayState>) -> Vec<(DisplayState, usize)> {
    let mut counts: Vec<(DisplayState, usize)> = Vec::new();
    for state in states {
        match counts.iter_mut().find(|(it, _)| it == state) {
            Some((_, count)) => *count += 1,
            None => counts.push((*state, 1)),
        }
    }
    counts.sort_by_key(|(state, _)| WORDS.iter().position(|(word, _)| *word == state.word));
    counts
}

impl WorkerRow {
    /// Builds the row. `is_led`: a server manages the worker, or it no longer needs one.
    pub fn of(view: &WorkerView, is_led: bool, now: Timestamp) -> Self {
        let worker = &*view.worker;
        let last = worker.last().filter(|_| worker.status.is_settled());
        let backend = last.map_or(&worker.next.backend, |last| &last.backend);
        let model = last.map_or(&worker.next.model, |last| &last.model);
        let time = |seconds: Option<u64>| seconds.map(terminal::duration).unwrap_or_default();
        let check = last.map(|last| &last.verification);
        let files: BTreeSet<String> = view.collisions.iter().flat_map(|it| it.paths.clone()).collect();
        Self {
            id: text::clean(worker.id.as_str()),
            short: worker.number().map_or_else(|| text::clean(worker.id.as_str()), |number| format!("w-{number}")),
            title: text::clean(&worker.mission.title),
            state: DisplayState::of(view),
            backend: text::clean(backend.as_str()),
            model: model.as_deref().map(text::clean).unwrap_or_default(),
            time: time(view.ran_seconds()),
            idle: time(view.idle_seconds.filter(|_| last.is_none())),
            ended: time(last.map(|last| seconds_since(now, last.settled_at))),
            cost: spent(&view.spent()),
            branch: worker.branch().map(text::clean).unwrap_or_default(),
            check: check.map(verification).unwrap_or_default().to_owned(),
            check_tone: match check {
                Some(Verification::Passed { .. }) => Tone::Good,
                Some(Verification::Failed { .. } | Verification::TimedOut { .. }) => Tone::Bad,
                _ => Tone::Quiet,
            },
            conflicts: view.collisions.iter().map(name_of).collect::<Vec<_>>().join(", "),
            conflicts_in: conflicts_in(view),
            conflict_files: first_of(&Vec::from_iter(files)),
            notes: notes(view, is_led),
        }
    }

    /// Joins the notes. Facts that need the user or the boss come before the current activity.
    pub fn note(&self, with_conflicts: bool) -> String {
        let conflicts = if self.conflicts.is_empty() {
            None
        } else if with_conflicts {
            Some(format!("conflicts {}", self.conflicts_in))
        } else {
            Some(&self.conflict_files).filter(|files| !files.is_empty()).map(|files| format!("conflict in {files}"))
        };
        let parts: Vec<String> = conflicts.into_iter().chain(self.notes.iter().cloned()).collect();
        parts.join(" · ")
    }
}

fn verification(verification: &Verification) -> &'static str {
    match verification {
        Verification::NotRequested => "",
        other => other.as_str(),
    }
}

fn notes(view: &WorkerView, is_led: bool) -> Vec<String> {
    let worker = &*view.worker;
    let mut notes = Vec::new();
    if !is_led {
        let note = without_server(worker);
        notes.push(if worker.status.is_live() { note.to_owned() } else { format!("no server: {note}") });
    }
    if let Some(why) = &view.block {
        notes.push(text::clean(&hint::line(why)));
    }
    if worker.status == WorkerStatus::Queued && view.block.is_none() {
        notes.extend(view.waits_for.as_deref().map(|what| format!("waiting for {}", text::clean(what))));
    }
    if let Some(live) = view.live.as_ref().filter(|_| worker.status.is_live()) {
        notes.extend(live.stalled.as_deref().map(text::clean));
        let asked = view.open_questions().next().map(|open| open.question.text.lines().next().unwrap_or_default());
        notes.push(match asked {
            Some(asked) => text::clean(&format!("needs an answer: {asked}")),
            None => text::clean(&live.activity),
        });
    }
    if let Some(last) = worker.last().filter(|_| worker.status.is_settled()) {
        notes.extend(results(view, last));
        if view.merge_is_unknown {
            notes.push("merge status unknown".to_owned());
        }
    }
    notes.extend(view.unchecked.map(|unchecked| unchecked_words(unchecked).to_owned()));
    notes.retain(|note| !note.is_empty());
    notes
}

/// Returns the effect of a missing server on a worker: a running one needs it only at its end.
pub(super) fn without_server(worker: &Worker) -> &'static str {
    if worker.status.is_live() { "its server has ended; it keeps running" } else { "start its boss again" }
}

/// Returns what a settled worker needs, and its results.
fn results(view: &WorkerView, last: &AttemptSummary) -> Vec<String> {
    let worker = &*view.worker;
    let mut notes = Vec::new();
    if last.survivors > 0 {
        notes.push(format!("{} processes still running", last.survivors));
    }
    if let Some(what) = blocked_by(&last.final_message).filter(|_| last.says_blocked) {
        notes.push(format!("blocked: {}", text::clean(what)));
    }
    if last.status != Ending::Completed {
        notes.extend(last.failure.as_ref().map(|failure| why(failure, last)));
    }
    if let [first, rest @ ..] = last.changes.not_on_branch.as_slice() {
        let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
        notes.push(format!("not on its branch: {}{more}", text::clean(&first.what)));
    }
    notes.extend(last.cancelled.as_ref().map(|cancelled| text::clean(&cancelled.words())));
    notes.extend(describe_undelivered(&last.undelivered).map(|undelivered| text::clean(&undelivered)));
    let work = changes(view.unmerged.as_ref().unwrap_or(&last.changes));
    notes.push(match &worker.integrated {
        Some(integrated) => format!("merged into {}", text::clean(&integrated.into)),
        None if race::has_lost(worker) => format!("lost its race, {work}"),
        None if last.status == Ending::Completed && last.changes.commits > 0 => format!("to merge: {work}"),
        None => work,
    });
    notes
}

/// Returns the reason of a failure in one line; for a failed verification, with the last line of its output.
fn why(failure: &FailureSummary, last: &AttemptSummary) -> String {
    let said = match failure.kind {
        FailureKind::Verification => last.verification.note().unwrap_or_default(),
        _ => failure.message.clone(),
    };
    let mut lines = said.lines().map(text::clean).filter(|line| !line.is_empty());
    match (failure.kind, lines.next(), lines.next_back()) {
        (FailureKind::Verification, Some(first), end) if last.likely_cause.is_some() => {
            let cause = last.likely_cause.as_ref().map(|cause| text::clean(&cause.short())).unwrap_or_default();
            format!("{cause}: {}", end.unwrap_or(first))
        }
        (FailureKind::Verification, Some(first), Some(end)) => format!("check: {first}: {end}"),
        (FailureKind::Verification, Some(first), None) => format!("check: {first}"),
        (_, Some(first), _) => first,
        (kind, None, _) => kind.as_str().replace('_', " "),
    }
}

pub(super) fn changes(changes: &Changes) -> String {
    let unknown = || changes.notes.first().map(|note| text::clean(note));
    match (changes.commits, changes.files_changed) {
        (0, 0) if changes.uncommitted > 0 => format!("{} not committed", count(changes.uncommitted, "file")),
        // If the changes were not counted, there may be some.
        (0, 0) => unknown().unwrap_or_else(|| "no changes".to_owned()),
        (commits, files) => format!(
            "{}, {} +{} -{}",
            count(commits, "commit"),
            count(files, "file"),
            changes.insertions,
            changes.deletions
        ),
    }
}

pub(in crate::cli) fn unchecked_words(unchecked: Unchecked) -> &'static str {
    match unchecked {
        Unchecked::OtherWorkers => "conflicts with other workers not checked: too many branches",
        Unchecked::Anything => "conflicts not checked: too many branches",
        Unchecked::OtherTarget => "conflicts not checked: other workers have another integration branch",
    }
}

fn name_of(collision: &Collision) -> String {
    match WorkerId::number_in(collision.with.name()) {
        Some(number) if !collision.is_with_integration_branch() => format!("w-{number}"),
        _ => text::clean(collision.with.name()),
    }
}

/// Returns the conflicts, each with its first file; `status <worker>` names all files.
fn conflicts_in(view: &WorkerView) -> String {
    let one = |collision: &Collision| match first_of(&collision.paths) {
        files if files.is_empty() => name_of(collision),
        files => format!("{} in {files}", name_of(collision)),
    };
    view.collisions.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn first_of(files: &[String]) -> String {
    text::clean(&words::first(files, 1))
}

/// Formats the money if it is known, else the tokens; empty if neither is.
pub(super) fn spent(spent: &Spent) -> String {
    match spent {
        Spent { cost_usd, .. } if *cost_usd > 0.0 => format!("${cost_usd:.2}"),
        Spent { tokens: 0, .. } => String::new(),
        Spent { tokens, .. } => format!("{} tok", short(*tokens)),
    }
}

/// Formats a number with three digits at most.
pub(super) fn short(count: u64) -> String {
    let units = [(1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")];
    let Some((unit, name)) = units.into_iter().find(|(unit, _)| count >= *unit) else { return count.to_string() };
    let scaled = count as f64 / unit as f64;
    if scaled < 9.95 { format!("{scaled:.1}{name}") } else { format!("{}{name}", count / unit) }
}

pub(super) fn seconds_since(now: Timestamp, then: Timestamp) -> u64 {
    now.duration_since(then).as_secs().try_into().unwrap_or(0)
}
