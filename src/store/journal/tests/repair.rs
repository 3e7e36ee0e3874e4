//! Damage that is really made, and what is known afterwards.

use super::*;
use crate::mission::delivery::Notification;
use crate::mission::entry::{Brief, NextAttempt, Start};
use crate::mission::id::WorkerId;
use crate::mission::lifecycle::{Ending, WorkerStatus};
use crate::mission::outcome::{Changes, Cleanup, Outcome, Run, Verification};
use crate::store::state_file;

fn say(journal: &mut Journal, entry: Entry) {
    journal.transact(Timestamp::UNIX_EPOCH, |_| (vec![entry], ())).unwrap();
}

fn outcome(worker: &Worker, attempt: u32) -> Outcome {
    Outcome {
        worker_id: worker.id.clone(),
        attempt,
        backend: "codex".into(),
        status: Ending::Completed,
        run: Run::default(),
        verification: Verification::NotAsked,
        likely_cause: None,
        changes: Changes::default(),
        cleanup: Cleanup::default(),
        settled_at: Timestamp::now(),
    }
}

/// As a server does: the line, the folder, and the record of the end if it has ended.
fn run(folder: &Path, journal: &mut Journal, number: u64, attempt: u32, ends: bool) {
    let id = journal.registry().by_number(number).unwrap().id.clone();
    say(journal, Entry::Starting { worker: id.clone(), attempt });
    let worker = journal.registry().get(&id).unwrap().clone();
    let dir = StateDir::around(&journal_in(folder)).worker(&id);
    dir.remember(&worker).unwrap();
    dir.attempt(attempt).create(&()).unwrap();
    if ends {
        let outcome = outcome(&worker, attempt);
        dir.attempt(attempt).settle(&outcome).unwrap();
        say(journal, Entry::Settled { worker: id, brief: Box::new(Brief::of(&outcome, None)) });
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
        ),
    )
    .unwrap();
}

fn status(journal: &Journal, number: u64) -> WorkerStatus {
    journal.registry().by_number(number).unwrap().status
}

const COMPLETED: WorkerStatus = WorkerStatus::Settled(Ending::Completed);

/// A hole of NULs, as a power failure leaves it, where this text is.
fn damage(path: &Path, text: &str) {
    let mut bytes = std::fs::read(path).unwrap();
    let at = bytes.windows(text.len()).rposition(|it| it == text.as_bytes()).expect("it is there");
    bytes[at..at + text.len()].fill(0);
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_damaged_line_costs_nothing_that_lines_around_it_and_folders_know() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = open(folder.path(), "a");
    for title in ["one", "two", "three"] {
        create(&mut journal, title);
    }
    run(folder.path(), &mut journal, 1, 1, true);
    run(folder.path(), &mut journal, 2, 1, false);
    create(&mut journal, "four");
    drop(journal);
    let path = generation::path(&journal_in(folder.path()), 1);
    damage(&path, "\"did\":\"settled\"");
    let damaged = std::fs::read(&path).unwrap();

    let mut journal = open(folder.path(), "b");
    assert_eq!(status(&journal, 1), COMPLETED, "its record says so");
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
fn a_start_and_a_retry_that_a_damaged_line_told_of_are_found_in_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = open(folder.path(), "a");
    create(&mut journal, "one");
    create(&mut journal, "two");
    run(folder.path(), &mut journal, 1, 1, true);
    let next = Box::new(NextAttempt {
        backend: "codex".into(),
        model: None,
        effort: None,
        start: Start::Mission,
        written: Vec::new(),
    });
    say(&mut journal, Entry::Requeued { worker: WorkerId::new(1, "one"), next, lead: None });
    run(folder.path(), &mut journal, 1, 2, true);
    run(folder.path(), &mut journal, 2, 1, false);
    drop(journal);
    let path = generation::path(&journal_in(folder.path()), 1);
    damage(&path, "\"did\":\"requeued\"");
    damage(&path, "\"did\":\"starting\"");

    let journal = open(folder.path(), "b");
    let one = journal.registry().by_number(1).unwrap();
    assert_eq!((one.status, one.attempt, one.settled.len()), (COMPLETED, 2, 2));
    let two = journal.registry().by_number(2).unwrap();
    assert_eq!((two.status, two.attempt), (WorkerStatus::Starting, 1), "it is not started a second time");
}

