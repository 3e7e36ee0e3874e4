//! Validation of a requested worktree, done in milliseconds before anything is created.
//!
//! Nothing is changed here. A request that passes can still fail later, for example because the disk is full or another
//! process was faster. Creation then returns the error.

use std::io;
use std::path::{Path, PathBuf};

use super::WorktreeError;
use crate::git::checkout::{checked_out, resolve_commit};
use crate::git::command::CommandError;
use crate::git::layout::Listed;
use crate::git::list::list;
use crate::git::names::{self, RemoteBranch};
use crate::git::refs;
use crate::git::repository::Repository;
use crate::git::trust::Checkout;
use crate::mission::hint::Hint;

/// Folder for worktrees, relative to the repository's root, if the request names neither a path nor a folder. Older
/// versions put all worktrees there.
const DEFAULT_FOLDER: &str = ".orchestrator/worktrees";

/// Maximum number of characters of a folder name. File names end at 255 bytes; this leaves room for a number at the
/// end.
const LONGEST_NAME: usize = 60;

/// A caller's request for a worktree. All fields are untrusted input.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// Name of the branch, which is created if it does not exist.
    pub branch: String,
    /// A branch, tag or commit that a new branch starts at.
    pub base: Option<String>,
    /// Full ref name or commit id that a new branch starts at if `base` is `None`. If both are `None`, it starts at the
    /// HEAD of `tree`.
    pub start: Option<String>,
    /// The working tree that provides HEAD; the main one if `None`.
    pub tree: Option<PathBuf>,
    /// True if the branch name was generated. A remote branch of the same name is then ignored.
    pub is_made_up: bool,
    /// Absolute path, or path relative to the repository's root. If `None`, a free name in `folder` is chosen.
    pub path: Option<PathBuf>,
    /// Folder for worktrees without a requested path; a built-in one if `None`. If it does not exist, it is created
    /// with access for its owner only.
    pub folder: Option<PathBuf>,
    /// Folders outside the repository that the user's settings allow.
    pub allowed_roots: Vec<PathBuf>,
}

/// A request that passed validation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub place: PlannedPath,
    /// See [`Request::folder`].
    pub folder: Option<PathBuf>,
    pub branch: String,
    pub base_commit: String,
    pub new_branch: bool,
    /// The remote branch that the new branch starts at and that becomes its upstream.
    pub from_remote: Option<RemoteBranch>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlannedPath {
    Given(PathBuf),
    /// A name in `folder` is chosen at creation, so that two parallel creations do not choose the same one.
    Default {
        folder: PathBuf,
        /// Registered worktrees whose folder is missing. Git does not allow another worktree at their paths.
        gone: Vec<PathBuf>,
    },
}

pub fn check(repo: &Repository, request: &Request) -> Result<Plan, WorktreeError> {
    let branch = &names::branch_name(&request.branch).to_owned();
    check_branch_name(branch)?;
    let worktrees = list(repo)?;
    let place = match &request.path {
        Some(path) => PlannedPath::Given(check_path(repo, path, &request.allowed_roots, &worktrees)?),
        None => default_place(repo, request, &worktrees)?,
    };
    let used_by = |listed: &&Listed| listed.branch.as_ref() == Some(branch) && !listed.bare;
    if let Some(user) = worktrees.iter().find(used_by) {
        return Err(WorktreeError::BranchInUse { branch: branch.clone(), path: user.path.clone() });
    }
    let existing = look_up_branch(repo, branch)?;
    let new_branch = existing.is_none();
    let from_remote = if new_branch && !request.is_made_up { remote_of_new_branch(repo, branch)? } else { None };
    let base_commit = match (existing, &from_remote) {
        (Some(commit), _) => base_of_existing_branch(repo, request, branch, commit)?,
        (None, Some(remote)) => base_of_remote_branch(repo, request, branch, remote)?,
        (None, None) => base_of_new_branch(repo, request)?,
    };
    let folder = request.folder.clone();
    Ok(Plan { place, folder, branch: branch.clone(), base_commit, new_branch, from_remote })
}

/// Returns an unused path. The caller holds the repository's lock until the path exists.
pub(super) fn free_path(folder: &Path, gone: &[PathBuf], branch: &str) -> PathBuf {
    let name: String = branch.replace('/', "-").chars().take(LONGEST_NAME).collect();
    let mut path = folder.join(&name);
    let mut number = 2;
    while path.symlink_metadata().is_ok() || gone.contains(&path) {
        path = folder.join(format!("{name}-{number}"));
        number += 1;
    }
    path
}

