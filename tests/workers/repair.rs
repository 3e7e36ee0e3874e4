//! The journal's folder is removed: by somebody who tidies up while workers run, or before a server comes.

use orchestrator_boss::mission::lifecycle::{Ending, WorkerStatus};
use orchestrator_boss::orchestrator::WaitStatus;

use crate::support::wait::CEILING;
use crate::world::{World, mission, until_exists};

const COMPLETED: WorkerStatus = WorkerStatus::Settled(Ending::Completed);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_whose_journal_is_removed_while_it_runs_settles_and_is_told_once() {
    let world = World::new();
    let first = world.server(Some("boss"));
    let second = world.server(Some("boss"));
    let gate = world.path("gate");
    let id = first.create_one(mission("t", &format!("wait-file {}\nsay done", gate.display()))).await;
    let mut after = mission("after", "say next");
    after.depends_on = vec![id.clone()];
    let after = first.create_one(after).await;
    first.until(&id, "running").await;
    second.until(&id, "running").await;
    let journal = world.repo().join(".orchestrator/journal");
    // Moved away first: a server that notices may write it again at once.
    let gone = world.path("gone");
    std::fs::rename(&journal, &gone).unwrap();
    std::fs::remove_dir_all(&gone).unwrap();
    // Whatever comes next writes it again; and if nothing comes, the regular look does.
    until_exists(&journal).await;
    std::fs::write(&gate, "").unwrap();

    first.until(&id, "completed").await;
    second.until(&after, "completed").await;
    let mut told = Vec::new();
    while told.len() < 2 {
        told.extend(first.wait(&[], CEILING).await.settled.into_iter().map(|view| view.worker.id.to_string()));
    }
    told.sort();
    assert_eq!(told, [id.as_str(), after.as_str()]);
    assert_eq!(first.wait(&[], CEILING).await.status, WaitStatus::Idle, "each was told once");
    second.until(&id, "completed").await;
    assert_eq!(first.create_one(mission("third", "say hello")).await, "w-3-third");
    second.until("w-3", "completed").await;
    let all = |server: &crate::world::Server| {
        let (orchestrator, boss) = (server.orchestrator.clone(), server.boss.clone());
        async move {
            let list = orchestrator.list(&boss, orchestrator_boss::orchestrator::Scope::All).await.unwrap();
            list.workers.into_iter().map(|view| (view.worker.id.to_string(), view.worker.status)).collect::<Vec<_>>()
        }
    };
    first.until("w-3", "completed").await;
    assert_eq!(all(&first).await, all(&second).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_journal_knew_that_is_gone_before_a_start_the_folders_know() {
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
    let said = second.orchestrator.get(&ends).await.unwrap();
    assert_eq!(said.worker.last().unwrap().final_message, "ended");
    let answer = second.wait(&[&done], CEILING).await;
    assert_eq!((answer.settled[0].worker.status, answer.settled[0].redelivered), (COMPLETED, true));
    assert!(second.orchestrator.get(&waits).await.is_err(), "its prompt was in the journal alone");
    world.until_state(|state| state["repaired"].as_str().is_some_and(|said| said.contains(&waits))).await;
    assert_eq!(second.create_one(mission("next", "say hello")).await, "w-5-next");

    second.orchestrator.cancel(&second.boss, &runs, "enough").await.unwrap();
    second.until(&runs, "cancelled").await;
}
