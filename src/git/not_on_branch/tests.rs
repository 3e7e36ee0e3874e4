use std::os::unix::fs::PermissionsExt;

use super::commits::MOST_TIPS;
use super::*;
use crate::git::command::Git;
use crate::git::testing::{Fixture, at, commit, git, identify, write};
use crate::git::{Worktree, fingerprint, uncommitted_and_ignored};
use crate::mission::outcome::PartFiles;

struct Work {
    fixture: Fixture,
    made: Worktree,
    before: Fingerprint,
}

impl Work {
    fn new() -> Self {
        Self::of(Fixture::new())
    }

    fn of(fixture: Fixture) -> Self {
        let before = fingerprint(&fixture.repo).unwrap();
        let made = fixture.worktree("work");
        Self { fixture, made, before }
    }

    fn path(&self) -> &Path {
        &self.made.path
    }

    fn git(&self, args: &[&str]) -> String {
        git(self.path(), args)
    }

    fn git_fails(&self, args: &[&str]) {
        assert!(Git::write(&at(self.path())).args(args).output().unwrap().code != Some(0), "{args:?}");
    }

    fn parts(&self) -> Vec<NotOnBranch> {
        let examined = Examined {
            repo: &self.fixture.repo,
            worktree: self.path(),
            branch: "work",
            base: &self.made.base_commit,
            copies: &self.made.copies,
            before: Some(&self.before),
            why: None,
        };
        let status = uncommitted_and_ignored(&at(self.path())).unwrap();
        let ignored = ignored(self.path(), &status.ignored, &self.made.copies, None);
        not_on_branch(&examined, &status).into_iter().chain(ignored).collect()
    }

    /// Returns the only part; panics if there are more or none.
    fn part(&self) -> NotOnBranch {
        let parts = self.parts();
        let [part] = parts.as_slice() else { panic!("{parts:#?}") };
        part.clone()
    }

    fn conflict(&self) -> String {
        let theirs = self.fixture.commit("readme.txt", "theirs\n");
        commit(self.path(), "readme.txt", "mine\n");
        theirs
    }
}

#[test]
fn complete_branch_lacks_nothing() {
    let work = Work::new();
    assert_eq!(work.parts(), []);
    commit(work.path(), "a.txt", "a\n");
    commit(work.path(), "a.txt", "b\n");
    work.git(&["commit", "-q", "--amend", "-m", "better"]);
    work.git(&["checkout", "-q", "-b", "renamed-by-worker"]);
    work.git(&["branch", "-D", "work"]);
    commit(work.path(), "c.txt", "c\n");
    assert_eq!(work.parts(), [], "on a branch of its own making");
}

#[test]
fn commits_on_other_refs_are_named() {
    let work = Work::new();
    work.git(&["symbolic-ref", "HEAD", "refs/foo/bar"]);
    commit(work.path(), "a.txt", "a\n");
    let head = work.git(&["rev-parse", "HEAD"]);
    let part = work.part();
    let how = format!("`git switch work && git merge --allow-unrelated-histories {head}` in {}", shown(work.path()));
    assert_eq!((part.what.as_str(), part.how_to_include), ("1 commit at refs/foo/bar", how));
    work.git(&["switch", "-q", "work"]);
    work.git(&["merge", "-q", "--allow-unrelated-histories", &head]);
    assert_eq!(work.parts(), []);
}

