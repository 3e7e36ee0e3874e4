use std::collections::{BTreeSet, VecDeque};
use std::sync::{Condvar, Mutex};

use proptest::prelude::*;

use super::*;
use crate::attempt::worker_dir::WorkerDir;

fn inbox_entry(text: &str) -> InboxEntry {
    let instruction = Instruction::Message { text: text.to_owned(), delivery: Delivery::WhenReady };
    InboxEntry { id: Uuid::new_v4(), at: Timestamp::UNIX_EPOCH, by: None, instruction }
}

fn attempt_in(folder: &Path) -> AttemptDir {
    let attempt = WorkerDir::new(folder.to_owned()).attempt(1);
    attempt.create(&()).unwrap();
    attempt
}

#[test]
fn unread_entry_keeps_the_inbox_open() {
    let folder = tempfile::tempdir().unwrap();
    let attempt = attempt_in(folder.path());
    attempt.reserve_outcome().unwrap();
    let first = inbox_entry("one");
    assert_eq!(attempt.post(&first).unwrap(), PostResult::Accepted);
    assert_eq!(attempt.inbox_entries(0).unwrap(), [first]);

    let late = inbox_entry("two");
    attempt.post(&late).unwrap();
    assert_eq!(attempt.close_inbox(1).unwrap(), [late], "an unread message keeps it open");
    assert_eq!(attempt.post(&inbox_entry("three")).unwrap(), PostResult::Accepted);
    assert_eq!(attempt.close_inbox(3).unwrap(), []);
    assert_eq!(attempt.post(&inbox_entry("four")).unwrap(), PostResult::Closed);
    assert_eq!(attempt.inbox_entries(0).unwrap().len(), 3);
    assert_eq!(attempt.close_inbox(3).unwrap(), [], "it is closed already");
}

#[test]
fn fenced_attempt_keeps_its_inbox() {
    let folder = tempfile::tempdir().unwrap();
    let attempt = attempt_in(folder.path());
    let first = inbox_entry("one");
    attempt.post(&first).unwrap();
    for _server in 0..2 {
        assert!(attempt.fence().unwrap());
        assert_eq!(attempt.close_inbox_unread().unwrap(), std::slice::from_ref(&first));
    }
    assert!(!attempt.take_claim().unwrap());
    assert_eq!(attempt.post(&inbox_entry("two")).unwrap(), PostResult::Closed);
}

#[test]
fn every_instruction_survives_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let attempt = attempt_in(folder.path());
    let instructions = [
        Instruction::Message { text: "closed".to_owned(), delivery: Delivery::Interrupt },
        Instruction::Cancel { reason: "no".to_owned() },
        Instruction::OverBudget { reason: "spent".to_owned() },
        Instruction::Answer { question: "q-1".to_owned(), decision: Decision::Deny, reason: None },
    ];
    let entries = instructions.map(|instruction| InboxEntry { instruction, ..inbox_entry("") });
    entries.iter().for_each(|entry| assert_eq!(attempt.post(entry).unwrap(), PostResult::Accepted));
    assert_eq!(attempt.inbox_entries(0).unwrap(), entries);
    assert_eq!(attempt.cancelled().map(|cancelled| cancelled.reason).as_deref(), Some("no"));
}

#[test]
fn inbox_whose_end_had_a_lost_reply_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let attempt = attempt_in(folder.path());
    attempt.reserve_outcome().unwrap();
    // A file system without an exclusive rename makes a second name, whose reply may be lost.
    fs::hard_link(attempt.closing(), attempt.record_path(0)).unwrap();
    assert_eq!(attempt.close_inbox(0).unwrap(), []);
    assert_eq!(attempt.post(&inbox_entry("late")).unwrap(), PostResult::Closed);
}

#[test]
fn announced_number_never_stays_behind() {
    let folder = tempfile::tempdir().unwrap();
    let attempt = attempt_in(folder.path());
    assert_eq!(attempt.announced(), 0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                (0..10).for_each(|_| assert_eq!(attempt.post(&inbox_entry("x")).unwrap(), PostResult::Accepted))
            });
        }
    });
    assert_eq!((attempt.announced(), attempt.inbox_entries(0).unwrap().len()), (40, 40));
}

/// The order in which actors take their turns. An actor works from the beginning of its turn to that of its next one.
struct Turns {
    state: Mutex<TurnState>,
    changed: Condvar,
}

