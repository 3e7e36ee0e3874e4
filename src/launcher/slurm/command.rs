//! Runs the commands of Slurm. Each gets an environment of its own, so that no key of the server reaches the
//! controller, and no variable of a job in which the boss runs changes a request. Each also has a time limit, and a
//! process group that is killed with it, except a command that keeps running: see [`Engine::attach`].

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::future::pending;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{MaybeDone, maybe_done};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::quote;

/// Time limit of one command. Without a controller, Slurm's own limit is 10 s and more.
pub const LIMIT: Duration = Duration::from_secs(4);
/// Maximum size of an answer. One line for each of ten thousand jobs has less than 2 MiB.
const MAX_OUTPUT: usize = 4 << 20;
/// Maximum size of the error output that is read, and the part of it that is shown.
const MAX_ERRORS: usize = 64 << 10;
const ERRORS_SHOWN: usize = 2_000;
/// Time for the rest of the error output after the exit, if a process outside of the group holds the pipe open.
const REST: Duration = Duration::from_millis(100);
/// Time for a killed command to disappear. One that hangs in a file system disappears later.
const REAP: Duration = Duration::from_secs(1);
const AT_ONCE: usize = 2;

/// The variables that a command gets.
const PASSED: [&str; 23] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "TZ",
    "KRB5CCNAME",
    "SLURM_CONF",
    "SLURM_CLUSTERS",
    "LC_ALL",
    "LC_ADDRESS",
    "LC_COLLATE",
    "LC_CTYPE",
    "LC_IDENTIFICATION",
    "LC_MEASUREMENT",
    "LC_MESSAGES",
    "LC_MONETARY",
    "LC_NAME",
    "LC_NUMERIC",
    "LC_PAPER",
    "LC_TELEPHONE",
    "LC_TIME",
];
/// A variable that is passed only if the settings have a `command`, which may be `ssh`. It names the socket of the
/// agent with the user's keys.
const PASSED_TO_PREFIX: &str = "SSH_AUTH_SOCK";
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// A script for `sh` that runs its arguments as a command. If the command still runs ten seconds after the end of the
/// input, the script sends it TERM, since an `srun` whose job waits does not notice that end. The command and the
/// script read the same input, which has no more content.
const ENDED_BY_INPUT: &str = "exec 3<&0; \"$@\" <&3 3<&- & it=$!; { cat && { n=0; \
    while [ $n -lt 10 ] && kill -0 $it; do sleep 1; n=$((n + 1)); done; kill $it; }; } <&3 3<&- >/dev/null 2>&1 & \
    watch=$!; exec 3<&-; wait $it; exit=$?; kill $watch 2>/dev/null; exit $exit";

/// Texts of a command that did not reach the controller, or not in time. Most are of the messages of Slurm's protocol in
/// `slurm_errno.c`; the first is the function that sends a request.
const NO_CONTACT: [&str; 16] = [
    "slurm_msg_sendto",
    "unable to contact slurm",
    "unexpected missing socket",
    "socket timed out",
    "zero bytes were transmitted",
    "insane message length",
    "header lengths are longer than data",
    "connection reset",
    "broken pipe",
    "communication connection failure",
    "connection refused",
    "connection timed out",
    "transport endpoint is not connected",
    "no route to host",
    "munge encode failed",
    "in standby mode",
];

/// The exit status of `ssh` for its own failures.
const SSH_FAILED: i32 = 255;
/// The exit status of a shell for a command that it does not find.
const NOT_FOUND: i32 = 127;

/// The result of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Output(String),
    /// Slurm answered with an error.
    Refused {
        exit: i32,
        text: String,
    },
    /// There was no answer. Nothing follows from it, not even that a job was not submitted.
    None {
        cause: NoAnswer,
    },
}

/// The reason why a command has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoAnswer {
    /// The command did not run.
    NotFound {
        program: String,
    },
    /// The command did not run.
    NotStarted {
        program: String,
        why: String,
    },
    TimedOut {
        program: String,
        text: String,
    },
    TooLong {
        program: String,
    },
    Killed {
        program: String,
    },
    NoContact {
        program: String,
        text: String,
    },
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound { program } => write!(f, "{program} is not on the PATH"),
            Self::NotStarted { program, why } => write!(f, "{program} does not start: {why}"),
            Self::TimedOut { program, text } => {
                write!(f, "{program}: no answer in {} s", LIMIT.as_secs())?;
                if text.is_empty() { Ok(()) } else { write!(f, " ({text})") }
            }
            Self::TooLong { program } => write!(f, "{program}: its answer has more than {} MiB", MAX_OUTPUT >> 20),
            Self::Killed { program } => write!(f, "{program}: a signal ended it"),
            Self::NoContact { program, text } => write!(f, "{program}: {text}"),
        }
    }
}

