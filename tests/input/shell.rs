//! Only `setup_command`, `verify_command` and commands of the user's settings run through a shell.

use orchestrator_boss::mission::create::DraftPlace;
use orchestrator_boss::mission::id::TaskId;
use orchestrator_boss::orchestrator::{IntegrationRequest, IntegrationSource, RetryRequest};

use crate::hostile::commands;
use crate::world::{World, mission};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shell_commands_in_texts_are_not_run() {
    let world = World::new();
    let marks = world.path("marks");
    std::fs::create_dir(&marks).unwrap();
    let server = world.server(Some("boss"));
    let mut made = Vec::new();
    for (number, command) in commands(&marks.to_string_lossy()).into_iter().enumerate() {
        let mut draft = mission(&command, "write a.txt x\ncommit a");
        draft.prompt = format!("{command}\n{}", draft.prompt);
        draft.task_id = Some(TaskId::from(format!("{number}{command}")));
        draft.request_id = Some(command.clone());
        let branch: String =
            format!("b{number}/{command}").replace([' ', '\n', ':', '~', '^', '?', '*', '[', '\\', '/', '.'], "_");
        draft.place = DraftPlace::Worktree {
            branch: Some(branch),
            base: None,
            path: Some(format!("wt {number} $(x)`y`").into()),
            directory: None,
        };
        match server.create(vec![draft]).await.remove(0) {
            Ok(id) => made.push((id, command)),
            // Git refuses this branch name.
            Err(refusal) => assert!(refusal.contains("branch") || refusal.contains("title"), "{refusal}"),
        }
    }
    assert!(made.len() > 8, "only {} were created", made.len());
    for (id, command) in &made {
        server.until(id, "completed").await;
        let request = RetryRequest { feedback: Some(command.clone()), ..RetryRequest::default() };
        server.orchestrator.retry(&server.boss, id, request).await.unwrap();
        server.orchestrator.cancel(&server.boss, id, command).await.unwrap();
        let branch = server.orchestrator.get(id).await.unwrap().worker.mission.place.branch().unwrap().to_owned();
        let source = IntegrationSource::Branch(branch);
        let request = IntegrationRequest::of(source);
        // Only the first one has an effect; the others need only be answered.
        server.orchestrator.integrate(&server.boss, request).await.unwrap();
    }
    assert_eq!(std::fs::read_dir(&marks).unwrap().count(), 0, "a text was run as a command");
    server.orchestrator.shut_down().await;
}
