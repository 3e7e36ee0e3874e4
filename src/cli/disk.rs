//! Measures folders on disk.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub(super) struct DiskSize {
    pub bytes: u64,
    /// False if there was no time for the rest.
    pub is_whole: bool,
}

/// Measures files and folders without following links. A file with several names counts once.
pub(super) fn measure<'a>(paths: impl IntoIterator<Item = &'a Path>, limit: Duration) -> DiskSize {
    let began = Instant::now();
    let mut seen = HashSet::new();
    let mut size = DiskSize { bytes: 0, is_whole: true };
    let mut left: Vec<PathBuf> = paths.into_iter().map(Path::to_owned).collect();
    while let Some(path) = left.pop() {
        if began.elapsed() > limit {
            size.is_whole = false;
            break;
        }
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if metadata.nlink() > 1 && !metadata.is_dir() && !seen.insert((metadata.dev(), metadata.ino())) {
            continue;
        }
        size.bytes += metadata.blocks() * 512;
        if metadata.is_dir() {
            left.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        }
    }
    size
}
