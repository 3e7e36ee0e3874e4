//! A supervisor that runs as a job of a cluster, on a host that is not its server's. It is reached through files alone,
//! shows that it lives by writing its status again and again, and checks what its server could not check: that the
//! worktree, git and the CLI are on this node.

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::attempt::{LiveAttempt, TurnEnd};
use super::startup::SupervisorError;
use crate::attempt::assignment::Assignment;
use crate::attempt::launch::PassedEnvironment;
use crate::attempt::secrets;
use crate::attempt::sockets;
use crate::attempt::status::LiveStatus;
use crate::attempt::worker_dir::AttemptDir;
use crate::git;
use crate::mission::hint::{Hint, Hinted, with_hints};
use crate::mission::outcome::{Failure, FailureKind};
use crate::process::{self, Host};

/// Interval at which a job shows that it lives. A server calls it lost after `lost_after_seconds`, at least 60.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// Replaces this process by a new run of this program that has the variables which the server passes. A program with
/// threads cannot change its own environment safely.
///
/// Returns if this is already the new run. The file with the variables is removed later, by the one process that claims
/// the attempt.
pub(super) fn take_over_environment(folder: &Path) -> Result<(), SupervisorError> {
    if env::var_os(secrets::VARIABLE).is_some() {
        return Ok(());
    }
    let passed = PassedEnvironment::read(folder)?.unwrap_or_default();
    let program = env::current_exe().map_err(SupervisorError::Restart)?;
    let mut again = Command::new(program);
    again.args(env::args_os().skip(1)).envs(&passed.variables).envs(passed.secrets.variable());
    again.env("PATH", searched_after(env::var_os("PATH"), &passed.path));
    Err(SupervisorError::Restart(again.exec()))
}

/// Returns the PATH of this node, followed by that of the server.
fn searched_after(own: Option<OsString>, servers: &str) -> OsString {
    let mut path = own.unwrap_or_default();
    if !path.is_empty() && !servers.is_empty() {
        path.push(":");
    }
    path.push(servers);
    path
}

/// Chooses where sockets are on this node. The server cannot know it.
pub(super) fn place_sockets(assignment: &mut Assignment) -> Result<(), SupervisorError> {
    assignment.socket = sockets::new_socket_in(&sockets::user_folder()?);
    Ok(())
}

/// Writes the status again once every [`HEARTBEAT`] until the task is aborted. To a server, each change is a sign of
/// life.
pub(super) fn keep_alive(dir: AttemptDir, status: watch::Receiver<LiveStatus>) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(HEARTBEAT).await;
            let status = LiveStatus { written: process::monotonic(), ..status.borrow().clone() };
            if let Err(error) = status.write(&dir) {
                tracing::warn!(%error, "cannot show that this supervisor lives");
            }
        }
    })
}

/// The reason why a worker cannot run on a node.
#[derive(Debug, Error)]
pub(super) enum NodeError {
    #[error("cannot run on {node}: {program} was not found there")]
    NoProgram { node: String, program: String },
    #[error("cannot run on {node}: git does not work in {}: {why}", directory.display())]
    Git { node: String, directory: PathBuf, why: String },
    #[error("cannot run on {node}: the folder {} does not exist there", directory.display())]
    NoDirectory { node: String, directory: PathBuf },
}

impl Hinted for NodeError {
    fn hints(&self) -> Vec<Hint> {
        match self {
            Self::NoProgram { .. } => vec![
                Hint::to("install it on the nodes"),
                Hint::to("add its folder to the PATH with `prologue` of the launcher in the settings"),
            ],
            Self::Git { .. } | Self::NoDirectory { .. } => {
                vec![Hint::to("keep the repository and its worktrees on a file system that the nodes share")]
            }
        }
    }
}

impl LiveAttempt {
    /// Checks that this node has what the worker needs, and finds the program of its CLI. Returns the end of the
    /// attempt if something is missing. Has no effect if the supervisor runs on the host of its server, which has
    /// checked it before.
    pub(super) fn check_node(&mut self) -> Result<(), Box<TurnEnd>> {
        if !self.is_job() {
            return Ok(());
        }
        match self.find_on_node() {
            Ok(()) => Ok(()),
            Err(error) => {
                let failure =
                    Failure { kind: FailureKind::CouldNotStart, message: with_hints(&error), resets_at: None };
                let end = TurnEnd::not_started(failure, None);
                self.record_end(&end);
                Err(Box::new(end))
            }
        }
    }

    fn find_on_node(&mut self) -> Result<(), NodeError> {
        let node = || Host::own().name.clone();
        let directory = self.assignment.directory.clone();
        if !directory.is_dir() {
            return Err(NodeError::NoDirectory { node: node(), directory });
        }
        if self.assignment.repository.is_some()
            && let Err(error) = git::head(&self.assignment.checkout())
        {
            return Err(NodeError::Git { node: node(), directory, why: with_hints(&error) });
        }
        // The server took the fingerprint on another host, where a network file system may show other modification
        // times.
        if let (Some(_), Some(repository)) = (&self.assignment.main_checkout, &self.assignment.repository)
            && let Ok(here) = git::fingerprint(repository)
        {
            self.assignment.main_checkout = Some(here);
        }
        let program = self.assignment.program.clone();
        let is_missing = |_| NodeError::NoProgram { node: node(), program: program.display().to_string() };
        self.assignment.program = which::which(&program).map_err(is_missing)?;
        Ok(())
    }

    /// Returns whether this supervisor runs as a job of a cluster.
    pub(super) fn is_job(&self) -> bool {
        self.assignment.launcher.is_some()
    }
}

/// Removes the passed variables. To be called once the attempt is claimed.
pub(super) fn forget_environment(folder: &Path) {
    PassedEnvironment::remove(folder);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_of_the_node_comes_first() {
        let joined = |own: Option<&str>, servers| searched_after(own.map(OsString::from), servers);
        assert_eq!(joined(Some("/node/bin"), "/usr/bin"), "/node/bin:/usr/bin");
        assert_eq!(joined(None, "/usr/bin"), "/usr/bin");
        assert_eq!(joined(Some("/node/bin"), ""), "/node/bin");
    }
}
