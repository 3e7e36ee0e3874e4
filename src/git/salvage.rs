//! Salvages the whole content of a worktree into one commit under `refs/orchestrator/salvage/`. The worktree can then
//! be deleted.
//!
//! The commit's tree contains modified, staged, untracked and conflicted files. It also contains changed copies made by
//! this program, locally ignored files, and ignored files that an outcome named. The first parent is HEAD. Further
//! parents hold staged content that differs from the files, the state of an unfinished merge or rebase, reflog-only
//! commits, and commits of submodules and nested repositories. So one ref keeps all of it, and the message explains
//! each parent. The worktree and its index are only read; the tree is built in a temporary index.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::checkout::{git_dir, resolve_commit};
use super::command::{CommandError, Git};
use super::identity::{CommitIdentity, commit_with};
use super::include::Copied;
use super::index::{IndexError, TemporaryIndex, add, stage, status_despite_marks};
use super::layout::{own_git_dir, zero_id};
use super::locally_ignored::locally_ignored;
use super::nested::{nested_repositories, unpublished_commits, unpublished_modules};
use super::records::{Staged, staged};
use super::reflog_only::{Reachable, is_reachable, reflog_only_commits};
use super::repository::Repository;
use super::status::{Status, StatusEntry, operation_in_progress_in};
use super::trust::Checkout;
use crate::mission::hint::{Hint, Hinted};

const PREFIX: &str = "refs/orchestrator/salvage/";

/// Maximum number of salvage refs per name. More of them indicate a different problem.
const MOST_OF_ONE_NAME: u32 = 10_000;

#[derive(Debug, thiserror::Error)]
pub enum SalvageError {
    #[error(transparent)]
    Git(#[from] CommandError),
    #[error("cannot use {name:?} as the name of a salvage ref: git does not allow it")]
    InvalidName { name: String },
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error("cannot salvage {}: git cannot work in that repository", path.display())]
    UnreadableRepository { path: PathBuf },
    #[error("cannot salvage {}: git cannot read all of it ({complaint})", worktree.display())]
    Unreadable { worktree: PathBuf, complaint: String },
    #[error("cannot find a free name for the salvage ref {name}: {MOST_OF_ONE_NAME} names are taken")]
    NoFreeName { name: String },
}

impl Hinted for SalvageError {
    fn hints(&self) -> Vec<Hint> {
        match self {
            Self::Git(error) => error.hints(),
            Self::Index(error) => error.hints(),
            Self::UnreadableRepository { .. } => vec![Hint::to("move it away")],
            Self::Unreadable { .. } => vec![Hint::to("make it readable"), Hint::to("move the unreadable part away")],
            Self::NoFreeName { .. } => vec![Hint::to("delete old salvage refs with `git update-ref -d`")],
            Self::InvalidName { .. } => Vec::new(),
        }
    }
}

/// A ref that keeps salvaged work. `git show <name>` describes it; `git worktree add <folder> <name>` restores the
/// files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SalvageRef {
    pub name: String,
    pub commit: String,
}

/// Options of a salvage: work to keep beyond the changes that git reports as uncommitted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Keep<'a> {
    /// Commits that need not be kept, because they remain reachable.
    pub reachable: Reachable<'a>,
    /// Copies that this program made in the worktree. Changed ones are kept.
    pub copies: &'a [Copied],
    /// Commits whose ignore rules are the project's. Files that are ignored by other rules are kept.
    pub trusted: &'a [String],
    /// Ignored files and folders that are kept under any ignore rule.
    pub ignored: &'a [PathBuf],
}

/// Keeps the work in `worktree` as `refs/orchestrator/salvage/<name>`, with a number appended if that name is taken.
/// Returns `None` if nothing would be lost with the worktree.
pub fn salvage(repo: &Repository, worktree: &Path, name: &str, keep: Keep) -> Result<Option<SalvageRef>, SalvageError> {
    check_name(name)?;
    let mut found = collect(&repo.at(worktree), name, keep)?;
    if let Some(own) = own_git_dir(&repo.common_dir, worktree) {
        let commits = reflog_only_commits(repo, &own, keep.reachable, found.head.as_deref())?;
        found.add_parents("commits that were only in the reflog", commits);
    }
    keep_content(repo, name, found, keep.reachable)
}

