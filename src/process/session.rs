//! What a supervisor does to itself first: its own session, the reaping of orphans.
//!
//! Called once, before any child is started. Nothing here is for the server.

use rustix::process::{getpid, getsid, setsid};

use super::platform;

#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error(
        "begin a session of its own: {source}; a process that leads a process group cannot, so it must be started without one"
    )]
    Session { source: std::io::Error },
    #[error("become the one that adopts orphans (PR_SET_CHILD_SUBREAPER): {source}")]
    Subreaper { source: std::io::Error },
}

/// Leaves the session of whoever started us, so that closing their terminal does not reach us. Fine if already done.
pub fn become_session_leader() -> Result<(), SessionError> {
    match setsid() {
        Ok(_) => Ok(()),
        Err(_) if getsid(None) == Ok(getpid()) => Ok(()),
        Err(errno) => Err(SessionError::Session { source: errno.into() }),
    }
}

/// From now on, whatever is orphaned below this process becomes its child. On macOS there is no such thing: orphans
/// go to launchd, a sweep finds them by tag and session, and its proof is [`super::Proof::BestEffort`].
pub fn become_subreaper() -> Result<(), SessionError> {
    platform::become_subreaper().map_err(|errno| SessionError::Subreaper { source: errno.into() })
}
