//! Whether a server or a supervisor lives: it holds a lock on a file of its own for as long as it does.
//!
//! A lock goes with its process, however that ends; a pid proves nothing.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::Path;

use super::{self as files, FileError};

/// Held until it is dropped, or the process ends.
#[derive(Debug)]
pub struct Lease {
    file: File,
}

/// To close the file is not enough: a child that was just forked has it too, until it becomes another program.
impl Drop for Lease {
    fn drop(&mut self) {
        // The lock goes with the file in any case, a moment later.
        let _ = self.file.unlock();
    }
}

/// Takes the lock; `None` when a living process holds it.
pub fn take(path: &Path) -> Result<Option<Lease>, FileError> {
    let file =
        files::private().create(true).append(true).open(path).map_err(|source| FileError::write(path, source))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Lease { file })),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(source)) => Err(FileError::write(path, source)),
    }
}

/// A living process holds the lock. A file that is not there was never locked, or its holder went in order. Where it
/// cannot be told (too many open files, no permission), the holder counts as living: whoever is called dead loses his work.
pub fn is_held(path: &Path) -> bool {
    match File::open(path) {
        Ok(file) => match file.try_lock_shared() {
            Ok(()) => {
                // As with a lease, see there: whoever wants to take it now shall be able to.
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
    fn a_lease_is_held_by_one_and_ends_with_it() {
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
    fn what_a_child_still_has_open_of_a_lease_does_not_hold_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let lease = take(&path).unwrap().unwrap();
        // As a child has it between fork and exec.
        let _of_a_child = lease.file.try_clone().unwrap();
        drop(lease);
        assert!(!is_held(&path));
        assert!(take(&path).unwrap().is_some());
    }

    #[test]
    fn nobody_is_called_dead_because_he_could_not_be_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        // A link to itself cannot be opened, whoever tries.
        let path = folder.path().join("lock");
        std::os::unix::fs::symlink(&path, &path).unwrap();
        assert!(is_held(&path));
    }
}
