//! MCP tasks: the wire form of background waits. This module decides nothing.
//!
//! Claude Code polls a task once a second, and shows its status message to the user only. After an error code it polls
//! for five minutes, and then gives up without a report to the boss. So every request gets a task: an unknown id is a
//! completed one, whose result names the next call. A result is both structured and text, since clients show the model
//! one of them. A request does not name its boss: the id is the capability.

use jiff::Timestamp;
use rmcp::model::{
    CallToolResult, ContentBlock, CreateTaskResult, DetailedTask, GetTaskResult, InputResponses, JsonObject, Task,
    TaskPayload, TaskStatus,
};
use serde_json::{Value, json};

use super::starter::Starter;
use super::tools::wait::render;
use super::{forms, size};
use crate::mission::id::WaitId;
use crate::orchestrator::{OpenWait, WaitState};

/// Interval at which a client should poll. It delays the wake of its boss, and a request costs nearly nothing.
const POLL_INTERVAL_MS: u64 = 1_000;
/// Maximum size in bytes of the line that is shown to the user.
const MESSAGE: usize = 300;

/// Returns the answer of a call whose wait goes on in the background.
pub(super) fn created(wait: &OpenWait) -> CreateTaskResult {
    CreateTaskResult::new(open(wait))
}

/// Returns the state of a task, within milliseconds unless the orchestrator is just starting.
pub(super) async fn get(starter: &Starter, id: &str, forms: bool) -> GetTaskResult {
    let Some(wait) = WaitId::parse(id) else { return gone(id) };
    let state = match starter.get().await {
        Ok(orchestrator) => orchestrator.poll_wait(&wait, forms, render).await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match state {
        Ok(WaitState::Open(wait)) => result(open(&wait), TaskPayload::Working),
        Ok(WaitState::Asking { wait, questions }) => {
            result(open(&wait), TaskPayload::InputRequired { input_requests: forms::of(&questions) })
        }
        Ok(WaitState::Ended(stored)) => completed(task(id, stored.opened_at, stored.ended_at), stored.answer),
        Ok(WaitState::Cancelled { opened_at, why }) => {
            result(task(id, opened_at, opened_at).with_status_message(why), TaskPayload::Cancelled)
        }
        Ok(WaitState::Gone) => gone(id),
        // The wait may still be open, so it is not ended here. The user sees the cause.
        Err(cause) => {
            let now = Timestamp::now();
            let message = size::line(&format!("cannot read the state of the workers: {cause}"), MESSAGE);
            result(task(id, now, now).with_status_message(message), TaskPayload::Working)
        }
    }
}

/// Cancels a task. Has no effect on one that is over or unknown.
pub(super) async fn cancel(starter: &Starter, id: &str) {
    let Some(wait) = WaitId::parse(id) else { return };
    if let Ok(orchestrator) = starter.get().await
        && let Err(error) = orchestrator.cancel_wait(&wait).await
    {
        tracing::warn!(%error, "cannot cancel a background wait");
    }
}

/// Passes the user's answers in forms on to the workers. An answer that comes too late has no effect: the next request
/// shows the state.
pub(super) async fn update(starter: &Starter, id: &str, responses: InputResponses) {
    let Some(wait) = WaitId::parse(id) else { return };
    let Ok(orchestrator) = starter.get().await else { return };
    for (key, response) in responses {
        let Some((worker, request)) = forms::answer(&key, &response) else { continue };
        if let Err(error) = orchestrator.answer_form(&wait, &worker, request).await {
            tracing::info!(%error, "the user's answer has no effect");
        }
    }
}

fn open(wait: &OpenWait) -> Task {
    task(wait.id.as_str(), wait.opened_at, Timestamp::now()).with_status_message(size::line(&wait.progress, MESSAGE))
}

fn task(id: &str, created: Timestamp, updated: Timestamp) -> Task {
    Task::new(id, TaskStatus::Working, created.to_string(), updated.to_string()).with_poll_interval_ms(POLL_INTERVAL_MS)
}

fn gone(id: &str) -> GetTaskResult {
    let now = Timestamp::now();
    let next_step = "this wait is gone: call wait_for_any_worker";
    // An id that is not from this program may be long.
    let id = size::head(id, 1_024);
    completed(task(id, now, now), json!({"status": "gone", "next_step": next_step}))
}

fn completed(task: Task, answer: Value) -> GetTaskResult {
    let mut called = CallToolResult::structured(answer);
    called.content = called.structured_content.iter().map(|answer| ContentBlock::text(answer.to_string())).collect();
    let called = serde_json::to_value(called).unwrap_or_default();
    let called: JsonObject = serde_json::from_value(called).unwrap_or_default();
    result(task, TaskPayload::Completed { result: called })
}

fn result(task: Task, payload: TaskPayload) -> GetTaskResult {
    GetTaskResult::new(DetailedTask::new(task, payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_task_is_completed_with_the_next_call() {
        let task = serde_json::to_value(gone("wait-a")).unwrap();
        assert_eq!((&task["status"], &task["taskId"]), (&json!("completed"), &json!("wait-a")));
        let result = &task["result"];
        let text: Value = serde_json::from_str(result["content"][0]["text"].as_str().unwrap()).unwrap();
        assert_eq!(result["structuredContent"], text);
        assert!(text["next_step"].as_str().unwrap().contains("call wait_for_any_worker"), "{text}");
        assert_ne!(result["isError"], true);
    }
}
