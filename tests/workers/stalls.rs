//! Workers without activity are reported as stalled, with the evidence. Only the setting `on_stall` has more effect.

use std::time::Duration;

use orchestrator_boss::config::{OnStall, Settings};
use orchestrator_boss::mission::outcome::FailureKind;
use orchestrator_boss::orchestrator::WaitStatus;

use crate::support::wait::{CEILING, in_time};
use crate::world::{Server, World, mission};

/// Returns settings in which three seconds without activity are a stall. On a busy machine a working process may be
/// inactive for a shorter time.
fn settings(world: &World) -> Settings {
    Settings { stall_minutes: 3.0 / 60.0, ..world.settings() }
}

async fn stall(server: &Server, worker: &str) -> Option<String> {
    server.orchestrator.get(worker).await.unwrap().live.and_then(|live| live.stalled)
}

/// Waits until the worker counts as stalled, or no longer does.
async fn until_stalled(server: &Server, worker: &str, stalled: bool) {
    assert!(in_time(async || stall(server, worker).await.is_some() == stalled).await, "the stall begins or ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_idle_worker_is_reported_as_stalled_once() {
    let world = World::new();
    let server = world.server_with(Some("boss"), settings(&world));
    let gate = world.path("gate");
    let busy = server.create_one(mission("busy", &format!("burn-until {}", gate.display()))).await;
    let parent = mission("parent", &format!("run while [ ! -e {} ]; do :; done", gate.display()));
    let parent = server.create_one(parent).await;
    server.until(&busy, "running").await;
    server.until(&parent, "running").await;
    let sleeper = server.create_one(mission("sleeper", &format!("wait-file {}", gate.display()))).await;

    let answer = server.wait(&[], CEILING).await;
    assert_eq!(answer.status, WaitStatus::Attention, "{answer:#?}");
    let stalled: Vec<&str> = answer.attention.iter().map(|view| view.worker.id.as_str()).collect();
    assert_eq!(stalled, [sleeper.as_str()]);
    let evidence = answer.attention[0].live.as_ref().and_then(|live| live.stalled.clone()).unwrap_or_default();
    assert!(evidence.starts_with("no event, no output and no CPU time in 1 processes for "), "{evidence}");
    let answer = server.wait(&[], Duration::from_secs(4)).await;
    assert_eq!(answer.status, WaitStatus::StillRunning, "it is reported once");
    assert_eq!((stall(&server, &busy).await, stall(&server, &parent).await), (None, None));

    std::fs::write(&gate, "").unwrap();
    for id in [&busy, &parent, &sleeper] {
        server.until(id, "completed").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_stall_is_reported_again() {
    let world = World::new();
    let server = world.server_with(Some("boss"), settings(&world));
    let (first, second, third) = (world.path("first"), world.path("second"), world.path("third"));
    // The worker works until the test has seen the end of the stall.
    let script = format!(
        "wait-file {}\nsay awake\nburn-until {}\nwait-file {}",
        first.display(),
        second.display(),
        third.display()
    );
    let id = server.create_one(mission("sleeper", &script)).await;
    assert_eq!(server.wait(&[], CEILING).await.status, WaitStatus::Attention);
    std::fs::write(&first, "").unwrap();
    until_stalled(&server, &id, false).await;
    std::fs::write(&second, "").unwrap();
    assert_eq!(server.wait(&[], CEILING).await.status, WaitStatus::Attention);
    std::fs::write(&third, "").unwrap();
    server.until(&id, "completed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_stall_resume_interrupts_and_resumes_the_session() {
    let world = World::new();
    let server = world.server_with(Some("boss"), Settings { on_stall: OnStall::Resume, ..settings(&world) });
    let id = server.create_one(mission("sleeper", "session s-1\nhang")).await;
    server.until(&id, "completed").await;
    let worker = server.orchestrator.get(&id).await.unwrap().worker;
    let brief = worker.last().unwrap();
    assert_eq!((brief.attempt, brief.session_id.as_deref()), (1, Some("s-1")));
    assert!(brief.final_message.contains("You were interrupted, since there was no event"), "{}", brief.final_message);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_stall_end_ends_the_second_stall() {
    let world = World::new();
    let server = world.server_with(Some("boss"), Settings { on_stall: OnStall::End, ..settings(&world) });
    // Without a session the mission starts again, and so it hangs again.
    let id = server.create_one(mission("sleeper", "append turns x\nhang")).await;
    server.until(&id, "failed").await;
    let worker = server.orchestrator.get(&id).await.unwrap().worker;
    let failure = worker.last().unwrap().failure.clone().unwrap();
    assert_eq!(failure.kind, FailureKind::Stalled);
    assert!(failure.message.contains("again after it was interrupted"), "{failure:?}");
    assert_eq!(world.git(&["show", &format!("orchestrator/{id}:turns")]), "x\nx");
}
