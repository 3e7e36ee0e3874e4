//! Context: the final messages of other workers that a worker receives, how long it waits for them, and the record.

use orchestrator_boss::attempt::assignment::Assignment;
use orchestrator_boss::backend::CustomBackend;
use orchestrator_boss::config::Settings;
use orchestrator_boss::mission::create::Draft;
use orchestrator_boss::orchestrator::RetryRequest;

use crate::support::wait::{CEILING, in_time};
use crate::world::{Server, World, mission, until_exists};

/// Settings with one more backend, which prints its prompt.
fn settings(world: &World) -> Settings {
    let mut settings = world.settings();
    let echo: CustomBackend = toml::from_str("name = 'echo'\nprogram = 'cat'").unwrap();
    settings.custom.push(echo);
    settings
}

fn sums_up(from: &[&str]) -> Draft {
    Draft {
        backend: "echo".into(),
        prompt: "Sum it up.".to_owned(),
        context_from: from.iter().map(|name| (*name).to_owned()).collect(),
        ..mission("sum", "")
    }
}

async fn waits_for(server: &Server, worker: &str) -> Option<String> {
    server.orchestrator.get(worker).await.unwrap().waits_for
}

fn assignment(world: &World, worker: &str, attempt: u32) -> Assignment {
    let path = world.attempt(worker, attempt).join("assignment.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Returns the prompt that the CLI of the last attempt printed.
async fn printed(server: &Server, worker: &str) -> String {
    let answer = server.wait(&[worker], CEILING).await;
    let view = answer.settled.iter().chain(&answer.already_reported).find(|it| it.worker.id.as_str() == worker);
    let view = view.unwrap_or_else(|| panic!("{answer:#?}"));
    let last = view.worker.last().unwrap();
    assert_eq!(last.status.as_str(), "completed", "{last:#?}");
    last.final_message.clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_of_any_end_come_before_the_prompt() {
    let world = World::new();
    let server = world.server_with(Some("boss"), settings(&world));
    let good = server.create_one(mission("good", "say The parser ignores quotes.")).await;
    let bad = server.create_one(mission("bad", "say Nothing works.\nresult error out of ideas")).await;
    server.wait(&[&good, &bad], CEILING).await;
    let id = server.create_one(sums_up(&[&good, "w-2"])).await;
    let printed = printed(&server, &id).await;
    let context = assignment(&world, &id, 1).context.expect("a context");
    assert!(context.ends_with("Your mission:\n\n"), "{context}");
    for part in [
        "[report of w-1-good: \"good\", completed, branch orchestrator/w-1-good]\n> The parser ignores quotes.\n[end",
        "[report of w-2-bad: \"bad\", failed (out of ideas), branch orchestrator/w-2-bad]\n",
    ] {
        assert!(context.contains(part), "{part} in {context}");
    }
    assert!(printed.contains("Sum it up."), "{printed}");
    let folder = world.attempt(&id, 1).join("stdout.log");
    let whole = std::fs::read_to_string(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    assert!(whole.starts_with(&format!("{context}Sum it up.\n")), "it is what the CLI got: {whole}");
    let base = world.git(&["rev-parse", "main"]);
    let view = server.orchestrator.get(&id).await.unwrap();
    assert_eq!(view.worker.base_commit.as_deref(), Some(base.as_str()), "context changes no base");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mission_waits_for_its_reports() {
    let world = World::new();
    let server = world.server_with(Some("boss"), settings(&world));
    let (held, free) = (world.shared("go"), world.path("go-on"));
    let drafts = vec![
        Draft { task_id: Some("look".into()), ..mission("look", &format!("wait-file {}", held.display())) },
        mission("other", &format!("wait-file {}", free.display())),
    ];
    let ids: Vec<String> = server.create(drafts).await.into_iter().map(Result::unwrap).collect();
    let id = server.create_one(sums_up(&["look", &ids[1]])).await;
    assert_eq!(waits_for(&server, &id).await.as_deref(), Some("look's report, w-2's report"));
    server.until(&ids[0], "running").await;
    server.orchestrator.cancel(&server.boss, &ids[0], "not needed").await.unwrap();
    assert!(in_time(async || waits_for(&server, &id).await.as_deref() == Some("w-2's report")).await);
    std::fs::write(&free, "").unwrap();
    printed(&server, &id).await;
    let context = assignment(&world, &id, 1).context.unwrap();
    assert!(context.contains("\"look\", cancelled (") && context.contains("not needed"), "{context}");
    assert!(!held.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fresh_attempt_gets_the_newest_report() {
    let world = World::new();
    let mut settings = settings(&world);
    settings.max_workers = Some(1);
    let server = world.server_with(Some("boss"), settings);
    let first = server.create_one(mission("first", "say old")).await;
    server.wait(&[&first], CEILING).await;
    let id = server.create_one(sums_up(&[&first])).await;
    printed(&server, &id).await;
    assert!(assignment(&world, &id, 1).context.unwrap().contains("> old\n"));
    let retry = async |worker: &str, prompt: &str| {
        let prompt = Some(prompt.to_owned());
        let request = RetryRequest { prompt, fresh: true, ..RetryRequest::default() };
        server.orchestrator.retry(&server.boss, worker, request).await.unwrap();
    };
    let held = world.path("held");
    retry(&first, &format!("FAKE:\nwait-file {}\nsay new", held.display())).await;
    retry(&id, "Sum it up again.").await;
    assert_eq!(waits_for(&server, &id).await.as_deref(), Some("w-1's report"));
    std::fs::write(&held, "").unwrap();
    server.until(&id, "completed").await;
    let second = assignment(&world, &id, 2);
    assert!(second.context.unwrap().contains("> new\n"));
    until_exists(&world.attempt(&id, 2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resumed_session_gets_no_second_context() {
    let world = World::new();
    let server = world.server_with(Some("boss"), settings(&world));
    let first = server.create_one(mission("first", "say old")).await;
    server.wait(&[&first], CEILING).await;
    let resumable = Draft { context_from: vec![first.clone()], ..mission("next", "session s-1\nsay done") };
    let id = server.create_one(resumable).await;
    server.wait(&[&id], CEILING).await;
    assert!(assignment(&world, &id, 1).context.is_some());
    let request = RetryRequest { feedback: Some("FAKE:\nsay again".to_owned()), ..RetryRequest::default() };
    server.orchestrator.retry(&server.boss, &id, request).await.unwrap();
    server.until(&id, "completed").await;
    assert_eq!(assignment(&world, &id, 2).context, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarted_server_still_waits_for_the_report() {
    let world = World::new();
    let server = world.server_with(Some("boss"), settings(&world));
    let held = world.path("held");
    let first = server.create_one(mission("first", &format!("wait-file {}\nsay late", held.display()))).await;
    let id = server.create_one(sums_up(&[&first])).await;
    server.until(&first, "running").await;
    server.orchestrator.shut_down().await;
    let server = world.server_with(Some("boss"), settings(&world));
    assert_eq!(waits_for(&server, &id).await.as_deref(), Some("w-1's report"));
    std::fs::write(&held, "").unwrap();
    printed(&server, &id).await;
    assert!(assignment(&world, &id, 1).context.unwrap().contains("> late\n"));
}
