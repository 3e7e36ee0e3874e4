//! `clean`: removes the worktrees of settled workers that hold no unmerged work, and with `--branches` their branches.
//! The orchestrator removes them: it checks again, and keeps ignored files in a salvage ref. With `--builds` it keeps
//! the worktrees, and deletes only the folders in them that tools create again.

mod builds;
mod plan;

use std::io::{self, BufRead, IsTerminal, Write};
use std::process::ExitCode;

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use self::plan::{BranchItem, CleanPlan, CleanScope, WorktreeItem};
use super::error::{self, CliError};
use super::hint;
use super::moment;
use super::one_shot::{self, OneShotClient};
use super::output;
use super::places::Places;
use super::sanitize;
use super::terminal::{Tone, bytes, paint};
use super::workspace::Workspace;
use crate::mission::words::count;
use crate::orchestrator::{RemovalRequest, RemovalTarget, RemovedWorktree};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orchestrator-boss clean --dry-run
  orchestrator-boss clean
  orchestrator-boss clean --branches --older-than 7d
  orchestrator-boss clean --yes --json
  orchestrator-boss clean --builds

A worktree is removed if its worker has finished, its branch is merged and it
has no uncommitted changes. --branches also deletes the branches that the server
named, if they are merged and their worktree is removed. Everything else is kept
and listed with the reason. The workers' logs are kept.

--builds removes no worktree. It deletes what tools create again (target,
node_modules, .venv and the like: the setting prune) in the worktrees of all
finished workers, merged or not. Work, files that git shows, and what was copied
into a worktree stay. A retry runs the setup command again.

Exit codes:
  0    everything listed was removed, or there was nothing to remove
  1    not everything was removed, or you declined
  2    wrong usage, or no terminal or --json without --yes or --dry-run
  130  Ctrl-C: some worktrees may already be removed")]
