//! Starts workers: a batch, or a single one.

use std::ops::RangeInclusive;

use rmcp::model::JsonObject;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::mission::MissionArguments;
use super::{Tool, ToolCall, ToolKind};
use crate::mcp::error::ToolError;
use crate::mcp::hint;
use crate::mcp::{arguments, schema, size, wire};
use crate::mission::create::Draft;
use crate::mission::id::WorkerId;
use crate::orchestrator::{Base, BatchItem, BatchKind, OrchestratorError};

/// Maximum number of missions with a result each; larger batches get ranges of ids.
const LISTED: usize = 50;
/// Bytes for the list.
const ROOM: usize = size::ANSWER - 1_600;

pub(super) struct BatchCreateWorkers;
pub(super) struct CreateWorkerMission;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Batch {
    /// The missions.
    #[schemars(with = "Vec<MissionArguments>")]
    workers: Vec<Value>,
    /// true: all compete on one prompt. The first that is completed and verified wins; the others are cancelled.
    race: Option<bool>,
}

#[derive(Debug, PartialEq, Serialize, JsonSchema)]
pub(super) struct BatchAnswer {
    created: usize,
    failed: usize,
    /// {branch, commit, note?}: the start of new branches and the target of merges.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<wire::ObjectPlaceholder>")]
    base: Option<BaseReport>,
    next_step: String,
    /// One for each mission, in order; over 50 missions only the failed ones.
    results: Vec<ItemResult>,
    /// Also the default task_id.
    #[serde(skip_serializing_if = "Option::is_none")]
    race_id: Option<String>,
    /// Over 50 missions: ranges of worker ids, such as w-1..w-60.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    id_ranges: Vec<String>,
    /// Number of omitted results and ranges; list_worker_missions shows the workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    left_out: Option<usize>,
}

#[derive(Debug, PartialEq, Serialize)]
struct BaseReport {
    branch: String,
    commit: String,
    /// Set if the checkout has moved to another branch since.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

impl BaseReport {
    fn new(base: Base) -> Self {
        let note = base.note.map(|note| size::line(&note, 500));
        Self { branch: size::line(&base.branch, 260), commit: base.commit, note }
    }
}

#[derive(Debug, PartialEq, Serialize, JsonSchema)]
pub(super) struct ItemResult {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    worker_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    /// The worker already existed under this request_id.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    existing: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct CreateAnswer {
    next_step: String,
    /// {branch, commit, note?}: the start of new branches and the target of merges.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<wire::ObjectPlaceholder>")]
    base: Option<BaseReport>,
    #[schemars(with = "wire::WorkerPlaceholder")]
    worker: wire::WorkerReport,
}

impl Tool for BatchCreateWorkers {
    const NAME: &'static str = "batch_create_workers";
    const DESCRIPTION: &'static str = "\
Start several coding agents at once, one worker for each mission: run tasks in parallel, spawn, launch or delegate \
to subagents. Each is a real codex, claude, gemini or opencode process in its own git worktree and branch, which \
keeps running when you stop. Returns the ids at once; missions over the limit are queued. An invalid mission fails \
alone. Then call wait_for_any_worker.";
    const KIND: ToolKind = ToolKind::StartsAgent;
    type Arguments = Batch;
    type Answer = BatchAnswer;

    async fn run(call: ToolCall, batch: Batch) -> Result<BatchAnswer, ToolError> {
        if batch.workers.is_empty() {
            return Err(arguments::empty("workers").into());
        }
        let drafts = batch.workers.into_iter().map(|mission| draft(&call, mission)).collect();
        let kind = if batch.race.unwrap_or(false) { BatchKind::Race } else { BatchKind::Independent };
        let creation = call.orchestrator.create(&call.boss, drafts, kind).await?;
        if creation.results.iter().all(Result::is_err) {
            return Err(nothing_created(creation.results));
        }
        Ok(BatchAnswer { base: creation.base.map(BaseReport::new), ..BatchAnswer::new(creation.results) })
    }
}

fn draft(call: &ToolCall, mission: Value) -> Result<Draft, OrchestratorError> {
    arguments::parse_value::<MissionArguments>(mission)
        .and_then(|mission| mission.draft(&call.orchestrator))
        .map_err(|error| OrchestratorError::Malformed { reason: error.to_string() })
}

fn nothing_created(results: Vec<BatchItem>) -> ToolError {
    let count = results.len();
    let share = (ROOM / count).clamp(40, 600);
    let reasons = results.into_iter().enumerate();
    let reasons = reasons
        .filter_map(|(index, result)| Some(format!("{index}: {}", size::line(&hint::of(&result.err()?), share))));
    let (reasons, _) = size::fit(reasons, ROOM);
    ToolError::NothingCreated { count, reasons: reasons.join("\n") }
}

impl BatchAnswer {
    fn new(results: Vec<BatchItem>) -> Self {
        let many = results.len() > LISTED;
        let race_id = results.iter().flatten().find_map(|created| Some(created.race.as_ref()?.to_string()));
        let failed = results.iter().filter(|result| result.is_err()).count();
        let created = results.len() - failed;
        let (id_ranges, ranges_left) = if many { size::fit(ranges(&results), ROOM / 2) } else { (Vec::new(), 0) };
        let room = ROOM - size::of(&id_ranges);
        // Cut every reason rather than omit some.
        let share = (room / results.len().min(LISTED)).saturating_sub(30).min(600);
        let items = results.into_iter().enumerate().filter(|(_, result)| !many || result.is_err());
        let (results, results_left) =
            size::fit(items.map(|(index, result)| ItemResult::new(index, result, share)), room);
        let left_out = Some(ranges_left + results_left).filter(|left| *left > 0);
        let next_step = match failed {
            0 if race_id.is_some() => {
                "wait_for_any_worker: it returns when a worker has won or all have failed".to_owned()
            }
            0 => "wait_for_any_worker".to_owned(),
            _ => "correct the failed missions and create them again; then wait_for_any_worker".to_owned(),
        };
        Self { created, failed, base: None, results, race_id, id_ranges, left_out, next_step }
    }
}

impl ItemResult {
    fn new(index: usize, result: BatchItem, share: usize) -> Self {
        let (created, error) = match result {
            Ok(created) => (Some(created), None),
            Err(error) => (None, Some(size::line(&hint::of(&error), share))),
        };
        Self {
            index,
            worker_id: created.as_ref().map(|created| created.worker_id.to_string()),
            status: created.as_ref().map(|created| created.status.as_str()),
            existing: created.is_some_and(|created| created.existing),
            error,
        }
    }
}

/// Returns the ids of the created workers as ranges of consecutive numbers.
fn ranges(results: &[BatchItem]) -> Vec<String> {
    let numbers = results.iter().flatten().filter_map(|created| WorkerId::number_in(created.worker_id.as_str()));
    let mut ranges: Vec<RangeInclusive<u64>> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some(last) if last.end() + 1 == number => *last = *last.start()..=number,
            _ => ranges.push(number..=number),
        }
    }
    let name = |range: &RangeInclusive<u64>| format!("w-{}..w-{}", range.start(), range.end());
    ranges.iter().map(name).collect()
}