/// Salvages a worktree whose folder is gone. Git still has its index and its reflog.
pub fn salvage_missing(
    repo: &Repository,
    worktree: &Path,
    name: &str,
    keep: Reachable,
) -> Result<Option<SalvageRef>, SalvageError> {
    check_name(name)?;
    let Some(own) = own_git_dir(&repo.common_dir, worktree) else { return Ok(None) };
    let ask = || repo.read().env("GIT_DIR", &own);
    let head = ask().args(["rev-parse", "--verify", "--quiet", "HEAD^{commit}"]).answer()?;
    let head = head.map(|id| String::from_utf8_lossy(&id).trim().to_owned());
    let mut found = SalvageContent::new(&repo.checkout(), head);
    if own.join("index").is_file() {
        let index = TemporaryIndex::of_git_dir(&repo.checkout(), &own)?;
        found.add_operation(&index, &own)?;
        let tree = index.write_tree()?;
        let committed = found.head.as_ref().map(|head| Git::read(&found.dir).tree_of(head)).transpose()?;
        if committed.is_none_or(|committed| committed != tree) && !is_empty_tree(repo, &tree)? {
            found.tree = Some(tree);
        }
    }
    let commits = reflog_only_commits(repo, &own, keep, found.head.as_deref())?;
    found.add_parents("commits that were only in the reflog", commits);
    for (module, commits) in unpublished_modules(&repo.at(&own))? {
        fetch(&repo.checkout(), &module, &commits)?;
        found.add_parents(&module.display().to_string(), commits);
    }
    keep_content(repo, name, found, keep)
}

fn keep_content(
    repo: &Repository,
    name: &str,
    found: SalvageContent,
    keep: Reachable,
) -> Result<Option<SalvageRef>, SalvageError> {
    let Some(commit) = found.into_commit(name)? else { return Ok(None) };
    let lost = !is_reachable(repo, &commit, keep)?;
    lost.then(|| keep_commit(repo, name, &commit)).transpose()
}

/// Keeps a commit under a salvage ref without checking whether it is reachable.
pub fn keep_commit(repo: &Repository, name: &str, commit: &str) -> Result<SalvageRef, SalvageError> {
    check_name(name)?;
    for number in 1..MOST_OF_ONE_NAME {
        let suffix = if number == 1 { String::new() } else { format!("-{number}") };
        let full = format!("{PREFIX}{name}{suffix}");
        let made = repo.write().args(["update-ref", "-m", "salvage", &full, commit]).arg(zero_id(commit)).run();
        let taken_by = match made {
            Ok(_) => commit.to_owned(),
            Err(error) => resolve_commit(&repo.checkout(), &full)?.ok_or(error)?,
        };
        if taken_by == commit {
            return Ok(SalvageRef { name: full, commit: commit.to_owned() });
        }
    }
    Err(SalvageError::NoFreeName { name: name.to_owned() })
}

/// Keeps the unreachable ones among these commits under one ref. Returns `None` if all of them are reachable.
pub fn keep_lost(
    repo: &Repository,
    name: &str,
    commits: Vec<String>,
    why: &str,
) -> Result<Option<SalvageRef>, SalvageError> {
    let mut lost = Vec::new();
    for commit in commits {
        let commit = resolve_commit(&repo.checkout(), &commit)?;
        if let Some(commit) = commit.filter(|commit| !lost.contains(commit))
            && !is_reachable(repo, &commit, Reachable::default())?
        {
            lost.push(commit);
        }
    }
    keep_all(repo, name, &lost, why)
}

/// Keeps commits under one ref without checking whether they are reachable. Returns `None` if there are none.
pub(super) fn keep_all(
    repo: &Repository,
    name: &str,
    commits: &[String],
    why: &str,
) -> Result<Option<SalvageRef>, SalvageError> {
    if commits.is_empty() {
        return Ok(None);
    }
    let tree = repo.write().arg("mktree").input("").text()?;
    let commit = commit_tree(&repo.checkout(), &tree, commits, why)?;
    keep_commit(repo, name, &commit).map(Some)
}

/// The content of a worktree beyond HEAD.
#[derive(Debug)]
struct SalvageContent {
    dir: Checkout,
    head: Option<String>,
    /// Tree of the files, if they differ from HEAD.
    tree: Option<String>,
    /// Further parents of the salvage commit, each with its description.
    parents: Vec<(String, String)>,
}

impl SalvageContent {
    fn new(dir: &Checkout, head: Option<String>) -> SalvageContent {
        SalvageContent { dir: dir.clone(), head, tree: None, parents: Vec::new() }
    }

    fn is_only_head(&self) -> bool {
        self.tree.is_none() && self.parents.is_empty()
    }

    fn add_parents(&mut self, what: &str, commits: Vec<String>) {
        self.parents.extend(commits.into_iter().map(|commit| (what.to_owned(), commit)));
    }

    /// Adds a commit with this tree on top of HEAD as a further parent.
    fn add_tree(&mut self, what: &str, tree: &str) -> Result<(), SalvageError> {
        let head: Vec<String> = self.head.iter().cloned().collect();
        let commit = commit_tree(&self.dir, tree, &head, &format!("salvage: {what}"))?;
        self.parents.push((what.to_owned(), commit));
        Ok(())
    }

