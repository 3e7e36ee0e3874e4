//! Liveness of servers and supervisors: each holds a lock on its own file. The lock ends with the process, however it
//! ends. A pid is no evidence.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::Path;

use super::{self as files, FileError};

/// A lock that lasts until it is dropped or the process ends.
#[derive(Debug)]
pub struct Lease {
    file: File,
}

/// Unlocks explicitly: a child between fork and exec still has the file open.
impl Drop for Lease {
    fn drop(&mut self) {
        // Without it, the lock ends with the file, slightly later.
        let _ = self.file.unlock();
    }
}

/// Takes the lock. Blocks while another process holds it.
pub fn wait_for(path: &Path) -> Result<Lease, FileError> {
    let fail = |source| FileError::write(path, source);
    let file = files::private().create(true).append(true).open(path).map_err(fail)?;
    file.lock().map_err(fail)?;
    Ok(Lease { file })
}

/// Takes the lock. `None` if a living process holds it.
pub fn take(path: &Path) -> Result<Option<Lease>, FileError> {
    let file =
        files::private().create(true).append(true).open(path).map_err(|source| FileError::write(path, source))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Lease { file })),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(source)) => Err(FileError::write(path, source)),
    }
}

/// Returns whether a living process holds the lock. A missing file means that its process shut down or never ran. If
/// the file cannot be checked, the process counts as alive, since a worker that counts as dead loses its work.
pub fn is_held(path: &Path) -> bool {
    match File::open(path) {
        Ok(file) => match file.try_lock_shared() {
            Ok(()) => {
                // Explicitly, as with a lease, so that another process can take it now.
                let _ = file.unlock();
                false
            }
            Err(_) => true,
        },
        Err(error) => error.kind() != ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lease_has_one_holder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        assert!(!is_held(&path));
        let lease = take(&path).unwrap().unwrap();
        assert!(is_held(&path));
        assert!(take(&path).unwrap().is_none());
        drop(lease);
        assert!(!is_held(&path));
        assert!(take(&path).unwrap().is_some());
    }

    #[test]
    fn open_file_of_a_child_holds_no_lease() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let lease = take(&path).unwrap().unwrap();
        // As in a child between fork and exec.
        let _of_a_child = lease.file.try_clone().unwrap();
        drop(lease);
        assert!(!is_held(&path));
        assert!(take(&path).unwrap().is_some());
    }

    #[test]
    fn unreadable_lock_counts_as_alive() {
        let folder = tempfile::tempdir().unwrap();
        // No user can open a link to itself.
        let path = folder.path().join("lock");
        std::os::unix::fs::symlink(&path, &path).unwrap();
        assert!(is_held(&path));
    }
}
