//! What a supervisor does to itself first: its own session, the reaping of orphans, room for open files.
//!
//! Called once, before any child is started. Nothing here is for the server.

use rustix::process::{Resource, Rlimit, getpid, getrlimit, getsid, setrlimit, setsid};

use super::platform;

/// More than a supervisor or a server ever opens, and what macOS allows without asking (OPEN_MAX).
const FILE_LIMIT: u64 = 10_240;

#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error(
        "begin a session of its own: {source}; a process that leads a process group cannot, so it must be started without one"
    )]
    Session { source: std::io::Error },
    #[error("become the one that adopts orphans (PR_SET_CHILD_SUBREAPER): {source}")]
    Subreaper { source: std::io::Error },
    #[error("raise the limit of open files from {from} to {to}: {source}")]
    FileLimit { from: u64, to: u64, source: std::io::Error },
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

/// Raises the soft limit of open files as far as is allowed and useful; never lowers it. Returns the limit that holds.
pub fn raise_file_limit() -> Result<u64, SessionError> {
    let limit = getrlimit(Resource::Nofile);
    let from = limit.current.unwrap_or(u64::MAX);
    let to = limit.maximum.unwrap_or(u64::MAX).min(FILE_LIMIT);
    if from >= to {
        return Ok(from);
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(to), maximum: limit.maximum })
        .map_err(|errno| SessionError::FileLimit { from, to, source: errno.into() })?;
    Ok(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_limit_only_rises() {
        let before = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let now = raise_file_limit().unwrap();
        assert!(now >= before);
        assert_eq!(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX), now);
        assert_eq!(raise_file_limit().unwrap(), now);
    }
}
