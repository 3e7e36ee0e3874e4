use super::*;
use crate::git::testing::{Fixture, at, check_out_submodules, commit, git, identify, show, write};
use std::fs;

fn keep_all(fixture: &Fixture, dir: &Path) -> Option<SalvageRef> {
    let trusted = [fixture.git(&["rev-parse", "main"])];
    salvage(&fixture.repo, dir, "w-1", Keep { trusted: &trusted, ..Keep::default() }).unwrap()
}

#[test]
fn clean_worktree_on_a_branch_loses_nothing() {
    let fixture = Fixture::new();
    let made = fixture.worktree("work");
    commit(&made.path, "a.txt", "a\n");
    assert_eq!(keep_all(&fixture, &made.path), None);
    let keep = Keep { reachable: Reachable { except_branch: Some("work"), and: None }, ..Keep::default() };
    let kept = salvage(&fixture.repo, &made.path, "w-1", keep).unwrap();
    assert_eq!(
        kept.unwrap(),
        SalvageRef {
            name: "refs/orchestrator/salvage/w-1".to_owned(),
            commit: git(&made.path, &["rev-parse", "HEAD"]),
        }
    );
}

#[test]
fn salvage_keeps_uncommitted_work_and_changes_nothing() {
    let fixture = Fixture::new();
    fixture.write(".gitignore", "ignored\n");
    fixture.write("gone.txt", "gone\n");
    fixture.commit("twice.txt", "0\n");
    let made = fixture.worktree("work");
    let dir = &made.path;
    write(dir, "twice.txt", "staged\n");
    write(dir, "only staged.txt", "deleted later\n");
    git(dir, &["add", "-A"]);
    fs::remove_file(dir.join("only staged.txt")).unwrap();
    fs::remove_file(dir.join("gone.txt")).unwrap();
    write(dir, "twice.txt", "changed again\n");
    write(dir, "deep/untracked * file", "new\n");
    write(dir, "ignored", "x\n");
    let before = git(dir, &["status", "--porcelain"]);
    let kept = keep_all(&fixture, dir).unwrap();
    let listed = git(dir, &["ls-tree", "-r", "--name-only", &kept.name]);
    assert_eq!(listed, ".gitignore\ndeep/untracked * file\nreadme.txt\ntwice.txt");
    assert_eq!(show(dir, &kept.commit, "twice.txt"), "changed again\n");
    let staged = format!("{}^2", kept.commit);
    assert_eq!(show(dir, &staged, "twice.txt"), "staged\n");
    assert_eq!(show(dir, &staged, "only staged.txt"), "deleted later\n");
    assert_eq!(git(dir, &["status", "--porcelain"]), before);
}

#[test]
fn files_in_conflict_are_kept_with_markers() {
    let fixture = Fixture::new();
    let made = fixture.worktree("work");
    commit(&made.path, "readme.txt", "work\n");
    fixture.commit("readme.txt", "main\n");
    let merge = Git::write(&at(&made.path)).args(["merge", "-q", "main"]);
    assert!(!merge.succeeds().unwrap());
    let kept = keep_all(&fixture, &made.path).unwrap();
    assert!(show(&made.path, &kept.commit, "readme.txt").contains("<<<<<<<"));
}

#[test]
fn detached_head_keeps_its_own_commit() {
    let fixture = Fixture::new();
    let made = fixture.worktree("work");
    git(&made.path, &["checkout", "-q", "--detach"]);
    assert_eq!(keep_all(&fixture, &made.path), None);
    let head = commit(&made.path, "a.txt", "a\n");
    assert_eq!(keep_all(&fixture, &made.path).unwrap().commit, head);
}

#[test]
fn only_another_commit_gets_a_numbered_ref() {
    let fixture = Fixture::new();
    let made = fixture.worktree("work");
    git(&made.path, &["checkout", "-q", "--detach"]);
    commit(&made.path, "a.txt", "a\n");
    let first = keep_all(&fixture, &made.path).unwrap();
    let keep = Keep { reachable: Reachable { except_branch: Some("no-such"), and: None }, ..Keep::default() };
    fixture.git(&["update-ref", "-d", &first.name]);
    let again = salvage(&fixture.repo, &made.path, "w-1", keep).unwrap();
    assert_eq!(again, Some(first));
    write(&made.path, "b.txt", "b\n");
    let second = keep_all(&fixture, &made.path).unwrap();
    assert_eq!(second.name, "refs/orchestrator/salvage/w-1-2");
    for name in ["", "-x/..", "a b", "a\0"] {
        let error = salvage(&fixture.repo, &made.path, name, Keep::default()).unwrap_err();
        assert!(matches!(error, SalvageError::InvalidName { .. }), "{name:?}: {error}");
    }
}

#[test]
fn only_changed_copies_are_kept() {
    let fixture = Fixture::new();
    fixture.write(".worktreeinclude", ".env*\n");
    fixture.commit(".gitignore", ".env*\n");
    fixture.write(".env", "A=1\n");
    fixture.write(".env.same", "A=1\n");
    let made = fixture.worktree("work");
    let trusted = [made.base_commit.clone()];
    let keep = Keep { copies: &made.copies, trusted: &trusted, ..Keep::default() };
    assert_eq!(made.copies.len(), 2);
    assert_eq!(salvage(&fixture.repo, &made.path, "w-1", keep).unwrap(), None);
    write(&made.path, ".env", "A=2\n");
    let kept = salvage(&fixture.repo, &made.path, "w-1", keep).unwrap();
    let commit = kept.unwrap().commit;
    assert_eq!(show(fixture.root(), &commit, ".env"), "A=2\n");
    let listed = fixture.git(&["ls-tree", "--name-only", &commit]);
    assert!(!listed.contains(".env.same"), "{listed}");
}

