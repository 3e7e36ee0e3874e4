//! Integrations with a verification: trains, culprits, joined calls, pushes, and deaths of servers and supervisors.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use orchestrator_boss::mission::outcome::Verification;
use orchestrator_boss::orchestrator::{IntegrationAnswer, IntegrationRequest, IntegrationSource, PushResult, Strategy};
use orchestrator_boss::process::{ProcessTree, Signal, send};

use crate::support::git::git;
use crate::support::wait::eventually;
use crate::world::{Server, World, mission, until_exists};

async fn completed(server: &Server, missions: &[(&str, &str)]) -> Vec<String> {
    let drafts = missions.iter().map(|(title, script)| mission(title, script)).collect();
    let ids: Vec<String> = server.create(drafts).await.into_iter().map(Result::unwrap).collect();
    for id in &ids {
        server.until(id, "completed").await;
    }
    ids
}

fn verified(id: &str, command: &str) -> IntegrationRequest {
    let verify_command = Some(command.to_owned());
    IntegrationRequest { verify_command, ..IntegrationRequest::of(IntegrationSource::Worker(id.to_owned())) }
}

fn train(ids: &[String], command: &str) -> IntegrationRequest {
    let verify_command = Some(command.to_owned());
    IntegrationRequest { verify_command, ..IntegrationRequest::of(IntegrationSource::Train(ids.to_vec())) }
}

async fn integrate(server: &Server, request: &IntegrationRequest) -> IntegrationAnswer {
    server.orchestrator.integrate(&server.boss, request.clone()).await.unwrap()
}

fn verifications_dir(world: &World) -> PathBuf {
    world.repo().join(".orchestrator/integrations")
}

/// Checks that no folder and no worktree of a verification remains.
fn check_nothing_left(world: &World) {
    assert!(
        !verifications_dir(world).exists(),
        "{:?}",
        std::fs::read_dir(verifications_dir(world)).map(Iterator::count)
    );
    assert!(!world.git(&["worktree", "list", "--porcelain"]).contains("verify-"));
}

/// Returns a command that appends a line to the first file and then waits for the second one, with both files.
fn gated(world: &World) -> (PathBuf, PathBuf, String) {
    let (here, gate) = (world.shared("here"), world.path("gate"));
    let command = format!("echo x >> '{}'; while [ ! -e '{}' ]; do sleep 0.02; done", here.display(), gate.display());
    (here, gate, command)
}

