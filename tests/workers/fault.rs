//! Servers and supervisors that die or hang at critical moments. The tests write the files that a dead server would
//! have left, so that each moment is reproduced exactly.

use orchestrator_boss::attempt::inbox::{Delivery, InboxEntry, Instruction};
use orchestrator_boss::attempt::state_dir::StateDir;
use orchestrator_boss::attempt::worker_dir::AttemptDir;
use orchestrator_boss::mission::entry::{AttemptSummary, Entry};
use orchestrator_boss::mission::id::{ServerId, WorkerId};
use orchestrator_boss::mission::lifecycle::{Ending, WorkerStatus};
use orchestrator_boss::mission::outcome::{Changes, Cleanup, Containment, Outcome, Run, Verification};
use orchestrator_boss::orchestrator::{MessageDelivery, NewMessage, WaitStatus};
use orchestrator_boss::process::{Identity, Signal, send};
use orchestrator_boss::store::journal::Journal;

use crate::support::wait::{CEILING, eventually};
use crate::world::{World, mission, until_exists};

fn message(text: &str) -> NewMessage {
    NewMessage { text: text.to_owned(), delivery: Delivery::WhenReady, by: None }
}

fn inbox_entry(instruction: Instruction) -> InboxEntry {
    InboxEntry { id: uuid::Uuid::new_v4(), at: jiff::Timestamp::UNIX_EPOCH, by: None, instruction }
}

/// The state that a server wrote before it was killed.
struct Killed {
    journal: Journal,
    dir: StateDir,
}

impl Killed {
    /// Writes the state of a server that had taken this mission out of the queue.
    async fn while_starting(world: &World, script: &str) -> (Self, WorkerId) {
        let mut settings = world.settings();
        settings.max_workers = Some(0);
        let first = world.server_with(Some("boss"), settings);
        first.create_one(mission("t", script)).await;
        first.orchestrator.shut_down().await;
        let dir = StateDir::open(&world.repo().join(".orchestrator")).unwrap();
        let journal = Journal::open(&dir.journal(), ServerId::from("s-killed")).unwrap();
        let worker = WorkerId::new(1, "t");
        let mut killed = Self { journal, dir };
        killed.write(Entry::Starting { worker: worker.clone(), attempt: 1 });
        (killed, worker)
    }

    fn write(&mut self, entry: Entry) {
        self.journal.transact(jiff::Timestamp::now(), |_| (vec![entry], ())).unwrap();
    }

    /// Creates the attempt's folder, with these messages in its inbox.
    fn attempt(&self, worker: &WorkerId, inbox_entries: Vec<Instruction>) -> AttemptDir {
        let attempt = self.dir.worker(worker).attempt(1);
        attempt.create(&()).unwrap();
        for content in inbox_entries {
            attempt.post(&inbox_entry(content)).unwrap();
        }
        attempt
    }
}