#[test]
fn work_in_submodules_and_nested_repositories_is_kept() {
    let fixture = Fixture::new();
    fixture.add_library();
    let made = fixture.worktree("work");
    let dir = &made.path;
    check_out_submodules(dir);
    assert_eq!(keep_all(&fixture, dir), None, "a published submodule");
    let lib = dir.join("lib");
    identify(&lib);
    let in_library = commit(&lib, "lib.txt", "committed in the library\n");
    write(&lib, "dirty.txt", "uncommitted in the library\n");
    git(dir, &["init", "-q", "scratch"]);
    write(dir, "scratch/unborn.txt", "never committed\n");
    let kept = keep_all(&fixture, dir).unwrap();
    fs::remove_dir_all(fixture.repo.common_dir.join("worktrees")).unwrap();
    fs::remove_dir_all(dir).unwrap();
    let root = fixture.root();
    let reached = fixture.git(&["rev-list", &kept.name]);
    assert!(reached.contains(&in_library));
    let texts: Vec<String> = fixture
        .git(&["rev-parse", &format!("{}^@", kept.commit)])
        .lines()
        .map(|parent| git(root, &["ls-tree", "-r", "--name-only", parent]))
        .collect();
    assert!(texts.iter().any(|t| t.contains("dirty.txt")), "{texts:?}");
    assert!(texts.iter().any(|t| t.contains("unborn.txt")), "{texts:?}");
    fixture.git(&["fsck", "--connectivity-only"]);
}

#[test]
fn salvage_works_without_an_identity() {
    let fixture = Fixture::new();
    let made = fixture.worktree("work");
    for setting in ["user.name", "user.email"] {
        fixture.git(&["config", "--unset", setting]);
    }
    fixture.git(&["config", "user.useConfigOnly", "true"]);
    write(&made.path, "a.txt", "a\n");
    let kept = keep_all(&fixture, &made.path).unwrap();
    let author = fixture.git(&["log", "-1", "--format=%an", &kept.name]);
    assert_eq!(author, CommitIdentity::fallback().name);
}

#[test]
fn broken_nested_repositories_are_kept_or_refused() {
    let fixture = Fixture::new();
    let made = fixture.worktree("work");
    write(&made.path, "plain/.git/nothing", "x\n");
    write(&made.path, "plain/file.txt", "x\n");
    let kept = keep_all(&fixture, &made.path).unwrap();
    assert_eq!(show(&made.path, &kept.commit, "plain/file.txt"), "x\n");
    git(&made.path, &["init", "-q", "odd"]);
    git(&made.path.join("odd"), &["config", "core.worktree", "/"]);
    let error = salvage(&fixture.repo, &made.path, "w-1", Keep::default()).unwrap_err();
    assert!(matches!(error, SalvageError::UnreadableRepository { .. }), "{error}");
}

#[test]
fn salvage_ignores_line_ending_warnings() {
    let fixture = Fixture::new();
    fixture.git(&["config", "core.autocrlf", "input"]);
    fixture.git(&["config", "core.safecrlf", "true"]);
    let made = fixture.worktree("work");
    write(&made.path, "dos.txt", "a\r\nb\r\n");
    let kept = keep_all(&fixture, &made.path).unwrap();
    assert_eq!(show(&made.path, &kept.commit, "dos.txt"), "a\nb\n");
}

#[test]
fn worktree_without_commits_is_kept() {
    let fixture = Fixture::new();
    let made = fixture.worktree("work");
    git(&made.path, &["checkout", "-q", "--orphan", "fresh"]);
    git(&made.path, &["rm", "-rqf", "."]);
    assert_eq!(keep_all(&fixture, &made.path), None);
    write(&made.path, "a.txt", "a\n");
    let kept = keep_all(&fixture, &made.path).unwrap();
    assert_eq!(show(fixture.root(), &kept.commit, "a.txt"), "a\n");
}

#[test]
fn racy_same_size_change_is_kept() {
    let fixture = Fixture::new();
    let made = fixture.worktree("work");
    let (file, index) = (made.path.join("racy.txt"), git_dir(&at(&made.path)).unwrap().join("index"));
    commit(&made.path, "racy.txt", "1\n");
    // Simulates that everything happened at the same moment in the past.
    let then = std::time::SystemTime::now() - std::time::Duration::from_secs(1_000);
    let set = |path: &Path| fs::File::options().write(true).open(path).unwrap().set_modified(then).unwrap();
    set(&file);
    git(&made.path, &["update-index", "--refresh"]);
    write(&made.path, "racy.txt", "2\n");
    set(&file);
    set(&index);
    git(&made.path, &["config", "core.trustctime", "false"]);
    let kept = keep_all(&fixture, &made.path).unwrap();
    assert_eq!(show(fixture.root(), &kept.commit, "racy.txt"), "2\n");
}
