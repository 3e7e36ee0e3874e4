//! Starts a worker's CLI in its own process group, with a cleaned environment and its output in files.
//!
//! Output goes to files and not to pipes, since a CLI whose pipe loses its reader dies (Codex panics with EPIPE). Only
//! a program that refuses a file gets a pipe, which is copied to the file.
//! Nothing here uses `pre_exec`, so the standard library can use posix_spawn.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::io::Errno;
use tokio::process::{Child, ChildStdin, Command};

use super::confine::{self, ConfineError, GrantKind, Links, Restriction, WriteRules};
use super::output_copy::OutputCopy;
use super::record::Identity;
use crate::mission::hint::{Hint, Hinted};

/// A program to start, and its streams.
#[derive(Clone, Debug)]
pub struct Launch {
    /// A path, or a name to search on the PATH.
    pub program: PathBuf,
    pub args: Vec<OsString>,
    /// Also becomes its `PWD`, since OpenCode prefers that variable to the real directory.
    pub cwd: PathBuf,
    /// Variables added to the inherited environment, or replacing it; applied after `env_remove`.
    pub env_set: BTreeMap<String, OsString>,
    pub env_remove: Vec<String>,
    pub stdin: StdinSource,
    /// The file to which stdout is appended; created with mode 0600 if missing. May be the same file as `stderr`.
    pub stdout: PathBuf,
    /// True if the program prints to a pipe, which this process copies to the file. It then needs this process to live.
    pub output_pipe: bool,
    pub stderr: PathBuf,
    /// The paths that the program and all processes below it can write. `None`: all.
    pub confine: Option<WriteRules>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StdinSource {
    Null,
    /// A pipe that the caller holds open, for a CLI that reads messages while it works.
    Pipe,
}

/// A running process. Dropping it kills nothing.
#[derive(Debug)]
pub struct SpawnedProcess {
    pub child: Child,
    pub identity: Identity,
    /// The pipe, for [`StdinSource::Pipe`].
    pub stdin: Option<ChildStdin>,
    /// The copy of its output, for [`Launch::output_pipe`].
    pub output: Option<OutputCopy>,
    /// The confinement that the kernel enforces on it, for [`Launch::confine`].
    pub restriction: Option<Restriction>,
}

/// The reason why nothing was started. In none of these cases is a process left behind.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    #[error("cannot start {program}: there is no such program")]
    ProgramNotFound { program: PathBuf },
    #[error(
        "cannot start another process of {program}: it was removed while it runs, as an upgrade does, and is not on the PATH"
    )]
    OwnProgramMissing { program: PathBuf },
    #[error(
        "cannot start {program}: its first line (#!) names a missing interpreter, or it is built for another system"
    )]
    InterpreterNotFound { program: PathBuf },
    #[error("cannot start {program}: it is not executable")]
    NotExecutable { program: PathBuf, source: io::Error },
    #[error("cannot start {program} in {directory}: there is no such directory")]
    DirectoryMissing { program: PathBuf, directory: PathBuf },
    #[error("cannot start {program}: too many processes or open files ({source})")]
    TooMany { program: PathBuf, source: io::Error },
    #[error("cannot write {path}: no space left on the device")]
    NoSpace { path: PathBuf },
    #[error("cannot open {path} for the output of {program}")]
    Output { path: PathBuf, program: PathBuf, source: io::Error },
    #[error("cannot start {program}")]
    Start { program: PathBuf, source: io::Error },
    #[error("cannot identify {program} (pid {pid}) after its start: the process table is hidden")]
    Unidentified { program: PathBuf, pid: u32 },
    #[error("cannot confine {program}")]
    Confine { program: PathBuf, source: ConfineError },
}

impl Hinted for SpawnError {
    fn hints(&self) -> Vec<Hint> {
        match self {
            Self::ProgramNotFound { .. } => {
                vec![Hint::to("install it"), Hint::to("give its full path in the settings")]
            }
            Self::OwnProgramMissing { .. } => vec![Hint::to("restart the client, which starts the new version")],
            Self::NotExecutable { .. } => vec![Hint::to("check its permissions (chmod +x), and that it is a program")],
            Self::TooMany { .. } => {
                vec![Hint::to("end some workers"), Hint::to("raise `ulimit -u` and `ulimit -n`")]
            }
            Self::NoSpace { .. } => vec![Hint::to("free some space and try again")],
            Self::Unidentified { .. } => vec![Hint::to("mount /proc, on Linux")],
            Self::Confine { source, .. } => source.hints(),
            Self::InterpreterNotFound { .. }
            | Self::DirectoryMissing { .. }
            | Self::Output { .. }
            | Self::Start { .. } => Vec::new(),
        }
    }
}

