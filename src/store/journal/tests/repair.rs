//! Damaged and missing files, and the state afterwards.

use super::*;
use crate::mission::delivery::Notification;
use crate::mission::entry::AttemptSummary;
use crate::mission::id::WorkerId;
use crate::mission::lifecycle::{Ending, WorkerStatus};
use crate::mission::outcome::{Changes, Cleanup, Outcome, Run, Verification};
use crate::mission::testing::requeued;
use crate::store::state_file;

fn apply(journal: &mut Journal, entry: Entry) {
    journal.transact(Timestamp::UNIX_EPOCH, |_| (vec![entry], ())).unwrap();
}

fn outcome(worker: &Worker, attempt: u32) -> Outcome {
    Outcome {
        worker_id: worker.id.clone(),
        attempt,
        backend: "codex".into(),
        status: Ending::Completed,
        run: Run::default(),
        verification: Verification::NotRequested,
        likely_cause: None,
        changes: Changes::default(),
        cleanup: Cleanup::default(),
        settled_at: Timestamp::now(),
    }
}

/// Runs an attempt as a server does: the line, the folder, and the outcome record if it ends.
fn run(folder: &Path, journal: &mut Journal, number: u64, attempt: u32, ends: bool) {
    let id = journal.registry().by_number(number).unwrap().id.clone();
    apply(journal, Entry::Starting { worker: id.clone(), attempt });
    let worker = journal.registry().get(&id).unwrap().clone();
    let dir = StateDir::around(&journal_in(folder)).worker(&id);
    dir.record(&worker).unwrap();
    dir.attempt(attempt).create(&()).unwrap();
    if ends {
        let outcome = outcome(&worker, attempt);
        dir.attempt(attempt).settle(&outcome).unwrap();
        apply(journal, Entry::Settled { worker: id, brief: Box::new(AttemptSummary::of(&outcome, None)) });
    }
}

fn write_state_file(folder: &Path, journal: &Journal) {
    let path = StateDir::around(&journal_in(folder)).state_file();
    state_file::write(
        &path,
        &state_file::project(
            journal.registry(),
            Default::default(),
            Timestamp::UNIX_EPOCH,
            |_| None,
            |_| (vec![], None),
            |_| vec![],
        ),
    )
    .unwrap();
}

fn status(journal: &Journal, number: u64) -> WorkerStatus {
    journal.registry().by_number(number).unwrap().status
}

const COMPLETED: WorkerStatus = WorkerStatus::Settled(Ending::Completed);

/// Overwrites the last occurrence of a text with NULs, as a power failure does.
fn damage(path: &Path, text: &str) {
    let mut bytes = std::fs::read(path).unwrap();
    let at = bytes.windows(text.len()).rposition(|it| it == text.as_bytes()).expect("it is there");
    bytes[at..at + text.len()].fill(0);
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn damaged_line_is_recovered_from_lines_and_folders() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = open(folder.path(), "a");
    for title in ["one", "two", "three"] {
        create(&mut journal, title);
    }
    run(folder.path(), &mut journal, 1, 1, true);
    run(folder.path(), &mut journal, 2, 1, false);
    create(&mut journal, "four");
    drop(journal);
    let path = segment::path(&journal_in(folder.path()), 1);
    damage(&path, "\"kind\":\"settled\"");
    let damaged = std::fs::read(&path).unwrap();

    let mut journal = open(folder.path(), "b");
    assert_eq!(status(&journal, 1), COMPLETED, "by its record");
    assert_eq!(journal.registry().by_number(1).unwrap().settled.len(), 1);
    assert_eq!(journal.registry().by_number(1).unwrap().notification, Notification::Pending);
    assert_eq!((status(&journal, 2), status(&journal, 4)), (WorkerStatus::Starting, WorkerStatus::Queued));
    assert!(journal.registry().repaired.as_ref().unwrap().contains("1 lines could not be read"));
    let kept = kept_aside(folder.path());
    assert_eq!(std::fs::read(&kept[0]).unwrap(), damaged);
    assert_eq!(create(&mut journal, "five"), 5);
    assert_eq!(open(folder.path(), "c").registry(), journal.registry());
}

