//! Cheap fingerprints. One shows whether a tree is still the one that was verified. The other shows what changed in the
//! main checkout, and in everything that all worktrees share, while a worker ran.
//!
//! They read no file contents and do not identify who made a change.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::checkout::{current_branch, resolve_commit};
use super::command::CommandError;
use super::configuration::{Configuration, hash};
use super::index::{IndexError, status_despite_marks};
use super::list::list;
use super::refs;
use super::repository::Repository;
use super::status::{Status, Untracked, status};
use super::trust::Checkout;

/// Maximum number of refs or changed files listed by name, since a fingerprint is stored in a file. Beyond it, one hash
/// stands for all of them.
const MOST_NAMED: usize = 5_000;

/// The state of the main checkout, and of everything that all worktrees share, at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// `None` before the first commit.
    pub head: Option<String>,
    /// `None` when HEAD is detached.
    pub branch: Option<String>,
    /// Uncommitted files by path, each with a hash of its state. `None` for a bare repository.
    pub files: Option<BTreeMap<String, String>>,
    /// All refs with their commits, without this program's own refs and the stash.
    pub refs: BTreeMap<String, String>,
    /// The branches among them that are checked out in linked worktrees. They may move at any time.
    pub worktree_branches: BTreeSet<String>,
    /// Commits of the stashes, newest first.
    pub stashes: Vec<String>,
    /// Configuration that can make git run programs.
    pub configuration: Configuration,
}

/// Differences between two fingerprints of one repository.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CheckoutChanges {
    pub head: bool,
    pub branch: bool,
    /// Paths of the files that changed.
    pub files: Vec<String>,
    pub refs: Vec<RefChange>,
    pub stashes_pushed: Vec<String>,
    pub stashes_dropped: Vec<String>,
    /// Changed settings, hooks and attributes; see [`Configuration::changes`].
    pub configuration: Vec<String>,
}

/// A changed ref that is checked out in no worktree. `before` is `None` for a new one, `after` for a deleted one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefChange {
    pub name: String,
    pub before: Option<String>,
    pub after: Option<String>,
}

impl Fingerprint {
    /// Returns the changes from `self` to `after`. A branch that stays checked out in the main worktree counts as its
    /// HEAD.
    pub fn compare(&self, after: &Fingerprint) -> CheckoutChanges {
        let none = BTreeMap::new();
        let files = |of: &Fingerprint| of.files.clone().unwrap_or_else(|| none.clone());
        let missing = |from: &[String], in_: &[String]| {
            let from = from.iter().filter(|id| !in_.contains(id));
            from.cloned().collect::<Vec<_>>()
        };
        CheckoutChanges {
            head: self.head != after.head,
            branch: self.branch != after.branch,
            files: differences(&files(self), &files(after)),
            refs: self.ref_changes(after),
            stashes_pushed: missing(&after.stashes, &self.stashes),
            stashes_dropped: missing(&self.stashes, &after.stashes),
            configuration: self.configuration.changes(&after.configuration),
        }
    }

    fn ref_changes(&self, after: &Fingerprint) -> Vec<RefChange> {
        let is_checked_out = |name: &String| {
            let of_main =
                |it: &Fingerprint| it.branch.as_ref().is_some_and(|branch| *name == format!("refs/heads/{branch}"));
            let of_linked = |it: &Fingerprint| it.worktree_branches.contains(name);
            of_linked(self) || of_linked(after) || of_main(self) && of_main(after)
        };
        let names = differences(&self.refs, &after.refs).into_iter().filter(|name| !is_checked_out(name));
        names
            .map(|name| RefChange {
                before: self.refs.get(&name).cloned(),
                after: after.refs.get(&name).cloned(),
                name,
            })
            .collect()
    }
}

/// Returns the names whose values differ.
fn differences(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<String> {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    names.into_iter().filter(|name| before.get(*name) != after.get(*name)).cloned().collect()
}

pub fn fingerprint(repo: &Repository) -> Result<Fingerprint, CommandError> {
    let root = &repo.checkout();
    let (head, branch, files) = if repo.main_worktree.is_some() {
        let status = status(root, Untracked::Folders)?;
        let files = uncommitted_files(root, &status);
        (status.head, status.branch, Some(bounded(files)))
    } else {
        (resolve_commit(root, "HEAD")?, current_branch(root)?, None)
    };
    let (refs, has_stash) = other_refs(repo)?;
    let linked = list(repo)?.into_iter().skip(1);
    Ok(Fingerprint {
        head,
        branch,
        files,
        refs: bounded(refs),
        worktree_branches: linked.filter_map(|it| it.branch).map(|name| format!("refs/heads/{name}")).collect(),
        stashes: if has_stash { stashes(repo)? } else { Vec::new() },
        configuration: Configuration::of(repo)?,
    })
}

/// Returns a hash that differs if HEAD, the index or a file that git does not ignore has changed. Files that were
/// already uncommitted are compared by size and time of change.
pub fn tree_state(worktree: &Checkout) -> Result<String, IndexError> {
    let status = status_despite_marks(worktree)?;
    let mut state = uncommitted_state(worktree, &status);
    state.extend(status.head.unwrap_or_default().into_bytes());
    Ok(hash(&state))
}

/// Returns a hash that differs if HEAD, the index or a tracked file has changed. Builds and tests may add untracked
/// files.
pub fn tracked_state(worktree: &Checkout) -> Result<String, CommandError> {
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
        state.extend(file_state(&worktree.join(&entry.path)));
    }
    state
}

/// Returns the times and the size of a file; nothing for a missing one.
fn file_state(path: &Path) -> Vec<u8> {
    let Ok(file) = path.symlink_metadata() else { return Vec::new() };
    let times = (file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec());
    format!("{times:?} {} ", file.size()).into_bytes()
}

