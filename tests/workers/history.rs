//! Archived workers: every call that names one still works.

use orchestrator_boss::attempt::inbox::Delivery;
use orchestrator_boss::attempt::state_dir::StateDir;
use orchestrator_boss::files::lease;
use orchestrator_boss::mission::entry::{AttemptSummary, Entry, NewWorker};
use orchestrator_boss::mission::id::{ServerId, WorkerId};
use orchestrator_boss::mission::lifecycle::WorkerStatus;
use orchestrator_boss::mission::outcome::Changes;
use orchestrator_boss::orchestrator::*;
use orchestrator_boss::store::journal::Journal;

use crate::support::wait::CEILING;
use crate::world::{Server, World, mission};

/// A number of workers that exceeds the limit of the registry.
const MANY: u64 = 601;

/// Writes many newer workers that have settled and were acknowledged, so that the worker `like` is archived.
fn archive_by_age(world: &World, like: &str) {
    let dir = StateDir::open(&world.repo().join(".orchestrator")).unwrap();
    // A live lease keeps other servers from taking over and starting the open workers.
    let server = ServerId::from("s-gone");
    let _lives = lease::take(&dir.server_lock(&server)).unwrap().unwrap();
    let mut journal = Journal::open(&dir.journal(), server).unwrap();
    let first = journal.find(like).unwrap();
    let mut numbers = journal.registry().last_number + 1..;
    let mut ids = Vec::new();
    let new = |number: u64| {
        let mut mission = first.mission.clone();
        mission.task_id = format!("t{number}").as_str().into();
        mission.request_id = None;
        NewWorker {
            id: WorkerId::new(number, "t"),
            boss: first.boss.clone(),
            mission,
            needs: Vec::new(),
            race: None,
            integration_branch: None,
        }
    };
    let workers: Vec<NewWorker> = numbers.by_ref().take(MANY as usize).map(new).collect();
    ids.extend(workers.iter().map(|worker| worker.id.clone()));
    let mut write =
        |entries: Vec<Entry>| journal.transact(jiff::Timestamp::now(), |registry| (entries, registry.seq + 1)).unwrap();
    write(vec![Entry::ServerJoined { boss: first.boss.clone(), directory: world.repo() }]);
    write(vec![Entry::Created { workers }]);
    write(ids.iter().map(|id| Entry::Starting { worker: id.clone(), attempt: 1 }).collect());
    // They have no changes, since changes on the first worker's branch would be merged with it.
    let brief = AttemptSummary { attempt: 1, changes: Changes::default(), ..first.last().unwrap().clone() };
    let settled = |id: &WorkerId| Entry::Settled { worker: id.clone(), brief: Box::new(brief.clone()) };
    let (last, others) = ids.split_last().unwrap();
    write(others.iter().map(settled).collect());
    let notified = others.iter().chain([&first.id]).map(|id| (id.clone(), 1)).collect();
    let delivery = write(vec![Entry::Notified { boss: first.boss.clone(), settled: notified, blocked: Vec::new() }]);
    write(vec![Entry::Acknowledged { deliveries: vec![delivery], settled: Vec::new(), blocked: Vec::new() }]);
    write(vec![settled(last)]);
    assert!(journal.registry().get(&first.id).is_none(), "it was archived");
}

async fn with_archived_worker(world: &World) -> (Server, String) {
    let server = world.server(Some("boss"));
    let mut draft = mission("t", "write a.txt x\ncommit a\nsay done");
    draft.task_id = Some("old".into());
    draft.request_id = Some("once".to_owned());
    let id = server.create_one(draft).await;
    server.until(&id, "completed").await;
    server.orchestrator.shut_down().await;
    archive_by_age(world, &id);
    (world.server(Some("boss")), id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn archived_worker_is_shown_merged_and_removed() {
    let world = World::new();
    let (server, id) = with_archived_worker(&world).await;
    let orchestrator = &server.orchestrator;
    let list = orchestrator.list(&server.boss, Scope::Mine).await.unwrap();
    assert!(list.in_history > 0);
    assert_eq!(list.workers.len() + list.in_history, MANY as usize + 1);
    for name in ["w-1", "old", &id] {
        assert_eq!(orchestrator.get(name).await.unwrap().worker.id.as_str(), id);
    }
    let include =
        Include { log: true, diff: true, attempts: true, log_lines: 5, diff_bytes: 9_000, ..Include::default() };
    let details = orchestrator.details("old", include).await.unwrap();
    assert!(details.diff.unwrap().text.contains("a.txt"));
    assert_eq!((details.attempts.unwrap().len(), details.log.unwrap().is_empty()), (1, false));

    let answer = server.wait(&[&id], CEILING).await;
    assert_eq!((answer.status, answer.already_reported.len()), (WaitStatus::Settled, 1));

    let source = IntegrationSource::Worker("w-1".to_owned());
    let request = IntegrationRequest::of(source);
    let merged = orchestrator.integrate(&server.boss, request).await.unwrap();
    assert_eq!(merged.status.as_str(), "merged");
    assert!(world.repo().join("a.txt").exists());
    archive_by_age(&world, "w-2");
    let all =
        RemovalRequest { target: RemovalTarget::AllIntegrated, repo_path: None, force: false, delete_branch: false };
    let removed = orchestrator.remove_worktree(&server.boss, all).await.unwrap();
    assert_eq!((removed.removed.len(), removed.kept.len()), (1, 0), "{removed:?}");
    assert!(!world.worktree(&id).exists());
    assert!(orchestrator.get("w-1").await.unwrap().worker.worktree_removed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn archived_worker_is_reused_depended_on_and_retried() {
    let world = World::new();
    let (server, id) = with_archived_worker(&world).await;
    let mut same = mission("t", "say no");
    same.request_id = Some("once".to_owned());
    assert_eq!(server.create_one(same).await, id);

    let mut dependant = mission("next", "say built");
    dependant.depends_on = vec!["old".to_owned()];
    let next = server.create_one(dependant).await;
    server.until(&next, "completed").await;
    assert!(world.worktree(&next).join("a.txt").exists(), "it starts from the archived worker's branch");

    archive_by_age(&world, &next);
    let message = NewMessage { text: "FAKE:\nsay heard".to_owned(), delivery: Delivery::WhenReady, by: None };
    let sent = server.orchestrator.send_message(&server.boss, "w-1", message).await.unwrap();
    assert_eq!((sent.delivered, sent.status), (MessageDelivery::NextAttempt, WorkerStatus::Queued));
    let other = world.server(Some("other"));
    other.until("w-1", "completed").await;
    let view = server.orchestrator.get("old").await.unwrap();
    assert_eq!((view.worker.attempt, view.worker.last().unwrap().final_message.as_str()), (2, "heard"));
    let answer = server.wait(&["w-1"], CEILING).await;
    assert_eq!((answer.settled.len(), answer.settled[0].worker.attempt), (1, 2));
}
