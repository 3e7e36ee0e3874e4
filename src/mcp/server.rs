//! The server: one session over stdin and stdout, and the entry point of every tool call.
//!
//! The session begins at once, while the orchestrator starts; only calls wait for it. If the orchestrator cannot
//! start (an invalid setting, a state of a newer version, a worker's own server), the session continues. Every call
//! then tries again and reports the reason, since clients do not show the output of a server that exits.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, CancelTaskParams, ContentBlock, CustomRequest,
    CustomResult, ErrorCode, ErrorData, GetPromptRequestParams, GetPromptResponse, GetTaskParams, GetTaskResult,
    Implementation, ListPromptsResult, ListResourceTemplatesResult, ListResourcesResult, ListToolsResult,
    PaginatedRequestParams, ProgressNotificationParam, ReadResourceRequestParams, ReadResourceResponse,
    ResourceUpdatedNotificationParam, ServerCapabilities, ServerConfig, SubscribeRequestParams, SubscriptionFilter,
    UnsubscribeRequestParams, UpdateTaskParams,
};
use rmcp::service::{RequestContext, ServerInitializeError, SubscriptionContext};
use rmcp::{RoleServer, ServerHandler, ServiceExt};
use serde_json::Value;
use thiserror::Error;
use tokio::time::{Instant, interval_at, timeout};
use tokio_util::sync::CancellationToken;

use super::client::{Client, TurnBegin, Waking};
use super::conversation::Conversations;
use super::error::ToolError;
use super::in_flight::RequestsInFlight;
use super::instructions::INSTRUCTIONS;
use super::resources::Address;
use super::starter::{StartError, Starter};
use super::tools::{self, AnswerDelivery, ToolCall};
use super::transport::Lines;
use super::watch::{self, FileVersions, Subscriptions};
use super::{hint, prompts, resources, tasks};
use crate::mission::id::BossId;
use crate::orchestrator::Orchestrator;

/// The time between two progress notifications of a call.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);
/// The time for pending answers when the input ends or a signal arrives. Claude Code kills the server after 500 ms.
const LAST_ANSWERS_TIME: Duration = Duration::from_millis(100);
/// The time for an orderly shutdown. Everything answered is in the journal, so nothing is lost if it is too short.
const SHUTDOWN_TIME: Duration = Duration::from_millis(120);

