//! `integrate`: merges workers' branches into another, as the tool `integrate_worker` does, and waits for the result.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::error::{self, CliError};
use super::hint;
use super::one_shot::{self, OneShotClient};
use super::output::{self, ProgressLine};
use super::places::Places;
use super::terminal::{Tone, paint};
use super::{sanitize, text};
use crate::mission::id::WorkerId;
use crate::mission::outcome::{LikelyCause, NotOnBranch};
use crate::orchestrator::{
    IntegrationAnswer, IntegrationRequest, IntegrationSource, IntegrationStatus, PushResult, Strategy,
};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orchestrator-boss integrate w-3
  orchestrator-boss integrate w-3 w-4 w-5 --verify-command \"cargo test\"
  orchestrator-boss integrate w-3 --dry-run
  orchestrator-boss integrate --branch fix/login --into main --push

Several workers make a train: merged in this order and verified together.
Branches that conflict or fail are left out. The target branch moves only at
the end.

Exit codes:
  0    all branches are merged (with --dry-run: would be merged)
  1    conflicts, a branch left out or not included, verification or push
       failed, or refused
  2    wrong usage, or unknown worker
  130  Ctrl-C: the branch has moved, or nothing has changed")]
pub(super) struct IntegrateArgs {
    /// Completed workers, such as w-3
    #[arg(value_name = "WORKER", required_unless_present = "branch")]
    workers: Vec<String>,
    /// Merge this branch instead of workers
    #[arg(long, value_name = "NAME", conflicts_with = "workers")]
    branch: Option<String>,
    /// Target branch [default: the integration branch]
    #[arg(long, value_name = "BRANCH")]
    into: Option<String>,
    /// Merge strategy
    #[arg(long, value_name = "STRATEGY", default_value = "merge")]
    strategy: StrategyOption,
    /// Command that must pass on the result before the branch moves [default: the workers' own, if they share one]
    #[arg(long, value_name = "COMMAND", value_parser = non_empty)]
    verify_command: Option<String>,
    /// Merge without a check
    #[arg(long, conflicts_with = "verify_command")]
    no_verify: bool,
    /// Push the branch to its upstream afterwards, without force
    #[arg(long)]
    push: bool,
    /// Show the result without changing anything
    #[arg(long)]
    dry_run: bool,
    /// Repository of the branch [default: the worker's repository]
    #[arg(long, value_name = "FOLDER")]
    repo_path: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Refuses an empty command, which would pass as a verification.
fn non_empty(command: &str) -> Result<String, &'static str> {
    match command.trim() {
        "" => Err("give a command, or omit --verify-command"),
        _ => Ok(command.to_owned()),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum StrategyOption {
    Merge,
    Squash,
    CherryPick,
}

/// The result of an integration.
#[derive(Debug, Serialize)]
pub(super) struct IntegrationSummary {
    status: &'static str,
    into: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    commit: Option<String>,
    integrated: Vec<String>,
    left_out: Vec<LeftOutEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_included: Vec<NotIncludedEntry>,
    conflicts: Vec<ConflictEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verification: Option<VerificationSummary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    likely_cause: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    push: Option<Push>,
    notes: Vec<String>,
    /// True if the worker has no commits.
    #[serde(skip)]
    nothing: bool,
    /// True if all branches are merged, or would be.
    #[serde(skip)]
    pub is_good: bool,
}

#[derive(Debug, Serialize)]
struct LeftOutEntry {
    name: String,
    why: String,
}

#[derive(Debug, Serialize)]
struct NotIncludedEntry {
    worker_id: String,
    #[serde(flatten)]
    part: NotOnBranch,
}

#[derive(Debug, Serialize)]
struct ConflictEntry {
    path: String,
    kind: String,
}

#[derive(Debug, Serialize)]
struct VerificationSummary {
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    /// Number of runs of the command.
    runs: usize,
}

#[derive(Debug, Serialize)]
struct Push {
    result: &'static str,
    said: String,
}

pub(super) fn run(args: &IntegrateArgs, places: &Places) -> ExitCode {
    output::run(async {
        let client = one_shot::open_for(places, &args.workers).await?;
        let progress = ProgressLine::new();
        let integrating = async {
            let (verify_command, note) = check_of(&client, args).await?;
            let request = IntegrationRequest { verify_command, ..request(args) };
            let mut report = integrate(&client, request, |doing| progress.show(doing)).await?;
            report.notes.extend(note);
            Ok::<_, CliError>(report)
        };
        let answer = output::unless_interrupted(integrating).await;
        drop(progress);
        client.close().await;
        let report = answer??;
        let _ = if args.json { output::json(&report) } else { report.print() };
        Ok(if report.is_good { ExitCode::SUCCESS } else { ExitCode::from(error::FAILED) })
    })
}

/// Returns the command to verify the result with: the one that the user gave, or else the workers' own if they share it.
/// If they do not, also returns a note.
async fn check_of(client: &OneShotClient, args: &IntegrateArgs) -> Result<(Option<String>, Option<String>), CliError> {
    if args.verify_command.is_some() || args.no_verify || args.branch.is_some() {
        return Ok((args.verify_command.clone(), None));
    }
    let mut commands = Vec::new();
    for worker in &args.workers {
        commands.push(client.find(worker).await?.worker.mission.verify_command.clone());
    }
    commands.dedup();
    match commands.as_slice() {
        [command] => Ok((command.clone(), None)),
        _ => {
            let note = "not verified, since the workers have different checks: --verify-command runs one on the result";
            Ok((None, Some(note.to_owned())))
        }
    }
}

const REDRAW: Duration = Duration::from_millis(200);

fn request(args: &IntegrateArgs) -> IntegrationRequest {
    let source = match (&args.branch, args.workers.as_slice()) {
        (Some(branch), _) => IntegrationSource::Branch(branch.clone()),
        (None, [one]) => IntegrationSource::Worker(one.clone()),
        (None, several) => IntegrationSource::Train(several.to_vec()),
    };
    IntegrationRequest {
        into: args.into.clone(),
        strategy: match args.strategy {
            StrategyOption::Merge => Strategy::Merge,
            StrategyOption::Squash => Strategy::Squash,
            StrategyOption::CherryPick => Strategy::CherryPick,
        },
        push: args.push,
        dry_run: args.dry_run,
        repo_path: args.repo_path.clone(),
        patience: None,
        ..IntegrationRequest::of(source)
    }
}

/// Merges one worker into its integration branch, after its own check has passed on the result. `show` gets the current
/// step.
pub(super) async fn integrate_one(
    client: &OneShotClient,
    worker: &WorkerId,
    show: impl Fn(&str),
) -> Result<IntegrationSummary, CliError> {
    let verify_command = client.find(worker.as_str()).await?.worker.mission.verify_command.clone();
    let source = IntegrationSource::Worker(worker.to_string());
    let request = IntegrationRequest { verify_command, patience: None, ..IntegrationRequest::of(source) };
    integrate(client, request, show).await
}

/// Carries out an integration. `show` gets the current step several times a second. An integration whose future is
/// dropped is undone when the client is closed, unless the branch has already moved.
async fn integrate(
    client: &OneShotClient,
    request: IntegrationRequest,
    show: impl Fn(&str),
) -> Result<IntegrationSummary, CliError> {
    let orchestrator = client.orchestrator();
    let first = match &request.source {
        IntegrationSource::Worker(name) => Some(name),
        IntegrationSource::Train(names) => names.first(),
        IntegrationSource::Branch(_) => None,
    };
    let boss = match first {
        Some(name) => client.find(name).await?.worker.boss.clone(),
        None => orchestrator.default_boss().clone(),
    };
    let work = orchestrator.integrate(&boss, request);
    tokio::pin!(work);
    let answer = loop {
        tokio::select! {
            answer = &mut work => break answer?,
            () = tokio::time::sleep(REDRAW) => {
                let doing = orchestrator.integrations().join("; ");
                show(if doing.is_empty() { "integrating" } else { &doing });
            }
        }
    };
    let nothing = orchestrator.had_nothing_to_integrate(&answer).await;
    Ok(IntegrationSummary { nothing, is_good: is_good(&answer), ..IntegrationSummary::new(answer) })
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

impl IntegrationSummary {
    fn new(answer: IntegrationAnswer) -> Self {
        let runs = answer.verifications;
        Self {
            status: answer.status.as_str(),
            into: answer.into,
            commit: answer.commit,
            integrated: answer.integrated,
            left_out: answer
                .left_out
                .into_iter()
                .map(|(name, why)| LeftOutEntry { name, why: hint::line(&why) })
                .collect(),
            not_included: answer
                .not_included
                .into_iter()
                .map(|(worker_id, part)| NotIncludedEntry { worker_id, part })
                .collect(),
            conflicts: answer.conflicts.into_iter().map(|(path, kind)| ConflictEntry { path, kind }).collect(),
            likely_cause: answer.likely_cause.as_ref().map(LikelyCause::words),
            verification: answer.verification.map(|it| VerificationSummary {
                result: it.as_str(),
                note: it.note(),
                runs,
            }),
            push: answer.push.map(|push| Push { result: push.result.as_str(), said: push.said }),
            notes: answer.notes.clone(),
            nothing: false,
            is_good: false,
        }
    }

    fn print(&self) -> Result<(), CliError> {
        let (head, rest) = (self.head(), self.details());
        let tone = if self.is_good { Tone::Good } else { Tone::Bad };
        output::line(&paint(tone, &sanitize::text(&head)))?;
        rest.iter().try_for_each(|line| output::line(&sanitize::text(line)))
    }

    /// Describes the result for users, in several lines.
    pub fn text(&self) -> String {
        [vec![self.head()], self.details()].concat().join("\n")
    }

    fn head(&self) -> String {
        let not_included = self.not_included.iter().map(|it| &it.worker_id);
        let what = match self.integrated.as_slice() {
            [] => not_included.collect::<std::collections::BTreeSet<_>>().into_iter().cloned().collect::<Vec<_>>(),
            integrated => integrated.to_vec(),
        };
        let what = what.join(", ");
        let into = &self.into;
        match (self.status, &self.commit) {
            ("would_merge", _) => format!("would merge into {into}"),
            _ if self.nothing => format!("{what} has no commits to merge into {into}"),
            ("already_merged" | "already_integrated", _) => format!("{what} is already in {into}"),
            ("merged", Some(commit)) => format!("merged {what} into {into}, now at {}", text::short_commit(commit)),
            ("incomplete", _) => format!("no new commits on the branch of {what}, and some of its work is not on it"),
            // The details name these reasons.
            ("conflicts", _) if !self.conflicts.is_empty() => format!("not merged into {into}"),
            (status, _) if status.starts_with("verification_") && self.verification.is_some() => {
                format!("not merged into {into}")
            }
            (status, _) => format!("not merged into {into}: {}", status.replace('_', " ")),
        }
    }

    /// Returns the reasons and the other facts that follow the head, one line each.
    fn details(&self) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        // The conflicts of a single source are listed below.
        let is_named = self.integrated.is_empty() && self.left_out.len() == 1 && !self.conflicts.is_empty();
        let left_out = self.left_out.iter().filter(|_| !is_named);
        lines.extend(left_out.map(|LeftOutEntry { name, why }| format!("left out: {name}: {}", why.trim_end())));
        for NotIncludedEntry { worker_id, part } in &self.not_included {
            lines.push(format!("not included: {worker_id}: {} ({})", part.what, part.place));
            lines.push(format!("  to include it: {}", part.how_to_include));
        }
        lines.extend(self.conflicts.iter().map(|ConflictEntry { path, kind }| format!("conflict: {path} ({kind})")));
        if let Some(VerificationSummary { result, note, .. }) = &self.verification {
            lines.push(result_line("verification", result, note.as_deref().unwrap_or_default()));
        }
        lines.extend(self.likely_cause.iter().map(|cause| format!("likely cause: {cause}")));
        if let Some(Push { result, said }) = &self.push {
            lines.push(result_line("push", result, said));
        }
        lines.extend(self.notes.iter().map(|note| format!("note: {note}")));
        lines
    }
}

/// Formats a result as `push: rejected: the reason`, or without a reason as `push: pushed`.
fn result_line(step: &str, result: &str, why: &str) -> String {
    let result = result.replace('_', " ");
    match why.trim_end() {
        "" => format!("{step}: {result}"),
        why => format!("{step}: {result}: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reason_follows_a_separator() {
        assert_eq!(result_line("verification", "passed", "\n"), "verification: passed");
        let line = result_line("push", "no_upstream", "there is no remote\n");
        assert_eq!(line, "push: no upstream: there is no remote");
    }
}
