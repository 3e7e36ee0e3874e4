//! `status`: shows all workers, once, live (`--watch`) or for programs (`--json`). It reads the state directory and
//! asks no server, so it shows the same with and without a running server. It changes nothing.

mod board;
mod detail;
mod json;
mod row;
mod screen;
mod table;
#[cfg(test)]
mod tests;
mod text;
mod watch;

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use self::board::{Board, Shown};
use self::row::Row;
use self::screen::Line;
use super::here::Here;
use super::out::{self, End};
use super::places::Places;
use super::{terminal, visit};
use crate::orchestrator::{self, Observer, Overview};

pub(super) use self::row::unchecked_words;
pub(super) use self::text::wrap_whole;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orchestrator-boss status
  orchestrator-boss status --watch
  orchestrator-boss status w-3
  orchestrator-boss status --json

--watch is left with q; ? shows its keys. The fields of --json are those of the
tools: get_worker_status for a worker; beside it as_of, counts, spent,
in_history, and bosses, each with boss, directory, is_here, spent and workers.

Exit codes:
  0    it was shown; also when there are no workers
  1    it could not be read
  2    wrong usage, or no such worker")]
pub(super) struct StatusArgs {
    /// One worker in detail, such as w-3
    worker: Option<String>,
    /// A live screen: workers, their logs and changes, keys to cancel and write
    #[arg(long, short, conflicts_with_all = ["worker", "json", "all"])]
    watch: bool,
    /// All settled workers too, not only the newest
    #[arg(long, conflicts_with = "worker")]
    all: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl StatusArgs {
    /// The terminal is drawn on: nothing else may be written there.
    pub(super) fn draws(&self) -> bool {
        self.watch
    }
}

pub(super) fn run(args: &StatusArgs, places: &Places) -> ExitCode {
    out::end(match args.watch {
        true => watch::run(places),
        false => said(args, places).and_then(|text| out::line(&text)).map(|()| ExitCode::SUCCESS),
    })
}

fn said(args: &StatusArgs, places: &Places) -> Result<String, End> {
    let here = Here::find(places).map_err(End::Failed)?;
    let mut observer = here.observe().map_err(End::Failed)?;
    // The wrong place is what surprises people here.
    let nothing =
        || format!("{}\n\nThe state directory that has none is {}", screen::NOTHING, here.state_root.display());
    let Some(observer) = &mut observer else {
        return match (&args.worker, args.json) {
            (Some(_), _) => Err(visit::nobody(&here.directory, &here.state_root)),
            (None, true) => Ok(json::nothing(&here)),
            (None, false) => Ok(nothing()),
        };
    };
    let overview = observer.look().map_err(visit::refused)?;
    if let Some(name) = &args.worker {
        let shown = one(observer, &overview, name)?;
        return Ok(match args.json {
            true => json::worker(&shown),
            false => colour(&detail::lines(&shown, terminal::width(), home().as_deref())),
        });
    }
    let board = Board::of(&overview);
    Ok(match args.json {
        true => json::board(&board, &overview, &here),
        false if board.groups.is_empty() => nothing(),
        false => colour(&screen::lines(&board, terminal::width(), args.all, home().as_deref())),
    })
}

fn one(observer: &Observer, overview: &Overview, name: &str) -> Result<Shown, End> {
    let found = observer.find(name).map_err(visit::refused)?;
    // If the worker is not in the history, the overview has more facts about it.
    let view = overview.workers().find(|view| view.worker.id == found.worker.id).cloned().unwrap_or(found);
    let is_led = overview.is_led(&view.worker);
    let written = orchestrator::written(&view.worker, &observer.folder(&view.worker.id));
    Ok(Shown { row: Row::of(&view, is_led, overview.as_of), view, is_led, written })
}

fn colour(lines: &[Line]) -> String {
    let piece = |(tone, text): &table::Piece| match tone {
        Some(tone) => terminal::paint(*tone, text),
        None => text.clone(),
    };
    let line = |line: &Line| line.iter().map(piece).collect::<String>();
    lines.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn home() -> Option<PathBuf> {
    env::var_os("HOME").map(PathBuf::from)
}