#[derive(Debug, Error)]
pub enum ServeError {
    #[error("cannot begin the session")]
    Begin(#[source] Box<ServerInitializeError>),
    #[error("cannot continue the session")]
    Session(#[from] tokio::task::JoinError),
}

/// Serves one client on stdin and stdout until the input ends or `closing` is cancelled. It then returns within 300 ms,
/// and the workers continue. `start` may be slow and runs beside the session; after a failure the next call repeats it.
pub async fn serve(
    start: impl Fn() -> Result<Orchestrator, StartError> + Send + Sync + 'static,
    closing: CancellationToken,
) -> Result<(), ServeError> {
    let starter = Starter::new(start);
    let in_flight = RequestsInFlight::default();
    let handler = Handler {
        starter: starter.clone(),
        in_flight: in_flight.clone(),
        closing: closing.clone(),
        conversations: Conversations::of_this_directory(),
        subscriptions: Subscriptions::default(),
    };
    let (input, output) = rmcp::transport::io::stdio_pipes();
    let session = run_session(handler, Lines::new(input, output, in_flight, closing.clone()));
    tokio::pin!(session);
    let result = tokio::select! {
        result = &mut session => result,
        () = closing.cancelled() => timeout(LAST_ANSWERS_TIME, &mut session).await.unwrap_or(Ok(())),
    };
    if let Some(orchestrator) = starter.started()
        && timeout(SHUTDOWN_TIME, orchestrator.shut_down()).await.is_err()
    {
        tracing::warn!("the shutdown took too long; the next server takes over the rest");
    }
    result
}

async fn run_session<T>(handler: Handler, transport: T) -> Result<(), ServeError>
where
    T: rmcp::transport::Transport<RoleServer> + 'static,
{
    match handler.serve(transport).await {
        Ok(service) => {
            service.waiting().await?;
            Ok(())
        }
        Err(ServerInitializeError::ConnectionClosed(_)) => Ok(()),
        Err(error) => Err(ServeError::Begin(Box::new(error))),
    }
}

struct Handler {
    starter: Starter,
    in_flight: RequestsInFlight,
    closing: CancellationToken,
    conversations: Conversations,
    subscriptions: Subscriptions,
}

impl ServerHandler for Handler {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder().enable_tools().enable_prompts();
        ServerConfig::new(capabilities.enable_resources().enable_resources_subscribe().enable_tasks().build())
            .with_server_info(Implementation::new("orchestrator-boss", env!("CARGO_PKG_VERSION")))
            .with_instructions(INSTRUCTIONS)
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(tools::definitions().to_vec()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let Some(tool) = tools::ALL.iter().find(|tool| tool.name == request.name) else {
            return Err(unknown_tool(&request.name));
        };
        let client = Client::of(&context);
        let result = self.call(tool, request.arguments.unwrap_or_default(), client, &context).await;
        Ok(match result {
            Ok(tools::ToolAnswer { background: Some(wait), .. }) => CallToolResponse::Task(tasks::created(&wait)),
            Ok(answer) => call_result(answer, client).into(),
            Err(error) => {
                tracing::info!(tool = tool.name, %error, "refused");
                CallToolResult::error(vec![ContentBlock::text(error.answer())]).into()
            }
        })
    }

    async fn get_task(
        &self,
        request: GetTaskParams,
        context: RequestContext<RoleServer>,
    ) -> Result<GetTaskResult, ErrorData> {
        let capabilities = context.client_capabilities();
        let forms = capabilities.and_then(|it| it.elicitation).is_some_and(|elicitation| elicitation.form.is_some());
        Ok(tasks::get(&self.starter, &request.task_id, forms).await)
    }

    async fn update_task(&self, request: UpdateTaskParams, _: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        tasks::update(&self.starter, &request.task_id, request.input_responses).await;
        Ok(())
    }

    async fn cancel_task(&self, request: CancelTaskParams, _: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        tasks::cancel(&self.starter, &request.task_id).await;
        Ok(())
    }

    async fn list_prompts(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        Ok(ListPromptsResult::with_all_items(prompts::list()))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        prompts::get(&request.name, request.arguments).map(GetPromptResponse::from)
    }

    /// Does not wait for the orchestrator, since clients ask at their own start.
    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let mut started = None;
        if let Some(orchestrator) = self.starter.started() {
            let boss = self.boss_of(Client::of(&context), &context, &orchestrator).await;
            started = Some((orchestrator, boss));
        }
        Ok(ListResourcesResult::with_all_items(resources::list(started).await))
    }

    async fn list_resource_templates(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        Ok(ListResourceTemplatesResult::with_all_items(resources::templates()))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let started = self.starter.get().await;
        let orchestrator = started.map_err(|error| ErrorData::internal_error(hint::of(&*error), None))?;
        resources::read(&orchestrator, &request.uri).await.map(ReadResourceResponse::from)
    }

    #[allow(deprecated)] // Only the older era has it.
    async fn subscribe(
        &self,
        request: SubscribeRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        let uri = request.uri;
        let (address, _) = Address::parse(&uri).ok_or_else(|| resources::unknown(&uri))?;
        let added = self.subscriptions.add(&uri, &self.closing);
        let added = added.map_err(|()| {
            let why = format!(
                "cannot subscribe to more than {} resources: unsubscribe from others first",
                watch::MAX_SUBSCRIPTIONS
            );
            ErrorData::invalid_params(why, None)
        })?;
        if let Some(stop) = added {
            // Read before the answer, so that no later change is missed.
            let mut versions = watch::current(&self.starter, &address).await;
            let starter = self.starter.clone();
            let notify = async move {
                loop {
                    watch::changed(&starter, &address, &mut versions).await;
                    let note = ResourceUpdatedNotificationParam::new(uri.clone());
                    if context.peer.notify_resource_updated(note).await.is_err() {
                        return;
                    }
                }
            };
            tokio::spawn(async move { stop.run_until_cancelled(notify).await });
        }
        Ok(())
    }

    #[allow(deprecated)] // Only the older era has it.
    async fn unsubscribe(
        &self,
        request: UnsubscribeRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.subscriptions.remove(&request.uri);
        Ok(())
    }

    /// Accepts all addresses of resources, even if nothing exists there yet.
    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        let uris = requested.resource_subscriptions.iter().flatten();
        let ours = uris.filter(|uri| Address::parse(uri).is_some()).take(watch::MAX_SUBSCRIPTIONS);
        Some(SubscriptionFilter::builder().resource_subscriptions(ours.cloned()).build())
    }

    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        let uris = context.accepted().resource_subscriptions.iter().flatten();
        let notifications = uris.filter_map(|uri| Some((uri, Address::parse(uri)?.0))).map(|(uri, address)| {
            let sink = context.sink();
            async move {
                // The subscription was acknowledged before the first version was read, so that is reported too.
                let mut versions = FileVersions::default();
                loop {
                    watch::changed(&self.starter, &address, &mut versions).await;
                    if sink.notify_resource_updated(uri.clone()).await.is_err() {
                        return;
                    }
                }
            }
        });
        let notify = async {
            join_all(notifications).await;
            // Without resources it stays open until the client ends it.
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = notify => {}
            () = context.cancelled() => {}
            () = self.closing.cancelled() => {}
        }
        Ok(())
    }

    /// Answers requests that the library cannot read, although it may know their method.
    async fn on_custom_request(
        &self,
        request: CustomRequest,
        _: RequestContext<RoleServer>,
    ) -> Result<CustomResult, ErrorData> {
        Err(match request.method.as_str() {
            "tools/call" => ErrorData::invalid_params(malformed_call(request.params.as_ref()), None),
            method if method.starts_with("tasks/") => {
                let why = format!("malformed {method}: params needs taskId, a string, and the fields of its method");
                ErrorData::invalid_params(why, None)
            }
            method => ErrorData::new(ErrorCode::METHOD_NOT_FOUND, format!("unknown method {method:?}"), None),
        })
    }
}

