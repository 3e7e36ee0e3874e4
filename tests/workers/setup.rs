//! The setup of a worktree: before the CLI, once, within its limit, and never mistaken for work of the worker.

use std::fs;
use std::path::{Path, PathBuf};

use orchestrator_boss::attempt::inbox::Delivery;
use orchestrator_boss::attempt::status::Phase;
use orchestrator_boss::config::{RepositorySettings, Settings};
use orchestrator_boss::mission::create::{Draft, DraftPlace};
use orchestrator_boss::mission::entry::AttemptSummary;
use orchestrator_boss::mission::lifecycle::{Ending, WorkerStatus};
use orchestrator_boss::mission::outcome::FailureKind;
use orchestrator_boss::orchestrator::{
    BatchKind, IntegrationRequest, IntegrationSource, NewMessage, RemovalRequest, RemovalTarget, RetryRequest,
};

use crate::support::wait::{CEILING, in_time};
use crate::world::{Server, World, mission, until_exists};

/// Returns settings with this setup command.
fn settings(world: &World, command: &str) -> Settings {
    Settings { setup_command: Some(command.to_owned()), ..world.settings() }
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

async fn last(server: &Server, id: &str) -> AttemptSummary {
    server.orchestrator.get(id).await.unwrap().worker.last().unwrap().clone()
}

async fn retry(server: &Server, id: &str, script: &str, fresh: bool) {
    let feedback = Some(format!("FAKE:\n{script}"));
    let request = RetryRequest { feedback, fresh, ..RetryRequest::default() };
    server.orchestrator.retry(&server.boss, id, request).await.unwrap();
    server.until(id, "completed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn setup_runs_once_before_the_cli() {
    let world = World::new();
    let order = world.shared("order");
    let server = world.server_with(Some("boss"), settings(&world, &format!("echo setup >> {}", order.display())));
    let cli = format!("append {} cli", order.display());
    let id = server.create_one(mission("one", &cli)).await;
    server.until(&id, "completed").await;
    retry(&server, &id, &cli, false).await;
    assert_eq!(text(&order), "setup\ncli\ncli\n");
    let first = &server.orchestrator.get(&id).await.unwrap().worker.settled[0];
    assert!(first.setup.as_ref().is_some_and(|setup| setup.passed), "{first:#?}");
    assert_eq!(last(&server, &id).await.setup, None, "the second attempt had none to run");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fresh_retry_and_new_worktree_are_set_up_again() {
    let world = World::new();
    let order = world.shared("order");
    let server = world.server_with(Some("boss"), settings(&world, &format!("echo setup >> {}", order.display())));
    let id = server.create_one(mission("one", "say done")).await;
    server.until(&id, "completed").await;
    retry(&server, &id, "say again", true).await;
    assert_eq!(text(&order), "setup\nsetup\n");
    let target = RemovalTarget::Worker(id.clone());
    let request = RemovalRequest { target, repo_path: None, force: true, delete_branch: false };
    server.orchestrator.remove_worktree(&server.boss, request).await.unwrap();
    retry(&server, &id, "say again", false).await;
    assert_eq!(text(&order), "setup\nsetup\nsetup\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_setup_starts_no_cli() {
    let world = World::new();
    let (ran, fixed) = (world.shared("ran"), world.shared("fixed"));
    let command = format!("echo x >> README; echo no lock file; test -e {}", fixed.display());
    let server = world.server_with(Some("boss"), settings(&world, &command));
    let draft = Draft {
        fallback_backends: vec!["other".into()],
        max_attempts: 3,
        ..mission("one", &format!("touch {}", ran.display()))
    };
    let id = server.create_one(draft).await;
    let answer = server.wait(&[&id], CEILING).await;
    let worker = &answer.settled[0].worker;
    assert_eq!((worker.status, worker.settled.len()), (WorkerStatus::Settled(Ending::Failed), 1), "{worker:#?}");
    assert!(answer.blocked.is_empty(), "{:?}", answer.blocked);
    let brief = worker.last().unwrap();
    let failure = brief.failure.as_ref().unwrap();
    assert_eq!(failure.kind, FailureKind::SetupFailed);
    for part in ["cannot set up the worktree: `echo x", "exit status 1", "no lock file"] {
        assert!(failure.message.contains(part), "{part}: {}", failure.message);
    }
    assert!(!ran.exists() && !world.attempt(&id, 1).join("stdout.log").exists());
    assert_eq!(text(&world.attempt(&id, 1).join("setup.log")), "no lock file\n");
    assert_eq!((brief.changes.commits, brief.changes.uncommitted), (0, 1), "what setup changed is not committed");

    fs::write(&fixed, "").unwrap();
    retry(&server, &id, &format!("touch {}", ran.display()), false).await;
    assert!(ran.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tracked_files_changed_by_setup_are_named() {
    let world = World::new();
    let server = world.server_with(Some("boss"), settings(&world, "echo x >> README; touch untracked"));
    let id = server.create_one(mission("one", "say done")).await;
    server.until(&id, "completed").await;
    let notes = last(&server, &id).await.changes.notes;
    assert!(notes.contains(&"setup changed 1 tracked file".to_owned()), "{notes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ignored_files_of_setup_are_not_work() {
    let world = World::new();
    fs::write(world.repo().join(".gitignore"), "made/\nmade.txt\n").unwrap();
    world.git(&["add", "."]);
    world.git(&["commit", "-qm", "ignore"]);
    let command = "mkdir -p made/deep; echo x > made/deep/a; echo x > made.txt; git init -q made/repo";
    let server = world.server_with(Some("boss"), settings(&world, command));
    let id = server.create_one(mission("one", "write a.txt x\ncommit a")).await;
    server.until(&id, "completed").await;
    assert_eq!(last(&server, &id).await.changes.not_on_branch, []);
    // A later attempt does not take them for its work either, but its own files are.
    retry(&server, &id, "write made/deep/own x", false).await;
    let parts = last(&server, &id).await.changes.not_on_branch;
    assert_eq!(parts.len(), 1, "{parts:?}");
    assert!(parts[0].what.contains("made/ (1 file)"), "{parts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn setup_over_its_limit_is_ended_with_its_children() {
    let world = World::new();
    let command = "sleep 300 & (sleep 300 &) ; echo began; sleep 300";
    let settings = Settings { setup_timeout_minutes: 0.02, ..settings(&world, command) };
    let server = world.server_with(Some("boss"), settings);
    let id = server.create_one(mission("one", "say done")).await;
    server.until(&id, "failed").await;
    let brief = last(&server, &id).await;
    let failure = brief.failure.as_ref().unwrap();
    assert_eq!(failure.kind, FailureKind::SetupFailed);
    assert!(failure.message.contains("took longer than 0.02 minutes"), "{}", failure.message);
    assert_eq!(brief.survivors, 0);
    // The world checks that no process is left.
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn setup_is_shown_and_cancelled_while_it_runs() {
    let world = World::new();
    let began = world.shared("began");
    let command = format!("touch {}; sleep 300 & sleep 300", began.display());
    let server = world.server_with(Some("boss"), settings(&world, &command));
    let id = server.create_one(mission("one", "say done")).await;
    until_exists(&began).await;
    let live = async || server.orchestrator.get(&id).await.unwrap().live;
    let shown = async || live().await.is_some_and(|live| live.phase == Phase::SettingUp);
    assert!(in_time(shown).await, "{:?}", live().await);
    assert!(live().await.unwrap().activity.starts_with("setting up: touch "), "{:?}", live().await);
    let message = NewMessage { text: "look at b".to_owned(), delivery: Delivery::WhenReady, by: None };
    server.orchestrator.send_message(&server.boss, &id, message).await.unwrap();

    let answer = server.orchestrator.cancel(&server.boss, &id, "enough").await.unwrap();
    assert_eq!((answer.status, answer.survivors), (WorkerStatus::Settled(Ending::Cancelled), 0));
    let brief = last(&server, &id).await;
    assert_eq!((brief.failure, brief.undelivered), (None, vec!["look at b".to_owned()]));
    assert!(!world.attempt(&id, 1).join("stdout.log").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn message_during_setup_reaches_the_first_turn() {
    let world = World::new();
    let (began, go) = (world.shared("began"), world.shared("go"));
    let command = format!("touch {}; until test -e {}; do sleep 0.05; done", began.display(), go.display());
    let server = world.server_with(Some("boss"), settings(&world, &command));
    let id = server.create_one(mission("one", "say done")).await;
    until_exists(&began).await;
    let message = NewMessage { text: "FAKE:\ntouch heard".to_owned(), delivery: Delivery::WhenReady, by: None };
    server.orchestrator.send_message(&server.boss, &id, message).await.unwrap();
    fs::write(&go, "").unwrap();
    server.until(&id, "completed").await;
    assert!(world.worktree(&id).join("heard").exists());
    assert_eq!(last(&server, &id).await.undelivered, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn daemon_of_setup_ends_before_the_cli() {
    let world = World::new();
    let pid = world.shared("pid");
    let command = format!("(sleep 300 & echo $! > {})", pid.display());
    let server = world.server_with(Some("boss"), settings(&world, &command));
    let seen = world.shared("seen");
    let script = format!("run kill -0 $(cat {}) && touch {}", pid.display(), seen.display());
    let id = server.create_one(mission("one", &script)).await;
    server.until(&id, "completed").await;
    assert!(pid.exists() && !seen.exists(), "it ran beside the CLI");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn command_of_the_mission_wins() {
    let world = World::new();
    let server = world.server_with(Some("boss"), settings(&world, "touch general"));
    let own = |draft: Draft| Draft { setup_command: Some("touch own".to_owned()), ..draft };
    let id = server.create_one(own(mission("own", "say done"))).await;
    server.until(&id, "completed").await;
    let made = |folder: &Path| ["general", "own"].map(|name| folder.join(name).exists());
    assert_eq!(made(&world.worktree(&id)), [false, true]);

    // A directory of the user is set up only if the mission asks for it.
    let directory = world.shared("directory");
    fs::create_dir(&directory).unwrap();
    let there = |draft: Draft| Draft { place: DraftPlace::Directory(directory.clone()), ..draft };
    for (draft, expected) in [
        (there(mission("plain", "say done")), [false, false]),
        (own(there(mission("named", "say done"))), [false, true]),
    ] {
        let id = server.create_one(draft).await;
        server.until(&id, "completed").await;
        assert_eq!(made(&directory), expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repository_has_its_own_command_in_the_subfolder() {
    let world = World::new();
    fs::create_dir(world.repo().join("app")).unwrap();
    fs::write(world.repo().join("app/x"), "x").unwrap();
    world.git(&["add", "."]);
    world.git(&["commit", "-qm", "app"]);
    world.git(&["remote", "add", "origin", "git@example.org:a/b.git"]);
    let named =
        |command: &str| RepositorySettings { setup_command: Some(command.to_owned()), ..RepositorySettings::default() };
    for (name, file) in [
        (world.repo().to_string_lossy().into_owned(), "by-path"),
        ("https://example.org/a/b".to_owned(), "by-remote"),
        ("/elsewhere".to_owned(), "general"),
    ] {
        let mut settings = settings(&world, "touch general");
        settings.repositories.insert(name, named(&format!("touch {file}")));
        let server = world.server_with(Some("boss"), settings);
        let mut draft = mission(file, "say done");
        let directory = Some(PathBuf::from("app"));
        draft.place = DraftPlace::Worktree { branch: None, base: None, path: None, directory };
        let id = server.create_one(draft).await;
        server.until(&id, "completed").await;
        assert!(world.worktree(&id).join("app").join(file).exists(), "{file}");
        let assignment = text(&world.attempt(&id, 1).join("assignment.json"));
        assert!(!assignment.contains("example.org/a/b"), "{assignment}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_setup_is_suggested_once() {
    let world = World::new();
    fs::write(world.repo().join(".gitignore"), "node_modules\n").unwrap();
    fs::write(world.repo().join("package-lock.json"), "{}\n").unwrap();
    world.git(&["add", "."]);
    world.git(&["commit", "-qm", "packages"]);
    fs::create_dir_all(world.repo().join("node_modules/x")).unwrap();
    fs::write(world.repo().join("node_modules/x/index.js"), "x").unwrap();
    let note = async |server: &Server, draft: Draft| {
        let created = server.orchestrator.create(&server.boss, vec![Ok(draft)], BatchKind::Single).await.unwrap();
        created.base.unwrap().note
    };
    let server = world.server(Some("boss"));
    let own = Draft { setup_command: Some("true".to_owned()), ..mission("own", "say done") };
    assert_eq!(note(&server, own).await, None);
    let said = note(&server, mission("one", "say done")).await.unwrap();
    assert!(said.starts_with("new worktrees lack node_modules") && said.contains("setup_command \"npm ci\""), "{said}");
    assert_eq!(note(&server, mission("two", "say done")).await, None);
    for id in ["w-1", "w-2", "w-3"] {
        server.until(id, "completed").await;
    }
    let server = world.server_with(Some("boss"), settings(&world, "true"));
    assert_eq!(note(&server, mission("three", "say done")).await, None);
    server.until("w-4", "completed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_keeps_its_own_ports_until_its_worktree_is_removed() {
    let world = World::new();
    let print =
        |name: &str| format!("echo set $ORCHESTRATOR_PORT $ORCHESTRATOR_WORKER > {}", world.shared(name).display());
    let server = world.server_with(Some("boss"), settings(&world, &print("setup")));
    let cli = format!("run {}", print("cli"));
    let verified = |title: &str| Draft { verify_command: Some(print("verify")), ..mission(title, &cli) };
    let ports = async |title: &str| {
        let id = server.create_one(verified(title)).await;
        server.until(&id, "completed").await;
        let said = text(&world.shared("setup"));
        assert_eq!([text(&world.shared("cli")), text(&world.shared("verify"))], [said.clone(), said.clone()]);
        let words: Vec<&str> = said.split_whitespace().collect();
        assert_eq!((words.len(), words[2]), (3, &*id), "{said}");
        (id, said)
    };
    let ((one, first), (_, second)) = (ports("one").await, ports("two").await);
    let port = |said: &str| said.split(' ').nth(1).unwrap().parse::<u16>().unwrap();
    assert!(port(&first) != port(&second) && port(&first) % 10 == 0, "{first}{second}");
    retry(&server, &one, &cli, false).await;
    assert_eq!(text(&world.shared("cli")), first, "it keeps them");

    let target = RemovalTarget::Worker(one.clone());
    let request = RemovalRequest { target, repo_path: None, force: true, delete_branch: false };
    server.orchestrator.remove_worktree(&server.boss, request).await.unwrap();
    let taken = text(&world.state_dir().join("ports.json"));
    assert!(!taken.contains(&port(&first).to_string()) && taken.contains(&port(&second).to_string()), "{taken}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn port_taken_between_attempts_is_noted() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let print = format!("run echo $ORCHESTRATOR_PORT > {}", world.shared("port").display());
    let id = server.create_one(mission("one", &print)).await;
    server.until(&id, "completed").await;
    assert_eq!(last(&server, &id).await.changes.notes, Vec::<String>::new());
    let port: u16 = text(&world.shared("port")).trim().parse().unwrap();
    let _other = std::net::TcpListener::bind(("127.0.0.1", port + 4)).unwrap();
    retry(&server, &id, &print, false).await;
    assert_eq!(text(&world.shared("port")).trim(), port.to_string(), "it keeps its ports");
    let notes = last(&server, &id).await.changes.notes;
    let expected = format!("another process listened at port {} of this worker when the attempt began", port + 4);
    assert_eq!(notes, [expected]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn integration_is_verified_in_a_set_up_worktree() {
    let world = World::new();
    fs::write(world.repo().join(".gitignore"), "deps/\ncache/\n").unwrap();
    world.git(&["add", "."]);
    world.git(&["commit", "-qm", "ignore"]);
    fs::create_dir(world.repo().join("cache")).unwrap();
    fs::write(world.repo().join("cache/a"), "x\n").unwrap();
    let seed = vec!["cache".to_owned()];
    let install = "grep x cache/a && mkdir deps && echo $ORCHESTRATOR_PORT $ORCHESTRATOR_WORKER > deps/port";
    let server = world.server_with(Some("boss"), Settings { seed: seed.clone(), ..settings(&world, install) });
    let verify = "test -n \"$ORCHESTRATOR_PORT\" && grep \"$ORCHESTRATOR_PORT $ORCHESTRATOR_WORKER\" deps/port";
    let commits = |title: &str| format!("write {title}.txt x\ncommit {title}");
    let one = Draft { verify_command: Some(verify.to_owned()), ..mission("one", &commits("one")) };
    let id = server.create_one(one).await;
    server.until(&id, "completed").await;
    let request = |id: &str| IntegrationRequest {
        verify_command: Some(verify.to_owned()),
        ..IntegrationRequest::of(IntegrationSource::Worker(id.to_owned()))
    };
    let answer = server.orchestrator.integrate(&server.boss, request(&id)).await.unwrap();
    assert_eq!(answer.status.as_str(), "merged", "{answer:#?}");
    let ports = text(&world.state_dir().join("ports.json"));
    assert!(ports.contains(&id) && !ports.contains("integration"), "its ports are freed: {ports}");

    let by_mission = Draft { setup_command: Some("mkdir deps".to_owned()), ..mission("own", &commits("own")) };
    let id = server.create_one(by_mission).await;
    server.until(&id, "completed").await;
    let branch = server.orchestrator.get(&id).await.unwrap().worker.branch().unwrap().to_owned();
    let by_branch = IntegrationRequest {
        verify_command: Some("test -d deps && test ! -e deps/port".to_owned()),
        ..IntegrationRequest::of(IntegrationSource::Branch(branch))
    };
    let answer = server.orchestrator.integrate(&server.boss, by_branch).await.unwrap();
    assert_eq!(answer.status.as_str(), "merged", "its own setup runs for its branch: {answer:#?}");

    let broken = "if ls *.txt | grep -q two; then echo broken; exit 7; fi";
    let broken = Draft { setup_command: Some(broken.to_owned()), ..mission("two", &commits("two")) };
    let id = server.create_one(broken).await;
    server.until(&id, "completed").await;
    let answer = server.orchestrator.integrate(&server.boss, request(&id)).await.unwrap();
    assert_ne!(answer.status.as_str(), "merged", "{answer:#?}");
    let why = format!("{answer:#?}");
    assert!(why.contains("cannot set up the worktree") && why.contains("exit status 7"), "{why}");
    assert_eq!(answer.likely_cause, None, "the command never ran");
    assert!(!world.repo().join("two.txt").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seeded_folders_are_there_before_the_setup() {
    let world = World::new();
    fs::write(world.repo().join(".gitignore"), "cache/\n.venv/\n").unwrap();
    world.git(&["add", "."]);
    world.git(&["commit", "-qm", "ignore"]);
    for file in ["cache/a", ".venv/pyvenv.cfg"] {
        let path = world.repo().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "x\n").unwrap();
    }
    let seed = vec!["cache".to_owned(), ".venv".to_owned(), "absent".to_owned()];
    let own = RepositorySettings { seed: Some(seed), ..RepositorySettings::default() };
    let mut settings = settings(&world, "grep x cache/a");
    settings.repositories.insert(world.repo().to_string_lossy().into_owned(), own);
    let server = world.server_with(Some("boss"), settings);
    let id = server.create_one(mission("one", "say done")).await;
    server.until(&id, "completed").await;
    let notes = last(&server, &id).await.changes.notes;
    for says in [".venv is a virtual environment", "absent: the main checkout does not have it"] {
        assert!(notes.iter().any(|note| note.contains(says)), "{says}: {notes:?}");
    }
    assert!(!world.worktree(&id).join(".venv").exists());
    assert_eq!(last(&server, &id).await.changes.not_on_branch, [], "the copies are not work");
}