impl Answer {
    /// Returns the output, or the reason why there is none.
    pub fn output(self) -> Result<String, String> {
        match self {
            Self::Output(text) => Ok(text),
            Self::Refused { text, .. } => Err(text),
            Self::None { cause } => Err(cause.to_string()),
        }
    }
}

/// Access to the commands of one cluster. Clones share the limits on simultaneous commands, so launchers with the same
/// `command` should use clones of one engine.
#[derive(Debug, Clone)]
pub struct Engine {
    prefix: Vec<String>,
    environment: Vec<(OsString, OsString)>,
    commands: Arc<Semaphore>,
    submissions: Arc<Semaphore>,
}

impl Engine {
    /// Returns an engine that puts this prefix, which may be empty, before each command, with the variables of this
    /// process.
    pub fn new(prefix: &[String]) -> Self {
        Self::in_environment(prefix, std::env::vars_os())
    }

    /// Returns an engine with these variables instead. Those that no command gets are dropped.
    pub fn in_environment(prefix: &[String], variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let is_passed = |name: &OsStr| {
            PASSED.iter().any(|passed| name == *passed) || (name == PASSED_TO_PREFIX && !prefix.is_empty())
        };
        Self {
            prefix: prefix.to_vec(),
            environment: variables.into_iter().filter(|(name, _)| is_passed(name)).collect(),
            commands: Arc::new(Semaphore::new(AT_ONCE)),
            submissions: Arc::new(Semaphore::new(1)),
        }
    }

    /// Runs a command of Slurm and returns its answer. At most two run at once. If the future is dropped, the command is
    /// killed.
    pub async fn ask(&self, program: &str, arguments: &[OsString]) -> Answer {
        self.run(program, arguments, &[]).await
    }

    /// Runs a command that submits a job, with this input. Submissions run one after another, so that one of the two
    /// places is always left to other commands, such as a cancel.
    pub(super) async fn submit(&self, program: &str, arguments: &[OsString], input: &[u8]) -> Answer {
        let _turn = self.submissions.acquire().await;
        self.run(program, arguments, input).await
    }

    async fn run(&self, program: &str, arguments: &[OsString], input: &[u8]) -> Answer {
        let _place = self.commands.acquire().await;
        let ended = match self.prefix.split_first() {
            None => run(self.command(OsStr::new(program), arguments), input).await,
            Some((first, rest)) => {
                // The prefix may be `ssh`, which passes its arguments to a shell, or a program that does not. So the
                // only further argument is `sh`, which means the same to both, and the command itself is in the input.
                let words: Vec<OsString> = rest.iter().map(OsString::from).chain(["sh".into()]).collect();
                run(self.command(OsStr::new(first), &words), &far_script(program, arguments, input)).await
            }
        };
        self.answer(program, ended)
    }

    /// Starts a command that keeps running: its input and output are pipes, and its errors go to a file. The caller
    /// must write the returned script to the input, and nothing else. The end of the input ends the command soon, so
    /// the command does not outlive this process for long.
    pub(super) fn attach(&self, program: &str, arguments: &[OsString], errors: File) -> Result<Attached, NoAnswer> {
        let (command, script) = match self.prefix.split_first() {
            None => (self.watched_command(program, arguments), Vec::new()),
            Some((first, rest)) => {
                let words: Vec<OsString> = rest.iter().map(OsString::from).chain(["sh".into()]).collect();
                // A shell reads no more of its input than the line that it runs, so the command gets the rest.
                let watch = quote::for_sh(ENDED_BY_INPUT.as_bytes());
                let script = [&b"exec sh -c "[..], &watch, b" sh", &far_command(program, arguments)].concat();
                (self.command(OsStr::new(first), &words), script)
            }
        };
        let mut command = command.ok_or_else(|| NoAnswer::NotFound { program: self.first_word(program) })?;
        let child = command.stderr(errors).spawn();
        let not_started = |why: io::Error| NoAnswer::NotStarted { program: program.to_owned(), why: why.to_string() };
        Ok(Attached { child: child.map_err(not_started)?, script })
    }

