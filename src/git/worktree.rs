//! Worktrees: listing them, making them, and locking the ones that a worker lives in.
//!
//! Many are made at once. Only the registration is done under the repository's lock (it takes milliseconds, and git
//! itself is not safe there); the files are checked out beside each other. A creation that fails is undone exactly:
//! what was there before, a branch or an empty folder, stays. Removing is [`super::remove`]'s.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::check::{self, Place, Plan, Request};
use super::command::{CommandError, Git};
use super::in_place::{PlaceError, put_in_place};
use super::include::{self, Copied, IncludeError, Included};
use super::reflog_only::own_git_dir;
use super::repository::{Repository, RepositoryError, branch_commit};
use super::status::git_dir;
use super::{names, refs, submodules};
use crate::mission::hint::{Hint, Hinted};
use record::Made;
pub(super) use record::link;

mod record;

/// More at once only makes the disk busier (measured: two threads on two cores halve the time, more do not help).
const MOST_CHECKOUTS_AT_ONCE: usize = 4;

/// In git's own folder of a worktree that we made: what we made, so that its removal can tell copies of ours that were
/// changed. It goes with the worktree.
pub(super) const MADE_FILE: &str = "orchestrator-boss.json";

/// In the log of a branch that we made.
const BRANCH_MESSAGE: &str = "branch: created for a worktree";

/// Hides our own folder, with the worktrees in it.
const OWN_FOLDER_PATTERN: &str = ".orchestrator/";

#[derive(Debug, thiserror::Error)]
pub enum WorktreeError {
    #[error(transparent)]
    Git(#[from] CommandError),
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    #[error(transparent)]
    Include(#[from] IncludeError),
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error("cannot use {branch:?} as a branch name: git does not allow it")]
    InvalidBranch { branch: String },
    #[error("cannot create branch {branch}: git stores branches as paths, and branch {existing} is in its way")]
    BranchInTheWay { branch: String, existing: String },
    #[error("cannot use branch {branch}: it is already checked out in {}", path.display())]
    BranchInUse { branch: String, path: PathBuf },
    #[error("cannot start branch {branch} at {base}: it already exists, at {commit}")]
    BranchExists { branch: String, commit: String, base: String },
    #[error("cannot create branch {branch} at {base}: the remote {remote} has a branch of that name, at {commit}")]
    RemoteHasBranch { branch: String, remote: String, commit: String, base: String },
    #[error("cannot use {branch:?} as a branch name: it is the full name of {what}")]
    NotABranch { branch: String, what: &'static str, instead: Vec<Hint> },
    #[error("cannot use {path:?} as the place of a worktree: {why}")]
    InvalidPath { path: PathBuf, why: &'static str },
    #[error(
        "cannot create a worktree at {}: it is neither inside {} nor beside it",
        path.display(),
        root.display()
    )]
    PathOutside { path: PathBuf, root: PathBuf },
    #[error("cannot create a worktree at {}: it lies inside the worktree {}", path.display(), worktree.display())]
    PathInWorktree { path: PathBuf, worktree: PathBuf },
    #[error("cannot create a worktree at {}: the path is not free", path.display())]
    PathTaken { path: PathBuf },
    #[error("cannot create a worktree at {}: git still records one there whose folder is gone", path.display())]
    PathRegistered { path: PathBuf },
    #[error("cannot remove the verification worktree {}", path.display())]
    RemoveVerificationTree { path: PathBuf, source: io::Error },
    #[error("cannot create the folder {} for worktrees", path.display())]
    MakeFolder { path: PathBuf, source: io::Error },
    #[error("cannot write {}", path.display())]
    Remember { path: PathBuf, source: io::Error },
    #[error("cannot read {}", path.display())]
    ReadPath { path: PathBuf, source: io::Error },
    #[error("cannot find a worktree at {}: it is not among the worktrees here ({})", path.display(), known.join(", "))]
    NotAWorktree { path: PathBuf, known: Vec<String> },
    #[error("cannot undo the failed creation of the worktree {} ({cause})", path.display())]
    Undo { path: PathBuf, cause: Box<WorktreeError>, source: Box<WorktreeError> },
}

impl Hinted for WorktreeError {
    fn hints(&self) -> Vec<Hint> {
        let another_name = || Hint::to("choose another name");
        let another_path = || Hint::to("choose another path");
        let no_base = || Hint::to("leave out `base` to continue it");
        match self {
            Self::Git(error) => error.hints(),
            Self::Repository(error) => error.hints(),
            Self::Include(error) => error.hints(),
            Self::Place(error) => error.hints(),
            Self::InvalidBranch { .. } => vec![Hint::to("use letters, digits, `-`, `_`, `.` and `/`")],
            Self::BranchInTheWay { .. } => vec![another_name()],
            Self::BranchInUse { path, .. } => vec![another_name(), Hint::RemoveWorktree(path.display().to_string())],
            Self::BranchExists { .. } | Self::RemoteHasBranch { .. } => vec![no_base(), another_name()],
            Self::NotABranch { instead, .. } => instead.clone(),
            Self::PathOutside { .. } => vec![another_path(), Hint::Set("worktree_roots")],
            Self::PathTaken { .. } => vec![another_path()],
            Self::PathRegistered { path } => vec![Hint::RemoveWorktree(path.display().to_string())],
            Self::MakeFolder { .. } => vec![Hint::Set("worktrees_dir")],
            Self::Undo { cause, source, .. } => [cause.hints(), source.hints()].concat(),
            Self::InvalidPath { .. }
            | Self::PathInWorktree { .. }
            | Self::RemoveVerificationTree { .. }
            | Self::Remember { .. }
            | Self::ReadPath { .. }
            | Self::NotAWorktree { .. } => Vec::new(),
        }
    }
}

/// A worktree that we made.
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
}

