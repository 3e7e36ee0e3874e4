//! `retry`: starts the next attempt of a settled worker.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::error::{self, CliError};
use super::one_shot::{self, OneShotClient};
use super::output;
use super::places::Places;
use super::sanitize;
use super::text_argument;
use crate::mission::id::BackendName;
use crate::mission::spec::RunOn;
use crate::orchestrator::RetryRequest;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orchestrator-boss retry w-3
  orchestrator-boss retry w-3 --feedback \"the tests in tests/api still fail\"
  orchestrator-boss retry w-3 --backend claudecode --fresh
  orchestrator-boss retry w-3 --run-on cluster
  orchestrator-boss retry w-3 --prompt - < task.md

The attempt keeps running after the command exits. A running server of its boss
manages it; otherwise this command starts it and the next server takes over.

Exit codes:
  0    the attempt runs, or is queued; the output names the reason
  1    refused, or the start failed
  2    wrong usage, or unknown worker
  130  Ctrl-C: it may start anyway; see `orchestrator-boss status`")]
pub(super) struct RetryArgs {
    /// Finished worker, such as w-3
    worker: String,
    /// Use another agent CLI: codex, claudecode, gemini, opencode, an ACP agent such as copilot, or your own
    #[arg(long, value_name = "NAME")]
    backend: Option<String>,
    /// Use this model of the backend
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Reasoning effort: low, medium, high, or a level of the backend
    #[arg(long, value_name = "LEVEL")]
    effort: Option<String>,
    /// Use a new prompt; - reads it from stdin
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// Add feedback on the last attempt; - reads it from stdin
    #[arg(long, value_name = "TEXT")]
    feedback: Option<String>,
    /// Run it on this launcher of your settings, or on local [default: as before]
    #[arg(long, value_name = "NAME")]
    run_on: Option<String>,
    /// Start a new session even if the old one can be resumed
    #[arg(long)]
    fresh: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// The state of a retried worker.
#[derive(Debug, Serialize)]
pub(super) struct RetrySummary {
    worker_id: String,
    status: &'static str,
    attempt: u32,
    backend: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    waits_for: Option<String>,
    /// True if the attempt ended at once, with a failure.
    #[serde(skip)]
    pub failed: bool,
}

pub(super) fn run(args: &RetryArgs, places: &Places) -> ExitCode {
    let request = match request(args) {
        Ok(request) => request,
        Err(end) => return output::end(Err(end)),
    };
    output::run(async {
        let client = one_shot::open_for(places, std::slice::from_ref(&args.worker)).await?;
        let doing = || format!("starting {}", args.worker);
        let started = output::with_progress(doing, retry(&client, &args.worker, request));
        let started = output::unless_interrupted(started).await;
        client.close().await;
        let retried = started??;
        let _ = if args.json { output::json(&retried) } else { output::line(&sanitize::text(&retried.line())) };
        Ok(if retried.failed { ExitCode::from(error::FAILED) } else { ExitCode::SUCCESS })
    })
}

/// Starts the next attempt. Returns when it runs, or when the reason for its waiting is known.
pub(super) async fn retry(
    client: &OneShotClient,
    worker: &str,
    request: RetryRequest,
) -> Result<RetrySummary, CliError> {
    let started = client.retry(worker, request).await?;
    let worker = &started.view.worker;
    Ok(RetrySummary {
        worker_id: worker.id.to_string(),
        status: worker.status.as_str(),
        attempt: worker.attempt + u32::from(started.waits_for.is_some()),
        backend: worker.next.backend.to_string(),
        failed: worker.status.is_settled() && worker.last().is_some_and(|last| last.failure.is_some()),
        waits_for: started.waits_for,
    })
}

fn request(args: &RetryArgs) -> Result<RetryRequest, CliError> {
    if args.prompt.as_deref() == Some("-") && args.feedback.as_deref() == Some("-") {
        return Err(CliError::Usage("only one of --prompt and --feedback can be read from stdin".to_owned()));
    }
    let text = |given: &Option<String>, option| given.as_deref().map(|given| text_argument::read(given, option));
    Ok(RetryRequest {
        backend: args.backend.as_deref().map(BackendName::from),
        model: args.model.clone(),
        effort: args.effort.clone(),
        prompt: text(&args.prompt, "--prompt").transpose()?,
        feedback: text(&args.feedback, "--feedback").transpose()?,
        run_on: args.run_on.clone().map(RunOn::named),
        fresh: args.fresh,
    })
}

impl RetrySummary {
    /// Describes the worker in one line.
    pub fn line(&self) -> String {
        let Self { worker_id, status, attempt, backend, waits_for, .. } = self;
        match waits_for {
            Some(what) => format!("{worker_id}: queued (attempt {attempt}, {backend}), waiting for {what}"),
            None => format!("{worker_id}: {status} (attempt {attempt}, {backend})"),
        }
    }
}