#[test]
fn new_work_outside_the_worktree_is_found() {
    let work = Work::new();
    let appeared = || {
        let examined = Examined {
            repo: &work.fixture.repo,
            worktree: work.path(),
            branch: "work",
            base: &work.made.base_commit,
            copies: &work.made.copies,
            before: Some(&work.before),
            why: None,
        };
        appeared(&examined, "orchestrator/").unwrap().into_iter().map(|part| part.what).collect::<Vec<_>>()
    };
    commit(work.path(), "own.txt", "x\n");
    work.git(&["checkout", "-q", "-b", "own-side"]);
    commit(work.path(), "side.txt", "x\n");
    work.git(&["checkout", "-q", "work"]);
    let nothing = Vec::<String>::new();
    assert_eq!(appeared(), nothing, "commits that were made in its worktree are told otherwise");
    let mine = work.fixture.beside("mine");
    work.git(&["worktree", "add", "-q", "-b", "feat-out", mine.to_str().unwrap(), "main"]);
    assert_eq!(appeared(), nothing, "there is nothing in it");
    commit(&mine, "o.txt", "x\n");
    write(&mine, "u.txt", "x\n");
    let tree = work.git(&["rev-parse", "HEAD^{tree}"]);
    let loose = work.git(&["commit-tree", "-p", "main", "-m", "loose", &tree]);
    work.git(&["update-ref", "refs/heads/feat-ref", &loose]);
    work.git(&["update-ref", "refs/heads/orchestrator/w-9", &loose]);
    let expected = vec![
        "a worktree that appeared since its own was made, with 1 commit on branch feat-out and 1 uncommitted file: u.txt"
            .to_owned(),
        "branch feat-ref, which appeared or moved since its worktree was made: 1 commit".to_owned(),
    ];
    assert_eq!(appeared(), expected);
}

#[test]
fn uncommitted_files_are_named_with_a_fix() {
    let work = Work::new();
    write(work.path(), "new.txt", "x");
    write(work.path(), "readme.txt", "changed\n");
    write(work.path(), "intended.txt", "x");
    write(work.path(), "odd\nname.txt", "x");
    work.git(&["add", "-N", "intended.txt"]);
    let part = work.part();
    assert!(part.what.starts_with("4 uncommitted files: "), "{part:?}");
    for name in ["new.txt", "readme.txt", "intended.txt", r#""odd\nname.txt""#] {
        assert!(part.what.contains(name), "{name} in {part:?}");
    }
    assert_eq!(part.place, work.path().to_str().unwrap());
    assert!(part.how_to_include.contains("branch work"), "{part:?}");
}

#[test]
fn every_unfinished_operation_is_named() {
    type Begin<'a> = &'a dyn Fn(&Work, &str);
    let begin: [(&str, Begin); 6] = [
        ("merge", &|work, theirs| work.git_fails(&["merge", "-q", theirs])),
        ("cherry-pick", &|work, theirs| work.git_fails(&["cherry-pick", theirs])),
        ("revert", &|work, _| {
            commit(work.path(), "readme.txt", "again\n");
            work.git_fails(&["revert", "--no-edit", "HEAD~"]);
        }),
        ("rebase", &|work, theirs| work.git_fails(&["rebase", "-q", theirs])),
        ("rebase", &|work, theirs| work.git_fails(&["rebase", "-q", "--apply", theirs])),
        ("am", &|work, theirs| {
            let patch = git(work.fixture.root(), &["format-patch", "-1", "--stdout", theirs]);
            write(work.path(), "../p.patch", &format!("{patch}\n"));
            work.git_fails(&["am", "-q", "../p.patch"]);
        }),
    ];
    for (operation, begin) in begin {
        let work = Work::new();
        let theirs = work.conflict();
        begin(&work, &theirs);
        let parts = work.parts();
        let named = parts.iter().find(|part| part.what.contains(&format!("{operation} that is not finished")));
        let part = named.unwrap_or_else(|| panic!("{operation}: {parts:#?}"));
        let ends = part.how_to_include.contains("--continue") || part.how_to_include.contains("git commit");
        assert!(ends && part.how_to_include.contains("--abort"), "{part:?}");
        if operation != "am" {
            assert!(part.what.contains("readme.txt"), "{part:?}");
        }
    }
}

#[test]
fn bisection_counts_only_with_uncommitted_changes() {
    let work = Work::new();
    for text in ["a\n", "b\n", "c\n"] {
        commit(work.path(), "a.txt", text);
    }
    work.git(&["bisect", "start", "HEAD", &work.made.base_commit]);
    assert_eq!(work.parts(), []);
    write(work.path(), "found.txt", "x");
    let part = work.part();
    assert!(part.what.contains("found.txt") && part.how_to_include.contains("bisect is not finished"), "{part:?}");
}

#[test]
fn conflicts_without_an_operation_are_named() {
    let work = Work::new();
    write(work.path(), "readme.txt", "stashed\n");
    work.git(&["stash", "-q"]);
    commit(work.path(), "readme.txt", "mine\n");
    work.git_fails(&["stash", "pop"]);
    let parts = work.parts();
    assert!(parts.iter().any(|part| part.what == "files with conflicts: readme.txt"), "{parts:#?}");
}