#[test]
fn damaged_start_and_retry_are_found_in_folders() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = open(folder.path(), "a");
    create(&mut journal, "one");
    create(&mut journal, "two");
    run(folder.path(), &mut journal, 1, 1, true);
    apply(&mut journal, requeued(&WorkerId::new(1, "one")));
    run(folder.path(), &mut journal, 1, 2, true);
    run(folder.path(), &mut journal, 2, 1, false);
    drop(journal);
    let path = segment::path(&journal_in(folder.path()), 1);
    damage(&path, "\"kind\":\"requeued\"");
    damage(&path, "\"kind\":\"starting\"");

    let journal = open(folder.path(), "b");
    let one = journal.registry().by_number(1).unwrap();
    assert_eq!((one.status, one.attempt, one.settled.len()), (COMPLETED, 2, 2));
    let two = journal.registry().by_number(2).unwrap();
    assert_eq!((two.status, two.attempt), (WorkerStatus::Starting, 1), "it is not started a second time");
}

#[test]
fn segment_before_replaces_a_damaged_first_line() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = open(folder.path(), "a");
    create(&mut journal, "one");
    run(folder.path(), &mut journal, 1, 1, true);
    journal.rotate().unwrap();
    create(&mut journal, "two");
    let before = journal.registry().clone();
    let path = segment::path(&journal_in(folder.path()), 2);
    damage(&path, "\"last_number\"");

    for name in ["b", "c"] {
        let journal = open(folder.path(), name);
        assert!(journal.registry().workers().eq(before.workers()), "{name}");
    }
    assert_eq!(kept_aside(folder.path()).len(), 1);
    journal.catch_up().unwrap();
    assert_eq!(create(&mut journal, "three"), 3);
}

#[test]
fn removed_journal_is_refused_until_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = open(folder.path(), "a");
    create(&mut journal, "one");
    run(folder.path(), &mut journal, 1, 1, true);
    let before = journal.registry().clone();
    std::fs::remove_dir_all(journal_in(folder.path())).unwrap();
    for refused in [journal.catch_up().unwrap_err(), try_create(&mut journal, "two").unwrap_err()] {
        assert!(matches!(&refused, JournalError::Removed { path } if *path == journal_in(folder.path())), "{refused}");
    }
    assert!(!journal_in(folder.path()).exists(), "this server does not begin it anew");
    assert_eq!(journal.registry(), &before);

    let mut late = open(folder.path(), "late");
    assert_eq!((status(&late, 1), create(&mut late, "two")), (COMPLETED, 2));
    assert!(
        matches!(try_create(&mut journal, "three"), Err(JournalError::Removed { .. })),
        "the rebuilt one is not its own"
    );
    assert_eq!(open(folder.path(), "last").registry(), late.registry());
}

#[test]
fn removed_segment_is_refused_until_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = open(folder.path(), "a");
    create(&mut journal, "one");
    std::fs::remove_file(segment::path(&journal_in(folder.path()), 1)).unwrap();
    assert!(matches!(journal.catch_up(), Err(JournalError::Removed { .. })));
    assert!(matches!(try_create(&mut journal, "two"), Err(JournalError::Removed { .. })));
    assert_eq!(open(folder.path(), "late").registry().workers().count(), 0);
}

#[test]
fn lines_in_a_removed_folder_are_not_saved() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = open(folder.path(), "a");
    create(&mut journal, "one");
    let before = journal.registry().clone();
    // The folder is removed between the decision and the write.
    let path = journal_in(folder.path());
    let meanwhile = |_: &Registry| {
        std::fs::remove_dir_all(&path).unwrap();
        (vec![Entry::Answered { backend: "codex".into() }], ())
    };
    let saved = journal.transact(Timestamp::UNIX_EPOCH, meanwhile);
    assert!(matches!(saved, Err(JournalError::Removed { .. })), "{saved:?}");
    assert_eq!(journal.registry(), &before);
    assert!(open(folder.path(), "late").registry().answered.is_empty());
}

