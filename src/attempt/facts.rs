//! Changes of an attempt, read from git: for the outcome record, and for a worker whose supervisor died.

use std::path::Path;
use std::time::SystemTime;

use super::assignment::Assignment;
use crate::attempt::worker_dir::AttemptDir;
use crate::files;
use crate::git::{self, Copied, Fingerprint, Repository};
use crate::mission::hint::with_hints;
use crate::mission::outcome::{Changes, NotOnBranch, PartFiles};

/// Maximum number of paths that a record names.
const NAMED_FILES: usize = 50;
/// Maximum number of things that a record names as missing from a worktree.
const NAMED_LACKS: usize = 5;

/// Facts about the end of an attempt that are already known.
#[derive(Debug, Default)]
pub struct KnownFacts {
    /// The state before the worker's first attempt.
    pub before: Option<Fingerprint>,
    /// Parts of the work that its branch does not hold, from before a verification wrote its own files. `None` if they
    /// were not determined yet.
    pub not_on_branch: Option<Vec<NotOnBranch>>,
    /// The status of the worktree, if nothing can have changed there since it was read.
    pub status: Option<git::Status>,
}

/// Collects the changes of an attempt. Never fails: facts that cannot be determined are listed in the notes. Blocks.
pub fn changes(assignment: &Assignment, known: KnownFacts) -> Changes {
    let Some(base) = &assignment.base_commit else {
        return Changes {
            notes: vec!["not in a git repository: changes are not counted".to_owned()],
            ..Changes::default()
        };
    };
    match worktree(assignment) {
        Some(worktree) => changes_of_ours(assignment, &worktree, base, known),
        None => counted(&assignment.directory, git::changes(&assignment.checkout(), base)),
    }
}

/// A worktree that orchestrator-boss made, for this worker or at a boss's request.
struct Ours {
    repository: Repository,
    branch: String,
    copies: Vec<Copied>,
    /// See [`Assignment::prepared_at`].
    prepared_at: Option<SystemTime>,
}

/// Returns the worktree of an attempt. `None` for a user's own directory, in which the author of uncommitted files is
/// unknown.
fn worktree(assignment: &Assignment) -> Option<Ours> {
    let repository = assignment.repository.clone()?;
    if let Some(branch) = assignment.mission.place.branch().filter(|_| assignment.ours) {
        let (branch, copies) = (branch.to_owned(), assignment.copies.clone());
        return Some(Ours { repository, branch, copies, prepared_at: assignment.prepared_at.map(SystemTime::from) });
    }
    let made = git::made_by_us(&repository, &assignment.directory)?;
    Some(Ours { repository, branch: made.branch, copies: made.copies, prepared_at: None })
}

fn changes_of_ours(assignment: &Assignment, ours: &Ours, base: &str, known: KnownFacts) -> Changes {
    let (repository, directory) = (&ours.repository, &assignment.directory);
    let on_branch =
        |branch: &str| counted(directory, git::branch_changes(&repository.at(&repository.common_dir), branch, base));
    let scan = if known.not_on_branch.is_some() { git::uncommitted } else { git::uncommitted_and_ignored };
    let checked = git::check_in_place(repository, directory)
        .map_err(|error| git::not_on_branch::out_of_place(directory, &with_hints(&error)));
    let unknown = |error| git::not_on_branch::unknown(directory, &with_hints(&error));
    let status = checked.and_then(|()| known.status.map_or_else(|| scan(&assignment.checkout()).map_err(unknown), Ok));
    let status = match status {
        Ok(status) => status,
        Err(part) => {
            let parts = known.not_on_branch.unwrap_or_default().into_iter().chain([part]);
            return Changes { not_on_branch: parts.collect(), ..on_branch(&ours.branch) };
        }
    };
    let before = known.before.as_ref();
    let checked_out = status.branch.as_deref().filter(|_| status.head.is_some());
    let branch = git::not_on_branch::own_branch(&ours.branch, checked_out, before);
    let changes = if checked_out == Some(branch) {
        counted(directory, git::changes_of(&assignment.checkout(), base, &status))
    } else {
        Changes { uncommitted: status.entries.len() as u32, ..on_branch(branch) }
    };
    let parts = known.not_on_branch.unwrap_or_else(|| parts(directory, ours, base, before, None, &status));
    let unreadable = changes.not_on_branch.iter().cloned();
    let not_on_branch = parts.into_iter().chain(unreadable).collect();
    let made = git::made_by_us(repository, directory);
    let lacking = made.into_iter().flat_map(|made| made.not_copied);
    let notes = lacking.map(|what| format!("its worktree is incomplete: {what}")).take(NAMED_LACKS);
    let notes = changes.notes.iter().cloned().chain(notes).chain(appeared(assignment, ours, base, before)).collect();
    Changes { notes, not_on_branch, ..changes }
}

