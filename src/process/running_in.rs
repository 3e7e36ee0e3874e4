//! Checks whether a program runs in a folder, by its working directory.

use std::path::Path;

use super::platform;

/// Returns whether a process of this program has its working directory in the folder. Checks all visible processes
/// except this one. A process that hides its directory belongs to another user.
pub fn is_running_in(program: &str, folder: &Path) -> bool {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let works_there =
        |pid: u32| platform::working_directory(pid).is_some_and(|directory| directory.starts_with(&folder));
    let is_it = |pid: u32| {
        platform::record(pid).is_some_and(|it| it.name == program || it.name.starts_with(&format!("{program}-")))
    };
    platform::listed()
        .into_iter()
        .map(|(pid, _)| pid)
        .any(|pid| pid != std::process::id() && works_there(pid) && is_it(pid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn program_is_found_by_working_directory() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("inside");
        std::fs::create_dir(&inside).unwrap();
        assert!(!is_running_in("sleep", folder.path()));
        let mut sleep = Command::new("sleep").arg("600").current_dir(&inside).stdin(Stdio::null()).spawn().unwrap();
        // Until exec, the child is a copy of this program.
        let began = std::time::Instant::now();
        while !is_running_in("sleep", folder.path()) && began.elapsed() < std::time::Duration::from_secs(60) {
            std::thread::yield_now();
        }
        let found = (is_running_in("sleep", folder.path()), is_running_in("git", folder.path()));
        sleep.kill().unwrap();
        sleep.wait().unwrap();
        assert_eq!(found, (true, false));
        assert!(!is_running_in("sleep", folder.path()));
    }
}
