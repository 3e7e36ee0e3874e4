//! Queues, messages, retries, dependencies, and waits of several bosses.

use std::time::Duration;

use orchestrator_boss::attempt::inbox::Delivery;
use orchestrator_boss::backend::AgentEvent;
use orchestrator_boss::mission::create::DraftPlace;
use orchestrator_boss::mission::hint::Hint;
use orchestrator_boss::mission::lifecycle::{Ending, WorkerStatus};
use orchestrator_boss::orchestrator::{
    Include, IntegrationRequest, IntegrationSource, MessageDelivery, NewMessage, RetryRequest, Scope, Strategy,
    WaitRequest, WaitStatus,
};
use tokio_util::sync::CancellationToken;

use crate::support::wait::CEILING;
use crate::world::{World, mission};

fn message(text: &str, delivery: Delivery) -> NewMessage {
    NewMessage { text: text.to_owned(), delivery, by: None }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_over_the_limit_queue_and_settle() {
    let world = World::new();
    let mut settings = world.settings();
    settings.max_workers = Some(2);
    let server = world.server_with(Some("boss"), settings);
    let gate = world.path("gate");
    let script = format!("wait-file {}\nsay done", gate.display());
    let ids = server.create((0..6).map(|n| mission(&format!("task {n}"), &script)).collect()).await;
    assert!(ids.iter().all(Result::is_ok), "{ids:?}");
    server.until("w-2", "running").await;

    let list = server.orchestrator.list(&server.boss, Scope::Mine).await.unwrap();
    let queued = list.workers.iter().filter(|view| view.worker.status == WorkerStatus::Queued).count();
    assert_eq!(queued, 4);
    std::fs::write(&gate, "").unwrap();

    let mut settled = 0;
    while settled < 6 {
        let answer = server.wait(&[], CEILING).await;
        assert_eq!(answer.status, WaitStatus::Settled, "{answer:#?}");
        settled += answer.settled.len();
    }
    assert_eq!((settled, server.wait(&[], CEILING).await.status), (6, WaitStatus::Idle));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_wait_consumes_no_notification() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let gate = world.path("gate");
    let id = server.create_one(mission("gated", &format!("wait-file {}", gate.display()))).await;

    let timed_out = server.wait(&[&id], Duration::from_millis(50)).await;
    assert_eq!((timed_out.status, timed_out.still_running.len() + timed_out.queued), (WaitStatus::StillRunning, 1));

    let stop = CancellationToken::new();
    let request =
        WaitRequest { workers: vec![id.clone()], receipts: Vec::new(), timeout: CEILING, most: 10, background: None };
    let waiting = server.orchestrator.wait(&server.boss, request, &stop);
    let cancel = async {
        stop.cancel();
        std::fs::write(&gate, "").unwrap();
    };
    let (answer, ()) = tokio::join!(waiting, cancel);
    assert!(answer.is_err());
    let answer = server.wait(&[&id], CEILING).await;
    assert_eq!((answer.settled.len(), answer.settled[0].redelivered), (1, false));
    let again = server.wait(&["w-1"], CEILING).await;
    assert_eq!((again.settled.len(), again.already_reported.len()), (0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn message_is_delivered_queued_interrupting_or_next_attempt() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let gate = world.path("gate");
    let id = server.create_one(mission("talk", &format!("session s-9\nwait-file {}\nsay first", gate.display()))).await;
    server.until(&id, "running").await;

    let queued =
        server.orchestrator.send_message(&server.boss, &id, message("FAKE:\nsay second", Delivery::WhenReady)).await;
    assert_eq!(queued.unwrap().delivered, MessageDelivery::Queued);
    std::fs::write(&gate, "").unwrap();
    server.until(&id, "completed").await;
    let view = server.orchestrator.get(&id).await.unwrap();
    assert_eq!((view.worker.attempt, view.worker.last().unwrap().final_message.as_str()), (1, "second"));

    let next =
        server.orchestrator.send_message(&server.boss, &id, message("FAKE:\nhang", Delivery::WhenReady)).await.unwrap();
    assert_eq!(next.delivered, MessageDelivery::NextAttempt);
    server.until(&id, "running").await;
    let live = server
        .orchestrator
        .send_message(&server.boss, &id, message("FAKE:\nsay third", Delivery::Interrupt))
        .await
        .unwrap();
    assert_eq!(live.status, WorkerStatus::Running);
    server.until(&id, "completed").await;
    let include = Include { log: true, log_lines: 100, messages: true, attempts: true, ..Include::default() };
    let details = server.orchestrator.details(&id, include).await.unwrap();
    assert_eq!((details.view.worker.attempt, details.view.worker.last().unwrap().final_message.as_str()), (2, "third"));
    assert_eq!(details.attempts.unwrap().len(), 2);
    // The message that opened the attempt, and the message that interrupted it.
    assert_eq!(details.messages.unwrap().len(), 2);
    assert!(details.log.unwrap().iter().any(|it| matches!(&it.event, AgentEvent::Said { text } if text == "third")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_dependency_blocks_until_its_retry_succeeds() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let mut parser = mission("parser", "write parser.txt one\nresult error not yet");
    parser.task_id = Some("parser".into());
    let mut lexer = mission("lexer", "write lexer.txt two\ncommit lexer");
    lexer.task_id = Some("lexer".into());
    let mut linker = mission("linker", "run cat parser.txt lexer.txt > all.txt\ncommit linked");
    linker.depends_on = vec!["parser".to_owned(), "lexer".to_owned()];
    let ids: Vec<String> = server.create(vec![linker, parser, lexer]).await.into_iter().map(Result::unwrap).collect();
    server.until(&ids[1], "failed").await;
    server.until(&ids[2], "completed").await;

    let mut blocked = Vec::new();
    while blocked.is_empty() {
        blocked = server.wait(&[], CEILING).await.blocked;
    }
    assert!(blocked[0].1.text.contains("parser") && matches!(blocked[0].1.hints[0], Hint::Retry(_)), "{blocked:?}");
    assert_eq!(server.wait(&[], CEILING).await.status, WaitStatus::Idle);
    world.until_state(|file| file["blocked_tasks"][0]["worker_id"] == ids[0].as_str()).await;

    let retry = RetryRequest {
        prompt: Some("FAKE:\nwrite parser.txt one\ncommit parser".to_owned()),
        ..RetryRequest::default()
    };
    server.orchestrator.retry(&server.boss, &ids[1], retry).await.unwrap();
    server.until(&ids[0], "completed").await;
    assert_eq!(world.git(&["show", &format!("orchestrator/{}:all.txt", ids[0])]), "one\ntwo");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_worker_uses_fallback_then_blocks() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let mut twice = mission("twice", "result error no");
    twice.fallback_backends = vec!["other".into()];
    twice.max_attempts = 2;
    let id = server.create_one(twice).await;
    let answer = server.wait(&[&id], CEILING).await;
    let worker = &answer.settled[0].worker;
    assert_eq!((worker.settled.len(), worker.attempt), (2, 2));
    assert_eq!(worker.settled.iter().map(|it| it.backend.as_str()).collect::<Vec<_>>(), ["fake", "other"]);
    assert!(answer.blocked[0].1.text.contains("two backends failed"), "{:?}", answer.blocked);

    let mut login = mission("login", "fail auth no key");
    login.max_attempts = 3;
    let id = server.create_one(login).await;
    let answer = server.wait(&[&id], CEILING).await;
    assert_eq!(answer.settled[0].worker.settled.len(), 1, "a refused key causes no retry");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bosses_see_and_control_only_their_workers() {
    let world = World::new();
    let (first, second) = (world.server(Some("first")), world.server(Some("second")));
    let id = first.create_one(mission("mine", "say done")).await;
    first.until(&id, "completed").await;
    second.until(&id, "completed").await;
    assert_eq!(second.wait(&[], CEILING).await.status, WaitStatus::Idle);
    let list = second.orchestrator.list(&second.boss, Scope::Mine).await.unwrap();
    assert_eq!((list.workers.len(), list.others), (0, 1));
    let refused = second.orchestrator.cancel(&second.boss, &id, "").await.unwrap_err().to_string();
    assert!(refused.contains("another boss"), "{refused}");
    let request =
        WaitRequest { workers: vec![id.clone()], receipts: Vec::new(), timeout: CEILING, most: 10, background: None };
    let waited = second.orchestrator.wait(&second.boss, request, &CancellationToken::new()).await;
    assert!(waited.is_err_and(|error| error.to_string().contains("another boss")));
    let answer = first.wait(&[], CEILING).await;
    assert_eq!((answer.settled.len(), answer.settled[0].redelivered), (1, false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn request_id_of_another_boss_is_refused() {
    let world = World::new();
    let (first, second) = (world.server(Some("first")), world.server(Some("second")));
    let draft = |title| {
        let mut draft = mission(title, "say done");
        draft.request_id = Some("1".to_owned());
        draft
    };
    let id = first.create_one(draft("one")).await;
    let refused = second.create(vec![draft("two")]).await.remove(0).unwrap_err();
    assert!(refused.contains(&id) && refused.contains("another request_id"), "{refused}");
    first.until(&id, "completed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_request_starts_no_second_worker() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let draft = || {
        let mut draft = mission("once", "say done");
        draft.request_id = Some("r-1".to_owned());
        draft
    };
    let ids = server.create(vec![draft(), draft()]).await;
    let later = server.create(vec![draft()]).await;
    assert_eq!((&ids[0], &ids[0]), (&ids[1], &later[0]));
    assert_eq!(server.orchestrator.list(&server.boss, Scope::All).await.unwrap().workers.len(), 1);
    server.wait(&[], CEILING).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_request_ignores_its_own_branch_and_path() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let draft = || {
        let mut draft = mission("once", "write new.txt x");
        let (branch, path) = (Some("own/branch".to_owned()), Some(world.repo().join("../own")));
        draft.place = DraftPlace::Worktree { branch, base: None, path, directory: None };
        draft.request_id = Some("r-1".to_owned());
        draft
    };
    let id = server.create_one(draft()).await;
    server.until(&id, "completed").await;
    assert_eq!(server.create(vec![draft()]).await, [Ok(id)]);
    let mut new = draft();
    new.request_id = Some("r-2".to_owned());
    assert!(server.create(vec![new]).await[0].is_err(), "the branch and the path are in use");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn branch_merges_once_and_conflicts_change_nothing() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let ids = server
        .create(vec![
            mission("a", "write README one\ncommit a"),
            mission("b", "write README two\ncommit b"),
            mission("c", "write other.txt three\ncommit c"),
        ])
        .await;
    let ids: Vec<String> = ids.into_iter().map(Result::unwrap).collect();
    for id in &ids {
        server.until(id, "completed").await;
    }
    let integrate = |id: &str, dry_run| {
        let source = IntegrationSource::Worker(id.to_owned());
        let request = IntegrationRequest { dry_run, ..IntegrationRequest::of(source) };
        let (orchestrator, boss) = (server.orchestrator.clone(), server.boss.clone());
        async move { orchestrator.integrate(&boss, request).await.unwrap() }
    };
    assert_eq!(integrate(&ids[0], true).await.status.as_str(), "would_merge");
    assert_eq!(integrate(&ids[0], false).await.status.as_str(), "merged");
    assert_eq!(integrate(&ids[0], false).await.status.as_str(), "already_integrated");
    let before = world.git(&["rev-parse", "main"]);
    let conflict = integrate(&ids[1], false).await;
    assert_eq!((conflict.status.as_str(), conflict.conflicts[0].0.as_str()), ("conflicts", "README"));
    assert_eq!(world.git(&["rev-parse", "main"]), before);
    assert_eq!(integrate(&ids[2], false).await.status.as_str(), "merged");
    assert_eq!(world.git(&["status", "--porcelain"]), "");
    assert_eq!(std::fs::read_to_string(world.repo().join("README")).unwrap(), "one\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_end_a_worker_with_the_reason() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let mut dear = mission("dear", "usage 10 10 5.0\nhang");
    dear.max_cost_usd = Some(1.0);
    let mut wordy = mission("wordy", "usage 1000 10 0.1\nhang");
    wordy.max_tokens = Some(500);
    let mut slow = mission("slow", "hang");
    slow.timeout_minutes = 0;
    let ids = server.create(vec![dear, wordy, slow]).await;
    let ids: Vec<String> = ids.into_iter().map(Result::unwrap).collect();
    for (id, (status, limit)) in
        ids.iter().zip([("failed", "max_cost_usd"), ("failed", "max_tokens"), ("timed_out", "timeout_minutes")])
    {
        server.until(id, status).await;
        let view = server.orchestrator.get(id).await.unwrap();
        let failure = view.worker.last().unwrap().failure.clone().unwrap();
        assert!(failure.message.contains(limit), "{failure:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queued_worker_is_cancelled_without_running() {
    let world = World::new();
    let mut settings = world.settings();
    settings.max_workers = Some(1);
    let server = world.server_with(Some("boss"), settings);
    let ids = server.create(vec![mission("runs", "hang"), mission("waits", "touch ran")]).await;
    let ids: Vec<String> = ids.into_iter().map(Result::unwrap).collect();
    server.until(&ids[0], "running").await;
    for id in [&ids[1], &ids[0]] {
        let answer = server.orchestrator.cancel(&server.boss, id, "no").await.unwrap();
        assert_eq!(answer.status, WorkerStatus::Settled(Ending::Cancelled));
    }
    assert!(!world.worktree(&ids[1]).exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_message_reaches_the_next_attempt() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let gate = world.path("gate");
    let script = format!("session s-1\nwait-file {}\nresult error no", gate.display());
    let id = server.create_one(mission("late", &script)).await;
    server.until(&id, "running").await;
    let late = message("FAKE:\nwrite heard.txt x\ncommit heard", Delivery::WhenReady);
    server.orchestrator.send_message(&server.boss, &id, late).await.unwrap();
    std::fs::write(&gate, "").unwrap();
    server.until(&id, "failed").await;
    assert_eq!(server.orchestrator.get(&id).await.unwrap().worker.last().unwrap().undelivered.len(), 1);

    server.orchestrator.retry(&server.boss, &id, RetryRequest::default()).await.unwrap();
    server.until(&id, "completed").await;
    assert_eq!(world.git(&["show", &format!("orchestrator/{id}:heard.txt")]), "x");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn budget_covers_all_turns_together() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let gate = world.path("gate");
    let mut thrifty = mission("thrifty", &format!("session s-1\nusage 300 10 0.1\nwait-file {}", gate.display()));
    thrifty.max_tokens = Some(500);
    let id = server.create_one(thrifty).await;
    server.until(&id, "running").await;
    let more = message("FAKE:\nusage 300 10 0.1\nhang", Delivery::WhenReady);
    server.orchestrator.send_message(&server.boss, &id, more).await.unwrap();
    std::fs::write(&gate, "").unwrap();
    server.until(&id, "failed").await;
    let brief = server.orchestrator.get(&id).await.unwrap().worker.last().unwrap().clone();
    assert!(brief.failure.unwrap().message.contains("620 used"));
    assert_eq!((brief.usage.input_tokens, brief.usage.output_tokens), (600, 20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dependent_starts_from_a_removed_merged_dependency() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let gate = world.path("gate");
    let mut first = mission("first", "write first.txt one\ncommit first");
    first.task_id = Some("first".into());
    let mut slow = mission("slow", &format!("write slow.txt two\ncommit slow\nwait-file {}", gate.display()));
    slow.task_id = Some("slow".into());
    let mut last = mission("last", "run cat first.txt slow.txt > all.txt\ncommit all");
    last.depends_on = vec!["first".to_owned(), "slow".to_owned()];
    let ids: Vec<String> = server.create(vec![first, slow, last]).await.into_iter().map(Result::unwrap).collect();
    server.until(&ids[0], "completed").await;
    // Its worktree exists then: two git processes at once would block each other.
    server.until(&ids[1], "running").await;
    let source = IntegrationSource::Worker(ids[0].clone());
    let request = IntegrationRequest { strategy: Strategy::Squash, ..IntegrationRequest::of(source) };
    server.orchestrator.integrate(&server.boss, request).await.unwrap();
    world.git(&["worktree", "unlock", world.worktree(&ids[0]).to_str().unwrap()]);
    world.git(&["worktree", "remove", world.worktree(&ids[0]).to_str().unwrap()]);
    world.git(&["branch", "-q", "-D", &format!("orchestrator/{}", ids[0])]);
    std::fs::write(&gate, "").unwrap();
    server.until(&ids[2], "completed").await;
    assert_eq!(world.git(&["show", &format!("orchestrator/{}:all.txt", ids[2])]), "one\ntwo");
}
