//! The limits of the control groups of this process, read from /proc/self/cgroup and /sys/fs/cgroup, on Linux only.
//!
//! It reads versions 1 and 2. The limits of all parent groups count too. In a container the path in /proc may be the
//! host's, and the container's own group the root of the mount, so the root is read as well.

use std::fs;
use std::path::{Path, PathBuf};

/// Returns the tightest limit on memory, in bytes.
pub(super) fn memory_limit() -> Option<u64> {
    tightest("memory", |group| {
        number(&group.join("memory.max")).or_else(|| number(&group.join("memory.limit_in_bytes")))
    })
}

/// Returns the free memory below the tightest limit, in bytes. Reclaimable page cache counts as free.
pub(super) fn free_memory() -> Option<u64> {
    tightest("memory", free_memory_in)
}

pub(super) fn free_processes() -> Option<u64> {
    tightest("pids", |group| {
        Some(number(&group.join("pids.max"))?.saturating_sub(number(&group.join("pids.current"))?))
    })
}

fn free_memory_in(group: &Path) -> Option<u64> {
    let read = |limit: &str, used: &str, cache: &str| {
        let used = number(&group.join(used))?.saturating_sub(field(&group.join("memory.stat"), cache).unwrap_or(0));
        Some(number(&group.join(limit))?.saturating_sub(used))
    };
    read("memory.max", "memory.current", "inactive_file")
        .or_else(|| read("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"))
}

fn tightest(controller: &str, read: impl Fn(&Path) -> Option<u64>) -> Option<u64> {
    let membership = fs::read_to_string("/proc/self/cgroup").ok()?;
    groups(Path::new("/sys/fs/cgroup"), &membership, controller).iter().filter_map(|group| read(group)).min()
}

/// Returns all groups of this process for this controller.
fn groups(mounted: &Path, membership: &str, controller: &str) -> Vec<PathBuf> {
    let lines = membership.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let roots = lines.filter_map(|(controllers, path)| {
        // The line of version 2 names no controller.
        if controllers.is_empty() {
            return Some((mounted.to_owned(), path));
        }
        controllers.split(',').any(|name| name == controller).then(|| (mounted.join(controllers), path))
    });
    let chains = roots.flat_map(|(root, path)| {
        let below = Path::new(path.trim_start_matches('/'));
        below.ancestors().map(|group| root.join(group)).collect::<Vec<_>>()
    });
    chains.collect()
}

/// Reads a number. `None` for "max", for an unreadable file, and for the number near 2^63 by which version 1 sets no
/// limit.
fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok().filter(|number| *number < 1 << 60)
}

fn field(path: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, files: &[(&str, &str)]) {
        for (path, content) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
    }

    fn least(root: &Path, membership: &str, controller: &str, read: impl Fn(&Path) -> Option<u64>) -> Option<u64> {
        groups(root, membership, controller).iter().filter_map(|group| read(group)).min()
    }

    #[test]
    fn version_2_counts_limits_of_parents() {
        let root = tempfile::tempdir().unwrap();
        write(
            root.path(),
            &[
                ("a/memory.max", "1000\n"),
                ("a/memory.current", "900\n"),
                ("a/memory.stat", "anon 500\ninactive_file 300\n"),
                ("a/b/memory.max", "max\n"),
                ("a/b/memory.current", "100\n"),
                ("a/b/pids.max", "50\n"),
                ("a/b/pids.current", "20\n"),
            ],
        );
        assert_eq!(least(root.path(), "0::/a/b\n", "memory", free_memory_in), Some(400));
        let pids = |group: &Path| number(&group.join("pids.max"));
        assert_eq!(least(root.path(), "0::/a/b\n", "pids", pids), Some(50));
        assert_eq!(least(root.path(), "0::/c\n", "memory", free_memory_in), None);
    }

    #[test]
    fn version_1_in_container_reads_the_root() {
        let root = tempfile::tempdir().unwrap();
        write(
            root.path(),
            &[
                ("memory/memory.limit_in_bytes", "2000\n"),
                ("memory/memory.usage_in_bytes", "1500\n"),
                ("memory/memory.stat", "cache 900\ninactive_file 1\ntotal_inactive_file 700\n"),
            ],
        );
        let membership = "9:name=systemd:/x\n4:memory:/docker/123\n0::/docker/123\n";
        assert_eq!(least(root.path(), membership, "memory", free_memory_in), Some(1200));
        write(root.path(), &[("memory/memory.limit_in_bytes", "9223372036854771712\n")]);
        assert_eq!(least(root.path(), membership, "memory", free_memory_in), None);
    }
}