    /// Returns the prepared command, which ends soon after its input. `None` if the program does not exist.
    fn watched_command(&self, program: &str, arguments: &[OsString]) -> Option<Command> {
        let program = self.path_of(OsStr::new(program))?;
        let words = ["-c", ENDED_BY_INPUT, "sh"].map(OsString::from).into_iter().chain([program.into()]);
        let words: Vec<OsString> = words.chain(arguments.iter().cloned()).collect();
        self.command(OsStr::new("/bin/sh"), &words)
    }

    /// Returns the full path of a program, since the system would fork this process to look for it. `None` if it does not
    /// exist.
    fn path_of(&self, program: &OsStr) -> Option<PathBuf> {
        let path = self.environment.iter().find(|(name, _)| name == "PATH").map(|(_, path)| path.as_os_str());
        which::which_in(program, Some(path.unwrap_or(OsStr::new(DEFAULT_PATH))), "/").ok()
    }

    /// Returns the prepared command. `None` if the program does not exist.
    fn command(&self, program: &OsStr, arguments: &[OsString]) -> Option<Command> {
        let mut command = Command::new(self.path_of(program)?);
        command.args(arguments).env_clear().envs(self.environment.iter().cloned());
        command.current_dir("/").process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Some(command)
    }

    fn answer(&self, program: &str, ended: Result<Ended, Failure>) -> Answer {
        let program = program.to_owned();
        let none = |cause| Answer::None { cause };
        let Ended { status, output, errors } = match ended {
            Ok(ended) => ended,
            Err(Failure::NotFound) => return none(NoAnswer::NotFound { program: self.first_word(&program) }),
            Err(Failure::Start(why)) => return none(NoAnswer::NotStarted { program, why: why.to_string() }),
            Err(Failure::TimedOut { errors }) => {
                return none(NoAnswer::TimedOut { text: shown(&errors, b""), program });
            }
            Err(Failure::TooLong) => return none(NoAnswer::TooLong { program }),
        };
        let text = shown(&errors, &output);
        let lower = text.to_ascii_lowercase();
        match status.code() {
            Some(0) => Answer::Output(String::from_utf8_lossy(&output).into_owned()),
            None => none(NoAnswer::Killed { program }),
            Some(SSH_FAILED) if !self.prefix.is_empty() => none(NoAnswer::NoContact { program, text }),
            Some(NOT_FOUND) if !self.prefix.is_empty() => none(NoAnswer::NotFound { program }),
            Some(_) if NO_CONTACT.iter().any(|phrase| lower.contains(phrase)) => {
                none(NoAnswer::NoContact { program, text })
            }
            Some(exit) => Answer::Refused { exit, text },
        }
    }

    /// Returns whether the commands run behind another one, such as `ssh`.
    pub(super) fn has_prefix(&self) -> bool {
        !self.prefix.is_empty()
    }

    fn first_word(&self, program: &str) -> String {
        self.prefix.first().cloned().unwrap_or_else(|| program.to_owned())
    }
}

/// Returns a script for the shell behind a prefix. It starts the command with only the variables in [`PASSED`], as they
/// are set there, so that keys from the start files of a login are not passed on either.
fn far_script(program: &str, arguments: &[OsString], input: &[u8]) -> Vec<u8> {
    let mut script = b"printf %s ".to_vec();
    script.extend(quote::for_sh(input));
    script.extend(b" |");
    script.extend(far_command(program, arguments));
    script
}

/// Returns the command for the shell behind a prefix, with a space before it and a newline after it.
fn far_command(program: &str, arguments: &[OsString]) -> Vec<u8> {
    let mut script = b" env -i".to_vec();
    for name in PASSED {
        script.extend(format!(" ${{{name}+\"{name}=${name}\"}}").into_bytes());
    }
    for word in std::iter::once(OsStr::new(program)).chain(arguments.iter().map(OsString::as_os_str)) {
        script.push(b' ');
        script.extend(quote::for_sh(word.as_bytes()));
    }
    // This exit status is left to `ssh`.
    script.extend(format!("; exit=$?; [ $exit -ne {SSH_FAILED} ] || exit=1; exit $exit\n").into_bytes());
    script
}

/// A command that keeps running.
#[derive(Debug)]
pub(super) struct Attached {
    pub child: Child,
    /// The text that must be written to its input, and nothing else.
    pub script: Vec<u8>,
}

/// A command that ended within its limit.
#[derive(Debug)]
struct Ended {
    status: ExitStatus,
    output: Vec<u8>,
    errors: Vec<u8>,
}

#[derive(Debug)]
enum Failure {
    NotFound,
    Start(io::Error),
    TimedOut { errors: Vec<u8> },
    TooLong,
}

