use super::*;
use crate::git::testing::{Fixture, commit, git, show, write};
use crate::git::worktree::{create, lock};
use crate::git::{Request, Worktree};
use std::fs;

fn worktree(fixture: &Fixture) -> Worktree {
    let request = Request { branch: "work".to_owned(), ..Request::default() };
    create(&fixture.repo, &request, None).unwrap()
}

fn removal(made: &Worktree) -> Remove {
    Remove { path: made.path.clone(), salvage_name: "w-1".to_owned(), copies: made.copies.clone(), ..Remove::default() }
}

fn forced(made: &Worktree) -> Remove {
    Remove { force: true, ..removal(made) }
}

fn with_branch(made: &Worktree) -> Remove {
    Remove { delete_branch: true, ..removal(made) }
}

fn has_branch(fixture: &Fixture, branch: &str) -> bool {
    branch_commit(fixture.root(), branch).unwrap().is_some()
}

#[test]
fn a_clean_worktree_goes_and_its_commits_stay() {
    let fixture = Fixture::new();
    let made = worktree(&fixture);
    let tip = commit(&made.path, "a.txt", "a\n");
    let removed = remove(&fixture.repo, &removal(&made)).unwrap();
    assert_eq!(
        removed,
        Removed { path: made.path.clone(), branch: Some("work".to_owned()), branch_deleted: false, salvage_ref: None }
    );
    assert!(!made.path.exists());
    assert_eq!(fixture.git(&["rev-parse", "work"]), tip);
    let error = remove(&fixture.repo, &removal(&made)).unwrap_err();
    assert!(error.to_string().contains("find a worktree"), "{error}");
}

#[test]
fn dirty_is_refused_then_forced_with_equal_content() {
    let fixture = Fixture::new();
    let made = worktree(&fixture);
    write(&made.path, "readme.txt", "modified\n");
    write(&made.path, "new/file.txt", "untracked\n");
    let error = remove(&fixture.repo, &removal(&made)).unwrap_err();
    let RemoveError::Dirty { count, samples, .. } = error else {
        panic!("{error}");
    };
    assert_eq!((count, samples.len()), (2, 2));
    assert!(made.path.join("new/file.txt").exists());
    let kept = remove(&fixture.repo, &forced(&made)).unwrap().salvage_ref;
    let commit = kept.unwrap().commit;
    assert!(!made.path.exists());
    assert_eq!(show(fixture.root(), &commit, "readme.txt"), "modified\n");
    assert_eq!(show(fixture.root(), &commit, "new/file.txt"), "untracked\n");
}

