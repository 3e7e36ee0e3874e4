//! The integration branch of each boss, where its work starts and is merged, and the meaning of branch names.

use std::path::Path;

use orchestrator_boss::mission::create::{Draft, DraftPlace};
use orchestrator_boss::mission::hint::with_hints;
use orchestrator_boss::orchestrator::{
    BatchKind, Creation, IntegrationAnswer, IntegrationRequest, IntegrationSource, OrchestratorError,
};

use crate::support::git::git;
use crate::world::{Server, World, mission};

fn commits(title: &str) -> Draft {
    mission(title, &format!("write {title}.txt x\ncommit {title}"))
}

fn on(branch: Option<&str>, base: Option<&str>, draft: Draft) -> Draft {
    let (branch, base) = (branch.map(str::to_owned), base.map(str::to_owned));
    Draft { place: DraftPlace::Worktree { branch, base, path: None, directory: None }, ..draft }
}

async fn created(server: &Server, draft: Draft) -> Creation {
    server.orchestrator.create(&server.boss, vec![Ok(draft)], BatchKind::Single).await.expect("an answer to the batch")
}

/// Runs a mission. Returns the worker's id, and the branch that the answer named as its base.
async fn completed(server: &Server, draft: Draft) -> (String, String) {
    let creation = created(server, draft).await;
    let id = creation.results[0].as_ref().expect("an accepted mission").worker_id.to_string();
    server.until(&id, "completed").await;
    (id, creation.base.expect("a reported base").branch)
}

async fn refused(server: &Server, draft: Draft) -> String {
    created(server, draft).await.results.remove(0).map_err(|error| with_hints(&error)).expect_err("a refusal")
}

