//! State that an earlier version of orchestrator-boss wrote in an older format. It is never read. Once no process uses
//! it any more, its files move into a folder of their own in the state directory, and a new journal begins. Branches,
//! worktrees, salvage refs and the record of the user's git configuration stay where they are.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::error::JournalError;
use super::lock;
use super::segment;
use crate::attempt::launch;
use crate::attempt::state_dir::StateDir;
use crate::files::{self, FileError, lease};
use crate::mission::entry::OLDEST_FORMAT;
use crate::mission::id::WorkerId;
use crate::mission::registry::Registry;

/// Beginning of the name of a folder that holds state of a former format.
const SET_ASIDE: &str = "set-aside-format-";

/// The files and folders that move, besides the journal's segments.
const FILES: [&str; 7] =
    ["workers", "servers", "integrations", "verifications", "bases", "history.jsonl", "orchestrator-state.json"];

/// The names of branches, worktrees and salvage refs that stay when the state is set aside.
#[derive(Debug, Clone, Default)]
pub struct Remains {
    pub branches: Vec<String>,
    pub worktrees: Vec<String>,
    pub salvage_refs: Vec<String>,
}

/// Returns an error if the state directory holds state of a former format.
pub fn refuse(dir: &StateDir) -> Result<(), JournalError> {
    match format(dir) {
        Some(found) if found < u64::from(OLDEST_FORMAT) => {
            Err(JournalError::Former { path: dir.root().to_owned(), found: found as u32 })
        }
        _ => Ok(()),
    }
}

/// Sets state of a former format aside and begins the journal anew, with a notice of it. Worker ids continue above
/// every number that the former workers or `remains` carry. Returns whether there was any such state.
pub fn set_aside(dir: &StateDir, remains: impl FnOnce() -> Remains) -> Result<bool, JournalError> {
    if refuse(dir).is_ok() {
        return Ok(false);
    }
    // Servers of this version that start at the same time wait here.
    let _lock = lock::take(&dir.journal())?;
    let Some(found) = format(dir).filter(|found| *found < u64::from(OLDEST_FORMAT)) else { return Ok(false) };
    let in_use = in_use(dir);
    if !in_use.is_empty() {
        return Err(JournalError::FormerInUse {
            path: dir.root().to_owned(),
            found: found as u32,
            by: in_use.join(", "),
        });
    }
    let remains = remains();
    let aside = folder_for(dir, found)?;
    let newest = segment::newest(&dir.journal())?.unwrap_or(0);
    link_segments(&dir.journal(), &aside.join("journal"))?;
    for name in FILES {
        rename(&dir.root().join(name), &aside.join(name))?;
    }
    // This is what completes it: until here, the next start repeats what is missing.
    let notice = notice(found, &aside, &remains);
    let begun = Registry::begin(last_number(dir, &remains), notice.clone());
    segment::write(&dir.journal(), newest + 1, &begun)?;
    for number in 0..=newest {
        let _ = fs::remove_file(segment::path(&dir.journal(), number));
    }
    StateDir::open(dir.root())?;
    tracing::warn!("{notice}");
    Ok(true)
}

/// Returns the ids of the workers in all folders that were set aside.
pub fn former_workers(dir: &StateDir) -> Vec<WorkerId> {
    let is_aside = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(SET_ASIDE);
    let folders = entries(dir.root()).filter(is_aside);
    folders.flat_map(|folder| entries(&folder.path().join("workers"))).filter_map(|entry| worker_id(&entry)).collect()
}

#[derive(Deserialize)]
struct FormerHeader {
    #[serde(alias = "version")]
    format: u64,
}

/// Returns the format of the newest segment, or else of the state file or the history. `None` if there is none, or it
/// is damaged.
fn format(dir: &StateDir) -> Option<u64> {
    let journal = segment::newest(&dir.journal()).ok().flatten();
    let of_line = |path: &Path| {
        let text = fs::read(path).ok()?;
        serde_json::from_slice::<FormerHeader>(text.split(|byte| *byte == b'\n').next()?).ok()
    };
    let of_state = || {
        let is_file = fs::symlink_metadata(dir.state_file()).is_ok_and(|found| found.is_file());
        is_file.then(|| files::read_json::<FormerHeader>(&dir.state_file()).ok().flatten()).flatten()
    };
    let head = match journal {
        Some(newest) => of_line(&segment::path(&dir.journal(), newest)),
        None => of_state().or_else(|| of_line(&dir.history())),
    };
    head.map(|head| head.format)
}

