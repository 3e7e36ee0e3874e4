//! Reads the uncommitted changes of a worktree from the git program, which alone applies the user's filters and
//! encodings.
//!
//! Reading takes no lock and refreshes nothing, so it can run beside a worker.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::checkout::{current_branch, git_dir};
use super::command::{CommandError, Git};
use super::trust::Checkout;

/// Marker files of unfinished git operations, in order of precedence, with the operations' names. A commit during one
/// of them would end it in an unintended way.
const OPERATIONS: [(&str, &str); 8] = [
    ("rebase-merge", "rebase"),
    ("rebase-apply/applying", "am"),
    ("rebase-apply", "rebase"),
    ("MERGE_HEAD", "merge"),
    ("CHERRY_PICK_HEAD", "cherry-pick"),
    ("REVERT_HEAD", "revert"),
    ("sequencer", "cherry-pick"),
    ("BISECT_LOG", "bisect"),
];

/// A path that differs from HEAD. Ignored files are never listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusEntry {
    /// Path relative to the worktree. A nested repository, which git does not descend into, ends with a slash.
    pub path: PathBuf,
    /// True if the index differs from HEAD.
    pub staged: bool,
    /// True if the file differs from the index, is untracked or in conflict.
    pub in_worktree: bool,
    pub untracked: bool,
    /// True if the index holds several versions of it, which are not resolved yet.
    pub in_conflict: bool,
    /// State of the submodule, if the path is a link to a commit of another repository.
    pub submodule: Option<Submodule>,
}

/// Differences of a submodule from its recorded state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Submodule {
    /// True if it is at another commit.
    pub moved: bool,
    /// True if it has uncommitted files.
    pub dirty: bool,
}

impl StatusEntry {
    /// Returns whether this is an untracked nested repository. Adding it would record a commit id and none of its
    /// files.
    pub fn is_repository(&self) -> bool {
        self.untracked && self.path.as_os_str().as_bytes().ends_with(b"/")
    }
}

/// Level of detail for untracked files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Untracked {
    /// Every file.
    Files,
    /// One entry for a folder without tracked files, which is faster in a large checkout.
    Folders,
    /// No untracked files, which saves searching the folders.
    Omitted,
}

/// The status of a worktree at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// `None` before the first commit.
    pub head: Option<String>,
    /// `None` when HEAD is detached or a ref outside refs/heads.
    pub branch: Option<String>,
    pub entries: Vec<StatusEntry>,
    /// Ignored files, and folders that are ignored as a whole; filled only by [`status_with_ignored`].
    pub ignored: Vec<PathBuf>,
    /// Records of the entries as git printed them.
    pub(super) records: Vec<u8>,
    /// Git's warning about folders that it could not read.
    pub(super) complaint: Option<String>,
}

impl Status {
    /// Removes the entries for which `keep` is false, and their records.
    pub(super) fn keep_entries(&mut self, keep: impl Fn(&StatusEntry) -> bool) {
        let records = self.records.split_inclusive(|byte| *byte == 0);
        let kept = self.entries.iter().zip(records).filter(|(entry, _)| keep(entry));
        self.records = kept.flat_map(|(_, record)| record.to_vec()).collect();
        self.entries.retain(keep);
    }
}

/// Returns everything that `git status` would show, including submodules regardless of the configuration.
pub fn status(worktree: &Checkout, untracked: Untracked) -> Result<Status, CommandError> {
    status_by(Git::read(worktree), worktree, untracked, Ignored::Omitted)
}

/// Returns the status with all untracked files and the ignored ones.
pub fn status_with_ignored(worktree: &Checkout) -> Result<Status, CommandError> {
    status_by(Git::read(worktree), worktree, Untracked::Files, Ignored::Listed)
}

/// The ignored files that a status lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ignored {
    Omitted,
    Listed,
}

