//! `wait`: until workers have settled. Only reads: no boss's news is consumed by it.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio::time::Instant;

use super::changes::Changes;
use super::here::Here;
use super::out::{self, End, Progress};
use super::places::Places;
use super::terminal::{self, paint};
use super::visit;
use crate::cli::hint;
use crate::files::lease;
use crate::mission::delivery;
use crate::mission::entry::AttemptSummary;
use crate::mission::id::WorkerId;
use crate::mission::lifecycle::{Ending, WorkerStatus};
use crate::mission::outcome::blocked_by;
use crate::orchestrator::{Observer, Overview, WorkerView};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orchestrator-boss wait
  orchestrator-boss wait w-3 w-4 --timeout 600
  orchestrator-boss wait --any --json
  orchestrator-boss wait && orchestrator-boss integrate w-3

Prints a line for each worker as it settles (with --json, an object). Without
names it waits for all that are open when it begins. It tells the boss nothing
and takes nothing from it.

Exit codes:
  0    all that it waited for completed
  1    one failed, was cancelled, timed out, was interrupted or lost
  2    wrong usage, or no such worker
  3    one completed but reports that it is blocked, or the rest need you:
       blocked, stalled, or without a server
  124  the time was up
  130  Ctrl-C")]
pub(super) struct WaitArgs {
    /// Workers, such as w-3 [default: all open ones]
    #[arg(value_name = "WORKER")]
    workers: Vec<String>,
    /// Return when the first of them has settled
    #[arg(long)]
    any: bool,
    /// Give up after so many seconds
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

const NEEDS_SOMEBODY: u8 = 3;
const TIME_UP: u8 = 124;
/// A living server takes over from a dead one within seconds; after this there is none.
const WITHOUT_SERVER: Duration = Duration::from_secs(8);

#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Told<'a> {
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
    NeedsSomebody {
        worker_id: &'a str,
        why: &'a str,
    },
    TimeUp {
        open: Vec<&'a str>,
    },
}

pub(super) fn run(args: &WaitArgs, places: &Places) -> ExitCode {
    out::run(async { out::unless_interrupted(wait(args, places)).await? })
}

async fn wait(args: &WaitArgs, places: &Places) -> Result<ExitCode, End> {
    let here = Here::find(places).map_err(End::Failed)?;
    let mut observer = visit::observer(&here)?;
    let mut overview = observer.look().map_err(visit::refused)?;
    let mut wait = Wait { args, open: named(args, &observer, &overview)?, failed: false, blocked: false, unled: None };
    if wait.open.is_empty() {
        if !args.json {
            out::line("no worker is open")?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut changes = Changes::new(heeds);
    changes.watch(&observer.state_root().join("journal"));
    let progress = Progress::new();
    // One that no clock can tell is none.
    let deadline = args.timeout.and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds)));
    loop {
        if let Some(code) = wait.look(&observer, &overview, &progress, &mut changes)? {
            return Ok(ExitCode::from(code));
        }
        let time_up = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = changes.next() => overview = observer.look().map_err(visit::refused)?,
            () = time_up => return wait.time_up(&progress),
        }
    }
}

/// A worker writes all the time; only its end matters here.
fn heeds(path: &std::path::Path) -> bool {
    let in_journal = path.parent().is_some_and(|folder| folder.ends_with("journal"));
    in_journal || path.file_name().is_some_and(|name| name == "outcome.json")
}

fn named(args: &WaitArgs, observer: &Observer, overview: &Overview) -> Result<Vec<WorkerId>, End> {
    let mut ids: Vec<WorkerId> = match args.workers.is_empty() {
        true => {
            overview.workers().filter(|it| !delivery::is_final(&it.worker)).map(|it| it.worker.id.clone()).collect()
        }
        false => {
            let find = |name: &String| Ok(observer.find(name).map_err(visit::refused)?.worker.id.clone());
            args.workers.iter().map(find).collect::<Result<_, End>>()?
        }
    };
    let mut seen = BTreeSet::new();
    ids.retain(|id| seen.insert(id.clone()));
    Ok(ids)
}

struct Wait<'a> {
    args: &'a WaitArgs,
    open: Vec<WorkerId>,
    /// One that settled did not complete.
    failed: bool,
    /// One that settled says that it is blocked.
    blocked: bool,
    /// Since when nothing that is left has a server.
    unled: Option<Instant>,
}