async fn integrate(server: &Server, names: &[&str]) -> Result<IntegrationAnswer, OrchestratorError> {
    let source = match names {
        [one] => IntegrationSource::Worker((*one).to_owned()),
        several => IntegrationSource::Train(several.iter().map(|name| (*name).to_owned()).collect()),
    };
    server.orchestrator.integrate(&server.boss, IntegrationRequest::of(source)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_boss_starts_from_its_own_branch() {
    let world = World::new();
    world.git(&["checkout", "-q", "-b", "feature-a"]);
    let first = world.server(Some("first"));
    let (a, base) = completed(&first, commits("a")).await;
    assert_eq!(base, "feature-a");

    world.git(&["checkout", "-q", "main"]);
    // The first boss keeps its branch, and the answer notes that the user has switched to another one.
    let creation = created(&first, commits("b")).await;
    let base = creation.base.expect("a reported base");
    assert_eq!((base.branch.as_str(), base.commit), ("feature-a", world.git(&["rev-parse", "feature-a"])));
    assert!(base.note.expect("a reported base").contains("branch main now"));
    let b = creation.results[0].as_ref().unwrap().worker_id.to_string();
    first.until(&b, "completed").await;

    let second = world.server(Some("second"));
    let (c, base) = completed(&second, commits("c")).await;
    assert_eq!(base, "main");
    assert_eq!(integrate(&second, &[&c]).await.unwrap().into, "main");
    assert_eq!(integrate(&first, &[&a, &b]).await.unwrap().into, "feature-a");
    assert_eq!(world.git(&["ls-tree", "--name-only", "main"]), "README\nc.txt");
    assert_eq!(world.git(&["ls-tree", "--name-only", "feature-a"]), "README\na.txt\nb.txt");

    world.git(&["branch", "-qD", "feature-a"]);
    let error = refused(&first, commits("d")).await;
    assert!(error.contains("feature-a") && error.contains("main") && error.contains("`base`"), "{error}");
    completed(&second, commits("e")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn setting_overrides_the_recorded_branch() {
    let world = World::new();
    world.git(&["branch", "release"]);
    let server = world.server(Some("boss"));
    let (a, base) = completed(&server, commits("a")).await;
    assert_eq!(base, "main");
    server.orchestrator.shut_down().await;

    let set = |branch: &str| {
        let mut settings = world.settings();
        settings.integration_branch = Some(branch.to_owned());
        world.server_with(Some("boss"), settings)
    };
    let server = set("release");
    let (b, base) = completed(&server, commits("b")).await;
    assert_eq!(base, "release");
    assert_eq!(integrate(&server, &[&a, &b]).await.unwrap().into, "release");
    assert_eq!(world.git(&["ls-tree", "--name-only", "main"]), "README");
    server.orchestrator.shut_down().await;

    let error = refused(&set("nowhere"), commits("c")).await;
    assert!(["integration_branch", "main", "release"].iter().all(|name| error.contains(name)), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn working_tree_of_the_boss_sets_the_branch() {
    let world = World::new();
    let linked = world.path("linked");
    world.git(&["worktree", "add", "-q", "-b", "topic", linked.to_str().unwrap()]);
    std::fs::create_dir(linked.join("deep")).unwrap();
    let server = world.server_in(&linked.join("deep"), Some("boss"), world.settings());
    let (id, base) = completed(&server, commits("a")).await;
    assert_eq!(base, "topic");
    assert_eq!(integrate(&server, &[&id]).await.unwrap().into, "topic");
    assert!(linked.join("a.txt").exists());
    assert_eq!(world.git(&["ls-tree", "--name-only", "main"]), "README");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn boss_without_session_restarts_when_nothing_is_open() {
    let world = World::new();
    world.git(&["branch", "other"]);
    let first = world.server(None);
    completed(&first, commits("a")).await;
    let hanging = first.create_one(mission("hangs", "hang")).await;
    first.until(&hanging, "running").await;
    first.orchestrator.shut_down().await;

    world.git(&["checkout", "-q", "other"]);
    let second = world.server(None);
    // The server takes over the open workers before it answers.
    let creation = created(&second, commits("b")).await;
    assert_eq!(creation.base.expect("a reported base").branch, "main", "one of its workers is open");
    let b = creation.results[0].as_ref().unwrap().worker_id.to_string();
    second.until(&b, "completed").await;
    second.orchestrator.cancel(&second.boss, &hanging, "enough").await.unwrap();
    second.orchestrator.shut_down().await;

    let third = world.server(None);
    let (_, base) = completed(&third, commits("c")).await;
    assert_eq!(base, "other");
    world.git(&["checkout", "-q", "main"]);
    let (_, base) = completed(&third, commits("d")).await;
    assert_eq!(base, "other", "the branch stays for this process");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn train_of_different_branches_needs_into() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let (a, _) = completed(&server, commits("a")).await;
    server.orchestrator.shut_down().await;
    world.git(&["checkout", "-q", "-b", "other"]);
    let other = world.server(Some("other"));
    let (b, _) = completed(&other, commits("b")).await;
    // A command of the user may integrate work of all bosses.
    let error = {
        let client = one_shot_client(&world);
        let answer = client.integrate(&other.boss, request(&[&a, &b], None)).await;
        let error = answer.map_err(|error| with_hints(&error)).expect_err("a refusal").to_string();
        let answer = client.integrate(&other.boss, request(&[&a, &b], Some("main"))).await.unwrap();
        assert_eq!((answer.status.as_str(), answer.into.as_str()), ("merged", "main"));
        client.shut_down().await;
        error
    };
    assert!(error.contains("main for") && error.contains("other for") && error.contains("`into`"), "{error}");
}

fn request(names: &[&str], into: Option<&str>) -> IntegrationRequest {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    IntegrationRequest { into: into.map(str::to_owned), ..IntegrationRequest::of(IntegrationSource::Train(names)) }
}

pub fn one_shot_client(world: &World) -> orchestrator_boss::orchestrator::Orchestrator {
    use orchestrator_boss::orchestrator::{Orchestrator, Startup};
    let settings = world.settings();
    let backends = orchestrator_boss::backend::Backends::with_custom(settings.custom.clone());
    let program = Path::new(env!("CARGO_BIN_EXE_orchestrator-boss")).to_owned();
    let startup = Startup { settings, directory: world.repo(), boss: None, program };
    Orchestrator::visit(startup, backends).expect("a readable state").expect("a state directory")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn detached_head_needs_an_explicit_base() {
    let world = World::new();
    world.git(&["checkout", "-q", "--detach"]);
    let server = world.server(Some("boss"));
    let error = refused(&server, commits("a")).await;
    assert!(error.contains("detached HEAD") && error.contains("integration_branch"), "{error}");
    let creation = created(&server, on(None, Some("main"), commits("b"))).await;
    assert_eq!(creation.base, None);
    let b = creation.results[0].as_ref().unwrap().worker_id.to_string();
    server.until(&b, "completed").await;
    let error = with_hints(&integrate(&server, &[&b]).await.unwrap_err());
    assert!(error.contains("`into`"), "{error}");

    world.git(&["checkout", "-q", "main"]);
    let (c, base) = completed(&server, commits("c")).await;
    assert_eq!(base, "main");
    assert_eq!(integrate(&server, &[&b, &c]).await.unwrap().into, "main");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repository_without_commits_names_the_first_step() {
    let world = World::new();
    let empty = world.path("empty");
    std::fs::create_dir(&empty).unwrap();
    git(&empty, &["init", "-q", "-b", "main"]);
    git(&empty, &["config", "user.name", "Test"]);
    git(&empty, &["config", "user.email", "test@localhost"]);
    let bare = world.path("bare.git");
    git(&world.repo(), &["init", "-q", "--bare", bare.to_str().unwrap()]);
    for bare_too in [["user.name", "Test"], ["user.email", "test@localhost"]] {
        git(&bare, &[&["config"][..], &bare_too].concat());
    }
    let unborn = world.path("unborn");
    world.git(&["worktree", "add", "-q", "--orphan", "-b", "fresh", unborn.to_str().unwrap()]);
    let cases = [
        (&empty, "cannot start a worktree from the repository at ", "commit --allow-empty -m"),
        (&bare, "cannot start a worktree from the repository at ", "push a commit to it"),
        (&unborn, "cannot start a worktree from branch fresh, which is checked out", "commit --allow-empty -m"),
    ];
    for (place, says, fix) in cases {
        let server = world.server_in(place, Some("boss"), world.settings());
        let error = refused(&server, commits("a")).await;
        assert!(error.starts_with(says) && error.contains("no commit yet") && error.contains(fix), "{error}");
        server.orchestrator.shut_down().await;
    }
    git(&empty, &["commit", "-q", "--allow-empty", "-m", "First commit"]);
    let server = world.server_in(&empty, Some("boss"), world.settings());
    completed(&server, commits("a")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tag_is_never_used_as_a_branch() {
    let world = World::new();
    world.git(&["branch", "rel"]);
    world.git(&["tag", "main"]);
    std::fs::write(world.repo().join("new.txt"), "x").unwrap();
    world.git(&["add", "."]);
    world.git(&["commit", "-q", "-m", "second"]);
    world.git(&["tag", "rel"]);
    let server = world.server(Some("boss"));
    let (id, _) = completed(&server, commits("a")).await;
    let worker = server.orchestrator.get(&id).await.unwrap().worker;
    assert_eq!(worker.base_commit.as_deref(), Some(&*world.git(&["rev-parse", "refs/heads/main"])));
    let error = refused(&server, on(None, Some("rel"), commits("b"))).await;
    assert!(error.contains("refs/heads/rel") && error.contains("refs/tags/rel"), "{error}");
    let (c, _) = completed(&server, on(None, Some("refs/heads/rel"), commits("c"))).await;
    let worker = server.orchestrator.get(&c).await.unwrap().worker;
    assert_eq!(worker.base_commit.as_deref(), Some(&*world.git(&["rev-parse", "refs/heads/rel"])));
    // The dependency is on the branch, but not in the tag.
    integrate(&server, &[&id]).await.unwrap();
    let (d, _) = completed(&server, Draft { depends_on: vec![id], ..commits("d") }).await;
    let worker = server.orchestrator.get(&d).await.unwrap().worker;
    assert_eq!(worker.base_commit.as_deref(), Some(&*world.git(&["rev-parse", "refs/heads/main"])));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_continues_a_branch_of_a_remote() {
    let world = World::new();
    let origin = world.path("origin.git");
    world.git(&["branch", "shared"]);
    world.git(&["branch", "target"]);
    world.git(&["clone", "-q", "--bare", ".", origin.to_str().unwrap()]);
    world.git(&["branch", "-qD", "shared", "target"]);
    world.git(&["remote", "add", "origin", origin.to_str().unwrap()]);
    world.git(&["fetch", "-q", "origin"]);
    let old = world.git(&["rev-parse", "HEAD"]);
    world.git(&["commit", "-q", "--allow-empty", "-m", "second"]);
    let server = world.server(Some("boss"));
    let (id, _) = completed(&server, on(Some("shared"), None, commits("a"))).await;
    let worker = server.orchestrator.get(&id).await.unwrap().worker;
    assert_eq!(worker.base_commit.as_deref(), Some(&*old));
    assert_eq!(world.git(&["rev-parse", "--abbrev-ref", "shared@{u}"]), "origin/shared");

    let dry = IntegrationRequest { dry_run: true, ..request(&[&id], Some("target")) };
    let answer = server.orchestrator.integrate(&server.boss, dry).await.unwrap();
    assert_eq!(answer.status.as_str(), "would_merge");
    assert_eq!(world.git(&["branch", "--list", "target"]), "");
    server.orchestrator.integrate(&server.boss, request(&[&id], Some("target"))).await.unwrap();
    assert_eq!(world.git(&["rev-parse", "target^1"]), old);
    assert_eq!(world.git(&["rev-parse", "--abbrev-ref", "target@{u}"]), "origin/target");

    let error = refused(&server, on(Some("origin/shared"), None, commits("b"))).await;
    assert!(error.contains("use shared"), "{error}");
    let error = server.orchestrator.integrate(&server.boss, request(&[&id], Some("nowhere"))).await.unwrap_err();
    assert!(error.to_string().contains("main"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn branch_equal_to_the_prefix_names_the_setting() {
    let world = World::new();
    world.git(&["branch", "orchestrator"]);
    let server = world.server(Some("boss"));
    let error = refused(&server, commits("a")).await;
    assert!(error.contains("conflicts with branch orchestrator") && error.contains("branch_prefix"), "{error}");
    completed(&server, on(Some("mine"), None, commits("b"))).await;
    server.orchestrator.shut_down().await;
    let mut settings = world.settings();
    settings.branch_prefix = "boss/".to_owned();
    completed(&world.server_with(Some("boss"), settings), commits("c")).await;
}
