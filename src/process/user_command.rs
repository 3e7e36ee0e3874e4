//! Commands with a time limit, each in a process group of its own: a command of the user that gets input, such as the
//! `notify_command`, with `sh -c`; and a program with arguments. The command must come from the user's settings or from
//! this program, never from a worker or a boss.

use std::io;
use std::path::Path;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::time::timeout;

use super::record::Identity;
use super::{signal, tree};

/// Maximum number of bytes that an error quotes of the command's error output.
const STDERR_SHOWN: usize = 500;
/// Time for the rest of a program's error output after its exit.
const REST_OF_STDERR: Duration = Duration::from_millis(100);

/// The reason why the command did not succeed.
#[derive(Debug, Error)]
pub enum UserCommandError {
    #[error("cannot start the command")]
    Start(#[from] io::Error),
    #[error("cannot complete the command: it was ended after {seconds} s")]
    TimedOut { seconds: u64 },
    #[error("cannot complete the command: {status}: {stderr}")]
    Failed { status: ExitStatus, stderr: String },
}

/// A command, and how it runs.
#[derive(Debug)]
pub struct UserCommand<'a> {
    pub command: &'a str,
    pub directory: &'a Path,
    /// The variable of this process's environment that the command does not inherit.
    pub without_variable: &'a str,
    pub limit: Duration,
}

/// Runs the command once with this input. Ends it with its processes if it takes longer than its limit.
pub async fn run_user_command(run: &UserCommand<'_>, input: &[u8]) -> Result<(), UserCommandError> {
    // A file, since a process that the command leaves behind could hold a pipe open.
    let stderr = tempfile::NamedTempFile::new()?;
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(run.command).current_dir(run.directory).env_remove(run.without_variable).process_group(0);
    let mut child = shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(stderr.reopen()?).spawn()?;
    let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    let stdin = child.stdin.take();
    let ending = async {
        if let Some(mut stdin) = stdin {
            // A command need not read its input.
            let _ = stdin.write_all(input).await;
        }
        child.wait().await
    };
    let Ok(status) = timeout(run.limit, ending).await else {
        // The shell is not reaped yet, so its process id cannot be reused.
        group.map(|group| kill_process_group(group, Signal::KILL));
        return Err(UserCommandError::TimedOut { seconds: run.limit.as_secs() });
    };
    let status = status?;
    if status.success() {
        return Ok(());
    }
    Err(failed(status, &std::fs::read(stderr.path()).unwrap_or_default()))
}

fn failed(status: ExitStatus, printed: &[u8]) -> UserCommandError {
    let stderr = String::from_utf8_lossy(&printed[..printed.len().min(STDERR_SHOWN)]).trim().to_owned();
    UserCommandError::Failed { status, stderr }
}

/// Runs a program once, without input and with this process's environment. Ends it with all its descendants if it takes
/// longer than the limit. Its output is dropped, but an error quotes the beginning of the error output.
pub async fn run_program(
    program: &Path,
    arguments: &[String],
    directory: &Path,
    limit: Duration,
) -> Result<(), UserCommandError> {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(directory).process_group(0).kill_on_drop(true);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    // Dropped before `child`, so that the program is not reaped yet and its process id is not used again.
    let mut tree = KilledTree(child.id().and_then(Identity::of));
    // Closed only after all processes were found: a closed pipe ends the program, and with it the link to its descendants.
    let mut stderr = child.stderr.take();
    let mut printed = Vec::new();
    let ended = timeout(limit, async {
        let mut reading = pin!(read_beginning(stderr.as_mut(), &mut printed));
        tokio::select! {
            status = child.wait() => {
                // A process that the program leaves behind may hold the pipe open.
                let _ = timeout(REST_OF_STDERR, reading).await;
                status
            }
            () = &mut reading => child.wait().await,
        }
    });
    let Ok(status) = ended.await else {
        drop(tree);
        return Err(UserCommandError::TimedOut { seconds: limit.as_secs() });
    };
    // A program that ends by itself may leave processes behind.
    tree.0 = None;
    let status = status?;
    if status.success() { Ok(()) } else { Err(failed(status, &printed)) }
}

/// A program that is killed with its descendants when this value is dropped: after its time limit, or with its caller.
struct KilledTree(Option<Identity>);

impl Drop for KilledTree {
    fn drop(&mut self) {
        // Without a record it was reaped, and its process id may be used again.
        let Some(root) = self.0.filter(|root| root.record().is_some()) else { return };
        // A descendant may have left the group.
        for process in tree::below(root) {
            signal::send(&process, signal::Signal::Kill);
        }
        let group = i32::try_from(root.pid).ok().and_then(Pid::from_raw);
        // A child that a descendant has started meanwhile is in the group, unless it left that too.
        group.map(|group| kill_process_group(group, Signal::KILL));
    }
}