#[test]
fn commits_are_named_wherever_they_are() {
    let work = Work::new();
    commit(work.path(), "mine.txt", "x\n");
    work.git(&["checkout", "-q", "--detach", "HEAD~"]);
    let loose = commit(work.path(), "loose.txt", "x\n");
    let part = work.part();
    assert_eq!((part.what.as_str(), part.place), ("1 commit on a detached HEAD", format!("commit {loose}")));
    assert!(part.how_to_include.contains(&format!("git merge {loose}")), "{}", part.how_to_include);
    work.git(&["checkout", "-q", "work"]);
    assert_eq!(work.part().what, "1 commit that only the reflog of its worktree names");
    work.git(&["branch", "side", &loose]);
    assert_eq!(work.part().what, "1 commit on branch side");
    work.git(&["merge", "-q", "--no-edit", "side"]);
    assert_eq!(work.parts(), []);
}

#[test]
fn squashed_and_rebased_commits_are_not_named() {
    let work = Work::new();
    commit(work.path(), "a.txt", "a\n");
    commit(work.path(), "b.txt", "b\n");
    work.git(&["reset", "-q", "--soft", "HEAD~2"]);
    work.git(&["commit", "-qm", "both"]);
    assert_eq!(work.parts(), []);
    let theirs = work.fixture.commit("theirs.txt", "x\n");
    work.git(&["rebase", "-q", &theirs]);
    assert_eq!(work.parts(), []);
    work.git(&["reset", "-q", "--hard", "HEAD~"]);
    assert!(work.part().what.contains("only the reflog"), "thrown away");
}

#[test]
fn commits_beyond_a_limit_are_counted_only() {
    let work = Work::new();
    // Each one is undone and then made again on the branch, so that an examined one is not reported.
    for n in 0..MOST_TIPS + 3 {
        write(work.path(), "a.txt", &format!("{n}\n"));
        work.git(&["add", "."]);
        work.git(&["commit", "-qm", "a"]);
        work.git(&["reset", "-q", "--hard", "HEAD~"]);
    }
    for n in 0..MOST_TIPS + 3 {
        write(work.path(), "a.txt", &format!("{n}\n"));
        work.git(&["add", "."]);
        work.git(&["commit", "-qm", "again"]);
    }
    assert_eq!(work.part().what, "3 more commits that were not examined");
}

#[test]
fn checked_out_foreign_commits_are_not_named() {
    let fixture = Fixture::new();
    fixture.git(&["checkout", "-qb", "theirs"]);
    fixture.commit("theirs.txt", "x\n");
    fixture.git(&["checkout", "-q", "main"]);
    let work = Work::of(fixture);
    work.git(&["checkout", "-q", "--detach", "theirs"]);
    work.git(&["checkout", "-q", "work"]);
    assert_eq!(work.parts(), []);
    // Commits on a branch that is not the worker's are still reported.
    work.git(&["checkout", "-q", "theirs"]);
    commit(work.path(), "mine.txt", "x\n");
    write(work.path(), "left.txt", "x");
    let parts = work.parts();
    assert!(parts.iter().any(|part| part.what == "1 commit on branch theirs"), "{parts:#?}");
    assert!(parts.iter().any(|part| part.what.contains("left.txt")), "{parts:#?}");
}

#[test]
fn unborn_and_orphan_branches_are_named() {
    let work = Work::new();
    work.git(&["checkout", "-q", "--orphan", "fresh"]);
    write(work.path(), "new.txt", "x");
    let part = work.part();
    assert!(part.how_to_include.contains("HEAD is on fresh, which has no commit"), "{part:?}");
}

