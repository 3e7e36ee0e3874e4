//! Confinement by the sandbox of macOS: `sandbox-exec` applies a profile and then becomes the program, so that its pid
//! stays. Written from documentation and other projects; it has not been run.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::profile;
use super::{ConfineError, Links, Restriction, Support, WriteRules};
use crate::mission::confined::{Enforcer, Reads};

const PROGRAM: &str = "/usr/bin/sandbox-exec";
const RESTRICTION: Restriction = Restriction { by: Enforcer::SandboxExec, abi: None, signals: true, reads: Reads::All };

/// Applies a profile that allows no writing, and checks that it is enforced. A sandbox cannot start in another one.
pub fn support() -> Support {
    let place = std::env::temp_dir().join(format!("orchestrator-boss-{}", std::process::id()));
    let (_, args) = match wrapped(&WriteRules::default(), Path::new("/usr/bin/touch"), &[place.as_os_str().to_owned()])
    {
        Ok(command) => command,
        Err(error) => return Support::No { why: error.to_string() },
    };
    let ended = std::process::Command::new(PROGRAM).args(args).output();
    let was_written = std::fs::remove_file(&place).is_ok();
    match ended {
        Ok(_) if was_written => Support::No { why: "the sandbox starts, but enforces nothing".to_owned() },
        // 71 is the status of sandbox-exec itself.
        Ok(ended) if ended.status.code() == Some(71) => {
            Support::No { why: String::from_utf8_lossy(&ended.stderr).trim().to_owned() }
        }
        Ok(_) => Support::Yes(RESTRICTION),
        Err(error) => Support::No { why: format!("cannot run {PROGRAM}: {error}") },
    }
}

/// Runs `start`. The restriction is in the command line: see [`wrapped`].
pub fn restricted<T: Send>(
    rules: &WriteRules,
    start: impl FnOnce() -> T + Send,
) -> Result<(T, Restriction), ConfineError> {
    Ok((start(), Restriction { reads: rules.reads(), ..RESTRICTION }))
}

/// Returns a folder of the work in which the rules have no effect. There is none: they are by name, so they hold on each
/// file system.
pub fn without_effect(_rules: &WriteRules) -> Option<PathBuf> {
    None
}

/// Returns the command line that starts a program with the profile of these rules.
pub fn wrapped(
    rules: &WriteRules,
    program: &Path,
    args: &[OsString],
) -> Result<(PathBuf, Vec<OsString>), ConfineError> {
    for grant in rules.grants().iter().filter(|grant| grant.links == Links::Refused) {
        let real = grant.path.canonicalize();
        let real = real.map_err(|source| ConfineError::Grant { path: grant.path.clone(), source })?;
        if real != grant.path {
            return Err(ConfineError::Link { path: grant.path.clone() });
        }
    }
    let mut wrapped = profile::arguments(rules, |path| path.canonicalize().unwrap_or_else(|_| path.clone()));
    wrapped.push(program.into());
    wrapped.extend_from_slice(args);
    Ok((PROGRAM.into(), wrapped))
}
