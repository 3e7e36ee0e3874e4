use super::*;
use crate::git::land::{BranchMove, Landing, land};
use crate::git::testing::{Fixture, at, read, show};
use std::fs;

#[derive(Clone)]
pub struct Integrate {
    pub source: String,
    pub into: String,
    pub strategy: Strategy,
    pub message: String,
    pub dry_run: bool,
}

#[derive(Debug, PartialEq)]
pub enum TestStatus {
    Merged,
    AlreadyMerged,
    Conflicts,
    WouldMerge,
}

#[derive(Debug, PartialEq)]
pub struct Integration {
    pub status: TestStatus,
    pub commit: Option<String>,
    pub conflicts: Vec<MergeConflict>,
}

/// Computes an integration and moves the branch, as the orchestrator does.
pub fn integrate(repo: &Repository, request: &Integrate) -> Result<Integration, IntegrateError> {
    let (from, branch) = (tip(repo, &request.into)?, &request.into);
    let step = IntegrationStep {
        source: request.source.clone(),
        tip: tip(repo, &request.source)?,
        strategy: request.strategy,
        message: request.message.clone(),
        is_last: true,
        contained: Vec::new(),
        withdrawn: Vec::new(),
    };
    let scratch = if request.dry_run { ScratchMerge::dry(repo)? } else { ScratchMerge::new(repo) };
    let plain = |status| Integration { status, commit: None, conflicts: Vec::new() };
    Ok(match scratch.stack(&from, &step)?.0 {
        Stacked::Nothing => plain(TestStatus::AlreadyMerged),
        Stacked::Conflicts(conflicts) => Integration { conflicts, ..plain(TestStatus::Conflicts) },
        Stacked::Clean(to) if request.dry_run => {
            Landing::of(repo, branch)?.check(&scratch.changes(&from, &to)?)?;
            plain(TestStatus::WouldMerge)
        }
        Stacked::Clean(to) => {
            Landing::of(repo, branch)?.check(&scratch.changes(&from, &to)?)?;
            land(repo, BranchMove { branch, from: &from, to: &to, what: &request.source })?;
            Integration { commit: Some(to), ..plain(TestStatus::Merged) }
        }
    })
}

/// Creates a repository in which `work` and `main` have diverged; `main` is checked out.
fn diverged() -> Fixture {
    let fixture = Fixture::new();
    let lines: String = (0..20).map(|n| format!("line {n}\n")).collect();
    fixture.commit("text.txt", &lines);
    fixture.git(&["checkout", "-qb", "work"]);
    fixture.commit("text.txt", &lines.replace("line 2\n", "line two\n"));
    fixture.git(&["mv", "text.txt", "renamed.txt"]);
    fixture.commit("work.txt", "work\n");
    fixture.git(&["checkout", "-q", "main"]);
    fixture.commit("text.txt", &lines.replace("line 18\n", "line eighteen\n"));
    fixture
}

fn request(strategy: Strategy) -> Integrate {
    Integrate {
        source: "work".to_owned(),
        into: "main".to_owned(),
        strategy,
        message: "integrate work".to_owned(),
        dry_run: false,
    }
}

fn tree(fixture: &Fixture, commit: &str) -> String {
    fixture.git(&["rev-parse", &format!("{commit}^{{tree}}")])
}

#[test]
fn result_is_the_tree_of_git() {
    let by_git: [(Strategy, &[&str]); 3] = [
        (Strategy::Merge, &["merge", "-q", "--no-edit", "work"]),
        (Strategy::Squash, &["merge", "-q", "--no-edit", "work"]),
        (Strategy::CherryPick, &["cherry-pick", "main..work"]),
    ];
    for (strategy, command) in by_git {
        let fixture = diverged();
        fixture.git(&["checkout", "-qb", "expected"]);
        fixture.git(command);
        fixture.git(&["checkout", "-q", "main"]);
        let done = integrate(&fixture.repo, &request(strategy)).unwrap();
        let commit = done.commit.unwrap();
        assert_eq!(done.status, TestStatus::Merged);
        assert_eq!(tree(&fixture, &commit), tree(&fixture, "expected"), "{strategy:?}");
        assert_eq!(fixture.git(&["rev-parse", "main"]), commit);
        assert_eq!(read(fixture.root(), "work.txt"), "work\n");
        assert_eq!(fixture.git(&["status", "--porcelain"]), "");
    }
}

