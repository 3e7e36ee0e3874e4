//! Work that is not on the worker's branch at its end. It is added to the branch where that is clearly correct,
//! otherwise named, and never reported as merged.

use std::path::PathBuf;

use orchestrator_boss::mission::outcome::{Changes, NotOnBranch};
use orchestrator_boss::orchestrator::{
    IntegrationAnswer, IntegrationRequest, IntegrationSource, RemovalRequest, RemovalTarget, RetryRequest,
};

use crate::support::git::git;
use crate::world::{Server, World, mission};

async fn changes(server: &Server, id: &str) -> Changes {
    server.orchestrator.get(id).await.unwrap().worker.last().expect("a settled attempt").changes.clone()
}

async fn integrate(server: &Server, id: &str, dry_run: bool) -> IntegrationAnswer {
    let request = IntegrationRequest { dry_run, ..IntegrationRequest::of(IntegrationSource::Worker(id.to_owned())) };
    server.orchestrator.integrate(&server.boss, request).await.unwrap()
}

async fn completed(server: &Server, script: &str) -> String {
    let id = server.create_one(mission("t", script)).await;
    server.until(&id, "completed").await;
    id
}

async fn directory(server: &Server, id: &str) -> PathBuf {
    server.orchestrator.get(id).await.unwrap().worker.mission.place.path().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_of_clear_origin_moves_onto_the_branch() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let endings = [
        // A killed git leaves its lock.
        ("lock", "write a.txt x\nrun touch $(git rev-parse --git-dir)/index.lock"),
        ("detached", "run git checkout -q --detach\nwrite a.txt x\ncommit a"),
        ("deleted", "write a.txt x\ncommit a\nrun git update-ref -d HEAD"),
        (
            "merge",
            "run git checkout -qb side\nwrite a.txt x\ncommit a\nrun git checkout -q - && git merge -q --no-ff --no-commit side && git branch -D -q side",
        ),
        (
            "pick",
            "run git checkout -qb side\nwrite a.txt x\ncommit a\nrun git checkout -q - && git cherry-pick -n side && git branch -D -q side",
        ),
    ];
    // The workers share one repository, so each uses its own branches and commits.
    let script = |title: &str, script: &str| {
        script.replace("side", &format!("side-{title}")).replace("a.txt x", &format!("a.txt {title}"))
    };
    let drafts = endings.iter().map(|(title, of)| mission(title, &script(title, of))).collect();
    let ids: Vec<String> = server.create(drafts).await.into_iter().map(Result::unwrap).collect();
    for (id, (title, _)) in ids.iter().zip(endings) {
        server.until(id, "completed").await;
        let changes = changes(&server, id).await;
        assert_eq!(changes.not_on_branch, [], "{id}");
        assert_eq!(world.git(&["show", &format!("orchestrator/{id}:a.txt")]), title, "{id}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_off_the_branch_is_never_called_merged() {
    let world = World::new();
    std::fs::write(world.repo().join(".gitignore"), "*.secret\n").unwrap();
    world.git(&["add", "."]);
    world.git(&["commit", "-qm", "rules"]);
    let server = world.server(Some("boss"));
    let conflict = "run git checkout -qb side HEAD\nwrite README side\ncommit s\nrun git checkout -q -\nwrite README mine\ncommit m";
    let endings = [
        (
            "merge",
            format!("{conflict}\nrun git merge -q side || true"),
            "merge that is not finished, with conflicts in README",
        ),
        ("pick", format!("{conflict}\nrun git cherry-pick side || true"), "cherry-pick that is not finished"),
        ("rebase", format!("{conflict}\nrun git rebase -q side || true"), "rebase that is not finished"),
        ("stash", "write README x\nrun git stash -q".to_owned(), "a stash"),
        ("nested", "run git init -q inner\nwrite inner/a.txt x".to_owned(), "a nested repository"),
        ("ignored", "write my.secret x".to_owned(), "files that git ignores: my.secret"),
        (
            "side",
            "run git checkout -q --detach\nwrite a.txt x\ncommit a\nrun git branch kept && git checkout -q -"
                .to_owned(),
            "1 commit on branch kept",
        ),
        ("orphan", "run git checkout -q --orphan fresh\nwrite a.txt x".to_owned(), "uncommitted files"),
    ];
    // The workers share one repository, so each uses its own branches and commits.
    let script = |title: &str, script: &str| {
        let script =
            script.replace("side", &format!("side-{title}")).replace("README mine", &format!("README {title}"));
        script.replace("commit s\n", &format!("commit s-{title}\n"))
    };
    let drafts = endings.iter().map(|(title, of, _)| mission(title, &script(title, of))).collect();
    let ids: Vec<String> = server.create(drafts).await.into_iter().map(Result::unwrap).collect();
    for (id, (_, _, what)) in ids.iter().zip(&endings) {
        server.until(id, "completed").await;
        let named = changes(&server, id).await.not_on_branch;
        assert!(named.iter().any(|part| part.what.contains(what)), "{id}: {what}: {named:#?}");
        for dry_run in [true, false] {
            let answer = integrate(&server, id, dry_run).await;
            assert!(answer.not_included.iter().any(|(of, part)| of == id && part.what.contains(what)), "{answer:#?}");
            assert!(!answer.status.as_str().starts_with("already"), "{id}: {}", answer.status.as_str());
        }
    }
    let all =
        RemovalRequest { target: RemovalTarget::AllIntegrated, repo_path: None, force: false, delete_branch: false };
    let answer = server.orchestrator.remove_worktree(&server.boss, all).await.unwrap();
    assert!(answer.removed.is_empty(), "{answer:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removal_keeps_ignored_files_named_in_outcome() {
    let world = World::new();
    std::fs::write(world.repo().join(".gitignore"), "*.secret\nnode_modules/\n").unwrap();
    world.git(&["add", "."]);
    world.git(&["commit", "-qm", "rules"]);
    let server = world.server(Some("boss"));
    let ends = [
        ("write my.secret x\nwrite a.txt x", Some("my.secret")),
        ("run echo 'hid*' >> $(git rev-parse --git-common-dir)/info/exclude\nwrite hidden.txt x", Some("hidden.txt")),
        ("run echo '*' > .gitignore\nwrite b.txt x", Some("b.txt")),
        ("run mkdir node_modules && touch node_modules/x", None),
    ];
    for (script, kept) in ends {
        let id = completed(&server, script).await;
        integrate(&server, &id, false).await;
        let target = RemovalTarget::Worker(id.clone());
        let request = RemovalRequest { target, repo_path: None, force: false, delete_branch: false };
        let answer = server.orchestrator.remove_worktree(&server.boss, request).await.unwrap();
        let salvage_ref = answer.removed[0].salvage_ref.clone();
        let files = salvage_ref.map(|name| world.git(&["ls-tree", "--name-only", &name]));
        let has = |name: &str| files.as_ref().is_some_and(|files| files.lines().any(|file| file == name));
        assert!(kept.map_or(files.is_none(), has), "{script}: {files:?} {answer:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worktree_created_by_the_worker_is_named() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let outside = world.shared("outside");
    let add = format!("run git worktree add -q -b feat-out {0} && cd {0}", outside.display());
    let id =
        completed(&server, &format!("{add} && echo o > o.txt && git add -A && git commit -qm o && echo u > u.txt"))
            .await;
    let changes = changes(&server, &id).await;
    let note = format!(
        "a worktree that appeared since its own was made, with 1 commit on branch feat-out and 1 uncommitted file: u.txt \
         ({}); its author is unknown",
        outside.display()
    );
    assert_eq!((changes.not_on_branch, changes.notes), (vec![], vec![note]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreadable_git_data_is_unknown_not_nothing() {
    let object = |of: &str| {
        format!(
            "run f=$(git rev-parse {of}); rm -f $(git rev-parse --git-common-dir)/objects/$(echo $f | cut -c1-2)/$(echo $f | cut -c3-)"
        )
    };
    let ends = [
        ("head", "run : > $(git rev-parse --git-dir)/HEAD".to_owned()),
        ("commondir", "run echo /nowhere > $(git rev-parse --git-dir)/commondir".to_owned()),
        ("commit", object("HEAD")),
        ("blob", object("HEAD:a.txt")),
        ("branch", "run : > $(git rev-parse --git-common-dir)/$(git symbolic-ref HEAD)".to_owned()),
    ];
    for (title, breaks) in ends {
        // The damage affects all workers of a repository, so each case has its own.
        let world = World::new();
        let server = world.server(Some("boss"));
        let id = completed(&server, &format!("write a.txt {title}\ncommit {title}\n{breaks}")).await;
        let named = changes(&server, &id).await.not_on_branch;
        let is_unknown = |part: &NotOnBranch| {
            part.what == "what could not be checked" && part.how_to_include.contains("check it by hand: cannot")
        };
        assert!(named.iter().any(is_unknown), "{title}: {named:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn integration_compares_branch_with_current_worktree() {
    let world = World::new();
    let mut settings = world.settings();
    settings.commit_leftovers = false;
    let server = world.server_with(Some("boss"), settings);
    let id = completed(&server, "write a.txt x").await;
    let named = changes(&server, &id).await.not_on_branch;
    assert!(
        named[0].what == "1 uncommitted file: a.txt" && named[0].how_to_include.contains("commit_leftovers"),
        "{named:#?}"
    );
    assert_eq!(integrate(&server, &id, false).await.status.as_str(), "incomplete");
    let path = directory(&server, &id).await;
    git(&path, &["add", "-A"]);
    git(&path, &["commit", "-qm", "a"]);
    let answer = integrate(&server, &id, false).await;
    assert_eq!((answer.status.as_str(), answer.not_included.len()), ("merged", 0), "{answer:#?}");
    assert_eq!(integrate(&server, &id, false).await.status.as_str(), "already_integrated");
    std::fs::write(path.join("later.txt"), "x").unwrap();
    let answer = integrate(&server, &id, false).await;
    assert_eq!(answer.status.as_str(), "incomplete", "{answer:#?}");
    assert!(answer.not_included[0].1.what.contains("later.txt"), "{answer:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_of_a_verification_are_not_work() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let mut draft = mission("t", "write a.txt x\ncommit a");
    draft.verify_command = Some("touch built".to_owned());
    let id = server.create_one(draft).await;
    server.until(&id, "completed").await;
    assert_eq!(changes(&server, &id).await.not_on_branch, []);
    assert_eq!(integrate(&server, &id, false).await.status.as_str(), "merged");
    assert_eq!(integrate(&server, &id, false).await.status.as_str(), "already_integrated");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replaced_git_directory_is_not_committed_or_verified() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let mut draft = mission("t", "write a.txt x\nrun rm .git && git init -q && git add -A");
    draft.verify_command = Some("true".to_owned());
    let id = server.create_one(draft).await;
    server.until(&id, "failed").await;
    let worker = server.orchestrator.get(&id).await.unwrap().worker;
    let last = worker.last().unwrap();
    assert_eq!((last.verification.as_str(), last.changes.commits), ("could_not_run", 0));
    assert!(last.changes.not_on_branch[0].how_to_include.contains("git worktree repair"), "{:#?}", last.changes);
    assert!(!git(&directory(&server, &id).await, &["status", "--porcelain"]).is_empty(), "nothing was committed there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreadable_worktree_is_never_called_merged() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let script = |title: &str| {
        format!("write {title} x\ncommit a\nwrite b.txt x\nrun echo junk > $(git rev-parse --git-dir)/index")
    };
    let mut verified = mission("verified", &script("verified"));
    verified.verify_command = Some("true".to_owned());
    for (draft, status) in [(mission("plain", &script("plain")), "completed"), (verified, "failed")] {
        let is_verified = draft.verify_command.is_some();
        let id = server.create_one(draft).await;
        server.until(&id, status).await;
        let worker = server.orchestrator.get(&id).await.unwrap().worker;
        let last = worker.last().unwrap();
        assert_eq!(last.changes.commits, 1, "{last:#?}");
        let [part] = last.changes.not_on_branch.as_slice() else { panic!("{last:#?}") };
        assert_eq!(part.what, "what could not be checked");
        assert!(part.how_to_include.contains("index file"), "{part:?}");
        if is_verified {
            assert_eq!(last.verification.as_str(), "could_not_run");
            assert!(last.verification.note().unwrap().contains("index file"), "{:?}", last.verification);
            continue;
        }
        for status in ["merged", "incomplete"] {
            let answer = integrate(&server, &id, false).await;
            assert_eq!((answer.status.as_str(), answer.not_included.len()), (status, 1), "{answer:#?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worktree_without_records_is_not_called_moved() {
    let world = World::new();
    let server = world.server(Some("boss"));
    for deleted in ["-r $(git rev-parse --git-dir)", ".git"] {
        let script = format!("write a.txt x\ncommit a\nwrite b.txt x\nrun rm {deleted}");
        let id = server.create_one(mission("t", &script)).await;
        server.until(&id, "failed").await;
        let worker = server.orchestrator.get(&id).await.unwrap().worker;
        let last = worker.last().unwrap();
        let failure = &last.failure.as_ref().unwrap().message;
        assert!(failure.contains("its worktree was disconnected from git"), "{failure}");
        let [part] = last.changes.not_on_branch.as_slice() else { panic!("{last:#?}") };
        assert_eq!((part.what.as_str(), last.changes.commits), ("the files in its worktree", 1));
        let remove = async |force| {
            let target = RemovalTarget::Worker(id.clone());
            let request = RemovalRequest { target, repo_path: None, force, delete_branch: false };
            server.orchestrator.remove_worktree(&server.boss, request).await.unwrap()
        };
        let kept = remove(false).await.kept;
        assert!(kept[0].why.to_string().contains("1 uncommitted or untracked files (b.txt)"), "{kept:?}");
        let salvage_ref = remove(true).await.removed[0].salvage_ref.clone().unwrap();
        assert_eq!(world.git(&["show", &format!("{salvage_ref}:b.txt")]), "x");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retry_reconnects_a_disconnected_worktree() {
    let world = World::new();
    let server = world.server(Some("boss"));
    for deleted in ["-r $(git rev-parse --git-dir)", ".git"] {
        let id = server.create_one(mission("t", &format!("write b.txt x\nrun rm {deleted}"))).await;
        server.until(&id, "failed").await;
        let retry = RetryRequest { prompt: Some("FAKE:\nwrite c.txt y".to_owned()), ..RetryRequest::default() };
        server.orchestrator.retry(&server.boss, &id, retry).await.unwrap();
        server.until(&id, "completed").await;
        assert_eq!(changes(&server, &id).await.not_on_branch, [], "{deleted}");
        let files = world.git(&["ls-tree", "--name-only", &format!("orchestrator/{id}")]);
        assert_eq!(files, "README\nb.txt\nc.txt");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_reset_by_a_verification_are_named() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let mut draft = mission("t", "write a.txt x\ncommit a");
    draft.verify_command = Some("touch built && git reset -q --hard HEAD~1".to_owned());
    let id = server.create_one(draft).await;
    server.until(&id, "failed").await;
    let named = changes(&server, &id).await.not_on_branch;
    let [part] = named.as_slice() else { panic!("{named:#?}") };
    assert!(part.what.contains("1 commit that only the reflog"), "{part:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn submodule_with_worktree_configuration_merges_only_work() {
    let world = World::new();
    let library = World::new();
    let url = library.repo().display().to_string();
    world.git(&["-c", "protocol.file.allow=always", "submodule", "add", "-q", &url, "sub"]);
    let sub = world.repo().join("sub");
    for setting in [["user.name", "x"], ["user.email", "x@localhost"], ["extensions.worktreeConfig", "true"]] {
        git(&sub, &[&["config"][..], &setting].concat());
    }
    let server = world.server_in(&sub, Some("boss"), world.settings());
    let id = completed(&server, "write mine.txt x").await;
    assert_eq!(integrate(&server, &id, false).await.status.as_str(), "merged");
    assert_eq!(git(&sub, &["ls-tree", "-r", "--name-only", "main"]), "README\nmine.txt");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worktree_of_a_worker_has_the_submodules() {
    let world = World::new();
    let library = World::new();
    let url = library.repo().display().to_string();
    world.git(&["-c", "protocol.file.allow=always", "submodule", "add", "-q", &url, "lib"]);
    world.git(&["commit", "-qm", "lib"]);
    let server = world.server(Some("boss"));
    let mut draft = mission("t", "run cp lib/README copied.txt\ncommit a");
    draft.verify_command = Some("test -e lib/README".to_owned());
    let id = server.create_one(draft).await;
    server.until(&id, "completed").await;
    assert_eq!(changes(&server, &id).await.not_on_branch, []);
    assert_eq!(integrate(&server, &id, false).await.status.as_str(), "merged");

    let script = "run cd lib && git -c user.name=x -c user.email=x@y commit -q --allow-empty -m mine";
    let id = completed(&server, script).await;
    let named = changes(&server, &id).await;
    assert_eq!(named.commits, 0, "no dangling gitlink");
    assert!(named.not_on_branch.iter().any(|part| part.what.contains("commits of a submodule")), "{named:#?}");
    assert_ne!(integrate(&server, &id, false).await.status.as_str(), "already_merged");
}