#[test]
fn only_stashes_of_the_worker_are_named() {
    let fixture = Fixture::new();
    fixture.write("readme.txt", "before\n");
    fixture.git(&["stash", "-q"]);
    let work = Work::of(fixture);
    work.fixture.write("readme.txt", "the user's\n");
    work.fixture.git(&["stash", "-q"]);
    assert_eq!(work.parts(), []);
    write(work.path(), "readme.txt", "mine\n");
    work.git(&["stash", "push", "-q", "-m", "for later"]);
    let part = work.part();
    assert_eq!(part.what, "a stash (On work: for later)");
    assert!(part.how_to_include.contains("git stash apply"), "{part:?}");
    work.git(&["stash", "drop", "-q"]);
    work.git(&["checkout", "-q", "--detach"]);
    write(work.path(), "readme.txt", "mine\n");
    work.git(&["stash", "-q"]);
    work.git(&["checkout", "-q", "work"]);
    assert!(work.part().what.starts_with("a stash (WIP on (no branch)"));
}

#[test]
fn detached_stash_belongs_to_its_worktree() {
    let work = Work::new();
    work.git(&["checkout", "-q", "-b", "renamed"]);
    work.fixture.git(&["checkout", "-q", "--detach"]);
    work.fixture.write("readme.txt", "the user's\n");
    work.fixture.git(&["stash", "-q"]);
    assert_eq!(work.parts(), []);
    work.git(&["checkout", "-q", "HEAD^0"]);
    assert_eq!(work.parts().len(), 1, "detached now");
    work.git(&["checkout", "-q", "renamed"]);
    assert_eq!(work.parts().len(), 1, "detached before");
}

#[test]
fn nested_repositories_are_named() {
    let work = Work::new();
    work.git(&["init", "-q", "nested"]);
    write(work.path(), "nested/file.txt", "x");
    work.git(&["init", "-q", "--bare", "bare.git"]);
    let places: Vec<String> = work.parts().into_iter().map(|part| part.place).collect();
    for name in ["nested", "bare.git"] {
        let place = work.path().join(name).display().to_string();
        assert!(places.iter().any(|it| it.trim_end_matches('/') == place), "{place} in {places:?}");
    }
    assert_eq!(places.len(), 2);
}

#[test]
fn repository_around_tracked_files_is_named() {
    let fixture = Fixture::new();
    fixture.commit("src/deep/a.txt", "x\n");
    let work = Work::of(fixture);
    work.git(&["init", "-q", "src"]);
    git(
        &work.path().join("src"),
        &["-c", "user.name=x", "-c", "user.email=x@y", "commit", "-q", "--allow-empty", "-m", "x"],
    );
    let part = work.part();
    assert!(part.place.ends_with("/src") && part.what.contains("commits of a nested repository"), "{part:?}");
}

#[test]
fn nested_worktree_is_named_with_its_commits() {
    let work = Work::new();
    work.git(&["worktree", "add", "-q", "-b", "side", "inner"]);
    let inner = work.path().join("inner");
    assert_eq!(work.parts(), []);
    write(&inner, "left.txt", "x");
    assert!(work.part().what.contains("in a nested worktree: left.txt"));
    git(&inner, &["add", "."]);
    git(&inner, &["commit", "-qm", "side"]);
    assert_eq!(work.part().what, "1 commit on branch side");
}

#[test]
fn gitlink_to_a_local_commit_is_named() {
    let work = Work::new();
    work.git(&["init", "-q", "-b", "main", "nested"]);
    let nested = work.path().join("nested");
    identify(&nested);
    commit(&nested, "file.txt", "x\n");
    work.git(&["-c", "advice.addEmbeddedRepo=false", "add", "nested"]);
    work.git(&["commit", "-qm", "a link"]);
    let parts = work.parts();
    assert!(parts.iter().any(|part| part.what.contains("only links to its commit")), "{parts:#?}");
}

