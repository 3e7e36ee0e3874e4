//! Lists workers in pages, with their counts by status.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Tool, ToolCall, ToolKind};
use crate::mcp::arguments::{self, ArgumentError};
use crate::mcp::error::ToolError;
use crate::mcp::{size, wire};
use crate::mission::id::WorkerId;
use crate::mission::lifecycle::{Ending, WorkerStatus};
use crate::mission::words;
use crate::orchestrator::{ListPage, PageRequest, Scope, Summary};

const DEFAULT_LIMIT: u64 = 20;
const MAX_LISTED: u64 = 100;
const ENVELOPE: usize = 960;

pub(super) struct ListWorkerMissions;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ListArguments {
    /// Default: all.
    #[serde(default)]
    status: Vec<StatusFilter>,
    /// mine (default), or all: of other sessions too.
    #[schemars(with = "Option<String>", extend("enum" = ["mine", "all"]))]
    scope: Option<Scope>,
    /// 1 to 100, default 20.
    limit: Option<u64>,
    /// The previous next_cursor.
    cursor: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum StatusFilter {
    Queued,
    Starting,
    Running,
    NeedsAnswer,
    Verifying,
    Completed,
    Failed,
    Cancelled,
    TimedOut,
    Interrupted,
    Lost,
    Blocked,
    Stalled,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ListReport {
    /// All workers in this scope, regardless of filters.
    counts: StatusCounts,
    next_step: String,
    /// Newest first.
    workers: Vec<wire::WorkerSummary>,
    /// Number of workers of other sessions; scope all shows them.
    others: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    spent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// Only statuses with workers.
#[derive(Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(default)]
struct StatusCounts {
    #[serde(skip_serializing_if = "wire::is_zero")]
    queued: usize,
    #[serde(skip_serializing_if = "wire::is_zero")]
    starting: usize,
    #[serde(skip_serializing_if = "wire::is_zero")]
    running: usize,
    #[serde(skip_serializing_if = "wire::is_zero")]
    needs_answer: usize,
    #[serde(skip_serializing_if = "wire::is_zero")]
    verifying: usize,
    #[serde(skip_serializing_if = "wire::is_zero")]
    completed: usize,
    #[serde(skip_serializing_if = "wire::is_zero")]
    failed: usize,
    #[serde(skip_serializing_if = "wire::is_zero")]
    cancelled: usize,
    #[serde(skip_serializing_if = "wire::is_zero")]
    timed_out: usize,
    #[serde(skip_serializing_if = "wire::is_zero")]
    interrupted: usize,
    #[serde(skip_serializing_if = "wire::is_zero")]
    lost: usize,
    /// Queued tasks that need you; not counted in queued.
    #[serde(skip_serializing_if = "wire::is_zero")]
    blocked: usize,
}

impl Tool for ListWorkerMissions {
    const NAME: &'static str = "list_worker_missions";
    const DESCRIPTION: &'static str = "\
List your worker agents with status, branch and activity: for an overview, or to find them after a restart. To \
react to changes use wait_for_any_worker.";
    const KIND: ToolKind = ToolKind::ReadOnly;
    type Arguments = ListArguments;
    type Answer = ListReport;

    async fn run(call: ToolCall, arguments: ListArguments) -> Result<ListReport, ToolError> {
        let limit = arguments::range("limit", arguments.limit.unwrap_or(DEFAULT_LIMIT), 1, MAX_LISTED)?;
        let before = arguments::optional(arguments.cursor, |cursor| {
            WorkerId::number_in(&cursor).ok_or(ArgumentError::Cursor(size::line(&cursor, 80)))
        })?;
        let scope = arguments.scope.unwrap_or_default();
        let filter = PageFilter { statuses: arguments.status, before };
        let request =
            PageRequest { scope, shows: Box::new(move |worker| filter.admits(worker)), limit: limit as usize };
        Ok(ListReport::new(&call.orchestrator.page(&call.boss, request).await?))
    }
}

struct PageFilter {
    /// All if empty.
    statuses: Vec<StatusFilter>,
    /// The number of the last worker on the previous page.
    before: Option<u64>,
}

impl PageFilter {
    fn admits(&self, summary: &Summary<'_>) -> bool {
        let older = self.before.is_none_or(|before| number(&summary.worker.id) < before);
        older && (self.statuses.is_empty() || self.statuses.iter().any(|status| status.matches(summary)))
    }
}

impl StatusFilter {
    fn matches(self, summary: &Summary<'_>) -> bool {
        match self {
            StatusFilter::Blocked => summary.blocked,
            StatusFilter::Stalled => summary.stalled,
            // Both enums serialize to the same words.
            status => serde_json::to_value(status).ok() == serde_json::to_value(summary.status).ok(),
        }
    }
}

fn number(id: &WorkerId) -> u64 {
    WorkerId::number_in(id.as_str()).unwrap_or(0)
}

impl ListReport {
    fn new(list: &ListPage) -> Self {
        let summaries = list.workers.iter().map(wire::WorkerSummary::new);
        let (workers, _) = size::fit(summaries, size::ANSWER - ENVELOPE);
        let last = workers.len().checked_sub(1).filter(|_| workers.len() < list.matching);
        let next_cursor = last.map(|last| format!("w-{}", number(&list.workers[last].worker.id)));
        let counts = StatusCounts::of(&list.statuses);
        let open =
            counts.queued + counts.blocked + counts.starting + counts.running + counts.needs_answer + counts.verifying;
        let next_step = match (&next_cursor, open) {
            (Some(cursor), _) => format!("list_worker_missions with cursor {cursor:?} for older workers"),
            (None, 0) if list.statuses.is_empty() && list.others > 0 => wire::hint_at_others(list.others),
            (None, 0) if list.statuses.is_empty() => "there are no workers yet: batch_create_workers".to_owned(),
            (None, 0) => "nothing is running; get_worker_status has each outcome".to_owned(),
            (None, _) => "wait_for_any_worker".to_owned(),
        };
        let next_step = match list.in_history {
            0 => next_step,
            n => {
                format!("{next_step}; {n} older settled workers are not listed: get_worker_status finds each by its id")
            }
        };
        let next_step = next_step + &unchecked(list);
        Self { workers, counts, others: list.others, spent: wire::spent(&list.spent), next_cursor, next_step }
    }
}

/// Names the shown workers that have no `conflicts_with` because conflicts were not checked.
fn unchecked(list: &ListPage) -> String {
    const NAMED: usize = 5;
    let ids: Vec<String> = list
        .workers
        .iter()
        .filter(|view| view.unchecked.is_some())
        .map(|view| format!("w-{}", number(&view.worker.id)))
        .collect();
    if ids.is_empty() {
        return String::new();
    }
    let named = words::first(&ids, NAMED);
    format!("; not checked for all conflicts (too many branches, or different integration branches): {named}")
}

impl StatusCounts {
    fn of(statuses: &[(WorkerStatus, bool)]) -> Self {
        let mut counts = Self::default();
        for (status, blocked) in statuses {
            *match status {
                WorkerStatus::Queued if *blocked => &mut counts.blocked,
                WorkerStatus::Queued => &mut counts.queued,
                WorkerStatus::Starting => &mut counts.starting,
                WorkerStatus::Running => &mut counts.running,
                WorkerStatus::NeedsAnswer => &mut counts.needs_answer,
                WorkerStatus::Verifying => &mut counts.verifying,
                WorkerStatus::Settled(Ending::Completed) => &mut counts.completed,
                WorkerStatus::Settled(Ending::Failed) => &mut counts.failed,
                WorkerStatus::Settled(Ending::Cancelled) => &mut counts.cancelled,
                WorkerStatus::Settled(Ending::TimedOut) => &mut counts.timed_out,
                WorkerStatus::Settled(Ending::Interrupted) => &mut counts.interrupted,
                WorkerStatus::Settled(Ending::Lost) => &mut counts.lost,
            } += 1;
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::wire::testing::{longest, settled, view};
    use crate::orchestrator::WorkerView;

    /// Selects a page from workers that are sorted oldest first, as the orchestrator does.
    fn page(all: &[WorkerView], statuses: Vec<StatusFilter>, before: Option<u64>) -> ListPage {
        let filter = PageFilter { statuses, before };
        let shows = |view: &&WorkerView| {
            let (worker, status) = (&*view.worker, view.worker.status);
            filter.admits(&Summary { worker, status, blocked: view.block.is_some(), stalled: false })
        };
        let matching: Vec<_> = all.iter().rev().filter(shows).cloned().collect();
        ListPage {
            matching: matching.len(),
            workers: matching.into_iter().take(100).collect(),
            statuses: all.iter().map(|view| (view.worker.status, view.block.is_some())).collect(),
            others: 3,
            in_history: 2,
            spent: Default::default(),
        }
    }

    #[test]
    fn pages_show_each_worker_once() {
        let mut workers: Vec<_> = (1..=999).map(|n| view(n, WorkerStatus::Running)).collect();
        workers.push(longest(1_000));
        let mut before = None;
        let mut seen = Vec::new();
        loop {
            let report = ListReport::new(&page(&workers, Vec::new(), before));
            assert!(size::of(&report) <= size::ANSWER, "{}", size::of(&report));
            let json = serde_json::to_value(&report).unwrap();
            assert_eq!(json["counts"], serde_json::json!({"running": 999, "failed": 1}));
            for worker in json["workers"].as_array().unwrap() {
                seen.push(WorkerId::number_in(worker["worker_id"].as_str().unwrap()).unwrap());
            }
            match report.next_cursor {
                Some(cursor) => before = WorkerId::number_in(&cursor),
                None => break,
            }
        }
        assert_eq!(seen, (1..=1_000).rev().collect::<Vec<_>>());
    }

    #[test]
    fn each_worker_is_counted_once() {
        let mut blocked = view(3, WorkerStatus::Queued);
        blocked.block = Some(crate::mission::hint::Advice::new("why", Vec::new()));
        let workers = vec![settled(1, Ending::Completed), view(2, WorkerStatus::Queued), blocked];
        let report = ListReport::new(&page(&workers, Vec::new(), None));
        let counts = serde_json::to_value(&report.counts).unwrap();
        assert_eq!(counts, serde_json::json!({"queued": 1, "completed": 1, "blocked": 1}));
        assert_eq!(report.next_step.split(';').next(), Some("wait_for_any_worker"));
    }

    #[test]
    fn filters_match_their_status() {
        let mut blocked = view(3, WorkerStatus::Queued);
        blocked.block = Some(crate::mission::hint::Advice::new("why", Vec::new()));
        let workers = vec![settled(1, Ending::TimedOut), view(2, WorkerStatus::Running), blocked];
        let cases = [
            (StatusFilter::TimedOut, "w-1-fix-parser"),
            (StatusFilter::Running, "w-2-fix-parser"),
            (StatusFilter::Blocked, "w-3-fix-parser"),
        ];
        for (status, id) in cases {
            let report = ListReport::new(&page(&workers, vec![status], None));
            let json = serde_json::to_value(&report).unwrap();
            assert_eq!(json["workers"].as_array().unwrap().len(), 1);
            assert_eq!(json["workers"][0]["worker_id"], id);
        }
    }
}
