//! Reports one worker in detail, with its log, diff, messages or attempts on request.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Tool, ToolCall, ToolKind};
use crate::mcp::arguments::{self, ArgumentError, NAME};
use crate::mcp::error::ToolError;
use crate::mcp::transcript::LINE;
use crate::mcp::{size, wire};
use crate::mission::message::Author;
use crate::orchestrator::{self, DeliveryState, Details, DiffPage, LoggedEvent, MessageView};

const DEFAULT_LOG_LINES: u64 = 40;
const MAX_LOG_LINES: u64 = 500;
const ENVELOPE: usize = 900;
const WORKER: usize = 5_000;

pub(super) struct GetWorkerStatus;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StatusArguments {
    /// Such as w-3.
    worker_id: String,
    /// log (its actions), diff (against its base), messages (with their receipts), attempts.
    #[serde(default)]
    include: Vec<IncludeArgument>,
    /// 1 to 500, default 40.
    log_lines: Option<u64>,
    /// The previous next_cursor.
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
    /// For the worker, or to read the rest of the diff.
    next_step: String,
    #[schemars(with = "wire::WorkerPlaceholder")]
    worker: wire::WorkerReport,
    /// Oldest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<Vec<LogLine>>,
    /// A unified diff, or a part of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    diff: Option<String>,
    /// Newest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<Vec<SentMessage>>,
    /// Newest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<Vec<wire::AttemptReport>>,
    /// Number of omitted older log lines, messages and attempts; they are in the folder.
    #[serde(skip_serializing_if = "wire::is_zero")]
    left_out: usize,
    /// Holds all files of the worker: raw output, events, outcomes.
    folder: String,
    /// Pass it as cursor to continue the diff.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct LogLine {
    at: String,
    what: String,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct SentMessage {
    message_id: String,
    at: String,
    text: String,
    /// sent (written to the running agent), received (its model has it) or turn (it started a turn). Absent: still
    /// waiting, or not delivered.
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<String>,
}

impl Tool for GetWorkerStatus {
    const NAME: &'static str = "get_worker_status";
    const DESCRIPTION: &'static str = "\
Get the status of one worker agent in detail: outcome, verification, changes, final message, cost. Use it to judge \
a worker whose status is failed, stalled or ready to merge.";
    const KIND: ToolKind = ToolKind::ReadOnly;
    type Arguments = StatusArguments;
    type Answer = StatusReport;

    async fn run(call: ToolCall, arguments: StatusArguments) -> Result<StatusReport, ToolError> {
        let name = arguments::line("worker_id", arguments.worker_id, NAME)?;
        let log_lines = arguments.log_lines.unwrap_or(DEFAULT_LOG_LINES);
        let log_lines = arguments::range("log_lines", log_lines, 1, MAX_LOG_LINES)?;
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

/// Parses a cursor: `diff:` and a byte offset.
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
        let mut worker = wire::WorkerReport::with_confinement(&details.view, WORKER);
        let mut space = SharedSpace { left: most - ENVELOPE - size::of(&worker), parts: extras, left_out: 0 };

        let attempts = details.attempts.map(|all| space.fill(all.iter().rev().map(wire::AttemptReport::new)));
        let messages = details.messages.map(|all| space.fill(all.iter().rev().map(SentMessage::new)));
        let log = details.log.map(|all| {
            let mut newest = space.fill(all.iter().rev().map(LogLine::new));
            newest.reverse();
            newest
        });
        let (diff, next_cursor) = match details.diff {
            Some(page) => space.diff(&page, diff_start),
            None => (None, None),
        };
        let next_step = match &next_cursor {
            Some(cursor) => format!("get_worker_status with cursor {cursor:?} for the rest of the diff"),
            None => worker.take_next_step(),
        };
        Self {
            next_step,
            worker,
            log,
            diff,
            messages,
            attempts,
            left_out: space.left_out,
            folder: size::line(&details.folder.to_string_lossy(), 400),
            next_cursor,
        }
    }
}

/// The remaining bytes of an answer, divided evenly among its remaining parts.
struct SharedSpace {
    left: usize,
    parts: usize,
    left_out: usize,
}

impl SharedSpace {
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

    /// Cuts the diff at the boundary of a character and returns the cursor of the rest.
    fn diff(&mut self, page: &DiffPage, start: usize) -> (Option<String>, Option<String>) {
        let text = size::head(&page.text, self.next().saturating_sub(2));
        let is_whole = text.len() == page.text.len();
        let next = if is_whole { page.next_offset } else { Some(start + text.len()) };
        (Some(text.to_owned()), next.map(|offset| format!("diff:{offset}")))
    }
}

impl LogLine {
    fn new(logged: &LoggedEvent) -> Self {
        Self { at: logged.at.to_string(), what: size::line(&logged.event.words(), LINE) }
    }
}

impl SentMessage {
    fn new(message: &MessageView) -> Self {
        let by = if message.by == Some(Author::User) { "(by the user) " } else { "" };
        let undelivered = if message.state == DeliveryState::Never { "(not delivered) " } else { "" };
        let text = format!("{undelivered}{by}{}", size::ends(&message.text, 1_000));
        let receipt = message.delivered.and_then(|how| Some(serde_json::to_value(how).ok()?.as_str()?.to_owned()));
        Self { message_id: message.id.to_string(), at: message.at.to_string(), text, receipt }
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
    fn following_cursors_reads_the_whole_diff() {
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
    fn old_log_lines_are_omitted_and_counted() {
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
    fn invalid_cursors_are_refused() {
        for cursor in ["", "diff:", "diff:-1", "log:3", "diff:99999999999999999999999"] {
            assert!(diff_offset(cursor).is_err(), "{cursor}");
        }
    }
}
