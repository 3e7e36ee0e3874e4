//! Fake commands of Slurm for the tests.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use super::command::Engine;

/// A folder with fake commands.
pub struct Fakes {
    pub folder: tempfile::TempDir,
}

impl Fakes {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// Adds a command that is a shell script. `$here` is the folder of the fakes.
    pub fn add(self, name: &str, script: &str) -> Self {
        let path = self.folder.path().join(name);
        let text = format!("#!/bin/sh\nhere={}\n{script}\n", self.folder.path().display());
        // Another process writes the script. If this one did, a child that another thread forks meanwhile could hold
        // the file open for writing, and the system would then refuse to execute the script.
        let mut writer = Command::new("/bin/sh");
        writer.args(["-c", "cat > \"$0\" && chmod 755 \"$0\""]).arg(&path).stdin(Stdio::piped());
        let mut writer = writer.spawn().unwrap();
        writer.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(writer.wait().unwrap().success());
        self
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the text of a file that a fake wrote.
    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path().join(name)).unwrap_or_default()
    }

    /// Returns an engine that runs the fakes, with these variables in addition to PATH and HOME.
    pub fn engine(&self, prefix: &[&str], variables: &[(&str, &str)]) -> Engine {
        let path = format!("{}:/usr/bin:/bin", self.path().display());
        let fixed = [("PATH", path.as_str()), ("HOME", "/home/user")];
        let all = fixed.iter().chain(variables).map(|(name, value)| (name.into(), value.into()));
        let prefix: Vec<String> = prefix.iter().map(|word| (*word).to_owned()).collect();
        Engine::in_environment(&prefix, all)
    }
}
