//! Workers whose CLI asks: the authors of answers, the answer that counts, and questions without one.

use std::path::PathBuf;
use std::time::Duration;

use orchestrator_boss::attempt::inbox::Delivery;
use orchestrator_boss::attempt::status::LiveStatus;
use orchestrator_boss::config::Settings;
use orchestrator_boss::mission::create::Draft;
use orchestrator_boss::mission::hint::with_hints;
use orchestrator_boss::mission::question::{Decision, QuestionPolicy};
use orchestrator_boss::mission::summary::AttemptSummary;
use orchestrator_boss::orchestrator::{
    AnswerRequest, Answered, NewMessage, Observer, Orchestrator, QuestionView, Scope, WaitStatus,
};
use serde_json::Value;

use crate::starts::one_shot_client;
use crate::support::sandbox::fake_cli;
use crate::support::wait::{CEILING, in_time};
use crate::world::{Server, World, mission, until_exists};

/// An edit outside the worktree, and what the agent says afterwards.
const ASKS: &str = "ask edit /etc/hosts\nsay done";

/// Returns settings with the scripted agent as the backend `agent`. It asks about what would be denied.
fn settings(world: &World) -> Settings {
    let program = fake_cli();
    let entry = format!("name = \"agent\"\nprogram = {program:?}\nargs = [\"--acp\", \"--quick\"]\noutput = \"acp\"");
    let mut settings = Settings { questions: QuestionPolicy::Ask, ..world.settings() };
    settings.custom.push(toml::from_str(&entry).expect("a valid entry"));
    settings
}

fn asking(world: &World) -> Server {
    world.server_with(Some("boss"), settings(world))
}

fn on_agent(script: &str) -> Draft {
    Draft { backend: "agent".into(), ..mission("t", script) }
}

/// Waits for the question of a worker.
async fn asked(server: &Server, id: &str) -> QuestionView {
    let answer = server.wait(&[id], CEILING).await;
    assert_eq!(answer.status, WaitStatus::Question, "{answer:#?}");
    answer.questions[0].clone()
}

async fn decide_with(
    orchestrator: &Orchestrator,
    server: &Server,
    id: &str,
    question: Option<&str>,
    decision: &str,
    message: Option<&str>,
) -> Result<Answered, String> {
    let message = message.map(|text| NewMessage { text: text.to_owned(), delivery: Delivery::WhenReady, by: None });
    let question = question.map(str::to_owned);
    let request = AnswerRequest { question, decision: Decision::from(decision.to_owned()), message };
    orchestrator.answer(&server.boss, id, request).await.map_err(|error| with_hints(&error))
}

async fn decide(server: &Server, id: &str, question: &QuestionView, decision: &str) -> Result<Answered, String> {
    decide_with(&server.orchestrator, server, id, Some(&question.open.question.id), decision, None).await
}

async fn last(server: &Server, id: &str) -> AttemptSummary {
    server.orchestrator.get(id).await.expect("a known worker").worker.last().expect("a settled attempt").clone()
}

fn attempt_file(world: &World, id: &str, name: &str) -> PathBuf {
    world.repo().join(format!(".orchestrator/workers/{id}/attempts/1/{name}"))
}

