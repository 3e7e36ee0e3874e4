//! Cheap fingerprints: whether a tree is still the one that was verified, and whether the main checkout was changed
//! while a worker ran.
//!
//! They say that something changed, not what; they read no file's content.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use git2::{ObjectType, Oid};
use serde::{Deserialize, Serialize};

use super::command::CommandError;
use super::index::IndexError;
use super::repository::{Repository, current_branch, resolve_commit};
use super::status::{Status, Untracked, status, status_behind_marks};
use super::worktree::list;

/// The main checkout and what all worktrees share, at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// `None` before the first commit.
    pub head: Option<String>,
    /// `None` when HEAD is detached.
    pub branch: Option<String>,
    /// Index and files. `None` for a bare repository, which has none.
    pub tree: Option<String>,
    /// All refs but our own and the branches that are checked out in linked worktrees: those may move at any time.
    pub refs: String,
    /// The repository's settings, which can make git run programs. Upstreams of branches are left out.
    pub configuration: String,
}

/// What differs between two fingerprints of one repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CheckoutChanges {
    pub head: bool,
    pub branch: bool,
    pub tree: bool,
    pub refs: bool,
    pub configuration: bool,
}

impl CheckoutChanges {
    pub fn any(&self) -> bool {
        *self != CheckoutChanges::default()
    }
}

impl Fingerprint {
    /// What changed from `self` to `after`.
    pub fn compare(&self, after: &Fingerprint) -> CheckoutChanges {
        CheckoutChanges {
            head: self.head != after.head,
            branch: self.branch != after.branch,
            tree: self.tree != after.tree,
            refs: self.refs != after.refs,
            configuration: self.configuration != after.configuration,
        }
    }
}

pub fn fingerprint(repo: &Repository) -> Result<Fingerprint, CommandError> {
    let root = repo.root();
    let (head, branch, tree) = if repo.main_worktree.is_some() {
        let status = status(root, Untracked::Folders)?;
        let tree = hash(&uncommitted_state(root, &status));
        (status.head, status.branch, Some(tree))
    } else {
        let head = resolve_commit(root, "HEAD")?;
        (head, current_branch(root)?, None)
    };
    Ok(Fingerprint { head, branch, tree, refs: hash(&shared_refs(repo)?), configuration: hash(&configuration(repo)?) })
}

/// Differs whenever HEAD, the index or a file that git does not ignore has changed. Files that were already uncommitted
/// are told by size and time of change.
pub fn tree_state(worktree: &Path) -> Result<String, IndexError> {
    let status = status_behind_marks(worktree)?;
    let mut state = uncommitted_state(worktree, &status);
    state.extend(status.head.unwrap_or_default().into_bytes());
    Ok(hash(&state))
}

/// Differs whenever HEAD, the index or a tracked file has changed. Builds and tests leave files beside those.
pub fn tracked_state(worktree: &Path) -> Result<String, CommandError> {
    let mut status = status(worktree, Untracked::Folders)?;
    status.entries.retain(|entry| !entry.untracked);
    let mut state = Vec::new();
    for entry in &status.entries {
        state.extend(format!("{} ", entry.path.display()).into_bytes());
    }
    status.records.clear();
    state.extend(uncommitted_state(worktree, &status));
    state.extend(status.head.unwrap_or_default().into_bytes());
    Ok(hash(&state))
}

fn uncommitted_state(worktree: &Path, status: &Status) -> Vec<u8> {
    let mut state = status.records.clone();
    for entry in &status.entries {
        if let Ok(file) = worktree.join(&entry.path).symlink_metadata() {
            let times = (file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec());
            state.extend(format!("{times:?} {} ", file.size()).into_bytes());
        }
    }
    state
}

fn shared_refs(repo: &Repository) -> Result<Vec<u8>, CommandError> {
    let workers: HashSet<String> = list(repo)?
        .into_iter()
        .skip(1)
        .filter_map(|worktree| worktree.branch)
        .map(|branch| format!("refs/heads/{branch} "))
        .collect();
    let refs = repo.read().args(["for-each-ref", "--format=%(refname) %(objectname)"]).text()?;
    let counts = |line: &&str| {
        let name = &line[..line.find(' ').map_or(line.len(), |space| space + 1)];
        !name.starts_with("refs/orchestrator/") && !workers.contains(name)
    };
    Ok(refs.lines().filter(counts).flat_map(|line| [line, "\n"]).collect::<String>().into_bytes())
}

fn configuration(repo: &Repository) -> Result<Vec<u8>, CommandError> {
    let settings = repo.read().args(["config", "--local", "--includes", "--list", "-z"]).run()?;
    Ok(settings
        .split(|byte| *byte == 0)
        .filter(|setting| !setting.starts_with(b"branch."))
        .flat_map(|setting| [setting, b"\0"])
        .flatten()
        .copied()
        .collect())
}

fn hash(bytes: &[u8]) -> String {
    Oid::hash_object(ObjectType::Blob, bytes)
        .expect("hashing bytes in memory needs nothing that can be missing")
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::testing::{Fixture, commit, git};
    use crate::git::{Request, create};

    #[test]
    fn a_tree_state_sees_a_second_change_of_the_same_file() {
        let fixture = Fixture::new();
        let state = || tree_state(fixture.root()).unwrap();
        let clean = state();
        assert_eq!(clean, state());
        fixture.write("readme.txt", "first change\n");
        let first = state();
        fixture.write("readme.txt", "second one\n");
        let second = state();
        fixture.write("new.txt", "x\n");
        let untracked = state();
        fixture.git(&["add", "-A"]);
        fixture.git(&["commit", "-qm", "all"]);
        let states = HashSet::from([clean, first, second, untracked, state()]);
        assert_eq!(states.len(), 5);
    }

    #[test]
    fn the_main_checkout_is_unchanged_by_a_worker_that_stays_in_its_worktree() {
        let fixture = Fixture::new();
        let request = Request { branch: "work".to_owned(), ..Request::default() };
        let made = create(&fixture.repo, &request, None).unwrap();
        let before = fingerprint(&fixture.repo).unwrap();
        commit(&made.path, "a.txt", "a\n");
        git(&made.path, &["config", "branch.work.remote", "origin"]);
        let after = fingerprint(&fixture.repo).unwrap();
        assert!(!before.compare(&after).any());
    }

    #[test]
    fn each_kind_of_change_of_the_main_checkout_is_told() {
        let fixture = Fixture::new();
        let mut before = fingerprint(&fixture.repo).unwrap();
        let mut changed = || {
            let after = fingerprint(&fixture.repo).unwrap();
            std::mem::replace(&mut before, after.clone()).compare(&after)
        };
        let none = CheckoutChanges::default();
        fixture.write("new.txt", "x\n");
        assert_eq!(changed(), CheckoutChanges { tree: true, ..none });
        fixture.git(&["tag", "v1"]);
        assert_eq!(changed(), CheckoutChanges { refs: true, ..none });
        fixture.git(&["config", "filter.x.smudge", "evil"]);
        let expected = CheckoutChanges { configuration: true, ..none };
        assert_eq!(changed(), expected);
        fixture.git(&["checkout", "-q", "--detach"]);
        assert_eq!(changed(), CheckoutChanges { branch: true, ..none });
        fixture.git(&["commit", "-q", "--allow-empty", "-m", "x"]);
        assert_eq!(changed(), CheckoutChanges { head: true, ..none });
    }
}
