//! `logs`: prints a worker's events, attempt by attempt, or its CLI's output, byte by byte. Only reads.

mod raw;
pub(super) mod say;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use tokio::time::Instant;

use super::changes::Changes;
use super::here::Here;
use super::out::{self, End};
use super::places::Places;
use super::visit;
use crate::attempt::worker_dir::AttemptDir;
use crate::cli::hint;
use crate::files::lease;
use crate::mission::delivery;
use crate::mission::id::WorkerId;
use crate::orchestrator::{LoggedEvent, Observer, WorkerView};
use crate::process::Tail;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orchestrator-boss logs w-3
  orchestrator-boss logs w-3 --follow
  orchestrator-boss logs w-3 --attempt all --lines 50
  orchestrator-boss logs w-3 --raw=stderr > codex.log
  orchestrator-boss logs w-3 --json

--follow ends when the worker has settled for good; automatic retries are
followed too. With --json, each line is one event.

Exit codes:
  0    all was shown
  1    it could not be read
  2    wrong usage, or no such worker
  130  Ctrl-C")]
pub(super) struct LogsArgs {
    /// A worker, such as w-3
    worker: String,
    /// Go on as it is written, until the worker settles
    #[arg(long, short)]
    follow: bool,
    /// What its CLI itself printed
    #[arg(long, value_name = "STREAM", num_args = 0..=1, require_equals = true, default_missing_value = "stdout")]
    raw: Option<Stream>,
    /// Which attempt, or all of them [default: the newest]
    #[arg(long, value_name = "N|all")]
    attempt: Option<Which>,
    /// Only the last N events
    #[arg(long, short = 'n', value_name = "N", conflicts_with = "raw")]
    lines: Option<usize>,
    /// Print one JSON object a line
    #[arg(long, conflicts_with = "raw")]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Stream {
    Stdout,
    Stderr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    All,
    Number(u32),
}

impl FromStr for Which {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "all" => Ok(Which::All),
            text => text.parse().map(Which::Number).map_err(|_| "a number, or all"),
        }
    }
}

pub(super) fn run(args: &LogsArgs, places: &Places) -> ExitCode {
    out::run(async {
        // Without --follow, Ctrl-C ends it as it ends any program.
        match args.follow {
            true => out::unless_interrupted(logs(args, places)).await?,
            false => logs(args, places).await,
        }
    })
}

/// The supervisor is gone, and nobody says how the attempt ended, for this long.
const UNATTENDED: Duration = Duration::from_secs(15);

struct Logs<'a> {
    args: &'a LogsArgs,
    observer: Observer,
    worker: WorkerId,
    changes: Changes,
}

