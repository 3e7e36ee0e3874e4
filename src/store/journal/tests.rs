use std::fs::OpenOptions;

use super::*;
use crate::mission::create::{Defaults, Draft, Registered, register};
use crate::mission::id::BossId;
use crate::mission::testing::draft;

/// The history lies beside it.
fn journal_in(folder: &Path) -> PathBuf {
    folder.join("journal")
}

fn open(folder: &Path, name: &str) -> Journal {
    Journal::open(&journal_in(folder), ServerId::from(name)).unwrap()
}

fn create(journal: &mut Journal, title: &str) -> u64 {
    try_create(journal, title).unwrap()
}

fn try_create(journal: &mut Journal, title: &str) -> Result<u64, JournalError> {
    let defaults = Defaults { worktrees: Path::new("/w"), branch_prefix: "o/", integration_branch: None };
    journal.transact(Timestamp::UNIX_EPOCH, |registry| {
        let made = register(registry, &BossId::from("b"), &[Draft { task_id: None, ..draft(title) }], defaults);
        let Ok(Registered::New(new)) = &made[0] else { panic!("{made:?}") };
        (vec![Entry::Created { workers: vec![NewWorker::clone(new)] }], registry.last_number + 1)
    })
}

use crate::mission::entry::NewWorker;

mod repair;

/// As the demo left it, of the first build that was shown to anybody.
#[test]
fn the_journal_of_an_earlier_build_is_read_and_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    files::make_private_dir(&journal_in(folder.path())).unwrap();
    let earlier = include_str!("../../../tests/fixtures/state/journal.jsonl");
    fs::write(generation::path(&journal_in(folder.path()), 1), earlier).unwrap();
    let mut journal = open(folder.path(), "a");
    assert!(kept_aside(folder.path()).is_empty() && journal.registry().repaired.is_none());
    let ends: Vec<String> = journal.registry().workers().map(|worker| worker.status.to_string()).collect();
    assert_eq!(ends, ["completed", "completed", "completed", "cancelled", "completed"]);
    assert_eq!(journal.registry().by_number(2).unwrap().settled.len(), 2);
    assert_eq!(create(&mut journal, "next"), 6);
    assert_eq!(open(folder.path(), "late").registry(), journal.registry());
    // A server of that build which still lives finds a newer format, and no line that it would take for damage.
    let begun = fs::read_to_string(generation::path(&journal_in(folder.path()), 2)).unwrap();
    assert!(begun.starts_with(&format!("{{\"format\":{FORMAT},")), "{begun}");
    assert_eq!(fs::read_to_string(generation::path(&journal_in(folder.path()), 1)).unwrap(), earlier);
}

/// What a generation of an earlier build begins with: workers without the fields that came later.
#[test]
fn a_registry_without_later_fields_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = open(folder.path(), "a");
    create(&mut journal, "one");
    let mut header: serde_json::Value =
        serde_json::from_str(&serde_json::json!({"format": 1, "registry": journal.registry()}).to_string()).unwrap();
    header["registry"].as_object_mut().unwrap().remove("archived");
    header["registry"]["workers"]["1"].as_object_mut().unwrap().remove("queued_seq");
    fs::write(generation::path(&journal_in(folder.path()), 2), format!("{header}\n")).unwrap();
    let late = open(folder.path(), "late");
    assert_eq!((late.generation, late.registry().workers().count()), (3, 1));
}

fn kept_aside(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(journal_in(folder)).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.to_string_lossy().contains("damaged")).collect()
}

#[test]
fn two_servers_never_give_the_same_number() {
    let folder = tempfile::tempdir().unwrap();
    let numbers: Vec<u64> = std::thread::scope(|scope| {
        let path = folder.path();
        let threads: Vec<_> = (0..4)
            .map(|server| {
                scope.spawn(move || {
                    let mut journal = open(path, &format!("s{server}"));
                    (0..25).map(|i| create(&mut journal, &format!("task {i}"))).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let mut sorted = numbers.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (1..=100).collect::<Vec<_>>());
    assert_eq!(open(folder.path(), "late").registry().workers().count(), 100);
}

#[test]
fn a_torn_last_line_is_dropped_and_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = open(folder.path(), "a");
    create(&mut journal, "one");
    let path = generation::path(&journal_in(folder.path()), 1);
    OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"seq\":2,\"at\":\"20").unwrap();

    let mut other = open(folder.path(), "b");
    assert_eq!(other.registry().workers().count(), 1);
    create(&mut other, "two");
    journal.catch_up().unwrap();
    assert_eq!(journal.registry().workers().count(), 2);
    assert_eq!(journal.registry(), open(folder.path(), "c").registry());
}

#[test]
fn a_new_generation_is_followed_by_all_and_nothing_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = open(folder.path(), "a");
    let mut second = open(folder.path(), "b");
    create(&mut first, "one");
    first.rotate().unwrap();
    create(&mut first, "two");
    first.rotate().unwrap();
    create(&mut first, "three");
    second.catch_up().unwrap();
    assert_eq!(second.registry(), first.registry());
    assert_eq!(create(&mut second, "four"), 4);
    let left: Vec<u64> = generation::newest(&journal_in(folder.path())).unwrap().into_iter().collect();
    assert_eq!(left, [3]);
}

#[test]
fn one_that_slept_through_several_generations_writes_into_no_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut sleeper = open(folder.path(), "a");
    let mut busy = open(folder.path(), "b");
    for task in ["one", "two", "three", "four"] {
        create(&mut busy, task);
        busy.rotate().unwrap();
    }
    assert_eq!(create(&mut sleeper, "five"), 5);
    busy.catch_up().unwrap();
    assert_eq!(busy.registry(), sleeper.registry());
}

#[test]
fn what_a_writer_takes_back_was_seen_by_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = open(folder.path(), "a");
    let mut reader = open(folder.path(), "b");
    create(&mut writer, "one");
    reader.catch_up().unwrap();
    // A change of several lines for which the disk has not room enough: one is whole when the writer finds out.
    writer.lock.lock().unwrap();
    let entry = Entry::IntegrationBranch { branch: "phantom".to_owned() };
    let server = ServerId::from("a");
    let line = Line { seq: writer.registry.seq + 1, at: Timestamp::UNIX_EPOCH, server, entry };
    let bytes = to_bytes(&writer.path(), &[line]).unwrap();
    writer.write(&bytes, false).unwrap();
    let (done, is_done) = std::sync::mpsc::channel();
    let reading = std::thread::spawn(move || {
        reader.catch_up().unwrap();
        done.send(()).unwrap();
        reader
    });
    let _ = is_done.recv_timeout(std::time::Duration::from_millis(300));
    writer.file.set_len(writer.offset).unwrap();
    writer.unlock().unwrap();

    let mut reader = reading.join().unwrap();
    assert_eq!(reader.registry().integration_branch, None);
    create(&mut reader, "two");
    assert_eq!(open(folder.path(), "c").registry().workers().count(), 2);
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path(), "a"));
    let path = generation::path(&journal_in(folder.path()), 1);
    std::fs::write(&path, "{\"format\":99,\"strange\":true}\n").unwrap();
    let error = Journal::open(&journal_in(folder.path()), ServerId::from("b")).unwrap_err();
    assert!(matches!(error, JournalError::Newer { found: 99, .. }), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"{\"format\":99,\"strange\":true}\n");
}
