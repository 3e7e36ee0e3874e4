//! Starts supervisors, on this host or as jobs of a cluster. Server and supervisor communicate through files, so the
//! same supervisor runs in both cases.

pub mod local;
#[cfg(test)]
mod messages;
pub mod slurm;

use std::process::ExitStatus;

use tokio::process::ChildStdin;
use tokio::task::JoinHandle;

/// A supervisor that verifies an integration and ends with this process.
#[derive(Debug)]
pub struct RunningVerification {
    /// The supervisor's stdin. When it is dropped, or this process ends, the supervisor exits and removes everything.
    pub stdin: Option<ChildStdin>,
    pub exited: JoinHandle<std::io::Result<ExitStatus>>,
}
