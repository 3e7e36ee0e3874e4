//! Sends a message to a worker.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Tool, ToolCall, ToolKind};
use crate::attempt::inbox::Delivery;
use crate::mcp::arguments::{self, ArgumentError, NAME, PROMPT};
use crate::mcp::error::ToolError;
use crate::mission::question::Decision;
use crate::orchestrator::{AnswerRequest, MessageDelivery, NewMessage};

pub(super) struct SendMessageToWorker;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MessageArguments {
    /// Such as w-3.
    worker_id: String,
    /// At most 1 MiB.
    message: Option<String>,
    /// when_ready (default) or interrupt (stops its turn first).
    #[schemars(with = "Option<String>", extend("enum" = ["when_ready", "interrupt"]))]
    delivery: Option<Delivery>,
    /// Id of a question.
    answers: Option<String>,
    /// allow, deny or a choice's id.
    decision: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct MessageReport {
    message_id: String,
    /// live (passed to the running agent), queued (delivered after its turn or when it starts), next_attempt (it had
    /// settled; the message started another attempt), answered.
    #[schemars(with = "String", extend("enum" = ["live", "queued", "next_attempt", "answered"]))]
    delivered: MessageDelivery,
    status: &'static str,
    next_step: String,
}

impl Tool for SendMessageToWorker {
    const NAME: &'static str = "send_message_to_worker";
    const DESCRIPTION: &'static str = "\
Send a message to a worker agent: steer it, answer its question, give feedback, add work. A running worker gets it \
at once or after its turn; delivery interrupt stops the turn first. A settled worker starts its next attempt with \
it, in the same worktree and, if its CLI can, the same session.";
    const KIND: ToolKind = ToolKind::StartsAgent;
    type Arguments = MessageArguments;
    type Answer = MessageReport;

    async fn run(call: ToolCall, arguments: MessageArguments) -> Result<MessageReport, ToolError> {
        let name = arguments::line("worker_id", arguments.worker_id, NAME)?;
        let delivery = arguments.delivery.unwrap_or_default();
        let decision = arguments::optional(arguments.decision, |it| arguments::line("decision", it, NAME))?;
        let question = arguments::optional(arguments.answers, |it| arguments::line("answers", it, NAME))?;
        let text = match arguments.message {
            None if decision.is_some() => None,
            None if question.is_some() => return Err(ArgumentError::NoDecision.into()),
            None => return Err(ArgumentError::Missing { field: "message" }.into()),
            Some(message) => Some(arguments::text("message", message, PROMPT)?),
        };
        let message = text.map(|text| NewMessage { text, delivery, by: None });
        let (message_id, delivered, status) = match (decision, question, message) {
            (Some(decision), question, message) => {
                let request = AnswerRequest { question, decision: Decision::from(decision), message };
                let answered = call.orchestrator.answer(&call.boss, &name, request).await?;
                (answered.message_id, MessageDelivery::Answered, answered.status)
            }
            (None, None, Some(message)) => {
                let answer = call.orchestrator.send_message(&call.boss, &name, message).await?;
                (answer.message_id, answer.delivered, answer.status)
            }
            (None, ..) => return Err(ArgumentError::NoDecision.into()),
        };
        Ok(MessageReport {
            message_id: message_id.to_string(),
            delivered,
            status: status.as_str(),
            next_step: "wait_for_any_worker".to_owned(),
        })
    }
}