/// Returns the names of the servers and supervisors that are alive.
fn in_use(dir: &StateDir) -> Vec<String> {
    let mut alive = Vec::new();
    for lock in entries(&dir.root().join("servers")).filter(|entry| lease::is_held(&entry.path())) {
        alive.push(format!("server {}", lock.path().file_stem().unwrap_or_default().to_string_lossy()));
    }
    for worker in entries(&dir.workers()).filter_map(|entry| worker_id(&entry)) {
        let folder = dir.worker(&worker);
        if folder.attempts().into_iter().any(|attempt| launch::may_live(&folder.attempt(attempt))) {
            alive.push(format!("worker {worker}"));
        }
    }
    for run in entries(&dir.verifications()).filter(|entry| lease::is_held(&entry.path().join("lock"))) {
        alive.push(format!("verification {}", run.file_name().to_string_lossy()));
    }
    alive
}

/// Creates the folder, or returns the one that an interrupted start began to fill.
fn folder_for(dir: &StateDir, found: u64) -> Result<PathBuf, FileError> {
    let name = |n: u32| dir.root().join(format!("{SET_ASIDE}{found}-{n}"));
    // Opening a state directory creates empty folders again.
    FILES.iter().for_each(|name| drop(fs::remove_dir(dir.root().join(name))));
    let has_room = |folder: &PathBuf| !FILES.iter().any(|it| folder.join(it).exists() && dir.root().join(it).exists());
    let folder = (1..).map(name).find(has_room).unwrap_or_else(|| name(0));
    files::make_private_dir(&folder.join("journal"))?;
    Ok(folder)
}

/// Gives the segments a second name, so that they are there at every instant. Some file systems have no links.
fn link_segments(journal: &Path, aside: &Path) -> Result<(), FileError> {
    for entry in entries(journal).filter(|entry| entry.file_name().to_string_lossy().contains(".jsonl")) {
        let (from, to) = (entry.path(), aside.join(entry.file_name()));
        if to.exists() || fs::hard_link(&from, &to).is_ok() {
            continue;
        }
        fs::copy(&from, &to).map_err(|source| FileError::write(&to, source))?;
    }
    Ok(())
}

fn rename(from: &Path, to: &Path) -> Result<(), FileError> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(FileError::write(to, error)),
        _ => Ok(()),
    }
}

fn last_number(dir: &StateDir, remains: &Remains) -> u64 {
    let Remains { branches, worktrees, salvage_refs } = remains;
    let names = branches.iter().chain(worktrees).chain(salvage_refs);
    // `orchestrator/w-3-fix`, `/repo.worktrees/w-3-fix`, `refs/orchestrator/salvage/w-3-fix`.
    let carried = names.filter_map(|name| WorkerId::number_in(name.rsplit('/').next()?));
    let workers = former_workers(dir);
    let known = workers.iter().filter_map(|id| WorkerId::number_in(id.as_str()));
    carried.chain(known).max().unwrap_or(0)
}

fn notice(found: u64, aside: &Path, remains: &Remains) -> String {
    const NAMED: usize = 10;
    let list = |what: &str, names: &[String]| {
        let more = names.len().saturating_sub(NAMED);
        let named = names.iter().take(NAMED).cloned().chain((more > 0).then(|| format!("{more} more")));
        (!names.is_empty()).then(|| format!("{what} {}", named.collect::<Vec<_>>().join(", ")))
    };
    let lists = [
        list("branches", &remains.branches),
        list("worktrees", &remains.worktrees),
        list("salvage refs", &remains.salvage_refs),
    ];
    let stays = lists.into_iter().flatten().collect::<Vec<_>>().join("; ");
    let stays = if stays.is_empty() { String::new() } else { format!("; unchanged: {stays}") };
    let aside = aside.display();
    format!("the state of an earlier version of orchestrator-boss (format {found}) was set aside in {aside}{stays}")
}

fn entries(folder: &Path) -> impl Iterator<Item = fs::DirEntry> + use<> {
    fs::read_dir(folder).into_iter().flatten().flatten()
}