#[test]
fn each_strategy_leaves_its_own_history() {
    let history = |strategy| {
        let fixture = diverged();
        integrate(&fixture.repo, &request(strategy)).unwrap();
        let own = fixture.git(&["log", "--first-parent", "--format=%s|%p", "-2", "main"]);
        let parents = |line: &str| line.split_once('|').unwrap().1.split(' ').count();
        let subjects: Vec<String> =
            own.lines().map(|line| format!("{} {}", line.split_once('|').unwrap().0, parents(line))).collect();
        subjects
    };
    assert_eq!(history(Strategy::Merge), ["integrate work 2", "text.txt 1"]);
    assert_eq!(history(Strategy::Squash), ["integrate work 1", "text.txt 1"]);
    assert_eq!(history(Strategy::CherryPick), ["work.txt 1", "text.txt 1"]);
}

#[test]
fn picked_commits_keep_author_date_and_message() {
    let fixture = diverged();
    fixture.git(&["checkout", "-q", "work"]);
    fixture.write("x.txt", "x\n");
    fixture.git(&["add", "-A"]);
    let message = "title\n\nbody of it\n# not a comment";
    fixture.git(&[
        "commit",
        "-q",
        "--cleanup=verbatim",
        "--author=Ann Other <ann@example.org>",
        "--date=2020-01-02T03:04:05+0600",
        "-m",
        message,
    ]);
    fixture.git(&["checkout", "-q", "main"]);
    integrate(&fixture.repo, &request(Strategy::CherryPick)).unwrap();
    let format = "--format=%an %ae %ad %cn%n%B";
    let shown = fixture.git(&["show", "-s", "--date=iso", format, "main"]);
    let expected = format!("Ann Other ann@example.org 2020-01-02 03:04:05 +0600 Tess Ter\n{message}");
    assert_eq!(shown.trim_end(), expected);
}

#[test]
fn second_integration_changes_nothing() {
    for strategy in [Strategy::Merge, Strategy::Squash, Strategy::CherryPick] {
        let fixture = diverged();
        integrate(&fixture.repo, &request(strategy)).unwrap();
        let before = fixture.git(&["rev-parse", "main"]);
        let again = integrate(&fixture.repo, &request(strategy)).unwrap();
        assert_eq!(again.status, TestStatus::AlreadyMerged, "{strategy:?}");
        assert_eq!(fixture.git(&["rev-parse", "main"]), before);
    }
}

#[test]
fn conflicts_are_listed_and_change_nothing() {
    let fixture = Fixture::new();
    fixture.commit("both.txt", "0\n");
    fixture.commit("deleted.txt", "0\n");
    fixture.git(&["checkout", "-qb", "work"]);
    fixture.git(&["rm", "-q", "deleted.txt"]);
    fixture.commit("both.txt", "work\n");
    fixture.git(&["checkout", "-q", "main"]);
    fixture.write("deleted.txt", "changed\n");
    let before = fixture.commit("both.txt", "main\n");
    for strategy in [Strategy::Merge, Strategy::Squash, Strategy::CherryPick] {
        let found = integrate(&fixture.repo, &request(strategy)).unwrap();
        let conflict = |path: &str, kind: &str| MergeConflict { path: path.to_owned(), kind: kind.to_owned() };
        assert_eq!(
            found,
            Integration {
                status: TestStatus::Conflicts,
                commit: None,
                conflicts: vec![conflict("both.txt", "contents"), conflict("deleted.txt", "modify/delete"),],
            }
        );
    }
    assert_eq!(fixture.git(&["rev-parse", "main"]), before);
    assert_eq!(fixture.git(&["status", "--porcelain"]), "");
}

#[test]
fn only_dirty_files_that_change_block_a_merge() {
    for dry_run in [true, false] {
        let fixture = diverged();
        let request = Integrate { dry_run, ..request(Strategy::Merge) };
        fixture.write("readme.txt", "not committed\n");
        fixture.write("text.txt", "not committed\n");
        let before = fixture.git(&["rev-parse", "main"]);
        let error = integrate(&fixture.repo, &request).unwrap_err();
        let IntegrateError::TargetDirty { samples, .. } = error else { panic!("{error}") };
        assert_eq!(samples, ["text.txt"]);
        assert_eq!(fixture.git(&["rev-parse", "main"]), before);
        assert_eq!(read(fixture.root(), "text.txt"), "not committed\n");

        fixture.git(&["checkout", "-q", "text.txt"]);
        fixture.write("staged.txt", "staged\n");
        fixture.git(&["add", "staged.txt"]);
        assert!(integrate(&fixture.repo, &request).is_ok());
        assert_eq!(fixture.git(&["status", "--porcelain"]).trim(), "M readme.txt\nA  staged.txt");
        assert_eq!(read(fixture.root(), "readme.txt"), "not committed\n");
    }
}

