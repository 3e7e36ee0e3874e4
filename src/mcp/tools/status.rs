//! One worker in detail, with its log, diff, messages or attempts where they are asked for.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Call, Nature, Tool};
use crate::mcp::arguments::{self, ArgumentError, NAME};
use crate::mcp::error::ToolError;
use crate::mcp::transcript::LINE;
use crate::mcp::{size, wire};
use crate::mission::message::Author;
use crate::orchestrator::{self, Details, DiffPage, Heard, LoggedEvent, Written};

const DEFAULT_LOG_LINES: u64 = 40;
const MOST_LOG_LINES: u64 = 500;
const ENVELOPE: usize = 900;
const WORKER: usize = 5_000;

pub(super) struct GetWorkerStatus;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StatusArguments {
    /// The worker, such as w-3 or w-3-fix-parser.
    worker_id: String,
    /// What to show beside it: log (what it did), diff (against its base), messages (yours, with receipts), attempts.
    #[serde(default)]
    include: Vec<IncludeArgument>,
    /// Newest lines of the log, 1 to 500, default 40.
    log_lines: Option<u64>,
    /// next_cursor of the answer before: goes on with the diff.
    cursor: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum IncludeArgument {
    Log,
    Diff,
    Messages,
    Attempts,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct StatusReport {
    /// What to do about the worker, or how to read on.
    next_step: String,
    #[schemars(with = "wire::SomeWorker")]
    worker: wire::Worker,
    /// Oldest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<Vec<LogLine>>,
    /// A unified diff, or a part of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    diff: Option<String>,
    /// Newest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<Vec<Message>>,
    /// Newest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<Vec<wire::Attempt>>,
    /// Older log lines, messages and attempts that had no room here; they are in the folder.
    #[serde(skip_serializing_if = "wire::is_zero")]
    left_out: usize,
    /// All files of the worker: raw output, events, outcomes.
    folder: String,
    /// Give it as cursor to go on with the diff.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct LogLine {
    at: String,
    what: String,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Message {
    message_id: String,
    at: String,
    text: String,
    /// sent (written to the running agent), received (its model has it), turn (it began a turn); without one it waits,
    /// or was not heard.
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<String>,
}

impl Tool for GetWorkerStatus {
    const NAME: &'static str = "get_worker_status";
    const DESCRIPTION: &'static str = "\
Get the status of one worker agent in detail: outcome, verification, changes, final message, cost. include adds its log (what \
it did, tool by tool), its diff, your messages to it with their receipts, or all its attempts. Use it to judge a worker \
that failed, stalled or is to be merged; to learn when something changes use wait_for_any_worker instead of asking for the status again. \
Long diffs come in pages: pass next_cursor as cursor.";
    const NATURE: Nature = Nature::Looks;
    type Arguments = StatusArguments;
    type Answer = StatusReport;

    async fn run(call: Call, arguments: StatusArguments) -> Result<StatusReport, ToolError> {
        let name = arguments::line("worker_id", arguments.worker_id, NAME)?;
        let log_lines = arguments.log_lines.unwrap_or(DEFAULT_LOG_LINES);
        let log_lines = arguments::range("log_lines", log_lines, 1, MOST_LOG_LINES)?;
        let offset = arguments::optional(arguments.cursor, |cursor| diff_offset(&cursor))?;
        let asks = |what| arguments.include.contains(&what);
        let include = orchestrator::Include {
            log: asks(IncludeArgument::Log),
            diff: asks(IncludeArgument::Diff) || offset.is_some(),
            messages: asks(IncludeArgument::Messages),
            attempts: asks(IncludeArgument::Attempts),
            log_lines: log_lines as usize,
            diff_offset: offset.unwrap_or(0),
            diff_bytes: size::LONG_ANSWER,
        };
        let start = include.diff_offset;
        let details = call.orchestrator.details(&name, include).await?;
        Ok(StatusReport::new(details, start))
    }
}

/// A cursor is `diff:` and the byte to go on from.
fn diff_offset(cursor: &str) -> Result<usize, ArgumentError> {
    let offset = cursor.strip_prefix("diff:").and_then(|offset| offset.parse().ok());
    offset.ok_or_else(|| ArgumentError::Cursor(size::line(cursor, 80)))
}

impl StatusReport {
    fn new(details: Details, diff_start: usize) -> Self {
        let extras =
            [details.log.is_some(), details.diff.is_some(), details.messages.is_some(), details.attempts.is_some()];
        let extras = extras.into_iter().filter(|asked| *asked).count();
        let most = if extras == 0 { size::ANSWER } else { size::LONG_ANSWER };
        let mut worker = wire::Worker::new(&details.view, WORKER);
        let mut shares = Shares { left: most - ENVELOPE - size::of(&worker), parts: extras, left_out: 0 };

        let attempts = details.attempts.map(|all| shares.fill(all.iter().rev().map(wire::Attempt::new)));
        let messages = details.messages.map(|all| shares.fill(all.iter().rev().map(Message::new)));
        let log = details.log.map(|all| {
            let mut newest = shares.fill(all.iter().rev().map(LogLine::new));
            newest.reverse();
            newest
        });
        let (diff, next_cursor) = match details.diff {
            Some(page) => shares.diff(&page, diff_start),
            None => (None, None),
        };
        let next_step = match &next_cursor {
            Some(cursor) => format!("get_worker_status with cursor {cursor:?} goes on with the diff"),
            None => worker.take_next_step(),
        };
        Self {
            next_step,
            worker,
            log,
            diff,
            messages,
            attempts,
            left_out: shares.left_out,
            folder: size::line(&details.folder.to_string_lossy(), 400),
            next_cursor,
        }
    }
}

/// What is left of the room, evenly for what is still to come.
struct Shares {
    left: usize,
    parts: usize,
    left_out: usize,
}

impl Shares {
    fn next(&mut self) -> usize {
        let share = self.left / self.parts.max(1);
        self.parts = self.parts.saturating_sub(1);
        share
    }

    fn fill<T: Serialize>(&mut self, items: impl Iterator<Item = T>) -> Vec<T> {
        let (items, left_out) = size::fit(items, self.next());
        self.left = self.left.saturating_sub(size::of(&items));
        self.left_out += left_out;
        items
    }

    /// A cursor may cut the diff anywhere but inside of a character.
    fn diff(&mut self, page: &DiffPage, start: usize) -> (Option<String>, Option<String>) {
        let text = size::head(&page.text, self.next().saturating_sub(2));
        let next = match text.len() == page.text.len() {
            true => page.next_offset,
            false => Some(start + text.len()),
        };
        (Some(text.to_owned()), next.map(|offset| format!("diff:{offset}")))
    }
}

impl LogLine {
    fn new(logged: &LoggedEvent) -> Self {
        Self { at: logged.at.to_string(), what: size::line(&logged.event.words(), LINE) }
    }
}

impl Message {
    fn new(written: &Written) -> Self {
        let by = if written.by == Some(Author::User) { "(by the user) " } else { "" };
        let unheard = if written.heard == Heard::Never { "(not heard) " } else { "" };
        let text = format!("{unheard}{by}{}", size::ends(&written.text, 1_000));
        let receipt = written.delivered.and_then(|how| Some(serde_json::to_value(how).ok()?.as_str()?.to_owned()));
        Self { message_id: written.id.to_string(), at: written.at.to_string(), text, receipt }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::AgentEvent;
    use crate::mcp::wire::testing::{longest, now, settled};
    use crate::mission::lifecycle::Ending;

    fn details(view: orchestrator::WorkerView) -> Details {
        Details { view, log: None, diff: None, messages: None, attempts: None, folder: "/r/w".into() }
    }

    #[test]
    fn a_diff_is_read_whole_by_following_the_cursor() {
        let whole = "+ \"é\"\t\u{1}\n".repeat(20_000);
        let mut start = 0;
        let mut read = String::new();
        loop {
            let mut details = details(longest(1));
            let page = &whole[start..];
            details.diff = Some(DiffPage { text: page.to_owned(), next_offset: None });
            let report = StatusReport::new(details, start);
            assert!(size::of(&report) <= size::LONG_ANSWER, "{}", size::of(&report));
            read.push_str(report.diff.as_deref().unwrap());
            match report.next_cursor {
                Some(cursor) => start = diff_offset(&cursor).unwrap(),
                None => break,
            }
        }
        assert!(read == whole, "{} of {} bytes", read.len(), whole.len());
    }

    #[test]
    fn without_include_the_answer_is_short() {
        let report = StatusReport::new(details(longest(1)), 0);
        assert!(size::of(&report) <= size::ANSWER, "{}", size::of(&report));
    }

    #[test]
    fn the_newest_log_lines_are_kept_and_the_others_counted() {
        let mut details = details(settled(1, Ending::Completed));
        let event = |n: usize| AgentEvent::Said { text: format!("{n} {}", "\u{1}x".repeat(900)) };
        details.log = Some((0..500).map(|n| LoggedEvent { at: now(), event: event(n) }).collect());
        let report = StatusReport::new(details, 0);
        let log = report.log.as_ref().unwrap();
        assert!(size::of(&report) <= size::LONG_ANSWER);
        assert_eq!(log.len() + report.left_out, 500);
        assert!(log.last().unwrap().what.starts_with("said: 499"), "{}", log.last().unwrap().what);
    }

    #[test]
    fn strange_cursors_are_refused() {
        for cursor in ["", "diff:", "diff:-1", "log:3", "diff:99999999999999999999999"] {
            assert!(diff_offset(cursor).is_err(), "{cursor}");
        }
    }
}
