//! Folders for the sockets of a worker's programs, beside the socket of its supervisor. The supervisor makes and
//! removes them; a server removes those that a killed supervisor left.

use std::fs::Permissions;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use thiserror::Error;
use uuid::Uuid;

use crate::mission::hint::{Hint, Hinted};

/// The reason why there is no folder for sockets.
#[derive(Debug, Error)]
pub enum SocketFolderError {
    #[error("cannot use the folder for sockets {}: it belongs to another user", path.display())]
    Foreign { path: PathBuf },
    #[error("cannot create the folder for sockets {}", path.display())]
    Create { path: PathBuf, source: std::io::Error },
}

impl Hinted for SocketFolderError {
    fn hints(&self) -> Vec<Hint> {
        let own = Hint::to("set XDG_RUNTIME_DIR to a folder of your own");
        match self {
            Self::Foreign { .. } => vec![Hint::to("remove it"), own],
            Self::Create { .. } => vec![Hint::to("make it writable"), own],
        }
    }
}

/// Returns the folder of the sockets, which it creates in the user's runtime folder, since socket paths must be short
/// (104 bytes on macOS).
pub fn user_folder() -> Result<PathBuf, SocketFolderError> {
    let uid = rustix::process::getuid().as_raw();
    let folder = match std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| Path::new(folder).is_dir()) {
        Some(folder) => PathBuf::from(folder).join("orchestrator-boss"),
        None => PathBuf::from(format!("/tmp/orchestrator-boss-{uid}")),
    };
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
    let fail = |source| SocketFolderError::Create { path: folder.clone(), source };
    made.map_err(fail)?;
    // In /tmp another user could have created it before.
    let metadata = std::fs::symlink_metadata(&folder).map_err(fail)?;
    if !metadata.is_dir() || metadata.uid() != uid {
        return Err(SocketFolderError::Foreign { path: folder });
    }
    if metadata.mode() & 0o077 != 0 {
        std::fs::set_permissions(&folder, Permissions::from_mode(0o700)).map_err(fail)?;
    }
    Ok(folder)
}

/// Returns the path of a new socket in this folder.
pub fn new_socket_in(folder: &Path) -> PathBuf {
    folder.join(format!("{}.sock", &Uuid::new_v4().simple().to_string()[..16]))
}

/// Returns the folder for the sockets of the worker whose supervisor has this socket.
pub fn folder_beside(socket: &Path) -> PathBuf {
    socket.with_extension("d")
}

/// Returns the path of a new folder for sockets, in the folder that holds those of the user.
pub fn new_folder_in(folder: &Path) -> PathBuf {
    folder_beside(&new_socket_in(folder))
}

/// Returns the folder for the temporary files of the worker with this folder for sockets.
pub fn temporary_of(sockets: &Path) -> PathBuf {
    let name = sockets.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    std::env::temp_dir().join(format!("ob-{name}"))
}

/// Removes a folder for temporary files. Tools make folders in it that cannot be written, such as Go's modules.
pub fn remove_temporary(path: &Path) {
    let is_folder = std::fs::symlink_metadata(path).is_ok_and(|found| found.is_dir());
    if !is_folder || std::fs::remove_dir_all(path).is_ok() {
        return;
    }
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        let _ = std::fs::set_permissions(&folder, Permissions::from_mode(0o700));
        let inner = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        folders
            .extend(inner.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()));
    }
    if let Err(error) = std::fs::remove_dir_all(path) {
        tracing::warn!(%error, path = %path.display(), "cannot remove the temporary files of a worker");
    }
}

/// Removes the folders that a supervisor with this socket left.
pub fn remove_beside(socket: &Path) {
    let sockets = folder_beside(socket);
    let _ = std::fs::remove_dir_all(&sockets);
    remove_temporary(&temporary_of(&sockets));
}

/// Removes a folder for sockets that its process has left. A worker may have written the path, so it must be in the
/// folder that holds those of the user, and named like one.
pub fn remove_left(path: &Path, folder: &Path) {
    let id = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".d"));
    let is_ours = id.is_some_and(|id| id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit()));
    if is_ours && path.parent() == Some(folder) {
        let _ = std::fs::remove_dir_all(path);
        remove_temporary(&temporary_of(path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mission::hint::with_hints;

    #[test]
    fn errors_name_the_folder() {
        let path = PathBuf::from("/tmp/sockets");
        let source = std::io::ErrorKind::PermissionDenied.into();
        let foreign = with_hints(&SocketFolderError::Foreign { path: path.clone() });
        let create = with_hints(&SocketFolderError::Create { path, source });
        let own = "set XDG_RUNTIME_DIR to a folder of your own";
        assert_eq!(
            foreign,
            format!("cannot use the folder for sockets /tmp/sockets: it belongs to another user; remove it, or {own}")
        );
        assert_eq!(
            create,
            format!("cannot create the folder for sockets /tmp/sockets: permission denied; make it writable, or {own}")
        );
    }

    #[test]
    fn only_named_socket_folders_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let (left, other) = (new_folder_in(folder.path()), folder.path().join("other.d"));
        for path in [&left, &other] {
            std::fs::create_dir(path).unwrap();
            remove_left(path, Path::new("/elsewhere"));
            assert!(path.exists());
            remove_left(path, folder.path());
        }
        assert!(!left.exists() && other.exists());
    }
}
