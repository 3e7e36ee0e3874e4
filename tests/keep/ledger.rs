//! A record of all contents created in a test. Each must still be in a file of a worktree or be reachable from a ref. A
//! reflog counts only while its worktree exists.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use git2::{ObjectType, Oid};

use crate::support::wait::CEILING;

#[derive(Default)]
pub struct Ledger {
    /// Names, by the id of the blob.
    known: BTreeMap<String, String>,
}

impl Ledger {
    /// Creates a unique content, and records its name.
    pub fn make(&mut self, what: &str) -> String {
        let text = format!("{what} {}\n", self.known.len() + 1);
        let id = Oid::hash_object(ObjectType::Blob, text.as_bytes()).expect("bytes can be hashed");
        self.known.insert(id.to_string(), text.trim().to_owned());
        text
    }

    /// Returns the contents that are still found in the repository and in the worktrees in and beside it.
    pub fn findable(&self, root: &Path) -> BTreeSet<String> {
        let mut ids = BTreeSet::new();
        for repository in repositories_under(root.parent().expect("a path with a parent")) {
            ids.extend(objects(&repository));
        }
        files_under(root, &mut |bytes| {
            if let Ok(id) = Oid::hash_object(ObjectType::Blob, bytes) {
                ids.insert(id.to_string());
            }
        });
        self.known.iter().filter(|(id, _)| ids.contains(*id)).map(|(_, text)| text.clone()).collect()
    }
}

/// Returns the objects that refs, stashes, indexes and the HEAD reflogs of existing worktrees reach.
fn objects(git_dir: &Path) -> BTreeSet<String> {
    let mut tips = lines(git_dir, &["reflog", "show", "--format=%H", "refs/stash"]);
    tips.extend(lines(git_dir, &["reflog", "show", "--format=%H", "HEAD"]));
    for own in folders(&git_dir.join("worktrees")) {
        let place = fs::read_to_string(own.join("gitdir")).unwrap_or_default();
        if Path::new(place.trim()).exists() {
            tips.extend(lines(&own, &["reflog", "show", "--format=%H", "HEAD"]));
            tips.extend(
                ["MERGE_HEAD", "CHERRY_PICK_HEAD"].map(|name| lines(&own, &["rev-parse", "-q", name])).concat(),
            );
        }
    }
    let list = tips.iter().filter(|line| line.len() == 40).map(|line| format!("{line}\n")).collect::<String>();
    let text = walk(git_dir, &list);
    text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

/// Walks the objects. Repeats a failed walk, since a server may be creating or removing a worktree.
fn walk(git_dir: &Path, tips: &str) -> String {
    let args = ["rev-list", "--objects", "--all", "--indexed-objects", "--ignore-missing", "--stdin"];
    let began = Instant::now();
    loop {
        let mut command = git(git_dir, &args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("git runs");
        // A git process that has failed reads no input.
        let _ = child.stdin.take().expect("a pipe").write_all(tips.as_bytes());
        let output = child.wait_with_output().expect("git ends");
        if output.status.success() {
            return String::from_utf8_lossy(&output.stdout).into_owned();
        }
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(began.elapsed() < CEILING, "git cannot walk {}: {said}", git_dir.display());
        eprintln!("git could not walk {} just now: {said}", git_dir.display());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn git(git_dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("git");
    command.args(args).current_dir(git_dir).env("GIT_DIR", git_dir).env("GIT_WORK_TREE", git_dir);
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1").stderr(Stdio::null());
    command
}

fn lines(git_dir: &Path, args: &[&str]) -> Vec<String> {
    let output = git(git_dir, args).output().expect("git runs");
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

/// Returns the git folders of all repositories below, including submodules.
fn repositories_under(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for inner in folders(folder) {
        if inner.join("HEAD").is_file() && inner.join("objects").is_dir() {
            found.push(inner.clone());
        }
        if inner.file_name().is_none_or(|name| name != "objects") {
            found.extend(repositories_under(&inner));
        }
    }
    found
}

fn files_under(folder: &Path, see: &mut dyn FnMut(&[u8])) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().expect("an existing path"));
        if kind.is_dir() && entry.file_name() != ".git" {
            files_under(&path, see);
        } else if kind.is_symlink() {
            see(fs::read_link(&path).expect("a link").as_os_str().as_encoded_bytes());
        } else if kind.is_file() {
            see(&fs::read(&path).unwrap_or_default());
        }
    }
}
