//! `logs`: prints a worker's events by attempt, or the raw output of its CLI or its job. Only reads.

mod grep;
mod matches;
pub(super) mod printer;
mod raw;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use regex_lite::Regex;
use tokio::time::Instant;

use super::error::CliError;
use super::file_watcher::FileWatcher;
use super::hint;
use super::output;
use super::places::Places;
use super::sanitize;
use super::workspace::Workspace;
use crate::attempt::launch::{self, Launch};
use crate::attempt::worker_dir::AttemptDir;
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
  orchestrator-boss logs w-3 --engine
  orchestrator-boss logs w-3 --json
  orchestrator-boss logs --grep \"panicked|error\"

--follow ends when the worker has finished; it includes automatic retries.
With --json, each line is one event. --grep searches the events, messages and
endings of all attempts, and of all workers if none is named; each line begins
with the worker's id.

Exit codes:
  0    success
  1    the log could not be read, or no line matches --grep
  2    wrong usage, or unknown worker
  130  Ctrl-C")]
pub(super) struct LogsArgs {
    /// Worker, such as w-3
    #[arg(required_unless_present = "grep")]
    worker: Option<String>,
    /// Print only lines that match this regular expression
    #[arg(long, value_name = "RE", conflicts_with_all = ["follow", "raw", "engine", "attempt", "lines"])]
    grep: Option<Regex>,
    /// Follow new output until the worker finishes
    #[arg(long, short)]
    follow: bool,
    /// Print the raw output of its CLI, or of its setup
    #[arg(long, value_name = "STREAM", num_args = 0..=1, require_equals = true, default_missing_value = "stdout")]
    raw: Option<Stream>,
    /// Print what its job on the cluster printed
    #[arg(long, conflicts_with_all = ["raw", "lines", "json"])]
    engine: bool,
    /// Number of the attempt to print, or `all` [default: the newest]
    #[arg(long, value_name = "N|all")]
    attempt: Option<AttemptChoice>,
    /// Print only the last N events
    #[arg(long, short = 'n', value_name = "N", conflicts_with = "raw")]
    lines: Option<usize>,
    /// Print one JSON object per line
    #[arg(long, conflicts_with = "raw")]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Stream {
    Stdout,
    Stderr,
    Setup,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AttemptChoice {
    All,
    Number(u32),
}

impl FromStr for AttemptChoice {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "all" => Ok(AttemptChoice::All),
            text => text.parse().map(AttemptChoice::Number).map_err(|_| "a number, or all"),
        }
    }
}

pub(super) fn run(args: &LogsArgs, places: &Places) -> ExitCode {
    output::run(async {
        // Without --follow, Ctrl-C ends the process as usual.
        if args.follow { output::unless_interrupted(logs(args, places)).await? } else { logs(args, places).await }
    })
}

/// Time limit for an outcome after the supervisor has ended.
const ORPHAN_LIMIT: Duration = Duration::from_secs(15);

struct LogReader<'a> {
    args: &'a LogsArgs,
    observer: Observer,
    worker: WorkerId,
    watcher: FileWatcher,
}

async fn logs(args: &LogsArgs, places: &Places) -> Result<ExitCode, CliError> {
    let workspace = Workspace::find(places)?;
    let observer = workspace.observer()?;
    if let Some(pattern) = &args.grep {
        return grep::grep(pattern, args.worker.as_deref(), args.json, observer);
    }
    let view = observer.find(args.worker.as_deref().unwrap_or_default())?;
    let worker = view.worker.id.clone();
    let mut watcher = FileWatcher::new(|_| true);
    watcher.watch(&observer.state_root().join("journal"));
    let mut logs = LogReader { args, observer, worker, watcher };
    let mut shown = 0;
    for attempt in logs.chosen_attempts(&view)? {
        logs.show(attempt).await?;
        shown = attempt;
    }
    if args.follow && !matches!(args.attempt, Some(AttemptChoice::Number(_))) {
        while let Some(attempt) = logs.next_attempt(shown).await? {
            logs.show(attempt).await?;
            shown = attempt;
        }
    } else if shown == 0 && !args.json && args.raw.is_none() {
        let waits = view.waits_for.map_or_else(String::new, |what| format!(", waiting for {what}"));
        output::line(&sanitize::text(&format!("{} is {}: no attempt yet{waits}", logs.worker, view.worker.status)))?;
    }
    Ok(ExitCode::SUCCESS)
}

