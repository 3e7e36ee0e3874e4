//! Worktrees are beside the repository: their programs do not find packages that are installed in the user's checkout,
//! and tools that walk the checkout do not find worktrees.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use orchestrator_boss::mission::create::{Draft, DraftPlace};
use orchestrator_boss::orchestrator::{
    BatchKind, IntegrationRequest, IntegrationSource, RemovalRequest, RemovalTarget, RetryRequest, WorktreeRequest,
};

use crate::support::git::git;
use crate::world::{Server, World, mission};

/// Creates a workspace whose package `app` uses its package `lib`, installed in the main checkout as by `npm install`.
fn node_workspace(world: &World) {
    let files = [
        ("package.json", r#"{"name": "root", "version": "1.0.0", "workspaces": ["packages/*"]}"#),
        ("packages/lib/package.json", r#"{"name": "lib", "version": "1.0.0", "main": "index.js"}"#),
        ("packages/lib/index.js", "module.exports = () => 42;\n"),
        ("packages/app/package.json", r#"{"name": "app", "version": "1.0.0", "dependencies": {"lib": "1.0.0"}}"#),
        ("packages/app/app.test.js", "require('node:assert').strictEqual(require('lib')(), 42);\n"),
        (".gitignore", "node_modules\n"),
    ];
    for (path, text) in files {
        let path = world.repo().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    fs::create_dir(world.repo().join("node_modules")).unwrap();
    std::os::unix::fs::symlink("../packages/lib", world.repo().join("node_modules/lib")).unwrap();
    world.git(&["add", "."]);
    world.git(&["commit", "-q", "-m", "workspace"]);
}

fn run(dir: &Path, program: &str, args: &[&str]) -> (bool, String) {
    let output =
        Command::new(program).args(args).current_dir(dir).env("npm_config_cache", dir.join("../cache")).output();
    let output = output.unwrap_or_else(|error| panic!("{program} is needed: {error}"));
    let printed = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    (output.status.success(), printed.concat())
}

fn has_node() -> bool {
    let found = Command::new("npm").arg("--version").output().is_ok();
    assert!(found || std::env::var_os("CI").is_none(), "node and npm are needed");
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worktree_does_not_use_packages_of_main_checkout() {
    if !has_node() {
        return;
    }
    let world = World::new();
    node_workspace(&world);
    assert!(run(&world.repo(), "node", &["packages/app/app.test.js"]).0);
    let server = world.server(Some("boss"));
    let mut draft = mission("breaks", "write packages/lib/index.js broken(\ncommit broken");
    draft.verify_command = Some("node packages/app/app.test.js".to_owned());
    let id = server.create_one(draft).await;
    server.until(&id, "failed").await;

    // The verification of an integration behaves the same.
    let id = server.create_one(mission("breaks too", "write packages/lib/index.js broken(\ncommit broken")).await;
    server.until(&id, "completed").await;
    let request = IntegrationRequest {
        verify_command: Some("node packages/app/app.test.js".to_owned()),
        ..IntegrationRequest::of(IntegrationSource::Worker(id))
    };
    let answer = server.orchestrator.integrate(&server.boss, request).await.unwrap();
    assert_eq!(answer.status.as_str(), "verification_failed", "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tools_in_the_main_checkout_find_no_worktree() {
    if !has_node() {
        return;
    }
    let world = World::new();
    node_workspace(&world);
    fs::write(world.repo().join("root.test.js"), "").unwrap();
    let server = world.server(Some("boss"));
    let id = server.create_one(mission("a", "write bad.test.js throw(1)\ncommit bad")).await;
    server.until(&id, "completed").await;
    let (passed, printed) = run(&world.repo(), "node", &["--test"]);
    assert!(passed && !printed.contains("bad.test.js"), "{printed}");
    let (passed, printed) = run(&world.repo(), "npm", &["pack", "--dry-run"]);
    assert!(passed && printed.contains("root.test.js"), "{printed}");
    assert!(!printed.contains(".orchestrator") && !printed.contains(&id), "{printed}");
    assert_eq!(fs::read_to_string(world.repo().join(".orchestrator/.gitignore")).unwrap(), "*\n");
}

async fn remove(server: &Server, worker: &str) {
    let target = RemovalTarget::Worker(worker.to_owned());
    let request = RemovalRequest { target, repo_path: None, force: true, delete_branch: false };
    let answer = server.orchestrator.remove_worktree(&server.boss, request).await.unwrap();
    assert_eq!(answer.removed.len(), 1, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn folder_of_worktrees_is_removed_with_the_last() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new();
    let server = world.server(Some("boss"));
    let request = WorktreeRequest { branch: "mine".into(), base: None, path: None, repo_path: None };
    let made = server.orchestrator.create_worktree(&server.boss, request).await.unwrap();
    assert_eq!(made.path, world.worktree("mine"));
    let id = server.create_one(mission("a", "write a.txt x\ncommit a")).await;
    server.until(&id, "completed").await;
    assert!(world.worktree(&id).join("a.txt").exists());
    let folder = world.path("repo.worktrees");
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    let request = IntegrationRequest {
        verify_command: Some(format!("test -f a.txt && pwd > {}", world.shared("where").display())),
        ..IntegrationRequest::of(IntegrationSource::Worker(id.clone()))
    };
    assert_eq!(server.orchestrator.integrate(&server.boss, request).await.unwrap().status.as_str(), "merged");
    let verified_in = fs::read_to_string(world.shared("where")).unwrap();
    assert!(!Path::new(verified_in.trim()).exists(), "it was removed");
    remove(&server, &id).await;
    assert!(folder.exists());
    let target = RemovalTarget::Path(made.path);
    let request = RemovalRequest { target, repo_path: None, force: false, delete_branch: false };
    server.orchestrator.remove_worktree(&server.boss, request).await.unwrap();
    assert!(!folder.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worktree_at_the_former_place_stays_in_use() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let old = world.repo().join(".orchestrator/worktrees/w-1-a");
    let place = DraftPlace::Worktree { branch: None, base: None, path: Some(old.clone()), directory: None };
    let id = server.create_one(Draft { place, ..mission("a", "session s\nwrite a.txt x\ncommit a") }).await;
    server.until(&id, "completed").await;
    assert!(old.join("a.txt").exists());
    let again = RetryRequest { prompt: Some("FAKE:\nwrite b.txt x".to_owned()), ..RetryRequest::default() };
    server.orchestrator.retry(&server.boss, &id, again).await.unwrap();
    server.until(&id, "completed").await;
    assert!(old.join("b.txt").exists());
    remove(&server, &id).await;
    assert!(!old.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn setting_and_state_directory_change_the_worktree_folder() {
    let world = World::new();
    let mut settings = world.settings();
    settings.worktrees_dir = Some("../trees/{repository}".to_owned());
    let server = world.server_with(Some("boss"), settings);
    let id = server.create_one(mission("a", "write a.txt x")).await;
    server.until(&id, "completed").await;
    assert!(world.path("trees/repo").join(&id).join("a.txt").exists());
    server.orchestrator.shut_down().await;

    // Worker numbers are unique only within a state directory, so another one needs its own folder.
    let mut settings = world.settings();
    settings.state_dir = Some(world.path("state"));
    let server = world.server_with(Some("boss"), settings);
    let id = server.create_one(mission("other", "write a.txt x")).await;
    server.until(&id, "completed").await;
    let place = server.orchestrator.get(&id).await.unwrap().worker.mission.place.path().to_owned();
    let folder = place.parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
    assert!(folder.starts_with("repo.worktrees-") && place.join("a.txt").exists(), "{folder}");
}

fn in_folder(folder: &str, draft: Draft) -> Draft {
    let directory = Some(PathBuf::from(folder));
    Draft { place: DraftPlace::Worktree { branch: None, base: None, path: None, directory }, ..draft }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_runs_in_the_folder_of_its_boss() {
    let world = World::new();
    for package in ["app", "lib"] {
        fs::create_dir_all(world.repo().join("packages").join(package)).unwrap();
        fs::write(world.repo().join("packages").join(package).join("name"), package).unwrap();
    }
    world.git(&["add", "."]);
    world.git(&["commit", "-q", "-m", "packages"]);
    fs::create_dir(world.repo().join("untracked")).unwrap();
    let app = world.repo().join("packages/app");
    let server = world.server_in(&app, Some("boss"), world.settings());
    let mut draft = mission("a", "write here.txt x\ncommit a");
    draft.verify_command = Some("test \"$(cat name)\" = app && test -f here.txt".to_owned());
    let id = server.create_one(draft).await;
    server.until(&id, "completed").await;
    assert!(world.worktree(&id).join("packages/app/here.txt").exists());
    let request = IntegrationRequest {
        verify_command: Some("test \"$(cat name)\" = app".to_owned()),
        ..IntegrationRequest::of(IntegrationSource::Worker(id))
    };
    assert_eq!(server.orchestrator.integrate(&server.boss, request).await.unwrap().status.as_str(), "merged");

    for named in ["packages/lib", "./packages/lib/", world.repo().join("packages/lib").to_str().unwrap()] {
        let mut draft = mission("b", "write there.txt x\ncommit b");
        draft.verify_command = Some("test \"$(cat name)\" = lib".to_owned());
        let id = server.create_one(in_folder(named, draft)).await;
        server.until(&id, "completed").await;
        assert!(world.worktree(&id).join("packages/lib/there.txt").exists(), "{named}");
    }
    for named in ["packages/none", "../app", "/etc", "packages/app/name"] {
        let refused = server.create(vec![in_folder(named, mission("c", "say x"))]).await.remove(0).unwrap_err();
        assert!(refused.contains("cannot run in"), "{named}: {refused}");
    }
    server.orchestrator.shut_down().await;

    // A folder that is not on the branch is reported, and the worker runs at the top of its worktree.
    let server = world.server_in(&world.repo().join("untracked"), Some("other"), world.settings());
    let drafts = vec![Ok(mission("d", "write d.txt x\ncommit d"))];
    let creation = server.orchestrator.create(&server.boss, drafts, BatchKind::Independent).await.unwrap();
    assert!(creation.base.unwrap().note.unwrap().contains("untracked is not in main"));
    let id = creation.results[0].as_ref().unwrap().worker_id.to_string();
    server.until(&id, "completed").await;
    assert!(world.worktree(&id).join("d.txt").exists());
    git(&world.worktree(&id), &["status"]);
}
