//! The journal's folder is removed while servers run, or before one starts.

use orchestrator_boss::mission::lifecycle::{Ending, WorkerStatus};
use orchestrator_boss::orchestrator::BatchKind;

use crate::support::wait::CEILING;
use crate::world::{World, mission, until_exists};

const COMPLETED: WorkerStatus = WorkerStatus::Settled(Ending::Completed);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removed_journal_is_refused_until_restart_rebuilds_it() {
    let world = World::new();
    let first = world.server(Some("boss"));
    let gate = world.path("gate");
    let id = first.create_one(mission("t", &format!("wait-file {}\nsay done", gate.display()))).await;
    first.until(&id, "running").await;
    std::fs::remove_dir_all(world.repo().join(".orchestrator/journal")).unwrap();
    let refused = first.orchestrator.create(&first.boss, vec![Ok(mission("u", "say never"))], BatchKind::Single).await;
    let refused = refused.expect_err("a refusal").to_string();
    assert!(refused.contains("it was removed or replaced while this server ran"), "{refused}");
    std::fs::write(&gate, "").unwrap();
    until_exists(&world.repo().join(".orchestrator/workers").join(&id).join("attempts/1/outcome.json")).await;
    first.orchestrator.shut_down().await;

    let second = world.server(Some("boss"));
    second.until(&id, "completed").await;
    let answer = second.wait(&[&id], CEILING).await;
    assert_eq!((answer.settled.len(), answer.settled[0].worker.status), (1, COMPLETED));
    assert_eq!(second.create_one(mission("next", "say hello")).await, "w-2-next");
    second.until("w-2", "completed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_journal_is_rebuilt_from_the_folders() {
    let world = World::new();
    let mut settings = world.settings();
    settings.max_workers = Some(2);
    let gate = world.path("gate");
    let first = world.server_with(Some("boss"), settings);
    let done = first.create_one(mission("done", "write a.txt x\ncommit a\nsay done")).await;
    first.until(&done, "completed").await;
    let ends = first.create_one(mission("ends", &format!("wait-file {}\nsay ended", gate.display()))).await;
    let runs = first.create_one(mission("runs", "hang")).await;
    let waits = first.create_one(mission("waits", "say never")).await;
    first.until(&ends, "running").await;
    first.until(&runs, "running").await;
    world.until_state(|state| state["tasks"].as_array().is_some_and(|tasks| tasks.len() == 3)).await;
    first.orchestrator.shut_down().await;
    std::fs::remove_dir_all(world.repo().join(".orchestrator/journal")).unwrap();
    std::fs::write(&gate, "").unwrap();
    until_exists(&world.repo().join(".orchestrator/workers").join(&ends).join("attempts/1/outcome.json")).await;

    let second = world.server(Some("boss"));
    second.until(&done, "completed").await;
    second.until(&ends, "completed").await;
    second.until(&runs, "running").await;
    let view = second.orchestrator.get(&ends).await.unwrap();
    assert_eq!(view.worker.last().unwrap().final_message, "ended");
    let answer = second.wait(&[&done], CEILING).await;
    assert_eq!((answer.settled[0].worker.status, answer.settled[0].redelivered), (COMPLETED, true));
    assert!(second.orchestrator.get(&waits).await.is_err(), "only the journal had its prompt");
    world.until_state(|state| state["repaired"].as_str().is_some_and(|text| text.contains(&waits))).await;
    assert_eq!(second.create_one(mission("next", "say hello")).await, "w-5-next");

    second.orchestrator.cancel(&second.boss, &runs, "enough").await.unwrap();
    second.until(&runs, "cancelled").await;
}