impl Handler {
    async fn boss_of(
        &self,
        client: Client,
        context: &RequestContext<RoleServer>,
        orchestrator: &Orchestrator,
    ) -> BossId {
        if let Some(boss) = client.named_boss(&context.meta) {
            return boss;
        }
        match client.tool_use_id(&context.meta) {
            Some(call) => self.conversations.boss(call, orchestrator).await,
            None => orchestrator.default_boss().clone(),
        }
    }

    /// Runs a call for its boss, reports its progress, and always returns an answer.
    async fn call(
        &self,
        tool: &tools::ToolEntry,
        arguments: tools::Arguments,
        client: Client,
        context: &RequestContext<RoleServer>,
    ) -> Result<tools::ToolAnswer, ToolError> {
        let orchestrator = self.starter.get().await?;
        let boss = self.boss_of(client, context, &orchestrator).await;
        let turn = client.codex_turn(&context.meta);
        match &turn {
            Some(turn) => {
                let woken_turn = Some(turn.id.as_str()).filter(|_| turn.began == TurnBegin::Queued);
                orchestrator.arrived_from(&boss, &turn.thread, woken_turn);
            }
            None => orchestrator.arrived(&boss),
        }

        let stop = context.ct.child_token();
        let arguments = tool.normalize(arguments);
        let watched = tools::named_workers(&arguments);
        let call = ToolCall {
            orchestrator: orchestrator.clone(),
            boss: boss.clone(),
            client,
            turn,
            waking: Waking::of(&context.meta),
            wants_progress: context.meta.get_progress_token().is_some(),
            stop: stop.clone(),
            delivery: AnswerDelivery::default(),
        };
        let delivery = call.delivery.clone();
        let result = tokio::select! {
            result = catch_panic(tool.name, (tool.run)(call, arguments)) => result,
            never = report_progress(context, &orchestrator, &boss, &watched) => match never {},
            never = stop_when(&self.closing, &stop) => match never {},
        };
        // A cancelled id may belong to another request by now, so the token is checked too.
        if self.in_flight.answer(&context.id) && !context.ct.is_cancelled() {
            delivery.sent();
        }
        result
    }
}