#[test]
fn lost_journal_is_rebuilt_from_folders_and_state() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = open(folder.path(), "a");
    for title in ["done", "runs", "waits"] {
        create(&mut journal, title);
    }
    run(folder.path(), &mut journal, 1, 1, true);
    run(folder.path(), &mut journal, 2, 1, false);
    write_state_file(folder.path(), &journal);
    let before = journal.registry().clone();
    drop(journal);
    std::fs::remove_dir_all(journal_in(folder.path())).unwrap();

    let mut journal = open(folder.path(), "b");
    let done = journal.registry().by_number(1).unwrap();
    assert_eq!(
        (done.status, &done.notification),
        (COMPLETED, &Notification::Unconfirmed),
        "reported once more, marked"
    );
    assert_eq!(done.settled, before.by_number(1).unwrap().settled);
    assert_eq!(journal.registry().by_number(2), before.by_number(2));
    let said = journal.registry().repaired.clone().unwrap();
    assert!(said.contains("w-3-waits \"waits\" (queued)"), "{said}");
    assert_eq!(create(&mut journal, "next"), 4, "no number is given twice");
}

#[test]
fn journal_without_its_newest_segment_is_rebuilt() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = open(folder.path(), "a");
    create(&mut journal, "one");
    journal.rotate().unwrap();
    create(&mut journal, "two");
    run(folder.path(), &mut journal, 2, 1, true);
    write_state_file(folder.path(), &journal);
    std::fs::remove_file(segment::path(&journal_in(folder.path()), 2)).unwrap();

    let mut late = open(folder.path(), "late");
    assert_eq!(status(&late, 2), COMPLETED);
    assert!(matches!(journal.catch_up(), Err(JournalError::Removed { .. })));
    assert_eq!(create(&mut late, "three"), 3);
}

#[test]
fn newer_format_is_left_alone_despite_damage() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = open(folder.path(), "a");
    create(&mut journal, "one");
    let (first, second) = (segment::path(&journal_in(folder.path()), 1), segment::path(&journal_in(folder.path()), 2));
    std::fs::write(&first, "{\"format\":99}\n").unwrap();
    std::fs::write(&second, "\0\0\0\n").unwrap();
    let refused = Journal::open(&journal_in(folder.path()), ServerId::from("b"));
    assert!(matches!(refused, Err(JournalError::Newer { found: 99, .. })));
    assert_eq!(std::fs::read(&second).unwrap(), b"\0\0\0\n");
    std::fs::write(&second, "{\"format\":99}\n").unwrap();
    assert!(matches!(journal.catch_up(), Err(JournalError::Newer { found: 99, .. })));
    assert_eq!(std::fs::read(&second).unwrap(), b"{\"format\":99}\n");
    assert_eq!(kept_aside(folder.path()), Vec::<PathBuf>::new());
}

#[test]
fn moved_state_folder_is_not_created_again() {
    let above = tempfile::tempdir().unwrap();
    let (here, elsewhere) = (above.path().join("here"), above.path().join("elsewhere"));
    fs::create_dir_all(here.join("state")).unwrap();
    let mut journal = open(&here.join("state"), "a");
    create(&mut journal, "one");
    fs::rename(&here, &elsewhere).unwrap();
    for refused in [journal.catch_up().unwrap_err(), try_create(&mut journal, "two").unwrap_err()] {
        assert!(matches!(&refused, JournalError::File(FileError::Gone { path }) if *path == here), "{refused}");
    }
    assert!(!here.exists());
    assert_eq!(journal.registry().last_number, 1, "its registry stays");
    fs::rename(&elsewhere, &here).unwrap();
    journal.catch_up().unwrap();
    assert_eq!(create(&mut journal, "two"), 2);
    assert!(journal.registry().repaired.is_none());
}
