//! Removes worktrees without losing work.
//!
//! Three kinds are never removed: a locked worktree (a worker runs in it), the main one, and one that contains another.
//! Work that would be lost is collected first. It consists of uncommitted files, an unfinished merge or rebase, commits
//! of a detached HEAD, and commits of submodules. If the branch is deleted too, its commits that are not integrated are
//! added. Any such work is an error; with `force` it is salvaged before the removal.
//!
//! Work that the user cannot see is salvaged without an error: reflog-only commits, and files that are ignored only by
//! rules made in the worktree or that an outcome of the worker named. Other files that the project ignores are deleted
//! silently, except changed copies that this program made, and repositories with commits of their own.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::checkout::{branch_commit, git_dir, resolve_commit};
use super::command::CommandError;
use super::fingerprint::tree_state;
use super::include::Copied;
use super::index::{IndexError, status_despite_marks};
use super::layout::{Listed, own_git_dir};
use super::list::list;
use super::locally_ignored::LocallyIgnored;
use super::merged::{MergeQuery, Merged, merged};
use super::moved::moved_to;
use super::nested::{nested_repositories, unpublished_commits, unpublished_modules};
use super::origins::EarlierIntegration;
use super::own_clone::{self, CloneError};
use super::picked::is_integrated;
use super::reflog_only::{Reachable, is_reachable};
use super::repository::{Repository, RepositoryError};
use super::salvage::{Keep, SalvageError, SalvageRef, keep_commit, salvage, salvage_missing};
use super::status::operation_in_progress;
use super::trust::Checkout;
use super::worktree::{WorktreeError, find, made_by_us};
use crate::mission::hint::{Hint, Hinted};

/// Maximum number of paths that a refusal names.
const SAMPLES: usize = 5;

/// Maximum number of further salvages of work that changes in the meantime.
const ATTEMPTS: usize = 3;

/// Maximum number and size of ignored files that are salvaged without being requested. More may be installed packages.
const MOST_IGNORED_FILES: usize = 5_000;
const MOST_IGNORED_BYTES: u64 = 100 << 20;

#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    #[error(transparent)]
    Git(#[from] CommandError),
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    #[error(transparent)]
    Worktree(#[from] WorktreeError),
    #[error(transparent)]
    Salvage(#[from] SalvageError),
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error(transparent)]
    Clone(#[from] CloneError),
    #[error("cannot remove {}: it is the main worktree", path.display())]
    MainWorktree { path: PathBuf },
    #[error("cannot remove {}: it is locked ({reason})", path.display())]
    Locked { path: PathBuf, reason: String },
    #[error(
        "cannot remove {}: it has {count} uncommitted or untracked files ({})",
        path.display(),
        samples.join(", ")
    )]
    Dirty { path: PathBuf, count: usize, samples: Vec<String> },
    #[error("cannot remove {}: its HEAD is detached at {commit}, which is on no branch", path.display())]
    Detached { path: PathBuf, commit: String },
    #[error("cannot remove {}: commits in {} exist nowhere else", path.display(), repositories.join(", "))]
    SubmoduleCommits { path: PathBuf, repositories: Vec<String> },
    #[error("cannot delete branch {branch}: {commits} of its commits are not in {into}")]
    Unmerged { branch: String, into: String, commits: usize },
    #[error("cannot delete branch {branch}: it is the integration branch")]
    IntegrationBranch { branch: String },
    #[error("cannot delete branch {branch}: it is checked out in {}", path.display())]
    BranchInUse { branch: String, path: PathBuf },
    #[error("cannot remove {}: a {operation} is not finished there", path.display())]
    InProgress { path: PathBuf, operation: &'static str },
    #[error("cannot remove {}: the worktree {} is inside it", path.display(), inner.display())]
    HoldsWorktree { path: PathBuf, inner: PathBuf },
    #[error("cannot remove {}: its `.git` file does not lead to git's record of it", path.display())]
    Broken { path: PathBuf },
    #[error(
        "cannot remove {}: {count} files that git ignores ({megabytes} MB, such as {sample}) may be work",
        path.display()
    )]
    ManyIgnored { path: PathBuf, count: usize, megabytes: u64, sample: String },
    #[error("cannot remove {}: its folder was moved to {}, which git does not know", path.display(), now.display())]
    Moved { path: PathBuf, now: PathBuf },
    #[error("cannot remove {}: a process still changes files there", path.display())]
    Busy { path: PathBuf },
}