pub(super) struct CleanArgs {
    /// List what would be removed and what is kept; change nothing
    #[arg(long)]
    dry_run: bool,
    /// Also delete merged branches whose worktree is removed, now or earlier
    #[arg(long)]
    branches: bool,
    /// Keep all worktrees; delete the folders in them that tools create again
    #[arg(long, conflicts_with = "branches")]
    builds: bool,
    /// Only of workers that finished before then: 7d, 12h, 2026-11-23
    #[arg(long, value_name = "WHEN", value_parser = moment::parse)]
    older_than: Option<Timestamp>,
    /// Do not ask for confirmation
    #[arg(long, short, conflicts_with = "dry_run")]
    yes: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Maximum width of a column of names.
const MOST_NAME: usize = 40;

/// The result. With `--dry-run`, the result that a run would have.
#[derive(Debug, Default, Serialize)]
struct CleanReport {
    dry_run: bool,
    removed: Vec<RemovedItem>,
    kept: Vec<WorktreeItem>,
    #[serde(skip_serializing_if = "Option::is_none")]
    branches: Option<BranchReport>,
    bytes_freed: u64,
}

/// With `--branches`.
#[derive(Debug, Default, Serialize)]
struct BranchReport {
    deleted: Vec<BranchItem>,
    kept: Vec<BranchItem>,
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
    if args.builds {
        return output::run(builds::clean(args, places));
    }
    output::run(clean(args, places))
}

async fn clean(args: &CleanArgs, places: &Places) -> Result<ExitCode, CliError> {
    let workspace = Workspace::find(places)?;
    let scope = CleanScope { branches: args.branches, before: args.older_than };
    let checking = tokio::task::spawn_blocking(move || CleanPlan::of(&workspace, scope));
    let checking = output::with_progress(|| "checking the worktrees".to_owned(), checking);
    let plan = output::unless_interrupted(checking).await?.map_err(|error| CliError::Failed(error.to_string()))??;
    if !args.json {
        list(&plan)?;
    }
    if args.dry_run || plan.is_empty() {
        if args.json {
            output::json(&planned(args, plan))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if !confirmed(args, &format!("Remove {}?", what(&plan))).await? {
        return Ok(ExitCode::from(error::FAILED));
    }
    let mut cleaning = Cleaning { args, done: CleanReport::default(), is_complete: true };
    let mut client = None;
    let removing = async {
        let client = client.insert(one_shot::open(places).await?);
        cleaning.remove_all(client, plan).await;
        Ok::<(), CliError>(())
    };
    let ended = output::unless_interrupted(removing).await;
    if let Some(client) = client {
        client.close().await;
    }
    cleaning.print();
    ended??;
    Ok(if cleaning.is_complete { ExitCode::SUCCESS } else { ExitCode::from(error::FAILED) })
}

/// Returns the report of a call that removes nothing.
fn planned(args: &CleanArgs, plan: CleanPlan) -> CleanReport {
    CleanReport {
        dry_run: args.dry_run,
        removed: plan.goes.into_iter().map(|item| RemovedItem { item, salvage_ref: None }).collect(),
        kept: plan.stays,
        branches: args.branches.then_some(BranchReport { deleted: plan.branches_go, kept: plan.branches_stay }),
        bytes_freed: 0,
    }
}

/// A running clean-up. What it has done is reported even if it is interrupted.
struct Cleaning<'a> {
    args: &'a CleanArgs,
    done: CleanReport,
    /// False if something was kept that was to be removed.
    is_complete: bool,
}

impl Cleaning<'_> {
    async fn remove_all(&mut self, client: &OneShotClient, plan: CleanPlan) {
        let CleanPlan { goes, stays, mut branches_go, branches_stay } = plan;
        self.done.kept = stays;
        self.done.branches = self.args.branches.then_some(BranchReport { deleted: Vec::new(), kept: branches_stay });
        for item in goes {
            let its_branch = branches_go.iter().position(|branch| branch.worker_id == item.worker_id);
            let its_branch = its_branch.map(|at| branches_go.remove(at));
            self.remove(client, item, its_branch).await;
        }
        for branch in branches_go {
            let name = branch.worker_id.clone().unwrap_or_default();
            let deleted = remove(client, &name, true).await;
            self.note_branch(branch, deleted.as_ref());
        }
    }

    async fn remove(&mut self, client: &OneShotClient, mut item: WorktreeItem, branch: Option<BranchItem>) {
        let name = item.worker_id.clone().unwrap_or_default();
        // Another process may have removed it since the check.
        let was_there = item.path.exists();
        if !was_there {
            item.bytes = 0;
        }
        let removed = remove(client, &name, branch.is_some()).await;
        if let Some(branch) = branch {
            self.note_branch(branch, removed.as_ref());
        }
        match removed {
            Ok(removed) => {
                let salvage_ref = removed.salvage_ref;
                if let Some(kept) = &salvage_ref {
                    self.tell(&format!("{name}: its ignored files are kept in {kept}"));
                }
                self.done.bytes_freed += item.bytes;
                self.done.removed.push(RemovedItem { item, salvage_ref });
            }
            // Another process has removed it in the meantime, which the test above did not see yet.
            Err(_) if was_there && !item.path.exists() => {
                self.done.removed.push(RemovedItem { item: WorktreeItem { bytes: 0, ..item }, salvage_ref: None });
            }
            Err(why) => {
                self.tell(&format!("{name} is kept: {why}"));
                self.is_complete = false;
                self.done.kept.push(WorktreeItem { why, ..item });
            }
        }
    }

    /// Records whether a branch was deleted.
    fn note_branch(&mut self, branch: BranchItem, removed: Result<&RemovedWorktree, &String>) {
        let report = self.done.branches.get_or_insert_default();
        let why = match removed {
            // Another process may have deleted it since the check.
            Ok(removed) if removed.branch_deleted || removed.branch.is_none() => return report.deleted.push(branch),
            Ok(removed) => removed.note.clone().unwrap_or_else(|| "it was not deleted".to_owned()),
            Err(why) => why.clone(),
        };
        self.is_complete = false;
        let text = format!("{} is kept: {why}", branch.branch);
        report.kept.push(BranchItem { why, ..branch });
        self.tell(&text);
    }

    fn tell(&self, text: &str) {
        if !self.args.json {
            let _ = output::line(&sanitize::text(text));
        }
    }

    fn print(&self) {
        if self.args.json {
            let _ = output::json(&self.done);
            return;
        }
        let removed = count(self.done.removed.len(), "worktree");
        let deleted = self.done.branches.as_ref().map(|it| format!(", {} deleted", branches(it.deleted.len())));
        let deleted = deleted.unwrap_or_default();
        self.tell(&format!("{removed} removed{deleted}, {} freed", bytes(self.done.bytes_freed)));
    }
}

/// Removes what is left of a worker. Returns why it was kept as an error.
async fn remove(client: &OneShotClient, name: &str, delete_branch: bool) -> Result<RemovedWorktree, String> {
    let orchestrator = client.orchestrator();
    let target = RemovalTarget::Worker(name.to_owned());
    let request = RemovalRequest { target, repo_path: None, force: false, delete_branch };
    let removing = orchestrator.remove_worktree(orchestrator.default_boss(), request);
    let answer = output::with_progress(|| format!("cleaning up after {name}"), removing).await;
    let answer = answer.map_err(|error| CliError::from(error).to_string())?;
    let why = || answer.kept.iter().map(|kept| hint::of(&*kept.why)).collect::<Vec<_>>().join("; ");
    answer.removed.first().cloned().ok_or_else(why)
}

fn list(plan: &CleanPlan) -> Result<(), CliError> {
    let worktree = |item: &WorktreeItem| {
        let name = item.worker_id.clone().unwrap_or_else(|| item.path.display().to_string());
        (name, bytes(item.bytes), item.why.clone())
    };
    let branch = |item: &BranchItem| (item.branch.clone(), String::new(), item.why.clone());
    let size = bytes(plan.goes.iter().map(|item| item.bytes).sum());
    if plan.is_empty() {
        output::line("nothing to remove")?;
    }
    print_rows(&format!("can be removed ({size}):"), plan.goes.iter().map(worktree).collect())?;
    print_rows("branches that can be deleted:", plan.branches_go.iter().map(branch).collect())?;
    print_rows("kept:", plan.stays.iter().map(worktree).collect())?;
    print_rows("branches that are kept:", plan.branches_stay.iter().map(branch).collect())
}

/// Prints rows of a name, a size and a reason below a title, if there are any.
fn print_rows(title: &str, rows: Vec<(String, String, String)>) -> Result<(), CliError> {
    if rows.is_empty() {
        return Ok(());
    }
    output::line(&paint(Tone::Strong, title))?;
    let width =
        |cell: fn(&(String, String, String)) -> &String| rows.iter().map(|it| cell(it).len()).max().unwrap_or(0);
    let (names, sizes) = (width(|row| &row.0).min(MOST_NAME), width(|row| &row.1));
    rows.iter().try_for_each(|(name, size, why)| {
        let size = if size.is_empty() { String::new() } else { format!("{size:>sizes$}  ") };
        output::line(&format!("  {:<names$}  {size}{}", sanitize::text(name), sanitize::text(why)))
    })
}

/// Asks the user for confirmation, unless `--yes` was given.
async fn confirmed(args: &CleanArgs, question: &str) -> Result<bool, CliError> {
    if args.yes {
        return Ok(true);
    }
    if args.json {
        let how = "--json asks no question: use --yes to remove them or --dry-run to list them";
        return Err(CliError::Usage(how.to_owned()));
    }
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(CliError::Usage(
            "cannot ask without a terminal: use --yes to remove them or --dry-run to list them".to_owned(),
        ));
    }
    let question = format!("{question} [y/N] ");
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

fn what(plan: &CleanPlan) -> String {
    let worktrees = (!plan.goes.is_empty()).then(|| count(plan.goes.len(), "worktree"));
    let branches = (!plan.branches_go.is_empty()).then(|| branches(plan.branches_go.len()));
    worktrees.into_iter().chain(branches).collect::<Vec<_>>().join(" and ")
}

fn branches(number: usize) -> String {
    if number == 1 { "1 branch".to_owned() } else { format!("{number} branches") }
}
