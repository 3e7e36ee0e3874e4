//! `answer`: answers the question of a worker, as `a` and `d` in `status --watch` do. The supervisor decides whether the
//! answer counts.

use std::io::{self, BufRead, IsTerminal, Write};
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::error::{self, CliError};
use super::one_shot;
use super::output;
use super::places::Places;
use super::question;
use super::sanitize;
use super::text_argument;
use super::workspace::Workspace;
use crate::attempt::inbox::Delivery;
use crate::attempt::status::OpenQuestion;
use crate::mission::question::Decision;
use crate::orchestrator::{AnswerRequest, Answered, NewMessage};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orchestrator-boss answer w-3
  orchestrator-boss answer w-3 allow
  orchestrator-boss answer w-3 deny -m \"stay inside your worktree\"
  orchestrator-boss answer w-3 --question q1.1.2 2

The first answer counts, from you or from its boss. The worker gets the message
of a denial as the reason, if its CLI passes one on. Without a decision it shows
the open questions, and asks for one in a terminal.

Exit codes:
  0    the question is answered
  1    refused, or already answered; the output names the author
  2    wrong usage, unknown worker, or no decision and no terminal to ask
  130  Ctrl-C: it may be answered anyway; see `orchestrator-boss logs w-3`")]
pub(super) struct AnswerArgs {
    // The indexes are explicit because completion moves an argument with candidates behind the others.
    /// Worker, such as w-3
    #[arg(index = 1)]
    worker: String,
    /// allow, deny, or one of its choices
    #[arg(index = 2)]
    decision: Option<String>,
    /// The question, if several are open
    #[arg(long, value_name = "ID")]
    question: Option<String>,
    /// The reason of a denial; - reads it from stdin
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// The decision on a question, `None` for the only one that is open.
struct Decided {
    question: Option<String>,
    decision: Decision,
    reason: Option<String>,
}

#[derive(Debug, Serialize)]
struct AnsweredQuestion<'a> {
    worker_id: &'a str,
    question_id: &'a str,
    decision: &'a str,
    status: &'static str,
}

/// The open questions of a worker, if there is no decision.
#[derive(Debug, Serialize)]
struct OpenQuestions<'a> {
    worker_id: &'a str,
    questions: &'a [OpenQuestion],
}

pub(super) fn run(args: &AnswerArgs, places: &Places) -> ExitCode {
    let reason = match args.message.as_deref().map(|text| text_argument::read(text, "the message")).transpose() {
        Ok(reason) => reason,
        Err(end) => return output::end(Err(end)),
    };
    output::run(async {
        let decided = match &args.decision {
            Some(decision) => {
                Some(Decided { question: args.question.clone(), decision: decision.clone().into(), reason })
            }
            None => output::unless_interrupted(ask(args, places)).await??,
        };
        let Some(decided) = decided else { return Ok(ExitCode::from(error::USAGE)) };
        let decision = decided.decision.clone();
        let doing = || format!("answering {}", args.worker);
        let sending = output::with_progress(doing, send(places, &args.worker, decided));
        let answered = output::unless_interrupted(sending).await??;
        let (worker, question) = (answered.worker_id.as_str(), answered.question.as_str());
        let _ = if args.json {
            let status = answered.status.as_str();
            output::json(&AnsweredQuestion {
                worker_id: worker,
                question_id: question,
                decision: decision.as_str(),
                status,
            })
        } else {
            output::line(&question::decided(worker, question, &decision))
        };
        Ok(ExitCode::SUCCESS)
    })
}

/// Answers a question as a one-shot client. Returns when the worker's CLI has the answer.
async fn send(places: &Places, worker: &str, decided: Decided) -> Result<Answered, CliError> {
    let client = one_shot::open_for(places, &[worker.to_owned()]).await?;
    let Decided { question, decision, reason } = decided;
    let message = reason.map(|text| NewMessage { text, delivery: Delivery::WhenReady, by: None });
    let answered = client.answer(worker, AnswerRequest { question, decision, message }).await;
    client.close().await;
    answered
}

/// Answers a question for the live screen. Returns the result in words.
pub(super) async fn answer(
    places: &Places,
    worker: &str,
    question: String,
    decision: Decision,
    reason: Option<String>,
) -> Result<String, CliError> {
    let decided = Decided { question: Some(question), decision: decision.clone(), reason };
    let answered = send(places, worker, decided).await?;
    Ok(question::decided(answered.worker_id.as_str(), &answered.question, &decision))
}

/// Shows the open questions, and asks for the answer to the first one in a terminal. Returns `None` if there is no
/// terminal to ask, or no answer.
async fn ask(args: &AnswerArgs, places: &Places) -> Result<Option<Decided>, CliError> {
    let view = Workspace::find(places)?.observer()?.find(&args.worker)?;
    let is_meant = |open: &&OpenQuestion| args.question.as_ref().is_none_or(|id| open.question.id == *id);
    let open: Vec<OpenQuestion> = view.open_questions().filter(is_meant).cloned().collect();
    let worker = &view.worker;
    if args.json {
        output::json(&OpenQuestions { worker_id: worker.id.as_str(), questions: &open })?;
        return Ok(None);
    }
    let Some(first) = open.first().map(|open| &open.question) else {
        let status = worker.status.as_str().replace('_', " ");
        return Err(CliError::Failed(format!("cannot answer {}: it has no open question ({status})", worker.id)));
    };
    for asked in open.iter().map(|open| &open.question) {
        output::line(&sanitize::text(&format!("{}: {}", asked.id, asked.text)))?;
        output::line(&format!("  choices: {}", question::choices(asked)))?;
    }
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        let decision = if question::is_permission(first) { "allow" } else { "CHOICE" };
        output::note(&format!(
            "to answer: orchestrator-boss answer {} --question {} {decision}, or deny -m REASON",
            args.worker, first.id
        ));
        return Ok(None);
    }
    let typed = typed(format!("Answer to {} (deny REASON gives a reason; enter: none): ", first.id)).await;
    let (decision, reason) = typed.split_once(char::is_whitespace).unwrap_or((&typed, ""));
    if decision.is_empty() {
        output::note("not answered");
        return Ok(None);
    }
    let reason = Some(reason.trim().to_owned()).filter(|reason| !reason.is_empty());
    Ok(Some(Decided { question: Some(first.id.clone()), decision: decision.to_owned().into(), reason }))
}

/// Returns a line that the user types.
async fn typed(prompt: String) -> String {
    let _ = io::stderr().write_all(prompt.as_bytes());
    let line = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        let _ = io::stdin().lock().read_line(&mut line);
        line
    });
    line.await.unwrap_or_default().trim().to_owned()
}