#[test]
fn what_a_damaged_line_told_a_living_server_it_puts_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut alive = open(folder.path(), "alive");
    say(&mut alive, Entry::ServerJoined { boss: "b".into(), directory: "/d".into() });
    create(&mut alive, "one");
    create(&mut alive, "two");
    let known = alive.registry().clone();
    damage(&generation::path(&journal_in(folder.path()), 1), "\"id\":\"w-1-one\"");

    let mut late = open(folder.path(), "late");
    assert!(late.registry().by_number(1).is_none(), "it had not started: nothing else knows of it");
    assert_eq!(create(&mut late, "three"), 3);
    alive.catch_up().unwrap();
    late.catch_up().unwrap();
    assert_eq!(late.registry(), alive.registry());
    for worker in known.workers() {
        assert_eq!(late.registry().get(&worker.id), Some(worker));
    }
    assert_eq!(create(&mut alive, "four"), 4);
}

#[test]
fn when_the_first_line_is_damaged_the_generation_before_leads_up_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = open(folder.path(), "a");
    create(&mut journal, "one");
    run(folder.path(), &mut journal, 1, 1, true);
    journal.rotate().unwrap();
    create(&mut journal, "two");
    let before = journal.registry().clone();
    let path = generation::path(&journal_in(folder.path()), 2);
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
fn a_journal_that_is_removed_is_written_again_by_whoever_notices_first() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = open(folder.path(), "a");
    let mut second = open(folder.path(), "b");
    for journal in [&mut first, &mut second] {
        say(journal, Entry::ServerJoined { boss: "b".into(), directory: "/d".into() });
    }
    create(&mut first, "one");
    create(&mut second, "two");
    create(&mut first, "three");
    std::fs::remove_dir_all(journal_in(folder.path())).unwrap();

    assert_eq!(create(&mut second, "four"), 4, "it had not read the third yet");
    assert_eq!(create(&mut first, "five"), 5);
    second.catch_up().unwrap();
    assert_eq!(first.registry(), second.registry());
    assert_eq!(first.registry().workers().count(), 5);
    assert!(first.registry().servers.len() == 2 && second.take_is_new_folder());
    assert_eq!(open(folder.path(), "c").registry(), first.registry());
}

/// Removed while four servers write: whatever was answered as saved is there, for all of them, under its own number.
#[test]
fn a_removal_in_the_midst_of_work_takes_nothing_that_was_saved() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let folder = tempfile::tempdir().unwrap();
    let mut servers: Vec<Journal> = (0..4).map(|n| open(folder.path(), &format!("s{n}"))).collect();
    let mut saved = Vec::new();
    for _round in 0..5 {
        servers.iter_mut().for_each(|journal| journal.catch_up().unwrap());
        let begun = AtomicUsize::new(0);
        saved.extend(std::thread::scope(|scope| {
            let threads: Vec<_> = servers
                .iter_mut()
                .map(|journal| {
                    // One that comes in the very moment is refused, and comes again.
                    let save_ten = || -> Vec<u64> {
                        let tries = std::iter::repeat_with(|| {
                            begun.fetch_add(1, Ordering::Relaxed);
                            try_create(journal, "t").ok()
                        });
                        tries.take(100_000).flatten().take(10).collect()
                    };
                    scope.spawn(save_ten)
                })
                .collect();
            while begun.load(Ordering::Relaxed) < 12 {
                std::thread::yield_now();
            }
            // A folder that is being written to may not be empty at the end.
            while std::fs::remove_dir_all(journal_in(folder.path())).is_err() {}
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<u64>>()
        }));
    }
    saved.sort_unstable();
    saved.dedup();
    assert_eq!(saved.len(), 200, "all are saved, and no number is given twice");
    servers.iter_mut().for_each(|journal| journal.catch_up().unwrap());
    for journal in &mut servers {
        journal.catch_up().unwrap();
        assert!(saved.iter().all(|number| journal.registry().by_number(*number).is_some()));
    }
    assert_eq!(open(folder.path(), "late").registry(), servers[0].registry());
}

