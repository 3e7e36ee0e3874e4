//! The tools, one file a verb: each parses, calls the orchestrator, converts. The list of all of them is [`ALL`].

mod backends;
mod cancel;
mod create;
mod integrate;
mod list;
mod message;
mod mission;
mod retry;
mod status;
mod wait;
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

use super::client::Client;
use super::error::ToolError;
use super::{arguments, schema};
use crate::mission::id::BossId;
use crate::orchestrator::{Handing, Orchestrator};

pub(super) type Arguments = JsonObject;

/// In the order of the contract, which is the order in which a boss needs them.
pub(super) const ALL: [Entry; 14] = [
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

/// One tool. The doc comments of its arguments and answer are what the model reads about them.
trait Tool {
    const NAME: &'static str;
    /// At most 2,000 bytes; the first sentence alone goes into `src/docs/tools.md`.
    const DESCRIPTION: &'static str;
    const NATURE: Nature;
    type Arguments: DeserializeOwned + JsonSchema + Send;
    type Answer: Serialize + JsonSchema;

    /// The schema of the answer.
    fn output() -> JsonObject {
        schema::output::<Self::Answer>()
    }

    fn run(call: Call, arguments: Self::Arguments) -> impl Future<Output = Result<Self::Answer, ToolError>> + Send;
}

/// What a client may know of a tool before it lets its model call it. Claude Code and Codex run only those that look
/// beside others; Codex asks its user about the rest, unless they neither destroy nor leave this machine.
enum Nature {
    /// Changes nothing.
    Looks,
    /// Makes something, here.
    Makes,
    /// Sets an agent to work, which talks to its model and may use the network.
    SetsToWork,
    /// Ends something, takes it away or moves it, and may be asked twice.
    Ends,
}

/// Who calls, and how.
pub(super) struct Call {
    pub(super) orchestrator: Orchestrator,
    pub(super) boss: BossId,
    pub(super) client: Client,
    pub(super) hears_progress: bool,
    /// Cancelled when the client takes the call back or the server ends.
    pub(super) stop: CancellationToken,
    pub(super) handover: Handover,
}

/// News that a wait took to the boss: given only once its answer is on the way, else kept for the next wait.
#[derive(Clone, Default)]
pub(super) struct Handover {
    news: Arc<Mutex<Option<Handing>>>,
}

impl Handover {
    fn hold(&self, news: Handing) {
        *self.news() = Some(news);
    }

    /// The answer of this call can no longer be taken back.
    pub(super) fn sent(&self) {
        if let Some(news) = self.news().take() {
            news.sent();
        }
    }

    fn news(&self) -> MutexGuard<'_, Option<Handing>> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A tool as the server sees it.
pub(super) struct Entry {
    pub(super) name: &'static str,
    pub(super) run: fn(Call, Arguments) -> BoxFuture<'static, Result<Answer, ToolError>>,
    definition: fn() -> rmcp::model::Tool,
}

/// The answer, and one line of it for clients that show their model the value.
pub(super) struct Answer {
    pub(super) value: Value,
    pub(super) line: String,
}

pub(super) fn definitions() -> &'static [rmcp::model::Tool] {
    static DEFINITIONS: LazyLock<Vec<rmcp::model::Tool>> =
        LazyLock::new(|| ALL.iter().map(|entry| (entry.definition)()).collect());
    &DEFINITIONS
}

/// Returns the workers that a call names.
pub(super) fn named_workers(arguments: &Arguments) -> Vec<String> {
    let named = ["worker_id", "worker_ids"].iter().find_map(|key| arguments.get(*key));
    match named {
        Some(Value::String(name)) => vec![name.clone()],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

impl Entry {
    /// Converts the arguments to our names and to the types in the tool's schema.
    pub(super) fn understood(&self, arguments: Arguments) -> Arguments {
        let definition = definitions().iter().find(|definition| definition.name == self.name);
        match definition {
            Some(definition) => arguments::understood(arguments, &definition.input_schema),
            None => arguments,
        }
    }
}

const fn entry<T: Tool + 'static>() -> Entry {
    Entry { name: T::NAME, run: run::<T>, definition: definition::<T> }
}

fn run<T: Tool + 'static>(call: Call, arguments: Arguments) -> BoxFuture<'static, Result<Answer, ToolError>> {
    async move {
        let answer = T::run(call, arguments::parse(arguments)?).await?;
        // Only a map with keys that are no strings could fail, and the answers have none.
        let value = serde_json::to_value(&answer).expect("answers are plain structs");
        let next = value.get("next_step").and_then(Value::as_str).unwrap_or("done");
        Ok(Answer { line: format!("{}: {next}", T::NAME), value })
    }
    .boxed()
}

fn definition<T: Tool>() -> rmcp::model::Tool {
    let annotations = match T::NATURE {
        Nature::Looks => hints(true, false, true, false),
        Nature::Makes => hints(false, false, false, false),
        Nature::SetsToWork => hints(false, false, false, true),
        Nature::Ends => hints(false, true, true, false),
    };
    let meta = json!({"anthropic/alwaysLoad": true});
    let meta = meta.as_object().cloned().map(MetaObject::from).unwrap_or_default();
    rmcp::model::Tool::new(T::NAME, T::DESCRIPTION, schema::input::<T::Arguments>())
        .with_raw_output_schema(T::output().into())
        .with_annotations(annotations)
        .with_meta(meta)
}

fn hints(read_only: bool, destructive: bool, idempotent: bool, open_world: bool) -> ToolAnnotations {
    ToolAnnotations::from_raw(None, Some(read_only), Some(destructive), Some(idempotent), Some(open_world))
}
