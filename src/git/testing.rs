//! Temporary repositories for the tests of this room, isolated from the settings of the machine and its user.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::command::Git;
use super::trust::{Checkout, Trust};
use super::{Repository, Request, Worktree, create};

/// Isolates a git call of a test from everything that the machine and its user have configured.
pub fn seal(command: &mut Command) {
    command.env("HOME", "/nonexistent").env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    for name in ["AUTHOR", "COMMITTER"] {
        command.env_remove(format!("GIT_{name}_NAME"));
        command.env_remove(format!("GIT_{name}_EMAIL"));
        command.env_remove(format!("GIT_{name}_DATE"));
    }
    command.env_remove("EMAIL").env_remove("XDG_CONFIG_HOME");
}

/// A repository in `<temporary folder>/repo` with one commit of `readme.txt` on `main`.
pub struct Fixture {
    folder: tempfile::TempDir,
    pub repo: Repository,
}

impl Fixture {
    pub fn new() -> Fixture {
        let fixture = Fixture::empty(&[]);
        fixture.commit("readme.txt", "hello\n");
        fixture
    }

    /// Creates a repository without any commit. `options` are passed to `git init`.
    pub fn empty(options: &[&str]) -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap().join("repo");
        fs::create_dir(&root).unwrap();
        git(&root, &[&["init", "-q", "-b", "main"], options].concat());
        identify(&root);
        let repo = Repository::discover(&root, &Trust::everything()).unwrap().unwrap();
        Fixture { folder, repo }
    }

    /// Returns the main worktree.
    pub fn root(&self) -> &Path {
        self.repo.root()
    }

    pub fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join(name)
    }

    pub fn git(&self, args: &[&str]) -> String {
        git(self.root(), args)
    }

    pub fn write(&self, path: &str, text: &str) {
        write(self.root(), path, text);
    }

    pub fn worktree(&self, branch: &str) -> Worktree {
        create(&self.repo, &Request { branch: branch.to_owned(), ..Request::default() }, None).unwrap()
    }

    /// Adds a clone of this repository as the submodule `lib`, and commits it.
    pub fn add_library(&self) {
        self.git(&["clone", "-q", "--bare", ".", "../library.git"]);
        self.git(&["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", "../library.git", "lib"]);
        self.git(&["commit", "-qm", "library"]);
    }

    /// Commits one file in the main worktree and returns the commit.
    pub fn commit(&self, path: &str, text: &str) -> String {
        commit(self.root(), path, text)
    }
}

/// Checks out the submodules of a worktree, and theirs.
pub fn check_out_submodules(dir: &Path) {
    git(dir, &["-c", "protocol.file.allow=always", "submodule", "--quiet", "update", "--init", "--recursive"]);
}

/// Sets the author of commits.
pub fn identify(dir: &Path) {
    git(dir, &["config", "user.name", "Tess Ter"]);
    git(dir, &["config", "user.email", "tess@example.org"]);
}

/// A folder in which everything that is configured is trusted.
pub fn at(dir: impl Into<PathBuf>) -> Checkout {
    Checkout::new(dir, &Trust::everything())
}

pub fn git(dir: &Path, args: &[&str]) -> String {
    Git::write(&at(dir)).args(args).text().unwrap()
}

pub fn write(dir: &Path, path: &str, text: &str) {
    let file = dir.join(path);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, text).unwrap();
}

pub fn read(dir: &Path, path: &str) -> String {
    fs::read_to_string(dir.join(path)).unwrap()
}

pub fn commit(dir: &Path, path: &str, text: &str) -> String {
    write(dir, path, text);
    git(dir, &["add", "-A"]);
    git(dir, &["commit", "-qm", path]);
    git(dir, &["rev-parse", "HEAD"])
}

/// Returns the text of a file in a commit or ref.
pub fn show(dir: &Path, commit: &str, path: &str) -> String {
    Git::read(&at(dir))
        .args(["show", &format!("{commit}:{path}")])
        .run()
        .map(|bytes| String::from_utf8(bytes).unwrap())
        .unwrap()
}
