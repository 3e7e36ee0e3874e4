//! Several servers on one state directory: notifications, cancellations and takeovers.

use std::time::Duration;

use orchestrator_boss::attempt::state_dir::StateDir;
use orchestrator_boss::mission::entry::Entry;
use orchestrator_boss::mission::id::ServerId;
use orchestrator_boss::mission::lifecycle::{Ending, WorkerStatus};
use orchestrator_boss::orchestrator::{Scope, WaitAnswer, WaitStatus};

use crate::support::wait::{CEILING, in_time};
use crate::world::{Server, World, mission};

/// Returns the path of the lock that a live server holds.
fn lock_of(world: &World, server: &str) -> std::path::PathBuf {
    let dir = StateDir::open(&world.repo().join(".orchestrator")).unwrap();
    dir.server_lock(&ServerId::from(server))
}

/// Returns the entries of the journal, oldest first.
fn journal(world: &World) -> Vec<(String, Entry)> {
    let text = std::fs::read_to_string(world.repo().join(".orchestrator/journal/000001.jsonl")).unwrap();
    // The last line may be incomplete.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let lines = whole.lines().skip(1).map(|line| serde_json::from_str(line).unwrap());
    lines.map(|line: orchestrator_boss::mission::entry::Line| (line.server.to_string(), line.entry)).collect()
}

/// Waits on both servers. Returns how often they report the worker without a redelivery mark.
async fn count_unmarked_reports(one: &Server, two: &Server, id: &str) -> usize {
    let named = [id];
    let (first, second): (WaitAnswer, WaitAnswer) = tokio::join!(one.wait(&named, CEILING), two.wait(&named, CEILING));
    let settled = [first.settled, second.settled].concat();
    settled.iter().filter(|view| view.worker.id.as_str() == id && !view.redelivered).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_waits_report_a_settlement_once() {
    let world = World::new();
    let (one, two) = (world.server(Some("boss")), world.server(Some("boss")));
    for round in 0..8 {
        let id = one.create_one(mission(&format!("t{round}"), "say done")).await;
        assert_eq!(count_unmarked_reports(&one, &two, &id).await, 1, "{id}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn created_worker_is_known_to_all_servers() {
    let world = World::new();
    let mut settings = world.settings();
    settings.max_workers = Some(0);
    let (one, two) = (world.server_with(Some("boss"), settings.clone()), world.server_with(Some("boss"), settings));
    one.create_one(mission("first", "say done")).await;
    for round in 0..30 {
        let id = one.create_one(mission(&format!("t{round}"), "say done")).await;
        assert!(two.orchestrator.get(&id).await.is_ok(), "{id} is unknown to the other server");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wait_reports_a_cancellation_by_another_server() {
    let world = World::new();
    let (one, two) = (world.server(Some("boss")), world.server(Some("boss")));
    let id = one.create_one(mission("t", "hang")).await;
    one.until(&id, "running").await;
    let named = [id.as_str()];
    let (answer, cancelled) = tokio::join!(one.wait(&named, CEILING), two.orchestrator.cancel(&two.boss, &id, "no"));
    assert_eq!(cancelled.unwrap().survivors, 0);
    assert_eq!(answer.settled[0].worker.status, WorkerStatus::Settled(Ending::Cancelled));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_server_takes_over_a_dead_one() {
    let world = World::new();
    let dying = world.server(Some("boss"));
    let id = dying.create_one(mission("t", "hang")).await;
    dying.until(&id, "running").await;
    let others: Vec<Server> = (0..3).map(|n| world.server(Some(&format!("other-{n}")))).collect();
    let old = dying.orchestrator.get(&id).await.unwrap().worker.lease.clone();
    // A server without a lock counts as dead.
    std::fs::remove_file(lock_of(&world, old.as_str())).unwrap();
    let taken = || journal(&world).into_iter().filter(|(_, entry)| matches!(entry, Entry::LeaseTaken { .. })).count();
    assert!(in_time(async || taken() > 0).await, "a server takes over");
    // Each server checks for dead servers before it answers.
    for other in &others {
        other.orchestrator.get(&id).await.unwrap();
    }
    dying.orchestrator.cancel(&dying.boss, &id, "no").await.unwrap();
    assert_eq!(taken(), 1, "{:#?}", journal(&world));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn takeover_by_another_boss_keeps_the_owner() {
    let world = World::new();
    let first = world.server(Some("boss"));
    let id = first.create_one(mission("t", "hang")).await;
    first.until(&id, "running").await;
    first.orchestrator.shut_down().await;
    let other = world.server(Some("other"));
    let taken = async {
        while !journal(&world).iter().any(|(_, entry)| matches!(entry, Entry::LeaseTaken { .. })) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(CEILING, taken).await.expect("the other server takes it over");

    // Calls without a worker's name reach only own workers.
    let own = other.orchestrator.list(&other.boss, Scope::Mine).await.unwrap();
    assert!(own.workers.is_empty(), "{own:?}");
    assert!(other.orchestrator.cancel(&other.boss, &id, "no").await.is_err());
    let back = world.server(Some("boss"));
    back.orchestrator.cancel(&back.boss, &id, "enough").await.unwrap();
    assert_eq!(other.wait(&[], Duration::ZERO).await.status, WaitStatus::Idle, "the other boss is not notified");
    assert_eq!(back.wait(&[], CEILING).await.settled[0].worker.status, WorkerStatus::Settled(Ending::Cancelled));
}

/// Checks a server that was stopped so long that another one took its workers, and does not know it yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_resuming_after_a_takeover_does_no_harm() {
    let world = World::new();
    let sleeper = world.server(Some("boss"));
    let gate = world.path("gate");
    let script = format!("wait-file {}\nappend {} ran\nsay done", gate.display(), world.shared("runs").display());
    let running = sleeper.create_one(mission("a", &script)).await;
    sleeper.until(&running, "running").await;
    let mut after = mission("b", &script);
    after.depends_on = vec![running.clone()];
    let queued = sleeper.create_one(after).await;
    let old = sleeper.orchestrator.get(&running).await.unwrap().worker.lease.clone();
    std::fs::remove_file(lock_of(&world, old.as_str())).unwrap();
    let heir = world.server(Some("boss"));
    let taken = async {
        while heir.orchestrator.get(&queued).await.unwrap().worker.lease == old {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(CEILING, taken).await.expect("another server takes its workers");

    std::fs::write(&gate, "").unwrap();
    for id in [&running, &queued] {
        assert_eq!(count_unmarked_reports(&sleeper, &heir, id).await, 1, "{id}");
    }
    assert_eq!(std::fs::read_to_string(world.shared("runs")).unwrap(), "ran\nran\n", "each ran once");
    let settled = journal(&world).into_iter().filter(|(_, entry)| matches!(entry, Entry::Starting { .. })).count();
    assert_eq!(settled, 2, "{:#?}", journal(&world));
}
