//! Processes of a test, found by its folder.

use std::path::Path;

/// Returns the pid and the command line of each process that names the folder or works in it.
#[cfg(target_os = "linux")]
pub fn processes_in(folder: &Path) -> Vec<(u32, String)> {
    let folder = folder.canonicalize().expect("the folder exists");
    let entries = std::fs::read_dir("/proc").expect("Linux has /proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| {
        let proc = Path::new("/proc").join(pid.to_string());
        let works_there = std::fs::read_link(proc.join("cwd")).is_ok_and(|cwd| cwd.starts_with(&folder));
        let command = std::fs::read(proc.join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        (works_there || command.contains(&*folder.to_string_lossy())).then_some((pid, command))
    })
    .collect()
}

#[cfg(not(target_os = "linux"))]
pub fn processes_in(_folder: &Path) -> Vec<(u32, String)> {
    Vec::new()
}

/// Waits until no process names the folder or works in it. A process that wrote its result may still be exiting.
#[track_caller]
pub fn until_none_in(folder: &Path) {
    super::wait::until("no process is left", || processes_in(folder).is_empty());
}
