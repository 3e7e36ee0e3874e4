//! `integrate`: integrates workers' branches into another, as the tool `integrate_worker` does, and waits until it is
//! done.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::out::{self, End, Progress};
use super::places::Places;
use super::terminal::{Tone, paint};
use super::visit::{self, Visit};
use crate::mission::outcome::{LikelyCause, NotOnBranch};
use crate::orchestrator::{
    IntegrationAnswer, IntegrationRequest, IntegrationSource, IntegrationStatus, IntegrationStrategy, PushResult,
};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orchestrator-boss integrate w-3
  orchestrator-boss integrate w-3 w-4 w-5 --verify-command \"cargo test\"
  orchestrator-boss integrate w-3 --dry-run
  orchestrator-boss integrate --branch fix/login --into main --push

Several workers make a train: in this order, verified as a whole; what
conflicts or fails is left out. Nothing is touched before the branch moves.

Exit codes:
  0    all of it is in (with --dry-run: would come in)
  1    conflicts, something left out or not included, not verified, not
       pushed, or refused
  2    wrong usage, or no such worker
  130  Ctrl-C: the branch has moved, or nothing has happened")]
pub(super) struct IntegrateArgs {
    /// Workers that have completed, such as w-3
    #[arg(value_name = "WORKER", required_unless_present = "branch")]
    workers: Vec<String>,
    /// Any other branch
    #[arg(long, value_name = "NAME", conflicts_with = "workers")]
    branch: Option<String>,
    /// The branch that it goes into [default: the integration branch]
    #[arg(long, value_name = "BRANCH")]
    into: Option<String>,
    /// How it comes in
    #[arg(long, value_name = "HOW", default_value = "merge")]
    strategy: StrategyArgument,
    /// Must pass on the result before the branch moves
    #[arg(long, value_name = "COMMAND", value_parser = some)]
    verify_command: Option<String>,
    /// Then push the branch to its upstream, never by force
    #[arg(long)]
    push: bool,
    /// Only say what would happen
    #[arg(long)]
    dry_run: bool,
    /// The repository of the branch [default: where the worker worked]
    #[arg(long, value_name = "FOLDER")]
    repo_path: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Refuses an empty command, which would pass as a verification.
fn some(command: &str) -> Result<String, &'static str> {
    match command.trim() {
        "" => Err("give a command, or leave --verify-command out"),
        _ => Ok(command.to_owned()),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum StrategyArgument {
    Merge,
    Squash,
    CherryPick,
}

#[derive(Debug, Serialize)]
struct Report {
    status: &'static str,
    into: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    commit: Option<String>,
    integrated: Vec<String>,
    left_out: Vec<LeftOut>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_included: Vec<NotIncluded>,
    conflicts: Vec<Conflict>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verification: Option<Verified>,
    #[serde(skip_serializing_if = "Option::is_none")]
    likely_cause: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    push: Option<Push>,
    notes: Vec<String>,
    /// True if the worker has no commits.
    #[serde(skip)]
    nothing: bool,
}

#[derive(Debug, Serialize)]
struct LeftOut {
    name: String,
    why: String,
}

#[derive(Debug, Serialize)]
struct NotIncluded {
    worker_id: String,
    #[serde(flatten)]
    part: NotOnBranch,
}

#[derive(Debug, Serialize)]
struct Conflict {
    path: String,
    kind: String,
}

#[derive(Debug, Serialize)]
struct Verified {
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    /// How often the command was run.
    runs: usize,
}

#[derive(Debug, Serialize)]
struct Push {
    result: &'static str,
    said: String,
}

pub(super) fn run(args: &IntegrateArgs, places: &Places) -> ExitCode {
    out::run(async {
        let visit = visit::visit_for(places, &args.workers).await?;
        let answer = out::unless_interrupted(integrate(args, &visit)).await;
        let nothing = match &answer {
            Ok(Ok(answer)) => visit.orchestrator().had_nothing_to_integrate(answer).await,
            _ => false,
        };
        visit.leave().await;
        let answer = answer??;
        let good = is_good(&answer);
        let report = Report { nothing, ..Report::new(answer) };
        let _ = match args.json {
            true => out::json(&report),
            false => report.tell(good),
        };
        Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(out::FAILED) })
    })
}

const REDRAW: Duration = Duration::from_millis(200);