fn uncommitted_files(worktree: &Path, status: &Status) -> BTreeMap<String, String> {
    let records = status.records.split(|byte| *byte == 0);
    let entries = status.entries.iter().zip(records);
    entries
        .map(|(entry, record)| {
            let state = [record, &file_state(&worktree.join(&entry.path))].concat();
            (entry.path.to_string_lossy().into_owned(), hash(&state))
        })
        .collect()
}

fn bounded(named: BTreeMap<String, String>) -> BTreeMap<String, String> {
    if named.len() <= MOST_NAMED {
        return named;
    }
    let all: String = named.iter().flat_map(|(name, value)| [name, " ", value, "\n"]).collect();
    BTreeMap::from([(format!("more than {MOST_NAMED}, together"), hash(all.as_bytes()))])
}

/// Returns all refs without this program's own and the stash, and whether there is a stash.
fn other_refs(repo: &Repository) -> Result<(BTreeMap<String, String>, bool), CommandError> {
    let mut refs: BTreeMap<String, String> = match refs::all(repo.root()) {
        Some(refs) => refs.into_iter().collect(),
        None => ask_refs(repo)?,
    };
    let has_stash = refs.remove("refs/stash").is_some();
    refs.retain(|name, _| !name.starts_with("refs/orchestrator/"));
    Ok((refs, has_stash))
}

fn ask_refs(repo: &Repository) -> Result<BTreeMap<String, String>, CommandError> {
    let refs = repo.read().args(["for-each-ref", "--format=%(objectname) %(refname)"]).run()?;
    let text = String::from_utf8_lossy(&refs);
    let refs = text.lines().filter_map(|line| line.split_once(' '));
    Ok(refs.map(|(id, name)| (name.to_owned(), id.to_owned())).collect())
}

fn stashes(repo: &Repository) -> Result<Vec<String>, CommandError> {
    // The newest stash may have no reflog.
    let Some(newest) = resolve_commit(&repo.checkout(), "refs/stash")? else { return Ok(Vec::new()) };
    let listed = repo.read().args(["log", "--walk-reflogs", "--format=%H", "refs/stash", "--"]).output()?;
    let mut stashes: Vec<String> = String::from_utf8_lossy(&listed.stdout).lines().map(str::to_owned).collect();
    if !stashes.contains(&newest) {
        stashes.insert(0, newest);
    }
    Ok(stashes)
}

/// Returns a hash of eight hex digits for use in names.
pub fn short_hash(bytes: &[u8]) -> String {
    hash(bytes)[..8].to_owned()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::git::testing::{Fixture, at, commit, git};
    use std::collections::HashSet;

    #[test]
    fn tree_state_detects_every_change_of_a_file() {
        let fixture = Fixture::new();
        let state = || tree_state(&at(fixture.root())).unwrap();
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
    fn work_inside_a_worktree_leaves_the_fingerprint_unchanged() {
        let fixture = Fixture::new();
        let made = fixture.worktree("work");
        let before = fingerprint(&fixture.repo).unwrap();
        commit(&made.path, "a.txt", "a\n");
        git(&made.path, &["config", "branch.work.remote", "origin"]);
        let after = fingerprint(&fixture.repo).unwrap();
        assert_eq!(before.compare(&after), CheckoutChanges::default());
    }

    #[test]
    fn each_kind_of_checkout_change_is_reported() {
        let fixture = Fixture::new();
        let mut before = fingerprint(&fixture.repo).unwrap();
        let mut changed = || {
            let after = fingerprint(&fixture.repo).unwrap();
            std::mem::replace(&mut before, after.clone()).compare(&after)
        };
        let none = CheckoutChanges::default;
        let names = |name: &str| vec![name.to_owned()];
        let head = fixture.git(&["rev-parse", "HEAD"]);
        fixture.write("new.txt", "x\n");
        assert_eq!(changed(), CheckoutChanges { files: names("new.txt"), ..none() });
        fixture.git(&["tag", "v1"]);
        let tag = |before, after| vec![RefChange { name: "refs/tags/v1".to_owned(), before, after }];
        assert_eq!(changed(), CheckoutChanges { refs: tag(None, Some(head.clone())), ..none() });
        fixture.git(&["tag", "-d", "v1"]);
        assert_eq!(changed(), CheckoutChanges { refs: tag(Some(head), None), ..none() });
        fixture.git(&["config", "filter.x.smudge", "evil"]);
        assert_eq!(changed(), CheckoutChanges { configuration: names("filter.x.smudge (added)"), ..none() });
        fs::create_dir_all(fixture.repo.common_dir.join("hooks")).unwrap();
        fs::write(fixture.repo.common_dir.join("hooks/pre-commit"), "#!/bin/sh\n").unwrap();
        assert_eq!(changed(), CheckoutChanges { configuration: names("hooks/pre-commit (added)"), ..none() });
        fixture.git(&["stash", "push", "-q", "--include-untracked"]);
        let stash = fixture.git(&["rev-parse", "refs/stash"]);
        let files = names("new.txt");
        let pushed = CheckoutChanges { files, stashes_pushed: names(&stash), ..none() };
        assert_eq!(changed(), pushed);
        fixture.git(&["stash", "drop", "-q"]);
        assert_eq!(changed(), CheckoutChanges { stashes_dropped: names(&stash), ..none() });
        fixture.git(&["checkout", "-q", "--detach"]);
        assert_eq!(changed(), CheckoutChanges { branch: true, ..none() });
        fixture.git(&["commit", "-q", "--allow-empty", "-m", "x"]);
        assert_eq!(changed(), CheckoutChanges { head: true, ..none() });
    }
}
