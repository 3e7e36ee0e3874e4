//! The setup of a worktree: `setup_command` runs before the CLI starts, once for each worktree. If it fails, the
//! attempt ends without a call of a model.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use thiserror::Error;

use super::attempt::{LiveAttempt, Stop, TurnEnd};
use super::blocking::blocking;
use super::shell::{self, ShellCommand, ShellEnd, ShellRun, is_out_of_space};
use crate::attempt::assignment::SetupTask;
use crate::attempt::prompt;
use crate::attempt::status::Phase;
use crate::backend::AgentEvent;
use crate::crash_point::{self, Point};
use crate::git;
use crate::mission::hint::{Hint, Hinted, with_hints};
use crate::mission::outcome::{Exit, Failure, FailureKind, WorktreeSetup, tail};
use crate::process::SpawnError;

/// Bytes of the output that the outcome keeps.
const KEPT: usize = 2_000;
/// Bytes of the output that the failure quotes: its summary has 700 bytes.
const QUOTED: usize = 350;
/// Bytes of the command that a text quotes.
const COMMAND: usize = 80;
/// Time limit beyond which a limit cannot be distinguished from none.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3_600);

/// The reason why the worktree could not be set up.
#[derive(Debug, Error)]
pub(super) enum SetupError {
    #[error("cannot set up the worktree: `{command}` ended with exit status {code}")]
    Failed { command: String, code: i32 },
    #[error("cannot set up the worktree: `{command}` was ended by signal {signal}")]
    Killed { command: String, signal: i32 },
    #[error("cannot set up the worktree: `{command}` took longer than {minutes} minutes")]
    TimedOut { command: String, minutes: f64 },
    #[error("cannot set up the worktree: `{command}` could not be started")]
    NotStarted { command: String, source: SpawnError },
}

impl Hinted for SetupError {
    fn hints(&self) -> Vec<Hint> {
        match self {
            Self::Failed { .. } | Self::Killed { .. } => {
                vec![Hint::to("fix the cause, or setup_command in the settings or the mission")]
            }
            Self::TimedOut { .. } => vec![Hint::to("fix setup_command"), Hint::Set("setup_timeout_minutes")],
            Self::NotStarted { source, .. } => source.hints(),
        }
    }
}

impl SetupError {
    /// Returns the error of a setup. `None` if it succeeded or was stopped.
    pub(super) fn of(task: &SetupTask, end: ShellEnd) -> Option<Self> {
        let command = short(&task.command);
        match end {
            ShellEnd::Exited(Exit::Code(0)) | ShellEnd::Cancelled => None,
            ShellEnd::Exited(Exit::Code(code)) => Some(Self::Failed { command, code }),
            ShellEnd::Exited(Exit::Signal(signal)) => Some(Self::Killed { command, signal }),
            ShellEnd::TimedOut => Some(Self::TimedOut { command, minutes: task.timeout_minutes }),
            ShellEnd::NotStarted(source) => Some(Self::NotStarted { command, source }),
        }
    }

    /// Returns the message with hints and the end of the command's output. A full disk is named separately, since the
    /// output may then be missing.
    pub(super) fn message(&self, directory: &Path, log_tail: &str) -> String {
        let quoted = tail(log_tail.trim_end(), QUOTED);
        let space = is_out_of_space(directory, log_tail).then_some("no space was left on the disk");
        let message = with_hints(self);
        let parts = [Some(&*message), space, Some(quoted).filter(|it| !it.is_empty())];
        parts.into_iter().flatten().map(str::to_owned).collect::<Vec<_>>().join("\n")
    }
}

impl SetupTask {
    pub(super) fn limit(&self) -> Duration {
        Duration::try_from_secs_f64(self.timeout_minutes * 60.0).unwrap_or(LONGEST).min(LONGEST)
    }
}

