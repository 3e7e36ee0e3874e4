//! The session of a supervisor, and its adoption of orphans. A supervisor calls both functions once, before it starts a
//! child. A server calls neither.

use rustix::process::{getpid, getsid, setsid};

use super::platform;

#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error(
        "cannot begin a session of its own: {source}; the leader of a process group cannot, so it must be started without one"
    )]
    Session { source: std::io::Error },
    #[error("cannot become a subreaper (PR_SET_CHILD_SUBREAPER): {source}")]
    Subreaper { source: std::io::Error },
}

/// Leaves the session of the parent, so that closing its terminal does not signal this process. Succeeds if already
/// done.
pub fn become_session_leader() -> Result<(), SessionError> {
    match setsid() {
        Ok(_) => Ok(()),
        Err(_) if getsid(None) == Ok(getpid()) => Ok(()),
        Err(errno) => Err(SessionError::Session { source: errno.into() }),
    }
}

/// Makes all later orphans below this process its children. macOS has no subreapers: orphans go to launchd, and a sweep
/// finds them by tag and session with [`crate::mission::outcome::Containment::BestEffort`].
pub fn become_subreaper() -> Result<(), SessionError> {
    platform::become_subreaper().map_err(|errno| SessionError::Subreaper { source: errno.into() })
}
