//! Messages that a worker did not receive before it ended, their authors, and the run time of a worker.

use orchestrator_boss::attempt::inbox::Delivery;
use orchestrator_boss::mission::message::Author;
use orchestrator_boss::orchestrator::{DeliveryState, Include, MessageView, NewMessage, RetryRequest};

use crate::support::wait::{CEILING, in_time};
use crate::world::{Server, World, mission};

async fn write_to(server: &Server, worker: &str, text: &str) -> uuid::Uuid {
    let message = NewMessage { text: text.to_owned(), delivery: Delivery::WhenReady, by: None };
    server.orchestrator.send_message(&server.boss, worker, message).await.expect("the message is accepted").message_id
}

async fn written(server: &Server, worker: &str) -> Vec<MessageView> {
    let include = Include { messages: true, ..Include::default() };
    server
        .orchestrator
        .details(worker, include)
        .await
        .expect("a known worker")
        .messages
        .expect("the requested messages")
}

async fn undelivered(server: &Server, worker: &str) -> Vec<String> {
    let view = server.orchestrator.get(worker).await.expect("a known worker");
    view.worker.last().expect("a settled attempt").undelivered.clone()
}

/// Checks that the next attempt receives the message that the last one did not.
async fn check_delivery_after_retry(server: &Server, worker: &str, expected: &str) {
    server.orchestrator.retry(&server.boss, worker, RetryRequest::default()).await.expect("a retry");
    server.until(worker, "completed").await;
    let view = server.orchestrator.get(worker).await.expect("a known worker");
    assert_eq!(view.worker.last().unwrap().final_message, expected, "{:#?}", view.worker.next);
    assert!(undelivered(server, worker).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn message_to_cancelled_worker_reaches_next_attempt() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let id = server.create_one(mission("waits", "session s-1\nhang")).await;
    server.until(&id, "running").await;
    let message = write_to(&server, &id, "FAKE:\nsay I heard it").await;
    let waiting = written(&server, &id).await;
    assert_eq!((waiting[0].id, waiting[0].by, waiting[0].state), (message, Some(Author::Boss), DeliveryState::Waiting));

    let answer = server.orchestrator.cancel(&server.boss, &id, "the plan has changed").await.unwrap();
    assert_eq!(answer.undelivered, ["FAKE:\nsay I heard it"]);
    assert_eq!(written(&server, &id).await[0].state, DeliveryState::Never);
    let view = server.orchestrator.get(&id).await.unwrap();
    let reasons = view.worker.last().unwrap().reasons().unwrap();
    for says in
        ["cancelled by the boss: the plan has changed", "1 message was not delivered: \"FAKE:\\nsay I heard it\""]
    {
        assert!(reasons.contains(says), "{reasons}");
    }
    check_delivery_after_retry(&server, &id, "I heard it").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queued_message_survives_cancellation() {
    let world = World::new();
    let mut settings = world.settings();
    settings.max_workers = Some(1);
    let server = world.server_with(Some("boss"), settings);
    let gate = world.path("gate");
    let runs = server.create_one(mission("runs", &format!("wait-file {}", gate.display()))).await;
    server.until(&runs, "running").await;
    let queued = server.create_one(mission("queued", "say nobody wrote")).await;
    let message = write_to(&server, &queued, "FAKE:\nsay I heard it").await;
    let waiting = written(&server, &queued).await;
    assert_eq!((waiting[0].id, waiting[0].state), (message, DeliveryState::Waiting));
    let answer = server.orchestrator.cancel(&server.boss, &queued, "not now").await.unwrap();
    assert_eq!(answer.undelivered, ["FAKE:\nsay I heard it"]);
    // After a second cancellation in the queue, the message is still undelivered.
    server.orchestrator.retry(&server.boss, &queued, RetryRequest::default()).await.unwrap();
    let answer = server.orchestrator.cancel(&server.boss, &queued, "not yet").await.unwrap();
    assert_eq!(answer.undelivered, ["FAKE:\nsay I heard it"]);
    std::fs::write(&gate, "").unwrap();
    server.until(&runs, "completed").await;
    check_delivery_after_retry(&server, &queued, "I heard it").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn message_to_failing_worker_reaches_next_attempt() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let gate = world.path("gate");
    let script = format!("session s-1\nwait-file {}\nfail-once {}", gate.display(), world.shared("failed").display());
    let id = server.create_one(mission("fails", &script)).await;
    server.until(&id, "running").await;
    write_to(&server, &id, "FAKE:\nsay I heard it").await;
    std::fs::write(&gate, "").unwrap();
    server.until(&id, "failed").await;
    assert_eq!(undelivered(&server, &id).await, ["FAKE:\nsay I heard it"]);
    check_delivery_after_retry(&server, &id, "I heard it").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn message_to_lost_worker_reaches_next_attempt() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let id = server.create_one(mission("lost", "session s-1\nhang")).await;
    server.until(&id, "running").await;
    write_to(&server, &id, "FAKE:\nsay I heard it").await;
    let live = async || server.orchestrator.get(&id).await.expect("a known worker").live;
    assert!(in_time(async || live().await.is_some_and(|live| live.cli.is_some())).await);
    let supervisor = live().await.unwrap().supervisor;
    let pid = rustix::process::Pid::from_raw(supervisor.pid as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    server.until(&id, "lost").await;
    assert_eq!(undelivered(&server, &id).await, ["FAKE:\nsay I heard it"]);
    check_delivery_after_retry(&server, &id, "I heard it").await;
}

/// Checks the time during verification, after settlement, at the retry, and after the next attempt.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn time_of_a_worker_never_decreases() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let gate = world.path("gate");
    let mut timed = mission("timed", "say done");
    timed.verify_command = Some(format!("while [ ! -e {} ]; do sleep 0.05; done", gate.display()));
    let id = server.create_one(timed).await;
    let ran = async || server.orchestrator.get(&id).await.expect("a known worker").ran_seconds();
    assert!(in_time(async || ran().await.is_some_and(|seconds| seconds >= 2)).await);
    server.until(&id, "verifying").await;
    let shown = ran().await.unwrap();
    std::fs::write(&gate, "").unwrap();
    server.until(&id, "completed").await;
    let settled = ran().await.unwrap();
    assert!(settled >= shown, "{settled} s after {shown} s were shown");
    let brief = server.wait(&[&id], CEILING).await.settled[0].worker.last().unwrap().clone();
    assert_eq!(brief.elapsed(), settled);
    let view = server.orchestrator.retry(&server.boss, &id, RetryRequest::default()).await.unwrap();
    assert!(view.ran_seconds().unwrap() >= settled, "{view:#?}");
    server.until(&id, "completed").await;
    let view = server.orchestrator.get(&id).await.unwrap();
    let sum: u64 = view.worker.settled.iter().map(|brief| brief.elapsed()).sum();
    assert_eq!((view.worker.settled.len(), view.ran_seconds(), view.spent().seconds), (2, Some(sum), sum));
}
