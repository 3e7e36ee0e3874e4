use super::*;
use crate::git::Worktree;
use crate::git::command::Git;
use crate::git::picked::is_picked_or_squashed;
use crate::git::testing::{Fixture, at, check_out_submodules, commit, git, identify, show, write};
use crate::git::worktree::lock;
use std::fs;

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
    branch_commit(&at(fixture.root()), branch).unwrap().is_some()
}

#[test]
fn clean_worktree_is_removed_and_commits_kept() {
    let fixture = Fixture::new();
    let made = fixture.worktree("work");
    let tip = commit(&made.path, "a.txt", "a\n");
    let removed = remove(&fixture.repo, &removal(&made)).unwrap();
    assert_eq!(
        removed,
        Removed {
            path: made.path.clone(),
            branch: Some("work".to_owned()),
            branch_deleted: false,
            salvage_ref: None,
            note: None
        }
    );
    assert!(!made.path.exists());
    assert_eq!(fixture.git(&["rev-parse", "work"]), tip);
    let error = remove(&fixture.repo, &removal(&made)).unwrap_err();
    assert!(error.to_string().contains("find a worktree"), "{error}");
}

#[test]
fn dirty_is_refused_then_forced_with_equal_content() {
    let fixture = Fixture::new();
    let made = fixture.worktree("work");
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
fn changed_copies_are_work_but_ignored_files_not() {
    let fixture = Fixture::new();
    fixture.write(".worktreeinclude", ".env\n");
    fixture.commit(".gitignore", ".env\nbuild/\n");
    fixture.write(".env", "A=1\n");
    let made = fixture.worktree("work");
    write(&made.path, "build/output", "x\n");
    write(&made.path, ".env", "A=2\n");
    let error = remove(&fixture.repo, &removal(&made)).unwrap_err();
    let RemoveError::Dirty { samples, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(samples, [".env"]);
    // It is work also to a removal by name, which does not know what was copied.
    let error = remove(&fixture.repo, &Remove { copies: Vec::new(), ..removal(&made) }).unwrap_err();
    assert!(matches!(&error, RemoveError::Dirty { samples, .. } if samples == &[".env"]), "{error}");
    write(&made.path, ".env", "A=1\n");
    remove(&fixture.repo, &removal(&made)).unwrap();
}

#[test]
fn detached_head_off_every_branch_is_work() {
    for is_folder_gone in [false, true] {
        let fixture = Fixture::new();
        let made = fixture.worktree("work");
        git(&made.path, &["checkout", "-q", "--detach"]);
        let head = commit(&made.path, "a.txt", "a\n");
        if is_folder_gone {
            fs::remove_dir_all(&made.path).unwrap();
        }
        let error = remove(&fixture.repo, &removal(&made)).unwrap_err();
        assert!(matches!(error, RemoveError::Detached { .. }), "{error}");
        let removed = remove(&fixture.repo, &forced(&made)).unwrap();
        assert_eq!(removed.salvage_ref.unwrap().commit, head);
        assert_eq!(list(&fixture.repo).unwrap().len(), 1);
    }
}

#[test]
fn commits_of_a_submodule_are_work() {
    let fixture = Fixture::new();
    fixture.add_library();
    let made = fixture.worktree("work");
    check_out_submodules(&made.path);
    let lib = made.path.join("lib");
    identify(&lib);
    let in_library = commit(&lib, "lib.txt", "only here\n");
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
fn clean_submodule_does_not_stop_a_removal() {
    let fixture = Fixture::new();
    fixture.add_library();
    let made = fixture.worktree("work");
    check_out_submodules(&made.path);
    remove(&fixture.repo, &removal(&made)).unwrap();
    assert!(!made.path.exists());
    // Nor does one that was taken out: git keeps its repository.
    let made = fixture.worktree("without");
    check_out_submodules(&made.path);
    git(&made.path, &["rm", "-q", "lib"]);
    git(&made.path, &["commit", "-qm", "without the library"]);
    remove(&fixture.repo, &removal(&made)).unwrap();
    assert!(!made.path.exists());
}

#[test]
fn unmerged_branch_is_deleted_only_by_force() {
    let fixture = Fixture::new();
    let made = fixture.worktree("work");
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
fn integrated_branches_may_be_deleted() {
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
        let made = fixture.worktree("work");
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
fn branch_of_removed_worktree_is_checked_like_others() {
    let fixture = Fixture::new();
    let made = fixture.worktree("work");
    commit(&made.path, "a.txt", "a\n");
    remove(&fixture.repo, &removal(&made)).unwrap();
    let request = Remove { branch: Some("work".to_owned()), ..with_branch(&made) };
    let refused = |request: &Remove| check_merged(&fixture.repo, request, "").unwrap_err();
    assert!(matches!(refused(&request), RemoveError::Unmerged { .. }));
    fixture.git(&["merge", "-q", "work"]);
    check_merged(&fixture.repo, &request, "").unwrap();

    fixture.git(&["worktree", "add", "-q", "../mine", "work"]);
    let used = [refused(&request), remove(&fixture.repo, &request).unwrap_err()];
    let forced = remove(&fixture.repo, &Remove { force: true, ..request.clone() }).unwrap_err();
    for error in used.into_iter().chain([forced]) {
        assert!(matches!(error, RemoveError::BranchInUse { .. }), "{error}");
    }
    fixture.git(&["worktree", "remove", "../mine"]);
    assert!(remove(&fixture.repo, &request).unwrap().branch_deleted);
    assert!(!has_branch(&fixture, "work"));
    check_merged(&fixture.repo, &request, "").unwrap();
}

#[test]
fn force_keeps_locked_and_main_worktrees() {
    let fixture = Fixture::new();
    let made = fixture.worktree("work");
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

/// All that the answer's ref reaches.
fn reached(fixture: &Fixture, kept: &Removed) -> String {
    let name = &kept.salvage_ref.as_ref().expect("something was kept").name;
    fixture.git(&["rev-list", name])
}

#[test]
fn reflog_only_commits_are_always_salvaged() {
    let fixture = Fixture::new();
    let made = fixture.worktree("work");
    let reset = commit(&made.path, "a.txt", "reset away\n");
    git(&made.path, &["reset", "-q", "--hard", "HEAD~1"]);
    let amended = commit(&made.path, "b.txt", "amended\n");
    git(&made.path, &["commit", "-q", "--amend", "-m", "another message"]);
    let removed = remove(&fixture.repo, &removal(&made)).unwrap();
    fixture.git(&["reflog", "expire", "--expire=now", "--all"]);
    fixture.git(&["gc", "-q", "--prune=now"]);
    let reached = reached(&fixture, &removed);
    assert!(reached.contains(&reset) && reached.contains(&amended), "{reached}");
}

#[test]
fn only_reset_commits_need_a_salvage_ref() {
    let fixture = Fixture::new();
    let made = fixture.worktree("work");
    commit(&made.path, "a.txt", "a\n");
    fixture.git(&["merge", "-q", "--squash", "work"]);
    fixture.git(&["commit", "-qm", "squashed"]);
    let removed = remove(&fixture.repo, &with_branch(&made)).unwrap();
    assert_eq!((removed.branch_deleted, removed.salvage_ref), (true, None));

    let made = fixture.worktree("work");
    let lost = commit(&made.path, "b.txt", "b\n");
    git(&made.path, &["reset", "-q", "--hard", "HEAD~1"]);
    let removed = remove(&fixture.repo, &with_branch(&made)).unwrap();
    assert!(removed.branch_deleted && reached(&fixture, &removed).contains(&lost));
}

#[test]
fn changes_behind_marks_are_work() {
    let fixture = Fixture::new();
    fixture.commit("skipped.txt", "0\n");
    for (mark, file) in [("--assume-unchanged", "readme.txt"), ("--skip-worktree", "skipped.txt")] {
        let made = fixture.worktree("work");
        git(&made.path, &["update-index", mark, file]);
        write(&made.path, file, "changed behind a mark\n");
        assert_eq!(git(&made.path, &["status", "--porcelain"]), "");
        let error = remove(&fixture.repo, &removal(&made)).unwrap_err();
        assert!(matches!(&error, RemoveError::Dirty { samples, .. } if samples == &[file]), "{error}");
        let kept =
            remove(&fixture.repo, &Remove { delete_branch: true, ..forced(&made) }).unwrap().salvage_ref.unwrap();
        assert_eq!(show(fixture.root(), &kept.name, file), "changed behind a mark\n");
    }
}

#[test]
fn sparse_checkout_is_no_change() {
    let fixture = Fixture::new();
    fixture.write("out/side.txt", "x\n");
    fixture.commit("in/side.txt", "x\n");
    let made = fixture.worktree("work");
    git(&made.path, &["sparse-checkout", "set", "in"]);
    assert!(!made.path.join("out").exists());
    assert_eq!(remove(&fixture.repo, &removal(&made)).unwrap().salvage_ref, None);
}

#[test]
fn locally_ignored_work_is_always_salvaged() {
    let fixture = Fixture::new();
    let made = fixture.worktree("work");
    write(&made.path, ".gitignore", "*\n");
    write(&made.path, "deep/hidden.txt", "hidden\n");
    git(&made.path, &["init", "-q", "inner"]);
    write(&made.path, "inner/too.txt", "hidden in a repository\n");
    assert_eq!(git(&made.path, &["status", "--porcelain"]), "");
    let removed = remove(&fixture.repo, &removal(&made)).unwrap();
    let kept = removed.salvage_ref.unwrap();
    assert_eq!(show(fixture.root(), &kept.name, "deep/hidden.txt"), "hidden\n");
    let parent = format!("{}^2", kept.name);
    assert_eq!(show(fixture.root(), &parent, "too.txt"), "hidden in a repository\n");
}

#[test]
fn staged_changes_and_conflict_sides_are_kept() {
    let fixture = Fixture::new();
    fixture.commit("both.txt", "0\n");
    let made = fixture.worktree("work");
    commit(&made.path, "readme.txt", "work\n");
    git(&made.path, &["rm", "-q", "both.txt"]);
    git(&made.path, &["commit", "-qm", "rm"]);
    fixture.commit("both.txt", "main\n");
    fixture.commit("readme.txt", "main\n");
    assert!(!Git::write(&at(&made.path)).args(["merge", "-q", "main"]).succeeds().unwrap());
    std::fs::remove_file(made.path.join("both.txt")).unwrap();
    write(&made.path, "staged.txt", "only staged\n");
    git(&made.path, &["add", "staged.txt"]);
    write(&made.path, "staged.txt", "changed after\n");
    let kept = remove(&fixture.repo, &forced(&made)).unwrap().salvage_ref.unwrap().name;
    let trees: Vec<String> = fixture
        .git(&["rev-parse", &format!("{kept}^@")])
        .lines()
        .map(|parent| fixture.git(&["ls-tree", "-r", "--name-only", parent]))
        .collect();
    let state = trees.iter().position(|tree| tree.contains("operation/MERGE_HEAD")).expect("the merge's state") + 1;
    assert!(trees[state - 1].contains("conflicts/3/both.txt"), "{trees:?}");
    assert_eq!(show(fixture.root(), &format!("{kept}^{state}"), "conflicts/2/readme.txt"), "work\n");
    assert_eq!(show(fixture.root(), &format!("{kept}^3"), "staged.txt"), "only staged\n");
    assert_eq!(show(fixture.root(), &kept, "staged.txt"), "changed after\n");
}

#[test]
fn unfinished_rebase_is_work() {
    let fixture = Fixture::new();
    let made = fixture.worktree("work");
    commit(&made.path, "a.txt", "a\n");
    Git::write(&at(&made.path))
        .env("GIT_SEQUENCE_EDITOR", "sed -i.bak '1i break'")
        .args(["rebase", "-q", "-i", "main"])
        .run()
        .unwrap();
    let error = remove(&fixture.repo, &removal(&made)).unwrap_err();
    assert!(error.to_string().contains("a rebase is not finished"), "{error}");
    let kept = remove(&fixture.repo, &forced(&made)).unwrap().salvage_ref.unwrap().name;
    let listed = fixture.git(&["ls-tree", "-r", "--name-only", &format!("{kept}^2")]);
    assert!(listed.contains("operation/rebase-merge/git-rebase-todo"), "{listed}");
}

#[test]
fn staged_changes_of_missing_folder_are_kept() {
    let fixture = Fixture::new();
    let made = fixture.worktree("work");
    write(&made.path, "staged.txt", "only in the index\n");
    git(&made.path, &["add", "staged.txt"]);
    let lost = commit(&made.path, "b.txt", "b\n");
    git(&made.path, &["reset", "-q", "--soft", "HEAD~1"]);
    fs::remove_dir_all(&made.path).unwrap();
    let removed = remove(&fixture.repo, &removal(&made)).unwrap();
    assert!(reached(&fixture, &removed).contains(&lost));
    assert_eq!(
        show(fixture.root(), &format!("{}^2", removed.salvage_ref.unwrap().name), "staged.txt"),
        "only in the index\n"
    );
}

#[test]
fn force_keeps_parent_and_disconnected_worktrees() {
    let fixture = Fixture::new();
    let made = fixture.worktree("work");
    git(&made.path, &["worktree", "add", "-q", "-b", "inner", "deep/inner"]);
    write(&made.path, "deep/inner/a.txt", "a\n");
    let error = remove(&fixture.repo, &forced(&made)).unwrap_err();
    assert!(matches!(error, RemoveError::HoldsWorktree { .. }), "{error}");
    git(&made.path, &["worktree", "remove", "--force", "deep/inner"]);
    write(&made.path, "work.txt", "work\n");
    let link = fs::read(made.path.join(".git")).unwrap();
    fs::remove_file(made.path.join(".git")).unwrap();
    for broken in ["gone", "another repository"] {
        if broken == "another repository" {
            git(&made.path, &["init", "-q"]);
        }
        let error = remove(&fixture.repo, &forced(&made)).unwrap_err();
        assert!(matches!(error, RemoveError::Broken { .. }), "{broken}: {error}");
    }
    fs::remove_dir_all(made.path.join(".git")).unwrap();
    fs::write(made.path.join(".git"), link).unwrap();
    let kept = remove(&fixture.repo, &forced(&made)).unwrap().salvage_ref.unwrap();
    assert_eq!(show(fixture.root(), &kept.name, "work.txt"), "work\n");
}

#[test]
fn nested_and_removed_submodules_are_kept() {
    let fixture = Fixture::new();
    let allow = ["-c", "protocol.file.allow=always"];
    fixture.git(&["clone", "-q", "--bare", ".", "../inner.git"]);
    fixture.git(&["clone", "-q", "--bare", ".", "../library.git"]);
    fixture.git(&["clone", "-q", "../library.git", "../library"]);
    let library = fixture.beside("library");
    for dir in [fixture.root(), &library] {
        let inner = if dir == library { "../inner.git" } else { "../library.git" };
        identify(dir);
        git(dir, &[&allow[..], &["submodule", "--quiet", "add", inner, "sub"]].concat());
        if dir == library {
            git(dir, &["commit", "-qm", "inner"]);
            git(dir, &["push", "-q", "origin", "main"]);
        }
    }
    git(&fixture.root().join("sub"), &["pull", "-q"]);
    fixture.git(&["add", "sub"]);
    fixture.git(&["commit", "-qm", "library"]);
    let made = fixture.worktree("work");
    check_out_submodules(&made.path);
    let (sub, inner) = (made.path.join("sub"), made.path.join("sub/sub"));
    identify(&sub);
    identify(&inner);
    let deep = commit(&inner, "deep.txt", "committed two levels down\n");
    git(&inner, &["reset", "-q", "--hard", "HEAD~1"]);
    write(&inner, "dirty.txt", "uncommitted two levels down\n");
    git(&sub, &["checkout", "-q", "--detach"]);
    let middle = commit(&sub, "middle.txt", "m\n");
    let error = remove(&fixture.repo, &removal(&made)).unwrap_err();
    assert!(error.to_string().contains("sub"), "{error}");
    git(&made.path, &["rm", "-q", "-f", "sub"]);
    git(&made.path, &["commit", "-qm", "without the library"]);
    assert!(!sub.join(".git").exists());
    let error = remove(&fixture.repo, &removal(&made)).unwrap_err();
    assert!(matches!(error, RemoveError::SubmoduleCommits { .. }), "{error}");
    let removed = remove(&fixture.repo, &forced(&made)).unwrap();
    let reached = reached(&fixture, &removed);
    assert!(reached.contains(&middle) && reached.contains(&deep), "{reached}");
}

#[test]
fn worktree_of_another_repository_is_not_called_moved() {
    let (fixture, other) = (Fixture::new(), Fixture::new());
    let place = fixture.root().with_extension("worktrees").join("w-1");
    let similar = fixture.beside("other.worktrees").join("w-1");
    for (fixture, place) in [(&fixture, &place), (&other, &similar)] {
        fixture.git(&["worktree", "add", "-q", "-b", "work", place.to_str().unwrap()]);
    }
    fs::remove_dir_all(&place).unwrap();
    let request = Remove { path: place, salvage_name: "w-1".into(), ..Remove::default() };
    remove(&fixture.repo, &request).unwrap();
    assert!(similar.join("readme.txt").exists());
}

#[test]
fn worktree_of_moved_repository_is_not_called_removed() {
    for inside in [true, false] {
        let fixture = Fixture::new();
        let place = if inside {
            fixture.root().join(".orchestrator/worktrees/w-1")
        } else {
            fixture.root().with_extension("worktrees").join("w-1")
        };
        fixture.git(&["worktree", "add", "-q", "-b", "work", place.to_str().unwrap()]);
        let now = fixture.beside("renamed");
        fs::rename(fixture.root(), &now).unwrap();
        let moved =
            if inside { now.join(".orchestrator/worktrees/w-1") } else { now.with_extension("worktrees").join("w-1") };
        if !inside {
            fs::rename(place.parent().unwrap(), moved.parent().unwrap()).unwrap();
        }
        let repo = Repository::discover(&now, &crate::git::Trust::everything()).unwrap().unwrap();
        for force in [false, true] {
            let request = Remove {
                path: place.clone(),
                force,
                salvage_name: "w-1".into(),
                branch: Some("work".into()),
                ..Remove::default()
            };
            let refused = remove(&repo, &request).unwrap_err();
            assert!(matches!(&refused, RemoveError::Moved { now, .. } if *now == moved), "{refused}");
        }
        assert!(moved.join("readme.txt").exists());
        git(&now, &["worktree", "repair", moved.to_str().unwrap()]);
        let request = Remove { path: moved.clone(), salvage_name: "w-1".into(), ..Remove::default() };
        assert_eq!(remove(&repo, &request).unwrap().note, None);
        assert!(!moved.exists());
    }
}

#[test]
fn removal_reports_a_missing_folder() {
    let fixture = Fixture::new();
    let place = fixture.beside("gone");
    fixture.git(&["worktree", "add", "-q", "-b", "work", place.to_str().unwrap()]);
    fs::remove_dir_all(&place).unwrap();
    let request = Remove { path: place, salvage_name: "gone".into(), ..Remove::default() };
    let removed = remove(&fixture.repo, &request).unwrap();
    assert!(removed.note.unwrap().contains("was not there"));
}

#[test]
fn squash_check_leaves_no_object_in_the_repository() {
    let fixture = Fixture::new();
    let made = fixture.worktree("work");
    commit(&made.path, "readme.txt", "theirs\n");
    fixture.git(&["merge", "-q", "--squash", "work"]);
    fixture.git(&["commit", "-qm", "squashed"]);
    fixture.commit("readme.txt", "ours\n");
    let objects = || fixture.git(&["count-objects", "-v"]);
    let before = objects();
    let tip = fixture.git(&["rev-parse", "work"]);
    assert!(is_integrated(&fixture.repo, &tip, "main").unwrap());
    assert!(is_picked_or_squashed(&fixture.repo, &tip, "main").unwrap());
    assert_eq!(objects(), before);
}

#[test]
fn ignored_files_that_an_outcome_named_are_kept() {
    let fixture = Fixture::new();
    fixture.commit(".gitignore", "tmp/\n*.secret\nnode_modules/\n");
    let made = fixture.worktree("work");
    for path in ["tmp/deep/a.txt", "tmp/node_modules/x", "my.secret", "node_modules/x", "later.secret"] {
        write(&made.path, path, "x\n");
    }
    let request = Remove { ignored: vec!["tmp".into(), "my.secret".into()], ..removal(&made) };
    let kept = remove(&fixture.repo, &request).unwrap().salvage_ref.unwrap();
    let files = fixture.git(&["diff", "--name-only", "HEAD", &kept.name]);
    assert_eq!(files, "my.secret\ntmp/deep/a.txt");
}

#[test]
fn repository_in_ignored_folder_is_work() {
    let fixture = Fixture::new();
    fixture.commit(".gitignore", "tmp/\nnode_modules/\n");
    let made = fixture.worktree("work");
    for inner in ["tmp/c", "node_modules/c"] {
        write(&made.path, &format!("{inner}/x"), "x\n");
        git(&made.path.join(inner), &["init", "-q"]);
        let own = ["-c", "user.name=x", "-c", "user.email=x@y"];
        git(&made.path.join(inner), &["add", "."]);
        git(&made.path.join(inner), &[&own[..], &["commit", "-qm", "only here"]].concat());
    }
    let only_here = git(&made.path.join("tmp/c"), &["rev-parse", "HEAD"]);
    let error = remove(&fixture.repo, &removal(&made)).unwrap_err();
    assert!(error.to_string().contains("commits in tmp/c exist nowhere else"), "{error}");
    let removed = remove(&fixture.repo, &forced(&made)).unwrap();
    assert!(reached(&fixture, &removed).contains(&only_here));
}