fn message_instruction(text: &str) -> Instruction {
    Instruction::Message { text: text.to_owned(), delivery: Delivery::WhenReady }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn message_before_failed_start_reaches_next_attempt() {
    let world = World::new();
    let (killed, worker) = Killed::while_starting(&world, "say not this").await;
    killed.attempt(&worker, vec![message_instruction("FAKE:\nsay heard")]);
    let server = world.server(Some("boss"));
    server.until("w-1", "completed").await;
    let view = server.orchestrator.get("w-1").await.unwrap();
    assert_eq!(view.worker.last().unwrap().final_message, "heard");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_cancelled_while_starting_never_runs() {
    let world = World::new();
    let (mut killed, worker) = Killed::while_starting(&world, "touch ran").await;
    killed.write(Entry::CancelRequested { worker: worker.clone(), by: "boss".into(), reason: "no".to_owned() });
    killed.attempt(&worker, vec![Instruction::Cancel { reason: "no".to_owned() }]);
    let server = world.server(Some("boss"));
    let answer = server.wait(&[], CEILING).await;
    assert_eq!(answer.settled[0].worker.status, WorkerStatus::Settled(Ending::Cancelled));
    assert!(!world.worktree("w-1-t").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fenced_start_is_repeated_and_not_lost() {
    let world = World::new();
    let (killed, worker) = Killed::while_starting(&world, "say done").await;
    assert!(killed.attempt(&worker, Vec::new()).fence().unwrap());
    let server = world.server(Some("boss"));
    let answer = server.wait(&[], CEILING).await;
    assert_eq!(answer.settled[0].worker.status, WorkerStatus::Settled(Ending::Completed), "{answer:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn next_server_delivers_a_recorded_cancellation() {
    let world = World::new();
    let first = world.server(Some("boss"));
    let id = first.create_one(mission("t", "hang")).await;
    first.until(&id, "running").await;
    first.orchestrator.shut_down().await;
    let dir = StateDir::open(&world.repo().join(".orchestrator")).unwrap();
    let mut journal = Journal::open(&dir.journal(), ServerId::from("s-killed")).unwrap();
    let cancel = Entry::CancelRequested { worker: WorkerId::new(1, "t"), by: "boss".into(), reason: "no".to_owned() };
    journal.transact(jiff::Timestamp::now(), |_| (vec![cancel], ())).unwrap();

    let second = world.server(Some("boss"));
    second.until(&id, "cancelled").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn next_server_makes_the_pending_retry() {
    let world = World::new();
    let mut settings = world.settings();
    settings.max_workers = Some(0);
    let first = world.server_with(Some("boss"), settings);
    let mut twice = mission("t", "say done");
    twice.max_attempts = 2;
    first.create_one(twice).await;
    first.orchestrator.shut_down().await;
    let dir = StateDir::open(&world.repo().join(".orchestrator")).unwrap();
    let mut journal = Journal::open(&dir.journal(), ServerId::from("s-killed")).unwrap();
    let worker = WorkerId::new(1, "t");
    let brief = Box::new(AttemptSummary::of(&outcome(&worker, Ending::Failed), None));
    let entries = vec![Entry::Starting { worker: worker.clone(), attempt: 1 }, Entry::Settled { worker, brief }];
    journal.transact(jiff::Timestamp::now(), |_| (entries, ())).unwrap();

    let second = world.server(Some("boss"));
    let answer = second.wait(&[], CEILING).await;
    assert_eq!((answer.status, answer.settled[0].worker.settled.len()), (WaitStatus::Settled, 2), "{answer:#?}");
}

/// Returns the record of a first attempt that did nothing.
fn outcome(worker: &WorkerId, status: Ending) -> Outcome {
    Outcome {
        worker_id: worker.clone(),
        attempt: 1,
        backend: "fake".into(),
        status,
        run: Run { seconds: Some(1), ..Run::default() },
        verification: Verification::NotRequested,
        likely_cause: None,
        changes: Changes::default(),
        cleanup: Cleanup { containment: Containment::Full, ..Cleanup::default() },
        settled_at: jiff::Timestamp::now(),
    }
}

fn supervisor(attempt: &AttemptDir) -> Identity {
    let status: serde_json::Value = serde_json::from_slice(&std::fs::read(attempt.status()).unwrap()).unwrap();
    serde_json::from_value(status["supervisor"].clone()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancel_succeeds_though_hanging_supervisor_is_killed() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let id = server.create_one(mission("t", "touch ready\nhang")).await;
    until_exists(&world.worktree(&id).join("ready")).await;
    let dir = StateDir::open(&world.repo().join(".orchestrator")).unwrap();
    let attempt = dir.worker(&WorkerId::new(1, "t")).attempt(1);
    let supervisor = supervisor(&attempt);
    send(&supervisor, Signal::Stop);
    let cancel = server.orchestrator.cancel(&server.boss, &id, "no");
    let kill = async {
        while attempt.cancelled().is_none() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        send(&supervisor, Signal::Kill);
    };
    let (answer, ()) = tokio::join!(cancel, kill);
    assert_eq!(answer.unwrap().status, WorkerStatus::Settled(Ending::Cancelled));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn message_during_foreign_settlement_reaches_next_attempt() {
    let world = World::new();
    let (mut killed, worker) = Killed::while_starting(&world, "say never").await;
    // The other server is alive but slow: it has closed the inbox, and settles the attempt a moment later.
    let lock = killed.dir.server_lock(&ServerId::from("s-killed"));
    let _lives = orchestrator_boss::files::lease::take(&lock).unwrap();
    killed.write(Entry::ServerJoined { boss: "boss".into(), directory: world.repo() });
    killed.attempt(&worker, Vec::new()).close_inbox_unread().unwrap();
    let server = world.server(Some("boss"));
    let sending = server.orchestrator.send_message(&server.boss, "w-1", message("FAKE:\nsay heard"));
    let settling = async {
        // The answer shows that the message was accepted, since requests are handled in order.
        server.orchestrator.get("w-1").await.unwrap();
        let brief = Box::new(AttemptSummary::of(&outcome(&worker, Ending::Completed), None));
        killed.write(Entry::Settled { worker: worker.clone(), brief });
    };
    let both = async { tokio::join!(sending, settling) };
    let (answer, ()) = tokio::time::timeout(CEILING, both).await.expect("the message is answered");
    assert_eq!(answer.unwrap().delivered, MessageDelivery::NextAttempt);
    server.until("w-1", "completed").await;
    let view = server.orchestrator.get("w-1").await.unwrap();
    assert_eq!((view.worker.settled.len(), view.worker.last().unwrap().final_message.as_str()), (2, "heard"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreadable_outcome_delays_the_settlement() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let gate = world.path("gate");
    let id = server.create_one(mission("t", &format!("wait-file {}", gate.display()))).await;
    server.until(&id, "running").await;
    let dir = StateDir::open(&world.repo().join(".orchestrator")).unwrap();
    let attempt = dir.worker(&WorkerId::new(1, "t")).attempt(1);
    let supervisor = supervisor(&attempt);
    // A folder in place of the record: it cannot be read, and the supervisor cannot write its own.
    std::fs::create_dir(attempt.outcome_path()).unwrap();
    send(&supervisor, Signal::Kill);
    let status = || async { server.orchestrator.get(&id).await.unwrap().worker.status };
    while supervisor.is_alive() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    server.wait(&[&id], std::time::Duration::from_secs(1)).await;
    assert_eq!(status().await, WorkerStatus::Running);
    std::fs::remove_dir(attempt.outcome_path()).unwrap();
    server.until(&id, "lost").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_with_removed_folder_is_lost() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let id = server.create_one(mission("t", "touch ready\nhang")).await;
    until_exists(&world.worktree(&id).join("ready")).await;
    server.until(&id, "running").await;
    let folder = world.repo().join(".orchestrator/workers").join(&id);
    let gone = world.path("gone");
    std::fs::rename(&folder, &gone).unwrap();
    std::fs::remove_dir_all(&gone).unwrap();
    server.until(&id, "lost").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mission_waits_for_a_server_with_its_backend() {
    let world = World::new();
    let mut settings = world.settings();
    settings.max_workers = Some(0);
    let first = world.server_with(Some("boss"), settings);
    let id = first.create_one(mission("t", "say done")).await;
    first.orchestrator.shut_down().await;
    let mut without = world.settings();
    without.custom.clear();
    let second = world.server_with(Some("other"), without);
    second.wait(&[], CEILING).await;
    let view = second.orchestrator.get(&id).await.unwrap();
    assert_eq!(view.worker.status, WorkerStatus::Queued);
    assert_eq!(view.waits_for.as_deref(), Some("a server whose settings have the backend fake"));
    let third = world.server(Some("third"));
    third.until(&id, "completed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logout_interrupts_workers_and_keeps_their_work() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let mut verified = mission("u", "say done");
    let ready = world.shared("verifying");
    verified.verify_command = Some(format!("touch {} && sleep 300", ready.display()));
    let ids = server.create(vec![mission("t", "write half.txt x\ntouch ready\nhang"), verified]).await;
    let ids: Vec<String> = ids.into_iter().map(Result::unwrap).collect();
    until_exists(&world.worktree(&ids[0]).join("ready")).await;
    until_exists(&ready).await;
    let dir = StateDir::open(&world.repo().join(".orchestrator")).unwrap();
    for (id, title) in [(1, "t"), (2, "u")] {
        send(&supervisor(&dir.worker(&WorkerId::new(id, title)).attempt(1)), Signal::Terminate);
    }
    for id in &ids {
        server.until(id, "interrupted").await;
    }
    let view = server.orchestrator.get(&ids[0]).await.unwrap();
    let brief = view.worker.last().unwrap();
    assert_eq!((brief.changes.committed_by_us, brief.changes.uncommitted, brief.survivors), (2, 0, 0), "{brief:#?}");
    assert!(brief.failure.as_ref().unwrap().message.contains("logout"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queued_cancellation_uses_the_record_already_written() {
    let world = World::new();
    let mut settings = world.settings();
    settings.max_workers = Some(0);
    let first = world.server_with(Some("boss"), settings.clone());
    let id = first.create_one(mission("t", "say done")).await;
    first.orchestrator.cancel(&first.boss, &id, "no").await.unwrap();
    let dir = StateDir::open(&world.repo().join(".orchestrator")).unwrap();
    let record =
        dir.worker(&WorkerId::new(1, "t")).attempt(1).outcome().unwrap().expect("a settled attempt has a record");
    first.orchestrator.shut_down().await;

    // The same record, with a journal that lacks the settlement.
    let id = WorkerId::new(2, "t");
    let second = world.server_with(Some("boss"), settings.clone());
    second.create_one(mission("t", "say done")).await;
    second.orchestrator.shut_down().await;
    let left = Outcome { worker_id: id.clone(), settled_at: jiff::Timestamp::UNIX_EPOCH, ..record };
    let attempt = dir.worker(&id).attempt(1);
    attempt.create(&()).unwrap();
    assert!(attempt.settle(&left).unwrap());
    let mut journal = Journal::open(&dir.journal(), ServerId::from("s-killed")).unwrap();
    let cancel = Entry::CancelRequested { worker: id.clone(), by: "boss".into(), reason: "no".to_owned() };
    journal.transact(jiff::Timestamp::now(), |_| (vec![cancel], ())).unwrap();

    let third = world.server_with(Some("boss"), settings);
    third.until("w-2", "cancelled").await;
    let view = third.orchestrator.get("w-2").await.unwrap();
    assert_eq!(view.worker.last().unwrap().settled_at, left.settled_at, "the journal has the time of the record");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn next_server_completes_interrupted_cancellations() {
    let world = World::new();
    let mut settings = world.settings();
    settings.max_workers = Some(0);
    let first = world.server_with(Some("boss"), settings);
    let ids = first.create((0..6).map(|n| mission(&format!("t{n}"), "touch ran")).collect()).await;
    assert!(ids.iter().all(Result::is_ok));
    let ids: Vec<WorkerId> = (0..6).map(|n| WorkerId::new(n + 1, &format!("t{n}"))).collect();
    first.orchestrator.shut_down().await;
    let dir = StateDir::open(&world.repo().join(".orchestrator")).unwrap();
    let journal = Journal::open(&dir.journal(), ServerId::from("s-killed")).unwrap();
    let mut killed = Killed { journal, dir };
    for id in &ids {
        killed.write(Entry::CancelRequested { worker: id.clone(), by: "boss".into(), reason: "no".to_owned() });
    }
    // The killed server had written two records, but no journal entry.
    let records: Vec<Outcome> = ids[..2].iter().map(|id| outcome(id, Ending::Cancelled)).collect();
    for record in &records {
        let attempt = killed.dir.worker(&record.worker_id).attempt(1);
        attempt.make().unwrap();
        assert!(attempt.settle(record).unwrap());
    }

    let server = world.server(Some("boss"));
    for id in &ids {
        server.until(id.as_str(), "cancelled").await;
        let kept = killed.dir.worker(id).attempt(1).outcome().unwrap().unwrap();
        assert_eq!(kept.status, Ending::Cancelled, "{id}");
        if let Some(record) = records.iter().find(|record| record.worker_id == *id) {
            assert_eq!(kept, *record);
        }
    }
}

/// Checks a supervisor that stood still while a server revoked its claim and recorded its loss.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn supervisor_that_stood_still_changes_nothing_after_its_loss() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let gate = world.shared("gate");
    let mut draft = mission("t", "write a.txt x\nsay done");
    draft.verify_command = Some(format!("touch {0}.begun; while [ ! -e {0} ]; do sleep 0.05; done", gate.display()));
    server.create_one(draft).await;
    until_exists(&world.shared("gate.begun")).await;
    server.orchestrator.shut_down().await;
    let dir = StateDir::open(&world.repo().join(".orchestrator")).unwrap();
    let attempt = dir.worker(&WorkerId::new(1, "t")).attempt(1);
    let supervisor = supervisor(&attempt);
    send(&supervisor, Signal::Stop);
    attempt.revoke().unwrap();
    let lost = outcome(&WorkerId::new(1, "t"), Ending::Lost);
    assert!(attempt.settle(&lost).unwrap());
    std::fs::write(&gate, "").unwrap();
    send(&supervisor, Signal::Continue);
    eventually("its exit", || (!supervisor.is_alive()).then_some(())).await;
    assert_eq!(attempt.outcome().unwrap(), Some(lost));
    let log = std::fs::read_to_string(attempt.supervisor_log()).unwrap();
    assert!(log.contains("a server has revoked the claim"), "{log}");
}
