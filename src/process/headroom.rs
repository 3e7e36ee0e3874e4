//! What the machine has left: memory, processes, disk. Facts only; what is too little is decided elsewhere.
//!
//! A container's limits count where they are tighter than the machine's. Each fact is `None` where the system does not
//! tell it. A look takes well under a millisecond.

use std::path::Path;

use rustix::process::{Resource, getrlimit};

#[cfg(target_os = "linux")]
use super::cgroup;
use super::platform;

/// Physical memory, or the limit of the container around us where that is smaller, in bytes.
pub fn total_memory_bytes() -> Option<u64> {
    #[cfg(target_os = "linux")]
    let limit = cgroup::memory_limit();
    #[cfg(not(target_os = "linux"))]
    let limit = None;
    smaller(platform::total_memory(), limit)
}

/// What programs could still take without swapping, in bytes: memory that is free, or held by caches only.
pub fn free_memory_bytes() -> Option<u64> {
    #[cfg(target_os = "linux")]
    let limit = cgroup::free_memory();
    #[cfg(not(target_os = "linux"))]
    let limit = None;
    smaller(platform::free_memory(), limit)
}

/// How many more processes (on Linux threads too) the system would let this user start.
pub fn free_processes() -> Option<u64> {
    #[cfg(target_os = "linux")]
    let limit = cgroup::free_processes();
    #[cfg(not(target_os = "linux"))]
    let limit = None;
    smaller(platform::free_processes(), limit)
}

/// How many more files this process may open.
pub fn free_files() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile).current?;
    // On Linux a link to /proc/self/fd. To look takes a file as well.
    let open = std::fs::read_dir("/dev/fd").map_or(limit, |files| files.count() as u64);
    Some(limit.saturating_sub(open))
}

/// What this user may still write on the file system of a folder, in bytes. Of one that is not there yet, the nearest
/// folder above it that is.
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
    fn this_machine_has_something_left() {
        let (total, free) = (total_memory_bytes().unwrap(), free_memory_bytes().unwrap());
        assert!(free > 0 && free <= total, "{free} of {total}");
        assert!(free_processes().unwrap() > 0);
        assert!(free_files().unwrap() > 0);
        // Other tests in this process open and close files, too.
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