/// Returns a note on each worktree and branch that appeared in the repository since the worktree was made.
fn appeared(assignment: &Assignment, ours: &Ours, base: &str, before: Option<&Fingerprint>) -> Vec<String> {
    let asked = asked(&assignment.directory, ours, base, before, None);
    match git::not_on_branch::appeared(&asked, &assignment.settings.branch_prefix) {
        Ok(parts) => {
            let note = |part: NotOnBranch| format!("{} ({}); its author is unknown", part.what, part.place);
            parts.into_iter().take(NAMED_LACKS).map(note).collect()
        }
        Err(error) => vec![format!("what appeared outside its worktree is unknown: {}", with_hints(&error))],
    }
}

fn asked<'a>(
    worktree: &'a Path,
    ours: &'a Ours,
    base: &'a str,
    before: Option<&'a Fingerprint>,
    why: Option<&'a str>,
) -> git::Examined<'a> {
    let Ours { repository, branch, copies, .. } = ours;
    git::Examined { repo: repository, worktree, branch, base, copies, before, why }
}

/// Lists the parts that the branch does not hold, including ignored files if the status has them.
fn parts(
    directory: &Path,
    ours: &Ours,
    base: &str,
    before: Option<&Fingerprint>,
    why: Option<&str>,
    status: &git::Status,
) -> Vec<NotOnBranch> {
    let asked = asked(directory, ours, base, before, why);
    let ignored = git::not_on_branch::ignored(directory, &status.ignored, &ours.copies, ours.prepared_at);
    git::not_on_branch(&asked, status).into_iter().chain(ignored).collect()
}

/// Lists the parts of a worker's work that its branch does not hold. `status` is that of its worktree, and `why` the
/// reason why uncommitted changes were not committed.
pub fn not_on_branch(
    assignment: &Assignment,
    before: Option<&Fingerprint>,
    why: Option<&str>,
    status: &git::Status,
) -> Vec<NotOnBranch> {
    let Some((base, ours)) = assignment.base_commit.as_ref().zip(worktree(assignment)) else { return Vec::new() };
    parts(&assignment.directory, &ours, base, before, why, status)
}

/// Lists the parts that the branch does not hold now, after the attempt was settled. Blocks.
///
/// After a verification, untracked files count only if the outcome named uncommitted files or they are newer than the
/// settlement: the verification wrote the others. Ignored files count only if the outcome named them.
pub fn not_on_branch_now(
    assignment: &Assignment,
    before: Option<&Fingerprint>,
    settled_at: SystemTime,
    recorded: &[NotOnBranch],
) -> Vec<NotOnBranch> {
    let Some((base, ours)) = assignment.base_commit.as_ref().zip(worktree(assignment)) else { return Vec::new() };
    let verified_until = assignment.mission.verify_command.as_ref().map(|_| settled_at);
    parts_now(&assignment.directory, &ours, base, before, verified_until, recorded)
}

/// Lists the same parts for a worktree that was made at a boss's request.
pub fn not_on_branch_of(repository: &Repository, made: &git::Worktree) -> Vec<NotOnBranch> {
    let (branch, copies) = (made.branch.clone(), made.copies.clone());
    let ours = Ours { repository: repository.clone(), branch, copies, prepared_at: None };
    parts_now(&made.path, &ours, &made.base_commit, None, None, &[])
}