impl Hinted for RemoveError {
    fn hints(&self) -> Vec<Hint> {
        match self {
            Self::Git(error) => error.hints(),
            Self::Repository(error) => error.hints(),
            Self::Worktree(error) => error.hints(),
            Self::Salvage(error) => error.hints(),
            Self::Index(error) => error.hints(),
            Self::Clone(error) => error.hints(),
            Self::MainWorktree { .. } => Vec::new(),
            Self::Locked { .. } => vec![Hint::to("wait until its worker has settled")],
            Self::Dirty { .. } => vec![Hint::to("commit them there"), Hint::Force("them")],
            Self::Detached { .. } => vec![Hint::to("create a branch there"), Hint::Force("it")],
            Self::SubmoduleCommits { .. } => vec![Hint::to("push them"), Hint::Force("them")],
            Self::Unmerged { .. } => vec![Hint::to("integrate it"), Hint::KeepBranch, Hint::Force("them")],
            Self::IntegrationBranch { .. } | Self::BranchInUse { .. } => vec![Hint::KeepBranch],
            Self::InProgress { .. } => vec![Hint::to("finish it"), Hint::Force("its state")],
            Self::HoldsWorktree { inner, .. } => vec![Hint::RemoveWorktree(inner.display().to_string())],
            Self::Broken { path } => {
                vec![Hint::Run(format!("git worktree repair {}", path.display())), Hint::to("move the folder away")]
            }
            Self::ManyIgnored { .. } => vec![Hint::to("delete what is not needed"), Hint::Force("all of it")],
            Self::Moved { now, .. } => {
                let repair = format!("git worktree repair {}", now.display());
                vec![Hint::to(format!("run `{repair}`, then remove it by that path"))]
            }
            Self::Busy { .. } => vec![Hint::to("end that process")],
        }
    }
}

