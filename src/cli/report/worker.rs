//! Renders one worker: its outcome, verification and changes, and, collapsed, its prompt and conversations.

use maud::{Markup, html};

use super::conversation::{Conversation, ConversationItem, ItemKind, ToolResult};
use super::gather::{AttemptSection, WorkerSection};
use super::text;
use crate::cli::hint;
use crate::cli::text::short_commit;
use crate::mission::entry::AttemptSummary;
use crate::mission::id::WorkerId;
use crate::mission::lifecycle::{Ending, WorkerStatus};
use crate::mission::message::Author;
use crate::mission::outcome::{Changes, FailureKind, Verification, WorktreeSetup, blocked_by};
use crate::mission::registry::Worker;
use crate::mission::spec::Place;
use crate::orchestrator::{Collision, RaceView};

const TITLE: usize = 300;
const PROMPT: usize = 12_000;
const FINAL_MESSAGE: usize = 3_000;
const REASON: usize = 1_000;
const FILES: usize = 40;
/// Maximum length of the bars of changed lines, in characters.
const LONGEST_BAR: usize = 24;

pub fn anchor(id: &WorkerId) -> String {
    format!("worker-{id}")
}

/// Renders a worker's state as a sign and a word, since colour alone is not enough.
pub fn badge(worker: &Worker) -> Markup {
    let status = worker.status;
    if worker.needs_you() {
        return html! { span.badge.needs_you { "◆ needs you" } };
    }
    html! { span class={ "badge " (status.as_str()) } { (sign(status)) " " (status.as_str().replace('_', " ")) } }
}

fn sign(status: WorkerStatus) -> &'static str {
    match status {
        WorkerStatus::Queued => "○",
        WorkerStatus::Starting | WorkerStatus::Running | WorkerStatus::Verifying => "▸",
        WorkerStatus::NeedsAnswer => "?",
        WorkerStatus::Settled(Ending::Completed) => "✓",
        WorkerStatus::Settled(Ending::Failed) => "✗",
        WorkerStatus::Settled(Ending::Cancelled) => "–",
        WorkerStatus::Settled(Ending::TimedOut | Ending::Interrupted) => "!",
        WorkerStatus::Settled(Ending::Lost) => "?",
    }
}

pub fn verification(verification: &Verification) -> Option<Markup> {
    let (class, words) = match verification {
        Verification::NotRequested => return None,
        Verification::Passed { .. } => ("good", "passed"),
        Verification::Failed { .. } => ("bad", "failed"),
        Verification::TimedOut { .. } => ("bad", "timed out"),
        Verification::Skipped => ("none", "not run"),
        Verification::CouldNotRun { .. } => ("bad", "could not run"),
        Verification::Inconclusive { .. } => ("bad", "not verified"),
    };
    Some(html! { span class=(class) { (words) } })
}

/// Renders changed lines: `+12 −3`.
pub fn lines(insertions: u64, deletions: u64) -> Markup {
    html! { span.lines { span.plus { "+" (insertions) } " " span.minus { "−" (deletions) } } }
}

pub fn worker(report: &WorkerSection) -> Markup {
    let worker = &report.view.worker;
    let last = report.attempts.last();
    let message = last.map(|attempt| attempt.final_message.as_str()).unwrap_or_default();
    let message = text::clean(message);
    let message = message.trim();
    html! {
        article.worker id=(anchor(&worker.id)) {
            header {
                h3 { (text::head(&text::clean(&worker.mission.title), TITLE)) }
                (badge(worker))
            }
            p.meta { (meta(report)) }
            @if !message.is_empty() {
                blockquote { (text::tail(message, FINAL_MESSAGE)) }
            }
            (facts(report))
            (changed_files(report))
            details {
                summary { "Prompt" }
                pre.prompt { (text::head(&text::clean(&worker.mission.prompt), PROMPT)) }
            }
            @for attempt in &report.attempts {
                (conversation(report, attempt))
            }
        }
    }
}

fn meta(report: &WorkerSection) -> Markup {
    let worker = &report.view.worker;
    let backend = report.attempts.last().map_or(worker.next.backend.as_str(), |attempt| &attempt.backend);
    let model = report.attempts.last().map_or(&worker.next.model, |attempt| &attempt.model);
    html! {
        code { (worker.id.as_str()) }
        span { (backend) @if let Some(model) = model { " · " (text::head(model, 80)) } }
        @if report.spent.seconds > 0 { span { (text::seconds(report.spent.seconds)) } }
        @if report.spent.tokens > 0 { span { (text::tokens(report.spent.tokens)) " tokens" } }
        @if report.spent.cost_usd > 0.0 { span { (text::dollars(report.spent.cost_usd)) } }
        @if report.attempts.len() > 1 { span { (report.attempts.len()) " attempts" } }
    }
}