#[test]
fn unfinished_merge_blocks_the_target() {
    for dry_run in [true, false] {
        let fixture = diverged();
        let request = Integrate { dry_run, source: "apart".to_owned(), ..request(Strategy::Merge) };
        fixture.git(&["checkout", "-qb", "apart", "main~1"]);
        fixture.commit("apart.txt", "apart\n");
        fixture.git(&["checkout", "-qb", "other", "main~1"]);
        fixture.commit("text.txt", "other\n");
        fixture.git(&["checkout", "-q", "main"]);
        assert!(!Git::write(&at(fixture.root())).args(["merge", "-q", "other"]).succeeds().unwrap());
        let error = integrate(&fixture.repo, &request).unwrap_err();
        assert!(matches!(error, IntegrateError::TargetBusy { operation: "merge", .. }), "{error}");
        fixture.git(&["merge", "--abort"]);

        fixture.write("text.txt", "stashed\n");
        fixture.git(&["stash", "-q"]);
        fixture.commit("text.txt", "main again\n");
        assert!(!Git::write(&at(fixture.root())).args(["stash", "pop", "-q"]).succeeds().unwrap());
        let error = integrate(&fixture.repo, &request).unwrap_err();
        assert!(matches!(error, IntegrateError::TargetUnmerged { .. }), "{error}");
    }
}

#[test]
fn ignored_files_are_never_overwritten() {
    let fixture = diverged();
    fs::write(fixture.repo.common_dir.join("info/exclude"), "work.txt\n").unwrap();
    fixture.write("work.txt", "mine\n");
    let before = fixture.git(&["rev-parse", "main"]);
    let error = integrate(&fixture.repo, &request(Strategy::Merge)).unwrap_err();
    assert!(error.to_string().contains("work.txt"), "{error}");
    assert_eq!(fixture.git(&["rev-parse", "main"]), before);
    assert_eq!(read(fixture.root(), "work.txt"), "mine\n");
}

#[test]
fn branch_without_a_checkout_moves_by_ref() {
    let fixture = diverged();
    fixture.git(&["checkout", "-q", "--detach"]);
    fixture.write("readme.txt", "not committed\n");
    let head = fixture.git(&["rev-parse", "HEAD"]);
    let done = integrate(&fixture.repo, &request(Strategy::Merge)).unwrap();
    assert_eq!(fixture.git(&["rev-parse", "main"]), done.commit.unwrap());
    assert_eq!(show(fixture.root(), "main", "work.txt"), "work\n");
    assert_eq!(fixture.git(&["rev-parse", "HEAD"]), head);
    assert_eq!(read(fixture.root(), "readme.txt"), "not committed\n");
}

#[test]
fn missing_checkout_blocks_no_integration() {
    let fixture = diverged();
    fixture.git(&["checkout", "-q", "--detach"]);
    let gone = fixture.beside("gone");
    fixture.git(&["worktree", "add", "-q", gone.to_str().unwrap(), "main"]);
    std::fs::remove_dir_all(gone).unwrap();
    let done = integrate(&fixture.repo, &request(Strategy::Merge)).unwrap();
    assert_eq!(fixture.git(&["rev-parse", "main"]), done.commit.unwrap());
}

#[test]
fn failed_move_restores_the_checkout() {
    let fixture = diverged();
    fixture.write("readme.txt", "not committed\n");
    fixture.write("new.txt", "staged\n");
    fixture.git(&["add", "new.txt"]);
    let before = fixture.git(&["status", "--porcelain"]);
    let lock = fixture.repo.common_dir.join("refs/heads/main.lock");
    std::fs::write(&lock, "").unwrap();
    let error = integrate(&fixture.repo, &request(Strategy::Merge)).unwrap_err();
    assert!(error.to_string().contains("main.lock"), "{error}");
    assert_eq!(fixture.git(&["status", "--porcelain"]), before);
    assert!(!fixture.root().join("work.txt").exists());
    std::fs::remove_file(lock).unwrap();
    integrate(&fixture.repo, &request(Strategy::Merge)).unwrap();
    assert_eq!(read(fixture.root(), "readme.txt"), "not committed\n");
}

#[test]
fn moved_target_is_not_overwritten() {
    for checked_out in [true, false] {
        let fixture = diverged();
        let (old, new) = ("main~1", fixture.git(&["rev-parse", "main"]));
        let old = fixture.git(&["rev-parse", old]);
        if !checked_out {
            fixture.git(&["checkout", "-q", "--detach"]);
        }
        let late = fixture.repo.write().commit_tree(&tree(&fixture, "work"), &[&old], "late").text().unwrap();
        let moved = land(&fixture.repo, BranchMove { branch: "main", from: &old, to: &late, what: "late" });
        assert!(matches!(moved, Err(IntegrateError::TargetMoved { .. })));
        assert_eq!(fixture.git(&["rev-parse", "main"]), new);
    }
}

