//! Starts a supervisor: a program that outlives the server.
//!
//! It must become a session leader by itself, so it is started without a process group of its own (a group leader
//! cannot call setsid) and without `pre_exec`, which would make the start slower with every MB that the server has.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};

use tokio::process::{ChildStdin, ChildStdout};
use tokio::task::JoinHandle;

use super::program::Program;
use super::record::Identity;
use super::spawn::{SpawnError, append_to, command, start};

#[derive(Clone, Debug)]
pub struct DetachedLaunch {
    pub program: Program,
    pub args: Vec<OsString>,
    pub cwd: PathBuf,
    /// Variables added to the inherited environment, or replacing it; applied after `env_remove`.
    pub env_set: BTreeMap<String, OsString>,
    pub env_remove: Vec<String>,
    /// The file to which its stderr is appended; created with mode 0600 if missing.
    pub log: PathBuf,
    /// True if it gets a stdin that closes when this process ends, so that it can end too. Otherwise it has no stdin.
    pub keep_stdin: bool,
}

#[derive(Debug)]
pub struct Detached {
    pub identity: Identity,
    /// Its stdout. It prints one line when it is ready, and nothing later, since the reader may be gone by then.
    pub ready: ChildStdout,
    /// Its stdin, if requested. Dropping it ends the process.
    pub stdin: Option<ChildStdin>,
    /// Its exit status. A task of the runtime reaps the process even if this handle is dropped.
    pub exited: JoinHandle<io::Result<ExitStatus>>,
}

/// Starts a detached process. Must be called on a tokio runtime.
pub fn start_detached(launch: &DetachedLaunch) -> Result<Detached, SpawnError> {
    let path = launch.program.path();
    let program =
        launch.program.startable().ok_or_else(|| SpawnError::OwnProgramMissing { program: path.to_owned() })?;
    let mut command = command(&program, &launch.args, &launch.cwd, &launch.env_set, &launch.env_remove);
    command.arg0(path);
    let stdin = if launch.keep_stdin { Stdio::piped() } else { Stdio::null() };
    command.stdin(stdin).stdout(Stdio::piped()).stderr(append_to(&launch.log, path)?);
    let (mut child, identity) = start(&mut command, &program, &launch.cwd)?;
    let ready = child.stdout.take().expect("stdout was asked for as a pipe three lines above");
    let stdin = child.stdin.take();
    let exited = tokio::spawn(async move { child.wait().await });
    Ok(Detached { identity, ready, stdin, exited })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::SpawnError;
    use tokio::io::{AsyncBufReadExt, BufReader};

    fn launch(directory: &tempfile::TempDir, script: &str) -> DetachedLaunch {
        DetachedLaunch {
            program: Program::at("/bin/sh".into()),
            args: vec!["-c".into(), script.into()],
            cwd: directory.path().to_owned(),
            env_set: BTreeMap::from([("GREETING".to_owned(), "ready".into())]),
            env_remove: vec!["PATH".to_owned()],
            log: directory.path().join("log"),
            keep_stdin: false,
        }
    }

    #[tokio::test]
    async fn detached_process_reports_ready_and_is_reaped() {
        let directory = tempfile::tempdir().unwrap();
        let script = "echo $GREETING; echo trouble >&2; while [ ! -e go ]; do :; done; exit 6";
        let detached = start_detached(&launch(&directory, script)).unwrap();
        let line = BufReader::new(detached.ready).lines().next_line().await.unwrap();
        assert_eq!(line.as_deref(), Some("ready"));
        assert!(detached.identity.is_alive());
        std::fs::write(directory.path().join("go"), "").unwrap();
        assert_eq!(detached.exited.await.unwrap().unwrap().code(), Some(6));
        assert_eq!(Identity::of(detached.identity.pid).filter(|now| *now == detached.identity), None);
        assert_eq!(std::fs::read_to_string(directory.path().join("log")).unwrap(), "trouble\n");
    }

    /// `setsid` (util-linux) calls setsid directly if it can, and must fork if it leads a group.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn detached_process_can_lead_session() {
        let directory = tempfile::tempdir().unwrap();
        let mut launch = launch(&directory, "");
        launch.program = Program::at("setsid".into());
        launch.args = ["/bin/sh", "-c", "echo $$"].map(OsString::from).to_vec();
        launch.env_remove.clear();
        let detached = start_detached(&launch).unwrap();
        let line = BufReader::new(detached.ready).lines().next_line().await.unwrap();
        assert_eq!(line, Some(detached.identity.pid.to_string()));
        assert!(detached.exited.await.unwrap().unwrap().success());
    }

    #[tokio::test]
    async fn missing_program_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let mut launch = launch(&directory, "");
        launch.program = Program::at("/nowhere/supervisor".into());
        let error = start_detached(&launch).unwrap_err();
        assert!(matches!(error, SpawnError::ProgramNotFound { program } if program.ends_with("supervisor")));
    }
}