fn facts(report: &WorkerSection) -> Markup {
    let worker = &report.view.worker;
    // The verification has a fact of its own.
    let failure = report.brief().and_then(|brief| brief.failure.as_ref());
    let failure = failure.filter(|failure| failure.kind != FailureKind::Verification);
    let cancelled = report.brief().and_then(|brief| brief.cancelled.clone()).or_else(|| worker.cancelled());
    html! {
        dl.facts {
            @if let Some(failure) = failure {
                (fact("Ended by", html! { (failure.kind.as_str().replace('_', " ")) ": " (plain(&failure.message)) }))
            }
            @if let Some(block) = &report.view.block { (fact("Blocked", plain(&hint::line(block)))) }
            @if let Some(waits_for) = &report.view.waits_for { (fact("Waits for", plain(waits_for))) }
            @if let Some(question) = report.brief().and_then(question) {
                (fact(if worker.needs_you() { "Needs you" } else { "Question" }, plain(question)))
            }
            @if let Some(cancelled) = cancelled { (fact("Cancelled", plain(&cancelled.words()))) }
            @for message in &report.undelivered {
                (fact("Message", html! { b { (author(message.by)) } (plain(&message.text)) " (" (message.state.as_str()) ")" }))
            }
            @if let Some(why) = &worker.failed_over { (fact("Failed over", plain(why))) }
            @if !worker.mission.depends_on.is_empty() {
                @let tasks = worker.mission.depends_on.iter().map(|task| task.as_str()).collect::<Vec<_>>().join(", ");
                (fact("Depends on", plain(&tasks)))
            }
            @if !worker.mission.context_from.is_empty() {
                @let sources = worker.mission.context_from.iter().map(|source| source.name()).collect::<Vec<_>>().join(", ");
                (fact("Context from", plain(&sources)))
            }
            @if let Some(race) = &report.view.race { (fact("Race", race_result(race, &worker.id))) }
            (set_up(report))
            (verified(report))
            @match (&worker.mission.place, &worker.integrated) {
                (_, Some(it)) => {
                    (fact("Merged", html! { "into " (code(&it.into)) " as " code title=(it.commit) { (short_commit(&it.commit)) } }))
                }
                (Place::Worktree { branch, .. }, None) => { (fact("Branch", code(branch))) }
                (Place::Directory { path }, None) => { (fact("Directory", code(&path.to_string_lossy()))) }
            }
            @if !report.view.collisions.is_empty() {
                (fact("Conflicts with", collisions(&report.view.collisions)))
            }
            @if let Some(unchecked) = report.view.unchecked {
                (fact("Not checked", plain(crate::cli::status::unchecked_words(unchecked))))
            }
            @if let Some(salvage) = &worker.salvage_ref { (fact("Salvaged to", code(salvage))) }
            @if let Some(changes) = report.changes() { (exceptions(changes)) }
            @if let Some(confinement) = report.view.confinement() { (fact("Confined", plain(&confinement.line()))) }
            (denied(report))
        }
    }
}

fn fact(name: &str, value: Markup) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

fn code(text: &str) -> Markup {
    html! { code { (plain(text)) } }
}

fn plain(text: &str) -> Markup {
    html! { (text::head(&text::clean(text), REASON)) }
}

fn race_result(race: &RaceView, worker: &WorkerId) -> Markup {
    let others = race.racers.iter().map(|it| &it.worker_id).filter(|it| *it != worker).map(WorkerId::as_str);
    html! {
        "against " (others.collect::<Vec<_>>().join(", "))
        @match &race.winner {
            Some(winner) if winner == worker => { ", " strong { "won" } }
            Some(winner) => { ", won by " (winner.as_str()) }
            None => { ", not decided" }
        }
    }
}

fn collisions(collisions: &[Collision]) -> Markup {
    html! {
        @for (at, collision) in collisions.iter().enumerate() {
            @if at > 0 { ", " }
            (collision.with.name())
            @if !collision.paths.is_empty() { " (" (plain(&collision.paths.join(", "))) ")" }
        }
    }
}