fn worker_id(entry: &fs::DirEntry) -> Option<WorkerId> {
    WorkerId::from_folder(entry.file_name().to_str()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attempt::state_dir;
    use crate::mission::id::ServerId;
    use crate::store::history::History;
    use crate::store::journal::Journal;
    use crate::store::reader::Reader;
    use crate::store::state_file;

    /// State as format 2 wrote it, as far as its format shows.
    fn former_state() -> (tempfile::TempDir, StateDir) {
        let folder = tempfile::tempdir().unwrap();
        let dir = StateDir::open(&folder.path().join(state_dir::NAME)).unwrap();
        for (path, text) in [
            (segment::path(&dir.journal(), 4), "{\"format\":2,\"registry\":{\"seq\":7}}\n{\"seq\":8}\n"),
            (dir.history(), "{\"format\":2}\n"),
            (dir.state_file(), "{\n  \"version\": 2,\n  \"tasks\": []\n}"),
            (dir.root().join("git-configuration.json"), "{}"),
        ] {
            fs::write(path, text).unwrap();
        }
        fs::create_dir_all(dir.workers().join("w-9-old/attempts/1")).unwrap();
        (folder, dir)
    }

    fn remains() -> Remains {
        Remains {
            branches: vec!["orchestrator/w-12-parser".to_owned(), "main".to_owned()],
            worktrees: Vec::new(),
            salvage_refs: vec!["refs/orchestrator/salvage/w-3".to_owned()],
        }
    }

    #[test]
    fn former_state_is_set_aside_with_a_notice() {
        let (_folder, dir) = former_state();
        assert!(matches!(Reader::open(dir.root()), Err(JournalError::Former { found: 2, .. })));
        assert!(matches!(Journal::open(&dir.journal(), "s".into()), Err(JournalError::Former { found: 2, .. })));
        assert!(set_aside(&dir, remains).unwrap());

        let journal = Journal::open(&dir.journal(), ServerId::from("s")).unwrap();
        assert_eq!((journal.registry().last_number, journal.registry().workers().count()), (12, 0));
        let aside = dir.root().join("set-aside-format-2-1");
        let notice = journal.registry().repaired.clone().unwrap();
        assert!(notice.contains(&aside.display().to_string()) && notice.contains("w-12-parser"), "{notice}");
        let segment = fs::read_to_string(aside.join("journal/000004.jsonl")).unwrap();
        assert!(segment.ends_with("{\"seq\":8}\n"), "{segment}");
        for name in ["history.jsonl", "orchestrator-state.json", "workers/w-9-old/attempts/1"] {
            assert!(aside.join(name).exists() && !dir.root().join(name).exists(), "{name}");
        }
        assert!(dir.root().join("git-configuration.json").exists());
        assert!(History::open(dir.history()).unwrap().is_empty());
        assert!(state_file::make_way(&dir.state_file(), jiff::Timestamp::UNIX_EPOCH).unwrap().is_none());
        assert!(!set_aside(&dir, Remains::default).unwrap());
    }

    #[test]
    fn former_state_in_use_is_refused_unchanged() {
        let (_folder, dir) = former_state();
        let locks = [dir.server_lock(&"s-old".into()), dir.workers().join("w-9-old/attempts/1/lock")];
        for (lock, name) in locks.iter().zip(["server s-old", "worker w-9-old"]) {
            let _alive = lease::take(lock).unwrap().unwrap();
            let refused = set_aside(&dir, remains).unwrap_err();
            assert!(matches!(&refused, JournalError::FormerInUse { by, .. } if by == name), "{refused}");
            assert!(dir.history().exists() && segment::path(&dir.journal(), 4).exists());
        }
        assert!(set_aside(&dir, remains).unwrap());
    }

    #[test]
    fn interrupted_start_is_completed_by_the_next() {
        let (_folder, dir) = former_state();
        let aside = folder_for(&dir, 2).unwrap();
        link_segments(&dir.journal(), &aside.join("journal")).unwrap();
        rename(&dir.workers(), &aside.join("workers")).unwrap();
        assert!(set_aside(&dir, Remains::default).unwrap());
        assert!(aside.join("history.jsonl").exists());
        let journal = Journal::open(&dir.journal(), ServerId::from("s")).unwrap();
        assert_eq!(journal.registry().last_number, 9);
    }

    #[test]
    fn lost_journal_does_not_repeat_former_numbers() {
        let (_folder, dir) = former_state();
        set_aside(&dir, Remains::default).unwrap();
        fs::remove_dir_all(dir.journal()).unwrap();
        fs::create_dir(dir.workers().join("w-1-new")).unwrap();
        let journal = Journal::open(&dir.journal(), ServerId::from("s")).unwrap();
        assert_eq!(journal.registry().last_number, 9);
    }
}
