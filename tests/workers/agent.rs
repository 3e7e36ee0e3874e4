//! Workers whose CLI is an agent of the Agent Client Protocol: the scripted agent, which behaves like real ones.

use std::path::PathBuf;

use orchestrator_boss::attempt::inbox::Delivery;
use orchestrator_boss::config::{Confine, Settings};
use orchestrator_boss::mission::create::Draft;
use orchestrator_boss::mission::outcome::FailureKind;
use orchestrator_boss::mission::spec::Permissions;
use orchestrator_boss::mission::summary::AttemptSummary;
use orchestrator_boss::orchestrator::{DeliveryState, Include, NewMessage};

use crate::support::sandbox::fake_cli;
use crate::support::wait::in_time;
use crate::world::{Server, World, mission, until_exists};

/// Returns settings with the scripted agent as the backend `agent`, and with `quirk` as another of this name.
fn settings(world: &World, quirk: &str) -> Settings {
    let entry = |name: &str, quirk: &str| {
        let program = fake_cli();
        let text = format!("name = {name:?}\nprogram = {program:?}\nargs = [\"--acp\", {quirk:?}]\noutput = \"acp\"");
        toml::from_str(&text).expect("a valid entry")
    };
    let mut settings = world.settings();
    settings.max_workers = Some(16);
    settings.custom.extend([entry("agent", "--quick"), entry("quirk", quirk)]);
    settings
}

fn agent(world: &World) -> Server {
    world.server_with(Some("boss"), settings(world, "--forgetful"))
}

fn on(backend: &str, script: &str) -> Draft {
    Draft { backend: backend.into(), ..mission("t", script) }
}

async fn last(server: &Server, id: &str) -> AttemptSummary {
    server.orchestrator.get(id).await.expect("a known worker").worker.last().expect("a settled attempt").clone()
}

async fn send(server: &Server, id: &str, text: &str, delivery: Delivery) {
    let message = NewMessage { text: text.to_owned(), delivery, by: None };
    server.orchestrator.send_message(&server.boss, id, message).await.expect("an accepted message");
}

fn attempt_file(world: &World, id: &str, attempt: u32, name: &str) -> PathBuf {
    world.repo().join(format!(".orchestrator/workers/{id}/attempts/{attempt}/{name}"))
}