/// The absolute path without symbolic links and `..`; what does not exist yet may only be plain names.
pub fn resolve(repo: &Repository, path: &Path) -> Result<PathBuf, WorktreeError> {
    let invalid = |why| WorktreeError::InvalidPath { path: path.to_owned(), why };
    let absolute = repo.root().join(path);
    // Control characters in the path of the repository itself are accepted: the user chose it, and worktree paths
    // contain it.
    let is_users_own = repo.root().to_string_lossy().contains(char::is_control);
    match absolute.to_str() {
        None => return Err(invalid("it is not UTF-8")),
        Some(text) if text.contains(char::is_control) && !is_users_own => {
            return Err(invalid("it has control characters"));
        }
        Some(_) => {}
    }
    let mut existing = absolute.as_path();
    let mut missing = Vec::new();
    loop {
        match existing.symlink_metadata() {
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                missing.push(
                    existing
                        .file_name()
                        .ok_or_else(|| invalid("it leads upwards from a folder that does not exist"))?,
                );
                existing = existing.parent().unwrap_or(Path::new("/"));
            }
            Err(source) => return Err(read_error(path, source)),
        }
    }
    let real = existing.canonicalize().map_err(|source| read_error(existing, source))?;
    Ok(missing.iter().rev().fold(real, |path, name| path.join(name)))
}

fn check_branch_name(branch: &str) -> Result<(), WorktreeError> {
    // Git's own rules, and `@`, which they allow and other commands take for HEAD.
    let valid = git2::Branch::name_is_valid(branch).unwrap_or(false) && branch != "@";
    if !valid {
        return Err(WorktreeError::InvalidBranch { branch: branch.to_owned() });
    }
    let elsewhere = [("refs/tags/", "a tag"), ("refs/remotes/", "a remote's branch")];
    match elsewhere.into_iter().find(|(folder, _)| branch.starts_with(folder)) {
        None => Ok(()),
        Some((_, what)) => {
            let instead = vec![Hint::to("name a branch here and the commit to start from in `base`")];
            Err(WorktreeError::NotABranch { branch: branch.to_owned(), what, instead })
        }
    }
}

/// Returns the commit of the branch if it exists. Fails if another branch blocks the name: `a` and `a/b` cannot both be
/// branches.
fn look_up_branch(repo: &Repository, branch: &str) -> Result<Option<String>, WorktreeError> {
    let neighbours = match refs::neighbours(repo.root(), branch) {
        Some(neighbours) => neighbours,
        None => ask_neighbours(repo, branch)?,
    };
    for (other, commit) in neighbours {
        if other == branch {
            return Ok(Some(commit));
        }
        if contains(&other, branch) || contains(branch, &other) {
            return Err(WorktreeError::BranchInTheWay { branch: branch.to_owned(), existing: other });
        }
    }
    if refs::ignores_case(repo.root()) {
        refuse_other_case(repo, branch)?;
    }
    Ok(None)
}

/// Returns whether `outer` is a parent folder of `inner`, as git stores branches as paths.
fn contains(outer: &str, inner: &str) -> bool {
    inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'))
}

/// Returns an error if an existing branch clashes with this name when case is ignored. Without case both would be the
/// same file.
fn refuse_other_case(repo: &Repository, branch: &str) -> Result<(), WorktreeError> {
    let wanted = branch.to_lowercase();
    let listed = repo.read().args(["for-each-ref", "--format=%(refname:lstrip=2)", "refs/heads"]).text()?;
    let is_in_the_way = |other: &&str| {
        let other = other.to_lowercase();
        other == wanted || contains(&other, &wanted) || contains(&wanted, &other)
    };
    match listed.lines().find(is_in_the_way) {
        None => Ok(()),
        Some(existing) => {
            Err(WorktreeError::BranchInTheWay { branch: branch.to_owned(), existing: existing.to_owned() })
        }
    }
}

/// Checks that branches with this prefix can be created: git allows the names, and no existing branch blocks them.
pub fn check_prefix(repo: &Repository, prefix: &str) -> Result<(), WorktreeError> {
    let branch = format!("{prefix}w-0");
    check_branch_name(&branch)?;
    look_up_branch(repo, &branch).map(drop)
}

/// Returns names and commits of all branches with the same first path component.
fn ask_neighbours(repo: &Repository, branch: &str) -> Result<Vec<(String, String)>, CommandError> {
    let first = branch.split('/').next().unwrap_or(branch);
    let listed = repo
        .read()
        .args(["for-each-ref", "--format=%(objectname) %(refname:lstrip=2)"])
        .arg(format!("refs/heads/{first}"))
        .text()?;
    let lines = listed.lines().filter_map(|line| line.split_once(' '));
    Ok(lines.map(|(commit, name)| (name.to_owned(), commit.to_owned())).collect())
}

fn base_of_existing_branch(
    repo: &Repository,
    request: &Request,
    branch: &str,
    commit: String,
) -> Result<String, WorktreeError> {
    match &request.base {
        Some(base) if names::commit(repo, &tree(repo, request), base)? != commit => {
            Err(WorktreeError::BranchExists { branch: branch.to_owned(), commit, base: base.clone() })
        }
        _ => Ok(commit),
    }
}

