//! What keeps a worker's programs apart from the user's: where a variable can do it, a worker starts daemons of its own,
//! which end with it, instead of the first instance of one that the user shares.
//!
//! Chosen are those that change no result and cost little: builds keep Gradle's, Kotlin's and Bazel's daemons. What the
//! user has set stays.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// For these a folder of the worker holds the sockets.
const SOCKETS: [&str; 3] = ["TMUX_TMPDIR", "SCREENDIR", "ZELLIJ_SOCKET_DIR"];
/// Nx's daemon serves one folder, and so would outlive the worktree; MSBuild's nodes serve whoever builds next.
const SWITCHES: [(&str, &str); 2] = [("NX_DAEMON", "false"), ("MSBUILDDISABLENODEREUSE", "1")];
/// The terminal that the boss runs in: a worker's `tmux kill-server` would end it.
const TERMINAL: [&str; 6] = ["TMUX", "TMUX_PANE", "STY", "ZELLIJ", "ZELLIJ_PANE_ID", "ZELLIJ_SESSION_NAME"];

/// A folder for the sockets of one worker. Removed when it is dropped.
#[derive(Debug, Default)]
pub struct Sockets(Option<PathBuf>);

impl Sockets {
    /// Socket paths must be short, so it does not lie in the worker's folder.
    pub fn make(path: PathBuf) -> Self {
        match std::fs::DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => Self(Some(path)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Self(Some(path)),
            Err(error) => {
                tracing::warn!(%error, "no folder for the worker's sockets: it shares the user's");
                Self(None)
            }
        }
    }

    pub fn path(&self) -> Option<&Path> {
        self.0.as_deref()
    }

    /// The variables for what the worker starts, but for those that are set.
    pub fn variables(&self) -> BTreeMap<String, OsString> {
        let sockets = self.path().into_iter().flat_map(|path| SOCKETS.map(|name| (name, path.as_os_str().to_owned())));
        let switches = SWITCHES.map(|(name, value)| (name, value.into()));
        let all = sockets.chain(switches).filter(|(name, _)| std::env::var_os(name).is_none());
        all.map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // It may have been removed by whoever cleans up.
            let _ = std::fs::remove_dir_all(path);
        }
    }
}

/// Where the sockets of the worker lie whose own socket this is.
pub fn folder_beside(socket: &Path) -> PathBuf {
    socket.with_extension("d")
}

/// Whether this variable leads a worker's programs to the boss's terminal.
pub fn leads_to_the_terminal(name: &str) -> bool {
    TERMINAL.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_folder_is_private_and_goes_with_its_worker() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder_beside(&folder.path().join("0123.sock"));
        let sockets = Sockets::make(path.clone());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        let variables = sockets.variables();
        assert_eq!(variables.get("SCREENDIR"), Some(&path.clone().into_os_string()));
        assert_eq!(variables.get("NX_DAEMON"), Some(&"false".into()));
        std::fs::write(path.join("left"), "").unwrap();
        drop(sockets);
        assert!(!path.exists());
        assert!(Sockets::make("/nowhere/at/all".into()).variables().keys().all(|name| !SOCKETS.contains(&&**name)));
    }
}