/// Starts a program as the leader of a new process group. Must be called on a tokio runtime, which reaps it.
pub fn spawn(launch: &Launch) -> Result<SpawnedProcess, SpawnError> {
    let rules = rules(launch);
    let failed = |source| {
        let (program, directory) = (launch.program.clone(), launch.cwd.clone());
        if directory.is_dir() {
            SpawnError::Confine { program, source }
        } else {
            SpawnError::DirectoryMissing { program, directory }
        }
    };
    let (program, args) = match &rules {
        Some(rules) => confine::wrapped(rules, &launch.program, &launch.args).map_err(failed)?,
        None => (launch.program.clone(), launch.args.clone()),
    };
    let mut command = command(&program, &args, &launch.cwd, &launch.env_set, &launch.env_remove);
    let stdin = match launch.stdin {
        StdinSource::Null => Stdio::null(),
        StdinSource::Pipe => Stdio::piped(),
    };
    let stdout = append_to(&launch.stdout, &launch.program)?;
    let (stdout, copied_to) =
        if launch.output_pipe { (Stdio::piped(), Some(stdout)) } else { (Stdio::from(stdout), None) };
    command.stdin(stdin).stdout(stdout).stderr(append_to(&launch.stderr, &launch.program)?).process_group(0);
    let mut start = || start(&mut command, &launch.program, &launch.cwd);
    let (started, restriction) = match &rules {
        Some(rules) => confine::restricted(rules, start).map(|(started, by)| (started, Some(by))).map_err(failed)?,
        None => (start(), None),
    };
    let (mut child, identity) = started?;
    let stdin = child.stdin.take();
    let output = child.stdout.take().zip(copied_to);
    let output = output.map(|(from, to)| OutputCopy::start(from, to, launch.stdout.clone()));
    Ok(SpawnedProcess { child, identity, stdin, output, restriction })
}

/// Returns the rules of a program, with its output files: `/dev/stderr` opens them again by name.
fn rules(launch: &Launch) -> Option<WriteRules> {
    let mut rules = launch.confine.clone()?;
    for path in [&launch.stdout, &launch.stderr] {
        rules.add(path, GrantKind::File, Links::Followed);
    }
    Some(rules)
}

pub(super) fn command(
    program: &Path,
    args: &[OsString],
    cwd: &Path,
    env_set: &BTreeMap<String, OsString>,
    env_remove: &[String],
) -> Command {
    let mut command = Command::new(program);
    command.args(args).current_dir(cwd);
    for name in env_remove {
        command.env_remove(name);
    }
    command.envs(env_set).env("PWD", cwd);
    command
}

pub(super) fn start(command: &mut Command, program: &Path, cwd: &Path) -> Result<(Child, Identity), SpawnError> {
    let mut child = command.spawn().map_err(|error| explain(error, program, cwd))?;
    // It is not reaped before it is waited for, so its pid cannot have been reused.
    let pid = child.id().unwrap_or_default();
    match Identity::of(pid) {
        Some(identity) => Ok((child, identity)),
        None => {
            // Without an identity it could never be signalled later.
            let _ = child.start_kill();
            Err(SpawnError::Unidentified { program: program.to_owned(), pid })
        }
    }
}

/// Opens a private file (0600) to append to it.
pub(super) fn append_to(path: &Path, program: &Path) -> Result<File, SpawnError> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path).map_err(|source| match source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => SpawnError::NoSpace { path: path.to_owned() },
        _ => SpawnError::Output { path: path.to_owned(), program: program.to_owned(), source },
    })
}

/// Explains a failed start. The system has one error for a missing program, a missing interpreter and a missing
/// directory.
pub fn explain(source: io::Error, program: &Path, cwd: &Path) -> SpawnError {
    let program = program.to_owned();
    match source.kind() {
        _ if is_a_limit(&source) => SpawnError::TooMany { program, source },
        _ if !cwd.is_dir() => SpawnError::DirectoryMissing { program, directory: cwd.to_owned() },
        ErrorKind::NotFound if program.is_absolute() && program.exists() => SpawnError::InterpreterNotFound { program },
        ErrorKind::NotFound => SpawnError::ProgramNotFound { program },
        ErrorKind::PermissionDenied => SpawnError::NotExecutable { program, source },
        _ if source.raw_os_error() == Some(Errno::NOEXEC.raw_os_error()) => {
            SpawnError::NotExecutable { program, source }
        }
        _ => SpawnError::Start { program, source },
    }
}

fn is_a_limit(error: &io::Error) -> bool {
    let limits = [Errno::AGAIN, Errno::MFILE, Errno::NFILE, Errno::NOMEM];
    error.raw_os_error().is_some_and(|code| limits.iter().any(|limit| limit.raw_os_error() == code))
}

#[cfg(test)]
mod tests;
