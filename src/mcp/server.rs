//! The server: one session over stdin and stdout, and the one place that every tool call goes through.
//!
//! The session is answered at once, while the orchestrator still starts; only tool calls wait for it. The orchestrator
//! may fail to start (an invalid setting, a state of a newer version, a worker's own server). The session then
//! continues, and every call tries again and reports the reason. A server that exited could not, since a client shows
//! its user nothing of it.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, CustomRequest, CustomResult, ErrorCode,
    ErrorData, GetPromptRequestParams, GetPromptResponse, Implementation, ListPromptsResult,
    ListResourceTemplatesResult, ListResourcesResult, ListToolsResult, PaginatedRequestParams,
    ProgressNotificationParam, ReadResourceRequestParams, ReadResourceResponse, ResourceUpdatedNotificationParam,
    ServerCapabilities, ServerConfig, SubscribeRequestParams, SubscriptionFilter, UnsubscribeRequestParams,
};
use rmcp::service::{RequestContext, ServerInitializeError, SubscriptionContext};
use rmcp::{RoleServer, ServerHandler, ServiceExt};
use serde_json::Value;
use thiserror::Error;
use tokio::time::{Instant, interval_at, timeout};
use tokio_util::sync::CancellationToken;

use super::client::Client;
use super::conversation::Conversations;
use super::error::ToolError;
use super::in_flight::InFlight;
use super::instructions::INSTRUCTIONS;
use super::lead::Lead;
use super::resources::Address;
use super::tools::{self, Call, Handover};
use super::transport::Lines;
use super::watch::{self, Seen, Subscriptions};
use super::{prompts, resources};
use crate::mission::id::BossId;
use crate::orchestrator::Orchestrator;

/// Between two notes on the progress of a call.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// For answers that are on their way when the input ends or a signal comes. Claude Code insists after 500 ms.
const LAST_ANSWERS: Duration = Duration::from_millis(100);
/// For letting go in order. What was answered is in the journal already, so nothing is lost when it takes longer.
const LETTING_GO: Duration = Duration::from_millis(120);

#[derive(Debug, Error)]
pub enum ServeError {
    #[error("the session could not begin")]
    Begin(#[source] Box<ServerInitializeError>),
    #[error("the session broke")]
    Session(#[from] tokio::task::JoinError),
}

/// Serves one client on stdin and stdout until the input ends or `closing` is cancelled. It then returns within 300 ms,
/// and the workers continue. `start` may be slow and runs beside the session; after a failure the next call repeats it.
pub async fn serve(
    start: impl Fn() -> Result<Orchestrator, String> + Send + Sync + 'static,
    closing: CancellationToken,
) -> Result<(), ServeError> {
    let lead = Lead::start(start);
    let in_flight = InFlight::default();
    let boss = Boss {
        lead: lead.clone(),
        in_flight: in_flight.clone(),
        closing: closing.clone(),
        conversations: Conversations::of_this_directory(),
        subscriptions: Subscriptions::default(),
    };
    let (input, output) = rmcp::transport::io::stdio_pipes();
    let session = session(boss, Lines::new(input, output, in_flight, closing.clone()));
    tokio::pin!(session);
    let result = tokio::select! {
        result = &mut session => result,
        () = closing.cancelled() => timeout(LAST_ANSWERS, &mut session).await.unwrap_or(Ok(())),
    };
    if let Some(orchestrator) = lead.now()
        && timeout(LETTING_GO, orchestrator.shut_down()).await.is_err()
    {
        tracing::warn!("ending before everything was let go of; the next server takes it over");
    }
    result
}

async fn session<T>(boss: Boss, transport: T) -> Result<(), ServeError>
where
    T: rmcp::transport::Transport<RoleServer> + 'static,
{
    match boss.serve(transport).await {
        Ok(service) => {
            service.waiting().await?;
            Ok(())
        }
        Err(ServerInitializeError::ConnectionClosed(_)) => Ok(()),
        Err(error) => Err(ServeError::Begin(Box::new(error))),
    }
}

struct Boss {
    lead: Lead,
    in_flight: InFlight,
    closing: CancellationToken,
    conversations: Conversations,
    subscriptions: Subscriptions,
}

impl ServerHandler for Boss {
    fn get_info(&self) -> ServerConfig {
        let offers = ServerCapabilities::builder().enable_tools().enable_prompts();
        ServerConfig::new(offers.enable_resources().enable_resources_subscribe().build())
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
            Ok(answer) => success(answer, client).into(),
            Err(error) => {
                tracing::info!(tool = tool.name, %error, "refused");
                CallToolResult::error(vec![ContentBlock::text(error.answer())]).into()
            }
        })
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

    /// Clients ask at their start, so nothing is waited for.
    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let lead = match self.lead.now() {
            Some(orchestrator) => {
                let boss = self.whose(Client::of(&context), &context, &orchestrator).await;
                Some((orchestrator, boss))
            }
            None => None,
        };
        Ok(ListResourcesResult::with_all_items(resources::list(lead).await))
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
        let lead = self.lead.get().await;
        let orchestrator = lead.map_err(|reason| ErrorData::internal_error(reason.to_string(), None))?;
        resources::read(&orchestrator, &request.uri).await.map(ReadResourceResponse::from)
    }