/// A worktree that git knows, the main one first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listed {
    pub path: PathBuf,
    /// `None` for a bare repository and before the first commit.
    pub head: Option<String>,
    /// `None` when HEAD is detached.
    pub branch: Option<String>,
    pub bare: bool,
    /// The reason given when it was locked, maybe empty.
    pub locked: Option<String>,
    /// Its folder is gone.
    pub missing: bool,
}

/// All worktrees of a repository, the main one (or the bare repository) first.
pub fn list(repo: &Repository) -> Result<Vec<Listed>, CommandError> {
    refs::worktrees(repo).map_or_else(|| ask_list(repo), Ok)
}

/// The same, by the git program.
pub(super) fn ask_list(repo: &Repository) -> Result<Vec<Listed>, CommandError> {
    let records = patiently(|| repo.read().args(["worktree", "list", "--porcelain", "-z"]).run())?;
    Ok(parse_list(&records))
}

/// Runs a command again while a worktree of the repository is half created. Git then fails with `failed to read
/// …/commondir: Success` (seen with git 2.47). This program's own creations hold the lock, but a user's git does not,
/// nor does a creation whose server was killed.
pub(super) fn patiently<T>(command: impl Fn() -> Result<T, CommandError>) -> Result<T, CommandError> {
    const PAUSE: Duration = Duration::from_millis(20);
    const TRIES: usize = 100;
    for _ in 0..TRIES {
        match command() {
            Err(CommandError::Failed { stderr, .. }) if stderr.contains("commondir") => thread::sleep(PAUSE),
            result => return result,
        }
    }
    command()
}

/// Creates a worktree and fills it. With `lock_reason`, it is locked against pruning and removal from the first moment.
pub fn create(repo: &Repository, request: &Request, lock_reason: Option<&str>) -> Result<Worktree, WorktreeError> {
    let plan = check::check(repo, request)?;
    hide(repo, &plan.place)?;
    let begun = register(repo, &plan, lock_reason)?;
    let filled = set_upstream(repo, &plan).and_then(|()| fill(repo, &begun.path)).and_then(|included| {
        let made = Worktree {
            path: begun.path.clone(),
            branch: plan.branch.clone(),
            base_commit: plan.base_commit.clone(),
            created_branch: plan.new_branch,
            repo_path: repo.root().to_owned(),
            copies: included.copied,
            not_copied: included.skipped,
        };
        remember(&made)?;
        Ok(made)
    });
    filled.or_else(|cause| {
        let _lock = repo.lock()?;
        Err(undo(repo, &plan, &begun, cause))
    })
}

