//! `cancel`: ends workers, and proves that nothing of theirs is left.

use std::process::ExitCode;

use clap::Args;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde::Serialize;

use super::out::{self, End};
use super::places::Places;
use super::visit::{self, Visit};
use crate::mission::message::not_heard;
use crate::mission::outcome::Containment;
use crate::orchestrator::{CancelAnswer, Scope};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orchestrator-boss cancel w-3
  orchestrator-boss cancel w-3 w-4 --reason \"the plan has changed\"
  orchestrator-boss cancel --all

Exit codes:
  0    all of them have ended, and nothing of theirs is left running
  1    some could not be ended; the lines say which
  2    wrong usage, or no such worker
  130  Ctrl-C: what was asked for goes on")]
pub(super) struct CancelArgs {
    /// Workers, such as w-3
    #[arg(required_unless_present = "all", value_name = "WORKER")]
    workers: Vec<String>,
    /// End every open worker of every boss here
    #[arg(long, conflicts_with = "workers")]
    all: bool,
    /// Why, in one line; kept with the outcome
    #[arg(long, value_name = "TEXT", value_parser = one_line)]
    reason: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

fn one_line(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("say why, or leave --reason out".to_owned()),
        text if text.len() > 200 => Err(format!("at most 200 bytes, not {}", text.len())),
        text if text.contains(char::is_control) => Err("one line without control characters".to_owned()),
        text => Ok(text.to_owned()),
    }
}

#[derive(Debug, Serialize)]
struct Cancelled {
    worker_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    survivors: Option<u32>,
    /// Containment level. full: every process that could be the worker's was checked; best_effort: the system hides
    /// some.
    #[serde(skip_serializing_if = "Option::is_none")]
    proof: Option<&'static str>,
    already_settled: bool,
    /// Messages that never reached the worker. The next attempt gets them first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unheard: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

pub(super) fn run(args: &CancelArgs, places: &Places) -> ExitCode {
    out::run(async {
        let visit = visit::visit_for(places, &args.workers).await?;
        let ended = out::unless_interrupted(cancel(args, &visit)).await;
        visit.leave().await;
        ended?
    })
}

async fn cancel(args: &CancelArgs, visit: &Visit) -> Result<ExitCode, End> {
    let reason = args.reason.as_deref().unwrap_or("asked for at a terminal");
    let mut cancelled = Vec::new();
    if args.all {
        let orchestrator = visit.orchestrator();
        let all = orchestrator.cancel_all(orchestrator.default_boss(), Scope::All, reason);
        let ending = out::with_progress(|| "ending all workers".to_owned(), all).await;
        let (ended, _) = ending.map_err(visit::refused)?;
        for (id, answer) in ended {
            cancelled.push(tell(args, Cancelled::new(id.as_str(), answer.map_err(visit::refused))));
        }
    } else {
        // A name that nobody bears is said before anything is ended.
        for name in &args.workers {
            visit.find(name).await?;
        }
        let one = async |name: &String| (name.clone(), visit.cancel(name, reason).await);
        let mut ending: FuturesUnordered<_> = args.workers.iter().map(one).collect();
        while !ending.is_empty() {
            let doing = || format!("ending {}", args.workers.join(", "));
            if let Some((name, answer)) = out::with_progress(doing, ending.next()).await {
                cancelled.push(tell(args, Cancelled::new(&name, answer)));
            }
        }
    }
    if args.json {
        let _ = out::json(&cancelled);
    } else if cancelled.is_empty() {
        let _ = out::line("no worker is open");
    }
    let good = cancelled.iter().all(|it| it.error.is_none() && it.survivors.unwrap_or(0) == 0);
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(out::FAILED) })
}

/// As soon as it is known. Nobody may read it; the others are ended all the same.
fn tell(args: &CancelArgs, cancelled: Cancelled) -> Cancelled {
    if !args.json {
        let _ = out::line(&out::harmless(&cancelled.line()));
    }
    cancelled
}

impl Cancelled {
    fn new(name: &str, answer: Result<CancelAnswer, End>) -> Self {
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
                unheard: answer.unheard,
                error: None,
            },
            Err(error) => Self {
                worker_id: name.to_owned(),
                status: None,
                survivors: None,
                proof: None,
                already_settled: false,
                unheard: Vec::new(),
                error: Some(error.to_string()),
            },
        }
    }

    fn line(&self) -> String {
        let unheard = not_heard(&self.unheard).filter(|_| !self.already_settled);
        let unheard =
            unheard.map_or_else(String::new, |it| format!("; {it} (`orchestrator-boss retry` has it heard first)"));
        format!("{}{unheard}", self.end())
    }

    fn end(&self) -> String {
        let id = &self.worker_id;
        let status = self.status.unwrap_or_default();
        match (&self.error, self.survivors) {
            (Some(error), _) => format!("{id}: {error}"),
            (None, _) if self.already_settled => format!("{id}: had settled before ({status})"),
            (None, Some(0)) if self.proof == Some("full") => format!("{id}: {status}, nothing of it is left running"),
            (None, Some(0)) => {
                format!("{id}: {status}, nothing of it is seen running (this system hides some processes)")
            }
            (None, left) => format!("{id}: {status}, but {} of its processes are left", left.unwrap_or_default()),
        }
    }
}