    #[allow(deprecated)] // The older era has nothing else.
    async fn subscribe(
        &self,
        request: SubscribeRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        let uri = request.uri;
        let (address, _) = Address::parse(&uri).ok_or_else(|| resources::unknown(&uri))?;
        let begun = self.subscriptions.add(&uri, &self.closing);
        let begun = begun.map_err(|()| {
            let why = format!("at most {} resources can be subscribed to: unsubscribe from others first", watch::MOST);
            ErrorData::invalid_params(why, None)
        })?;
        if let Some(stop) = begun {
            // Before the answer, so that no change after it is missed.
            let mut seen = watch::now(&self.lead, &address).await;
            let lead = self.lead.clone();
            let tell = async move {
                loop {
                    watch::changed(&lead, &address, &mut seen).await;
                    let note = ResourceUpdatedNotificationParam::new(uri.clone());
                    if context.peer.notify_resource_updated(note).await.is_err() {
                        return;
                    }
                }
            };
            tokio::spawn(async move { stop.run_until_cancelled(tell).await });
        }
        Ok(())
    }

    #[allow(deprecated)] // The older era has nothing else.
    async fn unsubscribe(
        &self,
        request: UnsubscribeRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.subscriptions.remove(&request.uri);
        Ok(())
    }

    /// Addresses of ours, whether or not anything lies there yet.
    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        let uris = requested.resource_subscriptions.iter().flatten();
        let ours = uris.filter(|uri| Address::parse(uri).is_some()).take(watch::MOST);
        Some(SubscriptionFilter::builder().resource_subscriptions(ours.cloned()).build())
    }

    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        let uris = context.accepted().resource_subscriptions.iter().flatten();
        let told = uris.filter_map(|uri| Some((uri, Address::parse(uri)?.0))).map(|(uri, address)| {
            let sink = context.sink();
            async move {
                // It was acknowledged before anything could be looked at, so the first look is told of.
                let mut seen = Seen::default();
                loop {
                    watch::changed(&self.lead, &address, &mut seen).await;
                    if sink.notify_resource_updated(uri.clone()).await.is_err() {
                        return;
                    }
                }
            }
        });
        let told = async {
            join_all(told).await;
            // With nothing to tell it stays open, as the client asked.
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = told => {}
            () = context.cancelled() => {}
            () = self.closing.cancelled() => {}
        }
        Ok(())
    }

    /// Where requests end up that have a known method and a shape that the library cannot read.
    async fn on_custom_request(
        &self,
        request: CustomRequest,
        _: RequestContext<RoleServer>,
    ) -> Result<CustomResult, ErrorData> {
        Err(match request.method.as_str() {
            "tools/call" => ErrorData::invalid_params(malformed_call(request.params.as_ref()), None),
            method => ErrorData::new(ErrorCode::METHOD_NOT_FOUND, format!("unknown method {method:?}"), None),
        })
    }
}

impl Boss {
    async fn whose(&self, client: Client, context: &RequestContext<RoleServer>, orchestrator: &Orchestrator) -> BossId {
        if let Some(boss) = client.boss(&context.meta) {
            return boss;
        }
        match client.call(&context.meta) {
            Some(call) => self.conversations.boss(call, orchestrator).await,
            None => orchestrator.default_boss().clone(),
        }
    }

    /// The choke point: whose call it is, signs of life while it runs, and no way out but an answer.
    async fn call(
        &self,
        tool: &tools::Entry,
        arguments: tools::Arguments,
        client: Client,
        context: &RequestContext<RoleServer>,
    ) -> Result<tools::Answer, ToolError> {
        let lead = self.lead.get().await;
        let orchestrator = lead.map_err(|reason| ToolError::CannotLead { reason: reason.to_string() })?;
        let boss = self.whose(client, context, &orchestrator).await;
        orchestrator.arrived(&boss);

        let stop = context.ct.child_token();
        let arguments = tool.understood(arguments);
        let watched = tools::named_workers(&arguments);
        let call = Call {
            orchestrator: orchestrator.clone(),
            boss: boss.clone(),
            client,
            hears_progress: context.meta.get_progress_token().is_some(),
            stop: stop.clone(),
            handover: Handover::default(),
        };
        let handover = call.handover.clone();
        let result = tokio::select! {
            result = always_answered(tool.name, (tool.run)(call, arguments)) => result,
            never = heartbeat(context, &orchestrator, &boss, &watched) => match never {},
            never = stop_when(&self.closing, &stop) => match never {},
        };
        // A cancellation frees the id for another request, and is known to the token by then.
        if self.in_flight.answer(&context.id) && !context.ct.is_cancelled() {
            handover.sent();
        }
        result
    }
}

