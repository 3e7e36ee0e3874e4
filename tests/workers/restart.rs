//! Workers continue when servers exit, and the next server takes them over.

use orchestrator_boss::mission::delivery::Notification;
use orchestrator_boss::mission::lifecycle::{Ending, WorkerStatus};
use orchestrator_boss::orchestrator::{IntegrationRequest, IntegrationSource, Scope, WaitRequest, WaitStatus, Waited};
use orchestrator_boss::process::{Identity, Signal, send};
use tokio_util::sync::CancellationToken;

use crate::starts::one_shot_client;
use crate::support::wait::CEILING;
use crate::world::{World, mission, until_exists};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn next_server_continues_all_workers() {
    let world = World::new();
    let mut settings = world.settings();
    settings.max_workers = Some(2);
    let gate = world.path("gate");
    let script = format!("wait-file {}\nwrite a.txt x\ncommit a", gate.display());
    let first = world.server_with(Some("boss"), settings.clone());
    let ids = first.create((0..3).map(|n| mission(&format!("t{n}"), &script)).collect()).await;
    let ids: Vec<String> = ids.into_iter().map(Result::unwrap).collect();
    // The next server starts workers that had not started.
    first.until("w-1", "running").await;
    first.until("w-2", "running").await;
    first.orchestrator.shut_down().await;

    std::fs::write(&gate, "").unwrap();
    until_exists(&world.repo().join(".orchestrator/workers/w-1-t0/attempts/1/outcome.json")).await;
    let second = world.server_with(Some("boss"), settings);
    for id in &ids {
        second.until(id, "completed").await;
    }
    let mut reported = Vec::new();
    while reported.len() < 3 {
        reported.extend(second.wait(&[], CEILING).await.settled.into_iter().map(|view| view.worker.id.to_string()));
    }
    reported.sort();
    assert_eq!(reported, ids);
    assert_eq!(second.wait(&[], CEILING).await.status, WaitStatus::Idle);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_answer_after_restart_has_all_ended_workers() {
    let world = World::new();
    let gate = world.path("gate");
    let first = world.server(Some("boss"));
    let script = format!("wait-file {}\nsay done", gate.display());
    let ids = first.create((0..6).map(|n| mission(&format!("t{n}"), &script)).collect()).await;
    let ids: Vec<String> = ids.into_iter().map(Result::unwrap).collect();
    for id in &ids {
        first.until(id, "running").await;
    }
    first.orchestrator.shut_down().await;
    std::fs::write(&gate, "").unwrap();
    for id in &ids {
        until_exists(&world.repo().join(".orchestrator/workers").join(id).join("attempts/1/outcome.json")).await;
    }
    let second = world.server(Some("boss"));
    let answer = second.orchestrator.list(&second.boss, Scope::Mine).await.unwrap();
    let statuses: Vec<&str> = answer.workers.iter().map(|view| view.worker.status.as_str()).collect();
    assert_eq!(statuses, ["completed"; 6]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_settle_once_what_ended_without_server() {
    let world = World::new();
    let gate = world.path("gate");
    let first = world.server(Some("boss"));
    let script = format!("wait-file {}\nwrite a.txt x\ncommit a", gate.display());
    let id = first.create_one(mission("t", &script)).await;
    first.until(&id, "running").await;
    first.orchestrator.shut_down().await;
    std::fs::write(&gate, "").unwrap();
    until_exists(&world.repo().join(".orchestrator/workers").join(&id).join("attempts/1/outcome.json")).await;

    let (one, other) = (one_shot_client(&world), one_shot_client(&world));
    for command in [&one, &other] {
        let worker = command.get(&id).await.unwrap().worker;
        assert_eq!((worker.status.as_str(), worker.settled.len()), ("completed", 1));
    }
    let request = IntegrationRequest::of(IntegrationSource::Worker(id.clone()));
    assert_eq!(one.integrate(&first.boss, request).await.unwrap().status.as_str(), "merged");
    one.shut_down().await;
    other.shut_down().await;
    // The next server of the boss reports the settlement.
    let second = world.server(Some("boss"));
    assert_eq!(second.wait(&[], CEILING).await.settled.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_leave_workers_to_their_live_server() {
    let world = World::new();
    let gate = world.path("gate");
    let first = world.server(Some("boss"));
    let id = first.create_one(mission("t", &format!("wait-file {}", gate.display()))).await;
    first.until(&id, "running").await;
    let command = one_shot_client(&world);
    std::fs::write(&gate, "").unwrap();
    first.until(&id, "completed").await;
    assert_eq!(command.get(&id).await.unwrap().worker.settled.len(), 1);
    command.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unacknowledged_settlement_is_redelivered_once_with_a_mark() {
    let world = World::new();
    let first = world.server(Some("boss"));
    let id = first.create_one(mission("t", "say done")).await;
    assert_eq!(first.wait(&[], CEILING).await.settled.len(), 1);
    first.orchestrator.shut_down().await;

    let second = world.server(Some("boss"));
    let answer = second.wait(&[], CEILING).await;
    assert_eq!((answer.settled.len(), answer.settled[0].redelivered), (1, true));
    // A later request acknowledges the answer; one that arrives at once could have crossed it.
    let began = std::time::Instant::now();
    while second.orchestrator.get(&id).await.unwrap().worker.notification != Notification::Acknowledged {
        assert!(began.elapsed() < CEILING, "no later request counts as an acknowledgement");
        second.orchestrator.arrived(&second.boss);
        tokio::task::yield_now().await;
    }
    assert_eq!(second.wait(&[], CEILING).await.status, WaitStatus::Idle);
    second.orchestrator.shut_down().await;

    let third = world.server(Some("boss"));
    assert_eq!(third.wait(&[], CEILING).await.status, WaitStatus::Idle);
    assert_eq!(third.wait(&[&id], CEILING).await.already_reported.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn second_wait_gets_what_a_cancelled_one_missed() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let id = server.create_one(mission("t", "say done")).await;
    let request =
        WaitRequest { workers: Vec::new(), receipts: Vec::new(), timeout: CEILING, most: 100, background: None };
    let stop = CancellationToken::new();
    let (answer, delivery) = server.orchestrator.wait(&server.boss, request, &stop).await.unwrap();
    assert!(matches!(answer, Waited::Answered(answer) if answer.settled.len() == 1));
    // The second wait begins before the first answer is discarded.
    let (beside, ()) = tokio::join!(biased; server.wait(&[], CEILING), async { drop(delivery) });
    assert_eq!(beside.status, WaitStatus::Settled);
    assert_eq!(beside.settled[0].worker.id.as_str(), id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn boss_without_session_takes_over_workers_left_here() {
    let world = World::new();
    let first = world.server(None);
    let gate = world.path("gate");
    let id = first.create_one(mission("t", &format!("wait-file {}", gate.display()))).await;
    first.until(&id, "running").await;
    let beside = world.server(None);
    assert_eq!(beside.wait(&[], CEILING).await.status, WaitStatus::Idle, "the first server is alive");
    first.orchestrator.shut_down().await;
    beside.orchestrator.shut_down().await;

    let next = world.server(None);
    std::fs::write(&gate, "").unwrap();
    let answer = next.wait(&[], CEILING).await;
    assert_eq!((answer.status, answer.settled[0].worker.id.as_str()), (WaitStatus::Settled, id.as_str()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_supervisor_loses_the_worker_and_leaves_nothing() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let id = server.create_one(mission("t", "write half.txt x\ndaemon 300\ntouch ready\nhang")).await;
    until_exists(&world.worktree(&id).join("ready")).await;
    let status = world.repo().join(".orchestrator/workers").join(&id).join("attempts/1/status.json");
    let status: serde_json::Value = serde_json::from_slice(&std::fs::read(status).unwrap()).unwrap();
    let supervisor: Identity = serde_json::from_value(status["supervisor"].clone()).unwrap();
    send(&supervisor, Signal::Kill);

    server.until(&id, "lost").await;
    let answer = server.wait(&[], CEILING).await;
    let brief = answer.settled[0].worker.last().unwrap();
    assert_eq!((brief.status, brief.changes.uncommitted, brief.survivors), (Ending::Lost, 2, 0), "{brief:#?}");
    assert_eq!(answer.settled[0].worker.status, WorkerStatus::Settled(Ending::Lost));
}
