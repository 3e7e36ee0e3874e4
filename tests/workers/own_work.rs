//! Integration takes only a worker's own work: not commits that the user has removed, nor work integrated before.
//! It never overwrites the user's changes, and it integrates work in a second repository there.

use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use orchestrator_boss::mission::create::DraftPlace;
use orchestrator_boss::orchestrator::{
    BatchKind, IntegrationAnswer, IntegrationRequest, IntegrationSource, Observer, RemovalAnswer, RemovalRequest,
    RemovalTarget, RetryRequest, Scope, Strategy, WorktreeRequest,
};

use crate::support::git::git;
use crate::support::wait::{CEILING, in_time};
use crate::world::{Server, World, mission};

fn of(id: &str) -> IntegrationRequest {
    IntegrationRequest::of(IntegrationSource::Worker(id.to_owned()))
}

async fn integrate(server: &Server, request: IntegrationRequest) -> IntegrationAnswer {
    server.orchestrator.integrate(&server.boss, request).await.unwrap()
}

async fn refused(server: &Server, request: IntegrationRequest) -> String {
    server.orchestrator.integrate(&server.boss, request).await.unwrap_err().to_string()
}

async fn retry_with(server: &Server, id: &str, script: &str) {
    let prompt = Some(format!("FAKE:\n{script}"));
    let retry = RetryRequest { prompt, ..RetryRequest::default() };
    server.orchestrator.retry(&server.boss, id, retry).await.unwrap();
    server.until(id, "completed").await;
}

