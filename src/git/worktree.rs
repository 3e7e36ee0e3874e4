//! Creates the worktrees of workers, and locks those in which a worker lives.
//!
//! Many are created in parallel. Only the registration is done under the repository's lock, because parallel calls of
//! `git worktree add` fail; it takes milliseconds. The files are checked out in parallel. A failed creation is undone
//! exactly: a branch or an empty folder that existed before stays. [`super::remove()`] removes worktrees.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::checkout::{branch_commit, git_dir};
use super::command::{CommandError, Git};
use super::in_place::put_in_place;
use super::include::{self, Copied, Included};
use super::layout::{Listed, MADE_FILE, own_git_dir, zero_id};
use super::list::{list, patiently};
use super::repository::Repository;
use super::{names, submodules};
use check::{Plan, PlannedPath, Request};
pub use error::WorktreeError;
use record::Made;
pub(super) use record::link;

pub mod check;
mod error;
mod record;

/// More parallel checkouts only make the disk busier: two threads on two cores halve the time, more do not help.
const MOST_CHECKOUTS_AT_ONCE: usize = 4;

/// Message in the reflog of a branch that this program made.
const BRANCH_MESSAGE: &str = "branch: created for a worktree";

/// Has git ignore this program's folder, with the worktrees in it.
const OWN_FOLDER_PATTERN: &str = ".orchestrator/";

/// A worktree that this program made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worktree {
    pub path: PathBuf,
    pub branch: String,
    /// Commit of the branch when the worktree was created.
    pub base_commit: String,
    /// True if the branch did not exist before.
    pub created_branch: bool,
    pub repo_path: PathBuf,
    /// Files copied because of `.worktreeinclude`. Keep the list: removal uses it to find changed copies.
    pub copies: Vec<Copied>,
    /// Submodules that stayed empty and `.worktreeinclude` files that were not copied, with the reasons.
    pub not_copied: Vec<String>,
    /// When ignored folders of the main checkout were copied into it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seeded_at: Option<Timestamp>,
    /// The paths that were copied then, relative to its root. `None` if none were to be copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seeded: Option<Vec<String>>,
}

impl Worktree {
    /// Returns what this program copied into it, relative to its root. `None` if that was not recorded.
    pub fn copied(&self) -> Option<Vec<PathBuf>> {
        if self.seeded_at.is_some() && self.seeded.is_none() {
            return None;
        }
        let included = self.copies.iter().map(|copy| &copy.path);
        Some(included.chain(self.seeded.iter().flatten()).map(PathBuf::from).collect())
    }
}

/// Creates a worktree and fills it. With `lock_reason`, it is locked against pruning and removal from the first moment.
pub fn create(repo: &Repository, request: &Request, lock_reason: Option<&str>) -> Result<Worktree, WorktreeError> {
    let plan = check::check(repo, request)?;
    ignore(repo, &plan.place)?;
    let creation = register(repo, &plan, lock_reason)?;
    let filled = set_upstream(repo, &plan).and_then(|()| fill(repo, &creation.path)).and_then(|included| {
        let made = Worktree {
            path: creation.path.clone(),
            branch: plan.branch.clone(),
            base_commit: plan.base_commit.clone(),
            created_branch: plan.new_branch,
            repo_path: repo.root().to_owned(),
            copies: included.copied,
            not_copied: included.skipped,
            seeded_at: None,
            seeded: None,
        };
        remember(repo, &made)?;
        Ok(made)
    });
    filled.or_else(|cause| {
        let _lock = repo.lock()?;
        Err(undo(repo, &plan, &creation, cause))
    })
}

/// Sets the upstream of a branch that only a remote had.
fn set_upstream(repo: &Repository, plan: &Plan) -> Result<(), WorktreeError> {
    let Some(remote) = &plan.from_remote else { return Ok(()) };
    let _lock = repo.lock()?;
    Ok(names::track(repo, &plan.branch, &remote.full_name)?)
}

/// Records a worktree that this program made, with what it lacks.
pub fn remember(repo: &Repository, made: &Worktree) -> Result<(), WorktreeError> {
    let path = git_dir(&repo.at(&made.path))?.join(MADE_FILE);
    let text = serde_json::to_vec(made).expect("paths, names and ids are JSON");
    fs::write(&path, text).map_err(|source| WorktreeError::Remember { path, source })
}

