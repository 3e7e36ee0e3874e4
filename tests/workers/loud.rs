//! Workers that print without end neither delay their settlement nor fill the disk.

use std::path::PathBuf;
use std::time::Duration;

use orchestrator_boss::attempt::inbox::Delivery;
use orchestrator_boss::config::Settings;
use orchestrator_boss::mission::create::Draft;
use orchestrator_boss::mission::outcome::FailureKind;
use orchestrator_boss::orchestrator::NewMessage;

use crate::world::{World, mission};

/// Settings in which the backend `shell` is this script, with plain output.
fn shell(world: &World, script: &str) -> Settings {
    use std::os::unix::fs::PermissionsExt;
    let program: PathBuf = world.path("shell.sh");
    std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let text = format!(
        "max_workers = 8\nmax_output_mib = 64\n[[custom]]\nname = \"shell\"\nprogram = {program:?}\n[backends.claudecode]\nprogram = {program:?}\n"
    );
    toml::from_str(&text).unwrap()
}

fn shell_mission() -> Draft {
    Draft { backend: "shell".into(), ..mission("loud", "") }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn printing_child_does_not_delay_settlement() {
    let world = World::new();
    let settings = shell(&world, "while :; do echo noise; done &\necho done");
    let server = world.server_with(Some("boss"), settings);
    let id = server.create_one(shell_mission()).await;
    server.until(&id, "completed").await;
    assert_eq!(server.orchestrator.get(&id).await.unwrap().worker.last().unwrap().survivors, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flood_is_stopped_at_the_output_limit() {
    for stream in ["1", "2"] {
        let world = World::new();
        let script = format!(
            "yes a line of the length that lines of programs have, more or less | head -c 400000000 >&{stream}\nexec sleep 300"
        );
        let server = world.server_with(Some("boss"), shell(&world, &script));
        let id = server.create_one(shell_mission()).await;
        server.until(&id, "failed").await;
        let view = server.orchestrator.get(&id).await.unwrap();
        let failure = view.worker.last().unwrap().failure.clone().unwrap();
        assert_eq!(failure.kind, FailureKind::OutputLimit, "stream {stream}: {failure:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endlessly_printing_worker_is_cancelled_at_once() {
    let world = World::new();
    let settings = shell(&world, "echo begun\nwhile :; do echo y; done");
    let server = world.server_with(Some("boss"), settings);
    let id = server.create_one(shell_mission()).await;
    server.until(&id, "running").await;
    let answer = server.orchestrator.cancel(&server.boss, &id, "enough").await.unwrap();
    assert_eq!((answer.status.as_str(), answer.survivors), ("cancelled", 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn huge_usage_numbers_do_no_harm() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let script = format!("usage {0} {0} 1\nsay done", u64::MAX);
    let mut draft = mission("much", &script);
    draft.max_tokens = Some(u64::MAX);
    let id = server.create_one(draft).await;
    server.until(&id, "completed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cli_that_reads_nothing_is_cancelled() {
    let world = World::new();
    let server = world.server_with(Some("boss"), shell(&world, "exec sleep 300"));
    let mut draft = mission("deaf", "");
    draft.backend = "claudecode".into();
    draft.prompt = "more than a pipe holds ".repeat(20_000);
    let id = server.create_one(draft).await;
    server.until(&id, "running").await;
    let message = NewMessage { text: "hello".to_owned(), delivery: Delivery::WhenReady, by: None };
    server.orchestrator.send_message(&server.boss, &id, message).await.unwrap();
    let waited = server.wait(&[], Duration::from_secs(1)).await;
    assert_eq!(waited.still_running.len(), 1, "its supervisor had time to receive the message");
    let answer = server.orchestrator.cancel(&server.boss, &id, "enough").await.unwrap();
    assert_eq!((answer.status.as_str(), answer.survivors), ("cancelled", 0));
    let worker = server.orchestrator.get(&id).await.unwrap().worker;
    // A supervisor that hung would have been killed, and its outcome would lack the start.
    assert!(worker.last().unwrap().started_at.is_some(), "its supervisor hung: {worker:#?}");
}