/// Sets the upstream of a branch that only a remote had.
fn set_upstream(repo: &Repository, plan: &Plan) -> Result<(), WorktreeError> {
    let Some(remote) = &plan.from_remote else { return Ok(()) };
    let _lock = repo.lock()?;
    Ok(names::track(repo, &plan.branch, &remote.full_name)?)
}

pub(super) fn remember(made: &Worktree) -> Result<(), WorktreeError> {
    let path = git_dir(&made.path)?.join(MADE_FILE);
    let text = serde_json::to_vec(made).expect("paths, names and ids are JSON");
    fs::write(&path, text).map_err(|source| WorktreeError::Remember { path, source })
}

/// Returns the record of a worktree that this program created; `None` for any other worktree.
pub fn made_by_us(repo: &Repository, worktree: &Path) -> Option<Worktree> {
    let record = fs::read(own_git_dir(repo, worktree)?.join(MADE_FILE)).ok()?;
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
    own_git_dir(repo, worktree).is_some()
}

/// Finishes an interrupted creation in which git already had the worktree, but not all of its files. If all files are
/// there, they may have been changed, so nothing is overwritten. Git writes the index last, so its presence is the
/// criterion.
pub fn refill(repo: &Repository, path: &Path) -> Result<Worktree, WorktreeError> {
    let found = find(repo, path)?;
    if let Some(record) = own_git_dir(repo, &found.path) {
        record::link(&found.path, &record)
            .map_err(|source| WorktreeError::Remember { path: found.path.join(".git"), source })?;
    }
    let included = match git_dir(&found.path)?.join("index").exists() {
        true => {
            put_in_place(repo, &found.path)?;
            come_along(repo, &found.path)?
        }
        false => fill(repo, &found.path)?,
    };
    let made = Worktree {
        base_commit: found.head.unwrap_or_default(),
        branch: found.branch.unwrap_or_default(),
        path: found.path,
        created_branch: false,
        repo_path: repo.root().to_owned(),
        copies: included.copied,
        not_copied: included.skipped,
    };
    remember(&made)?;
    Ok(made)
}

