//! The endings of workers, and the facts in their outcomes.

use orchestrator_boss::mission::lifecycle::{Ending, WorkerStatus};
use orchestrator_boss::mission::outcome::FailureKind;
use orchestrator_boss::orchestrator::WaitStatus;

use crate::support::wait::CEILING;
use crate::world::{World, mission};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_is_on_its_branch_and_reported_once() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let id = server
        .create_one(mission(
            "Write a file",
            "session s-1\nwrite new.txt hello\ncommit Add a file\nsay done it\nusage 100 20 0.5",
        ))
        .await;
    assert_eq!(id, "w-1-write-a-file");

    let answer = server.wait(&[], CEILING).await;
    assert_eq!(answer.status, WaitStatus::Settled);
    let worker = &answer.settled[0].worker;
    let brief = worker.last().unwrap();
    assert_eq!(worker.status, WorkerStatus::Settled(Ending::Completed), "{brief:#?}");
    assert_eq!((brief.changes.commits, brief.changes.files.as_slice()), (1, &["new.txt".to_owned()][..]));
    assert_eq!(brief.session_id.as_deref(), Some("s-1"));
    assert_eq!((brief.usage.input_tokens, brief.usage.cost_usd), (100, Some(0.5)));
    assert_eq!(world.git(&["show", "orchestrator/w-1-write-a-file:new.txt"]), "hello");

    let again = server.wait(&[], CEILING).await;
    assert_eq!(again.status, WaitStatus::Idle, "{again:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_ending_has_its_status_and_failure() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let cases = [
        ("exit 3", Ending::Failed, Some(FailureKind::NoResult)),
        ("die KILL", Ending::Interrupted, Some(FailureKind::NoResult)),
        ("fail auth no key", Ending::Failed, Some(FailureKind::Auth)),
        ("result error broken", Ending::Failed, Some(FailureKind::Other)),
        ("big-line 10000000", Ending::Completed, None),
        ("garbage", Ending::Completed, None),
        ("exit 0", Ending::Failed, Some(FailureKind::NoResult)),
    ];
    let drafts = cases.iter().map(|(script, ..)| mission(script, script)).collect();
    let ids: Vec<String> = server.create(drafts).await.into_iter().map(Result::unwrap).collect();
    for (id, (script, ending, failure)) in ids.iter().zip(cases) {
        server.until(id, ending.as_str()).await;
        let view = server.orchestrator.get(id).await.unwrap();
        let brief = view.worker.last().unwrap();
        assert_eq!(brief.failure.as_ref().map(|failure| failure.kind), failure, "{script}: {brief:#?}");
        assert_eq!(brief.survivors, 0, "{script}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uncommitted_changes_are_committed_and_verified() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let mut good = mission("good", "write a.txt fine");
    good.verify_command = Some("test -f a.txt".to_owned());
    let mut bad = mission("bad", "write a.txt fine");
    bad.verify_command = Some("echo it is wrong; exit 7".to_owned());
    let mut absent = mission("absent", "write a.txt fine");
    absent.verify_command = Some("no-such-command-at-all".to_owned());
    let mut changing = mission("changing", "write a.txt fine");
    changing.verify_command = Some("echo more >> a.txt".to_owned());
    let ids = server.create(vec![good, bad, absent, changing]).await;
    let ids: Vec<String> = ids.into_iter().map(Result::unwrap).collect();

    let expected =
        [("completed", "passed"), ("failed", "failed"), ("failed", "could_not_run"), ("failed", "could_not_run")];
    for (id, (status, verification)) in ids.iter().zip(expected) {
        server.until(id, status).await;
        let view = server.orchestrator.get(id).await.unwrap();
        let brief = view.worker.last().unwrap();
        assert_eq!(brief.verification.as_str(), verification, "{brief:#?}");
        assert_eq!((brief.changes.committed_by_us, brief.changes.commits), (1, 1));
    }
    let bad = server.orchestrator.get(&ids[1]).await.unwrap();
    let note = bad.worker.last().unwrap().verification.note().unwrap();
    assert!(note.contains("exit status 7") && note.contains("it is wrong"), "{note}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancel_leaves_no_process() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let script = "ignore-term\ndaemon 300\nchild 300\nclear-env-child 300\ntouch ready\nhang";
    let id = server.create_one(mission("Stubborn", script)).await;
    crate::world::until_exists(&world.worktree(&id).join("ready")).await;

    let answer = server.orchestrator.cancel(&server.boss, &id, "enough").await.unwrap();
    assert_eq!((answer.status, answer.survivors), (WorkerStatus::Settled(Ending::Cancelled), 0));
    let again = server.orchestrator.cancel(&server.boss, &id, "enough").await.unwrap();
    assert!(again.already_settled);
    let dir = world.repo().join(".orchestrator/workers").join(&id).join("attempts/1/outcome.json");
    let outcome: serde_json::Value = serde_json::from_slice(&std::fs::read(dir).unwrap()).unwrap();
    assert!(outcome["cleanup"]["ended"].as_u64().unwrap() >= 2, "{outcome:#}");
    assert_eq!(outcome["run"]["exit"], serde_json::json!({ "signal": 9 }));
}
