//! Retries: automatic ones on a fallback, requested ones, and failures that cause none.

use orchestrator_boss::mission::create::Draft;
use orchestrator_boss::mission::entry::Start;
use orchestrator_boss::mission::outcome::FailureKind;
use orchestrator_boss::orchestrator::{
    IntegrationRequest, IntegrationSource, RemovalRequest, RemovalTarget, RetryRequest,
};

use crate::support::wait::CEILING;
use crate::world::{World, mission};

fn with_fallback(title: &str, script: &str) -> Draft {
    Draft { fallback_backends: vec!["other".into()], max_attempts: 4, ..mission(title, script) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_failed_backends_are_reported_with_reasons() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let mut hard = with_fallback("hard", "run echo half >> tried.txt\ncommit half\nresult error no way");
    hard.max_attempts = 2;
    hard.task_id = Some("hard".into());
    let id = server.create_one(hard).await;
    let answer = server.wait(&[&id], CEILING).await;
    let (task, why) = &answer.blocked[0];
    assert_eq!(task.as_str(), "hard");
    for reason in ["fake: no way", "other: no way"] {
        assert!(why.text.contains(reason), "{reason}: {why:?}");
    }
    world
        .until_state(|file| {
            let task = &file["blocked_tasks"][0];
            let reason = task["reason"].as_str().unwrap_or_default();
            task["id"] == "hard" && reason.contains("fake: no way") && reason.contains("other: no way")
        })
        .await;
    assert_eq!(world.git(&["show", &format!("orchestrator/{id}:tried.txt")]), "half\nhalf", "in the same worktree");
    let Start::Prompt { text } = &answer.settled[0].worker.next.start else { panic!("{answer:#?}") };
    assert!(text.contains("An earlier attempt at this (fake) ended as failed: no way"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn usage_limit_or_refused_login_uses_fallback_once() {
    for (title, kind) in [("limit", FailureKind::UsageLimit), ("login", FailureKind::Auth)] {
        // Each case needs its own world, since the failure puts both backends into backoff.
        let world = World::new();
        let server = world.server(Some("boss"));
        let id = server.create_one(with_fallback(title, &format!("fail {} no more", kind.as_str()))).await;
        let answer = server.wait(&[&id], CEILING).await;
        let tried: Vec<_> = answer.settled[0].worker.settled.iter().map(|brief| brief.backend.as_str()).collect();
        assert_eq!(tried, ["fake", "other"], "{title}");
        assert_eq!(answer.settled[0].worker.last().unwrap().failure.as_ref().unwrap().kind, kind);
        assert!(answer.blocked.is_empty(), "the failure does not block the task: {:?}", answer.blocked);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn impossible_verification_does_not_blame_the_backends() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let mut unproven = with_fallback("unproven", "write a.txt x\ncommit a");
    unproven.max_attempts = 2;
    unproven.verify_command = Some("no-such-program-anywhere".to_owned());
    let id = server.create_one(unproven).await;
    let answer = server.wait(&[&id], CEILING).await;
    let worker = &answer.settled[0].worker;
    assert_eq!(worker.last().unwrap().verification.as_str(), "could_not_run", "{worker:#?}");
    assert!(answer.blocked.is_empty(), "{:?}", answer.blocked);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retry_resumes_its_session_unless_fresh() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let id = server.create_one(mission("t", "session s-1\nwrite a.txt x\nresult error no")).await;
    let start = async |request: RetryRequest| {
        server.until(&id, "failed").await;
        server.orchestrator.retry(&server.boss, &id, request).await.unwrap().worker.next.start.clone()
    };
    let feedback = Some("FAKE:\nsession s-1\nresult error again".to_owned());
    let resumed = start(RetryRequest { feedback: feedback.clone(), ..RetryRequest::default() }).await;
    assert!(matches!(&resumed, Start::Resume { session_id, .. } if session_id == "s-1"), "{resumed:?}");
    let fresh = start(RetryRequest { feedback, fresh: true, ..RetryRequest::default() }).await;
    let Start::Prompt { text } = fresh else { panic!("{fresh:?}") };
    assert!(text.contains("An earlier attempt") && text.contains("write a.txt x"), "{text}");
    server.until(&id, "failed").await;
    assert!(world.worktree(&id).join("a.txt").exists(), "the same worktree");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempt_on_deleted_branch_counts_from_its_new_start() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let id = server.create_one(mission("one", "write one.txt x\ncommit one")).await;
    server.until(&id, "completed").await;
    let source = IntegrationSource::Worker(id.clone());
    server.orchestrator.integrate(&server.boss, IntegrationRequest::of(source)).await.unwrap();
    let target = RemovalTarget::Worker(id.clone());
    let removal = RemovalRequest { target, repo_path: None, force: false, delete_branch: true };
    server.orchestrator.remove_worktree(&server.boss, removal).await.unwrap();
    std::fs::write(world.repo().join("later.txt"), "x\n").unwrap();
    world.git(&["add", "."]);
    world.git(&["commit", "-qm", "later"]);
    let feedback = Some("FAKE:\nwrite two.txt x\ncommit two".to_owned());
    let request = RetryRequest { feedback, ..RetryRequest::default() };
    server.orchestrator.retry(&server.boss, &id, request).await.unwrap();
    server.until(&id, "completed").await;
    let changes = server.orchestrator.get(&id).await.unwrap().worker.last().unwrap().changes.clone();
    assert_eq!((changes.commits, changes.files_changed), (1, 1), "{changes:#?}");
    assert_eq!(changes.base_commit.as_deref(), Some(&*world.git(&["rev-parse", "main"])));
}
