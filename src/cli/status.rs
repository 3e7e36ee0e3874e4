//! `status`: all workers at a glance, once, live (`--watch`) or for programs (`--json`). It reads the state directory and
//! asks no server, so it tells the same whether one lives or not; it changes nothing.

mod board;
mod detail;
mod json;
mod row;
mod screen;
mod table;
#[cfg(test)]
mod tests;
mod text;

use std::env;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use self::board::{Board, Shown};
use self::row::Row;
use self::screen::Line;
use super::Places;
use super::here::Here;
use super::terminal;
use crate::mission::causes::with_causes;
use crate::orchestrator::Observer;

#[derive(Debug, Args)]
#[command(after_help = "\
Exit status: 0 it was shown (also when there are no workers), 1 it could not be read or there is no such worker, 2 wrong usage.")]
pub(super) struct StatusArgs {
    /// One worker in detail: its id, its beginning with the whole number (w-3), or its task
    worker: Option<String>,
    /// Show all settled workers, not only the newest
    #[arg(long, conflicts_with = "worker")]
    all: bool,
    /// As JSON, with the names that the tools use
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &StatusArgs, places: &Places) -> ExitCode {
    match said(args, places) {
        Ok(text) => print(&text),
        Err(error) => {
            eprintln!("orchestrator-boss status: {error}");
            ExitCode::FAILURE
        }
    }
}

fn said(args: &StatusArgs, places: &Places) -> Result<String, String> {
    let here = Here::find(places)?;
    let mut observer = here.observe()?;
    let Some(observer) = &mut observer else {
        return match (&args.worker, args.json) {
            (Some(name), _) => {
                Err(format!("there is no worker {name:?}: nothing was ever asked for in {}", here.state_root.display()))
            }
            (None, true) => Ok(json::nothing(&here)),
            (None, false) => Ok(screen::NOTHING.to_owned()),
        };
    };
    let overview = observer.look().map_err(|error| with_causes(&error))?;
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
        false if board.groups.is_empty() => screen::NOTHING.to_owned(),
        false => colour(&screen::lines(&board, terminal::width(), args.all, home().as_deref())),
    })
}

fn one(observer: &Observer, overview: &crate::orchestrator::Overview, name: &str) -> Result<Shown, String> {
    let found = observer.find(name).map_err(|error| with_causes(&error))?;
    // Of one that is not in the history there is more to tell.
    let view = overview.workers().find(|view| view.worker.id == found.worker.id).cloned().unwrap_or(found);
    let is_led = overview.is_led(&view.worker);
    Ok(Shown { row: Row::of(&view, is_led, overview.as_of), view, is_led })
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

/// A reader that has seen enough (`| head`) is no failure.
fn print(text: &str) -> ExitCode {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("orchestrator-boss status: could not write: {error}");
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}