/// Reads a stream to its end, and keeps its beginning. The rest is read too, since the program would hang otherwise.
async fn read_beginning(stream: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut stream) = stream else { return };
    let mut buffer = vec![0; 4_096];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        let room = STDERR_SHOWN.saturating_sub(kept.len());
        kept.extend_from_slice(&buffer[..read.min(room)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    fn run<'a>(command: &'a str, directory: &'a Path, seconds: u64) -> UserCommand<'a> {
        UserCommand { command, directory, without_variable: "PATH", limit: Duration::from_secs(seconds) }
    }

    #[tokio::test]
    async fn hanging_command_is_ended_with_its_processes() {
        let folder = tempfile::tempdir().unwrap();
        let command = "/bin/sleep 600 & echo $! > child.new; /bin/mv child.new child; wait";
        let why = run_user_command(&run(command, folder.path(), 5), b"").await.unwrap_err();
        assert_eq!(why.to_string(), "cannot complete the command: it was ended after 5 s");
        let child: u32 = std::fs::read_to_string(folder.path().join("child")).unwrap().trim().parse().unwrap();
        let began = Instant::now();
        // A killed process takes a moment to disappear.
        while crate::process::Identity::of(child).is_some_and(|child| child.is_alive()) {
            assert!(began.elapsed() < Duration::from_secs(60), "{child} still runs");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn hanging_program_is_ended_with_its_descendants() {
        let folder = tempfile::tempdir().unwrap();
        // The sleep leaves the process group.
        let script = "setsid sleep 600 & echo $! > child.new; mv child.new child; yes >&2";
        let arguments = ["-c".to_owned(), script.to_owned()];
        let limit = Duration::from_secs(5);
        let why = run_program(Path::new("/bin/sh"), &arguments, folder.path(), limit).await.unwrap_err();
        assert_eq!(why.to_string(), "cannot complete the command: it was ended after 5 s");
        let child: u32 = std::fs::read_to_string(folder.path().join("child")).unwrap().trim().parse().unwrap();
        let began = Instant::now();
        while Identity::of(child).is_some_and(|child| child.is_alive()) {
            assert!(began.elapsed() < Duration::from_secs(60), "{child} still runs");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn program_that_nobody_waits_for_ends_with_its_descendants() {
        let folder = tempfile::tempdir().unwrap();
        let script = "setsid sleep 600 & echo $! > child.new; mv child.new child; sleep 600";
        let arguments = ["-c".to_owned(), script.to_owned()];
        let running = run_program(Path::new("/bin/sh"), &arguments, folder.path(), Duration::from_secs(600));
        let written = async {
            while !folder.path().join("child").exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            ended = running => panic!("{ended:?}"),
            waited = timeout(Duration::from_secs(60), written) => waited.unwrap(),
        }
        let child: u32 = std::fs::read_to_string(folder.path().join("child")).unwrap().trim().parse().unwrap();
        let began = Instant::now();
        while Identity::of(child).is_some_and(|child| child.is_alive()) {
            assert!(began.elapsed() < Duration::from_secs(60), "{child} still runs");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn program_may_leave_a_process_behind() {
        let arguments = ["-c", "sleep 20 & exit 0"].map(str::to_owned);
        let began = Instant::now();
        run_program(Path::new("/bin/sh"), &arguments, Path::new("/"), Duration::from_secs(15)).await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(15));
    }

    #[tokio::test]
    async fn failure_of_a_program_quotes_its_error_output() {
        let arguments = ["-c", "echo broken >&2; exit 3"].map(str::to_owned);
        let run = run_program(Path::new("/bin/sh"), &arguments, Path::new("/"), Duration::from_secs(60));
        assert_eq!(run.await.unwrap_err().to_string(), "cannot complete the command: exit status: 3: broken");
        let missing = run_program(Path::new("/nowhere"), &[], Path::new("/"), Duration::from_secs(60));
        assert_eq!(missing.await.unwrap_err().to_string(), "cannot start the command");
    }

    #[tokio::test]
    async fn failure_quotes_error_output() {
        let folder = tempfile::tempdir().unwrap();
        let failing = run("echo broken >&2; exit 3", folder.path(), 60);
        let why = run_user_command(&failing, b"").await.unwrap_err();
        assert_eq!(why.to_string(), "cannot complete the command: exit status: 3: broken");
    }

    #[tokio::test]
    async fn input_need_not_be_read() {
        let folder = tempfile::tempdir().unwrap();
        run_user_command(&run("exit 0", folder.path(), 60), &vec![b'x'; 1 << 20]).await.unwrap();
    }
}
