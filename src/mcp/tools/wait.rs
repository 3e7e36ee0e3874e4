//! Waits until a worker needs attention, in place of polling.

use std::time::Duration;

use jiff::Timestamp;
use rmcp::model::JsonObject;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::mission::lines;
use super::{Tool, ToolCall, ToolKind};
use crate::mcp::arguments::{self, NAME};
use crate::mcp::client::LONGEST_WAIT_SECONDS;
use crate::mcp::error::ToolError;
use crate::mcp::{hint, schema, size, wire};
use crate::mission::hint::Advice;
use crate::mission::registry::BackgroundWait;
use crate::orchestrator::{self, OpenWait, Scope, WaitRequest, WaitStatus, Waited, WakeOrder, WorkerView};

/// Maximum number of settled workers in one answer, so that each has space for its outcome and final message.
const AT_ONCE: usize = 4;
const MAX_NAMED: u64 = 1_000;
/// Bytes for everything but the lists.
const ENVELOPE: usize = 800;
/// Bytes of the envelope for the next step of a single settlement.
const NEXT_STEP: usize = 240;
const WAITS_FOR: usize = 320;
/// Bytes of a question.
const QUESTION: usize = 900;
/// Bytes of the reason why a boss is not woken.
const NOT_WOKEN: usize = 120;
const WOKEN: &str = "end your turn: a message wakes you when there is something to report";
/// Maximum size in bytes of `waited_for`.
const WAITED_FOR: usize = 180;
/// Bytes kept for the receipts, and for the lists beside the settled workers.
const FOR_OTHERS: usize = 900;