    /// Adds the state of an unfinished operation, and all sides of files in conflict. These are removed from the index,
    /// so that the rest of it can be written as a tree. Returns whether there were conflicts.
    fn add_operation(&mut self, index: &TemporaryIndex, git_dir: &Path) -> Result<bool, SalvageError> {
        let conflicts = index.conflicts()?;
        let operation = operation_in_progress_in(git_dir);
        if conflicts.is_empty() && operation.is_none() {
            return Ok(false);
        }
        let own = TemporaryIndex::empty(&self.dir, None)?;
        let mut entries = Vec::new();
        let mut taken_out = Vec::new();
        for Staged { mode, id, stage, path } in staged(&conflicts) {
            let path = path.as_os_str().as_bytes();
            entries.extend_from_slice(format!("{mode} {id}\tconflicts/{stage}/").as_bytes());
            entries.extend_from_slice(&[path, b"\0"].concat());
            taken_out.extend_from_slice(format!("0 {}\t", zero_id(id)).as_bytes());
            taken_out.extend_from_slice(&[path, b"\0"].concat());
        }
        for file in state_files(git_dir) {
            let id = own.git().args(["hash-object", "-w", "--no-filters", "--"]).arg(git_dir.join(&file)).text()?;
            entries.extend_from_slice(format!("100644 {id}\toperation/{}\0", file.display()).as_bytes());
        }
        own.set(entries)?;
        if !taken_out.is_empty() {
            index.set(taken_out)?;
        }
        let what = format!("state of an unfinished {}", operation.unwrap_or("merge"));
        self.add_tree(&what, &own.write_tree()?)?;
        Ok(!conflicts.is_empty())
    }

    /// Returns HEAD if nothing else was found, and otherwise a new commit with everything.
    fn into_commit(self, title: &str) -> Result<Option<String>, SalvageError> {
        if self.is_only_head() { Ok(self.head) } else { self.commit(title).map(Some) }
    }

    fn commit(self, title: &str) -> Result<String, SalvageError> {
        let tree = match (&self.tree, &self.head) {
            (Some(tree), _) => tree.clone(),
            (None, Some(head)) => Git::read(&self.dir).tree_of(head)?,
            (None, None) => Git::write(&self.dir).arg("mktree").input("").text()?,
        };
        let mut message = format!("salvage: {title}\n\n");
        let mut parents: Vec<String> = Vec::new();
        for (what, commit) in self.head.map(|head| ("HEAD".to_owned(), head)).into_iter().chain(self.parents) {
            if !parents.contains(&commit) {
                parents.push(commit);
                message.push_str(&format!("^{}: {what}\n", parents.len()));
            }
        }
        commit_tree(&self.dir, &tree, &parents, &message)
    }
}

/// Collects everything that a worktree contains.
fn collect(worktree: &Checkout, title: &str, keep: Keep) -> Result<SalvageContent, SalvageError> {
    let copies = keep.copies;
    let Status { head, entries, complaint, .. } = status_despite_marks(worktree)?;
    let mut ignored = locally_ignored(worktree, keep.trusted, keep.ignored)?;
    ignored.files.retain(|file| !copies.iter().any(|copy| Path::new(&copy.path) == file));
    let unreadable = ignored.unreadable.first().map(|path| path.display().to_string());
    if let Some(complaint) = complaint.or(unreadable) {
        return Err(SalvageError::Unreadable { worktree: worktree.to_path_buf(), complaint });
    }
    let own = git_dir(worktree)?;
    let mut found = SalvageContent::new(worktree, head);
    let mut index = TemporaryIndex::copy_of(worktree)?;
    let in_conflict = found.add_operation(&index, &own)?;
    found.add_nested(title, &entries, &ignored.repositories, &own)?;
    let copies: Vec<&Copied> = copies.iter().filter(|c| c.is_changed(worktree)).collect();
    if entries.is_empty() && copies.is_empty() && ignored.files.is_empty() {
        return Ok(found);
    }
    if entries.iter().any(|e| e.staged && e.in_worktree) {
        found.add_tree("staged content", &index.write_tree()?)?;
    }
    if in_conflict {
        // Git can stage the deletion of a file only if the index contains it.
        index = TemporaryIndex::copy_of(worktree)?;
    }
    stage(index.git(), &entries)?;
    let ignored = copies.iter().map(|copy| Path::new(&copy.path)).chain(ignored.files.iter().map(PathBuf::as_path));
    add(index.git(), &["--force", "--sparse"], ignored)?;
    found.tree = Some(index.write_tree()?);
    Ok(found)
}

