use std::fs::OpenOptions;

use super::*;
use crate::mission::create::{Defaults, Draft, Registered, register};
use crate::mission::id::BossId;
use crate::mission::testing::draft;

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

fn kept_aside(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(journal_in(folder)).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.to_string_lossy().contains("damaged")).collect()
}

#[test]
fn servers_never_give_the_same_number() {
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
fn torn_last_line_is_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = open(folder.path(), "a");
    create(&mut journal, "one");
    let path = segment::path(&journal_in(folder.path()), 1);
    OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"seq\":2,\"at\":\"20").unwrap();

    let mut other = open(folder.path(), "b");
    assert_eq!(other.registry().workers().count(), 1);
    create(&mut other, "two");
    journal.catch_up().unwrap();
    assert_eq!(journal.registry().workers().count(), 2);
    assert_eq!(journal.registry(), open(folder.path(), "c").registry());
}

#[test]
fn journal_of_an_older_format_continues_in_this_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = open(folder.path(), "a");
    create(&mut journal, "one");
    drop(journal);
    let path = |number| segment::path(&journal_in(folder.path()), number);
    let text = fs::read_to_string(path(1)).unwrap();
    let now = format!("{{\"format\":{FORMAT},");
    assert!(text.starts_with(&now), "{text}");
    fs::write(path(1), text.replacen(&now, "{\"format\":3,", 1)).unwrap();

    let mut journal = open(folder.path(), "b");
    assert_eq!(create(&mut journal, "two"), 2);
    // A server of the older version finds a format that it refuses.
    assert!(fs::read_to_string(path(2)).unwrap().starts_with(&now));
    assert_eq!(open(folder.path(), "c").registry(), journal.registry());
    fs::write(path(2), text.replacen(&now, "{\"format\":2,", 1)).unwrap();
    let refused = Journal::open(&journal_in(folder.path()), ServerId::from("d")).map(drop);
    assert!(matches!(refused, Err(JournalError::Former { found: 2, .. })), "{refused:?}");
}

#[test]
fn all_servers_follow_a_new_segment() {
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
    let left: Vec<u64> = segment::newest(&journal_in(folder.path())).unwrap().into_iter().collect();
    assert_eq!(left, [3]);
}

#[test]
fn server_that_missed_segments_writes_to_the_newest() {
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
fn removed_lines_were_seen_by_no_server() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = open(folder.path(), "a");
    let mut reader = open(folder.path(), "b");
    create(&mut writer, "one");
    reader.catch_up().unwrap();
    // A change of several lines for which the disk has no space: one line is whole when the writer notices.
    writer.lock.lock().unwrap();
    let entry = Entry::Answered { backend: "phantom".into() };
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
    assert!(reader.registry().answered.is_empty());
    create(&mut reader, "two");
    assert_eq!(open(folder.path(), "c").registry().workers().count(), 2);
}

#[test]
fn newer_format_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path(), "a"));
    let path = segment::path(&journal_in(folder.path()), 1);
    std::fs::write(&path, "{\"format\":99,\"strange\":true}\n").unwrap();
    let error = Journal::open(&journal_in(folder.path()), ServerId::from("b")).unwrap_err();
    assert!(matches!(error, JournalError::Newer { found: 99, .. }), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"{\"format\":99,\"strange\":true}\n");
}
