//! `wait`: waits until workers have settled. Only reads: it does not consume the boss's notifications.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio::time::Instant;

use super::error::CliError;
use super::file_watcher::FileWatcher;
use super::hint;
use super::output::{self, ProgressLine};
use super::places::Places;
use super::sanitize;
use super::terminal::{self, paint};
use super::workspace::Workspace;
use crate::attempt::launch;
use crate::mission::delivery;
use crate::mission::entry::AttemptSummary;
use crate::mission::id::WorkerId;
use crate::mission::lifecycle::{Ending, WorkerStatus};
use crate::mission::outcome::blocked_by;
use crate::mission::words::count;
use crate::orchestrator::{Observer, Overview, WorkerView};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orchestrator-boss wait
  orchestrator-boss wait w-3 w-4 --timeout 600
  orchestrator-boss wait --any --json
  orchestrator-boss wait && orchestrator-boss integrate w-3

Prints a line for each worker that finishes (with --json, an object). Without
names, it waits for all workers that are open at the start. It does not consume
the boss's notifications.

Exit codes:
  0    all of them completed
  1    a worker failed, was cancelled, timed out, was interrupted or lost
  2    wrong usage, or unknown worker
  3    needs attention: a worker completed but reports that it is blocked, or
       the others are blocked, stalled, or without a server
  124  timeout
  130  Ctrl-C")]
pub(super) struct WaitArgs {
    /// Workers, such as w-3 [default: all open ones]
    #[arg(value_name = "WORKER")]
    workers: Vec<String>,
    /// Return when the first of them has finished
    #[arg(long)]
    any: bool,
    /// Stop waiting after this many seconds
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = seconds)]
    timeout: Option<u64>,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
}

fn seconds(text: &str) -> Result<u64, &'static str> {
    text.parse().map_err(|_| "give a whole number of seconds")
}

const NEEDS_ATTENTION: u8 = 3;
const TIME_UP: u8 = 124;
/// Time after which no server will take over. A running server does so within seconds.
const NO_SERVER_LIMIT: Duration = Duration::from_secs(8);

#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum WaitEvent<'a> {
    Settled {
        worker_id: &'a str,
        status: &'static str,
        title: &'a str,
        attempt: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        says_blocked: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        branch: Option<&'a str>,
        commits: u32,
        seconds: u64,
    },
    NeedsAttention {
        worker_id: &'a str,
        why: &'a str,
    },
    TimeUp {
        open: Vec<&'a str>,
    },
}

pub(super) fn run(args: &WaitArgs, places: &Places) -> ExitCode {
    output::run(async { output::unless_interrupted(wait(args, places)).await? })
}

async fn wait(args: &WaitArgs, places: &Places) -> Result<ExitCode, CliError> {
    let workspace = Workspace::find(places)?;
    let mut observer = workspace.observer()?;
    let mut overview = observer.read()?;
    let mut wait = WaitState {
        args,
        announces: workspace.settings.notify_terminal && terminal::is_terminal() && !args.json,
        open: named(args, &observer, &overview)?,
        failed: false,
        blocked: false,
        unmanaged_since: None,
    };
    if wait.open.is_empty() {
        if !args.json {
            output::line("no worker is open")?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut watcher = FileWatcher::new(is_relevant);
    watcher.watch(&observer.state_root().join("journal"));
    let progress = ProgressLine::new();
    // A timeout beyond the range of the clock counts as none.
    let deadline = args.timeout.and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds)));
    loop {
        if let Some(code) = wait.update(&observer, &overview, &progress, &mut watcher)? {
            return Ok(ExitCode::from(code));
        }
        let time_up = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = watcher.next() => overview = observer.read()?,
            () = time_up => return wait.time_up(&progress),
        }
    }
}

/// Returns whether a change can end the wait. A worker writes all the time, but only its outcome matters.
fn is_relevant(path: &std::path::Path) -> bool {
    let in_journal = path.parent().is_some_and(|folder| folder.ends_with("journal"));
    in_journal || path.file_name().is_some_and(|name| name == "outcome.json")
}

fn named(args: &WaitArgs, observer: &Observer, overview: &Overview) -> Result<Vec<WorkerId>, CliError> {
    let mut ids: Vec<WorkerId> = if args.workers.is_empty() {
        overview.workers().filter(|it| !delivery::is_final(&it.worker)).map(|it| it.worker.id.clone()).collect()
    } else {
        let find = |name: &String| Ok(observer.find(name)?.worker.id.clone());
        args.workers.iter().map(find).collect::<Result<_, CliError>>()?
    };
    let mut seen = BTreeSet::new();
    ids.retain(|id| seen.insert(id.clone()));
    Ok(ids)
}

struct WaitState<'a> {
    args: &'a WaitArgs,
    /// True if the terminal notifies the user of each worker.
    announces: bool,
    open: Vec<WorkerId>,
    /// True if a worker settled without completing.
    failed: bool,
    /// True if a completed worker reports that it is blocked.
    blocked: bool,
    /// Time since which no open worker has a server.
    unmanaged_since: Option<Instant>,
}