/// A process group that is killed when this value is dropped. Its leader must not have been reaped, since its number could
/// be used again.
struct KilledGroup(Option<Pid>);

impl Drop for KilledGroup {
    fn drop(&mut self) {
        self.0.map(|leader| kill_process_group(leader, Signal::KILL));
    }
}

async fn run(command: Option<Command>, input: &[u8]) -> Result<Ended, Failure> {
    let mut child = command.ok_or(Failure::NotFound)?.spawn().map_err(Failure::Start)?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let leader = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    // Dropped before `child`, so that the leader is still there.
    let group = KilledGroup(leader);
    let (mut output, mut errors) = (Vec::new(), Vec::new());
    let (is_over, answered) = {
        let answer = async { tokio::try_join!(write(stdin, input), read(stdout, &mut output)).map(drop) };
        let (mut answer, mut complaints) = (pin!(maybe_done(answer)), pin!(maybe_done(drain(stderr, &mut errors))));
        let ending = async {
            tokio::select! {
                () = &mut answer => {}
                () = exit_of(leader) => {}
            }
            if !matches!(*answer, MaybeDone::Done(Err(TooLong))) {
                exit_of(leader).await;
            }
            // Also after a normal end: the command may have left a process.
            drop(group);
            // The answer is read to its end: a list of jobs that lacks one would be wrong.
            (&mut answer).await;
        };
        let is_over = timeout(LIMIT, beside(ending, &mut complaints)).await.is_ok();
        // A process outside of the group, such as a shared connection of `ssh`, may hold the error output open.
        let _ = timeout(REST, &mut complaints).await;
        (is_over, answer.as_mut().take_output())
    };
    let status = reap(&mut child).await;
    match (answered, status) {
        (Some(Err(TooLong)), _) => Err(Failure::TooLong),
        (_, Some(status)) if is_over => Ok(Ended { status, output, errors }),
        _ => Err(Failure::TimedOut { errors }),
    }
}

/// Runs a future to its end. Meanwhile, the other one runs too.
async fn beside(future: impl Future<Output = ()>, other: impl Future<Output = ()>) {
    let other = async {
        other.await;
        pending::<()>().await;
    };
    tokio::select! {
        () = future => {}
        () = other => {}
    }
}

/// Waits until the process has exited. Does not reap it.
async fn exit_of(leader: Option<Pid>) {
    let mut pause = Duration::from_millis(1);
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    // An error means that it is no longer there.
    while let Some(Ok(None)) = leader.map(|leader| waitid(WaitId::Pid(leader), options)) {
        sleep(pause).await;
        pause = (2 * pause).min(Duration::from_millis(50));
    }
}

async fn reap(child: &mut Child) -> Option<ExitStatus> {
    timeout(REAP, child.wait()).await.ok()?.ok()
}

/// The error for an answer above its limit.
struct TooLong;

async fn write(stdin: Option<ChildStdin>, input: &[u8]) -> Result<(), TooLong> {
    if let Some(mut stdin) = stdin {
        // A command need not read its input.
        let _ = stdin.write_all(input).await;
    }
    Ok(())
}

async fn read(stream: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) -> Result<(), TooLong> {
    let Some(stream) = stream else { return Ok(()) };
    let _ = stream.take(MAX_OUTPUT as u64 + 1).read_to_end(kept).await;
    if kept.len() > MAX_OUTPUT { Err(TooLong) } else { Ok(()) }
}

/// Reads a stream to its end and keeps its beginning.
async fn drain(stream: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) -> Result<(), TooLong> {
    let Some(mut stream) = stream else { return Ok(()) };
    let mut buffer = vec![0; 4_096];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        let room = MAX_ERRORS.saturating_sub(kept.len());
        kept.extend_from_slice(&buffer[..read.min(room)]);
    }
    Ok(())
}

/// Returns the error output in one line, without the command's name that begins each message. If there is none, returns
/// the output.
pub(super) fn shown(errors: &[u8], output: &[u8]) -> String {
    let is_blank = errors.iter().all(u8::is_ascii_whitespace);
    let text = String::from_utf8_lossy(if is_blank { output } else { errors });
    let lines = text.lines().map(|line| {
        let line = line.trim();
        // Such as `sbatch: error: `.
        line.split_once(": error: ").filter(|(name, _)| !name.contains(' ')).map_or(line, |(_, text)| text)
    });
    let joined = lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
    joined.chars().take(ERRORS_SHOWN).collect()
}

#[cfg(test)]
mod tests;