impl LiveAttempt {
    /// Sets up the worktree, unless there is nothing to do. If it fails or is stopped, returns the end of the attempt.
    pub(super) async fn set_up(&mut self) -> Result<(), TurnEnd> {
        let Some(task) = self.assignment.setup.clone() else { return Ok(()) };
        self.status.set_phase(Phase::SettingUp, &format!("setting up: {}", short(&task.command)));
        let before = self.changed_tracked_files().await;
        let ShellRun { end, seconds, log_tail } = self.run_setup(&task).await;
        crash_point::at(Point::SetUp);
        // Also a daemon that the command left: it would outlive the attempt, or change files meanwhile.
        self.sweep().await;
        self.limits.extend(Duration::from_secs_f64(seconds));
        let setup = WorktreeSetup {
            command: task.command.clone(),
            passed: matches!(end, ShellEnd::Exited(Exit::Code(0))),
            seconds,
            ended_at: Timestamp::now(),
            log_tail: tail(&log_tail, KEPT).to_owned(),
            changed_files: self.changed_tracked_files().await.difference(&before).count() as u32,
        };
        // Also after a failure, since its files stay.
        self.assignment.prepared_at = Some(setup.ended_at);
        if setup.passed {
            if let Err(error) = self.dir.worker().record_setup(&setup) {
                tracing::warn!(%error, "cannot record the setup: the next attempt repeats it");
            }
            self.status.record(&AgentEvent::SetUp { command: task.command.clone(), seconds });
        }
        self.run.setup = Some(setup).filter(|_| !matches!(end, ShellEnd::Cancelled));
        let stopped = self.stop_before_first_turn(&end);
        let error = if stopped.is_some() { None } else { SetupError::of(&task, end) };
        match (stopped, error) {
            (None, None) => Ok(()),
            (stop, error) => {
                let message =
                    error.map_or_else(String::new, |error| error.message(&self.assignment.directory, &log_tail));
                let failure = Failure { kind: FailureKind::SetupFailed, message, resets_at: None };
                let end = TurnEnd::not_started(failure, stop);
                // The next attempt can still resume it.
                self.run.session_id = prompt::first(&self.assignment).1;
                self.record_end(&end);
                Err(end)
            }
        }
    }

    async fn run_setup(&mut self, task: &SetupTask) -> ShellRun {
        let (directory, log, variables) =
            (self.assignment.start_directory(), self.dir.setup_log(), self.assignment.variables());
        let command = ShellCommand {
            command: &task.command,
            directory: &directory,
            tag: &self.assignment.tag,
            log: &log,
            settings: &self.assignment.settings,
            variables: &variables,
            sockets: &self.sockets,
        };
        shell::run(&command, task.limit(), self.inbox.until_stopped()).await
    }

    /// Returns the reason why no turn may begin, if there is one.
    fn stop_before_first_turn(&self, end: &ShellEnd) -> Option<Stop> {
        if self.inbox.is_cancelled() {
            Some(Stop::Cancelled)
        } else if self.inbox.is_shutting_down() {
            Some(Stop::Interrupted)
        } else if let Some(why) = self.inbox.over_budget() {
            Some(Stop::Failed(FailureKind::Budget, why.clone()))
        } else {
            let why = || "its folder was removed, so its outcome could not be recorded".to_owned();
            matches!(end, ShellEnd::Cancelled).then(|| Stop::Failed(FailureKind::Lost, why()))
        }
    }

    /// Returns the tracked files that differ from HEAD. Empty outside a repository, or if git gives no answer.
    async fn changed_tracked_files(&self) -> BTreeSet<PathBuf> {
        if self.git.is_none() {
            return BTreeSet::new();
        }
        let checkout = self.assignment.checkout();
        let entries = blocking(move || git::uncommitted(&checkout)).await.map(|status| status.entries);
        let tracked = entries.unwrap_or_default().into_iter().filter(|entry| !entry.untracked);
        tracked.map(|entry| entry.path).collect()
    }
}

/// Returns the first line of a command, or its beginning.
fn short(command: &str) -> String {
    let line = command.trim().lines().next().unwrap_or_default();
    let start = &line[..line.floor_char_boundary(COMMAND)];
    if start.len() < command.trim().len() { format!("{start}…") } else { start.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_command_is_quoted_by_its_beginning() {
        assert_eq!(short(" npm ci\n"), "npm ci");
        assert_eq!(short("npm ci\nnpm run build"), "npm ci…");
        assert_eq!(short(&"é".repeat(80)), format!("{}…", "é".repeat(40)));
    }

    #[test]
    fn summary_has_the_whole_failure() {
        let command = short(&"x".repeat(200));
        let source = SpawnError::ProgramNotFound { program: "/bin/sh".into() };
        for error in [
            SetupError::Failed { command: command.clone(), code: 127 },
            SetupError::Killed { command: command.clone(), signal: 9 },
            SetupError::TimedOut { command: command.clone(), minutes: 0.5 },
            SetupError::NotStarted { command, source },
        ] {
            let message = with_hints(&error);
            assert!(message.starts_with("cannot set up the worktree: `x"), "{message}");
            assert!(message.len() + QUOTED < 700, "{} bytes: {message}", message.len());
        }
    }
}
