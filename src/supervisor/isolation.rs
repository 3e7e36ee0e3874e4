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

use super::signing;
use crate::attempt::sockets;

/// Variables that name a folder for sockets. They are set to a folder of the worker.
const SOCKETS: [&str; 3] = ["TMUX_TMPDIR", "SCREENDIR", "ZELLIJ_SOCKET_DIR"];
/// Variables that disable shared daemons. Nx's daemon serves one folder and would outlive the worktree. MSBuild's nodes
/// serve any later build.
const SWITCHES: [(&str, &str); 2] = [("NX_DAEMON", "false"), ("MSBUILDDISABLENODEREUSE", "1")];
/// Variables that connect to the boss's terminal: a worker's `tmux kill-server` would end it.
const TERMINAL: [&str; 6] = ["TMUX", "TMUX_PANE", "STY", "ZELLIJ", "ZELLIJ_PANE_ID", "ZELLIJ_SESSION_NAME"];

/// The variable that names the folder for temporary files.
pub const TEMPORARY_VARIABLE: &str = "TMPDIR";
/// All such variables. The first is set for a confined worker, the others only where the user has set them.
const TEMPORARY: [&str; 3] = [TEMPORARY_VARIABLE, "TMP", "TEMP"];

/// A folder for the sockets of one worker, and one for its temporary files if it is confined. They are removed when this
/// is dropped.
#[derive(Debug, Default)]
pub struct SocketFolder {
    sockets: Option<PathBuf>,
    temporary: TemporaryFolder,
    signing: Option<PathBuf>,
}

/// A folder for temporary files. It is removed when this is dropped.
#[derive(Debug, Default)]
pub struct TemporaryFolder(Option<PathBuf>);

impl SocketFolder {
    /// Creates the folder. Socket paths must be short, so it is not in the worker's folder.
    pub fn make(path: PathBuf) -> Self {
        let warn = |error: &io::Error| {
            tracing::warn!(%error, "cannot create the worker's folder for sockets: it shares the user's");
        };
        let sockets = make(path).inspect_err(warn).ok();
        Self { sockets, temporary: TemporaryFolder::default(), signing: None }
    }

    pub fn add_temporary(&mut self, temporary: TemporaryFolder) {
        self.temporary = temporary;
    }

    /// Writes the program with which git signs in the confinement, if the user has keys of GnuPG.
    pub fn add_signing(&mut self) {
        let written = self.sockets.as_deref().filter(|_| signing::has_keys()).map(signing::write_program);
        self.signing = written.and_then(|written| {
            let warn = |error: &io::Error| tracing::warn!(%error, "cannot write the program that signs");
            written.inspect_err(warn).ok()
        });
    }

    /// Returns the variables with which git signs in the confinement. `settings` is the number of git settings that the
    /// environment already has.
    pub fn signing_variables(&self, settings: usize) -> BTreeMap<String, OsString> {
        self.signing.as_deref().map_or_else(BTreeMap::new, |program| signing::variables(program, settings))
    }

    /// Returns the folder for temporary files, whose removal can take long.
    pub fn take_temporary(&mut self) -> TemporaryFolder {
        std::mem::take(&mut self.temporary)
    }

    /// Returns the folder for temporary files, if the worker is confined and it was created.
    pub fn temporary(&self) -> Option<&Path> {
        self.temporary.0.as_deref()
    }

    /// Returns the folders that were created.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        [&self.sockets, &self.temporary.0].into_iter().flatten().map(PathBuf::as_path)
    }

    /// Returns the variables for the processes of the worker, except those that are already set. The user's folder for
    /// temporary files is replaced for a confined worker, which cannot write it.
    pub fn variables(&self) -> BTreeMap<String, OsString> {
        let is_set = |name: &str| std::env::var_os(name).is_some();
        let named = |path: &Path, name: &'static str| (name, path.as_os_str().to_owned());
        let sockets = self.sockets.iter().flat_map(|path| SOCKETS.map(|name| named(path, name)));
        let switches = SWITCHES.map(|(name, value)| (name, value.into()));
        let kept = sockets.chain(switches).filter(|(name, _)| !is_set(name));
        let temporary = self.temporary.0.iter().flat_map(|path| TEMPORARY.map(|name| named(path, name)));
        let replaced = temporary.filter(|(name, _)| *name == TEMPORARY_VARIABLE || is_set(name));
        kept.chain(replaced).map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

impl TemporaryFolder {
    /// Creates the folder for temporary files that belongs to a folder for sockets. It is elsewhere, since sockets may be
    /// in a file system in memory.
    pub fn beside(sockets: &Path) -> Self {
        let warn = |error: &io::Error| {
            tracing::warn!(%error, "cannot create the worker's folder for temporary files");
        };
        Self(make(sockets::temporary_of(sockets)).inspect_err(warn).ok())
    }
}

fn make(path: PathBuf) -> io::Result<PathBuf> {
    match std::fs::DirBuilder::new().mode(0o700).create(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(path),
    }
}

impl Drop for SocketFolder {
    fn drop(&mut self) {
        if let Some(path) = &self.sockets {
            // A server that cleans up may have removed it.
            let _ = std::fs::remove_dir_all(path);
        }
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            sockets::remove_temporary(path);
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
        let mut sockets = SocketFolder::make(path.clone());
        assert_eq!(sockets.paths().collect::<Vec<_>>(), [path.as_path()]);
        assert_eq!(sockets.variables().get("TMPDIR"), None);
        sockets.add_temporary(TemporaryFolder::beside(&path));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        let variables = sockets.variables();
        assert_eq!(variables.get("SCREENDIR"), Some(&path.clone().into_os_string()));
        assert_eq!(variables.get("NX_DAEMON"), Some(&"false".into()));
        let temporary = PathBuf::from(&variables["TMPDIR"]);
        assert_eq!(std::fs::metadata(&temporary).unwrap().permissions().mode() & 0o777, 0o700);
        std::fs::write(path.join("file"), "").unwrap();
        std::fs::create_dir_all(temporary.join("module/inner")).unwrap();
        std::fs::set_permissions(temporary.join("module"), std::fs::Permissions::from_mode(0o500)).unwrap();
        drop(sockets);
        assert!(!path.exists() && !temporary.exists());
        assert!(
            SocketFolder::make("/nowhere/at/all".into()).variables().keys().all(|name| !SOCKETS.contains(&&**name))
        );
    }
}