/// Keeps a worktree from being removed or pruned, by us or by anybody else's git, until [`unlock`].
pub fn lock(repo: &Repository, path: &Path, reason: &str) -> Result<(), WorktreeError> {
    let _lock = repo.lock()?;
    let found = find(repo, path)?;
    // Somebody else's lock keeps it as well.
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

/// Takes back [`lock`]. Unlocking twice is harmless.
pub fn unlock(repo: &Repository, path: &Path) -> Result<(), WorktreeError> {
    let _lock = repo.lock()?;
    let found = find(repo, path)?;
    if found.locked.is_none() {
        return Ok(());
    }
    repo.write().args(["worktree", "unlock", "--"]).arg(&found.path).run()?;
    Ok(())
}

/// The worktree at `path`, which may be relative to the repository's root or lead through symbolic links.
pub(super) fn find(repo: &Repository, path: &Path) -> Result<Listed, WorktreeError> {
    let wanted = check::resolve(repo, path)?;
    let worktrees = list(repo)?;
    let known = || worktrees.iter().map(|w| w.path.display().to_string());
    let found =
        worktrees.iter().find(|listed| listed.path == wanted || listed.path.canonicalize().is_ok_and(|p| p == wanted));
    found.cloned().ok_or_else(|| WorktreeError::NotAWorktree { path: wanted.clone(), known: known().collect() })
}

/// Keeps a worktree that lies inside the main one from showing up there as untracked files.
fn hide(repo: &Repository, place: &Place) -> Result<(), WorktreeError> {
    let Some(main) = &repo.main_worktree else {
        return Ok(());
    };
    let path = match place {
        Place::Given(path) => path,
        Place::Default { folder, .. } => folder,
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

/// A gitignore pattern for exactly one folder.
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

/// The state before a creation began, so that exactly the creation can be undone.
struct Begun {
    path: PathBuf,
    path_existed: bool,
    /// True if this creation registered the worktree with git. A worktree that another process registered is not
    /// removed.
    registered: bool,
    /// The outermost folder that the creation has to make.
    first_new_folder: PathBuf,
}

/// Creates the branch and git's record of the worktree, under the lock against parallel creations.
fn register(repo: &Repository, plan: &Plan, lock_reason: Option<&str>) -> Result<Begun, WorktreeError> {
    let _lock = repo.lock()?;
    let path = match &plan.place {
        Place::Given(path) => path.clone(),
        Place::Default { folder, gone } => check::free_path(folder, gone, &plan.branch),
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
    let mut begun = Begun { path_existed, first_new_folder, registered: false, path };
    let branch = record::Branch { name: &plan.branch, commit: &plan.base_commit, message: BRANCH_MESSAGE };
    let usual = record::Usual::of(repo).filter(|_| plan.new_branch);
    let made = usual.map_or(Made::Nothing, |usual| usual.make(&begun.path, &branch, lock_reason));
    if plan.new_branch && made == Made::Nothing {
        restore_folders(&begun);
        create_branch(repo, plan)?;
        // Git would make it readable by everybody.
        make_folder()?;
    }
    let added = if made == Made::Both { Ok(()) } else { add(repo, plan, &begun.path, lock_reason) };
    match added {
        Ok(()) => {
            begun.registered = true;
            Ok(begun)
        }
        Err(cause) => Err(undo(repo, plan, &begun, cause.into())),
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
    match branch_commit(repo.root(), &plan.branch)? {
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
    Git::write(path).args(["reset", "--hard", "--quiet", "--no-recurse-submodules"]).run()?;
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
fn undo(repo: &Repository, plan: &Plan, begun: &Begun, cause: WorktreeError) -> WorktreeError {
    match try_undo(repo, plan, begun) {
        Ok(()) => cause,
        Err(source) => {
            WorktreeError::Undo { path: begun.path.clone(), cause: Box::new(cause), source: Box::new(source) }
        }
    }
}

fn try_undo(repo: &Repository, plan: &Plan, begun: &Begun) -> Result<(), WorktreeError> {
    if begun.registered {
        // Forced twice because it may be locked, by us.
        repo.write().args(["worktree", "remove", "--force", "--force", "--"]).arg(&begun.path).run()?;
    }
    restore_folders(begun);
    if plan.new_branch {
        // Only where it still stands where we put it.
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

/// Removes only folders that are empty and that we made; one that somebody else has begun to use stays.
fn restore_folders(begun: &Begun) {
    if begun.path_existed {
        let _ = fs::create_dir(&begun.path);
        return;
    }
    for folder in begun.path.ancestors() {
        if !folder.starts_with(&begun.first_new_folder) || fs::remove_dir(folder).is_err() && folder.exists() {
            break;
        }
    }
}

fn first_missing(path: &Path) -> &Path {
    path.ancestors().take_while(|folder| !folder.exists()).last().unwrap_or(path)
}

/// The id that stands for "no object", in the length of the repository's ids.
pub(super) fn zero_id(like: &str) -> String {
    "0".repeat(like.len())
}

/// One of the few checkouts that run at the same time in this process.
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

/// Attributes end with NUL, worktrees with one NUL more.
fn parse_list(records: &[u8]) -> Vec<Listed> {
    let mut worktrees = Vec::new();
    for record in records.split(|byte| *byte == 0) {
        let (name, value) = match record.iter().position(|byte| *byte == b' ') {
            Some(space) => (&record[..space], &record[space + 1..]),
            None => (record, &[][..]),
        };
        if name == b"worktree" {
            worktrees.push(Listed { path: PathBuf::from(OsStr::from_bytes(value)), ..Listed::default() });
        }
        let Some(current) = worktrees.last_mut() else {
            continue;
        };
        let text = || String::from_utf8_lossy(value).into_owned();
        match name {
            b"HEAD" => current.head = Some(text()).filter(|id| *id != zero_id(id)),
            b"branch" => current.branch = text().strip_prefix("refs/heads/").map(str::to_owned),
            b"bare" => current.bare = true,
            b"locked" => current.locked = Some(text()),
            _ => {}
        }
    }
    for worktree in &mut worktrees {
        // Git's own `prunable` mark is not given for a locked worktree.
        worktree.missing = !worktree.path.exists();
    }
    worktrees
}

#[cfg(test)]
mod tests;
