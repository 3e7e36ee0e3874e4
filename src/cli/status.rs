//! `status`: shows all workers, once, live (`--watch`) or for programs (`--json`). It reads the state directory and
//! asks no server, so it shows the same with and without a running server. It changes nothing.

mod builds;
mod dashboard;
mod detail;
mod json;
mod row;
mod screen;
mod table;
#[cfg(test)]
mod tests;
mod watch;

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use self::builds::WorkerBuilds;
use self::dashboard::{Dashboard, DashboardWorker};
use self::row::WorkerRow;
use self::screen::ScreenLine;
use super::error::CliError;
use super::output;
use super::places::Places;
use super::terminal;
use super::workspace::Workspace;
use crate::orchestrator::{self, Observer, Overview};

pub(super) use self::row::unchecked_words;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orchestrator-boss status
  orchestrator-boss status --watch
  orchestrator-boss status w-3
  orchestrator-boss status --json

In --watch, press q to quit and ? for help. The fields of a worker in --json are
those of the tool get_worker_status, and builds: what tools create again in its
worktree. Others are as_of, counts, spent, in_history, builds, and bosses, each
with boss, directory, is_here, spent and workers.

Exit codes:
  0    success; also if there are no workers
  1    the state could not be read
  2    wrong usage, or unknown worker
  130  Ctrl-C after quitting --watch: a merge in progress is undone")]
pub(super) struct StatusArgs {
    /// Show one worker in detail, such as w-3
    worker: Option<String>,
    /// Show a live screen with logs, changes, and keys to message, merge and retry
    #[arg(long, short, conflicts_with_all = ["worker", "json", "all"])]
    watch: bool,
    /// Include all finished workers, not only the newest
    #[arg(long, conflicts_with = "worker")]
    all: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl StatusArgs {
    /// Returns whether the command draws on the terminal, so that nothing else may be written there.
    pub(super) fn draws(&self) -> bool {
        self.watch
    }
}

pub(super) fn run(args: &StatusArgs, places: &Places) -> ExitCode {
    output::end(if args.watch {
        watch::run(places)
    } else {
        render(args, places).and_then(|text| output::line(&text)).map(|()| ExitCode::SUCCESS)
    })
}

fn render(args: &StatusArgs, places: &Places) -> Result<String, CliError> {
    let workspace = Workspace::find(places)?;
    let mut observer = workspace.try_observer()?;
    // Names the state directory, since it may be the wrong one.
    let nothing = || format!("{}\n\nState directory: {}", screen::NOTHING, workspace.state_root.display());
    let Some(observer) = &mut observer else {
        return match (&args.worker, args.json) {
            (Some(_), _) => Err(workspace.no_workers()),
            (None, true) => Ok(json::nothing(&workspace)),
            (None, false) => Ok(nothing()),
        };
    };
    let overview = observer.read()?;
    if let Some(name) = &args.worker {
        let mut shown = find_worker(observer, &overview, name)?;
        let builds = WorkerBuilds::of(&workspace, observer, &overview, &shown.view.worker);
        return Ok(if args.json {
            json::worker(&shown, &builds)
        } else {
            shown.builds = builds.text();
            colour(&detail::lines(&shown, terminal::width(), home().as_deref()))
        });
    }
    let mut dashboard = Dashboard::of(&overview);
    dashboard.builds = builds::survey(&workspace, observer, &overview);
    if !args.json {
        dashboard.builds = dashboard.builds.filter(|survey| builds::is_worth_a_line(survey, &workspace));
    }
    Ok(if args.json {
        json::dashboard(&dashboard, &overview, &workspace)
    } else if dashboard.groups.is_empty() {
        nothing()
    } else {
        colour(&screen::lines(&dashboard, terminal::width(), args.all, home().as_deref()))
    })
}

fn find_worker(observer: &Observer, overview: &Overview, name: &str) -> Result<DashboardWorker, CliError> {
    let found = observer.find(name)?;
    // If the worker is not in the history, the overview has more facts about it.
    let view = overview.workers().find(|view| view.worker.id == found.worker.id).cloned().unwrap_or(found);
    let folder = observer.folder(&view.worker.id);
    let view = view.with_last_node(&folder);
    let is_led = overview.is_led(&view.worker);
    let messages = orchestrator::messages_to(&view.worker, &folder);
    let row = WorkerRow::of(&view, is_led, overview.as_of);
    Ok(DashboardWorker { row, view, is_led, messages, builds: String::new() })
}

fn colour(lines: &[ScreenLine]) -> String {
    let span = |(tone, text): &table::Span| match tone {
        Some(tone) => terminal::paint(*tone, text),
        None => text.clone(),
    };
    let line = |line: &ScreenLine| line.iter().map(span).collect::<String>();
    lines.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn home() -> Option<PathBuf> {
    env::var_os("HOME").map(PathBuf::from)
}
