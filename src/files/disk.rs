//! Measures files and folders on disk.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The size of files and folders on disk, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSize {
    /// The space that they use. A file with several hard links counts once.
    pub bytes: u64,
    /// The part of it that their removal frees. Excludes files with a hard link elsewhere, such as in the store of a
    /// package manager.
    pub freed: u64,
    /// False if the time limit ended the measurement early.
    pub is_whole: bool,
}

/// Measures files and folders without following links.
pub fn measure<'a>(paths: impl IntoIterator<Item = &'a Path>, limit: Duration) -> DiskSize {
    let began = Instant::now();
    // The number of hard links of each file, by device and inode, that were not seen yet.
    let mut names: HashMap<(u64, u64), u64> = HashMap::new();
    let mut size = DiskSize { bytes: 0, freed: 0, is_whole: true };
    let mut left: Vec<PathBuf> = paths.into_iter().map(Path::to_owned).collect();
    while let Some(path) = left.pop() {
        if began.elapsed() > limit {
            size.is_whole = false;
            break;
        }
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        let bytes = metadata.blocks() * 512;
        if metadata.is_dir() {
            left.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        } else if metadata.nlink() > 1 {
            let unseen = names.entry((metadata.dev(), metadata.ino())).or_insert(metadata.nlink());
            if *unseen == metadata.nlink() {
                size.bytes += bytes;
            }
            *unseen = unseen.saturating_sub(1);
            if *unseen == 0 {
                size.freed += bytes;
            }
            continue;
        }
        size.bytes += bytes;
        size.freed += bytes;
    }
    size
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_with_several_names_counts_once() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("inside")).unwrap();
        fs::write(at("inside/one"), vec![b'x'; 100_000]).unwrap();
        let alone = measure([&*at("inside")], Duration::MAX);
        assert!(alone.bytes >= 100_000 && alone.freed == alone.bytes && alone.is_whole, "{alone:?}");
        fs::hard_link(at("inside/one"), at("inside/two")).unwrap();
        assert_eq!(measure([&*at("inside")], Duration::MAX), alone);
        fs::hard_link(at("inside/one"), at("outside")).unwrap();
        let shared = measure([&*at("inside")], Duration::MAX);
        assert_eq!(shared.bytes, alone.bytes);
        assert!(shared.freed + 100_000 <= alone.freed, "{shared:?}: another name keeps the file");
        std::os::unix::fs::symlink(at("outside"), at("inside/link")).unwrap();
        assert!(measure([&*at("inside")], Duration::MAX).freed < 100_000, "a link is not followed");
        assert!(!measure([&*at("inside")], Duration::ZERO).is_whole);
    }
}