impl Tool for CreateWorkerMission {
    const NAME: &'static str = "create_worker_mission";
    const DESCRIPTION: &'static str = "\
Start one coding agent on a mission: spawn, launch or delegate to a subagent. The fields are those of \
batch_create_workers.";
    const KIND: ToolKind = ToolKind::StartsAgent;
    type Arguments = MissionArguments;
    type Answer = CreateAnswer;

    /// Returns the schema without the descriptions that a model reads in `batch_create_workers`, for the same fields.
    fn input() -> JsonObject {
        let mut schema = schema::input::<Self::Arguments>();
        let fields = schema.get_mut("properties").and_then(Value::as_object_mut);
        for (_, field) in fields.into_iter().flatten().filter(|(name, _)| *name != "prompt") {
            schema::remove_descriptions(field);
        }
        schema
    }

    async fn run(call: ToolCall, mission: MissionArguments) -> Result<CreateAnswer, ToolError> {
        let draft = mission.draft(&call.orchestrator)?;
        let mut creation = call.orchestrator.create(&call.boss, vec![Ok(draft)], BatchKind::Single).await?;
        let (created, view) = match (creation.results.pop(), creation.view) {
            (Some(Ok(created)), Some(view)) => (created, view),
            (refused, _) => return Err(nothing_created(refused.into_iter().collect())),
        };
        let next_step = if created.existing {
            "this request_id already has a worker, so none was created; wait_for_any_worker"
        } else {
            "create the other missions, then wait_for_any_worker"
        };
        let mut worker = wire::WorkerReport::new(&view, size::ANSWER - 1_500);
        worker.take_next_step();
        Ok(CreateAnswer { next_step: next_step.to_owned(), base: creation.base.map(BaseReport::new), worker })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mission::lifecycle::WorkerStatus;
    use crate::orchestrator::Created;

    fn created(number: u64) -> BatchItem {
        let worker_id = WorkerId::new(number, &"long title ".repeat(20));
        Ok(Created { worker_id, status: WorkerStatus::Queued, existing: false, race: None })
    }

    fn refused() -> BatchItem {
        Err(OrchestratorError::Malformed { reason: "\"\n\u{1}é".repeat(500) })
    }

    #[test]
    fn small_batch_has_a_result_per_item() {
        let answer = BatchAnswer::new(vec![created(1), refused(), created(2)]);
        assert_eq!((answer.created, answer.failed, answer.left_out), (2, 1, None));
        let ids: Vec<_> = answer.results.iter().map(|item| (item.index, item.worker_id.as_deref())).collect();
        let slug = "long-title-long-title-long-title";
        assert_eq!(ids, [(0, Some(&*format!("w-1-{slug}"))), (1, None), (2, Some(&*format!("w-2-{slug}")))]);
    }

    #[test]
    fn large_batch_has_ranges_and_errors() {
        let mut results: Vec<_> = (1..=1_000).map(created).collect();
        results[500] = refused();
        let answer = BatchAnswer::new(results);
        assert_eq!(answer.id_ranges, ["w-1..w-500", "w-502..w-1000"]);
        assert_eq!(answer.results.len(), 1);
        assert_eq!(answer.results[0].index, 500);
    }

    #[test]
    fn answer_to_any_batch_fits() {
        let mixed = |count: u64| (1..=count).map(|n| if n % 2 == 0 { created(n) } else { refused() }).collect();
        for count in [1, 2, 10, 50, 51, 1_000, 10_000] {
            for results in [mixed(count), (1..=count).map(created).collect(), mixed(2 * count)] {
                assert!(size::of(&BatchAnswer::new(results)) <= size::ANSWER, "{count}");
            }
            let error = nothing_created((0..count).map(|_| refused()).collect()).answer();
            assert!(size::of(&error) <= size::ANSWER, "{count}: {}", size::of(&error));
        }
    }

    #[test]
    fn small_batch_lists_every_item() {
        let answer = BatchAnswer::new((1..=50).map(|n| if n == 1 { created(n) } else { refused() }).collect());
        assert_eq!((answer.results.len(), answer.left_out), (50, None));
    }
}
