//! Supervisors on this host. They are started detached, so that they outlive the server, and woken over a socket.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::ChildStdin;
use tokio::task::JoinHandle;

use crate::attempt::secrets::Secrets;
use crate::attempt::sockets::SocketFolderError;
use crate::attempt::status::{READY, ToSupervisor};
use crate::attempt::verification_dir::VerificationDir;
use crate::attempt::worker_dir::AttemptDir;
use crate::crash_point::{self, Point};
use crate::launcher::RunningVerification;
use crate::mission::hint::{Hint, Hinted};
use crate::process::{Detached, DetachedLaunch, Identity, Program, SpawnError, TAG_VARIABLE, start_detached};

/// Maximum time until a supervisor must report that it is ready. A start takes milliseconds, so a silent one hangs.
const READY_CEILING: Duration = Duration::from_secs(30);

#[derive(Debug, Error)]
pub enum LaunchError {
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    #[error("cannot start the supervisor: {cause}; its log is {}", log.display())]
    NotReady { cause: String, log: PathBuf },
    #[error(transparent)]
    Sockets(#[from] SocketFolderError),
}

impl Hinted for LaunchError {
    fn hints(&self) -> Vec<Hint> {
        match self {
            Self::Spawn(error) => error.hints(),
            Self::Sockets(error) => error.hints(),
            Self::NotReady { .. } => Vec::new(),
        }
    }
}

/// Starts the supervisor of one attempt. Returns when it has claimed the attempt.
///
/// `secrets` holds the secrets from the user's settings for CLIs. They are passed in the environment, so that no file
/// of orchestrator-boss contains them.
pub async fn start(program: &Program, attempt: &AttemptDir, secrets: &Secrets) -> Result<Identity, LaunchError> {
    let launch = DetachedLaunch {
        program: program.clone(),
        args: vec!["supervise".into(), attempt.root().into()],
        // Not the worktree: a supervisor must not use a folder that is to be removed.
        cwd: attempt.root().to_owned(),
        env_set: secrets.variable(),
        env_remove: vec![TAG_VARIABLE.to_owned()],
        log: attempt.supervisor_log(),
        keep_stdin: false,
    };
    let started = start_detached(&launch)?;
    crash_point::at(Point::SupervisorSpawned);
    until_ready(started, launch.log).await.map(|started| started.identity)
}

/// Starts the supervisor of one verification run of an integration. Returns when it has begun.
pub async fn start_verification(program: &Program, dir: &VerificationDir) -> Result<RunningVerification, LaunchError> {
    let launch = DetachedLaunch {
        program: program.clone(),
        args: vec!["verify".into(), dir.root().into()],
        cwd: dir.root().parent().unwrap_or(dir.root()).to_owned(),
        env_set: BTreeMap::new(),
        env_remove: vec![TAG_VARIABLE.to_owned()],
        log: dir.supervisor_log(),
        keep_stdin: true,
    };
    let ReadySupervisor { stdin, exited, .. } = until_ready(start_detached(&launch)?, launch.log).await?;
    Ok(RunningVerification { stdin, exited })
}

struct ReadySupervisor {
    identity: Identity,
    stdin: Option<ChildStdin>,
    exited: JoinHandle<std::io::Result<ExitStatus>>,
}

async fn until_ready(started: Detached, log: PathBuf) -> Result<ReadySupervisor, LaunchError> {
    let Detached { identity, ready, stdin, exited } = started;
    let mut line = String::new();
    let mut ready = BufReader::new(ready);
    let cause = match tokio::time::timeout(READY_CEILING, ready.read_line(&mut line)).await {
        Ok(Ok(_)) if line.trim() == READY => return Ok(ReadySupervisor { identity, stdin, exited }),
        Ok(Ok(0)) => "it exited at once".to_owned(),
        Ok(Ok(_)) => line.trim().to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "it did not report that it is ready".to_owned(),
    };
    Err(LaunchError::NotReady { cause, log })
}

/// Connects to the socket of a supervisor. `None` if it cannot be reached: the server then polls the files of the
/// attempt, and the supervisor its inbox.
pub async fn connect(socket: &Path) -> Option<UnixStream> {
    UnixStream::connect(socket).await.ok()
}

/// Wakes a supervisor after an entry was posted to its inbox.
pub async fn wake(socket: &Path) {
    let Some(mut stream) = connect(socket).await else { return };
    let Ok(mut line) = serde_json::to_vec(&ToSupervisor::CheckInbox) else { return };
    line.push(b'\n');
    // An error loses nothing, since the supervisor polls its inbox every second.
    let _ = stream.write_all(&line).await;
    let _ = stream.shutdown().await;
}
