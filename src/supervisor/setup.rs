//! The setup of a worktree: `setup_command` runs before the CLI starts, once for each worktree. If it fails, the
//! attempt ends without a call of a model.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use thiserror::Error;
use tokio::task::{JoinHandle, spawn_blocking};

use super::attempt::{LiveAttempt, Stop, TurnEnd};
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
        // A time of the file system, like those it is compared with: its clock may lag behind ours.
        let began = changed_at(&self.dir.status()).unwrap_or_else(SystemTime::now);
        if let Err(error) = self.enter_clone().await {
            let end = Self::without_clone(&error);
            self.record_end(&end);
            return Err(end);
        }
        let ShellRun { end, seconds, log_tail } = self.run_setup(&task).await;
        crash_point::at(Point::SetUp);
        self.limits.extend(Duration::from_secs_f64(seconds));
        let mut setup = WorktreeSetup {
            command: task.command.clone(),
            passed: matches!(end, ShellEnd::Exited(Exit::Code(0))),
            seconds,
            ended_at: Timestamp::now(),
            log_tail: tail(&log_tail, KEPT).to_owned(),
            changed_files: 0,
        };
        // The record waits for the disk, and the count for git, so both run during the sweep.
        let (worker, record) = (self.dir.worker(), setup.clone());
        let recorded = spawn_blocking(move || if record.passed { worker.record_setup(&record) } else { Ok(()) });
        let counted = self.count_tracked_files_changed_since(began);
        // Also a daemon that the command left: it would outlive the attempt, or change files meanwhile.
        self.sweep().await;
        // A process that was ended now may have changed files after the count.
        let counted = if self.cleanup.last.ended > 0 { self.count_tracked_files_changed_since(began) } else { counted };
        setup.changed_files = counted.await.unwrap_or(0);
        self.leave_clone().await;
        if let Ok(Err(error)) = recorded.await {
            tracing::warn!(%error, "cannot record the setup: the next attempt repeats it");
        }
        // Also after a failure, since its files stay.
        self.assignment.prepared_at = Some(setup.ended_at);
        if setup.passed {
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
            confine: self.rules.commands.as_ref(),
        };
        let run = shell::run(&command, task.limit(), self.inbox.until_stopped()).await;
        self.refused_writes.record(&run.log_tail, self.rules.commands.as_ref());
        run
    }

    /// Returns the reason why no turn may begin, if there is one.
    fn stop_before_first_turn(&self, end: &ShellEnd) -> Option<Stop> {
        let is_lost = || {
            let why = "its folder was removed, so its outcome could not be recorded".to_owned();
            matches!(end, ShellEnd::Cancelled).then(|| Stop::Failed(FailureKind::Lost, why))
        };
        self.stop_requested().or_else(is_lost)
    }

    /// Counts the tracked files that differ from HEAD and were changed since `then`. The count is 0 outside a
    /// repository, or if git gives no answer.
    fn count_tracked_files_changed_since(&self, then: SystemTime) -> JoinHandle<u32> {
        let checkout = self.git.is_some().then(|| self.assignment.checkout());
        spawn_blocking(move || {
            let Some(checkout) = checkout else { return 0 };
            let changed = git::changed_tracked_files(&checkout).unwrap_or_default();
            changed.iter().filter(|path| is_changed_since(&checkout, path, then)).count() as u32
        })
    }
}

/// Returns whether a path was changed since `then`; for a missing one, whether its nearest folder was. The change time
/// decides, since programs cannot set it. A folder is a submodule, whose time does not show its changes, so it counts.
fn is_changed_since(root: &Path, path: &Path, then: SystemTime) -> bool {
    let full = root.join(path);
    let found = full.ancestors().find_map(|path| path.symlink_metadata().ok().map(|found| (path == full, found)));
    found.is_none_or(|(is_it, found)| (is_it && found.is_dir()) || change_time(&found) >= then)
}

fn changed_at(path: &Path) -> Option<SystemTime> {
    path.symlink_metadata().ok().map(|found| change_time(&found))
}

fn change_time(found: &Metadata) -> SystemTime {
    let (seconds, nanoseconds) = (found.ctime().max(0) as u64, found.ctime_nsec().max(0) as u32);
    SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds)
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
    fn changes_and_deletions_after_a_moment_are_recognised() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["a/old", "b/changed", "c/deleted", "c/replaced"] {
            std::fs::create_dir_all(path(name).parent().unwrap()).unwrap();
            std::fs::write(path(name), "x").unwrap();
        }
        let later = || {
            std::fs::write(path("clock"), "x").unwrap();
            changed_at(&path("clock")).unwrap()
        };
        let before = later();
        // The time of files advances in steps.
        while later() == before {}
        let then = later();
        let time = std::fs::FileTimes::new().set_modified(before);
        std::fs::File::options().write(true).open(path("b/changed")).unwrap().set_times(time).unwrap();
        std::fs::remove_file(path("c/deleted")).unwrap();
        std::fs::rename(path("c/replaced"), path("c/moved")).unwrap();
        let changed = |name: &str| is_changed_since(folder.path(), Path::new(name), then);
        let found = ["a/old", "b/changed", "c/deleted", "c/moved", "c/gone/too"].map(changed);
        assert_eq!(found, [false, true, true, true, true]);
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