async fn integrate(args: &IntegrateArgs, visit: &Visit) -> Result<IntegrationAnswer, End> {
    let orchestrator = visit.orchestrator();
    let boss = match args.workers.first() {
        Some(name) => visit.find(name).await?.worker.boss.clone(),
        None => orchestrator.default_boss().clone(),
    };
    let source = match (&args.branch, args.workers.as_slice()) {
        (Some(branch), _) => IntegrationSource::Branch(branch.clone()),
        (None, [one]) => IntegrationSource::Worker(one.clone()),
        (None, several) => IntegrationSource::Train(several.to_vec()),
    };
    let request = IntegrationRequest {
        into: args.into.clone(),
        strategy: match args.strategy {
            StrategyArgument::Merge => IntegrationStrategy::Merge,
            StrategyArgument::Squash => IntegrationStrategy::Squash,
            StrategyArgument::CherryPick => IntegrationStrategy::CherryPick,
        },
        verify_command: args.verify_command.clone(),
        push: args.push,
        dry_run: args.dry_run,
        repo_path: args.repo_path.clone(),
        patience: None,
        ..IntegrationRequest::of(source)
    };
    let work = orchestrator.integrate(&boss, request);
    tokio::pin!(work);
    let progress = Progress::new();
    loop {
        tokio::select! {
            answer = &mut work => return answer.map_err(visit::refused),
            () = tokio::time::sleep(REDRAW) => {
                let doing = orchestrator.integrations().join("; ");
                progress.say(if doing.is_empty() { "integrating" } else { &doing });
            }
        }
    }
}

fn is_good(answer: &IntegrationAnswer) -> bool {
    use IntegrationStatus::{AlreadyIntegrated, AlreadyMerged, Merged, WouldMerge};
    let is_in = matches!(answer.status, Merged | AlreadyMerged | AlreadyIntegrated | WouldMerge);
    let sent = [PushResult::Pushed, PushResult::UpToDate, PushResult::WouldPush];
    is_in
        && answer.left_out.is_empty()
        && answer.not_included.is_empty()
        && answer.push.as_ref().is_none_or(|push| sent.contains(&push.result))
}

impl Report {
    fn new(answer: IntegrationAnswer) -> Self {
        let runs = answer.verifications;
        Self {
            status: answer.status.as_str(),
            into: answer.into,
            commit: answer.commit,
            integrated: answer.integrated,
            left_out: answer.left_out.into_iter().map(|(name, why)| LeftOut { name, why }).collect(),
            not_included: answer
                .not_included
                .into_iter()
                .map(|(worker_id, part)| NotIncluded { worker_id, part })
                .collect(),
            conflicts: answer.conflicts.into_iter().map(|(path, kind)| Conflict { path, kind }).collect(),
            likely_cause: answer.likely_cause.as_ref().map(LikelyCause::words),
            verification: answer.verification.map(|it| Verified { result: it.as_str(), note: it.note(), runs }),
            push: answer.push.map(|push| Push { result: push.result.as_str(), said: push.said }),
            notes: answer.notes.clone(),
            nothing: false,
        }
    }

    fn tell(&self, good: bool) -> Result<(), End> {
        let say = |text: &str| out::line(&out::harmless(text));
        let not_included = self.not_included.iter().map(|it| &it.worker_id);
        let what = match self.integrated.as_slice() {
            [] => not_included.collect::<std::collections::BTreeSet<_>>().into_iter().cloned().collect::<Vec<_>>(),
            integrated => integrated.to_vec(),
        };
        let what = what.join(", ");
        let into = &self.into;
        let head = match (self.status, &self.commit) {
            ("would_merge", _) => format!("it would merge into {into}"),
            _ if self.nothing => format!("{what} has no commits: there is nothing to merge into {into}"),
            ("already_merged" | "already_integrated", _) => format!("{what} is in {into} already"),
            ("merged", Some(commit)) => format!("{what} is in {into}, which is at {} now", short(commit)),
            ("incomplete", _) => format!("nothing new on the branch of {what}, and not all of its work is on it"),
            (status, _) => format!("not in {into}: {}", status.replace('_', " ")),
        };
        out::line(&paint(if good { Tone::Good } else { Tone::Bad }, &out::harmless(&head)))?;
        for LeftOut { name, why } in &self.left_out {
            say(&format!("left out: {name}: {}", why.trim_end()))?;
        }
        for NotIncluded { worker_id, part } in &self.not_included {
            say(&format!("not included: {worker_id}: {} ({})", part.what, part.place))?;
            say(&format!("  to include it: {}", part.how_to_include))?;
        }
        for Conflict { path, kind } in &self.conflicts {
            say(&format!("conflict: {path} ({kind})"))?;
        }
        if let Some(Verified { result, note, .. }) = &self.verification {
            say(&format!(
                "verification: {} {}",
                result.replace('_', " "),
                note.as_deref().unwrap_or_default().trim_end()
            ))?;
        }
        if let Some(cause) = &self.likely_cause {
            say(&format!("likely cause: {cause}"))?;
        }
        if let Some(Push { result, said }) = &self.push {
            say(&format!("push: {} {}", result.replace('_', " "), said.trim_end()))?;
        }
        self.notes.iter().try_for_each(|note| say(&format!("note: {note}")))
    }
}

fn short(commit: &str) -> &str {
    commit.get(..10).unwrap_or(commit)
}