fn runs(here: &Path) -> usize {
    std::fs::read_to_string(here).map_or(0, |text| text.lines().count())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn train_leaves_out_culprit_and_conflicts_merges_rest() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let ids = completed(
        &server,
        &[
            ("a", "write a.txt a\ncommit a"),
            ("r", "write README one\ncommit r"),
            ("s", "write README two\ncommit s"),
            ("bad", "write bad.txt x\ncommit bad"),
            ("c", "write c.txt c\ncommit c"),
        ],
    )
    .await;
    let dry = IntegrationRequest { dry_run: true, ..train(&ids, "exit 1") };
    let objects = world.git(&["count-objects", "-v"]);
    let would = integrate(&server, &dry).await;
    assert_eq!((would.status.as_str(), would.left_out.len(), would.verification), ("would_merge", 1, None));
    assert_eq!(world.git(&["count-objects", "-v"]), objects);

    let answer = integrate(&server, &train(&ids, "test ! -e bad.txt")).await;
    assert_eq!(answer.status.as_str(), "merged", "{answer:#?}");
    assert_eq!(answer.integrated, [&*ids[0], &ids[1], &ids[4]]);
    let why = |id: &str| &answer.left_out.iter().find(|(left, _)| left == id).unwrap().1.text;
    assert!(why(&ids[2]).contains("README (contents)"), "{answer:#?}");
    assert!(why(&ids[3]).contains("verification failed"), "{answer:#?}");
    let main = world.git(&["rev-parse", "main"]);
    assert_eq!(answer.commit.as_ref(), Some(&main));
    assert_eq!(answer.verification.as_ref().unwrap().commit(), Some(&*main), "{answer:#?}");
    // The verifications of the whole train, the target alone, two steps of bisection, and the rest.
    assert_eq!(answer.verifications, 5);
    assert!(world.repo().join("c.txt").exists() && !world.repo().join("bad.txt").exists());
    assert_eq!(world.git(&["status", "--porcelain"]), "");
    for id in [&ids[0], &ids[1], &ids[4]] {
        let worker = server.orchestrator.get(id).await.unwrap().worker;
        assert_eq!(worker.integrated.as_ref().unwrap().into, "main");
    }
    check_nothing_left(&world);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failing_target_blames_no_branch() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let ids = completed(&server, &[("a", "write a.txt a\ncommit a"), ("b", "write b.txt b\ncommit b")]).await;
    let before = world.git(&["rev-parse", "main"]);
    let answer = integrate(&server, &train(&ids, "exit 3")).await;
    assert_eq!((answer.status.as_str(), answer.verifications), ("verification_failed", 2));
    assert!(answer.left_out.iter().all(|(_, why)| why.text.contains("main alone does not pass")), "{answer:#?}");
    assert_eq!(world.git(&["rev-parse", "main"]), before);
    check_nothing_left(&world);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verification_precedes_the_merge_in_its_own_worktree() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let ids = completed(&server, &[("a", "write a.txt a\ncommit a")]).await;
    let (before, out) = (world.git(&["rev-parse", "main"]), world.shared("out"));
    let fails = "echo it is broken; exit 7";
    for (command, status) in [
        (fails, "verification_failed"),
        ("no-such-program-here", "could_not_verify"),
        ("echo x >> a.txt", "could_not_verify"),
    ] {
        let answer = integrate(&server, &verified(&ids[0], command)).await;
        assert_eq!(answer.status.as_str(), status, "{answer:#?}");
        assert_eq!((answer.integrated.len(), answer.commit), (0, None));
        if command == fails {
            let note = answer.verification.unwrap().note().unwrap();
            assert!(note.contains("status 7") && note.contains("it is broken"), "{note}");
            let (_, log) = answer.notes[0].split_once("failed verification: ").expect("the path of the whole log");
            assert_eq!(std::fs::read_to_string(log).unwrap(), "it is broken\n");
        }
    }
    assert_eq!(world.git(&["rev-parse", "main"]), before);
    let command = format!(
        "(git rev-parse HEAD main; pwd; git symbolic-ref -q HEAD; test -e a.txt && echo there) > '{}'",
        out.display()
    );
    let answer = integrate(&server, &verified(&ids[0], &command)).await;
    let printed = std::fs::read_to_string(out).unwrap();
    let printed: Vec<&str> = printed.lines().collect();
    assert_eq!(printed[..2], [answer.commit.as_ref().unwrap(), &before], "the merged commit, before the branch moves");
    let directory = world.worktree("verify-").to_string_lossy().into_owned();
    assert!(printed[2].starts_with(&directory) && printed[3..] == ["there"], "{printed:?}");
    assert_eq!(world.git(&["rev-parse", "main"]), *printed[0]);
    check_nothing_left(&world);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verification_is_ended_at_its_time_limit() {
    let world = World::new();
    let mut settings = world.settings();
    settings.verify_timeout_minutes = 0;
    let server = world.server_with(Some("boss"), settings);
    let ids = completed(&server, &[("a", "write a.txt a\ncommit a")]).await;
    let answer = integrate(&server, &verified(&ids[0], "sleep 600 & sleep 600")).await;
    assert_eq!(answer.status.as_str(), "verification_timed_out", "{answer:#?}");
    check_nothing_left(&world);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeated_call_joins_the_running_integration() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let ids = completed(&server, &[("a", "write a.txt a\ncommit a")]).await;
    let (here, gate, command) = gated(&world);
    let request = verified(&ids[0], &command);
    let hasty = IntegrationRequest { patience: Some(Duration::from_millis(1)), ..request.clone() };
    let running = integrate(&server, &hasty).await;
    assert_eq!((running.status.as_str(), running.integrated.len()), ("running", 0));
    until_exists(&here).await;
    assert!(integrate(&server, &hasty).await.notes[0].contains("verifies main with w-1"));
    let line = server.orchestrator.progress(&server.boss, &ids).await.unwrap();
    assert!(line.starts_with("verifies main with w-1") && line.ends_with("s); 1 of 1 settled"), "{line}");
    let both = async { tokio::join!(integrate(&server, &request), integrate(&server, &request)) };
    let open = async { std::fs::write(&gate, "").unwrap() };
    let ((one, other), ()) = tokio::join!(both, open);
    assert_eq!((one.status.as_str(), &one.commit), ("merged", &other.commit));
    assert_eq!((other.status.as_str(), runs(&here)), ("merged", 1));
    let again = integrate(&server, &request).await;
    assert_eq!((again.status.as_str(), again.commit, runs(&here)), ("already_integrated", one.commit, 1));
    check_nothing_left(&world);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_result_is_returned_to_the_next_call() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let ids = completed(&server, &[("a", "write a.txt a\ncommit a")]).await;
    let before = world.git(&["rev-parse", "main"]);
    let hasty = IntegrationRequest { patience: Some(Duration::ZERO), ..verified(&ids[0], "true") };
    assert_eq!(integrate(&server, &hasty).await.status.as_str(), "running");
    eventually("the merge", || (world.git(&["rev-parse", "main"]) != before).then_some(())).await;
    let answer = integrate(&server, &verified(&ids[0], "true")).await;
    assert_eq!((answer.status.as_str(), answer.verifications), ("merged", 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moved_target_is_merged_and_verified_again() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let ids = completed(&server, &[("a", "write a.txt a\ncommit a")]).await;
    let (here, gate, command) = gated(&world);
    let move_target = async {
        until_exists(&here).await;
        world.git(&["commit", "-q", "--allow-empty", "-m", "by the user"]);
        std::fs::write(&gate, "").unwrap();
    };
    let request = verified(&ids[0], &command);
    let (answer, ()) = tokio::join!(integrate(&server, &request), move_target);
    assert_eq!((answer.status.as_str(), answer.verifications, runs(&here)), ("merged", 2, 2));
    assert_eq!(answer.verification.unwrap().commit(), answer.commit.as_deref());
    assert_eq!(world.git(&["log", "--first-parent", "--format=%s", "-2"]), "a\nby the user");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interrupted_integration_is_repeated_by_next_server() {
    let world = World::new();
    let first = world.server(Some("boss"));
    let ids = completed(&first, &[("a", "write a.txt a\ncommit a")]).await;
    let (here, gate, command) = gated(&world);
    let before = world.git(&["rev-parse", "main"]);
    let request = verified(&ids[0], &format!("(setsid sleep 600 &) ; {command}"));
    let hasty = IntegrationRequest { patience: Some(Duration::from_millis(1)), ..request.clone() };
    assert_eq!(integrate(&first, &hasty).await.status.as_str(), "running");
    until_exists(&here).await;
    first.orchestrator.shut_down().await;
    eventually("the end of the verification", || (!verifications_dir(&world).exists()).then_some(())).await;
    check_nothing_left(&world);
    assert_eq!(world.git(&["rev-parse", "main"]), before);
    std::fs::write(&gate, "").unwrap();
    let second = world.server(Some("boss"));
    assert_eq!(integrate(&second, &request).await.status.as_str(), "merged");
    second.orchestrator.shut_down().await;
    let third = world.server(Some("boss"));
    assert_eq!(integrate(&third, &request).await.status.as_str(), "already_integrated", "the integration is recorded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_supervisor_leaves_nothing_and_merges_nothing() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let ids = completed(&server, &[("a", "write a.txt a\ncommit a")]).await;
    let (here, gate, command) = gated(&world);
    let before = world.git(&["rev-parse", "main"]);
    let kill = async {
        until_exists(&here).await;
        let folder = std::fs::read_dir(verifications_dir(&world)).unwrap().flatten().next().unwrap().path();
        let tree: ProcessTree = serde_json::from_slice(&std::fs::read(folder.join("processes.json")).unwrap()).unwrap();
        // The oldest process is the supervisor itself; pids need not increase.
        send(tree.processes.iter().min_by_key(|it| it.started).unwrap(), Signal::Kill);
    };
    let named = world.shared("sockets");
    let request = verified(&ids[0], &format!("echo \"$SCREENDIR\" > '{}'; {command}", named.display()));
    let (answer, ()) = tokio::join!(integrate(&server, &request), kill);
    assert_eq!(answer.status.as_str(), "could_not_verify", "{answer:#?}");
    let sockets = PathBuf::from(std::fs::read_to_string(&named).unwrap().trim());
    assert!(sockets.is_absolute() && !sockets.exists(), "{}", sockets.display());
    assert!(matches!(answer.verification, Some(Verification::CouldNotRun { why }) if why.contains("died")));
    assert_eq!(world.git(&["rev-parse", "main"]), before);
    check_nothing_left(&world);
    std::fs::write(&gate, "").unwrap();
    assert_eq!(integrate(&server, &request).await.status.as_str(), "merged");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn squash_is_recognised_after_target_moved() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let ids = completed(&server, &[("a", "write README a\ncommit a")]).await;
    let source = IntegrationSource::Worker(ids[0].clone());
    let request = IntegrationRequest { strategy: Strategy::Squash, ..IntegrationRequest::of(source) };
    let merged = integrate(&server, &request).await;
    assert_eq!(merged.status.as_str(), "merged");
    std::fs::write(world.repo().join("README"), "changed by the user\n").unwrap();
    world.git(&["commit", "-q", "-a", "-m", "by the user"]);
    let again = integrate(&server, &request).await;
    assert_eq!((again.status.as_str(), again.commit), ("already_integrated", merged.commit));
    // After a reset the work is no longer integrated.
    world.git(&["reset", "-q", "--hard", "HEAD~2"]);
    assert_eq!(integrate(&server, &request).await.status.as_str(), "merged");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn remote_target_becomes_local_only_when_merged() {
    let world = World::new();
    let remote = world.path("remote");
    world.git(&["switch", "-q", "-c", "trunk"]);
    std::fs::write(world.repo().join("README"), "trunk\n").unwrap();
    world.git(&["commit", "-qam", "trunk"]);
    world.git(&["clone", "-q", "--bare", ".", remote.to_str().unwrap()]);
    world.git(&["switch", "-q", "main"]);
    world.git(&["branch", "-q", "-D", "trunk"]);
    world.git(&["remote", "add", "origin", remote.to_str().unwrap()]);
    world.git(&["fetch", "-q"]);
    let server = world.server(Some("boss"));
    let ids = completed(&server, &[("apart", "write README a\ncommit a"), ("fine", "write b.txt b\ncommit b")]).await;
    let into = |source| IntegrationRequest { into: Some("trunk".to_owned()), ..IntegrationRequest::of(source) };
    let same = into(IntegrationSource::Branch("trunk".to_owned()));
    assert!(server.orchestrator.integrate(&server.boss, same).await.is_err());
    let conflict = integrate(&server, &into(IntegrationSource::Worker(ids[0].clone()))).await;
    assert_eq!(conflict.status.as_str(), "conflicts");
    assert_eq!(world.git(&["branch", "--list", "trunk"]), "");
    assert_eq!(integrate(&server, &into(IntegrationSource::Worker(ids[1].clone()))).await.status.as_str(), "merged");
    assert_eq!(world.git(&["show", "trunk:README"]), "trunk");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn push_reports_remote_output_and_can_be_repeated() {
    let world = World::new();
    let bare = world.path("remote.git");
    world.git(&["clone", "-q", "--bare", ".", &bare.to_string_lossy()]);
    world.git(&["remote", "add", "origin", &bare.to_string_lossy()]);
    let server = world.server(Some("boss"));
    let ids = completed(&server, &[("a", "write a.txt a\ncommit a")]).await;
    let source = IntegrationSource::Worker(ids[0].clone());
    let request = IntegrationRequest { push: true, ..IntegrationRequest::of(source) };
    let answer = integrate(&server, &request).await;
    assert_eq!((answer.status.as_str(), answer.push.as_ref().unwrap().result), ("merged", PushResult::NoUpstream));
    assert!(answer.push.unwrap().said.contains("git push -u origin main"));

    world.git(&["fetch", "-q", "origin"]);
    world.git(&["branch", "-q", "--set-upstream-to=origin/main", "main"]);
    let hook = bare.join("hooks/pre-receive");
    std::fs::create_dir_all(bare.join("hooks")).unwrap();
    std::fs::write(&hook, "#!/bin/sh\necho no merges today >&2\nexit 1\n").unwrap();
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
    let answer = integrate(&server, &request).await;
    let push = answer.push.unwrap();
    assert_eq!((answer.status.as_str(), push.result), ("already_integrated", PushResult::Declined), "{push:?}");
    assert!(push.said.contains("no merges today"), "{push:?}");

    std::fs::remove_file(hook).unwrap();
    assert_eq!(integrate(&server, &request).await.push.unwrap().result, PushResult::Pushed);
    assert_eq!(git(&bare, &["rev-parse", "main"]), world.git(&["rev-parse", "main"]));
}
