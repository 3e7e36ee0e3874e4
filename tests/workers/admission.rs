//! Admission: a backend that refuses work holds its queue and is probed by one worker, bosses take turns, budgets hold.

use std::time::Duration;

use orchestrator_boss::mission::id::BackendName;
use orchestrator_boss::mission::lifecycle::{Ending, WorkerStatus};
use orchestrator_boss::mission::outcome::FailureKind;
use orchestrator_boss::orchestrator::{BackendView, Scope, WaitStatus};

use crate::support::wait::{CEILING, in_time};
use crate::world::{Server, World, mission, until_exists};

async fn fake(server: &Server) -> BackendView {
    let views = server.orchestrator.backend_status(Some(&BackendName::from("fake"))).await.unwrap();
    views.into_iter().next().unwrap()
}

async fn wait_reason(server: &Server, worker: &str) -> String {
    server.orchestrator.get(worker).await.unwrap().waits_for.unwrap_or_default()
}

/// Waits until the worker's wait reason contains this text.
async fn until_waits_for(server: &Server, worker: &str, what: &str) {
    if !in_time(async || wait_reason(server, worker).await.contains(what)).await {
        panic!("{worker} waits for {:?}, not {what:?}", wait_reason(server, worker).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn usage_limit_queues_until_reset_and_uses_fallbacks() {
    let world = World::new();
    let mut settings = world.settings();
    settings.max_workers = Some(1);
    let server = world.server_with(Some("boss"), settings);
    let mut elsewhere = mission("elsewhere", "say there");
    elsewhere.fallback_backends = vec!["other".into()];
    let drafts = vec![mission("refused", "limited 8 the plan is used up"), mission("waits", "say here"), elsewhere];
    let ids: Vec<String> = server.create(drafts).await.into_iter().map(Result::unwrap).collect();

    server.until(&ids[2], "completed").await;
    let refused = server.orchestrator.get(&ids[0]).await.unwrap().worker;
    let refused = refused.last().unwrap();
    assert_eq!(refused.failure.as_ref().map(|failure| failure.kind), Some(FailureKind::UsageLimit));
    let until = refused.resets_at.expect("it was stated");
    let third = server.orchestrator.get(&ids[2]).await.unwrap().worker;
    assert_eq!(third.last().unwrap().backend.as_str(), "other");
    let why = third.failed_over.clone().unwrap_or_default();
    assert!(why.contains("other instead of waiting for fake") && why.contains("the plan is used up"), "{why}");

    server.until(&ids[1], "completed").await;
    let waited = server.orchestrator.get(&ids[1]).await.unwrap().worker;
    let brief = waited.last().unwrap();
    assert!(brief.started_at.unwrap() >= until, "it started at {:?}, before {until}", brief.started_at);
    // The time in the queue does not count as run time.
    let since_the_reset = brief.settled_at.duration_since(until).as_secs();
    assert!(brief.seconds as i64 <= since_the_reset + 1, "{} s, of {since_the_reset}", brief.seconds);
    assert_eq!(fake(&server).await.held_until, None);
    // The waiting workers were reported once, and not as failures.
    let mut settled = Vec::new();
    while settled.len() < 3 {
        settled.extend(server.wait(&[], CEILING).await.settled);
    }
    let failed = settled.iter().filter(|view| view.worker.status == WorkerStatus::Settled(Ending::Failed)).count();
    assert_eq!((settled.len(), failed), (3, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backoff_is_reported_once_and_survives_restart() {
    let world = World::new();
    let mut settings = world.settings();
    settings.max_workers = Some(1);
    let server = world.server_with(Some("boss"), settings.clone());
    let drafts =
        vec![mission("refused", "limited 3000 the plan is used up"), mission("a", "say a"), mission("b", "say b")];
    let ids: Vec<String> = server.create(drafts).await.into_iter().map(Result::unwrap).collect();
    let answer = server.wait(&[], CEILING).await;
    assert_eq!((answer.settled.len(), answer.queued, answer.attention.len()), (1, 2, 2), "{answer:#?}");
    assert!(answer.waits_for.unwrap_or_default().starts_with("2 for fake to accept work again at"));
    let answer = server.wait(&[], Duration::from_millis(200)).await;
    assert_eq!((answer.status, answer.attention.len()), (WaitStatus::StillRunning, 0), "it was reported before");
    let until = fake(&server).await.held_until.expect("it is held");
    server.orchestrator.shut_down().await;

    let next = world.server_with(Some("boss"), settings);
    until_waits_for(&next, &ids[2], "(usage limit): the plan is used up").await;
    assert_eq!(fake(&next).await.held_until, Some(until));
    let (ended, _) = next.orchestrator.cancel_all(&next.boss, Scope::Mine, "no").await.unwrap();
    assert_eq!(ended.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_answer_to_the_probe_ends_the_backoff() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let refused = server.create_one(mission("refused", "limited 6 not now")).await;
    server.until(&refused, "failed").await;
    let (answer, end) = (world.path("answer"), world.path("end"));
    let script = format!("touch began\nwait-file {}\nsay hello\nwait-file {}", answer.display(), end.display());
    let drafts = vec![mission("tries", &script), mission("b", "say b"), mission("c", "say c")];
    let ids: Vec<String> = server.create(drafts).await.into_iter().map(Result::unwrap).collect();

    until_exists(&world.worktree(&ids[0]).join("began")).await;
    for id in &ids[1..] {
        until_waits_for(&server, id, "which probes whether fake accepts work again").await;
    }
    std::fs::write(&answer, "").unwrap();
    for id in &ids[1..] {
        server.until(id, "completed").await;
    }
    assert!(server.orchestrator.get(&ids[0]).await.unwrap().worker.status.is_live());
    std::fs::write(&end, "").unwrap();
    server.until(&ids[0], "completed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bosses_take_turns_whichever_server_is_faster() {
    let world = World::new();
    let mut settings = world.settings();
    settings.max_workers = Some(1);
    let (many, one) = (world.server_with(Some("many"), settings.clone()), world.server_with(Some("one"), settings));
    let (gate, log) = (world.path("gate"), world.shared("log"));
    let script = |name: &str| format!("wait-file {}\ntrace {} {name}", gate.display(), log.display());
    let drafts = ["a", "b", "c", "d"].map(|name| mission(name, &script(name))).to_vec();
    let first: Vec<String> = many.create(drafts).await.into_iter().map(Result::unwrap).collect();
    many.until(&first[0], "running").await;
    let other = one.create_one(mission("other", &script("other"))).await;
    std::fs::write(&gate, "").unwrap();
    many.until(&first[3], "completed").await;
    one.until(&other, "completed").await;
    let log = std::fs::read_to_string(&log).unwrap();
    let order: Vec<&str> = log.lines().filter_map(|line| line.split(' ').next_back()).collect();
    assert_eq!(order, ["a", "other", "b", "c", "d"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn boss_budget_ends_workers_and_blocks_the_queue() {
    let world = World::new();
    let mut settings = world.settings();
    settings.boss.max_tokens = Some(100);
    let server = world.server_with(Some("boss"), settings);
    let ids = server.create(vec![mission("a", "usage 40 10 0.5\nhang"), mission("b", "usage 40 10 0.25\nhang")]).await;
    let ids: Vec<String> = ids.into_iter().map(Result::unwrap).collect();
    for id in &ids {
        server.until(id, "failed").await;
        let failure = server.orchestrator.get(id).await.unwrap().worker.last().unwrap().failure.clone().unwrap();
        assert_eq!(failure.kind, FailureKind::Budget);
        assert!(failure.message.contains("max_tokens 100 of [boss] is reached (100 used)"), "{failure:?}");
    }
    let late = server.create_one(mission("late", "say late")).await;
    let mut answer = server.wait(&[], CEILING).await;
    while answer.attention.is_empty() {
        answer = server.wait(&[], CEILING).await;
    }
    assert_eq!(answer.attention[0].worker.id.as_str(), late);
    let why = answer.attention[0].waits_for.clone().unwrap_or_default();
    assert!(why.contains("the user to raise the budget: max_tokens 100 of [boss]"), "{why}");
    assert_eq!((answer.spent.tokens, answer.spent.cost_usd), (100, 0.75));
    // Another boss has its own budget.
    let other = world.server(Some("other"));
    let free = other.create_one(mission("free", "say free")).await;
    other.until(&free, "completed").await;
    server.orchestrator.cancel(&server.boss, &late, "no").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousand_queued_workers_are_cancelled_with_records() {
    let world = World::new();
    let mut settings = world.settings();
    settings.max_workers = Some(1);
    let server = world.server_with(Some("boss"), settings);
    let runs = server.create_one(mission("runs", "hang")).await;
    server.until(&runs, "running").await;
    let drafts = (0..1_000).map(|n| mission(&format!("t{n}"), "say done")).collect();
    let ids: Vec<String> = server.create(drafts).await.into_iter().map(Result::unwrap).collect();
    let began = std::time::Instant::now();
    let (ended, settled_before) = server.orchestrator.cancel_all(&server.boss, Scope::Mine, "no").await.unwrap();
    eprintln!("1001 workers were cancelled in {:?}", began.elapsed());
    assert_eq!((ended.len(), settled_before), (1_001, 0));
    for (id, answer) in &ended {
        let answer = answer.as_ref().unwrap();
        assert_eq!((answer.status, answer.survivors), (WorkerStatus::Settled(Ending::Cancelled), 0), "{id}");
    }
    for (id, _) in ended.iter().filter(|(id, _)| ids.contains(&id.to_string())) {
        let record = server.orchestrator.folder(id).attempt(1).outcome().unwrap();
        assert_eq!(record.map(|record| record.status), Some(Ending::Cancelled), "{id}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn budget_is_shown_with_its_enforcement() {
    let world = World::new();
    let mut settings = world.settings();
    settings.max_workers = Some(0);
    let server = world.server_with(Some("boss"), settings);
    let mut reporting = mission("reporting", "say done");
    (reporting.max_tokens, reporting.max_cost_usd) = (Some(500), Some(1.5));
    let mut silent = mission("silent", "say done");
    (silent.backend, silent.max_tokens) = ("plain".into(), Some(500));
    let cases = [
        (reporting, Some("max_cost_usd 1.5, max_tokens 500 (enforced while it works)")),
        (silent, Some("max_tokens 500 (enforced: none, the CLI reports its usage only at the end of a turn)")),
        (mission("free", "say done"), None),
    ];
    for (draft, expected) in cases {
        let id = server.create_one(draft).await;
        assert_eq!(server.orchestrator.get(&id).await.unwrap().budget.as_deref(), expected);
    }
}
