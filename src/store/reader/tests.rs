use std::collections::BTreeMap;
use std::fs;

use super::*;
use crate::mission::create::{Defaults, Registered, register};
use crate::mission::entry::{Entry, NewWorker};
use crate::mission::id::{BossId, ServerId};
use crate::mission::testing::draft;
use crate::store::history::HistoryRecord;
use crate::store::journal::Journal;

fn create(journal: &mut Journal, title: &str) {
    let defaults = Defaults { worktrees: Path::new("/w"), branch_prefix: "o/", integration_branch: None };
    let made = journal.transact(Timestamp::UNIX_EPOCH, |registry| {
        let made = register(registry, &BossId::from("b"), &[draft(title)], defaults);
        let Ok(Registered::New(new)) = &made[0] else { panic!("{made:?}") };
        (vec![Entry::Created { workers: vec![NewWorker::clone(new)] }], ())
    });
    made.unwrap();
}

fn journal(root: &Path) -> Journal {
    Journal::open(&root.join("journal"), ServerId::from("s")).unwrap()
}

/// Returns all files with their content.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    found
}

fn titles(reader: &Reader) -> Vec<&str> {
    reader.registry().workers().map(|worker| worker.mission.title.as_str()).collect()
}

#[test]
fn no_state_is_none_and_nothing_is_created() {
    let folder = tempfile::tempdir().unwrap();
    assert!(Reader::open(&folder.path().join("gone")).unwrap().is_none());
    assert!(Reader::open(folder.path()).unwrap().is_none());
    assert!(files(folder.path()).is_empty());
}

#[test]
fn reader_follows_servers_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = journal(folder.path());
    create(&mut journal, "one");
    let mut reader = Reader::open(folder.path()).unwrap().unwrap();
    assert_eq!(reader.registry(), journal.registry());
    create(&mut journal, "two");
    let before = files(folder.path());
    reader.catch_up().unwrap();
    reader.catch_up().unwrap();
    assert_eq!((reader.registry(), titles(&reader)), (journal.registry(), vec!["one", "two"]));
    assert_eq!(reader.find("w-2").unwrap().mission.title, "two");
    assert_eq!(files(folder.path()), before);
}

#[test]
fn segments_are_followed() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = journal(folder.path());
    create(&mut journal, "one");
    let mut reader = Reader::open(folder.path()).unwrap().unwrap();
    let begun = journal.registry().clone();
    segment::write(&folder.path().join("journal"), 2, &begun).unwrap();
    create(&mut journal, "two");
    reader.catch_up().unwrap();
    assert_eq!(titles(&reader), ["one", "two"]);
}

#[test]
fn damage_is_skipped_and_left_in_place() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = journal(folder.path());
    for title in ["one", "two", "three"] {
        create(&mut journal, title);
    }
    let path = segment::path(&folder.path().join("journal"), 1);
    let whole = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    for (damaged, expected) in [(0, &["one", "two", "three"][..]), (2, &["one", "three"][..])] {
        let mut lines = lines.clone();
        lines[damaged] = "{\"half\":";
        fs::write(&path, lines.join("\n") + "\n").unwrap();
        let before = files(folder.path());
        let mut reader = Reader::open(folder.path()).unwrap().unwrap();
        assert_eq!(titles(&reader), expected, "line {damaged}");
        reader.catch_up().unwrap();
        assert_eq!(titles(&reader), expected, "line {damaged}, once more");
        assert_eq!(files(folder.path()), before);
    }
}

#[test]
fn removed_history_stays_readable_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = journal(folder.path());
    create(&mut journal, "one");
    let mut moved = Arc::clone(journal.registry().workers().next().unwrap());
    Arc::make_mut(&mut moved).id = WorkerId::new(7, "moved");
    let path = StateDir::at(folder.path()).history();
    History::open(path.clone()).unwrap().append(&[HistoryRecord::Worker(moved)]).unwrap();
    let mut reader = Reader::open(folder.path()).unwrap().unwrap();
    assert_eq!((reader.in_history(), reader.find("w-7").unwrap().id.as_str()), (1, "w-7-moved"));
    fs::remove_file(&path).unwrap();
    reader.catch_up().unwrap();
    assert!(!path.exists());
    assert_eq!(reader.find("w-7").unwrap().id.as_str(), "w-7-moved");
}

#[test]
fn newer_format_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    create(&mut journal(folder.path()), "one");
    let path = segment::path(&folder.path().join("journal"), 1);
    fs::write(&path, "{\"format\":99}\n").unwrap();
    assert!(matches!(Reader::open(folder.path()), Err(JournalError::Newer { found: 99, .. })));
}
