//! What the commands for people and scripts share: how they print, end, and are stopped.
//!
//! Nothing here panics on a closed pipe: who only reads ends quietly then, who acts goes on.

use std::future::Future;
use std::io::{self, IsTerminal, Write};
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

/// Why a command ends before its end.
#[derive(Debug)]
pub(super) enum End {
    Failed(String),
    /// Asked for what there is not.
    Usage(String),
    /// Whoever read has gone.
    Closed,
    /// Ctrl-C.
    Interrupted,
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            End::Failed(text) | End::Usage(text) => text,
            End::Closed => "nobody reads any more",
            End::Interrupted => "interrupted",
        })
    }
}

pub(super) const FAILED: u8 = 1;
pub(super) const USAGE: u8 = 2;
pub(super) const INTERRUPTED: u8 = 130;

/// For a command whose threads have nothing left to do when it is done.
pub(super) fn run(command: impl Future<Output = Result<ExitCode, End>>) -> ExitCode {
    run_boxed(Box::pin(command))
}

/// One copy of the runtime's code for all commands: a release is to stay small.
fn run_boxed(command: Pin<Box<dyn Future<Output = Result<ExitCode, End>> + '_>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let ended = match runtime {
        Ok(runtime) => {
            let ended = runtime.block_on(command);
            runtime.shutdown_background();
            ended
        }
        Err(error) => Err(End::Failed(format!("could not start: {error}"))),
    };
    end(ended)
}

pub(super) fn end(ended: Result<ExitCode, End>) -> ExitCode {
    match ended {
        Ok(code) => code,
        Err(End::Failed(text)) => complain(&text, FAILED),
        Err(End::Usage(text)) => complain(&text, USAGE),
        Err(End::Closed) => ExitCode::SUCCESS,
        Err(End::Interrupted) => ExitCode::from(INTERRUPTED),
    }
}

fn complain(text: &str, code: u8) -> ExitCode {
    let _ = writeln!(io::stderr(), "error: {}", harmless(text));
    ExitCode::from(code)
}

/// One line, or several; the error says that nobody reads any more.
pub(super) fn line(text: &str) -> Result<(), End> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(closed)
}

/// One document, for people to read too; or one line of a stream of them.
pub(super) fn json(value: &impl Serialize) -> Result<(), End> {
    line(&serde_json::to_string_pretty(value).map_err(|error| End::Failed(error.to_string()))?)
}

pub(super) fn json_line(value: &impl Serialize) -> Result<(), End> {
    line(&serde_json::to_string(value).map_err(|error| End::Failed(error.to_string()))?)
}

pub(super) fn closed(error: io::Error) -> End {
    match error.kind() {
        io::ErrorKind::BrokenPipe => End::Closed,
        _ => End::Failed(format!("could not write to stdout: {error}")),
    }
}

/// Text of models and tools, as a terminal may show it: it cannot move the cursor, set the title or hide anything.
/// Newlines and tabs stay.
pub(super) fn harmless(text: &str) -> String {
    let shown = |character: &char| {
        let turns_text =
            matches!(*character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}');
        matches!(*character, '\n' | '\t') || !(character.is_control() || turns_text)
    };
    text.chars().filter(shown).collect()
}

/// Waits for Ctrl-C or the terminal's end. The next one ends the process at once, whatever it waits for.
pub(super) async fn interrupted() {
    // At once: what is printed from here on tells others that it is heard.
    let Ok(mut signals) = Signals::listen() else { return std::future::pending().await };
    let (sender, heard) = tokio::sync::oneshot::channel();
    // On another thread: this one may be writing to a pipe that nobody reads.
    tokio::spawn(async move {
        signals.next().await;
        let _ = sender.send(());
        signals.next().await;
        std::process::exit(INTERRUPTED.into());
    });
    let _ = heard.await;
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

/// The result of the work, or that it was interrupted; dropped then.
pub(super) async fn unless_interrupted<T>(work: impl Future<Output = T>) -> Result<T, End> {
    let interrupted: Pin<Box<dyn Future<Output = ()>>> = Box::pin(interrupted());
    tokio::select! {
        // First, so that it hears of a Ctrl-C before the work prints anything.
        biased;
        () = interrupted => Err(End::Interrupted),
        done = work => Ok(done),
    }
}

/// So long nothing is shown: what is done sooner needs no sign.
const UNSHOWN: Duration = Duration::from_millis(500);
const REDRAW: Duration = Duration::from_millis(100);

/// Shows on stderr, if that is a terminal, that and for how long something is done.
pub(super) async fn with_progress<T>(doing: impl Fn() -> String, work: impl Future<Output = T>) -> T {
    let began = Instant::now();
    let mut bar = None;
    tokio::pin!(work);
    let done = loop {
        tokio::select! {
            done = &mut work => break done,
            () = tokio::time::sleep(REDRAW) => {}
        }
        if began.elapsed() >= UNSHOWN && io::stderr().is_terminal() {
            let bar = bar.get_or_insert_with(spinner);
            bar.set_message(format!("{} … {} s", harmless(&doing()), began.elapsed().as_secs()));
            bar.tick();
        }
    };
    bar.into_iter().for_each(|bar| bar.finish_and_clear());
    done
}

/// A line on stderr that says what goes on, where that is a terminal; gone when it is dropped.
pub(super) struct Progress(Option<ProgressBar>);

impl Progress {
    pub fn new() -> Self {
        Self(io::stderr().is_terminal().then(spinner))
    }

    pub fn say(&self, what: &str) {
        if let Some(bar) = &self.0 {
            bar.set_message(harmless(what));
            bar.tick();
        }
    }

    /// Something that stays, on stdout.
    pub fn line(&self, text: &str) -> Result<(), End> {
        match &self.0 {
            Some(bar) => bar.suspend(|| line(text)),
            None => line(text),
        }
    }
}

impl Drop for Progress {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_model_says_moves_no_terminal() {
        assert_eq!(harmless("a\u{1b}[2Jb\r\u{7}\u{9b}31m\u{202e}c\n\td\u{0}"), "a[2Jb31mc\n\td");
        assert_eq!(harmless("ä€😀 \u{200d}"), "ä€😀 \u{200d}");
    }
}
