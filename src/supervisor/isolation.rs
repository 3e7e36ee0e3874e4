//! Separation of a worker's programs from the user's. If a variable allows it, a worker starts daemons of its own,
//! which end with it, instead of using those of the user.
//!
//! Only variables that change no result and cost little are set: builds keep the daemons of Gradle, Kotlin and Bazel.
//! Variables that the user has set are kept.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Variables that name a folder for sockets. They are set to a folder of the worker.
const SOCKETS: [&str; 3] = ["TMUX_TMPDIR", "SCREENDIR", "ZELLIJ_SOCKET_DIR"];
/// Variables that disable shared daemons. Nx's daemon serves one folder and would outlive the worktree. MSBuild's nodes
/// serve any later build.
const SWITCHES: [(&str, &str); 2] = [("NX_DAEMON", "false"), ("MSBUILDDISABLENODEREUSE", "1")];
/// Variables that connect to the boss's terminal: a worker's `tmux kill-server` would end it.
const TERMINAL: [&str; 6] = ["TMUX", "TMUX_PANE", "STY", "ZELLIJ", "ZELLIJ_PANE_ID", "ZELLIJ_SESSION_NAME"];

/// A folder for the sockets of one worker. It is removed when this is dropped.
#[derive(Debug, Default)]
pub struct SocketFolder(Option<PathBuf>);

impl SocketFolder {
    /// Creates the folder. Socket paths must be short, so it is not in the worker's folder.
    pub fn make(path: PathBuf) -> Self {
        match std::fs::DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => Self(Some(path)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Self(Some(path)),
            Err(error) => {
                tracing::warn!(%error, "cannot create the worker's folder for sockets: it shares the user's");
                Self(None)
            }
        }
    }

    pub fn path(&self) -> Option<&Path> {
        self.0.as_deref()
    }

    /// Returns the variables for the processes of the worker, except those that are already set.
    pub fn variables(&self) -> BTreeMap<String, OsString> {
        let sockets = self.path().into_iter().flat_map(|path| SOCKETS.map(|name| (name, path.as_os_str().to_owned())));
        let switches = SWITCHES.map(|(name, value)| (name, value.into()));
        let all = sockets.chain(switches).filter(|(name, _)| std::env::var_os(name).is_none());
        all.map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

impl Drop for SocketFolder {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // A server that cleans up may have removed it.
            let _ = std::fs::remove_dir_all(path);
        }
    }
}

/// Returns whether a variable connects a worker's programs to the boss's terminal.
pub fn reaches_boss_terminal(name: &str) -> bool {
    TERMINAL.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn folder_is_private_and_removed_with_worker() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0123.d");
        let sockets = SocketFolder::make(path.clone());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        let variables = sockets.variables();
        assert_eq!(variables.get("SCREENDIR"), Some(&path.clone().into_os_string()));
        assert_eq!(variables.get("NX_DAEMON"), Some(&"false".into()));
        std::fs::write(path.join("file"), "").unwrap();
        drop(sockets);
        assert!(!path.exists());
        assert!(
            SocketFolder::make("/nowhere/at/all".into()).variables().keys().all(|name| !SOCKETS.contains(&&**name))
        );
    }
}