pub(super) fn status_by(
    git: Git,
    worktree: &Checkout,
    untracked: Untracked,
    ignored: Ignored,
) -> Result<Status, CommandError> {
    let untracked = match untracked {
        Untracked::Files => "--untracked-files=all",
        Untracked::Folders => "--untracked-files=normal",
        Untracked::Omitted => "--untracked-files=no",
    };
    let (answer, complaint) = git
        .args(["status", "--porcelain=v2", "-z", "--no-renames"])
        .args(["--branch", "--no-ahead-behind"])
        .args(["--ignore-submodules=none", untracked])
        .args((ignored == Ignored::Listed).then_some("--ignored=matching"))
        .run_and_listen()?;
    let mut status = parse(&answer);
    status.complaint = Some(complaint).filter(|complaint| complaint.contains("could not open directory"));
    match status.branch.as_deref() {
        // These are valid branch names. Git also prints them if HEAD is a ref outside of refs/heads.
        Some("(detached)" | "(null)") => status.branch = current_branch(worktree)?,
        Some("(unknown)") => {
            // The branch is broken, unless it has this name. This call then fails with git's reason.
            Git::read(worktree).args(["log", "--max-count=1", "--format="]).run()?;
            status.branch = current_branch(worktree)?;
        }
        _ => {}
    }
    Ok(status)
}

/// Returns the name of the unfinished operation in a worktree (`merge`, `rebase`, …).
pub fn operation_in_progress(worktree: &Checkout) -> Result<Option<&'static str>, CommandError> {
    Ok(operation_in_progress_in(&git_dir(worktree)?))
}

/// Returns whether a merge, or the cherry-pick or revert of a single commit, is in progress and nothing else. Only the
/// final commit is then missing, unless there are conflicts.
pub(super) fn waits_for_its_commit(git_dir: &Path) -> bool {
    let heads = ["MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD"];
    let others = ["rebase-merge", "rebase-apply", "sequencer", "BISECT_LOG"];
    let is_there = |name: &&str| git_dir.join(name).exists();
    heads.iter().any(&is_there) && !others.iter().any(is_there)
}

/// Returns the same as [`operation_in_progress`] for the git directory of a worktree.
pub(super) fn operation_in_progress_in(git_dir: &Path) -> Option<&'static str> {
    OPERATIONS.iter().find(|(file, _)| git_dir.join(file).exists()).map(|(_, operation)| *operation)
}

/// Parses records that end with NUL; those about HEAD come first.
fn parse(answer: &[u8]) -> Status {
    let mut status = Status::default();
    for record in answer.split(|byte| *byte == 0) {
        if record.starts_with(b"# ") {
            parse_header(&String::from_utf8_lossy(record), &mut status);
        } else if let Some(path) = record.strip_prefix(b"! ") {
            let path = path.strip_suffix(b"/").unwrap_or(path);
            status.ignored.push(PathBuf::from(OsStr::from_bytes(path)));
        } else if let Some(entry) = parse_record(record) {
            status.entries.push(entry);
            status.records.extend_from_slice(record);
            status.records.push(0);
        }
    }
    status
}

fn parse_header(header: &str, status: &mut Status) {
    if let Some(head) = header.strip_prefix("# branch.oid ") {
        status.head = Some(head.to_owned()).filter(|head| head != "(initial)");
    } else if let Some(branch) = header.strip_prefix("# branch.head ") {
        status.branch = Some(branch.to_owned());
    }
}

/// Parses `1 <XY> <6 fields> <path>` (changed), `u <XY> <8 fields> <path>` (in conflict) or `? <path>` (untracked).
fn parse_record(record: &[u8]) -> Option<StatusEntry> {
    let fields_before_path = match record.first()? {
        b'?' => 1,
        b'1' => 8,
        b'u' => 10,
        _ => return None,
    };
    let path = record.splitn(fields_before_path + 1, |byte| *byte == b' ').nth(fields_before_path)?;
    let (untracked, conflict) = (record[0] == b'?', record[0] == b'u');
    let changed_at = |column: usize| record.get(column).is_some_and(|state| *state != b'.');
    Some(StatusEntry {
        path: PathBuf::from(OsStr::from_bytes(path)),
        staged: !untracked && !conflict && changed_at(2),
        in_worktree: untracked || conflict || changed_at(3),
        untracked,
        in_conflict: conflict,
        submodule: if untracked { None } else { parse_submodule(record.get(5..9)?) },
    })
}

