//! Formats one worker in detail, for `status <worker>` and the pane of `--watch`. Pure.

use std::path::Path;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use super::dashboard::{DashboardWorker, shorten, spent_in_all};
use super::row;
use crate::cli::hint;
use crate::cli::question;
use crate::cli::terminal::Tone;
use crate::cli::text;
use crate::mission::confined::Confinement;
use crate::mission::entry::{AttemptSummary, Start};
use crate::mission::message::Author;
use crate::mission::outcome::{LikelyCause, tail};
use crate::mission::registry::Worker;
use crate::orchestrator::{DeliveryState, MessageView, WorkerView};

/// Maximum size in bytes of a prompt, a message or a log that is shown.
const TEXT: usize = 2_000;
/// Maximum number of messages to the worker that are shown, the newest ones.
const MESSAGES: usize = 10;

pub(super) struct Fact {
    pub name: &'static str,
    pub text: String,
    pub tone: Option<Tone>,
    /// True if users copy the text, so that it must not be broken.
    pub is_whole: bool,
}

/// Returns the facts about a worker. Each text is one clean line.
pub(super) fn facts(shown: &DashboardWorker, home: Option<&Path>) -> Vec<Fact> {
    let mut facts = Facts(Vec::new());
    add_identity(shown, home, &mut facts);
    add_present(shown, &mut facts);
    add_result(shown, &mut facts);
    facts.0
}

/// Adds what it is, where it works, and how long.
fn add_identity(shown: &DashboardWorker, home: Option<&Path>, facts: &mut Facts) {
    let DashboardWorker { row, view, is_led, .. } = shown;
    let worker = &*view.worker;
    facts.toned("state", &format!("{} {}", row.state.sign, row.state.word), row.state.tone);
    facts.add("worker", &row.id);
    facts.add("title", &row.title);
    if worker.task().as_str() != worker.id.as_str() {
        facts.add("task", worker.task().as_str());
    }
    facts.add("backend", &[&row.backend, &row.model].map(String::as_str).join(" "));
    facts.add("profile", worker.mission.profile.as_deref().unwrap_or_default());
    if worker.attempt > 1 {
        facts.add("attempt", &worker.attempt.to_string());
    }
    facts.add("time", &row.time);
    facts.add("idle", &row.idle);
    if !row.ended.is_empty() {
        facts.add("ended", &format!("{} ago", row.ended));
    }
    facts.add("cost", &spent_in_all(&view.spent()));
    facts.add("cluster", &place_on_cluster(view));
    facts.whole("branch", &row.branch);
    let gone = if worker.worktree_removed { " (removed)" } else { "" };
    facts.whole("directory", &format!("{}{gone}", shorten(worker.mission.place.path(), home)));
    facts.add("builds", &shown.builds);
    facts.add("confined", &view.confinement().map(Confinement::line).unwrap_or_default());
    if !is_led {
        facts.toned("server", &format!("none: {}", row::without_server(worker)), Tone::Waiting);
    }
}

/// Adds what holds it up, what others do to it, and what it does now.
fn add_present(shown: &DashboardWorker, facts: &mut Facts) {
    let view = &shown.view;
    let worker = &*view.worker;
    facts.toned("blocked", &view.block.as_ref().map(hint::line).unwrap_or_default(), Tone::Bad);
    facts.add("waiting", view.waits_for.as_deref().unwrap_or_default());
    let needs: Vec<&str> = worker.mission.depends_on.iter().map(|task| task.as_str()).collect();
    facts.add("depends on", &needs.join(", "));
    let sources: Vec<&str> = worker.mission.context_from.iter().map(|source| source.name()).collect();
    facts.add("context", &sources.join(", "));
    for collision in &view.collisions {
        let paths =
            if collision.paths.is_empty() { String::new() } else { format!(" in {}", collision.paths.join(", ")) };
        facts.toned("conflicts", &format!("{}{paths}", collision.with.name()), Tone::Waiting);
    }
    if let Some(unchecked) = view.unchecked {
        facts.toned("unchecked", row::unchecked_words(unchecked), Tone::Waiting);
    }
    let last = settled(worker);
    if let Some(cancelled) = last.and_then(|last| last.cancelled.clone()).or_else(|| worker.cancelled()) {
        facts.toned("cancelled", &cancelled.words(), Tone::Waiting);
    }
    for message in shown.messages.iter().rev().take(MESSAGES).rev() {
        facts.toned("message", &message_text(message), message_tone(message));
    }
    if let Some(live) = view.live.as_ref().filter(|_| worker.status.is_live()) {
        for open in view.open_questions() {
            facts.toned(
                "question",
                &format!("{} {}", time_of(open.asked_at), question::line(&open.question)),
                Tone::Waiting,
            );
            facts.toned("choices", &question::choices(&open.question), Tone::Waiting);
        }
        facts.toned("stalled", live.stalled.as_deref().unwrap_or_default(), Tone::Bad);
        facts.add("now", &live.activity);
    }
}

