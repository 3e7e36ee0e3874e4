//! A sealed home with a project, and without any client on the PATH.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

pub struct Home {
    folder: TempDir,
    pub search_path: String,
    pub variables: Vec<(&'static str, &'static str)>,
}

impl Home {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let home = Self { folder, search_path: "/nothing/here".into(), variables: Vec::new() };
        fs::create_dir(home.path("project")).expect("a new folder");
        home
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().canonicalize().expect("an existing path").join(name)
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        let mut program = Command::new(env!("CARGO_BIN_EXE_orchestrator-boss"));
        program.env_clear().env("HOME", self.path("")).env("PATH", &self.search_path);
        program.envs(self.variables.iter().copied()).current_dir(self.path("project")).stdin(Stdio::null());
        program.args(arguments).output().expect("the program starts")
    }

    /// Runs `setup`, which must succeed, and returns its JSON output.
    pub fn setup(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[&["setup", "--json"], arguments].concat());
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        serde_json::from_slice(&output.stdout).expect("JSON on stdout")
    }

    pub fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
    }

    pub fn json(&self, file: &str) -> Value {
        serde_json::from_str(&self.read(file)).expect("JSON")
    }

    pub fn write(&self, file: &str, content: &str) {
        let path = self.path(file);
        fs::create_dir_all(path.parent().expect("a path with a parent")).expect("a new folder");
        fs::write(path, content).expect("a writable file");
    }

    /// Installs a shell script. Another process writes it: a child of another thread could inherit the open file, and a
    /// file that is open for writing cannot be started.
    pub fn install(&self, file: &str, script: &str) {
        let path = self.path(file);
        fs::create_dir_all(path.parent().expect("a path with a parent")).expect("a new folder");
        let mut writer = Command::new("sh");
        writer.args(["-c", "printf %s \"$1\" > \"$2\" && chmod 755 \"$2\"", "sh", script]).arg(path);
        assert!(writer.status().expect("sh runs").success());
    }

    /// Returns all files. Folders do not count.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        walk(&self.path(""), &mut files);
        files.sort();
        files
    }
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { walk(&path, files) } else { files.push(path) }
    }
}