#[test]
fn what_was_written_into_a_removed_folder_is_called_saved_only_when_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = open(folder.path(), "a");
    create(&mut journal, "one");
    // Between its decision and its answer somebody removes the folder, and another server comes.
    let path = journal_in(folder.path());
    let meanwhile = |registry: &Registry| {
        std::fs::remove_dir_all(&path).unwrap();
        let entry = Entry::IntegrationBranch { branch: "main".to_owned() };
        (vec![entry], registry.seq)
    };
    journal.transact(Timestamp::UNIX_EPOCH, meanwhile).unwrap();
    let late = open(folder.path(), "late");
    assert_eq!(late.registry().integration_branch.as_deref(), Some("main"));
    assert_eq!(late.registry(), journal.registry());
}

#[test]
fn what_could_not_be_saved_in_a_removed_folder_takes_nothing_from_the_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = open(folder.path(), "a");
    create(&mut journal, "one");
    let path = journal_in(folder.path());
    let defaults = Defaults { worktrees: Path::new("/w"), branch_prefix: "o/", integration_branch: None };
    // Another server begins anew and gives the number away that this decision gave.
    let mut other = None;
    let meanwhile = |registry: &Registry| {
        std::fs::remove_dir_all(&path).unwrap();
        let mut began = open(folder.path(), "b");
        for title in ["x", "y", "z"] {
            create(&mut began, title);
        }
        other = Some(began);
        let made = register(registry, &BossId::from("b"), &[draft("two")], defaults);
        let Ok(Registered::New(new)) = &made[0] else { panic!("{made:?}") };
        (vec![Entry::Created { workers: vec![NewWorker::clone(new)] }], ())
    };
    let saved = journal.transact(Timestamp::UNIX_EPOCH, meanwhile);
    assert!(matches!(saved, Err(JournalError::Removed { .. })), "{saved:?}");
    let late = open(folder.path(), "late");
    assert!(kept_aside(folder.path()).is_empty(), "nothing of it was damaged");
    assert_eq!(late.registry().workers().count(), 3);
    journal.catch_up().unwrap();
    assert_eq!(journal.registry(), late.registry());
    assert_eq!(create(&mut journal, "next"), 4);
    assert_eq!(open(folder.path(), "last").registry().workers().count(), 4);
}

#[test]
fn without_any_journal_the_folders_and_the_state_file_tell_what_was() {
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
    assert_eq!((done.status, &done.notification), (COMPLETED, &Notification::Unconfirmed), "told once more, marked");
    assert_eq!(done.settled, before.by_number(1).unwrap().settled);
    assert_eq!(journal.registry().by_number(2), before.by_number(2));
    let said = journal.registry().repaired.clone().unwrap();
    assert!(said.contains("w-3-waits \"waits\" (queued)"), "{said}");
    assert_eq!(create(&mut journal, "next"), 4, "no number is given twice");
}

#[test]
fn a_journal_that_lost_its_newest_file_is_not_taken_for_whole() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = open(folder.path(), "a");
    create(&mut journal, "one");
    journal.rotate().unwrap();
    create(&mut journal, "two");
    run(folder.path(), &mut journal, 2, 1, true);
    write_state_file(folder.path(), &journal);
    std::fs::remove_file(generation::path(&journal_in(folder.path()), 2)).unwrap();

    let late = open(folder.path(), "late");
    assert_eq!(status(&late, 2), COMPLETED);
    journal.catch_up().unwrap();
    assert_eq!(create(&mut journal, "three"), 3);
}

#[test]
fn a_newer_generation_is_not_touched_however_damaged_the_rest_is() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = open(folder.path(), "a");
    create(&mut journal, "one");
    let (first, second) =
        (generation::path(&journal_in(folder.path()), 1), generation::path(&journal_in(folder.path()), 2));
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
fn a_state_folder_that_was_moved_is_not_made_again_at_its_old_place() {
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
    assert_eq!(journal.registry().last_number, 1, "what it knew it knows");
    fs::rename(&elsewhere, &here).unwrap();
    journal.catch_up().unwrap();
    assert_eq!(create(&mut journal, "two"), 2);
    assert!(journal.registry().repaired.is_none());
}