fn parts_now(
    directory: &Path,
    ours: &Ours,
    base: &str,
    before: Option<&Fingerprint>,
    verified_until: Option<SystemTime>,
    recorded: &[NotOnBranch],
) -> Vec<NotOnBranch> {
    if let Err(error) = git::check_in_place(&ours.repository, directory) {
        return vec![git::not_on_branch::out_of_place(directory, &with_hints(&error))];
    }
    let files = || recorded.iter().filter_map(|part| part.files.as_ref());
    let of_ignored = files().find_map(PartFiles::ignored);
    let scan = if of_ignored.is_some() { git::uncommitted_and_ignored } else { git::uncommitted };
    let mut status = match scan(&ours.repository.at(directory)) {
        Ok(status) => status,
        Err(error) => return vec![git::not_on_branch::unknown(directory, &with_hints(&error))],
    };
    if let Some(until) = verified_until.filter(|_| !files().any(|files| *files == PartFiles::Uncommitted)) {
        status.entries.retain(|entry| !entry.untracked || is_newer(&directory.join(&entry.path), until));
    }
    let ignored = std::mem::take(&mut status.ignored);
    let ignored = of_ignored.and_then(|paths| git::not_on_branch::still_ignored(directory, &ignored, paths));
    parts(directory, ours, base, before, None, &status).into_iter().chain(ignored).collect()
}

fn is_newer(path: &Path, than: SystemTime) -> bool {
    path.symlink_metadata().and_then(|it| it.modified()).is_ok_and(|modified| modified > than)
}

/// Returns the state before the first attempt of the worker that this attempt belongs to.
pub fn before(assignment: &Assignment, dir: &AttemptDir) -> Option<Fingerprint> {
    if assignment.attempt <= 1 {
        return assignment.main_checkout.clone();
    }
    let first = AttemptDir::at(dir.root().with_file_name("1"));
    let first = files::read_json::<Assignment>(&first.assignment()).ok().flatten();
    first.and_then(|first| first.main_checkout).or_else(|| assignment.main_checkout.clone())
}

/// Collects the changes of a worktree that is gone, or is cut off from its repository, from the commits on its branch.
/// `common` is the repository's git directory.
pub fn branch_changes(assignment: &Assignment, common: &Path) -> Changes {
    let directory = &assignment.directory;
    let cut_off = || git::not_on_branch::out_of_place(directory, "cannot find git's record of it");
    let not_on_branch = directory.symlink_metadata().is_ok().then(cut_off).into_iter().collect();
    match (&assignment.base_commit, assignment.mission.place.branch()) {
        (Some(base), Some(branch)) => Changes {
            not_on_branch,
            ..counted(directory, git::branch_changes(&assignment.checkout().at(common), branch, base))
        },
        _ => Changes::default(),
    }
}

/// Converts the changes to the form in which outcomes record them.
pub fn of_branch(changes: git::BranchChanges) -> Changes {
    Changes {
        branch: changes.branch,
        base_commit: Some(changes.base),
        head: Some(changes.head),
        commits: changes.commits as u32,
        files_changed: changes.files_changed as u32,
        insertions: changes.insertions as u32,
        deletions: changes.deletions as u32,
        files: changes.files.into_iter().take(NAMED_FILES).map(|file| file.path).collect(),
        uncommitted: changes.uncommitted as u32,
        ..Changes::default()
    }
}

/// Counts the changes. What git cannot read may be work, so that is a part of its own.
fn counted(directory: &Path, changes: Result<git::BranchChanges, git::RepositoryError>) -> Changes {
    match changes {
        Ok(changes) => of_branch(changes),
        Err(error) => Changes {
            notes: vec![format!("the changes are not counted: {}", with_hints(&error))],
            not_on_branch: vec![git::not_on_branch::unknown(directory, &with_hints(&error))],
            ..Changes::default()
        },
    }
}
