//! `logs --grep`: the lines of all events, messages and endings that match, of one worker or of all, including those in
//! the history.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::ExitCode;
use std::sync::Arc;

use regex_lite::Regex;

use super::matches::Matches;
use super::printer::{Format, LogPrinter};
use crate::attempt::worker_dir::AttemptDir;
use crate::cli::error::{self, CliError};
use crate::mission::registry::Worker;
use crate::orchestrator::Observer;

/// Prints the matching lines, oldest worker first. As with `grep`, no match is exit code 1.
pub(super) fn grep(
    pattern: &Regex,
    worker: Option<&str>,
    json: bool,
    mut observer: Observer,
) -> Result<ExitCode, CliError> {
    let overview = observer.read()?;
    let workers: Vec<Arc<Worker>> = match worker {
        Some(name) => vec![observer.find(name)?.worker],
        None => {
            let archived = observer.archived(|_| true);
            let mut all: Vec<_> = archived.iter().chain(overview.workers()).map(|view| view.worker.clone()).collect();
            all.sort_by_key(|worker| worker.number());
            all
        }
    };
    let mut found = false;
    for worker in &workers {
        let matches = Matches::new(pattern, json, worker);
        let folder = observer.folder(&worker.id);
        for number in folder.attempts() {
            search(&matches, number, &folder.attempt(number))?;
        }
        found |= matches.any();
    }
    Ok(if found { ExitCode::SUCCESS } else { ExitCode::from(error::FAILED) })
}

/// Prints the matches of one attempt.
fn search(matches: &Matches<'_>, number: u32, attempt: &AttemptDir) -> Result<(), CliError> {
    let printer = LogPrinter::new(attempt, number, Format::Matches(matches));
    printer.begin()?;
    if let Ok(file) = File::open(attempt.events()) {
        for line in BufReader::new(file).split(b'\n') {
            let line = line.map_err(|error| super::cannot_read(attempt, &error))?;
            // After a crash, half a line may be left, which is no event.
            if let Ok(logged) = serde_json::from_slice(&line) {
                printer.print(&logged)?;
            }
        }
    }
    printer.end()
}