impl LogReader<'_> {
    fn chosen_attempts(&self, view: &WorkerView) -> Result<Vec<u32>, CliError> {
        let there = self.observer.folder(&view.worker.id).attempts();
        match self.args.attempt {
            None => Ok(there.last().copied().into_iter().collect()),
            Some(AttemptChoice::All) => Ok(there),
            Some(AttemptChoice::Number(number)) if there.contains(&number) => Ok(vec![number]),
            Some(AttemptChoice::Number(number)) => {
                let known = there.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
                let known = if known.is_empty() { "none yet".to_owned() } else { known };
                Err(CliError::Usage(format!("{} has no attempt {number}; there is {known}", self.worker)))
            }
        }
    }

    async fn show(&mut self, number: u32) -> Result<(), CliError> {
        let attempt = self.observer.folder(&self.worker).attempt(number);
        self.watcher.watch(attempt.root());
        if attempt.logs_are_removed() {
            output::note(&format!(
                "the logs of attempt {number} were removed, since they were older than the setting log_days"
            ));
        }
        if let Some(path) = self.raw_path(&attempt, number)? {
            return self.show_raw(raw::RawOutput::new(path), &attempt).await;
        }
        if self.args.follow {
            self.until_assigned(&attempt).await?;
        }
        let format = if self.args.json { printer::Format::Json } else { printer::Format::Text };
        let printer = printer::LogPrinter::new(&attempt, number, format);
        printer.begin()?;
        let read = self.print_existing(&printer, &attempt).await?;
        if self.args.follow {
            self.print_new(&printer, &attempt, read).await?;
        }
        printer.end()
    }

    /// Returns the file to print unchanged. `None` if the events are asked for.
    fn raw_path(&self, attempt: &AttemptDir, number: u32) -> Result<Option<PathBuf>, CliError> {
        if self.args.engine {
            return self.engine_log(attempt, number).map(Some);
        }
        Ok(self.args.raw.map(|stream| match stream {
            Stream::Stdout => attempt.stdout(),
            Stream::Stderr => attempt.stderr(),
            Stream::Setup => attempt.setup_log(),
        }))
    }

    fn engine_log(&self, attempt: &AttemptDir, number: u32) -> Result<PathBuf, CliError> {
        let launch = Launch::read(attempt).map_err(|error| CliError::Failed(hint::of(&error)))?;
        let Some(launch) = launch else {
            let text = format!("attempt {number} of {} does not run on a cluster: it has no job", self.worker);
            return Err(CliError::Failed(text));
        };
        let path = attempt.engine_log();
        if !path.exists() {
            let job = launch.job.map_or_else(
                || "its job is not submitted".to_owned(),
                |job| format!("job {job} on {}", launch.launcher),
            );
            output::note(&format!("nothing is printed yet ({job})"));
        }
        Ok(path)
    }

    /// Waits for the assignment, which is written a moment after the folder of the attempt.
    async fn until_assigned(&mut self, attempt: &AttemptDir) -> Result<(), CliError> {
        while !attempt.assignment().exists() && !self.is_over(attempt)? {
            self.watcher.next().await;
        }
        Ok(())
    }

    async fn show_raw(&mut self, mut raw: raw::RawOutput, attempt: &AttemptDir) -> Result<(), CliError> {
        loop {
            // Checked before reading, since nothing is written after the attempt has settled.
            let is_over = !self.args.follow || self.is_over(attempt)? || (raw.is_open() && !launch::may_live(attempt));
            raw.show().await?;
            if is_over {
                return Ok(());
            }
            self.watcher.next().await;
        }
    }

    /// Prints the events so far, and returns the number of bytes read.
    async fn print_existing(&self, printer: &printer::LogPrinter<'_>, attempt: &AttemptDir) -> Result<u64, CliError> {
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
            // After a crash, half a line may be left, which is no event.
            let Ok(event) = serde_json::from_slice::<LoggedEvent>(&line) else { continue };
            match self.args.lines {
                None => printer.print(&event)?,
                Some(most) => {
                    if printer.is_printed(&event) {
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
            printer.skip_messages_until(first.at);
        }
        last.iter().try_for_each(|event| printer.print(event))?;
        Ok(read)
    }

    /// Prints new events until the attempt has settled, or no process is left that could settle it.
    async fn print_new(
        &mut self,
        printer: &printer::LogPrinter<'_>,
        attempt: &AttemptDir,
        from: u64,
    ) -> Result<(), CliError> {
        while !attempt.events().exists() {
            if self.is_over(attempt)? {
                return Ok(());
            }
            self.watcher.next().await;
        }
        let mut tail = Tail::open(&attempt.events(), from).map_err(|error| CliError::Failed(hint::of(&error)))?;
        let mut orphaned_since = None;
        loop {
            tokio::select! {
                line = tail.next() => match line.map_err(|error| CliError::Failed(hint::of(&error)))? {
                    Some(line) => {
                        if let Ok(event) = serde_json::from_str(&line.text) {
                            printer.print(&event)?;
                        }
                    }
                    None => return Ok(()),
                },
                () = self.watcher.next() => {
                    tail.poll_now();
                    printer.read_messages();
                    if self.is_over(attempt)? {
                        tail.finish();
                    } else if launch::may_live(attempt) {
                        orphaned_since = None;
                    } else if orphaned_since.get_or_insert_with(Instant::now).elapsed() > ORPHAN_LIMIT {
                        output::note("its supervisor has ended without an outcome: the next server here records one");
                        tail.finish();
                    }
                }
            }
        }
    }

    /// Returns whether nothing more is written for the attempt. A withdrawn attempt never ran.
    fn is_over(&mut self, attempt: &AttemptDir) -> Result<bool, CliError> {
        if attempt.outcome_path().exists() {
            return Ok(true);
        }
        let view = self.refresh()?;
        let this = attempt.root().file_name().and_then(|name| name.to_str()?.parse().ok()).unwrap_or(0);
        Ok(view.worker.attempt > this || (view.worker.attempt == this && delivery::is_final(&view.worker)))
    }

    fn refresh(&mut self) -> Result<WorkerView, CliError> {
        self.observer.read()?;
        self.observer.find(self.worker.as_str()).map_err(CliError::from)
    }

    /// Waits for the next attempt, if there will be one.
    async fn next_attempt(&mut self, shown: u32) -> Result<Option<u32>, CliError> {
        let mut is_noted = false;
        loop {
            let view = self.refresh()?;
            let folder = self.observer.folder(&self.worker);
            self.watcher.watch(folder.root());
            self.watcher.watch(&folder.root().join("attempts"));
            if let Some(next) = folder.attempts().into_iter().find(|number| *number > shown) {
                return Ok(Some(next));
            }
            if delivery::is_final(&view.worker) && view.worker.attempt <= shown {
                return Ok(None);
            }
            if !is_noted && !view.worker.status.is_live() {
                is_noted = true;
                let block = view.block.as_ref().map(hint::line);
                let what = block.or(view.waits_for).unwrap_or_else(|| "its next attempt".to_owned());
                output::note(&format!("{} is {}, waiting for {what}", self.worker, view.worker.status));
            }
            self.watcher.next().await;
        }
    }
}

fn cannot_read(attempt: &AttemptDir, error: &std::io::Error) -> CliError {
    CliError::Failed(format!("cannot read {}: {error}", attempt.events().display()))
}