fn commit(repo: &Path, path: &str, text: &str) {
    std::fs::write(repo.join(path), text).unwrap();
    git(repo, &["add", "-A"]);
    git(repo, &["commit", "-qm", path]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_removed_by_the_user_stay_out() {
    for strategy in [Strategy::Merge, Strategy::Squash, Strategy::CherryPick] {
        let world = World::new();
        commit(&world.repo(), "regretted.txt", "secret\n");
        let server = world.server(Some("boss"));
        let id = server.create_one(mission("a", "write a.txt a\ncommit a")).await;
        server.until(&id, "completed").await;
        world.git(&["reset", "-q", "--hard", "HEAD~1"]);
        let request = IntegrationRequest { strategy, ..of(&id) };
        let would = integrate(&server, IntegrationRequest { dry_run: true, ..request.clone() }).await;
        assert_eq!(would.status.as_str(), "would_merge");
        let did = integrate(&server, request.clone()).await;
        assert_eq!(did.status.as_str(), "merged", "{did:#?}");
        for answer in [&would, &did] {
            assert!(answer.notes.iter().any(|it| it.contains("regretted.txt")), "{answer:#?}");
        }
        assert_eq!(world.git(&["ls-tree", "--name-only", "main"]), "README\na.txt");
        assert!(!world.git(&["log", "--format=%s", "main"]).contains("regretted"));
        assert_eq!(integrate(&server, request).await.status.as_str(), "already_integrated");
        let (target, salvage) = (RemovalTarget::Worker(id.clone()), RemovalTarget::Worker(id.clone()));
        let remove = RemovalRequest { target, repo_path: None, force: false, delete_branch: true };
        let kept = server.orchestrator.remove_worktree(&server.boss, remove.clone()).await.unwrap().kept;
        assert!(
            kept[0].why.to_string().contains("not in main"),
            "only the branch holds the omitted commits: {kept:#?}"
        );
        let force = RemovalRequest { target: salvage, force: true, ..remove };
        let removed = server.orchestrator.remove_worktree(&server.boss, force).await.unwrap().removed;
        assert!(world.git(&["log", "--format=%s", removed[0].salvage_ref.as_ref().unwrap()]).contains("regretted"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn user_commits_on_an_existing_branch_are_merged() {
    let world = World::new();
    let remote = world.path("remote");
    world.git(&["branch", "feature"]);
    world.git(&["switch", "-q", "feature"]);
    commit(&world.repo(), "users.txt", "x\n");
    world.git(&["clone", "-q", "--bare", ".", remote.to_str().unwrap()]);
    world.git(&["branch", "-m", "feature", "local"]);
    world.git(&["switch", "-q", "main"]);
    world.git(&["remote", "add", "origin", remote.to_str().unwrap()]);
    world.git(&["fetch", "-q"]);
    for branch in ["local", "feature"] {
        let server = world.server(Some("boss"));
        let mut draft = mission(branch, &format!("write {branch}.txt x\ncommit {branch}"));
        draft.place = DraftPlace::Worktree { branch: Some(branch.into()), base: None, path: None, directory: None };
        let id = server.create_one(draft).await;
        server.until(&id, "completed").await;
        let answer = integrate(&server, of(&id)).await;
        assert_eq!(answer.status.as_str(), "merged", "{answer:#?}");
        assert!(world.git(&["ls-tree", "--name-only", "main"]).contains("users.txt"), "{answer:#?}");
        assert_eq!(world.git(&["rev-list", "--count", &format!("main..{branch}")]), "0");
        world.git(&["reset", "-q", "--hard", "HEAD~1"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_after_a_squash_is_integrated() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let id = server.create_one(mission("a", "write README one\ncommit one")).await;
    server.until(&id, "completed").await;
    world.git(&["branch", "release"]);
    let squash = IntegrationRequest { strategy: Strategy::Squash, ..of(&id) };
    let release = IntegrationRequest { into: Some("release".to_owned()), ..squash.clone() };
    for request in [&squash, &release] {
        assert_eq!(integrate(&server, request.clone()).await.status.as_str(), "merged");
    }
    retry_with(&server, &id, "write README two\ncommit two").await;
    // The branch's name and the worker's id select the same work.
    let branch = format!("orchestrator/{id}");
    let by_branch = IntegrationRequest { source: IntegrationSource::Branch(branch), ..squash.clone() };
    for request in [&by_branch, &release] {
        let answer = integrate(&server, request.clone()).await;
        assert_eq!(answer.status.as_str(), "merged", "{answer:#?}");
    }
    assert_eq!(integrate(&server, squash).await.status.as_str(), "already_integrated");
    for branch in ["main", "release"] {
        assert_eq!(world.git(&["show", &format!("{branch}:README")]), "two");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dependent_workers_are_squashed_one_by_one() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let below = server.create_one(mission("below", "write README one\ncommit one")).await;
    let mut above = mission("above", "append README two\ncommit two");
    above.depends_on = vec![below.as_str().into()];
    let above = server.create_one(above).await;
    server.until(&above, "completed").await;
    let train = IntegrationRequest {
        strategy: Strategy::Squash,
        ..IntegrationRequest::of(IntegrationSource::Train(vec![below.clone(), above.clone()]))
    };
    let would = integrate(&server, IntegrationRequest { dry_run: true, ..train.clone() }).await;
    assert_eq!((would.status.as_str(), would.left_out.len()), ("would_merge", 0), "{would:#?}");
    let alone = integrate(&server, IntegrationRequest { dry_run: true, ..of(&above) }).await;
    assert!(alone.notes.iter().any(|it| it.contains("built on")), "{alone:#?}");
    let first = IntegrationRequest { strategy: Strategy::Squash, ..of(&below) };
    assert_eq!(integrate(&server, first).await.status.as_str(), "merged");
    let second = IntegrationRequest { strategy: Strategy::Squash, ..of(&above) };
    let answer = integrate(&server, second).await;
    assert_eq!((answer.status.as_str(), answer.notes.len()), ("merged", 0), "{answer:#?}");
    assert_eq!(world.git(&["log", "--format=%s", "main"]), "above\nbelow\nfirst");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn user_changes_block_only_overlapping_merges() {
    let world = World::new();
    commit(&world.repo(), "other.txt", "x\n");
    let server = world.server(Some("boss"));
    let id = server.create_one(mission("a", "write README a\nwrite new.txt a\ncommit a")).await;
    server.until(&id, "completed").await;
    for (path, says) in [("README", "README"), ("new.txt", "new.txt")] {
        std::fs::write(world.repo().join(path), "mine\n").unwrap();
        std::fs::write(world.repo().join("other.txt"), "mine\n").unwrap();
        let dry = refused(&server, IntegrationRequest { dry_run: true, ..of(&id) }).await;
        let real = refused(&server, of(&id)).await;
        assert_eq!(dry, real);
        assert!(real.contains(says) && !real.contains("other.txt"), "{real}");
        assert_eq!(std::fs::read_to_string(world.repo().join(path)).unwrap(), "mine\n");
        world.git(&["clean", "-qf", "new.txt"]);
        world.git(&["checkout", "-q", "README"]);
    }
    assert_eq!(integrate(&server, of(&id)).await.status.as_str(), "merged");
    assert_eq!(std::fs::read_to_string(world.repo().join("other.txt")).unwrap(), "mine\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_in_a_second_repository_is_merged_there() {
    let world = World::new();
    let second = world.path("second");
    git(&world.path(""), &["init", "-q", "-b", "trunk", "second"]);
    for setting in [["user.name", "Test"], ["user.email", "test@localhost"]] {
        git(&second, &[&["config"][..], &setting].concat());
    }
    commit(&second, "README", "second\n");
    let server = world.server(Some("boss"));
    let request =
        WorktreeRequest { branch: "task".to_owned(), path: None, base: None, repo_path: Some(second.clone()) };
    let made = server.orchestrator.create_worktree(&server.boss, request).await.unwrap();
    let beside = made.path.parent().unwrap().to_str().unwrap().to_owned();
    assert!(beside.contains("/second.worktrees"), "it is beside its own repository: {beside}");
    let mut draft = mission("there", "write there.txt x\ncommit there");
    draft.place = DraftPlace::Directory(made.path.clone());
    let creation = server.orchestrator.create(&server.boss, vec![Ok(draft)], BatchKind::Single).await.unwrap();
    assert_eq!(creation.base, None, "it does not start at a branch of this repository");
    let id = creation.results[0].as_ref().unwrap().worker_id.to_string();
    server.until(&id, "completed").await;
    let worker = server.orchestrator.get(&id).await.unwrap().worker;
    assert_eq!(worker.repository.as_deref(), Some(&*second));

    let branch = IntegrationRequest::of(IntegrationSource::Branch("task".to_owned()));
    let error = refused(&server, branch.clone()).await;
    assert!(error.contains("in the repository") && error.contains(second.to_str().unwrap()), "{error}");
    let wrong = IntegrationRequest { repo_path: Some(world.repo()), ..of(&id) };
    assert!(refused(&server, wrong).await.contains("is in the repository"));
    let main = world.git(&["rev-parse", "main"]);
    let by_branch = IntegrationRequest { repo_path: Some(second.clone()), dry_run: true, ..branch };
    assert_eq!(integrate(&server, by_branch).await.status.as_str(), "would_merge");
    let answer =
        integrate(&server, IntegrationRequest { verify_command: Some("test -e there.txt".to_owned()), ..of(&id) })
            .await;
    assert_eq!((answer.status.as_str(), answer.into.as_str()), ("merged", "trunk"), "{answer:#?}");
    assert!(!answer.own_worktree && second.join("there.txt").exists());
    let by_name = RemovalTarget::Worker(id.clone());
    let request = RemovalRequest { target: by_name, repo_path: None, force: false, delete_branch: false };
    let kept = server.orchestrator.remove_worktree(&server.boss, request).await.unwrap().kept;
    assert!(kept[0].why.to_string().contains("was not created for this worker"), "{kept:?}");
    assert_eq!(world.git(&["rev-parse", "main"]), main);

    let here = server.create_one(mission("here", "write here.txt x\ncommit here")).await;
    server.until(&here, "completed").await;
    let train = IntegrationRequest::of(IntegrationSource::Train(vec![here.clone(), id.clone()]));
    let answer = integrate(&server, train).await;
    assert_eq!(answer.integrated, [here]);
    assert!(answer.left_out[0].1.text.contains("is in the repository"), "{answer:#?}");

    git(&second, &["branch", "-q", "-m", "task", "renamed"]);
    git(&made.path, &["checkout", "-q", "--detach"]);
    assert_eq!(
        integrate(&server, of(&id)).await.status.as_str(),
        "already_integrated",
        "the work of the deleted branch is merged"
    );
    git(&made.path, &["checkout", "-q", "renamed"]);
    let target = RemovalTarget::Path(made.path.clone());
    let request = RemovalRequest { target, repo_path: None, force: false, delete_branch: false };
    let removed = server.orchestrator.remove_worktree(&server.boss, request).await.unwrap();
    assert!(removed.kept.is_empty() && !Path::new(&beside).exists(), "{removed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_of_another_worker_are_named() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let mut failing = mission("first", "write first.txt x\ncommit first");
    failing.verify_command = Some("false".to_owned());
    let failed = server.create_one(failing).await;
    server.until(&failed, "failed").await;
    let script = format!("write own.txt x\ncommit own\nrun git merge -q --no-edit orchestrator/{failed}");
    let id = server.create_one(mission("second", &script)).await;
    server.until(&id, "completed").await;
    let note = format!("commits that it took from other branches: 1 commit of orchestrator/{failed}");
    for (dry_run, status) in [(true, "would_merge"), (false, "merged")] {
        let answer = integrate(&server, IntegrationRequest { dry_run, ..of(&id) }).await;
        assert_eq!(answer.status.as_str(), status);
        assert!(answer.notes.iter().any(|it| it.contains(&note)), "{:#?}", answer.notes);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn merged_state_is_that_of_git_everywhere() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let id = server.create_one(mission("a", "write a.txt a\ncommit a")).await;
    server.until(&id, "completed").await;
    let branch = format!("orchestrator/{id}");
    let is_merged = async || {
        let reported = server.orchestrator.get(&id).await.unwrap().worker.integrated.clone();
        let mut observer = Observer::open(&world.repo().join(".orchestrator"), None).unwrap().unwrap();
        let overview = observer.read().unwrap();
        let seen = overview.workers().next().unwrap().worker.integrated.clone();
        assert_eq!(reported, seen);
        let found = observer.find(&id).unwrap().worker.integrated.clone();
        assert_eq!(reported, found);
        reported.map(|it| it.into)
    };
    let nothing = |answer: RemovalAnswer| answer.removed.is_empty();
    let all =
        || RemovalRequest { target: RemovalTarget::AllIntegrated, repo_path: None, force: false, delete_branch: false };
    assert_eq!(is_merged().await, None);
    let by_hand: [&[&[&str]]; 4] = [
        &[&["checkout", "-q", &branch, "--", "."], &["commit", "-qm", "copied"]],
        &[&["merge", "-q", "--no-edit", "--no-ff", &branch]],
        &[&["merge", "-q", "--squash", &branch], &["commit", "-qm", "squashed"]],
        &[&["cherry-pick", &branch]],
    ];
    for way in by_hand {
        way.iter().for_each(|command| drop(world.git(command)));
        assert_eq!(is_merged().await.as_deref(), Some("main"), "{way:?}");
        let main = world.git(&["rev-parse", "main"]);
        for request in [IntegrationRequest { dry_run: true, ..of(&id) }, of(&id)] {
            assert_eq!(integrate(&server, request).await.status.as_str(), "already_merged", "{way:?}");
        }
        assert_eq!(world.git(&["rev-parse", "main"]), main, "no empty merge: {way:?}");
        world.git(&["reset", "-q", "--hard", "HEAD~1"]);
        assert_eq!(is_merged().await, None, "{way:?}");
    }
    let by_branch = IntegrationRequest::of(IntegrationSource::Branch(branch.clone()));
    assert_eq!(integrate(&server, by_branch).await.status.as_str(), "merged");
    assert_eq!(is_merged().await.as_deref(), Some("main"));
    world.git(&["reset", "-q", "--hard", "HEAD~1"]);
    assert_eq!(is_merged().await, None, "a record alone is no merge");
    assert!(nothing(server.orchestrator.remove_worktree(&server.boss, all()).await.unwrap()));
    assert_eq!(integrate(&server, of(&id)).await.status.as_str(), "merged");
    assert_eq!(server.orchestrator.remove_worktree(&server.boss, all()).await.unwrap().removed.len(), 1);
    world.git(&["branch", "-q", "-D", &branch]);
    assert_eq!(is_merged().await.as_deref(), Some("main"), "the work remains without its branch");
    assert_eq!(integrate(&server, of(&id)).await.status.as_str(), "already_integrated");
    world.git(&["reset", "-q", "--hard", "HEAD~1"]);
    let gone = refused(&server, of(&id)).await;
    assert!(gone.contains("was deleted"), "{gone}");

    let damaged = server.create_one(mission("damaged", "write b.txt b\ncommit b")).await;
    server.until(&damaged, "completed").await;
    let head = world.git(&["rev-parse", &format!("orchestrator/{damaged}")]);
    std::fs::remove_file(world.repo().join(".git/objects").join(&head[..2]).join(&head[2..])).unwrap();
    // An answer of git is cached until a branch moves.
    world.git(&["commit", "-q", "--allow-empty", "-m", "moved"]);
    let answer = server.orchestrator.remove_worktree(&server.boss, all()).await.unwrap();
    assert_eq!((answer.removed.len(), answer.kept.len()), (0, 1), "{answer:?}");
    assert!(answer.kept[0].why.to_string().contains("git gives no answer"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dependent_has_the_work_of_an_undone_merge() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let below = server.create_one(mission("below", "write below.txt x\ncommit below")).await;
    server.until(&below, "completed").await;
    assert_eq!(integrate(&server, of(&below)).await.status.as_str(), "merged");
    world.git(&["reset", "-q", "--hard", "HEAD~1"]);
    let mut above = mission("above", "write above.txt x\ncommit above");
    above.depends_on = vec![below.as_str().into()];
    above.verify_command = Some("test -e below.txt".to_owned());
    let above = server.create_one(above).await;
    server.until(&above, "completed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn list_does_not_wait_for_hanging_git() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let id = server.create_one(mission("one", "write one.txt x\ncommit one")).await;
    server.until(&id, "completed").await;
    world.git(&["commit", "-q", "--allow-empty", "-m", "invalidates the cache"]);
    // Each reader of the repository's objects waits for a writer.
    let pipe = world.repo().join(".git/objects/info/alternates");
    std::fs::create_dir_all(pipe.parent().unwrap()).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let listed = tokio::time::timeout(CEILING / 2, server.orchestrator.list(&server.boss, Scope::Mine)).await;
    let moved = world.path("pipe");
    std::fs::rename(&pipe, &moved).unwrap();
    let is_known = in_time(async || {
        // Releases readers that still wait.
        let nonblocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
        drop(std::fs::OpenOptions::new().write(true).custom_flags(nonblocking).open(&moved));
        !server.orchestrator.get(&id).await.unwrap().merge_is_unknown
    });
    assert!(is_known.await, "the merge state is known once git answers");
    assert!(listed.expect("list answers in time").unwrap().workers[0].merge_is_unknown);
}