#[test]
fn ignored_files_go_but_changed_copies_count_as_work() {
    let fixture = Fixture::new();
    fixture.write(".worktreeinclude", ".env\n");
    fixture.commit(".gitignore", ".env\nbuild/\n");
    fixture.write(".env", "A=1\n");
    let made = worktree(&fixture);
    write(&made.path, "build/output", "x\n");
    write(&made.path, ".env", "A=2\n");
    let error = remove(&fixture.repo, &removal(&made)).unwrap_err();
    let RemoveError::Dirty { samples, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(samples, [".env"]);
    write(&made.path, ".env", "A=1\n");
    remove(&fixture.repo, &removal(&made)).unwrap();
}

#[test]
fn a_detached_head_off_every_branch_is_work() {
    let fixture = Fixture::new();
    let made = worktree(&fixture);
    git(&made.path, &["checkout", "-q", "--detach"]);
    let head = commit(&made.path, "a.txt", "a\n");
    let error = remove(&fixture.repo, &removal(&made)).unwrap_err();
    assert!(matches!(error, RemoveError::Detached { .. }), "{error}");
    let removed = remove(&fixture.repo, &forced(&made)).unwrap();
    assert_eq!(removed.salvage_ref.unwrap().commit, head);
}

#[test]
fn a_detached_head_is_kept_although_its_folder_is_gone() {
    let fixture = Fixture::new();
    let made = worktree(&fixture);
    git(&made.path, &["checkout", "-q", "--detach"]);
    let head = commit(&made.path, "a.txt", "a\n");
    fs::remove_dir_all(&made.path).unwrap();
    let error = remove(&fixture.repo, &removal(&made)).unwrap_err();
    assert!(matches!(error, RemoveError::Detached { .. }), "{error}");
    let removed = remove(&fixture.repo, &forced(&made)).unwrap();
    assert_eq!(removed.salvage_ref.unwrap().commit, head);
    assert_eq!(list(&fixture.repo).unwrap().len(), 1);
}

#[test]
fn commits_of_a_submodule_are_work() {
    let fixture = Fixture::new();
    fixture.git(&["clone", "-q", "--bare", ".", "../library.git"]);
    let allow = "protocol.file.allow=always";
    let add = ["submodule", "--quiet", "add", "../library.git", "lib"];
    fixture.git(&[&["-c", allow][..], &add].concat());
    fixture.git(&["commit", "-qm", "library"]);
    let made = worktree(&fixture);
    let init = ["-c", allow, "submodule", "--quiet", "update", "--init"];
    git(&made.path, &init);
    let lib = made.path.join("lib");
    let identity = ["-c", "user.name=L", "-c", "user.email=l@example.org"];
    let empty = ["commit", "-q", "--allow-empty", "-m", "only here"];
    git(&lib, &[&identity[..], &empty].concat());
    let in_library = git(&lib, &["rev-parse", "HEAD"]);
    commit(&made.path, "a.txt", "the new library is committed too\n");
    let error = remove(&fixture.repo, &removal(&made)).unwrap_err();
    let RemoveError::SubmoduleCommits { repositories, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(repositories, ["lib"]);
    let kept = remove(&fixture.repo, &forced(&made)).unwrap().salvage_ref;
    let reached = fixture.git(&["rev-list", &kept.unwrap().name]);
    assert!(reached.contains(&in_library));
}

#[test]
fn a_clean_submodule_does_not_stop_a_removal() {
    let fixture = Fixture::new();
    fixture.git(&["clone", "-q", "--bare", ".", "../library.git"]);
    let allow = "protocol.file.allow=always";
    let add = ["submodule", "--quiet", "add", "../library.git", "lib"];
    fixture.git(&[&["-c", allow][..], &add].concat());
    fixture.git(&["commit", "-qm", "library"]);
    let made = worktree(&fixture);
    let init = ["-c", allow, "submodule", "--quiet", "update", "--init"];
    git(&made.path, &init);
    remove(&fixture.repo, &removal(&made)).unwrap();
    assert!(!made.path.exists());
}

#[test]
fn a_branch_with_unmerged_commits_is_deleted_only_by_force() {
    let fixture = Fixture::new();
    let made = worktree(&fixture);
    let tip = commit(&made.path, "a.txt", "a\n");
    let error = remove(&fixture.repo, &with_branch(&made)).unwrap_err();
    let RemoveError::Unmerged { commits, into, .. } = error else {
        panic!("{error}");
    };
    assert_eq!((commits, into.as_str()), (1, "main"));
    assert!(made.path.exists() && has_branch(&fixture, "work"));
    let force = Remove { force: true, ..with_branch(&made) };
    let removed = remove(&fixture.repo, &force).unwrap();
    assert_eq!(removed.salvage_ref.unwrap().commit, tip);
    assert!(removed.branch_deleted && !has_branch(&fixture, "work"));
}

#[test]
fn merged_squashed_and_picked_branches_may_go() {
    let integrations: [&[&[&str]]; 4] = [
        &[&["merge", "-q", "work"]],
        &[&["merge", "-q", "--squash", "work"], &["commit", "-qm", "s"]],
        &[&["cherry-pick", "work~1", "work"]],
        &[
            &["merge", "-q", "--squash", "work"],
            &["commit", "-qm", "s"],
            &["rm", "-q", "a.txt"],
            &["commit", "-qm", "and changed since"],
        ],
    ];
    for steps in integrations {
        let fixture = Fixture::new();
        let made = worktree(&fixture);
        commit(&made.path, "a.txt", "a\n");
        commit(&made.path, "b.txt", "b\n");
        fixture.commit("main.txt", "meanwhile\n");
        for step in steps {
            fixture.git(step);
        }
        let removed = remove(&fixture.repo, &with_branch(&made)).unwrap();
        assert!(removed.branch_deleted, "{steps:?}");
        assert!(!has_branch(&fixture, "work"), "{steps:?}");
    }
}

#[test]
fn a_locked_and_the_main_worktree_stay_by_force_too() {
    let fixture = Fixture::new();
    let made = worktree(&fixture);
    lock(&fixture.repo, &made.path, "worker w-1 lives here").unwrap();
    let error = remove(&fixture.repo, &forced(&made)).unwrap_err();
    assert!(error.to_string().contains("w-1 lives here"), "{error}");
    let main = Remove { path: fixture.root().to_owned(), ..forced(&made) };
    let error = remove(&fixture.repo, &main).unwrap_err();
    assert!(matches!(error, RemoveError::MainWorktree { .. }));
    let inner = Remove { path: fixture.beside("nothing"), ..forced(&made) };
    let error = remove(&fixture.repo, &inner).unwrap_err();
    assert!(error.to_string().contains("find a worktree"), "{error}");
    assert!(made.path.exists());
}