/// Renders the changes that are not simply commits of its branch.
fn exceptions(changes: &Changes) -> Markup {
    html! {
        @for note in &changes.notes { (fact("Note", plain(note))) }
        @if changes.uncommitted > 0 { (fact("Not committed", html! { (text::count(changes.uncommitted, "file")) })) }
        @for part in &changes.not_on_branch {
            (fact("Not on its branch", html! { (plain(&part.what)) ", in " (code(&part.place)) }))
        }
        @if !changes.outside_worktree.is_empty() {
            (fact("Edited elsewhere", code(&changes.outside_worktree.join(", "))))
        }
    }
}

/// Renders the actions that its CLI refused.
fn denied(report: &WorkerSection) -> Markup {
    let names = report.brief().map(AttemptSummary::denied_lines).unwrap_or_default();
    html! { @if !names.is_empty() { (fact("Not permitted", code(&names.join(", ")))) } }
}

/// Returns the question of an attempt that reported that it is blocked.
fn question(brief: &AttemptSummary) -> Option<&str> {
    blocked_by(&brief.final_message).filter(|_| brief.says_blocked)
}

/// Renders the setup of the last attempt that had one.
fn set_up(report: &WorkerSection) -> Markup {
    let Some(setup) = report.attempts.iter().rev().find_map(|attempt| attempt.setup.as_ref()) else {
        return html! {};
    };
    fact("Setup", setup_detail(setup))
}

/// Renders a setup with its result and, if it failed, the end of its output.
fn setup_detail(setup: &WorktreeSetup) -> Markup {
    html! {
        span class=(if setup.passed { "good" } else { "bad" }) { (setup.result()) }
        " " (code(&setup.command))
        @if setup.changed_files > 0 { ", changed " (text::count(setup.changed_files, "tracked file")) }
        @if !setup.passed && !setup.log_tail.trim().is_empty() { pre { (text::clean(setup.log_tail.trim())) } }
    }
}

fn verified(report: &WorkerSection) -> Markup {
    let Some(detail) = report.brief().and_then(|brief| verification_detail(report, brief)) else { return html! {} };
    fact("Verification", detail)
}

/// Renders the command, its result, and the output of a failed run.
fn verification_detail(report: &WorkerSection, brief: &AttemptSummary) -> Option<Markup> {
    let found = &brief.verification;
    let command = report.view.worker.mission.verify_command.as_deref()?;
    let result = verification(found)?;
    let log = match found {
        Verification::Failed { log_tail, .. } | Verification::TimedOut { log_tail, .. } => log_tail.clone(),
        other => other.note().unwrap_or_default(),
    };
    Some(html! {
        (result) " " code { (text::head(&text::clean(command), REASON)) }
        @if let Some(commit) = found.commit() { " at " code title=(commit) { (short_commit(commit)) } }
        @if let Some(cause) = &brief.likely_cause {
            p { "Likely cause: " (text::head(&text::clean(&cause.words()), REASON)) }
        }
        @if !log.trim().is_empty() { pre { (text::clean(log.trim())) } }
    })
}

fn changed_files(report: &WorkerSection) -> Markup {
    let Some(changes) = report.changes().filter(|changes| changes.files_changed > 0) else { return html! {} };
    let most = report.files.iter().filter_map(|file| file.lines).map(|(plus, minus)| plus + minus).max().unwrap_or(0);
    let left_out = (changes.files_changed as usize).saturating_sub(report.files.len().min(FILES));
    html! {
        details.files {
            summary {
                (text::count(changes.files_changed, "file")) " changed "
                (lines(changes.insertions.into(), changes.deletions.into()))
                span.quiet { " in " (text::count(changes.commits, "commit")) }
            }
            ul {
                @for file in report.files.iter().take(FILES) {
                    li {
                        code { (text::tail(&text::clean(&file.path), 200)) }
                        @if let Some((plus, minus)) = file.lines {
                            (lines(plus as u64, minus as u64))
                            span.bar aria-hidden="true" {
                                span.plus { ("▪".repeat(share(plus, most))) }
                                span.minus { ("▪".repeat(share(minus, most))) }
                            }
                        }
                    }
                }
                @if left_out > 0 { li.quiet { "and " (text::count(left_out, "more file")) } }
            }
        }
    }
}

/// Returns the length of a bar, as `git diff --stat` draws it: at least one character for any change.
fn share(lines: usize, most: usize) -> usize {
    if most <= LONGEST_BAR { lines } else { (lines * LONGEST_BAR).div_ceil(most) }
}

