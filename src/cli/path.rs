//! `path`: prints the path of a worker's worktree, for a shell. Only reads.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::error::CliError;
use super::output;
use super::places::Places;
use super::sanitize;
use super::terminal;
use super::workspace::Workspace;
use super::worktree;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orchestrator-boss path w-3
  orchestrator-boss path w-3 --json

In a shell: cd \"$(orchestrator-boss path w-3)\"

Exit codes:
  0    success
  1    the worktree was removed, or not created yet
  2    wrong usage, or unknown worker")]
pub(super) struct PathArgs {
    /// Worker, such as w-3
    worker: String,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct PathDocument<'a> {
    worker_id: &'a str,
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    branch: Option<&'a str>,
}

pub(super) fn run(args: &PathArgs, places: &Places) -> ExitCode {
    output::run(async { path(args, places) })
}

fn path(args: &PathArgs, places: &Places) -> Result<ExitCode, CliError> {
    let worker = worktree::find(&Workspace::find(places)?, &args.worker, "print the path of")?;
    // Records of workers hold only paths that are UTF-8.
    let path = worker.mission.place.path().to_str().unwrap_or_default();
    if args.json {
        output::json(&PathDocument { worker_id: worker.id.as_str(), path, branch: worker.branch() })?;
    } else if terminal::is_terminal() {
        output::line(&sanitize::text(path))?;
    } else {
        output::line(path)?;
    }
    Ok(ExitCode::SUCCESS)
}