async fn logs(args: &LogsArgs, places: &Places) -> Result<ExitCode, End> {
    let here = Here::find(places).map_err(End::Failed)?;
    let observer = visit::observer(&here)?;
    let view = observer.find(&args.worker).map_err(visit::refused)?;
    let worker = view.worker.id.clone();
    let mut changes = Changes::new(|_| true);
    changes.watch(&observer.state_root().join("journal"));
    let mut logs = Logs { args, observer, worker, changes };
    let mut shown = 0;
    for attempt in logs.chosen(&view)? {
        logs.show(attempt).await?;
        shown = attempt;
    }
    if args.follow && !matches!(args.attempt, Some(Which::Number(_))) {
        while let Some(attempt) = logs.next_attempt(shown).await? {
            logs.show(attempt).await?;
            shown = attempt;
        }
    } else if shown == 0 && !args.json && args.raw.is_none() {
        let waits = view.waits_for.map_or_else(String::new, |what| format!(", it waits for {what}"));
        out::line(&out::harmless(&format!("{} is {}: nothing ran yet{waits}", logs.worker, view.worker.status)))?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Logs<'_> {
    fn chosen(&self, view: &WorkerView) -> Result<Vec<u32>, End> {
        let there = self.observer.folder(&view.worker.id).attempts();
        match self.args.attempt {
            None => Ok(there.last().copied().into_iter().collect()),
            Some(Which::All) => Ok(there),
            Some(Which::Number(number)) if there.contains(&number) => Ok(vec![number]),
            Some(Which::Number(number)) => {
                let known = there.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
                let known = if known.is_empty() { "none yet".to_owned() } else { known };
                Err(End::Usage(format!("{} has no attempt {number}; there is {known}", self.worker)))
            }
        }
    }

    async fn show(&mut self, number: u32) -> Result<(), End> {
        let attempt = self.observer.folder(&self.worker).attempt(number);
        self.changes.watch(attempt.root());
        if let Some(stream) = self.args.raw {
            let path = match stream {
                Stream::Stdout => attempt.stdout(),
                Stream::Stderr => attempt.stderr(),
            };
            return self.show_raw(raw::Raw::new(path), &attempt).await;
        }
        if self.args.follow {
            self.until_assigned(&attempt).await?;
        }
        let teller = say::Teller::new(&attempt, number, self.args.json);
        teller.begin()?;
        let read = self.tell_what_is_there(&teller, &attempt).await?;
        if self.args.follow {
            self.tell_what_comes(&teller, &attempt, read).await?;
        }
        teller.end()
    }

    /// The folder of an attempt is there a moment before it says with what it begins.
    async fn until_assigned(&mut self, attempt: &AttemptDir) -> Result<(), End> {
        while !attempt.assignment().exists() && !self.is_over(attempt)? {
            self.changes.next().await;
        }
        Ok(())
    }

    async fn show_raw(&mut self, mut raw: raw::Raw, attempt: &AttemptDir) -> Result<(), End> {
        loop {
            // Looked at before reading: what is written after it settled is not waited for.
            let is_over =
                !self.args.follow || self.is_over(attempt)? || (raw.is_open() && !lease::is_held(&attempt.lock()));
            raw.show().await?;
            if is_over {
                return Ok(());
            }
            self.changes.next().await;
        }
    }

    /// Returns how far it read, in bytes.
    async fn tell_what_is_there(&self, teller: &say::Teller, attempt: &AttemptDir) -> Result<u64, End> {
        let Ok(file) = File::open(attempt.events()) else { return Ok(0) };
        let mut lines = BufReader::new(file);
        let (mut read, mut line, mut count) = (0, Vec::new(), 0_u32);
        let mut last: VecDeque<LoggedEvent> = VecDeque::new();
        let mut left_out = false;
        loop {
            line.clear();
            let length = lines.read_until(b'\n', &mut line).map_err(|error| cannot_read(attempt, &error))?;
            if !line.ends_with(b"\n") {
                break;
            }
            read += length as u64;
            // Half a line, after a crash, is no event.
            let Ok(event) = serde_json::from_slice::<LoggedEvent>(&line) else { continue };
            match self.args.lines {
                None => teller.tell(&event)?,
                Some(most) => {
                    if teller.is_told(&event) {
                        last.push_back(event);
                    }
                    if last.len() > most {
                        left_out = true;
                        last.pop_front();
                    }
                }
            }
            count += 1;
            if count.is_multiple_of(256) {
                tokio::task::yield_now().await;
            }
        }
        if let Some(first) = last.front().filter(|_| left_out) {
            teller.leave_out_letters(first.at);
        }
        last.iter().try_for_each(|event| teller.tell(event))?;
        Ok(read)
    }

    /// Until the attempt has settled, or nobody is left who could settle it.
    async fn tell_what_comes(&mut self, teller: &say::Teller, attempt: &AttemptDir, from: u64) -> Result<(), End> {
        while !attempt.events().exists() {
            if self.is_over(attempt)? {
                return Ok(());
            }
            self.changes.next().await;
        }
        let mut tail = Tail::open(&attempt.events(), from).map_err(|error| End::Failed(hint::of(&error)))?;
        let mut alone = None;
        loop {
            tokio::select! {
                line = tail.next() => match line.map_err(|error| End::Failed(hint::of(&error)))? {
                    Some(line) => {
                        if let Ok(event) = serde_json::from_str(&line.text) {
                            teller.tell(&event)?;
                        }
                    }
                    None => return Ok(()),
                },
                () = self.changes.next() => {
                    tail.poll_now();
                    teller.look_again();
                    if self.is_over(attempt)? {
                        tail.finish();
                    } else if lease::is_held(&attempt.lock()) {
                        alone = None;
                    } else if alone.get_or_insert_with(Instant::now).elapsed() > UNATTENDED {
                        note("its supervisor is gone and nobody says how it ended: the next server here does");
                        tail.finish();
                    }
                }
            }
        }
    }

    /// One that was taken back never ran, and never will.
    fn is_over(&mut self, attempt: &AttemptDir) -> Result<bool, End> {
        if attempt.outcome_path().exists() {
            return Ok(true);
        }
        let view = self.look()?;
        let this = attempt.root().file_name().and_then(|name| name.to_str()?.parse().ok()).unwrap_or(0);
        Ok(view.worker.attempt > this || (view.worker.attempt == this && delivery::is_final(&view.worker)))
    }

    fn look(&mut self) -> Result<WorkerView, End> {
        self.observer.look().map_err(visit::refused)?;
        self.observer.find(self.worker.as_str()).map_err(visit::refused)
    }

    /// Waits for the attempt after this one, if there will be one.
    async fn next_attempt(&mut self, shown: u32) -> Result<Option<u32>, End> {
        let mut said = false;
        loop {
            let view = self.look()?;
            let folder = self.observer.folder(&self.worker);
            self.changes.watch(folder.root());
            self.changes.watch(&folder.root().join("attempts"));
            if let Some(next) = folder.attempts().into_iter().find(|number| *number > shown) {
                return Ok(Some(next));
            }
            if delivery::is_final(&view.worker) && view.worker.attempt <= shown {
                return Ok(None);
            }
            if !said && !view.worker.status.is_live() {
                said = true;
                let block = view.block.as_ref().map(hint::line);
                let what = block.or(view.waits_for).unwrap_or_else(|| "its next attempt".to_owned());
                note(&format!("{} is {}; it waits for {what}", self.worker, view.worker.status));
            }
            self.changes.next().await;
        }
    }
}

/// Beside the log, whether anybody reads that or not.
fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{}", out::harmless(text));
}

fn cannot_read(attempt: &AttemptDir, error: &std::io::Error) -> End {
    End::Failed(format!("could not read {}: {error}", attempt.events().display()))
}
