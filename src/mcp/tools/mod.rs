//! The tools, one file for each verb: it parses the arguments, calls the orchestrator and converts the answer. [`ALL`]
//! lists them.

mod backends;
mod cancel;
mod create;
mod integrate;
mod list;
mod message;
mod mission;
mod retry;
mod status;
pub(super) mod wait;
mod worktree;

use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rmcp::model::{JsonObject, MetaObject, ToolAnnotations};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::client::{Client, CodexTurn, Waking};
use super::error::ToolError;
use super::{arguments, schema};
use crate::config::Wake;
use crate::mission::id::BossId;
use crate::orchestrator::{DeliveryGuard, NotWoken, OpenWait, Orchestrator};

pub(super) type Arguments = JsonObject;

/// All tools, in the order of the contract.
pub(super) const ALL: [ToolEntry; 14] = [
    entry::<create::BatchCreateWorkers>(),
    entry::<create::CreateWorkerMission>(),
    entry::<wait::WaitForAnyWorker>(),
    entry::<wait::WaitForWorker>(),
    entry::<list::ListWorkerMissions>(),
    entry::<status::GetWorkerStatus>(),
    entry::<message::SendMessageToWorker>(),
    entry::<cancel::CancelWorker>(),
    entry::<cancel::CancelAllWorkers>(),
    entry::<worktree::CreateWorktree>(),
    entry::<worktree::RemoveWorktree>(),
    entry::<retry::RetryWorker>(),
    entry::<integrate::IntegrateWorker>(),
    entry::<backends::GetBackendStatus>(),
];

/// A tool. The doc comments of its arguments and answer are their descriptions in the schema.
trait Tool {
    const NAME: &'static str;
    /// At most 2,000 bytes; the first sentence alone goes into `src/docs/tools.md`.
    const DESCRIPTION: &'static str;
    const KIND: ToolKind;
    type Arguments: DeserializeOwned + JsonSchema + Send;
    type Answer: Serialize + JsonSchema;

    fn input() -> JsonObject {
        schema::input::<Self::Arguments>()
    }

    fn output() -> JsonObject {
        schema::output::<Self::Answer>()
    }

    /// Returns the background wait with which the call is answered instead, if there is one.
    fn background(_: &Self::Answer) -> Option<&OpenWait> {
        None
    }

    fn run(call: ToolCall, arguments: Self::Arguments) -> impl Future<Output = Result<Self::Answer, ToolError>> + Send;
}

/// The kind of a tool, from which its annotations follow. Claude Code and Codex run only read-only tools in parallel;
/// Codex asks its user about the others, unless they neither destroy nor leave this machine.
enum ToolKind {
    ReadOnly,
    /// Creates something on this machine.
    Creates,
    /// Starts an agent, which may use the network.
    StartsAgent,
    /// Stops, removes or moves something. Repeating it is harmless.
    Destructive,
}

pub(super) struct ToolCall {
    pub(super) orchestrator: Orchestrator,
    pub(super) boss: BossId,
    pub(super) client: Client,
    pub(super) turn: Option<CodexTurn>,
    pub(super) waking: Waking,
    pub(super) wants_progress: bool,
    /// Cancelled when the client cancels the call or the server ends.
    pub(super) stop: CancellationToken,
    pub(super) delivery: AnswerDelivery,
}

impl ToolCall {
    /// Returns whether a wait of this call that would block answers as a task.
    fn can_wait_as_task(&self) -> bool {
        self.waking == Waking::Task && self.orchestrator.settings().wake == Wake::Auto
    }

    /// Returns the turn of the call, if this server can wake its thread after it, or else the reason.
    fn turn_before_wake(&self) -> Result<&CodexTurn, String> {
        if self.orchestrator.settings().wake == Wake::Off {
            return Err(NotWoken::Off.to_string());
        }
        let turn = self.client.turn_before_wake(self.turn.as_ref())?;
        self.orchestrator.can_wake().map_err(|why| why.to_string())?;
        Ok(turn)
    }
}

