//! Checks whether a program, or any process, works in a folder, by its working directory.

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

/// A process that works in a folder, with the name of its program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occupant {
    pub pid: u32,
    pub program: String,
}

/// Returns a process that has its working directory in the folder, such as a shell or an editor. This process counts
/// too. A process that hides its directory belongs to another user and does not count.
pub fn occupant(folder: &Path) -> Option<Occupant> {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let works_there =
        |pid: &u32| platform::working_directory(*pid).is_some_and(|directory| directory.starts_with(&folder));
    let pid = platform::listed().into_iter().map(|(pid, _)| pid).find(works_there)?;
    let program = platform::record(pid).map_or_else(|| "a program".to_owned(), |record| record.name);
    Some(Occupant { pid, program })
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
        let there = occupant(folder.path());
        let pid = sleep.id();
        sleep.kill().unwrap();
        sleep.wait().unwrap();
        assert_eq!(found, (true, false));
        assert_eq!(there, Some(Occupant { pid, program: "sleep".to_owned() }));
        assert_eq!(occupant(folder.path()), None);
        assert!(!is_running_in("sleep", folder.path()));
    }
}
