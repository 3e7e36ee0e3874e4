//! What is left of the system's means to watch files: without them a change is seen only when it is looked for.

/// How many of each this user uses, and may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watching {
    pub instances: (u64, u64),
    pub watches: (u64, u64),
}

/// `None` where the system has no limits of its own for it: macOS watches by open files. Reads all of this user's
/// processes.
#[cfg(target_os = "linux")]
pub fn watching() -> Option<Watching> {
    let most = |name: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/fs/inotify/{name}")).ok()?;
        text.trim().parse().ok()
    };
    let limits = (most("max_user_instances")?, most("max_user_watches")?);
    let (mut instances, mut watches) = (0, 0);
    let processes = std::fs::read_dir("/proc").ok()?.flatten().map(|entry| entry.path());
    for process in processes.filter(|path| is_mine(path)) {
        for file in std::fs::read_dir(process.join("fd")).into_iter().flatten().flatten() {
            if std::fs::read_link(file.path()).is_ok_and(|target| target.as_os_str() == "anon_inode:inotify") {
                instances += 1;
                let told = std::fs::read_to_string(process.join("fdinfo").join(file.file_name())).unwrap_or_default();
                watches += told.lines().filter(|line| line.starts_with("inotify ")).count() as u64;
            }
        }
    }
    Some(Watching { instances: (instances, limits.0), watches: (watches, limits.1) })
}

#[cfg(target_os = "linux")]
fn is_mine(process: &std::path::Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let is_process = process.file_name().is_some_and(|name| name.as_encoded_bytes().iter().all(u8::is_ascii_digit));
    is_process && std::fs::metadata(process).is_ok_and(|found| found.uid() == rustix::process::getuid().as_raw())
}

#[cfg(not(target_os = "linux"))]
pub fn watching() -> Option<Watching> {
    None
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use notify::Watcher;

    #[test]
    fn a_watch_of_ours_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let mut watcher = notify::recommended_watcher(|_| {}).unwrap();
        watcher.watch(folder.path(), notify::RecursiveMode::NonRecursive).unwrap();
        let now = watching().unwrap();
        assert!(now.instances.0 >= 1 && now.watches.0 >= 1, "{now:?}");
        assert!(now.instances.1 > 0 && now.watches.1 > 0, "{now:?}");
    }
}