impl Wait<'_> {
    /// Tells what has settled since; the exit code, if that was all.
    fn look(
        &mut self,
        observer: &Observer,
        overview: &Overview,
        progress: &Progress,
        changes: &mut Changes,
    ) -> Result<Option<u8>, End> {
        let mut left = Vec::new();
        let mut settled = false;
        for id in std::mem::take(&mut self.open) {
            let view = overview.workers().find(|it| it.worker.id == id).cloned();
            let view = view.map_or_else(|| observer.find(id.as_str()).map_err(visit::refused), Ok)?;
            if delivery::is_final(&view.worker) {
                settled = true;
                self.failed |= view.worker.status != WorkerStatus::Settled(Ending::Completed);
                self.blocked |= view.worker.needs_you();
                self.tell_settled(&view, progress)?;
            } else {
                if view.worker.status.is_live() {
                    changes.watch(observer.folder(&id).attempt(view.worker.attempt).root());
                }
                left.push(view);
            }
        }
        self.open = left.iter().map(|view| view.worker.id.clone()).collect();
        if left.is_empty() || (settled && self.args.any) {
            return Ok(Some(match (self.failed, self.blocked) {
                (true, _) => 1,
                (false, true) => NEEDS_SOMEBODY,
                (false, false) => 0,
            }));
        }
        let stuck: Vec<(&WorkerView, String)> =
            left.iter().filter_map(|view| Some((view, self.needs(view, observer, overview)?))).collect();
        if stuck.len() < left.len() {
            self.unled = None;
        } else if stuck.iter().all(|(view, _)| overview.is_led(&view.worker))
            || self.unled.get_or_insert_with(Instant::now).elapsed() > WITHOUT_SERVER
        {
            stuck.iter().try_for_each(|(view, why)| self.tell_stuck(view, why, progress))?;
            return Ok(Some(NEEDS_SOMEBODY));
        }
        progress.say(&doing(&left));
        Ok(None)
    }

    /// Why it does not go on by itself.
    fn needs(&self, view: &WorkerView, observer: &Observer, overview: &Overview) -> Option<String> {
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
        match view.worker.status.is_live() {
            true if lease::is_held(&attempt.lock()) => None,
            true => Some("its supervisor is gone, and no server lives here that could tell how it ended".to_owned()),
            false => Some("no server lives here that could start it: start one (any client does)".to_owned()),
        }
    }

    fn tell_settled(&self, view: &WorkerView, progress: &Progress) -> Result<(), End> {
        let worker = &view.worker;
        let last = worker.last();
        let reason = last.and_then(AttemptSummary::reasons);
        let reason = reason.as_deref();
        let commits = last.map_or(0, |last| last.changes.commits);
        let seconds = view.ran_seconds().unwrap_or(0);
        let what =
            worker.needs_you().then(|| last.and_then(|last| blocked_by(&last.final_message)).unwrap_or_default());
        if self.args.json {
            let told = Told::Settled {
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
            return self.object(&told, progress);
        }
        let status = paint(terminal::tone(worker.status), &worker.status.as_str().replace('_', " "));
        let mut text = format!("{} {status} after {}", worker.id, terminal::duration(seconds));
        if commits > 0 {
            text.push_str(&format!(", {}", terminal::count(commits, "commit")));
        }
        if let Some(reason) = reason.and_then(|reason| reason.lines().next()) {
            text.push_str(&format!(": {}", out::harmless(reason)));
        }
        if let Some(what) = what {
            text.push_str(&format!(", but it says that it is blocked: {}", out::harmless(what)));
        }
        progress.line(&text)
    }

    fn tell_stuck(&self, view: &WorkerView, why: &str, progress: &Progress) -> Result<(), End> {
        let id = &view.worker.id;
        match self.args.json {
            true => self.object(&Told::NeedsSomebody { worker_id: id.as_str(), why }, progress),
            false => progress.line(&format!("{id} {}", out::harmless(why))),
        }
    }

    fn time_up(&self, progress: &Progress) -> Result<ExitCode, End> {
        let open: Vec<&str> = self.open.iter().map(WorkerId::as_str).collect();
        match self.args.json {
            true => self.object(&Told::TimeUp { open }, progress)?,
            false => progress.line(&format!("the time is up; still open: {}", open.join(", ")))?,
        }
        Ok(ExitCode::from(TIME_UP))
    }

    fn object(&self, told: &Told<'_>, progress: &Progress) -> Result<(), End> {
        progress.line(&serde_json::to_string(told).map_err(|error| End::Failed(error.to_string()))?)
    }
}

/// On one line, for who looks on.
fn doing(left: &[WorkerView]) -> String {
    let one = |view: &WorkerView| {
        let activity = view.live.as_ref().map(|live| live.activity.as_str()).or(view.waits_for.as_deref());
        let activity = activity.map_or_else(String::new, |activity| format!(" ({activity})"));
        format!("{} {}{activity}", view.worker.id, view.worker.status)
    };
    format!("{} open: {}", left.len(), left.iter().map(one).collect::<Vec<_>>().join(", "))
}
