//! `clean`: removes the worktrees of settled workers that hold no unmerged work. Branches are kept. The orchestrator
//! removes them: it checks again, and keeps ignored files in a salvage ref.

mod plan;

use std::io::{self, BufRead, IsTerminal, Write};
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use self::plan::{CleanPlan, WorktreeItem};
use super::error::{self, CliError};
use super::hint;
use super::one_shot::{self, OneShotClient};
use super::output;
use super::places::Places;
use super::sanitize;
use super::terminal::{Tone, bytes, paint};
use super::workspace::Workspace;
use crate::mission::words::count;
use crate::orchestrator::{RemovalRequest, RemovalTarget};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orchestrator-boss clean --dry-run
  orchestrator-boss clean
  orchestrator-boss clean --yes --json

A worktree is removed if its worker has finished, its branch is merged and it
has no uncommitted changes. Others are kept and listed with the reason. Branches
and the workers' logs are always kept.

Exit codes:
  0    everything listed was removed, or there was nothing to remove
  1    not everything was removed, or you declined
  2    wrong usage, or no terminal or --json without --yes or --dry-run
  130  Ctrl-C: some worktrees may already be removed")]
pub(super) struct CleanArgs {
    /// List what would be removed and what is kept; change nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask for confirmation
    #[arg(long, short, conflicts_with = "dry_run")]
    yes: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct CleanReport {
    dry_run: bool,
    /// With `--dry-run`, the worktrees that would be removed.
    removed: Vec<RemovedItem>,
    kept: Vec<WorktreeItem>,
    bytes_freed: u64,
}

#[derive(Debug, Serialize)]
struct RemovedItem {
    #[serde(flatten)]
    item: WorktreeItem,
    /// Keeps the ignored files of the worktree.
    #[serde(skip_serializing_if = "Option::is_none")]
    salvage_ref: Option<String>,
}

pub(super) fn run(args: &CleanArgs, places: &Places) -> ExitCode {
    output::run(clean(args, places))
}

async fn clean(args: &CleanArgs, places: &Places) -> Result<ExitCode, CliError> {
    let workspace = Workspace::find(places)?;
    let checking = tokio::task::spawn_blocking(move || CleanPlan::of(&workspace));
    let checking = output::with_progress(|| "checking the worktrees".to_owned(), checking);
    let plan = output::unless_interrupted(checking).await?.map_err(|error| CliError::Failed(error.to_string()))??;
    let CleanPlan { goes, stays } = plan;
    if !args.json {
        list(&goes, &stays)?;
    }
    if args.dry_run || goes.is_empty() {
        if args.json {
            let removed = goes.into_iter().map(|item| RemovedItem { item, salvage_ref: None }).collect::<Vec<_>>();
            let bytes_freed = 0;
            output::json(&CleanReport { dry_run: args.dry_run, removed, kept: stays, bytes_freed })?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if !args.yes && args.json {
        let how = "--json asks no question: use --yes to remove them or --dry-run to list them";
        return Err(CliError::Usage(how.to_owned()));
    }
    if !args.yes && !confirmed(goes.len()).await? {
        return Ok(ExitCode::from(error::FAILED));
    }
    let mut done = RemovalResult { removed: Vec::new(), failed: Vec::new() };
    let mut client = None;
    let removing = async {
        let client = client.insert(one_shot::open(places).await?);
        remove(args, client, goes, &mut done).await;
        Ok::<(), CliError>(())
    };
    let ended = output::unless_interrupted(removing).await;
    if let Some(client) = client {
        client.close().await;
    }
    let freed = done.removed.iter().map(|removed| removed.item.bytes).sum();
    let good = done.failed.is_empty();
    if args.json {
        let kept = stays.into_iter().chain(done.failed).collect();
        let _ = output::json(&CleanReport { dry_run: false, removed: done.removed, kept, bytes_freed: freed });
    } else {
        let _ = output::line(&format!("{} removed, {} freed", count(done.removed.len(), "worktree"), bytes(freed)));
    }
    ended??;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(error::FAILED) })
}

struct RemovalResult {
    removed: Vec<RemovedItem>,
    failed: Vec<WorktreeItem>,
}

async fn remove(args: &CleanArgs, client: &OneShotClient, goes: Vec<WorktreeItem>, done: &mut RemovalResult) {
    let orchestrator = client.orchestrator();
    for mut item in goes {
        let name = item.worker_id.clone().unwrap_or_default();
        // Another process may have removed it since the check.
        if !item.path.exists() {
            item.bytes = 0;
        }
        let request = RemovalRequest {
            target: RemovalTarget::Worker(name.clone()),
            repo_path: None,
            force: false,
            delete_branch: false,
        };
        let removing = orchestrator.remove_worktree(orchestrator.default_boss(), request);
        let removed = output::with_progress(|| format!("removing the worktree of {name}"), removing).await;
        let why = match removed {
            Ok(answer) if answer.kept.is_empty() => {
                let salvage_ref = answer.removed.into_iter().find_map(|removed| removed.salvage_ref);
                if let Some(kept) = salvage_ref.as_ref().filter(|_| !args.json) {
                    let _ = output::line(&format!("{name}: its ignored files are kept in {kept}"));
                }
                done.removed.push(RemovedItem { item, salvage_ref });
                continue;
            }
            Ok(answer) => answer.kept.into_iter().map(|kept| hint::of(&*kept.why)).collect::<Vec<_>>().join("; "),
            Err(error) => CliError::from(error).to_string(),
        };
        if !args.json {
            let _ = output::line(&sanitize::text(&format!("{name} is kept: {why}")));
        }
        done.failed.push(WorktreeItem { why, ..item });
    }
}

fn list(goes: &[WorktreeItem], stays: &[WorktreeItem]) -> Result<(), CliError> {
    let all: u64 = goes.iter().map(|item| item.bytes).sum();
    let name = |item: &WorktreeItem| item.worker_id.clone().unwrap_or_else(|| item.path.display().to_string());
    let widest = goes.iter().chain(stays).map(|item| name(item).len()).max().unwrap_or(0).min(40);
    let print = |item: &WorktreeItem| {
        let (name, size) = (sanitize::text(&name(item)), bytes(item.bytes));
        output::line(&format!("  {name:<widest$}  {size:>8}  {}", sanitize::text(&item.why)))
    };
    if goes.is_empty() {
        output::line("nothing to remove")?;
    } else {
        output::line(&paint(Tone::Strong, &format!("can be removed ({}):", bytes(all))))?;
        goes.iter().try_for_each(print)?;
    }
    if !stays.is_empty() {
        output::line(&paint(Tone::Strong, "kept:"))?;
        stays.iter().try_for_each(print)?;
    }
    Ok(())
}

async fn confirmed(worktrees: usize) -> Result<bool, CliError> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(CliError::Usage(
            "cannot ask without a terminal: use --yes to remove them or --dry-run to list them".to_owned(),
        ));
    }
    let question = format!("Remove {}? [y/N] ", count(worktrees, "worktree"));
    let asked = async {
        // Printed here, so that a Ctrl-C in answer to it is noticed.
        let _ = io::stderr().write_all(question.as_bytes());
        let answer = tokio::task::spawn_blocking(|| {
            let mut answer = String::new();
            let _ = io::stdin().lock().read_line(&mut answer);
            answer
        });
        let answer = answer.await.unwrap_or_default();
        matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
    };
    output::unless_interrupted(asked).await
}
