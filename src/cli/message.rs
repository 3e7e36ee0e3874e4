//! `message`: sends a message to a worker, as `m` in `status --watch` does.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::error::CliError;
use super::one_shot;
use super::output;
use super::places::Places;
use super::sanitize;
use super::text_argument;
use crate::attempt::inbox::Delivery;
use crate::mission::id::WorkerId;
use crate::orchestrator::{MessageAnswer, MessageDelivery};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orchestrator-boss message w-3 \"the tests in tests/api matter most\"
  orchestrator-boss message w-3 --interrupt \"stop: use the old parser\"
  orchestrator-boss message w-3 - < notes.md

A running worker receives it at once if its CLI can, or else after its turn. A
finished worker resumes with it: its next attempt starts.

Exit codes:
  0    the message was delivered, or will be; the output says which
  1    refused
  2    wrong usage, or unknown worker
  130  Ctrl-C: it may be delivered anyway; see `orchestrator-boss status w-3`")]
pub(super) struct MessageArgs {
    // The indexes are explicit because completion moves an argument with candidates behind the others.
    /// Worker, such as w-3
    #[arg(index = 1)]
    worker: String,
    /// The message; - reads it from stdin
    #[arg(index = 2)]
    text: String,
    /// Stop its current turn first
    #[arg(long)]
    interrupt: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct SentMessage<'a> {
    worker_id: &'a str,
    message_id: String,
    delivered: MessageDelivery,
    status: &'static str,
}

pub(super) fn run(args: &MessageArgs, places: &Places) -> ExitCode {
    let text = match text_argument::read(&args.text, "the message") {
        Ok(text) => text,
        Err(end) => return output::end(Err(end)),
    };
    let delivery = if args.interrupt { Delivery::Interrupt } else { Delivery::WhenReady };
    output::run(async {
        let doing = || format!("sending a message to {}", args.worker);
        let sending = output::with_progress(doing, send(places, &args.worker, text, delivery));
        let (worker, answer) = output::unless_interrupted(sending).await??;
        let _ = if args.json {
            output::json(&SentMessage {
                worker_id: worker.as_str(),
                message_id: answer.message_id.to_string(),
                delivered: answer.delivered,
                status: answer.status.as_str(),
            })
        } else {
            output::line(&sanitize::text(&line(&worker, answer.delivered)))
        };
        Ok(ExitCode::SUCCESS)
    })
}

/// Sends a message as a one-shot client. Returns the worker that the name means.
pub(super) async fn send(
    places: &Places,
    worker: &str,
    text: String,
    delivery: Delivery,
) -> Result<(WorkerId, MessageAnswer), CliError> {
    let client = one_shot::open_for(places, &[worker.to_owned()]).await?;
    let sent = async {
        let id = client.find(worker).await?.worker.id.clone();
        Ok((id, client.message(worker, text, delivery).await?))
    };
    let sent = sent.await;
    client.close().await;
    sent
}

/// Describes the delivery for users.
pub(super) fn line(worker: &WorkerId, delivered: MessageDelivery) -> String {
    match delivered {
        MessageDelivery::Live => format!("{worker} receives it now"),
        MessageDelivery::Queued => format!("{worker} receives it at the next opportunity"),
        MessageDelivery::Answered => format!("{worker} has the answer"),
        MessageDelivery::NextAttempt => format!("{worker} resumes with it: its next attempt"),
    }
}