fn conversation(report: &WorkerSection, attempt: &AttemptSection) -> Markup {
    let whose = match report.attempts.len() {
        1 => "Conversation".to_owned(),
        _ => format!("Attempt {}", attempt.number),
    };
    let empty = Conversation::default();
    let conversation = attempt.conversation.as_ref().unwrap_or(&empty);
    let is_last = report.attempts.last().is_some_and(|last| last.number == attempt.number);
    html! {
        details.conversation {
            summary {
                (whose) " "
                span.quiet {
                    (attempt.backend)
                    @if report.attempts.len() > 1 { ", " (attempt.status.as_str().replace('_', " ")) }
                    @if let Some(began) = attempt.began { ", from " (text::clock(began)) }
                }
            }
            @if let Some(brief) = attempt.brief.as_ref().filter(|_| !is_last) { (earlier(report, attempt, brief)) }
            @if attempt.conversation.is_none() {
                p.note { "Left out; see " code { (report.folder.to_string_lossy()) } "." }
            } @else if conversation.items.is_empty() && conversation.gap.is_none() && attempt.asked.is_empty() {
                p.note { "No messages." }
            }
            ol {
                @for (by, text) in &attempt.asked {
                    li.message {
                        time { @if let Some(began) = attempt.began { (text::clock(began)) } }
                        div { p { b { (author(*by)) } (text::head(text::clean(text).trim(), PROMPT)) } }
                    }
                }
                @for (at, item) in conversation.items.iter().enumerate() {
                    @if conversation.gap == Some(at) { (gap(conversation)) }
                    (line(item))
                }
                @if conversation.gap == Some(conversation.items.len()) { (gap(conversation)) }
            }
        }
    }
}

/// Returns the label for an author. A text without an author is from this program.
fn author(by: Option<Author>) -> &'static str {
    match by {
        Some(Author::Boss) => "Boss: ",
        Some(Author::User) => "User: ",
        None => "orchestrator-boss: ",
    }
}

/// Renders the end of an attempt before the last one, with the reason.
fn earlier(report: &WorkerSection, attempt: &AttemptSection, brief: &AttemptSummary) -> Markup {
    let failure = brief.failure.as_ref().filter(|failure| failure.kind != FailureKind::Verification);
    html! {
        @if let Some(failure) = failure {
            p.note { "Ended by " (failure.kind.as_str().replace('_', " ")) ": " (plain(&failure.message)) }
        }
        @if let Some(cancelled) = &brief.cancelled { p.note { "Cancelled " (plain(&cancelled.words())) } }
        @if let Some(question) = question(brief) { p.note { "Question: " (plain(question)) } }
        @if let Some(setup) = attempt.setup.as_ref().filter(|setup| !setup.passed) {
            div.note { "Setup " (setup_detail(setup)) }
        }
        @if let Some(detail) = verification_detail(report, brief) { div.note { "Verification " (detail) } }
        @for note in &brief.changes.notes { p.note { "Note: " (plain(note)) } }
    }
}

fn gap(conversation: &Conversation) -> Markup {
    html! { li.gap { "Left out for lack of space; the complete log is " code { (conversation.log.to_string_lossy()) } } }
}

fn line(item: &ConversationItem) -> Markup {
    let (class, body) = match &item.what {
        ItemKind::Said(text) => ("said", html! { p { (text) } }),
        ItemKind::Thought(text) => ("thought", html! { p { (text) } }),
        ItemKind::Message { by, text } => ("message", html! { p { b { (author(*by)) } (text) } }),
        ItemKind::Edited(paths) => ("edited", html! { p { "edited " code { (paths) } } }),
        ItemKind::Note(text) => ("other", html! { p { (text) } }),
        ItemKind::Ran { tool, what, end } => ("ran", ran(tool, what, end.as_ref())),
    };
    html! { li class=(class) { time datetime=(item.at) { (text::clock(item.at)) } div { (body) } } }
}

fn ran(tool: &str, what: &str, end: Option<&ToolResult>) -> Markup {
    let head = html! {
        @if !tool.is_empty() { span.quiet { (tool) " " } }
        code { (what) }
        @if let Some(end) = end {
            " " span class=(if end.is_bad { "bad" } else { "quiet" }) { (end.how) }
        }
    };
    match end.filter(|end| !end.output.is_empty()) {
        Some(end) => html! { details { summary { (head) } pre { (end.output) } } },
        None => html! { p { (head) } },
    }
}
