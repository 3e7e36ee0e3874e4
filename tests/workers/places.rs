//! Working directories: worktrees, the user's directories, and content that a removal must not lose.

use std::path::PathBuf;

use orchestrator_boss::config::{Confine, Settings};
use orchestrator_boss::mission::create::DraftPlace;
use orchestrator_boss::mission::outcome::FailureKind;
use orchestrator_boss::orchestrator::{
    IntegrationRequest, IntegrationSource, RemovalAnswer, RemovalRequest, RemovalTarget, RetryRequest, WaitStatus,
    WorktreeRequest,
};

use crate::support::git::git;
use crate::support::wait::{CEILING, in_time};
use crate::world::{Server, World, mission};

fn in_worktree(branch: &str, base: Option<&str>, path: Option<PathBuf>) -> DraftPlace {
    DraftPlace::Worktree { branch: Some(branch.to_owned()), base: base.map(str::to_owned), path, directory: None }
}

async fn remove(server: &Server, worker: &str, force: bool, delete_branch: bool) -> RemovalAnswer {
    let target = RemovalTarget::Worker(worker.to_owned());
    let request = RemovalRequest { target, repo_path: None, force, delete_branch };
    server.orchestrator.remove_worktree(&server.boss, request).await.expect("an answer to the removal")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn user_directory_is_never_committed_or_removed() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let mut draft = mission("here", "write mine.txt x");
    draft.place = DraftPlace::Directory(PathBuf::from("."));
    let id = server.create_one(draft).await;
    server.until(&id, "completed").await;
    let changes = server.orchestrator.get(&id).await.unwrap().worker.last().unwrap().changes.clone();
    assert_eq!((changes.commits, changes.uncommitted, changes.committed_by_us), (0, 1, 0));
    assert_eq!(world.git(&["status", "--porcelain"]), "?? mine.txt");
    let answer = remove(&server, &id, true, true).await;
    assert!(answer.removed.is_empty() && answer.kept[0].why.to_string().contains("own directory"), "{answer:?}");
    assert!(world.repo().join("mine.txt").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_runs_outside_any_repository() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let place = world.path("elsewhere");
    std::fs::create_dir(&place).unwrap();
    let mut draft = mission("there", "write a.txt x");
    draft.place = DraftPlace::Directory(place.clone());
    let id = server.create_one(draft).await;
    server.until(&id, "completed").await;
    assert!(place.join("a.txt").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worktree_at_relative_or_linked_path_is_removed() {
    let world = World::new();
    std::os::unix::fs::symlink(world.path(""), world.path("link")).unwrap();
    let server = world.server(Some("boss"));
    let linked = world.path("link/repo-linked");
    let paths = [("../repo-beside".into(), "repo-beside"), ("inside".into(), "repo/inside"), (linked, "repo-linked")];
    for (number, (given, real)) in paths.into_iter().enumerate() {
        let mut draft = mission("t", "write a.txt x");
        draft.place = in_worktree(&format!("branch-{number}"), None, Some(given));
        let id = server.create_one(draft).await;
        server.until(&id, "completed").await;
        let worker = server.orchestrator.get(&id).await.unwrap().worker;
        assert_eq!(worker.mission.place.path(), world.path(real));
        let removed = remove(&server, &id, false, false).await;
        assert_eq!(removed.removed.len(), 1, "{removed:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dirty_worktree_is_removed_only_with_salvage() {
    let world = World::new();
    let mut settings = world.settings();
    settings.commit_leftovers = false;
    let server = world.server_with(Some("boss"), settings);
    let id = server.create_one(mission("dirty", "write left.txt precious\nhang")).await;
    let path = world.worktree(&id);
    crate::world::until_exists(&path.join("left.txt")).await;
    // The file may exist before the server has recorded the start.
    server.until(&id, "running").await;
    let live = remove(&server, &id, true, false).await;
    assert!(live.kept[0].why.to_string().contains("still running"), "{live:?}");

    server.orchestrator.cancel(&server.boss, &id, "enough").await.unwrap();
    let dirty = remove(&server, &id, false, false).await;
    assert!(dirty.kept[0].why.to_string().contains("left.txt") && path.exists(), "{dirty:?}");
    let forced = remove(&server, &id, true, false).await;
    let salvage = forced.removed[0].salvage_ref.clone().expect("a salvage ref");
    assert!(!path.exists());
    assert_eq!(world.git(&["show", &format!("{salvage}:left.txt")]), "precious");
    assert_eq!(server.orchestrator.get(&id).await.unwrap().worker.salvage_ref, Some(salvage));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn integrated_worktrees_are_removed_and_recreated_for_retry() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let ids =
        server.create(vec![mission("a", "write a.txt x\ncommit a"), mission("b", "write b.txt x\ncommit b")]).await;
    let ids: Vec<String> = ids.into_iter().map(Result::unwrap).collect();
    for id in &ids {
        server.until(id, "completed").await;
    }
    use orchestrator_boss::orchestrator::{IntegrationRequest, IntegrationSource, Strategy};
    let request = IntegrationRequest {
        strategy: Strategy::Squash,
        ..IntegrationRequest::of(IntegrationSource::Worker(ids[0].clone()))
    };
    server.orchestrator.integrate(&server.boss, request).await.unwrap();
    let all =
        RemovalRequest { target: RemovalTarget::AllIntegrated, repo_path: None, force: false, delete_branch: true };
    let answer = server.orchestrator.remove_worktree(&server.boss, all).await.unwrap();
    let removed: Vec<_> = answer.removed.iter().filter_map(|it| it.branch.clone()).collect();
    assert_eq!(removed, [format!("orchestrator/{}", ids[0])], "{answer:?}");

    let gone = remove(&server, &ids[1], false, false).await;
    assert_eq!(gone.removed.len(), 1);
    let retry =
        RetryRequest { prompt: Some("FAKE:\nappend b.txt y\ncommit more".to_owned()), ..RetryRequest::default() };
    server.orchestrator.retry(&server.boss, &ids[1], retry).await.unwrap();
    server.until(&ids[1], "completed").await;
    let worker = server.orchestrator.get(&ids[1]).await.unwrap().worker;
    assert_eq!((worker.attempt, worker.last().unwrap().changes.commits), (2, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn impossible_worktrees_folder_is_refused() {
    let world = World::new();
    std::fs::write(world.path("file"), "").unwrap();
    for folder in [world.path("file").join("trees"), PathBuf::from("/proc/trees")] {
        let mut settings = world.settings();
        settings.worktrees_dir = Some(folder.to_str().unwrap().to_owned());
        let server = world.server_with(Some("boss"), settings);
        let refused = server.create(vec![mission("nowhere", "say x")]).await.remove(0).unwrap_err();
        assert!(refused.contains("worktrees_dir") && refused.contains("trees"), "{refused}");
        server.orchestrator.shut_down().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn impossible_mission_is_refused_and_leaves_nothing() {
    let world = World::new();
    let server = world.server(Some("boss"));
    world.git(&["branch", "taken"]);
    world.git(&["worktree", "add", "-q", world.path("repo-taken").to_str().unwrap(), "taken"]);
    let mut cases = Vec::new();
    let mut case = |place, says: &'static str| {
        let mut draft = mission(says, "say x");
        draft.place = place;
        cases.push((draft, says));
    };
    case(in_worktree("taken", None, None), "repo-taken");
    case(in_worktree("--force", None, None), "--force");
    case(in_worktree("a..b", None, None), "a..b");
    case(in_worktree("fine", Some("no-such-base"), None), "no-such-base");
    case(in_worktree("fine", Some("--help"), None), "--help");
    case(in_worktree("fine", None, Some("../../../etc/x".into())), "/etc/x");
    case(DraftPlace::Directory("no/such/dir".into()), "no/such/dir");
    case(DraftPlace::Directory("README".into()), "not a directory");
    let mut foreign = mission("foreign", "say x");
    foreign.backend = "codex".into();
    foreign.model = Some("claude-opus".to_owned());
    cases.push((foreign, "claudecode"));
    let mut unknown = mission("unknown", "say x");
    unknown.backend = "claud".into();
    cases.push((unknown, "claudecode, codex, fake, gemini"));

    let (drafts, says): (Vec<_>, Vec<_>) = cases.into_iter().unzip();
    let answers = server.create(drafts).await;
    for (answer, says) in answers.into_iter().zip(says) {
        let error = answer.expect_err(says);
        assert!(error.contains(says), "{says}: {error}");
    }
    assert_eq!(world.git(&["branch", "--format=%(refname:short)"]), "main\ntaken");
    assert_eq!(server.wait(&[], CEILING).await.status, WaitStatus::Idle);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failure_at_start_settles_as_could_not_start() {
    let world = World::new();
    let mut settings = world.settings();
    settings.max_workers = Some(1);
    let server = world.server_with(Some("boss"), settings);
    let gate = world.path("gate");
    let mut late = mission("late", "say x");
    late.place = in_worktree("late", None, None);
    let ids = server.create(vec![mission("first", &format!("wait-file {}", gate.display())), late]).await;
    let ids: Vec<String> = ids.into_iter().map(Result::unwrap).collect();
    server.until(&ids[0], "running").await;
    world.git(&["worktree", "add", "-q", "-b", "late", world.path("repo-late").to_str().unwrap()]);
    std::fs::write(&gate, "").unwrap();
    server.until(&ids[1], "failed").await;
    let last = server.orchestrator.get(&ids[1]).await.unwrap().worker.last().unwrap().clone();
    let failure = last.failure.unwrap();
    assert_eq!((failure.kind, last.place_failed), (FailureKind::CouldNotStart, true), "the backend is not to blame");
    assert!(failure.message.contains("repo-late"), "{failure:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_git_identity_is_refused_before_creation() {
    let world = World::new();
    world.git(&["config", "--unset", "user.name"]);
    world.git(&["config", "user.useConfigOnly", "true"]);
    let server = world.server(Some("boss"));
    let answer = server.create(vec![mission("t", "say x")]).await.remove(0);
    // A machine whose own git settings have an identity accepts the mission.
    match answer {
        Err(error) => assert!(error.contains("git config --global user.name"), "{error}"),
        Ok(id) => {
            assert!(!git(&world.repo(), &["config", "--get", "user.email"]).is_empty());
            server.until(&id, "completed").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_runs_in_a_worktree_created_before() {
    let world = World::new();
    let server = world.server(Some("boss"));
    std::fs::write(world.repo().join(".gitignore"), ".env\n").unwrap();
    std::fs::write(world.repo().join(".worktreeinclude"), ".env\n").unwrap();
    std::fs::write(world.repo().join(".env"), "A=1\n").unwrap();
    world.git(&["add", ".gitignore", ".worktreeinclude"]);
    world.git(&["commit", "-q", "-m", "ignore"]);
    let request = WorktreeRequest { branch: "feature/x".to_owned(), path: None, base: None, repo_path: None };
    let made = server.orchestrator.create_worktree(&server.boss, request).await.unwrap();
    assert!(made.created_branch && made.path.join(".env").exists());
    let mut draft = mission("in it", "write a.txt x\ncommit a");
    draft.place = DraftPlace::Directory(made.path.clone());
    let id = server.create_one(draft).await;
    server.until(&id, "completed").await;
    let changes = server.orchestrator.get(&id).await.unwrap().worker.last().unwrap().changes.clone();
    assert_eq!((changes.branch.as_deref(), changes.commits), (Some("feature/x"), 1));
    let target = RemovalTarget::Path(made.path.clone());
    let request = RemovalRequest { target, repo_path: None, force: false, delete_branch: false };
    let by_worker = remove(&server, &id, true, false).await;
    assert!(by_worker.kept[0].why.to_string().contains("was not created for this worker"), "{by_worker:?}");
    std::fs::write(made.path.join(".env"), "A=2\n").unwrap();
    let answer = server.orchestrator.remove_worktree(&server.boss, request.clone()).await.unwrap();
    assert!(answer.kept[0].why.to_string().contains(".env"), "a changed copy is work: {answer:?}");
    std::fs::write(made.path.join(".env"), "A=1\n").unwrap();
    let busy = server.create_one({
        let mut draft = mission("below", "hang");
        std::fs::create_dir_all(made.path.join("sub")).unwrap();
        draft.place = DraftPlace::Directory(made.path.join("sub"));
        draft
    });
    let busy = busy.await;
    server.until(&busy, "running").await;
    let answer = server.orchestrator.remove_worktree(&server.boss, request.clone()).await.unwrap();
    assert!(answer.kept[0].why.to_string().contains(&busy), "a worker runs in a folder of it: {answer:?}");
    server.orchestrator.cancel(&server.boss, &busy, "enough").await.unwrap();
    let answer = server.orchestrator.remove_worktree(&server.boss, request).await.unwrap();
    assert!(answer.kept.is_empty() && !made.path.exists(), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edits_outside_the_worktree_are_reported() {
    let world = World::new();
    // The kernel would refuse these edits.
    let server = world.server_with(Some("boss"), Settings { confine: Confine::Off, ..world.settings() });
    let readme = world.repo().join("README");
    let reaches = format!("edit {0}\nrun echo more >> {0}\nwrite in.txt x", readme.display());
    let ids = server.create(vec![mission("reaches", &reaches), mission("stays", "write in.txt x\nedit in.txt")]).await;
    let ids: Vec<String> = ids.into_iter().map(Result::unwrap).collect();
    server.until(&ids[0], "completed").await;
    server.until(&ids[1], "completed").await;
    let reached = server.orchestrator.get(&ids[0]).await.unwrap().worker.last().unwrap().changes.clone();
    assert_eq!(reached.outside_worktree, [readme.display().to_string()]);
    assert_eq!(reached.main_checkout_changes, ["its index or files changed: README"]);
    let stayed = server.orchestrator.get(&ids[1]).await.unwrap().worker.last().unwrap().changes.clone();
    assert!(stayed.outside_worktree.is_empty(), "changes by another worker are not reported: {stayed:?}");

    let alone = server.create_one(mission("alone", "write in.txt x")).await;
    server.until(&alone, "completed").await;
    let alone = server.orchestrator.get(&alone).await.unwrap().worker.last().unwrap().changes.clone();
    assert!(alone.main_checkout_changes.is_empty(), "{alone:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_to_the_repository_are_reported_and_salvaged() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let (repo, root) = (world.repo(), world.repo().display().to_string());
    let commit_on = |branch: &str| {
        world.git(&["checkout", "-q", "-B", branch]);
        world.git(&["commit", "-q", "--allow-empty", "-m", branch]);
        let made = world.git(&["rev-parse", "HEAD"]);
        world.git(&["checkout", "-q", "main"]);
        made
    };
    let feature = commit_on("feature");
    let forced = commit_on("forced");
    std::fs::write(repo.join("README"), "the user's\n").unwrap();
    world.git(&["stash", "-q"]);
    let stash = world.git(&["rev-parse", "refs/stash"]);
    commit_on("later");
    world.git(&["merge", "-q", "later"]);
    let cases = [
        ("commit", format!("run cd {root} && git commit -q --allow-empty -m outside"), "its HEAD moved from", None),
        ("switch", format!("run cd {root} && git checkout -q -b another"), "checked out: another (was main)", None),
        ("back", format!("run cd {root} && git checkout -q main"), "checked out: main (was another)", None),
        (
            "delete",
            format!("run cd {root} && git branch -q -D feature"),
            "refs/heads/feature was deleted",
            Some(&feature),
        ),
        (
            "force",
            format!("run cd {root} && git branch -q -f forced main"),
            "refs/heads/forced moved from",
            Some(&forced),
        ),
        ("drop", format!("run cd {root} && git stash drop -q"), "a stash was dropped", Some(&stash)),
        ("stash", "write README x\nrun git stash -q".to_owned(), "a stash was pushed", None),
        ("config", format!("run cd {root} && git config core.pager evil"), "configuration changed: core.pager", None),
        ("hook", format!("run echo > {root}/.git/hooks/pre-commit"), "configuration changed: hooks/pre-commit", None),
        (
            "reset",
            format!("run cd {root} && git branch -q -D later; git -C {root} reset -q --hard HEAD~2"),
            "HEAD moved",
            // The branches of workers still contain it.
            None,
        ),
        ("tag", "run git tag v1".to_owned(), "refs/tags/v1 is new", None),
    ];
    for (title, script, says, lost) in cases {
        let id = server.create_one(mission(title, &script)).await;
        server.until(&id, "completed").await;
        let changes = server.orchestrator.get(&id).await.unwrap().worker.last().unwrap().changes.clone();
        let reported = changes.main_checkout_changes.join("; ");
        assert!(reported.contains(says), "{title}: {reported:?}");
        let kept = format!("refs/orchestrator/salvage/{id}-outside");
        assert_eq!(reported.contains(&kept), lost.is_some(), "{title}: {reported:?}");
        if let Some(lost) = lost {
            world.git(&["reflog", "expire", "--expire=now", "HEAD", "refs/heads/main"]);
            world.git(&["gc", "-q", "--prune=now"]);
            assert!(world.git(&["rev-list", &kept]).contains(lost.as_str()), "{title}: {reported:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_worktree_in_the_way_is_unchanged() {
    let world = World::new();
    let mut settings = world.settings();
    settings.max_workers = Some(1);
    let server = world.server_with(Some("boss"), settings);
    let gate = world.path("gate");
    let foreign = world.path("repo-foreign");
    let mut late = mission("late", "write README ours");
    late.place = in_worktree("late", None, Some(foreign.clone()));
    let ids = server.create(vec![mission("first", &format!("wait-file {}", gate.display())), late]).await;
    let ids: Vec<String> = ids.into_iter().map(Result::unwrap).collect();
    server.until(&ids[0], "running").await;
    world.git(&["worktree", "add", "-q", "-b", "late", foreign.to_str().unwrap()]);
    std::fs::write(foreign.join("README"), "precious").unwrap();
    std::fs::write(&gate, "").unwrap();
    server.until(&ids[1], "failed").await;
    let failure = server.orchestrator.get(&ids[1]).await.unwrap().worker.last().unwrap().failure.clone().unwrap();
    assert!(failure.message.contains("repo-foreign"), "{failure:?}");
    assert_eq!(std::fs::read_to_string(foreign.join("README")).unwrap(), "precious");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn configured_state_folder_is_created_with_its_parents() {
    let world = World::new();
    let mut settings = world.settings();
    settings.state_dir = Some(world.path("not/yet/there"));
    let server = world.server_with(Some("boss"), settings);
    let id = server.create_one(mission("t", "write new.txt x")).await;
    server.until(&id, "completed").await;
    assert!(in_time(async || world.path("not/yet/there/orchestrator-state.json").exists()).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uncommitted_changes_on_user_branch_stay_uncommitted() {
    let world = World::new();
    world.git(&["branch", "users"]);
    let server = world.server(Some("boss"));
    let script = |branch: &str| format!("run git checkout -q {branch}\nwrite left.txt x");
    let strays = server.create_one(mission("strays", &script("users"))).await;
    let own = server.create_one(mission("own", &script("-b its-own"))).await;
    server.until(&strays, "completed").await;
    server.until(&own, "completed").await;
    assert_eq!(world.git(&["rev-parse", "users"]), world.git(&["rev-parse", "main"]));
    let strayed = server.orchestrator.get(&strays).await.unwrap().worker.last().unwrap().changes.clone();
    assert_eq!((strayed.uncommitted, strayed.committed_by_us), (1, 0));
    let named = &strayed.not_on_branch[0];
    assert!(named.what.contains("left.txt") && named.how_to_include.contains("HEAD is on users"), "{strayed:?}");
    let own = server.orchestrator.get(&own).await.unwrap().worker.last().unwrap().changes.clone();
    assert_eq!((own.uncommitted, own.committed_by_us), (0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn integration_is_no_reported_change_of_the_checkout() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let go = world.shared("go");
    let first = server.create_one(mission("first", "write in.txt x")).await;
    let meanwhile = server.create_one(mission("meanwhile", &format!("wait-file {}", go.display()))).await;
    server.until(&first, "completed").await;
    server.until(&meanwhile, "running").await;
    let request = IntegrationRequest::of(IntegrationSource::Worker(first));
    let merged = server.orchestrator.integrate(&server.boss, request).await.unwrap();
    assert_eq!(merged.status.as_str(), "merged");
    std::fs::write(&go, "").unwrap();
    server.until(&meanwhile, "completed").await;
    let changes = server.orchestrator.get(&meanwhile).await.unwrap().worker.last().unwrap().changes.clone();
    assert!(changes.main_checkout_changes.is_empty(), "{changes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_choose_author_and_message_of_commits() {
    let world = World::new();
    let log = |id: &str| world.git(&["log", "-1", "--format=%an <%ae>|%cn|%s", &format!("orchestrator/{id}")]);
    let plain = world.server(Some("plain"));
    let id = plain.create_one(mission("left", "write a.txt x")).await;
    plain.until(&id, "completed").await;
    assert_eq!(log(&id), "Test <test@localhost>|Test|left", "the identity is that of the user");

    let mut settings = world.settings();
    settings.commit_message = "chore: {title} by {worker_id}".to_owned();
    (settings.commit_name, settings.commit_email) = (Some("Bot".to_owned()), Some("bot@example.com".to_owned()));
    let own = world.server_with(Some("own"), settings);
    let id = own.create_one(mission("left {worker_id}", "write a.txt x")).await;
    own.until(&id, "completed").await;
    assert_eq!(log(&id), format!("Bot <bot@example.com>|Bot|chore: left {{worker_id}} by {id}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verification_with_uncommitted_files_does_not_pass() {
    let world = World::new();
    let mut settings = world.settings();
    settings.commit_leftovers = false;
    let server = world.server_with(Some("boss"), settings);
    let verified = |script: &str| {
        let mut draft = mission("t", script);
        draft.verify_command = Some("test -e a.txt && touch built".to_owned());
        draft
    };
    let left = server.create_one(verified("write a.txt x")).await;
    server.until(&left, "failed").await;
    let worker = server.orchestrator.get(&left).await.unwrap().worker;
    let brief = worker.last().unwrap();
    assert_eq!((brief.verification.as_str(), brief.changes.commits), ("could_not_run", 0));
    let why = brief.verification.note().unwrap();
    assert!(why.contains("1 uncommitted files") && why.contains("commit_leftovers"), "{why}");
    assert!(brief.changes.uncommitted > 0);

    // Files that the verification itself creates do not count.
    let committed = server.create_one(verified("write a.txt x\ncommit a")).await;
    server.until(&committed, "completed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_repository_path_works_from_mission_to_removal() {
    for name in ["new\nline", "-dash", "space ", "a:b", "quo\"te's", "ünï", "back\\slash", "trailing\n"] {
        let world = World::named(name);
        let server = world.server(Some("boss"));
        let mut verified = mission("odd", "write a.txt x\ncommit a\nwrite b.txt y");
        verified.verify_command = Some("test -e a.txt".to_owned());
        let id = server.create_one(verified).await;
        let other = server.create_one(mission("other", "write a.txt z\ncommit a")).await;
        for id in [&id, &other] {
            server.until(id, "completed").await;
        }
        let request = IntegrationRequest {
            verify_command: Some("test -e b.txt".to_owned()),
            ..IntegrationRequest::of(IntegrationSource::Worker(id.clone()))
        };
        let dry = IntegrationRequest { dry_run: true, ..request.clone() };
        let would = server.orchestrator.integrate(&server.boss, dry).await.unwrap();
        assert_eq!(would.status.as_str(), "would_merge", "{name:?}");
        let merged = server.orchestrator.integrate(&server.boss, request).await.unwrap();
        assert_eq!(merged.status.as_str(), "merged", "{name:?}: {merged:?}");
        let conflicts = IntegrationRequest::of(IntegrationSource::Worker(other.clone()));
        let conflicts = server.orchestrator.integrate(&server.boss, conflicts).await.unwrap();
        assert_eq!(conflicts.status.as_str(), "conflicts", "{name:?}");
        assert_eq!(world.git(&["show", "main:b.txt"]), "y", "{name:?}");
        let removed = remove(&server, &id, false, true).await;
        assert_eq!((removed.removed.len(), removed.kept.len()), (1, 0), "{name:?}: {removed:?}");
        let salvaged = remove(&server, &other, true, true).await;
        assert!(salvaged.removed[0].salvage_ref.is_some(), "{name:?}: {salvaged:?}");
    }
}

/// Checks a path that is not UTF-8, which the JSON of the state cannot represent.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn path_without_utf8_is_refused_with_the_reason() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use orchestrator_boss::backend::Backends;
    use orchestrator_boss::mission::hint::with_hints;
    use orchestrator_boss::orchestrator::{Orchestrator, Startup};

    let world = World::new();
    let odd = world.repo().parent().unwrap().join(OsStr::from_bytes(b"no\xfftext"));
    std::fs::rename(world.repo(), &odd).unwrap();
    let startup = Startup {
        settings: world.settings(),
        directory: odd.clone(),
        boss: None,
        program: PathBuf::from(env!("CARGO_BIN_EXE_orchestrator-boss")),
    };
    let error = Orchestrator::start(startup, Backends::with_custom(Vec::new())).err().expect("a refusal");
    let error = with_hints(&error);
    assert!(error.contains("not UTF-8") && error.contains("rename"), "{error}");
    std::fs::rename(&odd, world.repo()).unwrap();
}