/// Turns a panic into an error, since the client would otherwise wait forever.
async fn catch_panic<T>(tool: &'static str, run: impl Future<Output = Result<T, ToolError>>) -> Result<T, ToolError> {
    AssertUnwindSafe(run).catch_unwind().await.unwrap_or(Err(ToolError::Panicked { tool }))
}

/// Reports the activity of the workers, so that the client does not abort the call.
async fn report_progress(
    context: &RequestContext<RoleServer>,
    orchestrator: &Orchestrator,
    boss: &BossId,
    watched: &[String],
) -> Infallible {
    let Some(token) = context.meta.get_progress_token() else { return std::future::pending().await };
    let start = Instant::now();
    let mut ticks = interval_at(start + PROGRESS_INTERVAL, PROGRESS_INTERVAL);
    loop {
        ticks.tick().await;
        if context.ct.is_cancelled() {
            // A cancelled request must not be mentioned again.
            return std::future::pending().await;
        }
        let note = ProgressNotificationParam::new(token.clone(), start.elapsed().as_secs() as f64);
        let note = match orchestrator.progress(boss, watched).await {
            Ok(message) => note.with_message(message),
            Err(_) => note,
        };
        if let Err(error) = context.peer.notify_progress(note).await {
            tracing::debug!(%error, "cannot send a progress notification");
        }
    }
}

async fn stop_when(closing: &CancellationToken, stop: &CancellationToken) -> Infallible {
    closing.cancelled().await;
    stop.cancel();
    std::future::pending().await
}

/// Builds a result. Clients show their model the structured content or the text, so the text repeats the essentials.
fn call_result(answer: tools::ToolAnswer, client: Client) -> CallToolResult {
    let text = if client.shows_structured() { answer.line } else { answer.value.to_string() };
    let mut result = CallToolResult::structured(answer.value);
    result.content = vec![ContentBlock::text(text)];
    result
}

fn unknown_tool(name: &str) -> ErrorData {
    let known: Vec<&str> = tools::ALL.iter().map(|tool| tool.name).collect();
    let name: String = name.chars().take(80).collect();
    ErrorData::invalid_params(format!("unknown tool {name:?}; the tools are {}", known.join(", ")), None)
}

fn malformed_call(params: Option<&Value>) -> String {
    let wrong = match params {
        None => "it has no params",
        Some(Value::Object(params)) => match (params.get("name"), params.get("arguments")) {
            (None, _) => "params has no name",
            (Some(name), _) if !name.is_string() => "params.name is not a string",
            (_, Some(arguments)) if !arguments.is_object() => "params.arguments is not an object",
            _ => "its params are malformed",
        },
        Some(_) => "params is not an object",
    };
    format!(
        "malformed tools/call: {wrong}; params must be {{\"name\": <tool>, \"arguments\": {{…}}}} with arguments an object, not a string"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[tokio::test]
    async fn panic_becomes_an_error_with_a_next_step() {
        let run = async { panic!("on purpose") };
        let error = catch_panic::<()>("cancel_worker", run).await.unwrap_err();
        let answer = error.answer();
        assert!(answer.contains("cancel_worker failed") && answer.contains("list_worker_missions"), "{answer}");
    }

    #[test]
    fn malformed_call_error_names_the_cause() {
        let cases = [
            (None, "it has no params"),
            (Some(json!([])), "params is not an object"),
            (Some(json!({"arguments": {}})), "params has no name"),
            (Some(json!({"name": 7})), "params.name is not a string"),
            (Some(json!({"name": "x", "arguments": "{}"})), "params.arguments is not an object"),
        ];
        for (params, wrong) in cases {
            let text = malformed_call(params.as_ref());
            assert!(text.contains(wrong), "{text}");
        }
    }

    #[test]
    fn result_fits_what_the_client_shows() {
        let answer =
            || tools::ToolAnswer { value: json!({"status": "idle"}), line: "wait: done".to_owned(), background: None };
        for (client, text) in [(Client::ClaudeCode, "wait: done"), (Client::Gemini, r#"{"status":"idle"}"#)] {
            let result = call_result(answer(), client);
            assert_eq!(result.structured_content, Some(json!({"status": "idle"})));
            assert_eq!(result.content, vec![ContentBlock::text(text)]);
        }
    }
}