struct TurnState {
    order: VecDeque<usize>,
    at_work: Option<usize>,
    finished: BTreeSet<usize>,
}

impl Turns {
    fn new(order: Vec<usize>) -> Self {
        let state = TurnState { order: order.into(), at_work: None, finished: BTreeSet::new() };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn await_turn(&self, actor: usize) {
        let mut state = self.state.lock().unwrap();
        state.end_turn(actor);
        self.changed.notify_all();
        while !state.begin_turn(actor) {
            state = self.changed.wait(state).unwrap();
        }
    }

    fn finish(&self, actor: usize) {
        let mut state = self.state.lock().unwrap();
        state.end_turn(actor);
        state.finished.insert(actor);
        self.changed.notify_all();
    }
}

impl TurnState {
    fn end_turn(&mut self, actor: usize) {
        self.at_work = self.at_work.filter(|it| *it != actor);
    }

    fn begin_turn(&mut self, actor: usize) -> bool {
        while self.order.front().is_some_and(|next| self.finished.contains(next)) {
            self.order.pop_front();
        }
        let is_next = self.at_work.is_none() && self.order.front().is_none_or(|next| *next == actor);
        if is_next {
            self.order.pop_front();
            self.at_work = Some(actor);
        }
        is_next
    }
}

/// Posts messages, and returns each with its answer. Some replies of the file system are lost.
fn post_all(attempt: &AttemptDir, turns: &Turns, actor: usize, lost: &[bool]) -> Vec<(Uuid, PostResult)> {
    let post = |lost: &bool| {
        let inbox_entry = inbox_entry("x");
        let id = inbox_entry.id;
        let record = Record::Entry(inbox_entry);
        turns.await_turn(actor);
        let answer = attempt.append(|path| {
            turns.await_turn(actor);
            if *lost {
                // The reply is lost, and the file system repeats the request.
                let _ = files::create_json_once(path, &record);
            }
            files::create_json_once(path, &record)
        });
        turns.await_turn(actor);
        attempt.announce();
        (id, answer.unwrap())
    };
    let answers = lost.iter().map(post).collect();
    turns.finish(actor);
    answers
}

/// Reads messages as a supervisor does, until the inbox is closed.
fn read_all(attempt: &AttemptDir, turns: &Turns, actor: usize) -> Vec<Uuid> {
    let mut read = Vec::new();
    loop {
        turns.await_turn(actor);
        read.extend(attempt.inbox_entries(read.len()).unwrap().into_iter().map(|entry| entry.id));
        turns.await_turn(actor);
        let unread = attempt.close_inbox(read.len()).unwrap();
        if unread.is_empty() {
            turns.finish(actor);
            return read;
        }
        read.extend(unread.into_iter().map(|entry| entry.id));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn every_message_is_read_or_refused(
        order in prop::collection::vec(0..3_usize, 0..40),
        lost in prop::array::uniform2(prop::collection::vec(any::<bool>(), 0..5)),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let attempt = attempt_in(folder.path());
        attempt.reserve_outcome().unwrap();
        let turns = Turns::new(order);
        let (answers, read) = std::thread::scope(|scope| {
            let posters = [0, 1].map(|actor| {
                let (attempt, turns, lost) = (&attempt, &turns, &lost[actor]);
                scope.spawn(move || post_all(attempt, turns, actor, lost))
            });
            let read = read_all(&attempt, &turns, 2);
            (posters.map(|poster| poster.join().unwrap()), read)
        });
        for answers in &answers {
            let accepted: Vec<Uuid> =
                answers.iter().filter(|(_, it)| *it == PostResult::Accepted).map(|(id, _)| *id).collect();
            let read_of_poster: Vec<Uuid> =
                read.iter().copied().filter(|id| answers.iter().any(|(other, _)| other == id)).collect();
            prop_assert_eq!(accepted, read_of_poster, "accepted messages are read once and in order, no others");
            let mut refused = answers.iter().skip_while(|(_, it)| *it == PostResult::Accepted);
            prop_assert!(refused.all(|(_, it)| *it == PostResult::Closed), "nothing follows the end");
        }
        let there: Vec<Uuid> = attempt.inbox_entries(0).unwrap().into_iter().map(|entry| entry.id).collect();
        prop_assert_eq!(there, read);
    }
}
