//! Clones for confined workers: while a worker's processes run, the `.git` of its worktree is a repository of its own,
//! which borrows the objects of the user's repository (`objects/info/alternates`). So the worker can do everything that
//! git can do, and the user's repository stays out of its reach.
//!
//! The worktree is registered in the user's repository as any other, and the record of it there is always ours: no
//! worker can write it. [`enter`] puts the clone in the place of the worktree's `.git` file, and [`bring_back`] takes it
//! away as a whole, fetches what the worker made, and brings HEAD, the index and unfinished operations into the record.
//! The rest of this room therefore finds a usual linked worktree. Both exchange the two names in one step, and can be
//! repeated after a crash at any point: the record's folder [`CLONE_FOLDER`] shows how far it got.
//!
//! A clone that a worker has used is untrusted. Git never runs in it: no configuration, hook or attribute of it is
//! read. Its refs and its index are copied as data, without following links, into a repository with a configuration of
//! ours (`fetch.rs`), and git reads its objects from there.
//!
//! Refs that it has beyond the worker's branch are kept as `refs/orchestrator/clones/<worker>/…`, and are put back into
//! the next clone (`make.rs`).

mod copy;
mod fetch;
mod make;
mod refusal;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde::{Deserialize, Serialize};

use super::command::CommandError;
use super::in_place::check_in_place;
use super::layout::{BORROWED_REFS, CLONE_FOLDER, NOT_BORROWED, own_git_dir, own_records};
use super::list::patiently;
use super::repository::Repository;
use crate::crash_point::{self, Point};
use crate::mission::hint::{Hint, Hinted};
pub use refusal::refusal;

/// Prefixes of the refs for clones. Each is followed by the name of a worker.
///
/// Other refs of a clone than the worker's branch, under their names there without `refs/`.
const HELD: &str = "refs/orchestrator/clones/";
/// Beginning of the names of those that keep commits of worktrees that it had.
const NESTED: &str = "nested/";
/// The stashes that it held.
const STASHED: &str = "refs/orchestrator/stashes/";
/// The commit that protects the borrowed objects. It keeps no work of a worker.
const BORROWED: &str = BORROWED_REFS;
/// Commits on their way from it.
const ARRIVING: &str = "refs/orchestrator/arriving/";

#[derive(Debug, thiserror::Error)]
pub enum CloneError {
    #[error(transparent)]
    Git(#[from] CommandError),
    #[error("cannot make a clone for the worker: {why}")]
    Refused { why: String },
    #[error("cannot write {} for the worker's clone", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot read {} of the worker's clone", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot fetch commit {commit} from the worker's clone {}", clone.display())]
    Fetch { commit: String, clone: PathBuf, source: Box<CommandError> },
}

impl Hinted for CloneError {
    fn hints(&self) -> Vec<Hint> {
        match self {
            Self::Git(error) => error.hints(),
            Self::Refused { .. } => vec![Hint::Set("confine_git")],
            Self::Write { .. } | Self::Read { .. } => vec![Hint::to("check the disk and its permissions")],
            Self::Fetch { clone, .. } => {
                vec![Hint::to(format!("copy what is readable from {}, then delete it", clone.display()))]
            }
        }
    }
}

/// The result of taking a clone away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Returned {
    /// Everything that the worker made was fetched, or there was no clone.
    Complete,
    /// The worker deleted it.
    Deleted,
}

impl Returned {
    pub fn note(self) -> Option<&'static str> {
        let deleted = "it deleted the repository in its worktree: its commits of that turn are gone, its files are not";
        (self == Self::Deleted).then_some(deleted)
    }
}

/// The clone of a worktree, as it was when it was made.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    /// Name of the worker, for the refs that keep what the clone holds.
    name: String,
    branch: String,
    /// Content of the worktree's `.git` file.
    link: String,
    /// The refs that it was given, by their full names.
    refs: BTreeMap<String, String>,
    /// Hashes of the files that it was given. The worker's own versions are given to the next clone.
    files: BTreeMap<String, String>,
}

/// The paths of one worktree and of its clone.
struct Place<'a> {
    repo: &'a Repository,
    worktree: &'a Path,
    /// Git's folder for the worktree, in the user's repository.
    own: PathBuf,
}

