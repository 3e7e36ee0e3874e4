//! The free memory, processes, files and disk space of the machine. It sets no thresholds.
//!
//! A container's limits count if they are tighter than the machine's. Each value is `None` if the system does not
//! report it. Reading one takes well under a millisecond.

use std::path::Path;

use rustix::process::{Resource, getrlimit};

#[cfg(target_os = "linux")]
use super::cgroup;
use super::platform;

/// Returns the physical memory, or the limit of the container if that is smaller, in bytes.
pub fn total_memory_bytes() -> Option<u64> {
    #[cfg(target_os = "linux")]
    let limit = cgroup::memory_limit();
    #[cfg(not(target_os = "linux"))]
    let limit = None;
    smaller(platform::total_memory(), limit)
}

/// Returns the memory that programs could take without swapping, in bytes: free memory and caches.
pub fn free_memory_bytes() -> Option<u64> {
    #[cfg(target_os = "linux")]
    let limit = cgroup::free_memory();
    #[cfg(not(target_os = "linux"))]
    let limit = None;
    smaller(platform::free_memory(), limit)
}

/// Returns the number of processes (on Linux also threads) that this user may still start.
pub fn free_processes() -> Option<u64> {
    #[cfg(target_os = "linux")]
    let limit = cgroup::free_processes();
    #[cfg(not(target_os = "linux"))]
    let limit = None;
    smaller(platform::free_processes(), limit)
}

/// Returns the number of files that this process may still open.
pub fn free_files() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile).current?;
    // On Linux a link to /proc/self/fd. Reading it takes a file as well.
    let open = std::fs::read_dir("/dev/fd").map_or(limit, |files| files.count() as u64);
    Some(limit.saturating_sub(open))
}

/// Returns the free space for this user on the file system of a folder, in bytes. If the folder does not exist, uses
/// the nearest parent that does.
pub fn free_disk_bytes(folder: &Path) -> Option<u64> {
    let found = folder.ancestors().find_map(|folder| rustix::fs::statvfs(folder).ok())?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

fn smaller(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    one.into_iter().chain(other).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_has_free_resources() {
        let (total, free) = (total_memory_bytes().unwrap(), free_memory_bytes().unwrap());
        assert!(free > 0 && free <= total, "{free} of {total}");
        assert!(free_processes().unwrap() > 0);
        assert!(free_files().unwrap() > 0);
        // Other tests in this process open and close files too.
        let is_counted = || {
            let files = free_files().unwrap();
            let _open = std::fs::File::open("/dev/null").unwrap();
            free_files().unwrap() < files
        };
        assert!((0..10_000).any(|_| is_counted()), "an open file is counted");
        let folder = tempfile::tempdir().unwrap();
        let there = free_disk_bytes(folder.path()).unwrap();
        assert!(there > 0);
        assert!(free_disk_bytes(&folder.path().join("not/yet/there")).is_some());
    }
}
