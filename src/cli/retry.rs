//! `retry`: the next attempt of a worker that has settled.

use std::io::Read;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::out::{self, End};
use super::places::Places;
use super::visit;
use crate::mission::id::BackendName;
use crate::orchestrator::RetryRequest;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orchestrator-boss retry w-3
  orchestrator-boss retry w-3 --feedback \"the tests in tests/api still fail\"
  orchestrator-boss retry w-3 --backend claudecode --fresh
  orchestrator-boss retry w-3 --prompt - < task.md

The attempt goes on when this command has ended. A server of its boss leads
it if one lives; else this command starts it, and the next server follows it.

Exit codes:
  0    it runs, or it is queued; the line says what it waits for
  1    it was refused, or could not be started
  2    wrong usage, or no such worker
  130  Ctrl-C: it may begin all the same; `orchestrator-boss status` says")]
pub(super) struct RetryArgs {
    /// A worker that has settled, such as w-3
    worker: String,
    /// Another agent CLI: codex, claudecode, gemini, opencode, or your own
    #[arg(long, value_name = "NAME")]
    backend: Option<String>,
    /// A model of that backend
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// low, medium or high, and what the backend adds
    #[arg(long, value_name = "LEVEL")]
    effort: Option<String>,
    /// A new prompt in place of its own; - reads it from stdin
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// What was wrong and what to do differently; - reads it from stdin
    #[arg(long, value_name = "TEXT")]
    feedback: Option<String>,
    /// In a new session, even where the old one could go on
    #[arg(long)]
    fresh: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Retried {
    worker_id: String,
    status: &'static str,
    attempt: u32,
    backend: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    waits_for: Option<String>,
}

pub(super) fn run(args: &RetryArgs, places: &Places) -> ExitCode {
    let request = match request(args) {
        Ok(request) => request,
        Err(end) => return out::end(Err(end)),
    };
    out::run(async {
        let visit = visit::visit_for(places, std::slice::from_ref(&args.worker)).await?;
        let doing = || format!("starting {}", args.worker);
        let retry = out::with_progress(doing, visit.retry(&args.worker, request));
        let begun = out::unless_interrupted(retry).await;
        visit.leave().await;
        let begun = begun??;
        let worker = &begun.view.worker;
        let queued = begun.waits_for.is_some();
        let retried = Retried {
            worker_id: worker.id.to_string(),
            status: worker.status.as_str(),
            attempt: worker.attempt + u32::from(queued),
            backend: worker.next.backend.to_string(),
            waits_for: begun.waits_for,
        };
        let _ = match args.json {
            true => out::json(&retried),
            false => out::line(&out::harmless(&retried.line())),
        };
        let failed = worker.status.is_settled() && worker.last().is_some_and(|last| last.failure.is_some());
        Ok(if failed { ExitCode::from(out::FAILED) } else { ExitCode::SUCCESS })
    })
}

fn request(args: &RetryArgs) -> Result<RetryRequest, End> {
    if args.prompt.as_deref() == Some("-") && args.feedback.as_deref() == Some("-") {
        return Err(End::Usage("only one of --prompt and --feedback can be read from stdin".to_owned()));
    }
    Ok(RetryRequest {
        backend: args.backend.as_deref().map(BackendName::from),
        model: args.model.clone(),
        effort: args.effort.clone(),
        prompt: text(args.prompt.as_deref(), "--prompt")?,
        feedback: text(args.feedback.as_deref(), "--feedback")?,
        fresh: args.fresh,
    })
}

/// As large as a boss may make it.
const MOST: u64 = 1024 * 1024;

fn text(given: Option<&str>, option: &str) -> Result<Option<String>, End> {
    let text = match given {
        Some("-") => {
            let mut text = String::new();
            let read = std::io::stdin().take(MOST + 1).read_to_string(&mut text);
            read.map_err(|error| End::Failed(format!("could not read {option} from stdin: {error}")))?;
            text
        }
        Some(text) => text.to_owned(),
        None => return Ok(None),
    };
    match text.trim().is_empty() {
        true => Err(End::Usage(format!("{option} is empty: leave it out, or say something"))),
        false if text.len() as u64 > MOST => Err(End::Usage(format!("{option} may have 1 MiB at most"))),
        false => Ok(Some(text)),
    }
}

impl Retried {
    fn line(&self) -> String {
        let Self { worker_id, status, attempt, backend, waits_for } = self;
        match waits_for {
            Some(what) => format!("{worker_id}: queued (attempt {attempt}, {backend}), waits for {what}"),
            None => format!("{worker_id}: {status} (attempt {attempt}, {backend})"),
        }
    }
}