/// Returns the record of a worktree that this program created; `None` for any other worktree.
pub fn made_by_us(repo: &Repository, worktree: &Path) -> Option<Worktree> {
    let record = fs::read(own_git_dir(&repo.common_dir, worktree)?.join(MADE_FILE)).ok()?;
    serde_json::from_slice(&record).ok()
}

/// Returns whether the worktree's `.git` file points to a missing directory: the repository was moved, or has forgotten
/// the worktree.
pub fn leads_nowhere(worktree: &Path) -> bool {
    let link = fs::read_to_string(worktree.join(".git")).unwrap_or_default();
    link.trim_end().strip_prefix("gitdir: ").is_some_and(|place| !worktree.join(place).exists())
}

/// Returns whether the repository has a record of a worktree at this path. The record may date from before a move of
/// the repository.
pub fn has_record(repo: &Repository, worktree: &Path) -> bool {
    own_git_dir(&repo.common_dir, worktree).is_some()
}

/// Finishes an interrupted creation in which git already had the worktree, but not all of its files. If all files are
/// there, they may have been changed, so nothing is overwritten. Git writes the index last, so its presence is the
/// criterion.
pub fn refill(repo: &Repository, path: &Path) -> Result<Worktree, WorktreeError> {
    let found = find(repo, path)?;
    if let Some(record) = own_git_dir(&repo.common_dir, &found.path) {
        record::link(&found.path, &record)
            .map_err(|source| WorktreeError::Remember { path: found.path.join(".git"), source })?;
    }
    let included = if git_dir(&repo.at(&found.path))?.join("index").exists() {
        put_in_place(repo, &found.path)?;
        come_along(repo, &found.path)?
    } else {
        fill(repo, &found.path)?
    };
    let made = Worktree {
        base_commit: found.head.unwrap_or_default(),
        branch: found.branch.unwrap_or_default(),
        path: found.path,
        created_branch: false,
        repo_path: repo.root().to_owned(),
        copies: included.copied,
        not_copied: included.skipped,
        seeded_at: None,
        seeded: None,
    };
    remember(repo, &made)?;
    Ok(made)
}

/// Keeps a worktree from being removed or pruned, by this program or by another git, until [`unlock`].
pub fn lock(repo: &Repository, path: &Path, reason: &str) -> Result<(), WorktreeError> {
    let _lock = repo.lock()?;
    let found = find(repo, path)?;
    // A lock of another program keeps it as well.
    if found.locked.is_some() {
        return Ok(());
    }
    repo.write().args(["worktree", "lock", "--reason", reason, "--"]).arg(&found.path).run()?;
    Ok(())
}

/// Removes git's record of a worktree whose folder is gone, so that it can be created again. Its branch stays. A
/// worktree whose folder exists, or whose HEAD was on no branch, is left alone with an error.
pub fn forget(repo: &Repository, path: &Path) -> Result<(), WorktreeError> {
    let _lock = repo.lock()?;
    let found = find(repo, path)?;
    if !found.missing || found.branch.is_none() || found.path.exists() {
        return Err(WorktreeError::PathRegistered { path: found.path });
    }
    // Forced twice because it may be locked, by us.
    repo.write().args(["worktree", "remove", "--force", "--force", "--"]).arg(&found.path).run()?;
    Ok(())
}

/// Removes the lock of [`lock`]. A worktree without one is left alone.
pub fn unlock(repo: &Repository, path: &Path) -> Result<(), WorktreeError> {
    let _lock = repo.lock()?;
    let found = find(repo, path)?;
    if found.locked.is_none() {
        return Ok(());
    }
    repo.write().args(["worktree", "unlock", "--"]).arg(&found.path).run()?;
    Ok(())
}

/// Returns the worktree at `path`, which may be relative to the repository's root or lead through symbolic links.
pub(super) fn find(repo: &Repository, path: &Path) -> Result<Listed, WorktreeError> {
    let wanted = check::resolve(repo, path)?;
    let worktrees = list(repo)?;
    let known = || worktrees.iter().map(|w| w.path.display().to_string());
    let found =
        worktrees.iter().find(|listed| listed.path == wanted || listed.path.canonicalize().is_ok_and(|p| p == wanted));
    found.cloned().ok_or_else(|| WorktreeError::NotAWorktree { path: wanted.clone(), known: known().collect() })
}