fn events(world: &World, id: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(attempt_file(world, id, "events.jsonl")).expect("an event log");
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

/// Returns the decision that the log records, and who made it.
fn recorded(world: &World, id: &str) -> (String, String) {
    let events = events(world, id);
    let answered = events.iter().find(|event| event["event"] == "answered").expect("a recorded decision");
    let text = |field: &str| answered[field].as_str().expect("a text").to_owned();
    (text("decision"), text("by"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answer_of_boss_reaches_the_agent() {
    let world = World::new();
    let server = asking(&world);
    for (decision, option, denials) in [("allow", "once", 0), ("deny", "no", 1), ("once", "once", 0)] {
        let id = server.create_one(on_agent(ASKS)).await;
        let question = asked(&server, &id).await;
        assert_eq!(question.open.question.text, "permission for edit: /etc/hosts (outside its worktree)");
        assert_eq!(question.open.question.accepted(), ["allow", "deny", "once", "no"]);
        let answered = decide(&server, &id, &question, decision).await.expect("the first answer counts");
        assert_ne!(answered.status.as_str(), "needs_answer");
        server.until(&id, "completed").await;
        let chosen = format!("ask: {option}");
        let says = |event: &Value| event["text"].as_str().is_some_and(|text| text.contains(&chosen));
        assert!(events(&world, &id).iter().any(says), "{decision}");
        assert_eq!(recorded(&world, &id), (decision.to_owned(), "boss".to_owned()));
        let summary = last(&server, &id).await;
        assert_eq!((summary.denials, summary.denied.len()), (denials, denials as usize));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_worker_is_shown_everywhere() {
    let world = World::new();
    let server = asking(&world);
    let id = server.create_one(on_agent(ASKS)).await;
    let question = asked(&server, &id).await;
    let view = server.orchestrator.get(&id).await.unwrap();
    assert_eq!((view.worker.status.as_str(), QuestionView::of(&view).count()), ("needs_answer", 1));
    let list = server.orchestrator.list(&server.boss, Scope::Mine).await.unwrap();
    assert_eq!(list.workers[0].worker.status.as_str(), "needs_answer");
    let asks = |task: &Value| task["status"] == "needs_answer" && task["questions"][0]["accepts"][0] == "allow";
    world.until_state(|state| asks(&state["tasks"][0])).await;
    let mut observer = Observer::open(&world.repo().join(".orchestrator"), None).unwrap().expect("a state directory");
    let overview = observer.read().unwrap();
    assert_eq!(overview.workers().next().unwrap().worker.status.as_str(), "needs_answer");
    let counts = server.orchestrator.backend_status(Some(&"agent".into())).await.unwrap();
    assert_eq!((counts[0].running, counts[0].asks), (1, true), "it keeps its slot");

    // It is reported once, but a wait with nothing else repeats it.
    let again = server.wait(&[&id], Duration::ZERO).await;
    assert_eq!((again.status, again.questions.len()), (WaitStatus::StillRunning, 1));
    decide(&server, &id, &question, "allow").await.unwrap();
    let view = server.orchestrator.get(&id).await.unwrap();
    assert_eq!(QuestionView::of(&view).count(), 0);
    server.until(&id, "completed").await;
    world.until_state(|state| state["completed_tasks"][0]["questions"].is_null()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_answer_counts() {
    let world = World::new();
    let server = asking(&world);
    let gate = world.path("gate");
    let script = format!("ask edit /etc/hosts\nwait-file {}\nsay done", gate.display());
    let id = server.create_one(on_agent(&script)).await;
    let question = asked(&server, &id).await;
    // The user answers with a command, which opens the state for one call.
    let user = one_shot_client(&world);
    decide_with(&user, &server, &id, None, "allow", None).await.expect("the user's answer");
    user.shut_down().await;
    let late = decide(&server, &id, &question, "deny").await.unwrap_err();
    assert!(late.contains("it was already answered by the user: allow"), "{late}");
    let unknown = decide_with(&server.orchestrator, &server, &id, Some("q9.9.9"), "deny", None).await.unwrap_err();
    assert!(unknown.contains("it has no open question \"q9.9.9\""), "{unknown}");
    std::fs::write(&gate, "").unwrap();
    server.until(&id, "completed").await;
    assert_eq!(recorded(&world, &id), ("allow".to_owned(), "user".to_owned()));
    let over = decide(&server, &id, &question, "deny").await.unwrap_err();
    assert!(over.contains("it is completed, so it waits for no answer"), "{over}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_answers_at_once_have_one_winner() {
    let world = World::new();
    let server = asking(&world);
    let id = server.create_one(on_agent(ASKS)).await;
    let question = asked(&server, &id).await;
    let decisions = ["allow", "deny", "once", "no", "allow", "deny"];
    let answers = decisions.map(|decision| decide(&server, &id, &question, decision));
    let answers = futures_util::future::join_all(answers).await;
    let winners: Vec<usize> = (0..answers.len()).filter(|at| answers[*at].is_ok()).collect();
    assert_eq!(winners.len(), 1, "{answers:?}");
    let winner = decisions[winners[0]];
    let reason = format!("it was already answered by the boss: {winner}");
    let is_explained = |answer: &Result<Answered, String>| match answer {
        Ok(_) => true,
        Err(error) => error.contains(&reason) || error.contains("it waits for no answer"),
    };
    assert!(answers.iter().all(is_explained), "{answers:?}");
    server.until(&id, "completed").await;
    assert_eq!(recorded(&world, &id).0, winner);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_answers_change_nothing() {
    let world = World::new();
    let server = asking(&world);
    let id = server.create_one(on_agent(ASKS)).await;
    let question = asked(&server, &id).await;
    let always = decide(&server, &id, &question, "always").await.unwrap_err();
    assert!(always.contains("not among its choices") && always.contains("allow, deny, once, no"), "{always}");
    let other = world.server_with(Some("another"), settings(&world));
    let refused = decide_with(&other.orchestrator, &other, &id, None, "allow", None).await.unwrap_err();
    assert!(refused.contains("it is a worker of another boss"), "{refused}");
    server.until(&id, "needs_answer").await;
    decide(&server, &id, &question, "deny").await.unwrap();
    server.until(&id, "completed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn message_beside_the_answer_is_delivered() {
    let world = World::new();
    let server = asking(&world);
    let id = server.create_one(on_agent("ask edit /etc/hosts\nsay first")).await;
    asked(&server, &id).await;
    let text = "FAKE:\nsay I heard it";
    decide_with(&server.orchestrator, &server, &id, None, "deny", Some(text)).await.unwrap();
    let heard = async || {
        let view = server.orchestrator.get(&id).await.unwrap();
        view.worker.last().is_some_and(|last| last.final_message == "I heard it")
    };
    assert!(in_time(heard).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_answer_delivers_no_message() {
    let world = World::new();
    let server = asking(&world);
    let id = server.create_one(on_agent("ask edit /etc/hosts\nsay first")).await;
    asked(&server, &id).await;
    let decide = |decision, text| decide_with(&server.orchestrator, &server, &id, None, decision, Some(text));
    let (one, other) = tokio::join!(decide("deny", "FAKE:\nsay one"), decide("allow", "FAKE:\nsay other"));
    assert_ne!(one.is_ok(), other.is_ok(), "{one:?} {other:?}");
    let (heard, refused) = if one.is_ok() { ("say one", "say other") } else { ("say other", "say one") };
    let entries = std::fs::read_dir(attempt_file(&world, &id, "inbox")).unwrap();
    let inbox: String = entries.filter_map(|entry| std::fs::read_to_string(entry.ok()?.path()).ok()).collect();
    assert!(inbox.contains(heard) && !inbox.contains(refused), "{inbox}");
}

/// Checks a boss with two servers. The one that does not follow the worker reports its question too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn question_reaches_its_boss_through_any_server() {
    let world = World::new();
    let (first, second) = (asking(&world), asking(&world));
    let id = first.create_one(on_agent(ASKS)).await;
    let question = asked(&second, &id).await;
    assert_eq!(asked(&first, &id).await.open.question.id, question.open.question.id);
    let list = second.orchestrator.list(&second.boss, Scope::Mine).await.unwrap();
    assert_eq!(list.workers[0].worker.status.as_str(), "needs_answer");
    decide(&second, &id, &question, "deny").await.unwrap();
    first.until(&id, "completed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn message_continues_a_turn_that_a_denial_ended() {
    let world = World::new();
    let server = asking(&world);
    // Like some agents, it ends its turn without a word when an action is denied.
    let id = server.create_one(on_agent("ask edit /etc/hosts\nstop end_turn")).await;
    asked(&server, &id).await;
    let text = "FAKE:\nsay I heard it";
    decide_with(&server.orchestrator, &server, &id, None, "deny", Some(text)).await.unwrap();
    let heard = async || {
        let view = server.orchestrator.get(&id).await.unwrap();
        view.worker.last().is_some_and(|last| last.final_message == "I heard it")
    };
    assert!(in_time(heard).await);
    server.until(&id, "completed").await;
}

/// Checks a question that is open for longer than the time limit of its mission, which is one minute.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unanswered_question_is_denied_and_its_time_counts_nowhere() {
    let world = World::new();
    let settings = Settings { question_minutes: 62.0 / 60.0, stall_minutes: 0.05, ..settings(&world) };
    let server = world.server_with(Some("boss"), settings);
    let id = server.create_one(Draft { timeout_minutes: 1, ..on_agent(ASKS) }).await;
    let question = asked(&server, &id).await;
    let left = question.open.denied_at.unwrap().saturating_sub(orchestrator_boss::process::monotonic());
    assert!((1..=62).contains(&left.as_secs()), "{left:?}");
    let answer = server.wait(&[&id], CEILING).await;
    assert_eq!(answer.status, WaitStatus::Settled, "it neither stalls nor times out: {answer:#?}");
    assert_eq!(answer.settled[0].worker.status.as_str(), "completed");
    assert_eq!(recorded(&world, &id), ("deny".to_owned(), "time_limit".to_owned()));
    assert_eq!(last(&server, &id).await.denials, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_worker_asks_no_more() {
    let world = World::new();
    let server = asking(&world);
    let id = server.create_one(on_agent(ASKS)).await;
    let question = asked(&server, &id).await;
    let answer = server.orchestrator.cancel(&server.boss, &id, "not needed").await.unwrap();
    assert_eq!(answer.status.as_str(), "cancelled");
    assert!(events(&world, &id).iter().any(|event| event["event"] == "withdrawn"));
    let stdout = std::fs::read_to_string(attempt_file(&world, &id, "stdout.log")).unwrap();
    assert!(stdout.contains("\"stopReason\":\"cancelled\""), "{stdout}");
    let late = decide(&server, &id, &question, "allow").await.unwrap_err();
    assert!(late.contains("it is cancelled, so it waits for no answer"), "{late}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn question_ends_with_its_worker() {
    let world = World::new();
    let server = asking(&world);
    let pid = world.shared("pid");
    let script = format!("pid {}\nask edit /etc/hosts\nsay done", pid.display());
    let kill = |pid: i32| {
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    };
    // First the CLI alone, then the supervisor.
    for (victim, status) in [("cli", "interrupted"), ("supervisor", "lost")] {
        let _ = std::fs::remove_file(&pid);
        let id = server.create_one(on_agent(&script)).await;
        let question = asked(&server, &id).await;
        until_exists(&pid).await;
        if victim == "cli" {
            kill(std::fs::read_to_string(&pid).unwrap().trim().parse().unwrap());
        } else {
            let live = server.orchestrator.get(&id).await.unwrap().live.expect("a running attempt");
            kill(live.supervisor.pid as i32);
        }
        server.until(&id, status).await;
        let view = server.orchestrator.get(&id).await.unwrap();
        assert_eq!(QuestionView::of(&view).count(), 0);
        let late = decide(&server, &id, &question, "allow").await.unwrap_err();
        assert!(late.contains(&format!("it is {status}, so it waits for no answer")), "{late}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn next_server_reports_the_question() {
    let world = World::new();
    let first = asking(&world);
    let id = first.create_one(on_agent(ASKS)).await;
    let question = asked(&first, &id).await;
    first.orchestrator.shut_down().await;
    let second = asking(&world);
    let again = asked(&second, &id).await;
    assert_eq!(again.open.question, question.open.question);
    decide(&second, &id, &again, "allow").await.unwrap();
    second.until(&id, "completed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policies_without_questions_decide_at_once() {
    let world = World::new();
    let script = "ask edit a.txt\nask edit /etc/hosts\nsay done";
    for (policy, denials) in [(QuestionPolicy::AllowInWorktree, 1), (QuestionPolicy::Deny, 2)] {
        let server = world.server_with(Some("boss"), Settings { questions: policy, ..settings(&world) });
        let id = server.create_one(on_agent(script)).await;
        let answer = server.wait(&[&id], CEILING).await;
        assert_eq!((answer.status, answer.questions.len()), (WaitStatus::Settled, 0));
        assert_eq!(last(&server, &id).await.denials, denials, "{policy:?}");
        let kinds = ["asked", "answered", "withdrawn"];
        assert!(events(&world, &id).iter().all(|event| !kinds.contains(&event["event"].as_str().unwrap())));
        let status: LiveStatus =
            serde_json::from_slice(&std::fs::read(attempt_file(&world, &id, "status.json")).unwrap()).unwrap();
        assert_eq!((status.questions.len(), status.closed_questions.len()), (0, 0));
        server.orchestrator.shut_down().await;
    }
}