/// Parses `N...`, or `S<c><m><u>` with a letter or a dot each: commit, modified, untracked.
fn parse_submodule(field: &[u8]) -> Option<Submodule> {
    let [b'S', commit, modified, untracked] = field else { return None };
    Some(Submodule { moved: *commit != b'.', dirty: *modified != b'.' || *untracked != b'.' })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::testing::{Fixture, at};
    use std::fs;

    #[test]
    fn every_kind_of_change_is_distinguished() {
        let fixture = Fixture::new();
        fixture.commit("gone.txt", "1\n");
        fixture.write("a name with spaces.txt", "new\n");
        fixture.write("staged.txt", "new\n");
        fixture.git(&["add", "staged.txt"]);
        fs::remove_file(fixture.root().join("gone.txt")).unwrap();
        fs::create_dir(fixture.root().join("inner")).unwrap();
        fixture.git(&["init", "-q", "inner"]);
        let found: Vec<_> = status(&at(fixture.root()), Untracked::Files)
            .unwrap()
            .entries
            .into_iter()
            .map(|e| {
                let path = e.path.to_str().unwrap().to_owned();
                (path, e.staged, e.in_worktree, e.is_repository())
            })
            .collect();
        let expected = [
            ("gone.txt", false, true, false),
            ("staged.txt", true, false, false),
            ("a name with spaces.txt", false, true, false),
            ("inner/", false, true, true),
        ];
        assert_eq!(found.len(), expected.len());
        for (path, staged, in_worktree, repository) in expected {
            assert!(found.contains(&(path.to_owned(), staged, in_worktree, repository)), "{path} in {found:?}");
        }
    }

    #[test]
    fn unfinished_merge_is_named() {
        let fixture = Fixture::new();
        fixture.git(&["checkout", "-qb", "other"]);
        fixture.commit("readme.txt", "other\n");
        fixture.git(&["checkout", "-q", "main"]);
        fixture.commit("readme.txt", "main\n");
        assert_eq!(operation_in_progress(&at(fixture.root())).unwrap(), None);
        let merge = Git::write(&at(fixture.root())).args(["merge", "-q", "other"]);
        assert!(!merge.succeeds().unwrap());
        assert_eq!(operation_in_progress(&at(fixture.root())).unwrap(), Some("merge"));
        assert!(status(&at(fixture.root()), Untracked::Files).unwrap().entries[0].in_worktree);
    }

    #[test]
    fn head_and_branch_are_read_in_every_state() {
        let fixture = Fixture::empty(&[]);
        let read = || {
            let status = status(&at(fixture.root()), Untracked::Files).unwrap();
            (status.head, status.branch)
        };
        let on = |branch: &str| Some(branch.to_owned());
        assert_eq!(read(), (None, on("main")));
        let head = Some(fixture.commit("a.txt", "a\n"));
        assert_eq!(read(), (head.clone(), on("main")));
        fixture.git(&["checkout", "-q", "--detach"]);
        assert_eq!(read(), (head.clone(), None));
        for name in ["(detached)", "(null)", "(unknown)"] {
            fixture.git(&["checkout", "-qb", name]);
            assert_eq!(read(), (head.clone(), on(name)));
        }
        fixture.git(&["update-ref", "refs/foo/bar", "HEAD"]);
        fixture.git(&["symbolic-ref", "HEAD", "refs/foo/bar"]);
        assert_eq!(read(), (head, None));
        fixture.git(&["symbolic-ref", "HEAD", "refs/foo/none"]);
        assert_eq!(read(), (None, None));
    }

    #[test]
    fn broken_branch_is_an_error() {
        let fixture = Fixture::new();
        fs::write(fixture.repo.common_dir.join("refs/heads/main"), "junk").unwrap();
        let error = status(&at(fixture.root()), Untracked::Files).unwrap_err().to_string();
        assert!(error.contains("appears to be broken"), "{error}");
    }
}