pub(super) struct WaitForAnyWorker;
pub(super) struct WaitForWorker;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AnyArguments {
    /// At most 1000; default: all of yours.
    #[serde(default)]
    worker_ids: Vec<String>,
    /// Receipts of settlements that reached you; they are not repeated.
    #[serde(default)]
    receipts: Vec<String>,
    /// 0 to 21600; default: as long as your client allows.
    timeout_seconds: Option<u64>,
    /// Answer now; a message wakes you later.
    #[serde(default)]
    background: bool,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OneArguments {
    /// Such as w-3.
    worker_id: String,
    /// As in wait_for_any_worker.
    #[serde(default)]
    receipts: Vec<String>,
    /// As in wait_for_any_worker.
    timeout_seconds: Option<u64>,
    /// As in wait_for_any_worker.
    #[serde(default)]
    background: bool,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct WaitReport {
    /// settled, attention (a worker has stalled, or nothing can start: see waits_for), blocked (a task needs you), question,
    /// still_running (time is up; not an error), idle (nothing is running or queued).
    #[schemars(with = "String", extend("enum" = ["settled", "attention", "blocked", "question", "still_running", "idle"]))]
    status: WaitStatus,
    next_step: String,
    settled: Vec<wire::WorkerReport>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<wire::WorkerPlaceholder>")]
    attention: Vec<wire::WorkerReport>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    blocked: Vec<BlockedTask>,
    /// {worker_id, question_id, text, choices: [{id, name}], asked_at, default_after (seconds)}
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<wire::ObjectPlaceholder>")]
    questions: Vec<wire::QuestionReport>,
    still_running: Vec<wire::WorkerSummary>,
    queued: usize,
    /// Why queued workers have not started: dependencies, a worker limit, or machine load.
    #[serde(skip_serializing_if = "Option::is_none")]
    waits_for: Option<String>,
    /// Settled workers that the next wait returns.
    #[serde(skip_serializing_if = "wire::is_zero")]
    more: usize,
    /// Total of all your workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    spent: Option<String>,
    /// Reason why background had no effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_woken: Option<String>,
    /// The background wait that this ends, since its conversation may have been cleared. Absent in the answer of a call.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(skip)]
    waited_for: Option<String>,
    /// Number of omitted workers and tasks; list_worker_missions shows all.
    #[serde(skip_serializing_if = "wire::is_zero")]
    not_shown: usize,
    #[serde(skip)]
    background: Option<OpenWait>,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct BlockedTask {
    task_id: String,
    reason: String,
}

impl Tool for WaitForAnyWorker {
    const NAME: &'static str = "wait_for_any_worker";
    const DESCRIPTION: &'static str = "\
Wait until any worker agent has finished, failed, stalled or is blocked. Call it after starting workers, and again \
after each answer, instead of polling for status. It returns everything that settled since the last wait, at once \
if something has: outcome, verification, changes, next_step. Status still_running is no error: call it again. In \
Codex's code mode put // @exec: {\"yield_time_ms\": 280000} at the top of the script.";
    const KIND: ToolKind = ToolKind::ReadOnly;
    type Arguments = AnyArguments;
    type Answer = WaitReport;

    fn background(report: &WaitReport) -> Option<&OpenWait> {
        report.background.as_ref()
    }

    async fn run(call: ToolCall, arguments: AnyArguments) -> Result<WaitReport, ToolError> {
        arguments::range("the number of worker_ids", arguments.worker_ids.len() as u64, 0, MAX_NAMED)?;
        let workers = lines("worker_ids", arguments.worker_ids, NAME)?;
        wait(call, workers, arguments.receipts, arguments.timeout_seconds, arguments.background).await
    }
}

impl Tool for WaitForWorker {
    const NAME: &'static str = "wait_for_worker";
    const DESCRIPTION: &'static str = "\
Wait until one worker agent has finished, failed, stalled or is blocked, if you need that one first. Otherwise as \
wait_for_any_worker. In Codex's code mode put // @exec: {\"yield_time_ms\": 280000} at the top of the script.";
    const KIND: ToolKind = ToolKind::ReadOnly;
    type Arguments = OneArguments;
    type Answer = WaitReport;

    /// Returns the schema of `wait_for_any_worker` with placeholders, since that one describes a worker in full.
    fn output() -> JsonObject {
        let mut schema = schema::output::<WaitReport>();
        for list in ["settled", "still_running"] {
            if let Some(list) = schema.get_mut("properties").and_then(|properties| properties.get_mut(list)) {
                list["items"] = schema::output::<wire::WorkerPlaceholder>().into();
            }
        }
        schema
    }

    fn background(report: &WaitReport) -> Option<&OpenWait> {
        report.background.as_ref()
    }

    async fn run(call: ToolCall, arguments: OneArguments) -> Result<WaitReport, ToolError> {
        let worker = arguments::line("worker_id", arguments.worker_id, NAME)?;
        wait(call, vec![worker], arguments.receipts, arguments.timeout_seconds, arguments.background).await
    }
}

async fn wait(
    call: ToolCall,
    workers: Vec<String>,
    receipts: Vec<String>,
    seconds: Option<u64>,
    background: bool,
) -> Result<WaitReport, ToolError> {
    let requested =
        arguments::optional(seconds, |it| arguments::range("timeout_seconds", it, 0, LONGEST_WAIT_SECONDS))?;
    let settings = call.orchestrator.settings();
    let timeout = call.client.wait(requested, settings.wait_seconds, call.wants_progress);
    let is_task = call.can_wait_as_task() && requested != Some(0);
    // Each wake costs a turn, so a background wait does not end after the default time of a blocking one.
    let time = is_task.then(|| Duration::from_secs(requested.unwrap_or(LONGEST_WAIT_SECONDS)));
    let request = WaitRequest { workers, receipts, timeout, most: AT_ONCE, background: time };
    let mut not_woken = None;
    if background && !call.can_wait_as_task() {
        match in_background(&call, &request).await? {
            Ok(report) => return Ok(report),
            Err(why) => not_woken = Some(size::line(&why, NOT_WOKEN)),
        }
    }
    let (waited, notifications) = call.orchestrator.wait(&call.boss, request, &call.stop).await?;
    call.delivery.set(notifications);
    let mut report = match waited {
        Waited::Answered(answer) => WaitReport { not_woken, ..WaitReport::new(*answer) },
        Waited::Background(wait) => return Ok(WaitReport::going_on(wait)),
    };
    if report.is_empty() {
        let list = call.orchestrator.list(&call.boss, Scope::Mine).await;
        if let Some(list) = list.ok().filter(|list| list.workers.is_empty() && list.others > 0) {
            report.next_step = wire::hint_at_others(list.others);
        }
    }
    Ok(report)
}

/// Answers with what is due, or records that the boss is to be woken. Otherwise returns the reason why the wait must
/// block.
async fn in_background(call: &ToolCall, request: &WaitRequest) -> Result<Result<WaitReport, String>, ToolError> {
    let turn = match call.turn_before_wake() {
        Ok(turn) => turn,
        Err(why) => return Ok(Err(why)),
    };
    // A boss must not rely on a command that has just failed.
    let failure = call.orchestrator.wake_failure().await?;
    if let Some(failure) = failure.filter(|failure| failure.is_recent(Timestamp::now())) {
        return Ok(Err(format!("the last wake failed: {}", failure.reason)));
    }
    let at_once = WaitRequest { timeout: Duration::ZERO, ..request.clone() };
    let (waited, notifications) = call.orchestrator.wait(&call.boss, at_once, &call.stop).await?;
    let Waited::Answered(answer) = waited else { return Ok(Err("it goes on in the background".to_owned())) };
    let mut report = WaitReport::new(*answer);
    if report.status == WaitStatus::StillRunning {
        // Anything that becomes due from here on wakes the boss.
        let order = WakeOrder {
            boss: call.boss.clone(),
            workers: request.workers.clone(),
            thread: turn.thread.clone(),
            turn: turn.id.clone(),
        };
        if let Err(error) = call.orchestrator.request_wake(order).await {
            return Ok(Err(error.to_string()));
        }
        report.next_step = WOKEN.to_owned();
    }
    call.delivery.set(notifications);
    Ok(Ok(report))
}

/// Renders the answer of a background wait.
pub(in crate::mcp) fn render(answer: orchestrator::WaitAnswer, wait: &BackgroundWait) -> Value {
    let waited_for = size::line(&wait.purpose(), WAITED_FOR);
    let report =
        WaitReport { waited_for: Some(waited_for), ..WaitReport::within(size::ANSWER - WAITED_FOR - 20, answer) };
    serde_json::to_value(&report).expect("plain structs always serialize")
}

impl WaitReport {
    fn new(answer: orchestrator::WaitAnswer) -> Self {
        Self::within(size::ANSWER, answer)
    }

    /// Returns the report of a call that is answered with an open background wait instead.
    fn going_on(wait: OpenWait) -> Self {
        let next_step = format!("waiting in the background as {}: end your turn", wait.id);
        Self {
            status: WaitStatus::StillRunning,
            next_step,
            settled: Vec::new(),
            attention: Vec::new(),
            blocked: Vec::new(),
            questions: Vec::new(),
            still_running: Vec::new(),
            queued: 0,
            waits_for: None,
            more: 0,
            spent: None,
            not_woken: None,
            waited_for: None,
            not_shown: 0,
            background: Some(wait),
        }
    }

    fn within(max: usize, answer: orchestrator::WaitAnswer) -> Self {
        let waits_for = answer.waits_for.as_deref().map(|what| size::line(what, WAITS_FOR));
        let is_single = answer.settled.len() + answer.already_reported.len() < 2;
        let envelope = if is_single { ENVELOPE } else { ENVELOPE - NEXT_STEP };
        let mut space = AnswerSpace { left: max - envelope - waits_for.as_ref().map_or(0, size::of), not_shown: 0 };
        // Their number is limited, so all of them fit.
        let questions = answer.questions.iter().map(|question| wire::QuestionReport::new(question, QUESTION));
        let (questions, rest) = size::fit(questions, space.left);
        space.spend(&questions, rest);
        // Settlements are reported once and come first; the other lists can be read at any time.
        let reported = answer.already_reported.iter().map(|view| (view, true));
        let mut settled = workers(answer.settled.iter().map(|view| (view, false)).chain(reported), &mut space);
        let (blocked, rest) = size::fit(answer.blocked.iter().map(BlockedTask::new), space.left / 2);
        space.spend(&blocked, rest);
        let attention = workers(answer.attention.iter().map(|view| (view, false)), &mut space);
        let summaries = answer.still_running.iter().map(|view| wire::WorkerSummary::new(view).without_branch());
        let (still_running, rest) = size::fit(summaries, space.left);
        space.spend(&still_running, rest);

        let status = answer.status;
        let blocked_task = answer.blocked.first().map(|(task, _)| task.as_str());
        let next_step = match &answer.background {
            Some(id) => format!("already waiting in the background as {id}: end your turn"),
            None => next_step(status, &mut settled, answer.more, blocked_task, !questions.is_empty()),
        };
        Self {
            status,
            settled,
            attention,
            blocked,
            questions,
            still_running,
            queued: answer.queued,
            waits_for,
            more: answer.more,
            spent: wire::spent(&answer.spent),
            not_woken: None,
            waited_for: None,
            not_shown: space.not_shown,
            next_step,
            background: None,
        }
    }

    fn is_empty(&self) -> bool {
        self.status == WaitStatus::Idle && self.settled.is_empty()
    }
}

/// The remaining bytes of an answer, and the number of omitted items.
struct AnswerSpace {
    left: usize,
    not_shown: usize,
}

impl AnswerSpace {
    fn spend(&mut self, list: &impl Serialize, not_shown: usize) {
        self.left = self.left.saturating_sub(size::of(list));
        self.not_shown += not_shown;
    }
}

/// Reports the workers, each with an equal share of the remaining bytes.
fn workers<'a>(
    views: impl Iterator<Item = (&'a WorkerView, bool)>,
    space: &mut AnswerSpace,
) -> Vec<wire::WorkerReport> {
    let views: Vec<(&WorkerView, bool)> = views.collect();
    let share = space.left.saturating_sub(FOR_OTHERS) / views.len().clamp(1, AT_ONCE);
    let reports = views.iter().map(|(view, already_reported)| {
        let report = wire::WorkerReport::new(view, share.saturating_sub(1)).with_receipt(view).with_each_commit_once();
        if *already_reported { report.already_reported() } else { report }
    });
    let (reports, rest) = size::fit(reports, space.left);
    space.spend(&reports, rest);
    reports
}

impl BlockedTask {
    fn new((task, reason): &(crate::mission::id::TaskId, Advice)) -> Self {
        Self { task_id: size::line(task.as_str(), 110), reason: size::line(&hint::line(reason), 300) }
    }
}

/// Returns the next step of the answer. A step that it has is left out of its workers.
fn next_step(
    status: WaitStatus,
    settled: &mut [wire::WorkerReport],
    more: usize,
    blocked: Option<&str>,
    asks: bool,
) -> String {
    match (status, settled) {
        (WaitStatus::Settled, [one]) if more == 0 => format!("{}; then wait_for_any_worker", one.take_next_step()),
        (WaitStatus::Settled, several) => match train(several) {
            Some(train) => {
                several.iter_mut().for_each(|worker| drop(worker.take_next_step()));
                format!("integrate_worker with worker_ids [{train}]; then wait_for_any_worker")
            }
            None => "follow each worker's next_step, then wait_for_any_worker".to_owned(),
        },
        (WaitStatus::Attention, _) => "follow the next_step of each worker in attention".to_owned(),
        (WaitStatus::Blocked, _) => match blocked {
            Some(task) => {
                format!("task {} is blocked: retry_worker, or create a narrower mission", size::line(task, 110))
            }
            None => "list_worker_missions with status [\"blocked\"]".to_owned(),
        },
        (WaitStatus::Question, _) => {
            "send_message_to_worker with answers and decision (message is optional), then wait_for_any_worker"
                .to_owned()
        }
        (WaitStatus::StillRunning, _) if asks => {
            "answer the questions with send_message_to_worker, then wait_for_any_worker".to_owned()
        }
        (WaitStatus::StillRunning, _) => {
            "wait_for_any_worker again; queued workers start by themselves, unless waits_for names a change".to_owned()
        }
        (WaitStatus::Idle, _) => {
            "nothing is running or queued: batch_create_workers for the next missions, or finish".to_owned()
        }
    }
}

/// Returns the workers as a train, if each can be integrated without another step first.
fn train(settled: &[wire::WorkerReport]) -> Option<String> {
    let ids: Option<Vec<&str>> =
        settled.iter().map(|worker| worker.next_step().strip_prefix("integrate_worker ")).collect();
    let ids = ids.filter(|ids| !ids.is_empty() && ids.iter().all(|id| !id.contains(';')))?;
    Some(ids.iter().map(|id| format!("\"{id}\"")).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::wire::testing::{longest, longest_question, settled, view};
    use crate::mission::id::TaskId;
    use crate::mission::lifecycle::{Ending, WorkerStatus};
    use crate::orchestrator::WaitAnswer;

    fn answer(status: WaitStatus) -> WaitAnswer {
        WaitAnswer {
            status,
            settled: Vec::new(),
            attention: Vec::new(),
            blocked: Vec::new(),
            questions: Vec::new(),
            already_reported: Vec::new(),
            still_running: Vec::new(),
            queued: 0,
            waits_for: None,
            more: 0,
            spent: Default::default(),
            background: None,
        }
    }

    #[test]
    fn status_comes_first() {
        let mut answer = answer(WaitStatus::Settled);
        answer.settled.push(settled(3, Ending::Completed));
        answer.still_running.push(view(4, WorkerStatus::Running));
        let report = serde_json::to_value(WaitReport::new(answer)).unwrap();
        assert_eq!(report["status"], "settled");
        assert_eq!(report["settled"][0]["worker_id"], "w-3-fix-parser");
        assert_eq!(report["still_running"][0]["worker_id"], "w-4-fix-parser");
        assert_eq!(report["next_step"], "integrate_worker w-3; then wait_for_any_worker");
        assert_eq!(report.as_object().unwrap().keys().next().unwrap(), "status");
    }

    #[test]
    fn workers_that_can_be_integrated_form_a_train() {
        let mut answer = answer(WaitStatus::Settled);
        answer.settled = vec![settled(3, Ending::Completed), settled(4, Ending::Completed)];
        let report = WaitReport::new(answer.clone());
        assert_eq!(report.next_step, "integrate_worker with worker_ids [\"w-3\", \"w-4\"]; then wait_for_any_worker");
        answer.settled.push(settled(5, Ending::Failed));
        assert_eq!(WaitReport::new(answer).next_step, "follow each worker's next_step, then wait_for_any_worker");
    }

    #[test]
    fn worker_reported_before_is_marked() {
        let mut answer = answer(WaitStatus::Settled);
        answer.already_reported.push(settled(3, Ending::Failed));
        let report = serde_json::to_value(WaitReport::new(answer)).unwrap();
        assert_eq!(report["settled"][0]["already_reported"], true);
        assert_eq!(report["settled"][0]["receipt"], "r-3-1-0");
    }

    #[test]
    fn final_messages_are_whole_if_they_fit() {
        let mut answer = answer(WaitStatus::Settled);
        let words = "word ".repeat(300).trim().to_owned();
        for number in 1..=3 {
            let mut view = settled(number, Ending::Completed);
            std::sync::Arc::make_mut(&mut view.worker).settled[0].final_message = words.clone();
            answer.settled.push(view);
        }
        let report = serde_json::to_value(WaitReport::new(answer)).unwrap();
        for worker in report["settled"].as_array().unwrap() {
            assert_eq!(worker["final_message"], words);
        }
    }

    #[test]
    fn longest_questions_fit_beside_other_workers() {
        let mut asks = answer(WaitStatus::Question);
        asks.questions = (1..=3).map(longest_question).collect();
        asks.still_running = (1_000..=2_000).map(|n| view(n, WorkerStatus::NeedsAnswer)).collect();
        let report = WaitReport::new(asks);
        assert!(size::of(&report) <= size::ANSWER, "{}", size::of(&report));
        assert_eq!(report.questions.len(), 3);
        let report = serde_json::to_value(report).unwrap();
        assert!(report["questions"][0]["text"].as_str().unwrap().contains("left out"), "{report:#}");
    }

    #[test]
    fn thousand_workers_fit_with_every_settlement() {
        let mut full = answer(WaitStatus::Settled);
        full.settled = (1..=AT_ONCE as u64).map(longest).collect();
        full.attention = (10..=60).map(longest).collect();
        full.already_reported = Vec::new();
        let reason = Advice::new("\u{1}\"".repeat(2_000), Vec::new());
        full.blocked = (0..1_000).map(|n| (TaskId::from(format!("task-{n}")), reason.clone())).collect();
        full.still_running = (1_000..=2_000).map(|n| view(n, WorkerStatus::Running)).collect();
        full.more = 996;
        let report = WaitReport::new(full);
        assert!(size::of(&report) <= size::ANSWER, "{}", size::of(&report));
        assert_eq!(report.settled.len(), AT_ONCE);
        let shown = report.attention.len() + report.blocked.len() + report.still_running.len();
        assert_eq!(shown + report.not_shown, 51 + 1_000 + 1_001);
    }
}
