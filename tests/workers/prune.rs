//! The pruning of builds: folders such as `node_modules` are deleted from the worktrees of settled workers, and the
//! setup creates them again. Nothing else is deleted.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use orchestrator_boss::attempt::worker_dir::WorkerDir;
use orchestrator_boss::config::Settings;
use orchestrator_boss::git::{Repository, Trust};
use orchestrator_boss::mission::create::{Draft, DraftPlace};
use orchestrator_boss::orchestrator::{
    BuildsStay, Pruning, RemovalRequest, RemovalTarget, RetryRequest, WorktreeBuilds,
};

use crate::support::git::git;
use crate::support::wait::{eventually, in_time};
use crate::world::{Server, World, mission, until_exists};

/// Creates a world whose repository ignores the builds of its workers.
fn project() -> World {
    let world = World::new();
    fs::write(world.repo().join(".gitignore"), "node_modules/\ntarget/\n.venv/\nnotes/\n").unwrap();
    world.git(&["add", "."]);
    world.git(&["commit", "-qm", "ignore"]);
    world
}

/// Returns settings whose setup installs a package, and counts its runs in a file outside.
fn settings(world: &World) -> Settings {
    let runs = world.shared("runs");
    let command =
        format!("mkdir -p node_modules/x && echo x > node_modules/x/index.js && echo run >> {}", runs.display());
    Settings { setup_command: Some(command), ..world.settings() }
}

fn runs(world: &World) -> usize {
    fs::read_to_string(world.shared("runs")).unwrap_or_default().lines().count()
}

fn worker_dir(world: &World, id: &str) -> WorkerDir {
    WorkerDir::new(world.state_dir().join("workers").join(id))
}

fn names(builds: &WorktreeBuilds) -> Vec<String> {
    builds.folders.iter().map(|folder| folder.path.display().to_string()).collect()
}

async fn completed(server: &Server, draft: Draft) -> String {
    let id = server.create_one(draft).await;
    server.until(&id, "completed").await;
    id
}

async fn prune(server: &Server, id: &str) -> WorktreeBuilds {
    server.orchestrator.prune_builds(id).await.unwrap_or_else(|why| panic!("{id}: {why}"))
}

async fn retry(server: &Server, id: &str, script: &str) {
    let request = RetryRequest { feedback: Some(format!("FAKE:\n{script}")), ..RetryRequest::default() };
    server.orchestrator.retry(&server.boss, id, request).await.unwrap();
}

