//! Supervisors on this host: started detached, so that they live on when the server dies, and woken over a socket.

use std::collections::BTreeMap;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::ChildStdin;
use tokio::task::JoinHandle;

use crate::attempt::secrets::Secrets;
use crate::attempt::status::{READY, ToSupervisor};
use crate::attempt::verification_dir::VerificationDir;
use crate::attempt::worker_dir::AttemptDir;
use crate::crash_point::{self, Point};
use crate::mission::hint::{Hint, Hinted};
use crate::process::{Detached, DetachedLaunch, Identity, Program, SpawnError, TAG_VARIABLE, start_detached};

/// Maximum time until a supervisor must report that it is ready. A start takes milliseconds, so a silent one hangs.
const READY_CEILING: Duration = Duration::from_secs(30);

#[derive(Debug, Error)]
pub enum LaunchError {
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    #[error("cannot start the supervisor: {said}; its log is {}", log.display())]
    NotReady { said: String, log: PathBuf },
    #[error("cannot use the folder for sockets {}: it belongs to another user", path.display())]
    ForeignFolder { path: PathBuf },
    #[error("cannot create the folder for sockets {}", path.display())]
    SocketFolder { path: PathBuf, source: std::io::Error },
}

impl Hinted for LaunchError {
    fn hints(&self) -> Vec<Hint> {
        let own = || Hint::to("set XDG_RUNTIME_DIR to a folder of your own");
        match self {
            Self::Spawn(error) => error.hints(),
            Self::ForeignFolder { .. } => vec![Hint::to("remove it"), own()],
            Self::SocketFolder { .. } => vec![Hint::to("make it writable"), own()],
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
        // Not the worktree: a supervisor must not keep a folder in use that is to be removed.
        cwd: attempt.root().to_owned(),
        env_set: secrets.variable(),
        env_remove: vec![TAG_VARIABLE.to_owned()],
        log: attempt.supervisor_log(),
        held: false,
    };
    let started = start_detached(&launch)?;
    crash_point::at(Point::SupervisorSpawned);
    until_ready(started, launch.log).await.map(|started| started.identity)
}

/// A supervisor that verifies an integration and ends with this process.
#[derive(Debug)]
pub struct RunningVerification {
    /// The supervisor's stdin. When it is dropped, or this process ends, the supervisor exits and removes everything.
    pub held: Option<ChildStdin>,
    pub exited: JoinHandle<std::io::Result<ExitStatus>>,
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
        held: true,
    };
    let Started { held, exited, .. } = until_ready(start_detached(&launch)?, launch.log).await?;
    Ok(RunningVerification { held, exited })
}

/// Without the stream on which it says that it is ready.
struct Started {
    identity: Identity,
    held: Option<ChildStdin>,
    exited: JoinHandle<std::io::Result<ExitStatus>>,
}

async fn until_ready(started: Detached, log: PathBuf) -> Result<Started, LaunchError> {
    let Detached { identity, ready, held, exited } = started;
    let mut line = String::new();
    let mut ready = BufReader::new(ready);
    let said = match tokio::time::timeout(READY_CEILING, ready.read_line(&mut line)).await {
        Ok(Ok(_)) if line.trim() == READY => return Ok(Started { identity, held, exited }),
        Ok(Ok(0)) => "it ended at once".to_owned(),
        Ok(Ok(_)) => line.trim().to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "it said nothing".to_owned(),
    };
    Err(LaunchError::NotReady { said, log })
}

/// Where the sockets lie: the user's runtime folder, since socket paths must be short (104 bytes on macOS).
pub fn socket_folder() -> Result<PathBuf, LaunchError> {
    let uid = rustix::process::getuid().as_raw();
    let folder = match std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| Path::new(folder).is_dir()) {
        Some(folder) => PathBuf::from(folder).join("orchestrator-boss"),
        None => PathBuf::from(format!("/tmp/orchestrator-boss-{uid}")),
    };
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
    let fail = |source| LaunchError::SocketFolder { path: folder.clone(), source };
    made.map_err(fail)?;
    // In /tmp anybody could have made it before us.
    let metadata = std::fs::symlink_metadata(&folder).map_err(fail)?;
    if !metadata.is_dir() || metadata.uid() != uid {
        return Err(LaunchError::ForeignFolder { path: folder });
    }
    if metadata.mode() & 0o077 != 0 {
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700)).map_err(fail)?;
    }
    Ok(folder)
}

/// The fast path to a supervisor; `None` where it cannot be reached (it looks at its files by itself then).
pub async fn connect(socket: &Path) -> Option<UnixStream> {
    UnixStream::connect(socket).await.ok()
}

/// Tells a supervisor that there is something in its inbox.
pub async fn wake(socket: &Path) {
    let Some(mut stream) = connect(socket).await else { return };
    let Ok(mut line) = serde_json::to_vec(&ToSupervisor::CheckInbox) else { return };
    line.push(b'\n');
    // Not reached is not lost: the inbox is looked at every second.
    let _ = stream.write_all(&line).await;
    let _ = stream.shutdown().await;
}