impl SalvageContent {
    /// Fetches the unpublished commits and the uncommitted files of nested repositories into the surrounding
    /// repository, where no ref keeps them yet.
    fn add_nested(
        &mut self,
        title: &str,
        entries: &[StatusEntry],
        ignored: &[PathBuf],
        own: &Path,
    ) -> Result<(), SalvageError> {
        let worktree = self.dir.clone();
        let mut repositories = nested_repositories(&worktree, entries)?;
        let untracked = entries.iter().filter(|entry| entry.is_repository());
        for path in untracked.map(|entry| worktree.join(&entry.path)) {
            if !repositories.contains(&path) {
                return Err(SalvageError::UnreadableRepository { path });
            }
        }
        repositories.extend(ignored.iter().map(|path| worktree.join(path)));
        for repository in repositories {
            let repository = worktree.at(repository);
            let head = resolve_commit(&repository, "HEAD")?;
            let trusted: Vec<String> = head.into_iter().collect();
            let whole =
                collect(&repository, title, Keep { trusted: &trusted, ..Keep::default() })?.into_commit(title)?;
            self.add_commits(&repository, unpublished_commits(&repository, whole.as_deref())?)?;
        }
        for (module, commits) in unpublished_modules(&worktree.at(own))? {
            self.add_commits(&module, commits)?;
        }
        Ok(())
    }

    fn add_commits(&mut self, from: &Path, commits: Vec<String>) -> Result<(), SalvageError> {
        let (dir, name) = (self.dir.clone(), from.strip_prefix(&self.dir).unwrap_or(from).display().to_string());
        let known = |commit: &String| self.parents.iter().any(|(_, parent)| parent == commit);
        let new: Vec<String> = commits.into_iter().filter(|commit| !known(commit)).collect();
        fetch(&dir, from, &new)?;
        self.add_parents(&format!("repository {name}"), new);
        Ok(())
    }
}

fn fetch(into: &Checkout, from: &Path, commits: &[String]) -> Result<(), CommandError> {
    if commits.is_empty() {
        return Ok(());
    }
    let fetch = Git::write(into)
        .config("protocol.file.allow=always")
        .config("protocol.version=2")
        .args(["fetch", "--quiet", "--no-tags", "--no-write-fetch-head"])
        .args(["--no-recurse-submodules", "--update-shallow"])
        // A submodule's repository may name a missing folder as its worktree, and git fails there without this.
        .args(["--upload-pack", "GIT_WORK_TREE=. git upload-pack", "--"])
        .arg(from)
        .args(commits);
    fetch.run().map(drop)
}

/// Returns the files that describe an unfinished operation, relative to the worktree's git directory.
pub(super) fn state_files(git_dir: &Path) -> Vec<PathBuf> {
    const FOLDERS: [&str; 3] = ["rebase-merge", "rebase-apply", "sequencer"];
    const OTHERS: [&str; 4] = ["HEAD", "FETCH_HEAD", "COMMIT_EDITMSG", "index"];
    let names = |folder: &Path| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let files = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
        files.filter_map(|entry| entry.file_name().into_string().ok()).collect::<Vec<_>>()
    };
    let is_state = |name: &String| name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
    let mut files: Vec<PathBuf> = names(git_dir)
        .into_iter()
        .filter(|name| is_state(name) && !OTHERS.contains(&name.as_str()))
        .map(PathBuf::from)
        .collect();
    for folder in FOLDERS {
        files.extend(names(&git_dir.join(folder)).into_iter().map(|name| Path::new(folder).join(name)));
    }
    files
}

fn is_empty_tree(repo: &Repository, tree: &str) -> Result<bool, CommandError> {
    Ok(repo.read().args(["ls-tree", tree]).run()?.is_empty())
}

/// Returns a commit with the files of a worktree as they are, without ignored files: HEAD if nothing else is there, or
/// else a new commit that no ref holds. The worktree and its index are only read.
pub fn snapshot(worktree: &Checkout) -> Result<String, SalvageError> {
    let Status { head, entries, complaint, .. } = status_despite_marks(worktree)?;
    if let Some(complaint) = complaint {
        return Err(SalvageError::Unreadable { worktree: worktree.to_path_buf(), complaint });
    }
    match head {
        Some(head) if entries.is_empty() => Ok(head),
        head => {
            let index = TemporaryIndex::copy_of(worktree)?;
            stage(index.git(), &entries)?;
            let parents: Vec<String> = head.into_iter().collect();
            commit_tree(worktree, &index.write_tree()?, &parents, "uncommitted changes, for a verification")
        }
    }
}

fn commit_tree(dir: &Checkout, tree: &str, parents: &[String], message: &str) -> Result<String, SalvageError> {
    Ok(commit_with(dir, &CommitIdentity::fallback(), |git| git.commit_tree(tree, parents, message))?)
}

fn check_name(name: &str) -> Result<(), SalvageError> {
    let valid = git2::Reference::is_valid_name(&format!("{PREFIX}{name}"));
    valid.then_some(()).ok_or_else(|| SalvageError::InvalidName { name: name.to_owned() })
}

#[cfg(test)]
mod tests;