impl Place<'_> {
    fn of<'a>(repo: &'a Repository, worktree: &'a Path) -> Option<Place<'a>> {
        let own = own_git_dir(&repo.common_dir, worktree)?;
        Some(Place { repo, worktree, own: own.canonicalize().ok()? })
    }

    fn folder(&self) -> PathBuf {
        self.own.join(CLONE_FOLDER)
    }

    /// The clone while it is not in the worktree. While it is there, the worktree's `.git` file is here.
    fn aside(&self) -> PathBuf {
        self.folder().join("git")
    }

    /// Files of the worker's former clone, for its next one.
    fn kept(&self) -> PathBuf {
        self.folder().join("kept")
    }

    fn dot_git(&self) -> PathBuf {
        self.worktree.join(".git")
    }

    fn record_file(&self) -> PathBuf {
        self.folder().join("record.json")
    }

    fn record(&self) -> Result<Option<Record>, CloneError> {
        let path = self.record_file();
        match fs::read(&path) {
            Ok(text) => match serde_json::from_slice(&text) {
                Ok(record) => Ok(Some(record)),
                Err(error) => Err(CloneError::Read { path, source: error.into() }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(CloneError::Read { path, source }),
        }
    }

    /// Refuses a folder that a worker which shares the `.git` has replaced: nothing is written through its links.
    fn check(&self) -> Result<(), CloneError> {
        let worktrees = self.repo.common_dir.join("worktrees").canonicalize().ok();
        if worktrees.as_deref() == self.own.parent() && !has_link(&self.folder()) && !has_link(&self.kept()) {
            return Ok(());
        }
        let source = io::Error::new(io::ErrorKind::InvalidData, "a symbolic link is in its place");
        Err(CloneError::Read { path: self.folder(), source })
    }

    /// Exchanges the clone and the worktree's `.git` file.
    fn exchange(&self) -> Result<(), CloneError> {
        let (aside, dot_git) = (self.aside(), self.dot_git());
        let exchanged = match renameat_with(CWD, &aside, CWD, &dot_git, RenameFlags::EXCHANGE) {
            // It was deleted.
            Err(_) if dot_git.symlink_metadata().is_err() => fs::rename(&aside, &dot_git),
            // Not every file system can exchange two names.
            Err(_) => self.exchange_in_steps(&aside, &dot_git),
            Ok(()) => Ok(()),
        };
        exchanged.map_err(|source| CloneError::Write { path: dot_git, source })
    }

    fn exchange_in_steps(&self, aside: &Path, dot_git: &Path) -> io::Result<()> {
        let between = self.folder().join("between");
        fs::rename(aside, &between)?;
        fs::rename(dot_git, aside)?;
        fs::rename(&between, dot_git)
    }
}

/// Replaces the `.git` file of a worker's worktree by a clone. No process of the worker may run. `name` is the worker's.
pub fn enter(repo: &Repository, worktree: &Path, branch: &str, name: &str) -> Result<(), CloneError> {
    bring_back(repo, worktree)?;
    if let Some(why) = refusal(repo, worktree)? {
        return Err(CloneError::Refused { why });
    }
    let replaced = || CloneError::Refused { why: "git has no record of its worktree".to_owned() };
    let place = Place::of(repo, worktree).ok_or_else(replaced)?;
    let is_file = place.dot_git().symlink_metadata().is_ok_and(|kind| kind.is_file());
    if !is_file || check_in_place(repo, worktree).is_err() {
        return Err(replaced());
    }
    let link = fs::read_to_string(place.dot_git()).map_err(|_| replaced())?;
    let record = make::make(&place, branch, name, link)?;
    write_record(&place, &record)?;
    crash_point::at(Point::CloneMade);
    place.exchange()?;
    crash_point::at(Point::CloneEntered);
    Ok(())
}

fn write_record(place: &Place, record: &Record) -> Result<(), CloneError> {
    let (new, file) = (place.folder().join("record.new"), place.record_file());
    write(&new, &serde_json::to_vec(record).expect("names and ids are JSON"))?;
    fs::rename(&new, &file).map_err(|source| CloneError::Write { path: file, source })
}

/// Takes the clone of a worktree away, if there is one, and fetches what the worker made in it. No process of the worker
/// may run. Does nothing in any other worktree.
pub fn bring_back(repo: &Repository, worktree: &Path) -> Result<Returned, CloneError> {
    let is_there = |place: &Place| place.folder().symlink_metadata().is_ok();
    let Some(place) = Place::of(repo, worktree).filter(is_there) else { return Ok(Returned::Complete) };
    place.check()?;
    let between = place.folder().join("between");
    if between.symlink_metadata().is_ok() {
        resume_exchange(&place, &between)?;
    }
    let Some(record) = place.record()? else {
        if let Ok(name) = fs::read_to_string(place.folder().join("name")) {
            make::stop_borrowing(repo, &name)?;
        }
        return remove(&place.aside()).map(|()| Returned::Complete);
    };
    let (aside, dot_git) = (place.aside(), place.dot_git());
    let is_link = |path: &Path| {
        let is_file = path.symlink_metadata().is_ok_and(|kind| kind.is_file());
        is_file && fs::read_to_string(path).is_ok_and(|text| text == record.link)
    };
    // Without its folder, the worktree is gone, and the clone with it.
    let is_there = place.worktree.is_dir();
    if is_there && is_link(&aside) && !is_link(&dot_git) {
        place.exchange()?;
    }
    crash_point::at(Point::CloneTaken);
    if is_there && dot_git.symlink_metadata().is_err() {
        write(&dot_git, record.link.as_bytes())?;
    }
    // Anything else was put there by the worker.
    let is_deleted = !aside.symlink_metadata().is_ok_and(|kind| kind.is_dir());
    if !is_deleted {
        fetch::fetch(&place, &record)?;
    }
    crash_point::at(Point::CloneFetched);
    finish(&place, &record)?;
    Ok(if is_deleted { Returned::Deleted } else { Returned::Complete })
}

/// Completes an exchange in steps that was interrupted. What is in between belongs into the worktree.
fn resume_exchange(place: &Place, between: &Path) -> Result<(), CloneError> {
    let (aside, dot_git) = (place.aside(), place.dot_git());
    let resume = || {
        if aside.symlink_metadata().is_err() && dot_git.symlink_metadata().is_ok() {
            fs::rename(&dot_git, &aside)?;
        }
        fs::rename(between, &dot_git)
    };
    resume().map_err(|source| CloneError::Write { path: dot_git.clone(), source })
}

/// Removes a clone of which everything was fetched. From the removal of its record on, it counts as gone.
fn finish(place: &Place, record: &Record) -> Result<(), CloneError> {
    make::stop_borrowing(place.repo, &record.name)?;
    let file = place.record_file();
    fs::remove_file(&file).map_err(|source| CloneError::Write { path: file, source })?;
    remove(&place.aside())
}

/// Returns whether a ref keeps something of a clone, and the ref's name in it.
pub(super) fn name_in_clone(full_name: &str) -> Option<String> {
    let (_, name) = full_name.strip_prefix(HELD)?.split_once('/')?;
    Some(format!("refs/{name}"))
}

/// Returns the name of the worker that had clones in this worktree.
pub(super) fn worker_of(repo: &Repository, worktree: &Path) -> Option<String> {
    fs::read_to_string(own_records(&repo.common_dir, worktree)?.join(CLONE_FOLDER).join("name")).ok()
}

/// Returns the commits of worktrees that the worker's clones had.
pub(super) fn nested(repo: &Repository, worktree: &Path) -> Result<Vec<String>, CommandError> {
    let Some(name) = worker_of(repo, worktree) else { return Ok(Vec::new()) };
    let listed = ["for-each-ref", "--format=%(objectname)", &format!("{HELD}{name}/{NESTED}")];
    Ok(repo.read().args(listed).text()?.lines().map(str::to_owned).collect())
}

/// Returns the stashes that the worker's clones had, each with its message.
pub(super) fn stashes(repo: &Repository, worktree: &Path) -> Result<Vec<(String, String)>, CommandError> {
    let Some(name) = worker_of(repo, worktree) else { return Ok(Vec::new()) };
    let format = "--format=%(objectname) %(subject)";
    let listed = repo.read().args(["for-each-ref", format, &format!("{STASHED}{name}/")]).text()?;
    let parts = listed.lines().filter_map(|line| line.split_once(' '));
    Ok(parts.map(|(id, subject)| (id.to_owned(), subject.to_owned())).collect())
}

/// Returns the tags that the worker's clones had and that the user has not taken, each with its object.
pub(super) fn tags(repo: &Repository, worktree: &Path) -> Result<Vec<(String, String)>, CommandError> {
    worker_of(repo, worktree).map_or_else(|| Ok(Vec::new()), |name| tags_of(repo, &name))
}

fn tags_of(repo: &Repository, name: &str) -> Result<Vec<(String, String)>, CommandError> {
    let held = format!("{HELD}{name}/tags/");
    let format = "--format=%(objectname) %(refname)";
    let listed = repo.read().args(["for-each-ref", format, &held, "refs/tags/"]).text()?;
    let (ours, taken): (Vec<_>, Vec<_>) =
        listed.lines().filter_map(|line| line.split_once(' ')).partition(|(_, name)| name.starts_with(&held));
    let is_taken = |id: &str| taken.iter().any(|(other, _)| *other == id);
    let open = ours.into_iter().filter(|(id, _)| !is_taken(id));
    Ok(open.map(|(id, name)| (name[held.len()..].to_owned(), id.to_owned())).collect())
}

/// Returns the texts of these tags, from which git can make them again, and their commits.
fn texts(repo: &Repository, tags: &[(String, String)]) -> (String, Vec<String>) {
    let text = |(name, id): &(String, String)| {
        // One without a text of its own is only a name.
        let text = repo.read().args(["cat-file", "tag", id]).text();
        text.unwrap_or_else(|_| format!("object {id}\ntype commit\ntag {name}"))
    };
    let commit = |(_, id): &(String, String)| repo.read().args(["rev-parse", &format!("{id}^{{commit}}")]).text().ok();
    (tags.iter().map(|tag| format!("\n\n{}", text(tag))).collect(), tags.iter().filter_map(commit).collect())
}

/// Deletes the refs for the clones of a removed worktree. Work that exists nowhere else gets a salvage ref. A tag is kept
/// as a text in its message.
pub(super) fn retire(repo: &Repository, name: &str) -> Result<Option<super::SalvageRef>, super::SalvageError> {
    let prefixes = [HELD, STASHED].map(|prefix| format!("{prefix}{name}/"));
    let listed = repo.read().args(["for-each-ref", "--format=%(refname)"]).args(&prefixes).text()?;
    if listed.is_empty() {
        return Ok(None);
    }
    let held = ["rev-list", "--no-walk=unsorted", "--ignore-missing"];
    let held = repo.read().args(held).args(prefixes.iter().map(|prefix| format!("--glob={prefix}*"))).text()?;
    let except = prefixes.iter().map(|prefix| format!("--exclude={prefix}*"));
    let only_there = repo.read().args(["rev-list", "--topo-order", "--parents", "--stdin", "--not"]).args(except);
    let only_there = only_there.args([NOT_BORROWED, "--glob=refs/"]).input(held).text()?;
    let mut commits = super::reflog_only::without_children(&only_there);
    let (texts, tagged) = texts(repo, &tags_of(repo, name)?);
    let new = tagged.into_iter().filter(|commit| !commits.contains(commit)).collect::<BTreeSet<_>>();
    commits.extend(new);
    let why = format!("what was only in the clone of a worker{texts}");
    let salvaged = super::salvage::keep_all(repo, name, &commits, &why)?;
    change_refs(repo, &listed.lines().map(|name| format!("delete {name}\n")).collect::<String>())?;
    Ok(salvaged)
}

/// Deletes the refs of the clones of a worktree, so that they borrow and keep nothing.
pub(super) fn give_up(repo: &Repository, worktree: &Path) -> Result<(), CommandError> {
    let Some(name) = worker_of(repo, worktree) else { return Ok(()) };
    [HELD, STASHED, BORROWED, ARRIVING].iter().try_for_each(|prefix| delete_refs(repo, &format!("{prefix}{name}")))
}

/// Deletes all refs below a prefix.
fn delete_refs(repo: &Repository, prefix: &str) -> Result<(), CommandError> {
    change_refs(repo, &repo.read().args(["for-each-ref", "--format=delete %(refname)", prefix]).text()?)
}

/// Changes refs by lines for `git update-ref --stdin`. Other processes may hold the lock of all refs for a moment.
fn change_refs(repo: &Repository, lines: &str) -> Result<(), CommandError> {
    if lines.is_empty() {
        return Ok(());
    }
    patiently(|| repo.write().args(["update-ref", "--stdin"]).input(format!("{}\n", lines.trim_end())).run()).map(drop)
}

/// Returns whether a path is a link, or one below it. The clone itself is data, and may have any.
fn has_link(path: &Path) -> bool {
    let Ok(kind) = path.symlink_metadata() else { return false };
    if !kind.is_dir() {
        return kind.is_symlink();
    }
    let is_data = |name: &std::ffi::OsStr| ["git", "reader", "between"].iter().any(|it| name == *it);
    let entries = fs::read_dir(path).into_iter().flatten().flatten().filter(|entry| !is_data(&entry.file_name()));
    entries.map(|entry| entry.path()).any(|path| has_link(&path))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), CloneError> {
    let failed = |source| CloneError::Write { path: path.to_owned(), source };
    let _ = fs::remove_file(path);
    let written = File::create_new(path).and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
    written.map_err(failed)
}

/// Removes a file, a link or a folder.
fn remove(path: &Path) -> Result<(), CloneError> {
    let removed = match path.symlink_metadata() {
        Ok(kind) if kind.is_dir() => remove_folder(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => Ok(()),
    };
    removed.map_err(|source| CloneError::Write { path: path.to_owned(), source })
}

/// Removes a folder, also if a worker has made folders in it unwritable.
fn remove_folder(path: &Path) -> io::Result<()> {
    fs::remove_dir_all(path).or_else(|_| {
        copy::make_writable(path);
        fs::remove_dir_all(path)
    })
}

#[cfg(test)]
mod tests;
