//! A verification may fail because the worktree lacks something that the main checkout has, or because the base fails
//! too. It then reports this likely cause.

use orchestrator_boss::mission::create::Draft;
use orchestrator_boss::mission::outcome::LikelyCause;
use orchestrator_boss::orchestrator::{IntegrationAnswer, IntegrationRequest, IntegrationSource};

use crate::support::git::git;
use crate::world::{Server, World, mission};

/// Returns a mission that commits a file and is verified by this command.
fn verified(title: &str, command: &str) -> Draft {
    let mut draft = mission(title, &format!("write {title}.txt {title}\ncommit {title}\nsay done"));
    draft.verify_command = Some(command.to_owned());
    draft
}

async fn likely_cause(server: &Server, id: &str) -> Option<LikelyCause> {
    server.until(id, "failed").await;
    server.orchestrator.get(id).await.unwrap().worker.last().unwrap().likely_cause.clone()
}

async fn integrate(server: &Server, worker: &str, command: &str) -> IntegrationAnswer {
    let request = IntegrationRequest {
        verify_command: Some(command.to_owned()),
        ..IntegrationRequest::of(IntegrationSource::Worker(worker.to_owned()))
    };
    server.orchestrator.integrate(&server.boss, request).await.unwrap()
}

/// Installs dependencies in the main checkout only.
fn with_dependencies(world: &World) {
    std::fs::write(world.repo().join(".gitignore"), "node_modules\n.env\n").unwrap();
    world.git(&["add", "."]);
    world.git(&["commit", "-qm", "ignore"]);
    std::fs::create_dir_all(world.repo().join("node_modules/tool")).unwrap();
    std::fs::write(world.repo().join("node_modules/tool/run"), "x").unwrap();
    std::fs::write(world.repo().join(".env"), "A=1").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_dependencies_are_the_likely_cause() {
    let world = World::new();
    with_dependencies(&world);
    let server = world.server(Some("boss"));
    let id = server.create_one(verified("needs", "cat node_modules/tool/run")).await;
    let cause = likely_cause(&server, &id).await.expect("a likely cause");
    let words = cause.words();
    assert!(words.contains("node_modules (installed dependencies)") && words.contains("fails in a fresh"), "{words}");
    assert!(cause.fix().unwrap().contains("install the dependencies"), "{cause:?}");

    // The command itself is a dependency, which the integration's worktree lacks too.
    let good = server.create_one(mission("good", "write g.txt g\ncommit g\nsay done")).await;
    server.until(&good, "completed").await;
    let answer = integrate(&server, &good, "node_modules/tool/run --all").await;
    assert_eq!(answer.status.as_str(), "could_not_verify");
    let words = answer.likely_cause.expect("a likely cause").words();
    assert!(words.contains("node_modules"), "{words}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failure_by_the_work_has_no_other_cause() {
    let world = World::new();
    with_dependencies(&world);
    let server = world.server(Some("boss"));
    // The base passes in a worktree that lacks the same dependencies.
    let id = server.create_one(verified("breaks", "test ! -e breaks.txt")).await;
    assert_eq!(likely_cause(&server, &id).await, None);
    // The worker installs the dependency itself, so a base that fails without it proves nothing.
    let mut installs = mission("installs", "write node_modules/tool/run x\nwrite i.txt i\ncommit i\nsay done");
    installs.verify_command = Some("cat node_modules/tool/run && test ! -e i.txt".to_owned());
    let id = server.create_one(installs).await;
    assert_eq!(likely_cause(&server, &id).await, None);
    let good = server.create_one(mission("good", "write g.txt g\ncommit g\nsay done")).await;
    server.until(&good, "completed").await;
    let answer = integrate(&server, &good, "test ! -e g.txt").await;
    assert_eq!((answer.status.as_str(), answer.likely_cause), ("verification_failed", None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failing_base_is_likely_cause_and_tried_once() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let tries = world.shared("tries");
    let command = format!("test -e one.txt -o -e two.txt || echo x >> {}; false", tries.display());
    let ids = [server.create_one(verified("one", &command)).await, server.create_one(verified("two", &command)).await];
    let base = world.git(&["rev-parse", "HEAD"]);
    for id in &ids {
        let cause = likely_cause(&server, id).await.expect("a likely cause");
        assert_eq!(cause, LikelyCause { lacks: Vec::new(), fails_without: Some(base.clone()) });
    }
    assert_eq!(std::fs::read_to_string(&tries).unwrap(), "x\n", "the base is tried once for both");
    assert_eq!(git(&world.repo(), &["worktree", "list"]).lines().count(), 3, "its worktree was removed");
    let good = server.create_one(mission("good", "write g.txt g\ncommit g\nsay done")).await;
    server.until(&good, "completed").await;
    let answer = integrate(&server, &good, "false").await;
    assert_eq!(answer.status.as_str(), "verification_failed");
    assert_eq!(answer.likely_cause.and_then(|cause| cause.fails_without), Some(base));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_submodule_is_reported_when_merge_fails() {
    let world = World::new();
    let library = world.path("library");
    world.git(&["clone", "-q", ".", &library.to_string_lossy()]);
    let add = ["-c", "protocol.file.allow=always", "submodule", "add", "-q", &library.to_string_lossy(), "lib"];
    world.git(&add);
    // The main checkout's submodule lacks this commit, so no worktree can have it.
    world.git(&["update-index", "--cacheinfo", &format!("160000,{},lib", "1".repeat(40))]);
    world.git(&["commit", "-qm", "lib"]);
    let server = world.server(Some("boss"));
    let good = server.create_one(mission("good", "write g.txt g\ncommit g\nsay done")).await;
    server.until(&good, "completed").await;
    let answer = integrate(&server, &good, "cat lib/README").await;
    assert_eq!(answer.status.as_str(), "verification_failed");
    let cause = answer.likely_cause.expect("main fails alone");
    assert!(cause.fails_without.is_some() && cause.words().contains("lib (a submodule's files)"), "{cause:?}");
}