impl WaitState<'_> {
    /// Prints the workers that settled since the last call. Returns the exit code if the wait is over.
    fn update(
        &mut self,
        observer: &Observer,
        overview: &Overview,
        progress: &ProgressLine,
        watcher: &mut FileWatcher,
    ) -> Result<Option<u8>, CliError> {
        let mut left = Vec::new();
        let mut settled = false;
        for id in std::mem::take(&mut self.open) {
            let view = overview.workers().find(|it| it.worker.id == id).cloned();
            let view = view.map_or_else(|| observer.find(id.as_str()).map_err(CliError::from), Ok)?;
            if delivery::is_final(&view.worker) {
                settled = true;
                self.failed |= view.worker.status != WorkerStatus::Settled(Ending::Completed);
                self.blocked |= view.worker.needs_you();
                self.print_settled(&view, progress)?;
            } else {
                if view.worker.status.is_live() {
                    watcher.watch(observer.folder(&id).attempt(view.worker.attempt).root());
                }
                left.push(view);
            }
        }
        self.open = left.iter().map(|view| view.worker.id.clone()).collect();
        if left.is_empty() || (settled && self.args.any) {
            return Ok(Some(match (self.failed, self.blocked) {
                (true, _) => 1,
                (false, true) => NEEDS_ATTENTION,
                (false, false) => 0,
            }));
        }
        let stuck: Vec<(&WorkerView, String)> =
            left.iter().filter_map(|view| Some((view, self.attention_reason(view, observer, overview)?))).collect();
        if stuck.len() < left.len() {
            self.unmanaged_since = None;
        } else if stuck.iter().all(|(view, _)| overview.is_led(&view.worker))
            || self.unmanaged_since.get_or_insert_with(Instant::now).elapsed() > NO_SERVER_LIMIT
        {
            stuck.iter().try_for_each(|(view, why)| self.print_stuck(view, why, progress))?;
            return Ok(Some(NEEDS_ATTENTION));
        }
        progress.show(&progress_text(&left));
        Ok(None)
    }

    /// Returns the reason why the worker needs attention, if it does.
    fn attention_reason(&self, view: &WorkerView, observer: &Observer, overview: &Overview) -> Option<String> {
        if let Some(why) = &view.block {
            return Some(format!("blocked: {}", hint::line(why)));
        }
        if let Some(evidence) = view.live.as_ref().and_then(|live| live.stalled.as_ref()) {
            return Some(format!("stalled: {evidence}"));
        }
        if overview.is_led(&view.worker) {
            return None;
        }
        let attempt = observer.folder(&view.worker.id).attempt(view.worker.attempt);
        if !view.worker.status.is_live() {
            return Some("no server runs here to start it: start an MCP client here".to_owned());
        }
        (!launch::may_live(&attempt))
            .then(|| "its supervisor has ended, and no server runs here to record the outcome".to_owned())
    }

    fn print_settled(&self, view: &WorkerView, progress: &ProgressLine) -> Result<(), CliError> {
        let worker = &view.worker;
        let last = worker.last();
        let reason = last.and_then(AttemptSummary::reasons);
        let reason = reason.as_deref();
        let commits = last.map_or(0, |last| last.changes.commits);
        let seconds = view.ran_seconds().unwrap_or(0);
        let what =
            worker.needs_you().then(|| last.and_then(|last| blocked_by(&last.final_message)).unwrap_or_default());
        if self.args.json {
            let event = WaitEvent::Settled {
                worker_id: worker.id.as_str(),
                status: worker.status.as_str(),
                title: &worker.mission.title,
                attempt: worker.attempt,
                reason,
                says_blocked: what,
                branch: last.and_then(|last| last.changes.branch.as_deref()),
                commits,
                seconds,
            };
            return self.object(&event, progress);
        }
        if self.announces {
            let text = format!("{} {}: {}", worker.id, worker.status, worker.mission.title);
            progress.raw(&terminal::announcement(&text))?;
        }
        let status = paint(terminal::tone(worker.status), &worker.status.as_str().replace('_', " "));
        let mut text = format!("{} {status} after {}", worker.id, terminal::duration(seconds));
        if commits > 0 {
            text.push_str(&format!(", {}", count(commits, "commit")));
        }
        if let Some(reason) = reason.and_then(|reason| reason.lines().next()) {
            text.push_str(&format!(": {}", sanitize::text(reason)));
        }
        if let Some(what) = what {
            text.push_str(&format!(", but reports that it is blocked: {}", sanitize::text(what)));
        }
        progress.line(&text)
    }

    fn print_stuck(&self, view: &WorkerView, why: &str, progress: &ProgressLine) -> Result<(), CliError> {
        let id = &view.worker.id;
        if self.args.json {
            self.object(&WaitEvent::NeedsAttention { worker_id: id.as_str(), why }, progress)
        } else {
            progress.line(&format!("{id} {}", sanitize::text(why)))
        }
    }

    fn time_up(&self, progress: &ProgressLine) -> Result<ExitCode, CliError> {
        let open: Vec<&str> = self.open.iter().map(WorkerId::as_str).collect();
        if self.args.json {
            self.object(&WaitEvent::TimeUp { open }, progress)?;
        } else {
            progress.line(&format!("timeout; still open: {}", open.join(", ")))?;
        }
        Ok(ExitCode::from(TIME_UP))
    }

    fn object(&self, event: &WaitEvent<'_>, progress: &ProgressLine) -> Result<(), CliError> {
        progress.line(&serde_json::to_string(event).map_err(|error| CliError::Failed(error.to_string()))?)
    }
}

/// Describes the open workers in one line.
fn progress_text(left: &[WorkerView]) -> String {
    let one = |view: &WorkerView| {
        let activity = view.live.as_ref().map(|live| live.activity.as_str()).or(view.waits_for.as_deref());
        let activity = activity.map_or_else(String::new, |activity| format!(" ({activity})"));
        format!("{} {}{activity}", view.worker.id, view.worker.status)
    };
    format!("{} open: {}", left.len(), left.iter().map(one).collect::<Vec<_>>().join(", "))
}