fn read(path: &std::path::Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agent_works_asks_and_commits() {
    let world = World::new();
    let server = agent(&world);
    let mut draft = on("agent", "ask edit a.txt\nwrite a.txt x\nedit a.txt\nrun cat a.txt\ncommit a\nsay done");
    draft.verify_command = Some("test -f a.txt".to_owned());
    let id = server.create_one(draft).await;
    server.until(&id, "completed").await;
    let summary = last(&server, &id).await;
    assert_eq!((summary.final_message.as_str(), summary.denials), ("done", 0));
    assert_eq!(summary.usage, Default::default(), "unreliable numbers are not reported");
    assert!(summary.session_id.is_some());
    let events = read(&attempt_file(&world, &id, 1, "events.jsonl"));
    for part in ["\"ask: once\"", "\"what\":\"cat a.txt\"", "\"exit_code\":0", "\"paths\":[\"a.txt\"]"] {
        assert!(events.contains(part), "{part} is not in {events}");
    }
    // Its output passed through a pipe.
    assert!(read(&attempt_file(&world, &id, 1, "stdout.log")).contains("session/update"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn denied_actions_are_named_in_the_outcome() {
    let world = World::new();
    let server = agent(&world);
    let script = "ask edit ../a.txt\nask edit /etc/hosts\nask edit ../a.txt\nsay done";
    let id = server.create_one(on("agent", script)).await;
    server.until(&id, "completed").await;
    let summary = last(&server, &id).await;
    assert_eq!((summary.denials, summary.denied.join("; ").as_str()), (3, "edit: ../a.txt; edit: /etc/hosts"));
    let record = read(&attempt_file(&world, &id, 1, "outcome.json"));
    let record: serde_json::Value = serde_json::from_str(&record).expect("a record");
    assert_eq!(record["run"]["denied"], serde_json::json!(summary.denied));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_agent_leaves_no_process() {
    let world = World::new();
    let server = agent(&world);
    let pid = world.shared("pid");
    let script = format!("child 600 {}\nclear-env-child 600\nrun sleep 600", pid.display());
    let id = server.create_one(on("agent", &script)).await;
    until_exists(&pid).await;
    let answer = server.orchestrator.cancel(&server.boss, &id, "not needed").await.unwrap();
    assert_eq!((answer.status.as_str(), answer.survivors), ("cancelled", 0));
    // It received the request of the protocol. The world checks that no process is left.
    assert!(read(&attempt_file(&world, &id, 1, "stdout.log")).contains("\"stopReason\":\"cancelled\""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn message_is_the_next_prompt_of_the_same_process() {
    let world = World::new();
    let server = agent(&world);
    let (gate, first, second) = (world.path("gate"), world.shared("first"), world.shared("second"));
    let script = format!("pid {}\nwait-file {}\nsay first", first.display(), gate.display());
    let id = server.create_one(on("agent", &script)).await;
    until_exists(&first).await;
    send(&server, &id, &format!("FAKE:\npid {}\nsay I heard it", second.display()), Delivery::WhenReady).await;
    std::fs::write(&gate, "").unwrap();
    server.until(&id, "completed").await;
    assert_eq!(last(&server, &id).await.final_message, "I heard it");
    assert_eq!(read(&first), read(&second));
    let include = Include { messages: true, ..Include::default() };
    let messages = server.orchestrator.details(&id, include).await.unwrap().messages.unwrap();
    assert!(matches!(messages[0].state, DeliveryState::At(_)), "{messages:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interrupting_message_continues_the_same_process() {
    let world = World::new();
    let server = agent(&world);
    let (first, second) = (world.shared("first"), world.shared("second"));
    let id = server.create_one(on("agent", &format!("pid {}\nhang", first.display()))).await;
    until_exists(&first).await;
    let text = format!("FAKE:\npid {}\nsay I heard it", second.display());
    send(&server, &id, &text, Delivery::Interrupt).await;
    server.until(&id, "completed").await;
    assert_eq!(last(&server, &id).await.final_message, "I heard it");
    assert_eq!(read(&first), read(&second));
}

/// Kills the supervisor of a worker of this backend, and gives its next attempt a message.
async fn continued_after_killed_supervisor(world: &World, backend: &str) -> String {
    let server = agent(world);
    let id = server.create_one(on(backend, "say first\nhang")).await;
    // The next attempt reads the session from there.
    let status = || std::fs::read_to_string(attempt_file(world, &id, 1, "status.json")).unwrap_or_default();
    assert!(in_time(async || status().contains("\"session_id\"")).await, "{}", status());
    let live = server.orchestrator.get(&id).await.unwrap().live.expect("a running attempt");
    let pid = rustix::process::Pid::from_raw(live.supervisor.pid as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    server.until(&id, "lost").await;
    send(&server, &id, "FAKE:\nsay I am back", Delivery::WhenReady).await;
    server.until(&id, "completed").await;
    assert_eq!(last(&server, &id).await.final_message, "I am back");
    id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agent_resumes_after_killed_supervisor() {
    let world = World::new();
    let id = continued_after_killed_supervisor(&world, "agent").await;
    // The history of the session is no event of this attempt.
    assert!(read(&attempt_file(&world, &id, 2, "stdout.log")).contains("old words"));
    assert!(!read(&attempt_file(&world, &id, 2, "events.jsonl")).contains("old words"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agent_without_memory_gets_the_mission_again() {
    let world = World::new();
    let id = continued_after_killed_supervisor(&world, "quirk").await;
    let events = read(&attempt_file(&world, &id, 2, "events.jsonl"));
    assert!(events.contains("cannot resume sessions, so a new session begins"), "{events}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doubtful_ends_are_failures_with_their_reasons() {
    let world = World::new();
    let server = world.server_with(Some("boss"), settings(&world, "--logged-out"));
    let asks = r#"raw {"jsonrpc":"2.0","id":5,"method":"session/request_permission","params":{"options":[]}}"#;
    let dies = format!("say working\n{asks}\ndie KILL");
    let cases = [
        ("agent", "stop end_turn", "failed", FailureKind::NoResult),
        ("agent", "say Error: HTTP 401, the key was refused\nstop end_turn", "failed", FailureKind::Auth),
        ("agent", "say trying\nstop refusal", "failed", FailureKind::Other),
        ("agent", "say long\nstop max_tokens", "failed", FailureKind::TurnLimit),
        ("agent", "say unusual\nstop cancelled", "failed", FailureKind::Other),
        ("agent", "fail other exceeded, last status: 429 Too Many Requests", "failed", FailureKind::RateLimit),
        ("agent", "say working\nexit 0", "failed", FailureKind::NoResult),
        ("agent", dies.as_str(), "interrupted", FailureKind::NoResult),
        ("quirk", "say never", "failed", FailureKind::Auth),
    ];
    // Together: a refused login or a limit holds back later missions of the same backend.
    let drafts = cases.iter().map(|(backend, script, ..)| on(backend, script)).collect();
    let ids = server.create(drafts).await;
    for (id, (_, script, status, kind)) in ids.into_iter().zip(cases) {
        let id = id.expect("an accepted mission");
        server.until(&id, status).await;
        let failure = last(&server, &id).await.failure.expect("a reason");
        assert_eq!(failure.kind, kind, "{script}: {failure:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unusual_but_working_agents_complete() {
    let world = World::new();
    let server = agent(&world);
    let stray = r#"raw {"jsonrpc":"2.0","id":77,"result":{"stopReason":"end_turn"}}"#;
    let cases = [
        ("request fs/read_text_file", "request: -32601"),
        ("request terminal/create", "request: -32601"),
        ("ask-big 5000000", "ask-big: once"),
        ("big-line 5000000\nrun true\nsay after", "after"),
        ("flood 20000\nrun true\nsay after", "after"),
        ("garbage\nraw {\"jsonrpc\":\nsay after", "after"),
        (stray, "after"),
    ];
    let mut ids = Vec::new();
    for (script, _) in cases {
        ids.push(server.create_one(on("agent", &format!("{script}\nrun true\nsay after"))).await);
    }
    for (id, (script, words)) in ids.iter().zip(cases) {
        server.until(id, "completed").await;
        assert_eq!(last(&server, id).await.final_message, "after");
        let events = read(&attempt_file(&world, id, 1, "events.jsonl"));
        assert!(events.contains(words), "{script}: {words} is not in its events");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agent_races_and_is_a_fallback() {
    let world = World::new();
    let server = agent(&world);
    let script = "run case \"$PWD\" in *-slow) sleep 600;; esac\nwrite a.txt x\ncommit a\nsay done";
    let racers = [("fake", "slow"), ("agent", "quick")].map(|(backend, title)| Draft {
        backend: backend.into(),
        task_id: Some("race".into()),
        ..mission(title, script)
    });
    let racers = server.create_race(racers.to_vec()).await;
    let racers: Vec<String> = racers.into_iter().map(|made| made.expect("an accepted racer")).collect();
    server.until(&racers[1], "completed").await;
    server.until(&racers[0], "cancelled").await;
    for (first, then) in [("fake", "agent"), ("agent", "fake")] {
        let script = format!("fail-once {}\nwrite {first}.txt x\ncommit work\nsay done", world.shared(first).display());
        let draft = Draft { fallback_backends: vec![then.into()], max_attempts: 2, ..on(first, &script) };
        let id = server.create_one(draft).await;
        server.until(&id, "completed").await;
        let worker = server.orchestrator.get(&id).await.unwrap().worker;
        let tried: Vec<&str> = worker.settled.iter().map(|attempt| attempt.backend.as_str()).collect();
        assert_eq!(tried, [first, then]);
    }
}

/// Waits for the limit of a minute.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agent_that_never_answers_could_not_start() {
    let world = World::new();
    let server = world.server_with(Some("boss"), settings(&world, "--silent"));
    let id = server.create_one(on("quirk", "say never")).await;
    server.until(&id, "failed").await;
    let failure = last(&server, &id).await.failure.expect("a reason");
    assert_eq!(failure.kind, FailureKind::CouldNotStart);
    assert!(failure.message.contains("it printed nothing for 60 s before its first turn"), "{failure:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_that_the_agent_cannot_keep_are_refused() {
    let world = World::new();
    // The kernel would keep it from writing.
    let unconfined = Settings { confine: Confine::Off, ..settings(&world, "--forgetful") };
    let server = world.server_with(Some("boss"), unconfined);
    let read_only = Draft { permissions: Permissions::ReadOnly, ..on("agent", "say x") };
    let tokens = Draft { max_tokens: Some(1_000), ..on("agent", "say x") };
    let cost = Draft { max_cost_usd: Some(1.0), ..on("agent", "say x") };
    for (draft, words) in
        [(read_only, "read_only"), (tokens, "cannot limit the tokens"), (cost, "cannot limit the cost")]
    {
        let refused = server.create(vec![draft]).await.remove(0).unwrap_err();
        assert!(refused.contains(words), "{refused}");
    }
}
