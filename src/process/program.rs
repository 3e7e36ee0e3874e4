//! Starts this program again: a supervisor is another process of the program that the server runs.
//!
//! An upgrade may replace or remove the program's file while the server runs. On Linux the running program itself is
//! started, so a server of an old version has supervisors of that version. macOS cannot do that, so there the program
//! is searched for again at the places from which it was started.

use std::path::{Path, PathBuf};

#[cfg(target_os = "linux")]
use own::FileId;

/// A program to start, with a path that may later lead elsewhere.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    /// True if it is the program of this process.
    own: bool,
    /// The file that the path led to; `None` if there was no file.
    #[cfg(target_os = "linux")]
    file: Option<FileId>,
}

impl Program {
    /// Creates a program from its path, and recognises the program of this process.
    pub fn at(path: PathBuf) -> Self {
        let own = std::env::current_exe().is_ok_and(|own| own == path);
        Self {
            #[cfg(target_os = "linux")]
            file: own::file_id(&path),
            path: if own { without_mark(path) } else { path },
            own,
        }
    }

    /// Returns the path for messages and for the process table.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns a path that starts it now; `None` if there is none.
    pub(super) fn startable(&self) -> Option<PathBuf> {
        if self.own { own::startable(self) } else { Some(self.path.clone()) }
    }
}

/// Removes the mark that Linux adds to the path of a running program whose file was removed or replaced.
fn without_mark(path: PathBuf) -> PathBuf {
    match path.to_str().and_then(|text| text.strip_suffix(" (deleted)")) {
        Some(before) if !path.exists() => before.into(),
        _ => path,
    }
}

#[cfg(target_os = "linux")]
mod own {
    use std::os::unix::fs::MetadataExt;
    use std::path::{Path, PathBuf};

    use super::Program;

    /// The path of the running program, even if its file is gone: between fork and exec the child still runs it.
    const RUNNING: &str = "/proc/self/exe";

    /// Device and inode number. The kernel gives the number to no other file while the program runs.
    pub type FileId = (u64, u64);

    pub fn file_id(path: &Path) -> Option<FileId> {
        std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
    }

    pub fn startable(program: &Program) -> Option<PathBuf> {
        let unchanged = program.file.is_some() && file_id(&program.path) == program.file;
        Some(if unchanged { program.path.clone() } else { RUNNING.into() })
    }

    /// Sets the name in the process table. A program that was started as `/proc/self/exe` is listed as `exe`.
    pub fn take_name(name: &str) {
        if std::fs::read_to_string("/proc/self/comm").is_ok_and(|listed| listed.trim_end() == "exe") {
            // An error is ignored: the name only helps users who read the process table.
            let _ = std::fs::write("/proc/self/comm", name);
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod own {
    use std::path::{Path, PathBuf};

    use super::Program;

    pub fn startable(program: &Program) -> Option<PathBuf> {
        let called = std::env::args_os().next().map(PathBuf::from);
        find_again(&program.path, called.as_deref())
    }

    /// Returns the first of these that exists: the path itself, the path by which the program was called, a program of
    /// that name on the PATH. Package managers keep a link at the path that an upgrade moves.
    fn find_again(path: &Path, called: Option<&Path>) -> Option<PathBuf> {
        let absolute = called.filter(|called| called.is_absolute());
        let at_a_path = [Some(path), absolute].into_iter().flatten().find(|path| path.is_file()).map(Path::to_owned);
        at_a_path.or_else(|| which::which(path.file_name()?).ok())
    }

    pub fn take_name(_name: &str) {}

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn program_moved_by_upgrade_is_found_again() {
            let folder = tempfile::tempdir().unwrap();
            let (old, link) = (folder.path().join("1/no-such-program"), folder.path().join("link"));
            assert_eq!(find_again(&old, Some(&link)), None);
            std::fs::write(&link, "").unwrap();
            assert_eq!(find_again(&old, Some(&link)), Some(link.clone()));
            assert_eq!(find_again(&old, Some(Path::new("link"))), None);
            assert_eq!(find_again(&link, None), Some(link));
        }
    }
}

/// Shows this process under the name of its program in the process table, however it was started.
pub fn show_program_name() {
    let called = std::env::args_os().next().map(PathBuf::from);
    if let Some(name) = called.as_deref().and_then(Path::file_name) {
        own::take_name(&name.to_string_lossy());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_program_is_started_by_path() {
        let program = Program::at("/bin/sh".into());
        assert_eq!(program.startable(), Some("/bin/sh".into()));
        assert_eq!(program.path(), Path::new("/bin/sh"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn running_program_starts_after_file_is_replaced() {
        let own = std::env::current_exe().unwrap();
        let mut program = Program::at(own.clone());
        assert_eq!(program.startable(), Some(own));
        let replaced = Program { path: "/bin/sh".into(), ..program.clone() };
        assert_eq!(replaced.startable(), Some("/proc/self/exe".into()));
        program.path = "/nowhere/1.0/orchestrator-boss".into();
        assert_eq!(program.startable(), Some("/proc/self/exe".into()));
        program.file = None;
        assert_eq!(program.startable(), Some("/proc/self/exe".into()));
        assert_eq!(without_mark("/nowhere/boss (deleted)".into()), Path::new("/nowhere/boss"));
    }
}
