//! The common beginning of both kinds of supervisor process: one for an attempt, one for a verification run.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use thiserror::Error;
use tokio::time::Instant;

use crate::attempt::sockets::SocketFolderError;
use crate::attempt::status::READY;
use crate::backend::UnknownBackend;
use crate::files::FileError;
use crate::files::lease::{self, Lease};
use crate::process;

/// Time for which the lease is retried, since a liveness check holds it for a moment, or longer if that process is
/// stopped. It is below the time that the server waits for a supervisor to be ready.
const LEASE_CEILING: Duration = Duration::from_secs(20);

#[derive(Debug, Error)]
pub enum SupervisorError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("cannot read the assignment in {0}: there is none")]
    NoAssignment(String),
    #[error("cannot claim the attempt: another supervisor runs it or ran it")]
    Claimed,
    #[error("cannot record the outcome: a server has revoked the claim, and records the end itself")]
    Revoked,
    #[error(transparent)]
    Identity(#[from] process::IdentityError),
    #[error(transparent)]
    Session(#[from] process::SessionError),
    #[error("cannot start the runtime")]
    Runtime(#[source] std::io::Error),
    #[error(transparent)]
    Backend(#[from] UnknownBackend),
    #[error("cannot restart with the variables of the server")]
    Restart(#[source] std::io::Error),
    #[error(transparent)]
    SocketFolder(#[from] SocketFolderError),
}

/// Runs a supervisor process to its end. Its results are in its folder, not in its output.
pub(super) fn run_process(work: impl Future<Output = Result<(), SupervisorError>>) -> ExitCode {
    process::show_program_name();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map_err(SupervisorError::Runtime).and_then(|runtime| runtime.block_on(work)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the supervisor failed");
            ExitCode::FAILURE
        }
    }
}

/// Detaches this process from the server's session, and makes it adopt all orphans below it.
pub(super) fn separate_from_server() -> Result<(), SupervisorError> {
    process::become_session_leader()?;
    process::become_subreaper()?;
    Ok(())
}

pub(super) async fn take_lease(lock: &Path) -> Result<Lease, SupervisorError> {
    let began = Instant::now();
    loop {
        match lease::take(lock)? {
            Some(lease) => return Ok(lease),
            None if began.elapsed() > LEASE_CEILING => return Err(SupervisorError::Claimed),
            None => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Reports to the server that this process is ready. The server reads only this line, so nothing may be printed later.
pub(super) fn report_ready() {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{READY}").and_then(|()| out.flush());
}
