//! Whether a server or a supervisor lives: it holds a lock on a file of its own for as long as it does.
//!
//! A lock goes with its process, however that ends; a pid proves nothing.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::Path;

use super::file::{self, FileError};

/// Held until it is dropped, or the process ends.
#[derive(Debug)]
pub struct Lease {
    _file: File,
}

/// Takes the lock; `None` when a living process holds it.
pub fn take(path: &Path) -> Result<Option<Lease>, FileError> {
    let file = file::private().create(true).append(true).open(path).map_err(|source| FileError::write(path, source))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Lease { _file: file })),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(source)) => Err(FileError::write(path, source)),
    }
}

/// A living process holds the lock. A file that is not there was never locked, or its holder went in order. Where it
/// cannot be told (too many open files, no permission), the holder counts as living: whoever is called dead loses his work.
pub fn is_held(path: &Path) -> bool {
    match File::open(path) {
        Ok(file) => file.try_lock_shared().is_err(),
        Err(error) => error.kind() != ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eventually(condition: impl Fn() -> bool) {
        let began = std::time::Instant::now();
        while !condition() {
            assert!(began.elapsed().as_secs() < 90, "it is still held");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_lease_is_held_by_one_and_ends_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        assert!(!is_held(&path));
        let lease = take(&path).unwrap().unwrap();
        assert!(is_held(&path));
        assert!(take(&path).unwrap().is_none());
        drop(lease);
        // What other threads of this process start has its open files, too, until it is another program.
        eventually(|| !is_held(&path));
        eventually(|| take(&path).unwrap().is_some());
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