/// The notifications in the answer of a wait. They count as sent once the answer can no longer be cancelled; otherwise
/// the next wait returns them again.
#[derive(Clone, Default)]
pub(super) struct AnswerDelivery {
    notifications: Arc<Mutex<Option<DeliveryGuard>>>,
}

impl AnswerDelivery {
    fn set(&self, notifications: DeliveryGuard) {
        *self.notifications() = Some(notifications);
    }

    pub(super) fn sent(&self) {
        if let Some(notifications) = self.notifications().take() {
            notifications.sent();
        }
    }

    fn notifications(&self) -> MutexGuard<'_, Option<DeliveryGuard>> {
        self.notifications.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A tool without its types.
pub(super) struct ToolEntry {
    pub(super) name: &'static str,
    pub(super) run: fn(ToolCall, Arguments) -> BoxFuture<'static, Result<ToolAnswer, ToolError>>,
    definition: fn() -> rmcp::model::Tool,
}

/// An answer, and its summary in one line for clients that show their model the value.
pub(super) struct ToolAnswer {
    pub(super) value: Value,
    pub(super) line: String,
    /// The background wait with which the call is answered instead of the value.
    pub(super) background: Option<OpenWait>,
}

pub(super) fn definitions() -> &'static [rmcp::model::Tool] {
    static DEFINITIONS: LazyLock<Vec<rmcp::model::Tool>> =
        LazyLock::new(|| ALL.iter().map(|entry| (entry.definition)()).collect());
    &DEFINITIONS
}

pub(super) fn named_workers(arguments: &Arguments) -> Vec<String> {
    let named = ["worker_id", "worker_ids"].iter().find_map(|key| arguments.get(*key));
    match named {
        Some(Value::String(name)) => vec![name.clone()],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

impl ToolEntry {
    /// Converts the arguments to our names and to the types in the tool's schema.
    pub(super) fn normalize(&self, arguments: Arguments) -> Arguments {
        let definition = definitions().iter().find(|definition| definition.name == self.name);
        let Some(definition) = definition else { return arguments };
        arguments::normalize(arguments, &definition.input_schema)
    }
}

const fn entry<T: Tool + 'static>() -> ToolEntry {
    ToolEntry { name: T::NAME, run: run::<T>, definition: definition::<T> }
}

fn run<T: Tool + 'static>(call: ToolCall, arguments: Arguments) -> BoxFuture<'static, Result<ToolAnswer, ToolError>> {
    async move {
        let answer = T::run(call, arguments::parse(arguments)?).await?;
        let value = serde_json::to_value(&answer).expect("plain structs always serialize");
        let next = value.get("next_step").and_then(Value::as_str).unwrap_or("done");
        let background = T::background(&answer).cloned();
        Ok(ToolAnswer { line: format!("{}: {next}", T::NAME), value, background })
    }
    .boxed()
}

fn definition<T: Tool>() -> rmcp::model::Tool {
    let annotations = match T::KIND {
        ToolKind::ReadOnly => hints(true, false, true, false),
        ToolKind::Creates => hints(false, false, false, false),
        ToolKind::StartsAgent => hints(false, false, false, true),
        ToolKind::Destructive => hints(false, true, true, false),
    };
    let meta = json!({"anthropic/alwaysLoad": true});
    let meta = meta.as_object().cloned().map(MetaObject::from).unwrap_or_default();
    rmcp::model::Tool::new(T::NAME, T::DESCRIPTION, T::input())
        .with_raw_output_schema(T::output().into())
        .with_annotations(annotations)
        .with_meta(meta)
}

fn hints(read_only: bool, destructive: bool, idempotent: bool, open_world: bool) -> ToolAnnotations {
    ToolAnnotations::from_raw(None, Some(read_only), Some(destructive), Some(idempotent), Some(open_world))
}