/// A call that panics would never be answered, and its client would hang.
async fn always_answered<T>(
    tool: &'static str,
    run: impl Future<Output = Result<T, ToolError>>,
) -> Result<T, ToolError> {
    AssertUnwindSafe(run).catch_unwind().await.unwrap_or(Err(ToolError::Panicked { tool }))
}

/// Says who does what, so that the client knows that the call lives, and its user what happens meanwhile.
async fn heartbeat(
    context: &RequestContext<RoleServer>,
    orchestrator: &Orchestrator,
    boss: &BossId,
    watched: &[String],
) -> Infallible {
    let Some(token) = context.meta.get_progress_token() else { return std::future::pending().await };
    let start = Instant::now();
    let mut beat = interval_at(start + HEARTBEAT, HEARTBEAT);
    loop {
        beat.tick().await;
        if context.ct.is_cancelled() {
            // After a cancellation nothing more may be said about this request.
            return std::future::pending().await;
        }
        let note = ProgressNotificationParam::new(token.clone(), start.elapsed().as_secs() as f64);
        let note = match orchestrator.progress(boss, watched).await {
            Ok(message) => note.with_message(message),
            Err(_) => note,
        };
        if let Err(error) = context.peer.notify_progress(note).await {
            tracing::debug!(%error, "could not tell of progress");
        }
    }
}

async fn stop_when(closing: &CancellationToken, stop: &CancellationToken) -> Infallible {
    closing.cancelled().await;
    stop.cancel();
    std::future::pending().await
}

/// Clients show their model either the structured content or the text, so both say the same where it matters.
fn success(answer: tools::Answer, client: Client) -> CallToolResult {
    let text = match client.shows_structured() {
        true => answer.line,
        false => answer.value.to_string(),
    };
    let mut result = CallToolResult::structured(answer.value);
    result.content = vec![ContentBlock::text(text)];
    result
}

fn unknown_tool(name: &str) -> ErrorData {
    let known: Vec<&str> = tools::ALL.iter().map(|tool| tool.name).collect();
    let name: String = name.chars().take(80).collect();
    ErrorData::invalid_params(format!("there is no tool {name:?}; there are {}", known.join(", ")), None)
}

fn malformed_call(params: Option<&Value>) -> String {
    let wrong = match params {
        None => "it has no params",
        Some(Value::Object(params)) => match (params.get("name"), params.get("arguments")) {
            (None, _) => "params has no name",
            (Some(name), _) if !name.is_string() => "params.name is no string",
            (_, Some(arguments)) if !arguments.is_object() => "params.arguments is no object",
            _ => "its params are malformed",
        },
        Some(_) => "params is no object",
    };
    format!(
        "tools/call was sent wrongly: {wrong}; params must be {{\"name\": <tool>, \"arguments\": {{…}}}} with arguments an object, not a string"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[tokio::test]
    async fn a_panic_becomes_an_answer_that_says_what_to_do() {
        let run = async { panic!("on purpose") };
        let error = always_answered::<()>("cancel_worker", run).await.unwrap_err();
        let answer = error.answer();
        assert!(answer.contains("cancel_worker failed") && answer.contains("list_worker_missions"), "{answer}");
    }

    #[test]
    fn a_malformed_call_is_told_what_is_wrong_with_it() {
        let cases = [
            (None, "it has no params"),
            (Some(json!([])), "params is no object"),
            (Some(json!({"arguments": {}})), "params has no name"),
            (Some(json!({"name": 7})), "params.name is no string"),
            (Some(json!({"name": "x", "arguments": "{}"})), "params.arguments is no object"),
        ];
        for (params, wrong) in cases {
            let text = malformed_call(params.as_ref());
            assert!(text.contains(wrong), "{text}");
        }
    }

    #[test]
    fn each_client_gets_what_it_shows() {
        let answer = || tools::Answer { value: json!({"status": "idle"}), line: "wait: done".to_owned() };
        for (client, text) in [(Client::ClaudeCode, "wait: done"), (Client::Gemini, r#"{"status":"idle"}"#)] {
            let result = success(answer(), client);
            assert_eq!(result.structured_content, Some(json!({"status": "idle"})));
            assert_eq!(result.content, vec![ContentBlock::text(text)]);
        }
    }
}
