//! Runs a command, prints its output and progress, and handles Ctrl-C.
//!
//! Nothing here panics on a closed pipe: a command that only reads ends quietly, one that acts continues.

use super::error::{self, CliError};
use super::sanitize;
use std::future::Future;
use std::io::{self, IsTerminal, Write};
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

/// Runs a command. Threads of the runtime that are left are abandoned.
pub(super) fn run(command: impl Future<Output = Result<ExitCode, CliError>>) -> ExitCode {
    run_boxed(Box::pin(command))
}

/// Boxing keeps one copy of the runtime's code for all commands, so that the program stays small.
fn run_boxed(command: Pin<Box<dyn Future<Output = Result<ExitCode, CliError>> + '_>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let ended = match runtime {
        Ok(runtime) => {
            let ended = runtime.block_on(command);
            runtime.shutdown_background();
            ended
        }
        Err(error) => Err(CliError::Failed(format!("cannot start the runtime: {error}"))),
    };
    end(ended)
}

pub(super) fn end(ended: Result<ExitCode, CliError>) -> ExitCode {
    match ended {
        Ok(code) => code,
        Err(CliError::Failed(text)) => complain(&text, error::FAILED),
        Err(CliError::Usage(text)) => complain(&text, error::USAGE),
        Err(CliError::ClosedPipe) => ExitCode::SUCCESS,
        Err(CliError::Interrupted) => ExitCode::from(error::INTERRUPTED),
    }
}

fn complain(text: &str, code: u8) -> ExitCode {
    let _ = writeln!(io::stderr(), "error: {}", sanitize::text(text));
    ExitCode::from(code)
}

/// Prints a note on stderr.
pub(super) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{}", sanitize::text(text));
}

/// Prints a text and a line end.
pub(super) fn line(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(CliError::from)
}

/// Prints an indented JSON document.
pub(super) fn json(value: &impl Serialize) -> Result<(), CliError> {
    line(&serde_json::to_string_pretty(value).map_err(|error| CliError::Failed(error.to_string()))?)
}

pub(super) fn json_line(value: &impl Serialize) -> Result<(), CliError> {
    line(&serde_json::to_string(value).map_err(|error| CliError::Failed(error.to_string()))?)
}

/// Waits for Ctrl-C, SIGTERM or SIGHUP. A second one ends the process at once.
pub(super) async fn interrupted() {
    // Listen before anything is printed: callers may send a signal after the first output.
    let Ok(mut signals) = Signals::listen() else { return std::future::pending().await };
    let (sender, interrupted) = tokio::sync::oneshot::channel();
    // On another thread, since this one may be blocked in a write to a pipe.
    tokio::spawn(async move {
        signals.next().await;
        let _ = sender.send(());
        signals.next().await;
        std::process::exit(error::INTERRUPTED.into());
    });
    let _ = interrupted.await;
}

struct Signals([Signal; 3]);

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self([signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?]))
    }

    async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// Returns the result of the work, or an error after an interruption, which drops the work.
pub(super) async fn unless_interrupted<T>(work: impl Future<Output = T>) -> Result<T, CliError> {
    let interrupted: Pin<Box<dyn Future<Output = ()>>> = Box::pin(interrupted());
    tokio::select! {
        // Polled first, so that a Ctrl-C is noticed before the work prints anything.
        biased;
        () = interrupted => Err(CliError::Interrupted),
        done = work => Ok(done),
    }
}

/// Time before progress is shown.
const PROGRESS_DELAY: Duration = Duration::from_millis(500);
const REDRAW: Duration = Duration::from_millis(100);

/// Shows the current work and its duration on stderr, if that is a terminal.
pub(super) async fn with_progress<T>(doing: impl Fn() -> String, work: impl Future<Output = T>) -> T {
    let began = Instant::now();
    let mut bar = None;
    tokio::pin!(work);
    let done = loop {
        tokio::select! {
            done = &mut work => break done,
            () = tokio::time::sleep(REDRAW) => {}
        }
        if began.elapsed() >= PROGRESS_DELAY && io::stderr().is_terminal() {
            let bar = bar.get_or_insert_with(spinner);
            bar.set_message(format!("{} … {} s", sanitize::text(&doing()), began.elapsed().as_secs()));
            bar.tick();
        }
    };
    bar.into_iter().for_each(|bar| bar.finish_and_clear());
    done
}

/// A progress line on stderr, if that is a terminal. Dropping it removes the line.
pub(super) struct ProgressLine(Option<ProgressBar>);

impl ProgressLine {
    pub fn new() -> Self {
        Self(io::stderr().is_terminal().then(spinner))
    }

    pub fn show(&self, what: &str) {
        if let Some(bar) = &self.0 {
            bar.set_message(sanitize::text(what));
            bar.tick();
        }
    }

    /// Sends bytes to the terminal that move no cursor.
    pub fn raw(&self, bytes: &str) -> Result<(), CliError> {
        let mut out = io::stdout().lock();
        write!(out, "{bytes}").and_then(|()| out.flush()).map_err(CliError::from)
    }

    /// Prints a permanent line on stdout.
    pub fn line(&self, text: &str) -> Result<(), CliError> {
        match &self.0 {
            Some(bar) => bar.suspend(|| line(text)),
            None => line(text),
        }
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

fn spinner() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {wide_msg}");
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
}