/// Adds what its last attempt left, and its prompt.
fn add_result(shown: &DashboardWorker, facts: &mut Facts) {
    let DashboardWorker { row, view, .. } = shown;
    let worker = &*view.worker;
    let mission = &worker.mission;
    let last = settled(worker);
    if let Some(last) = last {
        if let Some(failure) = &last.failure {
            let kind = failure.kind.as_str();
            let text = failure.message.strip_prefix(&format!("{kind}: ")).unwrap_or(&failure.message);
            facts.toned("failure", &format!("{kind}: {text}"), Tone::Bad);
        }
        facts.add("changes", &row::changes(&last.changes));
        facts.add("to merge", &view.unmerged.as_ref().map(row::changes).unwrap_or_default());
        facts.toned("denied", &last.denied_lines().join("\n"), Tone::Waiting);
        last.changes.notes.iter().for_each(|note| facts.add("note", note));
        facts.add("spared", &last.left_running().unwrap_or_default());
        facts.whole("salvage", worker.salvage_ref.as_deref().unwrap_or_default());
        for part in &last.changes.not_on_branch {
            let text = format!("{} ({}); to include it: {}", part.what, part.place, part.how_to_include);
            facts.toned("not merged", &text, Tone::Bad);
        }
        if let Some(integrated) = &worker.integrated {
            facts.toned("merged", &format!("into {} as {}", integrated.into, integrated.commit), Tone::Good);
        }
    }
    let setup = last.and_then(|last| last.setup.as_ref());
    match (setup, &mission.setup_command) {
        (Some(setup), _) => facts.add("setup", &format!("{}: {}", setup.result(), setup.command)),
        (None, Some(command)) => facts.add("setup", command),
        (None, None) => {}
    }
    facts.add("check", mission.verify_command.as_deref().unwrap_or_default());
    facts.toned(if mission.verify_command.is_some() { "" } else { "check" }, &row.check, row.check_tone);
    facts.add("", tail(&last.and_then(|last| last.verification.note()).unwrap_or_default(), TEXT));
    let cause = last.and_then(|last| last.likely_cause.as_ref()).map(LikelyCause::words);
    facts.toned("cause", &cause.unwrap_or_default(), Tone::Waiting);
    if let Some(race) = &view.race {
        let winner = race.winner.as_ref().map_or("undecided".to_owned(), |winner| format!("won by {winner}"));
        facts.add("race", &format!("{} of {}, {winner}", race.id, race.racers.len()));
    }
    facts.add("reports", last.map_or("", |last| tail(&last.final_message, TEXT)));
    let prompt = match &worker.next.start {
        Start::Prompt { text } => text,
        Start::Mission | Start::Resume { .. } => &mission.prompt,
    };
    facts.add("prompt", &prompt[..prompt.floor_char_boundary(TEXT)]);
}

/// Describes where a worker of a cluster runs, such as `cpu, job 4711 on n3`.
fn place_on_cluster(view: &WorkerView) -> String {
    let job = view.worker.job.as_ref().map(|job| format!(", job {}", job.id));
    let node = view.node.as_ref().map(|node| format!(" on {node}"));
    let parts = [view.launcher().map(str::to_owned), job, node];
    parts.into_iter().flatten().collect()
}

fn settled(worker: &Worker) -> Option<&AttemptSummary> {
    worker.last().filter(|_| worker.status.is_settled())
}

/// Formats a message as `12:03:04 user, waiting: look at b`.
fn message_text(message: &MessageView) -> String {
    let at = time_of(message.at);
    let by = message.by.map_or("unknown", Author::as_str);
    let text = &message.text[..message.text.floor_char_boundary(TEXT)];
    format!("{at} {by}, {}: {text}", message.state.as_str())
}

fn time_of(at: Timestamp) -> String {
    Zoned::new(at, TimeZone::system()).strftime("%H:%M:%S").to_string()
}

fn message_tone(message: &MessageView) -> Tone {
    match message.state {
        DeliveryState::AtTheStart | DeliveryState::At(_) => Tone::Quiet,
        DeliveryState::Waiting | DeliveryState::Never => Tone::Waiting,
    }
}

struct Facts(Vec<Fact>);

impl Facts {
    fn add(&mut self, name: &'static str, text: &str) {
        self.put(name, text, None);
    }

    fn whole(&mut self, name: &'static str, text: &str) {
        let text = text::clean(text);
        if !text.is_empty() {
            self.0.push(Fact { name, text, tone: None, is_whole: true });
        }
    }

    fn toned(&mut self, name: &'static str, text: &str, tone: Tone) {
        self.put(name, text, Some(tone));
    }

    /// Adds a fact for each line of the text; an empty line is left out.
    fn put(&mut self, name: &'static str, text: &str, tone: Option<Tone>) {
        let lines = text.lines().map(text::clean).filter(|line| !line.is_empty());
        for (at, text) in lines.enumerate() {
            self.0.push(Fact { name: if at == 0 { name } else { "" }, text, tone, is_whole: false });
        }
    }
}

/// Formats the facts in lines of at most `width` columns. Only a text that users copy may be longer, to stay in one
/// span.
pub(super) fn lines(shown: &DashboardWorker, width: usize, home: Option<&Path>) -> Vec<super::screen::ScreenLine> {
    const NAME: usize = 11;
    let room = width.max(20).saturating_sub(NAME);
    let mut lines = Vec::new();
    for fact in facts(shown, home) {
        let parts = if fact.is_whole { vec![fact.text] } else { text::wrap_whole(&fact.text, room) };
        for (at, part) in parts.into_iter().enumerate() {
            let name = if at == 0 { fact.name } else { "" };
            lines.push(vec![(Some(Tone::Quiet), text::left(name, NAME)), (fact.tone, part)]);
        }
    }
    lines
}
