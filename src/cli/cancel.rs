//! `cancel`: cancels workers, and checks that none of their processes is left.

use std::process::ExitCode;

use clap::Args;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde::Serialize;
use thiserror::Error;

use super::error::{self, CliError};
use super::one_shot::{self, OneShotClient};
use super::output;
use super::places::Places;
use super::sanitize;
use crate::mission::message::describe_undelivered;
use crate::mission::outcome::Containment;
use crate::orchestrator::{CancelAnswer, Scope};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orchestrator-boss cancel w-3
  orchestrator-boss cancel w-3 w-4 --reason \"the plan has changed\"
  orchestrator-boss cancel --all

Exit codes:
  0    all have ended, and no process is left
  1    some could not be cancelled; the output names them
  2    wrong usage, or unknown worker
  130  Ctrl-C: the cancellation continues")]
pub(super) struct CancelArgs {
    /// Workers, such as w-3
    #[arg(required_unless_present = "all", value_name = "WORKER")]
    workers: Vec<String>,
    /// Cancel all open workers of all bosses here
    #[arg(long, conflicts_with = "workers")]
    all: bool,
    /// Reason, in one line; recorded in the outcome
    #[arg(long, value_name = "TEXT", value_parser = one_line)]
    reason: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// A reason that cannot be recorded.
#[derive(Debug, Error)]
enum ReasonError {
    #[error("give a reason, or omit --reason")]
    Empty,
    #[error("at most 200 bytes, not {0}")]
    TooLong(usize),
    #[error("one line without control characters")]
    Control,
}

fn one_line(text: &str) -> Result<String, ReasonError> {
    match text.trim() {
        "" => Err(ReasonError::Empty),
        text if text.len() > 200 => Err(ReasonError::TooLong(text.len())),
        text if text.contains(char::is_control) => Err(ReasonError::Control),
        text => Ok(text.to_owned()),
    }
}

/// The result of the cancellation of one worker.
#[derive(Debug, Serialize)]
pub(super) struct CancelResult {
    worker_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    survivors: Option<u32>,
    /// Containment level. `full`: all possible processes of the worker were checked. `best_effort`: the system hides
    /// some.
    #[serde(skip_serializing_if = "Option::is_none")]
    proof: Option<&'static str>,
    already_settled: bool,
    /// Messages that never reached the worker. The next attempt receives them first.
    #[serde(rename = "unheard", skip_serializing_if = "Vec::is_empty")]
    undelivered: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

pub(super) fn run(args: &CancelArgs, places: &Places) -> ExitCode {
    output::run(async {
        let client = one_shot::open_for(places, &args.workers).await?;
        let ended = output::unless_interrupted(cancel(args, &client)).await;
        client.close().await;
        ended?
    })
}

async fn cancel(args: &CancelArgs, client: &OneShotClient) -> Result<ExitCode, CliError> {
    let reason = args.reason.as_deref().unwrap_or("requested at a terminal");
    let mut results = Vec::new();
    if args.all {
        let orchestrator = client.orchestrator();
        let all = orchestrator.cancel_all(orchestrator.default_boss(), Scope::All, reason);
        let ending = output::with_progress(|| "cancelling all workers".to_owned(), all).await;
        let (ended, _) = ending?;
        for (id, answer) in ended {
            results.push(print(args, CancelResult::new(id.as_str(), answer.map_err(CliError::from))));
        }
    } else {
        // An unknown name is an error before any worker is cancelled.
        for name in &args.workers {
            client.find(name).await?;
        }
        let mut ending: FuturesUnordered<_> =
            args.workers.iter().map(|name| cancel_one(client, name, reason)).collect();
        while !ending.is_empty() {
            let doing = || format!("cancelling {}", args.workers.join(", "));
            if let Some(result) = output::with_progress(doing, ending.next()).await {
                results.push(print(args, result));
            }
        }
    }
    if args.json {
        let _ = output::json(&results);
    } else if results.is_empty() {
        let _ = output::line("no worker is open");
    }
    let good = results.iter().all(CancelResult::is_good);
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(error::FAILED) })
}

/// Cancels a worker. Returns when its processes have ended.
pub(super) async fn cancel_one(client: &OneShotClient, name: &str, reason: &str) -> CancelResult {
    CancelResult::new(name, client.cancel(name, reason).await)
}

/// Prints each result at once. The other workers are cancelled even if stdout is closed.
fn print(args: &CancelArgs, results: CancelResult) -> CancelResult {
    if !args.json {
        let _ = output::line(&sanitize::text(&results.line()));
    }
    results
}

impl CancelResult {
    fn new(name: &str, answer: Result<CancelAnswer, CliError>) -> Self {
        match answer {
            Ok(answer) => Self {
                worker_id: answer.worker_id.to_string(),
                status: Some(answer.status.as_str()),
                survivors: Some(answer.survivors),
                proof: Some(match answer.proof {
                    Containment::Full => "full",
                    Containment::BestEffort => "best_effort",
                }),
                already_settled: answer.already_settled,
                undelivered: answer.undelivered,
                error: None,
            },
            Err(error) => Self {
                worker_id: name.to_owned(),
                status: None,
                survivors: None,
                proof: None,
                already_settled: false,
                undelivered: Vec::new(),
                error: Some(error.to_string()),
            },
        }
    }

    /// Returns whether the worker has ended and left no process.
    pub fn is_good(&self) -> bool {
        self.error.is_none() && self.survivors.unwrap_or(0) == 0
    }

    /// Describes the result in one line.
    pub fn line(&self) -> String {
        let undelivered = describe_undelivered(&self.undelivered).filter(|_| !self.already_settled);
        let undelivered =
            undelivered.map_or_else(String::new, |it| format!("; {it} (`orchestrator-boss retry` delivers it first)"));
        format!("{}{undelivered}", self.end())
    }

    fn end(&self) -> String {
        let id = &self.worker_id;
        let status = self.status.unwrap_or_default();
        match (&self.error, self.survivors) {
            (Some(error), _) => format!("{id}: {error}"),
            (None, _) if self.already_settled => format!("{id}: already finished ({status})"),
            (None, Some(0)) if self.proof == Some("full") => format!("{id}: {status}, no process is left"),
            (None, Some(0)) => {
                format!("{id}: {status}, no process is visible (this system hides some)")
            }
            (None, left) => {
                format!("{id}: {status}, but {} of its processes are still running", left.unwrap_or_default())
            }
        }
    }
}