#[test]
fn ignored_files_are_named_without_tool_output() {
    let fixture = Fixture::new();
    fixture.write(".worktreeinclude", ".env\n");
    fixture.write(".env", "SECRET=1\n");
    fixture.commit(".gitignore", ".env\n*.key\nnode_modules/\nout/\nsite/\n__pycache__/\n*.pyc\n");
    let work = Work::of(fixture);
    assert_eq!(work.made.copies.len(), 1);
    write(work.path(), "node_modules/x/index.js", "x");
    write(work.path(), "pkg/__pycache__/x.pyc", "x");
    write(work.path(), "site/x.pyc", "x");
    assert_eq!(work.parts(), []);
    write(work.path(), "deep/my.key", "x");
    write(work.path(), "out/a.csv", "x");
    write(work.path(), "out/b/c.csv", "x");
    let part = work.part();
    assert_eq!(part.what, "files that git ignores: deep/my.key, out/ (2 files)");
    let Some(PartFiles::Ignored(paths)) = &part.files else { panic!("{part:?}") };
    let still =
        || still_ignored(work.path(), &uncommitted_and_ignored(&at(work.path())).unwrap().ignored, paths.as_deref());
    write(work.path(), "later.key", "x");
    assert_eq!(still(), Some(part.clone()));
    std::fs::remove_dir_all(work.path().join("out")).unwrap();
    std::fs::remove_file(work.path().join("deep/my.key")).unwrap();
    assert_eq!(still(), None);
    write(work.path(), ".env", "SECRET=2\n");
    std::fs::remove_file(work.path().join("later.key")).unwrap();
    assert!(work.part().what.contains("copied there by .worktreeinclude: .env"));
}

#[test]
fn repository_in_ignored_folder_is_named() {
    let fixture = Fixture::new();
    fixture.commit(".gitignore", "tmp/\n");
    let work = Work::of(fixture);
    work.git(&["init", "-q", "tmp/c"]);
    assert_eq!(work.part().what, "files that git ignores: tmp/ (a repository at tmp/c)");
    write(work.path(), "tmp/a.txt", "x");
    assert_eq!(work.part().what, "files that git ignores: tmp/ (a repository at tmp/c, 1 file)");
}

#[test]
fn names_of_ignored_files_are_not_parsed() {
    let fixture = Fixture::new();
    fixture.commit(".gitignore", "*.key\n");
    let work = Work::of(fixture);
    let still = |recorded: &NotOnBranch| {
        let Some(PartFiles::Ignored(paths)) = &recorded.files else { panic!("{recorded:?}") };
        still_ignored(work.path(), &uncommitted_and_ignored(&at(work.path())).unwrap().ignored, paths.as_deref())
            .map(|part| part.what)
    };
    write(work.path(), "one, two.key", "x");
    write(work.path(), "and 3 more.key", "x");
    let recorded = work.part();
    write(work.path(), "later.key", "x");
    assert_eq!(still(&recorded).as_ref(), Some(&recorded.what));
    for n in 0..MOST_PARTS {
        write(work.path(), &format!("{n}.key"), "x");
    }
    let recorded = work.part();
    assert_eq!(recorded.files, Some(PartFiles::Ignored(None)));
    assert_eq!(still(&recorded).as_ref(), Some(&recorded.what));
}

#[test]
fn changes_behind_index_flags_are_named() {
    let fixture = Fixture::new();
    fixture.commit("marked.txt", "x\n");
    fixture.commit("skipped.txt", "x\n");
    let work = Work::of(fixture);
    work.git(&["update-index", "--assume-unchanged", "marked.txt"]);
    work.git(&["update-index", "--skip-worktree", "skipped.txt"]);
    assert_eq!(work.parts(), []);
    write(work.path(), "marked.txt", "changed\n");
    write(work.path(), "skipped.txt", "changed\n");
    let part = work.part();
    assert!(part.what.ends_with("treat as unchanged: marked.txt, skipped.txt"), "{part:?}");
}

#[test]
fn unreadable_folder_is_named() {
    let work = Work::new();
    write(work.path(), "closed/a.txt", "x");
    let closed = work.path().join("closed");
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o000)).unwrap();
    let parts = work.parts();
    let can_read = closed.read_dir().is_ok();
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o755)).unwrap();
    // The superuser can read the folder, so the file is an ordinary untracked one.
    let named = if can_read { "closed/a.txt" } else { "closed" };
    assert!(parts.iter().any(|part| part.what.contains(named)), "{parts:#?}");
}

#[test]
fn many_parts_are_bounded_and_counted() {
    let parts = (0..40).map(|n| part(format!("part {n}"), "here".to_owned(), "so".to_owned())).collect();
    let parts = bounded(parts);
    assert_eq!((parts.len(), parts.last().unwrap().what.as_str()), (MOST_PARTS, "29 more"));
}