/// Has git ignore a worktree inside the main one, so that it does not show up there as untracked files.
fn ignore(repo: &Repository, place: &PlannedPath) -> Result<(), WorktreeError> {
    let Some(main) = &repo.main_worktree else {
        return Ok(());
    };
    let path = match place {
        PlannedPath::Given(path) => path,
        PlannedPath::Default { folder, .. } => folder,
    };
    let Some(inside) = path.strip_prefix(main).ok().and_then(Path::to_str) else {
        return Ok(());
    };
    if inside.starts_with(OWN_FOLDER_PATTERN) {
        return Ok(repo.exclude(OWN_FOLDER_PATTERN)?);
    }
    let ignored = repo.read().args(["check-ignore", "--quiet", "--"]).arg(format!("{inside}/")).succeeds()?;
    if !ignored {
        repo.exclude(&anchored_pattern(inside))?;
    }
    Ok(())
}

/// Returns a gitignore pattern for exactly one folder.
fn anchored_pattern(folder: &str) -> String {
    let mut pattern = String::from("/");
    for character in folder.chars() {
        if matches!(character, '*' | '?' | '[' | '\\' | ' ') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern.push('/');
    pattern
}

/// The state before a creation, so that exactly the creation can be undone.
struct Rollback {
    path: PathBuf,
    path_existed: bool,
    /// True if this creation registered the worktree with git. A worktree that another process registered is not
    /// removed.
    registered: bool,
    /// The outermost folder that the creation has to make.
    first_new_folder: PathBuf,
}

/// Creates the branch and git's record of the worktree, under the lock against parallel creations.
fn register(repo: &Repository, plan: &Plan, lock_reason: Option<&str>) -> Result<Rollback, WorktreeError> {
    let _lock = repo.lock()?;
    let path = match &plan.place {
        PlannedPath::Given(path) => path.clone(),
        PlannedPath::Default { folder, gone } => check::free_path(folder, gone, &plan.branch),
    };
    let path_existed = path.exists();
    let first_new_folder = first_missing(&path).to_owned();
    let folder = plan.folder.as_ref().filter(|folder| path.starts_with(folder));
    let make_folder = || match folder {
        Some(folder) => {
            make_private(folder).map_err(|source| WorktreeError::MakeFolder { path: folder.clone(), source })
        }
        None => Ok(()),
    };
    make_folder()?;
    let mut creation = Rollback { path_existed, first_new_folder, registered: false, path };
    let branch = record::NewBranch { name: &plan.branch, commit: &plan.base_commit, message: BRANCH_MESSAGE };
    let usual = record::Usual::of(repo).filter(|_| plan.new_branch);
    let made = usual.map_or(Made::Nothing, |usual| usual.make(&creation.path, &branch, lock_reason));
    if plan.new_branch && made == Made::Nothing {
        restore_folders(&creation);
        create_branch(repo, plan)?;
        // Git would make it readable by all users.
        make_folder()?;
    }
    let added = if made == Made::Both { Ok(()) } else { add(repo, plan, &creation.path, lock_reason) };
    match added {
        Ok(()) => {
            creation.registered = true;
            Ok(creation)
        }
        Err(cause) => Err(undo(repo, plan, &creation, cause.into())),
    }
}

/// Creates the branch without `worktree add -b`, so that it is certain whether an undo may delete it. The branch gets
/// no upstream: git writes that to the shared configuration without waiting for its lock, and fails in parallel calls.
fn create_branch(repo: &Repository, plan: &Plan) -> Result<(), WorktreeError> {
    let made = repo
        .write()
        .args(["update-ref", "-m", BRANCH_MESSAGE])
        .arg(format!("refs/heads/{}", plan.branch))
        .args([&plan.base_commit, &zero_id(&plan.base_commit)])
        .run();
    let Err(error) = made else { return Ok(()) };
    match branch_commit(&repo.checkout(), &plan.branch)? {
        Some(commit) => {
            Err(WorktreeError::BranchExists { branch: plan.branch.clone(), commit, base: plan.base_commit.clone() })
        }
        None => Err(error.into()),
    }
}

fn add(repo: &Repository, plan: &Plan, path: &Path, lock_reason: Option<&str>) -> Result<(), CommandError> {
    patiently(|| {
        let mut git = repo.write().args(["worktree", "add", "--quiet", "--no-checkout"]);
        if let Some(reason) = lock_reason {
            git = git.args(["--lock", "--reason", reason]);
        }
        git.arg("--").arg(path).arg(&plan.branch).run().map(drop)
    })
}

pub(super) fn fill(repo: &Repository, path: &Path) -> Result<Included, WorktreeError> {
    let _turn = CheckoutTurn::wait();
    put_in_place(repo, path)?;
    let checkout = repo.at(path);
    let reset =
        || patiently(|| Git::write(&checkout).args(["reset", "--hard", "--quiet", "--no-recurse-submodules"]).run());
    // A git that was killed in here by the end of its server has left its lock.
    reset().or_else(|error| if super::locks::clear_stale_ref_locks(repo, path) { reset() } else { Err(error) })?;
    come_along(repo, path)
}

/// Adds what git does not bring into a new worktree: submodules, and the files that `.worktreeinclude` names.
fn come_along(repo: &Repository, path: &Path) -> Result<Included, WorktreeError> {
    let empty = submodules::fill(repo, path)?;
    let mut included = include::copy(repo, path)?;
    included.skipped.extend(empty);
    Ok(included)
}

/// Undoes a failed creation. The caller holds the lock.
fn undo(repo: &Repository, plan: &Plan, creation: &Rollback, cause: WorktreeError) -> WorktreeError {
    match try_undo(repo, plan, creation) {
        Ok(()) => cause,
        Err(source) => {
            WorktreeError::Undo { path: creation.path.clone(), cause: Box::new(cause), source: Box::new(source) }
        }
    }
}

fn try_undo(repo: &Repository, plan: &Plan, creation: &Rollback) -> Result<(), WorktreeError> {
    if creation.registered {
        // Forced twice because it may be locked, by us.
        repo.write().args(["worktree", "remove", "--force", "--force", "--"]).arg(&creation.path).run()?;
    }
    restore_folders(creation);
    if plan.new_branch {
        // Only while it is still at the commit at which it was created.
        repo.write()
            .args(["update-ref", "-d"])
            .arg(format!("refs/heads/{}", plan.branch))
            .arg(&plan.base_commit)
            .run()?;
    }
    Ok(())
}

/// Creates a folder that only its owner can read, as the work in it is private.
pub(super) fn make_private(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Deletes a folder for worktrees if it is empty.
pub fn remove_empty_folder(repo: &Repository, folder: &Path) -> Result<(), WorktreeError> {
    // A creation makes its folder under the same lock, so the folder is not deleted in between.
    let _lock = repo.lock()?;
    let _ = fs::remove_dir(folder);
    Ok(())
}

/// Removes only empty folders that this process made. A folder that another process has begun to use stays.
fn restore_folders(creation: &Rollback) {
    if creation.path_existed {
        let _ = fs::create_dir(&creation.path);
        return;
    }
    for folder in creation.path.ancestors() {
        if !folder.starts_with(&creation.first_new_folder) || fs::remove_dir(folder).is_err() && folder.exists() {
            break;
        }
    }
}

fn first_missing(path: &Path) -> &Path {
    path.ancestors().take_while(|folder| !folder.exists()).last().unwrap_or(path)
}

/// A slot for one of the few checkouts that run in parallel in this process.
struct CheckoutTurn;

static CHECKOUTS: Mutex<usize> = Mutex::new(0);
static CHECKOUT_ENDED: Condvar = Condvar::new();

impl CheckoutTurn {
    fn wait() -> CheckoutTurn {
        let most = thread::available_parallelism().map_or(1, usize::from).min(MOST_CHECKOUTS_AT_ONCE);
        let running = CHECKOUTS.lock().unwrap_or_else(PoisonError::into_inner);
        let mut running =
            CHECKOUT_ENDED.wait_while(running, |running| *running >= most).unwrap_or_else(PoisonError::into_inner);
        *running += 1;
        CheckoutTurn
    }
}

impl Drop for CheckoutTurn {
    fn drop(&mut self) {
        *CHECKOUTS.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        CHECKOUT_ENDED.notify_one();
    }
}

#[cfg(test)]
mod tests;
