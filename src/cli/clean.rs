//! `clean`: takes away the worktrees of settled workers of which nothing would be lost, branches excepted: those stay.
//! It decides by looking; removing is the orchestrator's, which looks again and keeps what nobody can see.

mod plan;

use std::io::{self, BufRead, IsTerminal, Write};
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use self::plan::{Item, Plan};
use super::here::Here;
use super::out::{self, End};
use super::places::Places;
use super::terminal::{Tone, bytes, count, paint};
use super::visit::{self, Visit};
use crate::orchestrator::{RemovalRequest, RemovalTarget};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orchestrator-boss clean --dry-run
  orchestrator-boss clean
  orchestrator-boss clean --yes --json

A worktree goes if its worker has settled, its branch is merged and nothing in
it is uncommitted. Everything else stays and is listed with the reason. Branches
and the workers' logs always stay.

Exit codes:
  0    what was listed is removed, or there was nothing to remove
  1    something stays that should have gone, or you said no
  2    wrong usage, or --yes is needed: nobody can be asked, or --json is given
  130  Ctrl-C: what was removed until then is removed")]
pub(super) struct CleanArgs {
    /// Only list what would be removed, and what stays and why
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long, short, conflicts_with = "dry_run")]
    yes: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    dry_run: bool,
    /// With --dry-run, what would be.
    removed: Vec<Gone>,
    kept: Vec<Item>,
    bytes_freed: u64,
}

#[derive(Debug, Serialize)]
struct Gone {
    #[serde(flatten)]
    item: Item,
    /// Keeps what was in it and nobody could see.
    #[serde(skip_serializing_if = "Option::is_none")]
    salvage_ref: Option<String>,
}

pub(super) fn run(args: &CleanArgs, places: &Places) -> ExitCode {
    out::run(clean(args, places))
}

async fn clean(args: &CleanArgs, places: &Places) -> Result<ExitCode, End> {
    let here = Here::find(places).map_err(End::Failed)?;
    let looking = tokio::task::spawn_blocking(move || Plan::of(&here));
    let looking = out::with_progress(|| "looking at the worktrees".to_owned(), looking);
    let plan = out::unless_interrupted(looking).await?.map_err(|error| End::Failed(error.to_string()))??;
    let Plan { goes, stays } = plan;
    if !args.json {
        list(&goes, &stays)?;
    }
    if args.dry_run || goes.is_empty() {
        if args.json {
            let removed = goes.into_iter().map(|item| Gone { item, salvage_ref: None }).collect::<Vec<_>>();
            let bytes_freed = 0;
            out::json(&Report { dry_run: args.dry_run, removed, kept: stays, bytes_freed })?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if !args.yes && args.json {
        let how = "with --json nobody is asked: --yes removes them, --dry-run only lists";
        return Err(End::Usage(how.to_owned()));
    }
    if !args.yes && !agreed(goes.len()).await? {
        return Ok(ExitCode::from(out::FAILED));
    }
    let mut done = Done { removed: Vec::new(), failed: Vec::new() };
    let mut visit = None;
    let removing = async {
        let visit = visit.insert(visit::visit(places).await?);
        remove(args, visit, goes, &mut done).await;
        Ok::<(), End>(())
    };
    let ended = out::unless_interrupted(removing).await;
    if let Some(visit) = visit {
        visit.leave().await;
    }
    let freed = done.removed.iter().map(|gone| gone.item.bytes).sum();
    let good = done.failed.is_empty();
    if args.json {
        let kept = stays.into_iter().chain(done.failed).collect();
        let _ = out::json(&Report { dry_run: false, removed: done.removed, kept, bytes_freed: freed });
    } else {
        let _ = out::line(&format!("{} removed, {} freed", count(done.removed.len() as u64, "worktree"), bytes(freed)));
    }
    ended??;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(out::FAILED) })
}

struct Done {
    removed: Vec<Gone>,
    failed: Vec<Item>,
}

async fn remove(args: &CleanArgs, visit: &Visit, goes: Vec<Item>, done: &mut Done) {
    let orchestrator = visit.orchestrator();
    for mut item in goes {
        let name = item.worker_id.clone().unwrap_or_default();
        // Somebody may have removed it since it was looked at.
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
        let removed = out::with_progress(|| format!("removing the worktree of {name}"), removing).await;
        let why = match removed {
            Ok(answer) if answer.kept.is_empty() => {
                let salvage_ref = answer.removed.into_iter().find_map(|removed| removed.salvage_ref);
                if let Some(kept) = salvage_ref.as_ref().filter(|_| !args.json) {
                    let _ = out::line(&format!("{name}: what was hidden in it is kept in {kept}"));
                }
                done.removed.push(Gone { item, salvage_ref });
                continue;
            }
            Ok(answer) => answer.kept.into_iter().map(|kept| kept.why).collect::<Vec<_>>().join("; "),
            Err(error) => visit::refused(error).to_string(),
        };
        if !args.json {
            let _ = out::line(&out::harmless(&format!("{name} stays: {why}")));
        }
        done.failed.push(Item { why, ..item });
    }
}

fn list(goes: &[Item], stays: &[Item]) -> Result<(), End> {
    let all: u64 = goes.iter().map(|item| item.bytes).sum();
    let name = |item: &Item| item.worker_id.clone().unwrap_or_else(|| item.path.display().to_string());
    let widest = goes.iter().chain(stays).map(|item| name(item).len()).max().unwrap_or(0).min(40);
    let tell = |item: &Item| {
        let (name, size) = (out::harmless(&name(item)), bytes(item.bytes));
        out::line(&format!("  {name:<widest$}  {size:>8}  {}", out::harmless(&item.why)))
    };
    if goes.is_empty() {
        out::line("nothing to remove")?;
    } else {
        out::line(&paint(Tone::Strong, &format!("can go ({}):", bytes(all))))?;
        goes.iter().try_for_each(tell)?;
    }
    if !stays.is_empty() {
        out::line(&paint(Tone::Strong, "stay:"))?;
        stays.iter().try_for_each(tell)?;
    }
    Ok(())
}

async fn agreed(worktrees: usize) -> Result<bool, End> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(End::Usage("nobody can be asked here: --yes removes them, --dry-run only lists".to_owned()));
    }
    let question = format!("Remove {}? [y/N] ", count(worktrees as u64, "worktree"));
    let asked = async {
        // Within, so that a Ctrl-C that answers it is heard.
        let _ = io::stderr().write_all(question.as_bytes());
        let answer = tokio::task::spawn_blocking(|| {
            let mut answer = String::new();
            let _ = io::stdin().lock().read_line(&mut answer);
            answer
        });
        let answer = answer.await.unwrap_or_default();
        matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
    };
    out::unless_interrupted(asked).await
}