#[derive(Debug, Clone, Default)]
pub struct Remove {
    pub path: PathBuf,
    pub force: bool,
    /// True if the branch that is checked out there is deleted too.
    pub delete_branch: bool,
    /// Branch whose commits count as integrated; without it, the one checked out at the repository's root.
    pub integration_branch: Option<String>,
    /// Earlier integrations of the branch, with their targets.
    pub earlier_integrations: Vec<(String, EarlierIntegration)>,
    /// Name of the ref that keeps work that would be lost.
    pub salvage_name: String,
    /// Files copied into the worktree, as returned by its creation.
    pub copies: Vec<Copied>,
    /// Branch that the worktree had at its creation, for a worktree that was already removed by other means.
    pub branch: Option<String>,
    /// Commit at which the worktree began, if known. The ignore rules of that commit are the project's.
    pub base: Option<String>,
    /// Ignored files and folders that an outcome of its worker named as work.
    pub ignored: Vec<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Removed {
    pub path: PathBuf,
    pub branch: Option<String>,
    pub branch_deleted: bool,
    pub salvage_ref: Option<SalvageRef>,
    /// Errors that remained although the worktree is removed.
    pub note: Option<String>,
}

pub fn remove(repo: &Repository, request: &Remove) -> Result<Removed, RemoveError> {
    match (find(repo, &request.path), &request.branch) {
        (Ok(found), _) => remove_found(repo, request, found),
        (Err(WorktreeError::NotAWorktree { path, .. }), Some(branch)) if !path.exists() => {
            finish_removal(repo, request, path, branch)
        }
        (Err(error), _) => Err(error.into()),
    }
}

/// Checks that a worktree can be removed, and that all work in it and on its branch exists elsewhere. Returns the
/// objection as an error and changes nothing. This program's own lock on a worker's worktree does not count. If the
/// worktree was already removed, only its branch is checked.
pub fn check_merged(repo: &Repository, request: &Remove, own_lock: &str) -> Result<(), RemoveError> {
    let mut found = match (find(repo, &request.path), &request.branch) {
        (Err(WorktreeError::NotAWorktree { path, .. }), Some(branch)) if !path.exists() => {
            forgotten(repo, path, branch)?
        }
        (found, _) => found?,
    };
    found.locked = found.locked.take().filter(|reason| reason != own_lock);
    check_removable(repo, &found)?;
    if let BranchCheck::Unmerged(refusal) = check_branch(repo, &found, request)? {
        return Err(refusal);
    }
    refuse_losses(repo, &with_record(repo, request, &found), &found)
}

/// Returns what is left of a worktree that git has forgotten and whose folder is gone: at most its branch.
fn forgotten(repo: &Repository, path: PathBuf, branch: &str) -> Result<Listed, RemoveError> {
    refuse_moved(repo, &path)?;
    let head = branch_commit(&repo.checkout(), branch)?;
    let branch = head.is_some().then(|| branch.to_owned());
    Ok(Listed { path, branch, head, missing: true, ..Listed::default() })
}

/// Finishes the removal of a worktree that git has forgotten and whose folder is gone.
fn finish_removal(repo: &Repository, request: &Remove, path: PathBuf, branch: &str) -> Result<Removed, RemoveError> {
    let found = forgotten(repo, path, branch)?;
    let mut salvage_ref = None;
    if request.delete_branch {
        match check_branch(repo, &found, request)? {
            BranchCheck::Unmerged(refusal) if !request.force => return Err(refusal),
            BranchCheck::Unmerged(_) => {
                let keep = |tip: &String| keep_commit(repo, &request.salvage_name, tip);
                salvage_ref = found.head.as_ref().map(keep).transpose()?;
            }
            BranchCheck::None | BranchCheck::Merged => {}
        }
    }
    let _lock = repo.lock()?;
    Ok(removed(repo, request, found, salvage_ref, Vec::new()))
}

fn remove_found(repo: &Repository, request: &Remove, found: Listed) -> Result<Removed, RemoveError> {
    if found.locked.is_none() {
        own_clone::bring_back(repo, &found.path)?;
    }
    check_removable(repo, &found)?;
    let request = &with_record(repo, request, &found);
    let integrated = if request.delete_branch { Some(check_branch(repo, &found, request)?) } else { None };
    if !request.force {
        refuse_losses(repo, request, &found)?;
    }
    let merged = match integrated {
        Some(BranchCheck::Unmerged(refusal)) if !request.force => return Err(refusal),
        Some(BranchCheck::Merged) => found.head.as_deref(),
        _ => None,
    };
    let going = found.branch.as_deref().filter(|_| request.delete_branch);
    let salvage_ref = salvage_all(repo, request, &found, Reachable { except_branch: going, and: merged })?;
    delete(repo, request, found, salvage_ref)
}

/// Facts about the creation of the worktree that the caller does not know.
fn with_record(repo: &Repository, request: &Remove, found: &Listed) -> Remove {
    let mut request = request.clone();
    if let Some(made) = made_by_us(repo, &found.path) {
        if request.copies.is_empty() {
            request.copies = made.copies;
        }
        request.base.get_or_insert(made.base_commit);
    }
    request
}

/// The state of a branch that is to be deleted.
enum BranchCheck {
    None,
    /// All that is in it is in the integration branch, maybe as other commits.
    Merged,
    Unmerged(RemoveError),
}

fn check_removable(repo: &Repository, found: &Listed) -> Result<(), RemoveError> {
    let path = found.path.clone();
    let worktrees = list(repo)?;
    if worktrees.first().is_some_and(|main| main.path == path) {
        return Err(RemoveError::MainWorktree { path });
    }
    if let Some(reason) = &found.locked {
        return Err(RemoveError::Locked { path, reason: reason.clone() });
    }
    let holds = |other: &&Listed| other.path != path && other.path.starts_with(&path) && !other.missing;
    if let Some(inner) = worktrees.iter().find(holds) {
        return Err(RemoveError::HoldsWorktree { inner: inner.path.clone(), path });
    }
    if found.missing {
        return refuse_moved(repo, &path);
    }
    if !is_connected(repo, &path) {
        return Err(RemoveError::Broken { path });
    }
    Ok(())
}

/// Returns an error if the worktree was moved with its repository. Git would remove only its record, and the folder
/// would remain without one.
fn refuse_moved(repo: &Repository, path: &Path) -> Result<(), RemoveError> {
    match moved_to(repo, path) {
        Some(now) => Err(RemoveError::Moved { path: path.to_owned(), now }),
        None => Ok(()),
    }
}

/// Returns whether git run in the folder would use this worktree, and not another repository.
fn is_connected(repo: &Repository, path: &Path) -> bool {
    let real = |path: PathBuf| path.canonicalize().ok();
    let own = own_git_dir(&repo.common_dir, path).and_then(real);
    own.is_some() && own == git_dir(&repo.at(path)).ok().and_then(real)
}

fn refuse_losses(repo: &Repository, request: &Remove, found: &Listed) -> Result<(), RemoveError> {
    let path = found.path.clone();
    let worktree = &repo.at(&path);
    let mut ignored = LocallyIgnored::default();
    if !found.missing {
        refuse_dirty(worktree, &request.copies)?;
        ignored = super::locally_ignored::locally_ignored(worktree, &trusted(repo, request, found)?, &request.ignored)?;
        refuse_many_ignored(&path, &ignored)?;
    }
    if let Some(commit) = unreachable_head(repo, found)? {
        return Err(RemoveError::Detached { path, commit });
    }
    if found.missing {
        return Ok(());
    }
    let repositories = unpublished_repositories(worktree, &ignored.repositories)?;
    if !repositories.is_empty() {
        return Err(RemoveError::SubmoduleCommits { path, repositories });
    }
    match operation_in_progress(worktree)? {
        Some(operation) => Err(RemoveError::InProgress { path, operation }),
        None => Ok(()),
    }
}

fn refuse_dirty(path: &Checkout, copies: &[Copied]) -> Result<(), RemoveError> {
    let entries = status_despite_marks(path)?.entries;
    let changed = entries.iter().map(|e| e.path.display().to_string());
    let copies = copies.iter().filter(|copy| copy.is_changed(path));
    let mut samples: Vec<String> = changed.chain(copies.map(|c| c.path.clone())).collect();
    let count = samples.len();
    samples.truncate(SAMPLES);
    if count == 0 {
        return Ok(());
    }
    Err(RemoveError::Dirty { path: path.to_path_buf(), count, samples })
}

fn refuse_many_ignored(path: &Path, ignored: &LocallyIgnored) -> Result<(), RemoveError> {
    let Some(sample) = ignored.files.first() else { return Ok(()) };
    if ignored.files.len() <= MOST_IGNORED_FILES && ignored.bytes <= MOST_IGNORED_BYTES {
        return Ok(());
    }
    Err(RemoveError::ManyIgnored {
        path: path.to_owned(),
        count: ignored.files.len(),
        megabytes: ignored.bytes >> 20,
        sample: sample.display().to_string(),
    })
}

/// Returns the commits whose ignore rules are the project's: the one at which the worktree began, and that of the
/// integration branch. For a worktree that was not made for a worker, only its own commit is known.
fn trusted(repo: &Repository, request: &Remove, found: &Listed) -> Result<Vec<String>, CommandError> {
    let integrated = match &request.integration_branch {
        Some(name) => branch_commit(&repo.checkout(), name)?,
        None => resolve_commit(&repo.checkout(), "HEAD")?,
    };
    let began = request.base.clone().or_else(|| found.head.clone());
    Ok(began.into_iter().chain(integrated).collect())
}

/// Returns the commit of a detached HEAD that would be lost with the worktree.
fn unreachable_head(repo: &Repository, found: &Listed) -> Result<Option<String>, CommandError> {
    match (&found.branch, &found.head) {
        (None, Some(head)) if !is_reachable(repo, head, Reachable::default())? => Ok(Some(head.clone())),
        _ => Ok(None),
    }
}

/// `ignored`: repositories in folders that git ignores.
fn unpublished_repositories(worktree: &Checkout, ignored: &[PathBuf]) -> Result<Vec<String>, CommandError> {
    let mut names = Vec::new();
    let name = |path: &Path| path.strip_prefix(worktree).unwrap_or(path).display().to_string();
    let ignored = ignored.iter().map(|path| worktree.join(path));
    for repository in nested_repositories(worktree, &[])?.into_iter().chain(ignored) {
        let repository = worktree.at(repository);
        let head = resolve_commit(&repository, "HEAD")?;
        if !unpublished_commits(&repository, head.as_deref())?.is_empty()
            || !unpublished_repositories(&repository, &[])?.is_empty()
        {
            names.push(name(&repository));
        }
    }
    if names.is_empty() {
        let modules = unpublished_modules(&worktree.at(git_dir(worktree)?))?;
        names.extend(modules.iter().map(|(module, _)| name(module)));
    }
    Ok(names)
}

/// Returns whether work would be lost with the branch.
fn check_branch(repo: &Repository, found: &Listed, request: &Remove) -> Result<BranchCheck, RemoveError> {
    let (Some(branch), Some(tip)) = (&found.branch, &found.head) else {
        return Ok(BranchCheck::None);
    };
    let (into, name) = match request.integration_branch.as_deref() {
        Some(name) => (branch_commit(&repo.checkout(), name)?, name.to_owned()),
        None => (resolve_commit(&repo.checkout(), "HEAD")?, repo.integration_branch()?),
    };
    if *branch == name {
        return Err(RemoveError::IntegrationBranch { branch: name });
    }
    let is_user = |other: &&Listed| other.branch.as_ref() == Some(branch) && other.path != found.path && !other.bare;
    if let Some(user) = list(repo)?.iter().find(is_user) {
        return Err(RemoveError::BranchInUse { branch: branch.clone(), path: user.path.clone() });
    }
    let into = into.ok_or_else(|| RepositoryError::UnknownCommit { name: name.clone() })?;
    let work = MergeQuery {
        is_continued: false,
        branch: branch.clone(),
        last_seen: Some(tip.clone()),
        base: None,
        targets: vec![name.clone()],
        // Commits that were left out would be lost with the branch.
        earlier_integrations: request
            .earlier_integrations
            .iter()
            .filter(|(_, earlier_integrations)| !earlier_integrations.partial)
            .cloned()
            .collect(),
    };
    if matches!(merged(repo, &[work])[..], [Merged::Into { .. }]) || is_integrated(repo, tip, &into)? {
        return Ok(BranchCheck::Merged);
    }
    let commits = repo.read().args(["rev-list", "--count", tip, "--not", &into]).text()?;
    let commits = commits.parse().unwrap_or(1);
    Ok(BranchCheck::Unmerged(RemoveError::Unmerged { branch: branch.clone(), into: name, commits }))
}

/// Salvages until nothing changes between the salvage and the check after it.
fn salvage_all(
    repo: &Repository,
    request: &Remove,
    found: &Listed,
    reachable: Reachable,
) -> Result<Option<SalvageRef>, RemoveError> {
    if found.missing {
        return Ok(salvage_missing(repo, &found.path, &request.salvage_name, reachable)?);
    }
    let trusted = trusted(repo, request, found)?;
    let keep = Keep { reachable, copies: &request.copies, trusted: &trusted, ignored: &request.ignored };
    let worktree = &repo.at(&found.path);
    for _ in 0..ATTEMPTS {
        let before = tree_state(worktree)?;
        let kept = salvage(repo, &found.path, &request.salvage_name, keep)?;
        if tree_state(worktree)? == before {
            return Ok(kept);
        }
    }
    Err(RemoveError::Busy { path: found.path.clone() })
}

fn delete(
    repo: &Repository,
    request: &Remove,
    found: Listed,
    salvage_ref: Option<SalvageRef>,
) -> Result<Removed, RemoveError> {
    let _lock = repo.lock()?;
    // Another process may have begun to work there in the meantime.
    check_removable(repo, &find(repo, &found.path)?)?;
    // Without force, git refuses all worktrees with submodules, even former ones whose repositories are still in its
    // records. They were checked above.
    let has_modules = own_git_dir(&repo.common_dir, &found.path).is_some_and(|own| own.join("modules").exists());
    let has_repositories =
        !found.missing && (has_modules || !nested_repositories(&repo.at(&found.path), &[])?.is_empty());
    let clone_name = own_clone::worker_of(repo, &found.path);
    let mut git = repo.write().args(["worktree", "remove"]);
    if request.force || has_repositories {
        git = git.arg("--force");
    }
    let mut notes = Vec::new();
    if let Err(error) = git.arg("--").arg(&found.path).run() {
        // Git forgets a worktree even if it could not delete all of its files.
        if list(repo)?.iter().any(|listed| listed.path == found.path) {
            return Err(error.into());
        }
        notes.push(format!("some of its files could not be deleted: {error}"));
    }
    let salvage_ref = match clone_name.map(|name| own_clone::retire(repo, &name)) {
        None => salvage_ref,
        Some(Ok(of_clone)) => {
            // One ref can be named; the other one is listed with it.
            if let (Some(_), Some(more)) = (&salvage_ref, &of_clone) {
                notes.push(format!("commits that only its clone had are kept as {}", more.name));
            }
            salvage_ref.or(of_clone)
        }
        Some(Err(error)) => {
            notes.push(format!("cannot delete the refs of its clone: {error}"));
            salvage_ref
        }
    };
    if found.missing {
        notes.push("its folder was not there: git's record of it was removed, and nothing else".to_owned());
    } else if notes.is_empty() && found.path.symlink_metadata().is_ok() {
        notes.push("git removed its record of it, but its folder is still there".to_owned());
    }
    Ok(removed(repo, request, found, salvage_ref, notes))
}

/// Completes the removal by deleting the branch, if requested.
fn removed(
    repo: &Repository,
    request: &Remove,
    found: Listed,
    salvage_ref: Option<SalvageRef>,
    mut notes: Vec<String>,
) -> Removed {
    let mut branch_deleted = false;
    if let (true, Some(branch), Some(tip)) = (request.delete_branch, &found.branch, &found.head) {
        match delete_branch(repo, branch, tip) {
            Ok(()) => branch_deleted = true,
            Err(error) => notes.push(format!("its branch {branch} was kept: {error}")),
        }
    }
    let note = Some(notes.join("; ")).filter(|note| !note.is_empty());
    Removed { path: found.path, branch_deleted, branch: found.branch, salvage_ref, note }
}

/// Deletes the branch only if it still has the commit that was checked.
fn delete_branch(repo: &Repository, branch: &str, tip: &str) -> Result<(), CommandError> {
    repo.write().args(["update-ref", "-d", &format!("refs/heads/{branch}"), tip]).run()?;
    let section = format!("branch.{branch}");
    // There is a section only if the branch was pushed with an upstream.
    repo.write().args(["config", "--local", "--remove-section", &section]).output()?;
    Ok(())
}

#[cfg(test)]
mod tests;
