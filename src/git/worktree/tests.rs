use super::*;
use crate::git::testing::{Fixture, at, commit, git, read, show};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicUsize, Ordering};

fn on_branch(branch: &str) -> Request {
    Request { branch: branch.to_owned(), ..Request::default() }
}

fn branches(fixture: &Fixture) -> String {
    fixture.git(&["for-each-ref", "--format=%(refname:lstrip=2)", "refs/heads"])
}

#[test]
fn folder_of_worktrees_is_always_private() {
    // Git itself makes the second one.
    for branch in ["usual", "un\u{fc}sual"] {
        let fixture = Fixture::new();
        let request = Request { folder: Some(fixture.beside("trees")), ..on_branch(branch) };
        let made = create(&fixture.repo, &request, None).unwrap();
        let mode = made.path.parent().unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{branch}");
    }
}

fn write_script(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn nested_branch_name_gets_a_worktree() {
    let fixture = Fixture::new();
    let made = create(&fixture.repo, &on_branch("feature/one"), None).unwrap();
    assert_eq!(
        made,
        Worktree {
            path: fixture.root().join(".orchestrator/worktrees/feature-one"),
            branch: "feature/one".to_owned(),
            base_commit: fixture.git(&["rev-parse", "main"]),
            created_branch: true,
            repo_path: fixture.root().to_owned(),
            copies: Vec::new(),
            not_copied: Vec::new(),
            seeded_at: None,
            seeded: None,
        }
    );
    assert_eq!(read(&made.path, "readme.txt"), "hello\n");
    for dir in [&made.path, fixture.root()] {
        assert_eq!(git(dir, &["status", "--porcelain"]), "");
    }
}

#[test]
fn colliding_names_get_separate_folders() {
    let fixture = Fixture::new();
    let one = create(&fixture.repo, &on_branch("a/b"), None).unwrap();
    let two = create(&fixture.repo, &on_branch("a-b"), None).unwrap();
    assert!(one.path.ends_with("a-b") && two.path.ends_with("a-b-2"));
}

#[test]
fn existing_branch_continues_at_its_commit() {
    let fixture = Fixture::new();
    fixture.git(&["checkout", "-qb", "work"]);
    let tip = fixture.commit("work.txt", "1\n");
    fixture.git(&["checkout", "-q", "main"]);
    let made = create(&fixture.repo, &on_branch("work"), None).unwrap();
    assert_eq!((made.created_branch, made.base_commit), (false, tip));
    assert_eq!(read(&made.path, "work.txt"), "1\n");
}

#[test]
fn concurrent_worktrees_start_from_a_remote_branch() {
    let fixture = Fixture::new();
    fixture.git(&["clone", "-q", "--bare", ".", "../origin.git"]);
    fixture.git(&["remote", "add", "origin", "../origin.git"]);
    fixture.git(&["fetch", "-q", "origin"]);
    let base = fixture.git(&["rev-parse", "origin/main"]);
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let request =
                    Request { base: Some("origin/main".to_owned()), ..on_branch(&format!("parallel/{number}")) };
                let made = create(&fixture.repo, &request, Some("a worker")).unwrap();
                assert_eq!(made.base_commit, base);
                assert_eq!(read(&made.path, "readme.txt"), "hello\n");
            });
        }
    });
    assert_eq!(list(&fixture.repo).unwrap().len(), 33);
    // No upstream was set: writing it is what git does unsafely.
    let settings = fixture.git(&["config", "--local", "--list"]);
    assert!(!settings.contains("branch.parallel"), "{settings}");
}

#[test]
fn concurrently_created_branch_leaves_nothing() {
    let fixture = Fixture::new();
    let request = Request { path: Some(PathBuf::from("in/new/folders")), ..on_branch("work") };
    let plan = check::check(&fixture.repo, &request).unwrap();
    fixture.git(&["branch", "work"]);
    let Err(error) = register(&fixture.repo, &plan, None) else { panic!("the branch belongs to another") };
    assert!(matches!(error, WorktreeError::BranchExists { .. }), "{error}");
    assert!(!fixture.root().join("in").exists());
    assert_eq!(branches(&fixture), "main\nwork");
}

#[test]
fn failed_checkout_leaves_nothing_and_takes_nothing() {
    let fixture = Fixture::new();
    fixture.commit(".gitattributes", "*.txt filter=broken\n");
    fixture.git(&["config", "filter.broken.smudge", "exit 1"]);
    fixture.git(&["config", "filter.broken.required", "true"]);
    fixture.git(&["branch", "existing"]);
    let empty = fixture.beside("empty");
    fs::create_dir(&empty).unwrap();
    for (branch, path) in [("new", "in/new/folders"), ("existing", "../empty")] {
        let request = Request { path: Some(PathBuf::from(path)), ..on_branch(branch) };
        let error = create(&fixture.repo, &request, Some("a worker")).unwrap_err();
        assert!(matches!(error, WorktreeError::Git(_)), "{error}");
    }
    assert_eq!(branches(&fixture), "existing\nmain");
    assert_eq!(list(&fixture.repo).unwrap().len(), 1);
    assert!(!fixture.root().join("in").exists());
    assert_eq!(empty.read_dir().unwrap().count(), 0);
}