/// Writes a file of this name, and the folders above it.
fn write(root: &Path, name: &str) -> PathBuf {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, "x\n").unwrap();
    path
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pruned_worktree_is_set_up_again() {
    let world = project();
    let server = world.server_with(Some("boss"), settings(&world));
    let script =
        "write a.txt a\ncommit a\nrun mkdir -p target/debug notes && echo x > target/debug/x && echo x > notes/x";
    let id = completed(&server, mission("one", script)).await;
    let worktree = world.worktree(&id);
    let head = git(&worktree, &["rev-parse", "HEAD"]);
    let pruned = prune(&server, &id).await;
    assert_eq!(names(&pruned), ["node_modules", "target"]);
    assert!(pruned.bytes() > 0 && pruned.kept.is_empty(), "{pruned:?}");
    let there =
        ["node_modules", "target", ".orchestrator", "a.txt", "notes/x"].map(|name| worktree.join(name).exists());
    assert_eq!(there, [false, false, false, true, true]);
    assert_eq!(git(&worktree, &["status", "--porcelain"]), "");
    assert_eq!(git(&worktree, &["rev-parse", "HEAD"]), head);
    let recorded: Pruning = worker_dir(&world, &id).pruning().unwrap().unwrap();
    assert_eq!(recorded.folders, pruned.folders);
    assert!(prune(&server, &id).await.is_empty(), "nothing is left");

    assert_eq!(runs(&world), 1);
    retry(&server, &id, "run test -f node_modules/x/index.js && touch again").await;
    server.until(&id, "completed").await;
    assert!(runs(&world) == 2 && worktree.join("again").exists());
    retry(&server, &id, "say done").await;
    server.until(&id, "completed").await;
    assert_eq!(runs(&world), 2, "it is set up once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_worker_and_other_directories_keep_builds() {
    let world = project();
    let server = world.server_with(Some("boss"), settings(&world));
    let go = world.shared("go");
    let id = server.create_one(mission("open", &format!("wait-file {}", go.display()))).await;
    until_exists(&world.worktree(&id).join("node_modules/x/index.js")).await;
    let refused = server.orchestrator.prune_builds(&id).await;
    assert!(matches!(&refused, Err(BuildsStay::Unsettled { .. })), "{refused:?}");
    assert!(world.worktree(&id).join("node_modules").exists());
    fs::write(&go, "").unwrap();
    server.until(&id, "completed").await;

    // A worktree of the user, in which a worker worked.
    world.git(&["worktree", "add", "-q", "../attached", "-b", "attached"]);
    let attached = world.path("attached");
    write(&attached, "node_modules/x");
    let place = DraftPlace::Directory(attached.clone());
    let other = completed(&server, Draft { place, ..mission("attached", "say done") }).await;
    assert!(prune(&server, &other).await.is_empty());
    assert!(attached.join("node_modules/x").exists());

    // A worker that has settled, and another one that works in its worktree.
    let place = DraftPlace::Directory(world.worktree(&id));
    let wait = format!("wait-file {}", world.path("go-on").display());
    let inside = server.create_one(Draft { place, ..mission("inside", &wait) }).await;
    server.until(&inside, "running").await;
    let refused = server.orchestrator.prune_builds(&id).await;
    assert!(matches!(&refused, Err(BuildsStay::UsedByWorker { worker }) if worker.as_str() == inside), "{refused:?}");
    fs::write(world.path("go-on"), "").unwrap();
    server.until(&inside, "completed").await;
    assert_eq!(names(&prune(&server, &id).await), ["node_modules"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worktree_with_a_process_keeps_builds() {
    let world = project();
    let server = world.server_with(Some("boss"), settings(&world));
    let id = completed(&server, mission("one", "say done")).await;
    let mut sleep = Command::new("sleep");
    sleep.arg("600").current_dir(world.worktree(&id)).stdin(Stdio::null());
    let mut sleep = sleep.spawn().unwrap();
    let refused = server.orchestrator.prune_builds(&id).await;
    sleep.kill().unwrap();
    sleep.wait().unwrap();
    let why = refused.unwrap_err().to_string();
    assert!(why.contains(&format!("(process {}) works in it", sleep.id())), "{why}");
    assert!(world.worktree(&id).join("node_modules/x/index.js").exists());
    assert_eq!(names(&prune(&server, &id).await), ["node_modules"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_of_the_main_checkout_stay() {
    let world = project();
    write(&world.repo(), "target/seed");
    write(&world.repo(), ".venv/local");
    fs::write(world.repo().join(".worktreeinclude"), ".venv/local\n").unwrap();
    let seed = vec!["target".to_owned()];
    let server = world.server_with(Some("boss"), Settings { seed, ..settings(&world) });
    let id = completed(&server, mission("one", "run echo x > target/new && echo x > .venv/new")).await;
    let pruned = prune(&server, &id).await;
    assert_eq!(names(&pruned), ["node_modules"]);
    let kept: Vec<String> = pruned.kept.iter().map(|it| format!("{}: {}", it.path.display(), it.why)).collect();
    let expected =
        [".venv: .venv/local was copied from the main checkout", "target: target was copied from the main checkout"];
    assert_eq!(kept, expected);
    let there =
        ["target/seed", "target/new", ".venv/local", ".venv/new"].map(|it| world.worktree(&id).join(it).exists());
    assert_eq!(there, [true; 4]);
}

/// Holds the repository lock while the retry begins. So the pruning has found the builds before the retry, and must
/// notice the retry afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retry_during_a_pruning_keeps_builds() {
    let world = project();
    let server = world.server_with(Some("boss"), settings(&world));
    let id = completed(&server, mission("one", "say done")).await;
    let repository = Repository::discover(&world.repo(), &Trust::nothing()).unwrap().unwrap();
    let lock = repository.lock().unwrap();
    let (orchestrator, name) = (server.orchestrator.clone(), id.clone());
    let pruning = tokio::spawn(async move { orchestrator.prune_builds(&name).await });
    // The pruning has opened the lock file and waits.
    #[cfg(target_os = "linux")]
    eventually("the pruning waits for the lock", || {
        let file = world.repo().join(".git/orchestrator-boss.lock");
        let open = fs::read_dir("/proc/self/fd").unwrap().flatten().filter_map(|it| fs::read_link(it.path()).ok());
        (open.filter(|path| *path == file).count() > 1).then_some(())
    })
    .await;
    retry(&server, &id, "run test -f node_modules/x/index.js && touch again").await;
    let starts = async || server.orchestrator.get(&id).await.unwrap().worker.status.as_str() == "starting";
    assert!(in_time(starts).await);
    drop(lock);
    let refused = pruning.await.unwrap();
    assert!(refused.is_err(), "{refused:?}");
    server.until(&id, "completed").await;
    assert!(world.worktree(&id).join("again").exists());
    assert_eq!(runs(&world), 1, "the setup is still valid");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_prunings_delete_once() {
    let world = project();
    let server = world.server_with(Some("boss"), settings(&world));
    let other = world.server_with(Some("other"), settings(&world));
    let id = completed(&server, mission("one", "say done")).await;
    let (one, two) = tokio::join!(server.orchestrator.prune_builds(&id), other.orchestrator.prune_builds(&id));
    let (one, two) = (one.unwrap(), two.unwrap());
    let deleted = [&one, &two].iter().map(|builds| builds.folders.len()).sum::<usize>();
    assert_eq!(deleted, 1, "{one:?} {two:?}");
    assert!(!world.worktree(&id).join("node_modules").exists());
    assert!(!world.worktree(&id).join(".orchestrator").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interrupted_pruning_is_finished() {
    let world = project();
    let server = world.server_with(Some("boss"), settings(&world));
    let (one, two) =
        (completed(&server, mission("one", "say done")).await, completed(&server, mission("two", "say done")).await);
    // As after a crash between moving and deleting.
    for id in [&one, &two] {
        let worktree = world.worktree(id);
        fs::create_dir(worktree.join(".orchestrator")).unwrap();
        fs::rename(worktree.join("node_modules"), worktree.join(".orchestrator/pruned-1")).unwrap();
        assert_eq!(git(&worktree, &["status", "--porcelain"]), "");
    }
    let pruned = prune(&server, &one).await;
    assert!(pruned.folders.is_empty() && pruned.aside.is_some(), "{pruned:?}");
    assert!(!world.worktree(&one).join(".orchestrator").exists());
    // The removal of a worktree deletes it as well, and does not take it for work.
    let target = RemovalTarget::Worker(two.clone());
    let request = RemovalRequest { target, repo_path: None, force: false, delete_branch: false };
    let answer = server.orchestrator.remove_worktree(&server.boss, request).await.unwrap();
    assert_eq!(answer.removed.len(), 1, "{answer:?}");
    assert_eq!(answer.removed[0].salvage_ref, None);
    assert!(!world.worktree(&two).exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_disk_prunes_finished_workers() {
    let world = project();
    let server = world.server_with(Some("boss"), Settings { prune_below_mib: 1 << 40, ..settings(&world) });
    let go = world.shared("go");
    let open = server.create_one(mission("open", &format!("wait-file {}", go.display()))).await;
    until_exists(&world.worktree(&open).join("node_modules/x/index.js")).await;
    let id = completed(&server, mission("one", "write a.txt a")).await;
    let pruned = eventually("the builds are pruned", || worker_dir(&world, &id).pruning::<Pruning>().unwrap()).await;
    assert_eq!(pruned.folders[0].path, Path::new("node_modules"));
    assert!(world.worktree(&id).join("a.txt").exists());
    assert!(world.worktree(&open).join("node_modules").exists(), "its worker runs");
    retry(&server, &id, "run test -f node_modules/x/index.js && touch again").await;
    server.until(&id, "completed").await;
    assert!(world.worktree(&id).join("again").exists());
    let again = || worker_dir(&world, &id).pruning::<Pruning>().unwrap().filter(|again| again.at > pruned.at);
    eventually("the builds of the next attempt are pruned", again).await;
    fs::write(&go, "").unwrap();
    server.until(&open, "completed").await;
    server.orchestrator.shut_down().await;
}