#[test]
fn dry_run_writes_nothing() {
    for strategy in [Strategy::Merge, Strategy::Squash, Strategy::CherryPick] {
        let fixture = diverged();
        let state = || (fixture.git(&["for-each-ref"]), fixture.git(&["count-objects", "-v"]));
        let before = state();
        let dry = Integrate { dry_run: true, ..request(strategy) };
        let answer = integrate(&fixture.repo, &dry).unwrap();
        assert_eq!(answer.status, TestStatus::WouldMerge);
        assert_eq!(state(), before, "not even an object");
    }
}

#[test]
fn unknown_branches_and_merge_commits_are_refused() {
    let fixture = diverged();
    let with = |source: &str, into: &str| Integrate {
        source: source.to_owned(),
        into: into.to_owned(),
        ..request(Strategy::Merge)
    };
    for unknown in ["nothing", "--all", "HEAD", ""] {
        let error = integrate(&fixture.repo, &with(unknown, "main")).unwrap_err();
        assert!(matches!(error, IntegrateError::UnknownBranch { .. }));
    }
    fixture.git(&["checkout", "-q", "work"]);
    fixture.git(&["merge", "-q", "--no-edit", "main"]);
    fixture.git(&["checkout", "-q", "main"]);
    fixture.commit("more.txt", "x\n");
    let error = integrate(&fixture.repo, &request(Strategy::CherryPick)).unwrap_err();
    assert!(matches!(error, IntegrateError::MergeCommit { .. }));
}

#[test]
fn branch_being_rebased_does_not_move() {
    let fixture = Fixture::new();
    fixture.git(&["checkout", "-qb", "work"]);
    fixture.commit("readme.txt", "work\n");
    fixture.git(&["checkout", "-q", "main"]);
    let before = fixture.commit("more.txt", "main\n");
    fixture.git(&["checkout", "-qb", "other", "main~1"]);
    fixture.commit("more.txt", "other\n");
    fixture.git(&["checkout", "-q", "main"]);
    let rebase = Git::write(&at(fixture.root())).args(["rebase", "-q", "other"]);
    assert!(!rebase.succeeds().unwrap());
    let error = integrate(&fixture.repo, &request(Strategy::Merge)).unwrap_err();
    assert!(matches!(error, IntegrateError::TargetBusy { .. }), "{error}");
    assert_eq!(fixture.git(&["rev-parse", "main"]), before);
}

#[test]
fn rebase_in_another_worktree_blocks_the_branch() {
    let fixture = diverged();
    let place = fixture.beside("elsewhere");
    fixture.git(&["checkout", "-q", "--detach"]);
    fixture.git(&["worktree", "add", "-q", place.to_str().unwrap(), "main"]);
    assert!(Git::write(&at(&place)).args(["rebase", "-q", "--exec", "false", "main~1"]).succeeds().is_ok_and(|it| !it));
    let error = integrate(&fixture.repo, &request(Strategy::Merge)).unwrap_err();
    assert!(matches!(error, IntegrateError::TargetBusy { worktree, .. } if worktree == place));
}

#[test]
fn half_created_worktree_blocks_no_integration() {
    // Git leaves this state for a moment while it creates a worktree.
    let fixture = diverged();
    let place = fixture.beside("half");
    fixture.git(&["worktree", "add", "-q", "--detach", place.to_str().unwrap(), "main"]);
    fs::remove_file(fixture.root().join(".git/worktrees/half/HEAD")).unwrap();
    integrate(&fixture.repo, &request(Strategy::Merge)).unwrap();
}

#[test]
fn moves_by_integration_are_recognized() {
    let fixture = diverged();
    fixture.git(&["branch", "more", "work"]);
    fixture.git(&["branch", "aside", "main"]);
    let main = fixture.git(&["rev-parse", "main"]);
    let moved = |name: &str| {
        let to = fixture.git(&["rev-parse", name]);
        only_integrated(&fixture.repo, name, &main, &to).unwrap()
    };
    integrate(&fixture.repo, &request(Strategy::Merge)).unwrap();
    integrate(&fixture.repo, &Integrate { into: "aside".to_owned(), ..request(Strategy::Squash) }).unwrap();
    assert!(moved("HEAD") && moved("refs/heads/main") && moved("refs/heads/aside"));
    fixture.commit("users.txt", "x\n");
    fixture.git(&["update-ref", "refs/heads/aside", "HEAD"]);
    assert!(!moved("HEAD") && !moved("refs/heads/main") && !moved("refs/heads/aside"));
}

#[test]
fn unreadable_branch_is_not_reported_as_unknown() {
    for content in ["junk\n", "", "0123456789012345678901234567890123456789\n"] {
        let fixture = Fixture::new();
        fs::write(fixture.repo.common_dir.join("refs/heads/work"), content).unwrap();
        let error = local_tip(&fixture.repo, "work").unwrap_err();
        assert!(matches!(error, IntegrateError::BrokenBranch { .. }), "{content:?}: {error}");
    }
}