#[test]
fn user_filters_and_sparse_checkout_are_applied() {
    let fixture = Fixture::new();
    fixture.write(".gitattributes", "*.up filter=upper\n");
    fixture.git(&["config", "filter.upper.smudge", "tr a-z A-Z"]);
    fixture.git(&["config", "filter.upper.clean", "tr A-Z a-z"]);
    fixture.write("far/away.txt", "x\n");
    fixture.commit("near/text.up", "loud\n");
    fixture.git(&["sparse-checkout", "set", "near"]);
    let made = create(&fixture.repo, &on_branch("work"), None).unwrap();
    assert_eq!(read(&made.path, "near/text.up"), "LOUD\n");
    assert_eq!(show(&made.path, "HEAD", "near/text.up"), "loud\n");
    assert!(!made.path.join("far").exists());
    assert_eq!(git(&made.path, &["status", "--porcelain"]), "");
}

#[test]
fn repository_hooks_and_fsmonitor_are_not_run() {
    let fixture = Fixture::new();
    let trace = fixture.beside("was-run");
    let script = format!("#!/bin/sh\necho \"$0\" >> '{}'\n", trace.display());
    let hooks = fixture.beside("hooks");
    fs::create_dir(&hooks).unwrap();
    for name in ["post-checkout", "post-index-change", "reference-transaction", "fsmonitor"] {
        write_script(&hooks.join(name), &script);
    }
    fixture.git(&["config", "core.hooksPath", hooks.to_str().unwrap()]);
    let fsmonitor = hooks.join("fsmonitor");
    fixture.git(&["config", "core.fsmonitor", fsmonitor.to_str().unwrap()]);
    // The trap works: git of its own would run them.
    let plain =
        std::process::Command::new("git").args(["status", "--porcelain"]).current_dir(fixture.root()).output().unwrap();
    assert!(plain.status.success() && trace.exists());
    fs::remove_file(&trace).unwrap();
    let made = create(&fixture.repo, &on_branch("work"), None).unwrap();
    commit(&made.path, "a.txt", "a\n");
    crate::git::tree_state(&at(&made.path)).unwrap();
    assert!(!trace.exists(), "{}", fs::read_to_string(&trace).unwrap());
}

#[test]
fn sha256_and_reftable_repositories_get_worktrees() {
    for option in ["--object-format=sha256", "--ref-format=reftable"] {
        let fixture = Fixture::empty(&[option]);
        fixture.commit("readme.txt", "hello\n");
        let made = create(&fixture.repo, &on_branch("work"), None).unwrap();
        assert_eq!(read(&made.path, "readme.txt"), "hello\n", "{option}");
    }
}

#[test]
fn bare_repository_gets_worktrees() {
    let fixture = Fixture::new();
    let bare = fixture.beside("bare.git");
    fixture.git(&["clone", "-q", "--bare", ".", bare.to_str().unwrap()]);
    let repo = Repository::discover(&bare, &crate::git::Trust::everything()).unwrap().unwrap();
    create(&repo, &on_branch("one"), None).unwrap();
    let beside = Request { path: Some(PathBuf::from("../two")), ..on_branch("two") };
    let made = create(&repo, &beside, None).unwrap();
    assert_eq!(read(&made.path, "readme.txt"), "hello\n");
    assert_eq!(list(&repo).unwrap().len(), 3);
}

#[test]
fn nested_worktree_is_invisible_in_the_main_one() {
    let fixture = Fixture::new();
    let request = Request { path: Some(PathBuf::from("sub/odd [name]* here")), ..on_branch("work") };
    create(&fixture.repo, &request, None).unwrap();
    assert_eq!(fixture.git(&["status", "--porcelain"]), "");
}

#[test]
fn worktree_lock_is_listed_and_released() {
    let fixture = Fixture::new();
    let made = create(&fixture.repo, &on_branch("work"), Some("worker w-1")).unwrap();
    let reason = || list(&fixture.repo).unwrap()[1].locked.clone();
    assert_eq!(reason().as_deref(), Some("worker w-1"));
    lock(&fixture.repo, &made.path, "worker w-1").unwrap();
    for _ in 0..2 {
        unlock(&fixture.repo, &made.path).unwrap();
        assert_eq!(reason(), None);
    }
    lock(&fixture.repo, &made.path, "worker w-2").unwrap();
    assert_eq!(reason().as_deref(), Some("worker w-2"));
    let error = lock(&fixture.repo, Path::new("nothing"), "x").unwrap_err();
    assert!(matches!(error, WorktreeError::NotAWorktree { .. }));
}

#[test]
fn concurrent_creation_of_a_worktree_is_awaited() {
    let fixture = Fixture::new();
    let half = fixture.repo.common_dir.join("worktrees/half");
    fs::create_dir_all(&half).unwrap();
    fs::write(half.join("gitdir"), "/nowhere/.git\n").unwrap();
    fs::write(half.join("HEAD"), "ref: refs/heads/half\n").unwrap();
    fs::write(half.join("commondir"), "").unwrap();
    let plain = fixture.repo.read().args(["worktree", "list"]).run();
    assert!(plain.is_err(), "the trap is set: git fails at it");
    thread::scope(|scope| {
        let listed = scope.spawn(|| list(&fixture.repo).unwrap().len());
        fs::write(half.join("commondir"), "../..\n").unwrap();
        assert_eq!(listed.join().unwrap(), 2);
    });
}