/// Returns the remote branch of the same name for a branch that does not exist locally.
fn remote_of_new_branch(repo: &Repository, branch: &str) -> Result<Option<RemoteBranch>, WorktreeError> {
    // A local branch named like a remote-tracking branch (`origin/main`) would be ambiguous.
    if let Some((remote, name)) = names::as_remote_branch(repo, branch)? {
        let instead =
            vec![Hint::to(format!("use {name} to continue that branch of {remote}")), Hint::to("choose another name")];
        return Err(WorktreeError::NotABranch { branch: branch.to_owned(), what: "a remote's branch", instead });
    }
    Ok(names::remote_branch(repo, branch)?)
}

fn base_of_remote_branch(
    repo: &Repository,
    request: &Request,
    branch: &str,
    remote: &RemoteBranch,
) -> Result<String, WorktreeError> {
    match &request.base {
        Some(base) if names::commit(repo, &tree(repo, request), base)? != remote.commit => {
            Err(WorktreeError::RemoteHasBranch {
                branch: branch.to_owned(),
                remote: remote.remote.clone(),
                commit: remote.commit.clone(),
                base: base.clone(),
            })
        }
        _ => Ok(remote.commit.clone()),
    }
}

fn tree(repo: &Repository, request: &Request) -> Checkout {
    repo.at(request.tree.as_deref().unwrap_or(repo.root()))
}

fn base_of_new_branch(repo: &Repository, request: &Request) -> Result<String, WorktreeError> {
    let tree = &tree(repo, request);
    match (&request.base, &request.start) {
        (Some(base), _) => Ok(names::commit(repo, tree, base)?),
        (None, Some(start)) => Ok(repo.resolve(start)?),
        (None, None) => match resolve_commit(tree, "HEAD")? {
            Some(commit) => Ok(commit),
            None => Ok(repo.commit_checked_out(tree, &checked_out(tree)?.unwrap_or_default())?),
        },
    }
}

/// Returns the folder in which a name will be chosen. The built-in folder is checked for a symbolic link that leads
/// outside.
fn default_place(repo: &Repository, request: &Request, worktrees: &[Listed]) -> Result<PlannedPath, WorktreeError> {
    let folder = match &request.folder {
        Some(folder) => resolve(repo, folder)?,
        None => {
            let folder = resolve(repo, Path::new(DEFAULT_FOLDER))?;
            check_place(repo, &folder, &folder, &request.allowed_roots)?;
            folder
        }
    };
    let gone = worktrees.iter().filter(|listed| listed.missing);
    Ok(PlannedPath::Default { gone: gone.map(|listed| listed.path.clone()).collect(), folder })
}

fn check_path(
    repo: &Repository,
    given: &Path,
    allowed_roots: &[PathBuf],
    worktrees: &[Listed],
) -> Result<PathBuf, WorktreeError> {
    let path = resolve(repo, given)?;
    check_place(repo, given, &path, allowed_roots)?;
    if let Some(same) = worktrees.iter().find(|w| w.missing && w.path == path) {
        return Err(WorktreeError::PathRegistered { path: same.path.clone() });
    }
    // The main worktree comes first, and a place inside it is fine.
    let around = worktrees.iter().skip(1).find(|w| path.starts_with(&w.path));
    if let Some(around) = around {
        return Err(WorktreeError::PathInWorktree { path, worktree: around.path.clone() });
    }
    if is_free(&path)? { Ok(path) } else { Err(WorktreeError::PathTaken { path }) }
}

fn check_place(repo: &Repository, given: &Path, path: &Path, allowed_roots: &[PathBuf]) -> Result<(), WorktreeError> {
    let root = resolve(repo, repo.root())?;
    let common_dir = resolve(repo, &repo.common_dir)?;
    // A bare repository's own folder is its root: only our folder in it is no part of git's files.
    if path.starts_with(&common_dir) && !path.starts_with(common_dir.join(DEFAULT_FOLDER)) {
        return Err(WorktreeError::InvalidPath { path: given.to_owned(), why: "it lies among git's own files" });
    }
    let inside = path.starts_with(&root) && path != root;
    let beside = path.parent().is_some() && path.parent() == root.parent() && path != root;
    let allowed =
        allowed_roots.iter().filter_map(|allowed| resolve(repo, allowed).ok()).any(|allowed| path.starts_with(allowed));
    if inside || beside || allowed { Ok(()) } else { Err(WorktreeError::PathOutside { path: path.to_owned(), root }) }
}

/// Nothing is there, or an empty folder.
fn is_free(path: &Path) -> Result<bool, WorktreeError> {
    match path.read_dir() {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(false),
        Err(source) => Err(read_error(path, source)),
    }
}

fn read_error(path: &Path, source: io::Error) -> WorktreeError {
    WorktreeError::ReadPath { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests;
