//! Integrates, lands and verifies in repositories that libgit2 cannot open or handles incorrectly.

use std::path::Path;

use super::tests::{Integrate, Integration, TestStatus, integrate};
use super::*;
use crate::git::testing::{Fixture, at, commit, git, identify, read, write};
use crate::git::{push, verification_tree};

const ALL: [Strategy; 3] = [Strategy::Merge, Strategy::Squash, Strategy::CherryPick];

/// Adds a commit each to `work` and `main`, which is checked out afterwards.
fn diverge(fixture: &Fixture) {
    fixture.git(&["checkout", "-q", "-b", "work"]);
    fixture.commit("work.txt", "work\n");
    fixture.git(&["checkout", "-q", "main"]);
    fixture.commit("main.txt", "main\n");
}

fn merge(repo: &Repository, strategy: Strategy) -> Integration {
    let (source, into, message) = ("work".to_owned(), "main".to_owned(), "merge".to_owned());
    let dry = Integrate { source, into, strategy, message, dry_run: true };
    assert_eq!(integrate(repo, &dry).unwrap().status, TestStatus::WouldMerge);
    integrate(repo, &Integrate { dry_run: false, ..dry }).unwrap()
}

/// Checks that the work is in the branch and its checkout, and can be verified.
fn assert_integrated(repo: &Repository, done: &Integration, verified_at: &Path) {
    assert_eq!(done.status, TestStatus::Merged);
    assert_eq!(read(repo.root(), "work.txt"), "work\n");
    assert_eq!(git(repo.root(), &["status", "--porcelain"]), "");
    verification_tree::make(repo, verified_at, done.commit.as_ref().unwrap()).unwrap();
    assert_eq!((read(verified_at, "work.txt"), read(verified_at, "main.txt")), ("work\n".into(), "main\n".into()));
    verification_tree::remove(repo, verified_at).unwrap();
}

fn works_everywhere(options: &[&str]) {
    for strategy in ALL {
        let fixture = Fixture::empty(options);
        fixture.commit("readme.txt", "hello\n");
        diverge(&fixture);
        assert_integrated(&fixture.repo, &merge(&fixture.repo, strategy), &fixture.beside("verification"));
    }
}

#[test]
fn sha256_repository_is_integrated() {
    works_everywhere(&["--object-format=sha256"]);
}

#[test]
fn reftable_repository_is_integrated() {
    let folder = tempfile::tempdir().unwrap();
    let known = Git::write(&at(folder.path())).args(["init", "-q", "--ref-format=reftable"]).succeeds();
    if !known.unwrap_or(false) {
        eprintln!("skipped: this git has no reftable");
        assert!(std::env::var_os("CI").is_none(), "CI has a git with reftable");
        return;
    }
    works_everywhere(&["--ref-format=reftable"]);
}

#[test]
fn partial_clone_is_integrated() {
    for strategy in ALL {
        let fixture = Fixture::new();
        diverge(&fixture);
        fixture.git(&["config", "uploadpack.allowFilter", "true"]);
        fixture.git(&["config", "uploadpack.allowAnySHA1InWant", "true"]);
        let (clone, url) = (fixture.beside("partial"), format!("file://{}", fixture.root().display()));
        fixture.git(&["clone", "-q", "--filter=blob:none", &url, clone.to_str().unwrap()]);
        identify(&clone);
        git(&clone, &["branch", "-q", "--no-track", "work", "origin/work"]);
        let repo = Repository::discover(&clone, &crate::git::Trust::everything()).unwrap().unwrap();
        assert_integrated(&repo, &merge(&repo, strategy), &fixture.beside("verification"));
    }
}

#[test]
fn submodule_commits_are_integrated_and_verified() {
    for strategy in ALL {
        let (fixture, library) = (Fixture::new(), Fixture::new());
        let url = library.root().to_str().unwrap();
        fixture.git(&["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", url, "lib"]);
        fixture.git(&["commit", "-qm", "lib"]);
        fixture.git(&["checkout", "-q", "-b", "work"]);
        let lib = fixture.root().join("lib");
        identify(&lib);
        let newer = commit(&lib, "more.txt", "more\n");
        fixture.commit("work.txt", "work\n");
        git(&lib, &["checkout", "-q", "HEAD~1"]);
        fixture.git(&["checkout", "-q", "main"]);
        fixture.commit("main.txt", "main\n");
        let done = merge(&fixture.repo, strategy);
        assert_eq!(done.status, TestStatus::Merged);
        // As after the user's own merge, the submodule's checkout is not updated.
        assert_eq!(fixture.git(&["rev-parse", "main:lib"]), newer);
        assert_ne!(git(&lib, &["rev-parse", "HEAD"]), newer);
        assert!(!crate::git::lacks_submodules(&fixture.repo, "main"));
        let tree = fixture.beside("verification");
        verification_tree::make(&fixture.repo, &tree, &done.commit.unwrap()).unwrap();
        assert_eq!(git(&tree.join("lib"), &["rev-parse", "HEAD"]), newer);
        verification_tree::remove(&fixture.repo, &tree).unwrap();
    }
}

#[test]
fn filters_apply_to_integrated_files() {
    for strategy in ALL {
        let fixture = Fixture::new();
        fixture.git(&["config", "filter.shout.clean", "tr a-z A-Z"]);
        fixture.git(&["config", "filter.shout.smudge", "tr A-Z a-z"]);
        fixture.commit(".gitattributes", "*.txt filter=shout\n");
        fixture.git(&["add", "--renormalize", "."]);
        fixture.git(&["commit", "-q", "--allow-empty", "-m", "all of them"]);
        diverge(&fixture);
        assert_eq!(fixture.git(&["cat-file", "blob", "work:work.txt"]), "WORK");
        assert_integrated(&fixture.repo, &merge(&fixture.repo, strategy), &fixture.beside("verification"));
    }
}

#[test]
fn sparse_checkout_is_integrated() {
    for strategy in ALL {
        let fixture = Fixture::new();
        fixture.commit("in/a.txt", "a\n");
        fixture.commit("out/b.txt", "b\n");
        fixture.git(&["checkout", "-q", "-b", "work"]);
        fixture.commit("out/b.txt", "b of work\n");
        fixture.commit("work.txt", "work\n");
        fixture.git(&["checkout", "-q", "main"]);
        fixture.commit("main.txt", "main\n");
        fixture.git(&["sparse-checkout", "set", "in"]);
        assert_integrated(&fixture.repo, &merge(&fixture.repo, strategy), &fixture.beside("verification"));
        assert!(!fixture.root().join("out").exists(), "the sparse checkout stays sparse");
        assert_eq!(fixture.git(&["show", "main:out/b.txt"]), "b of work");
    }
}

#[test]
fn line_endings_follow_the_users_settings() {
    let fixture = Fixture::new();
    fixture.git(&["config", "core.autocrlf", "true"]);
    diverge(&fixture);
    let done = merge(&fixture.repo, Strategy::Merge);
    assert_eq!(done.status, TestStatus::Merged);
    assert_eq!(read(fixture.root(), "work.txt"), "work\r\n");
    assert_eq!(fixture.git(&["status", "--porcelain"]), "");
}

#[test]
fn bare_repository_is_integrated_and_pushed() {
    let fixture = Fixture::new();
    diverge(&fixture);
    let (bare, remote) = (fixture.beside("bare.git"), fixture.beside("remote.git"));
    for to in [&bare, &remote] {
        fixture.git(&["clone", "-q", "--bare", ".", to.to_str().unwrap()]);
    }
    for setting in [
        ["user.name", "B"],
        ["user.email", "b@example.org"],
        ["branch.main.remote", "home"],
        ["branch.main.merge", "refs/heads/main"],
        ["remote.home.fetch", "+refs/heads/*:refs/remotes/home/*"],
    ] {
        git(&bare, &[&["config"][..], &setting].concat());
    }
    git(&bare, &["config", "remote.home.url", remote.to_str().unwrap()]);
    git(&bare, &["fetch", "-q", "home"]);
    let repo = Repository::discover(&bare, &crate::git::Trust::everything()).unwrap().unwrap();
    let done = merge(&repo, Strategy::Squash);
    assert_eq!(push::push(&repo, "main", false).unwrap().result, push::PushResult::Pushed);
    assert_eq!(git(&remote, &["rev-parse", "main"]), done.commit.unwrap());
}

#[test]
fn merge_attributes_come_from_the_target() {
    let fixture = Fixture::new();
    write(fixture.root(), ".gitattributes", "*.log merge=union\n");
    fixture.commit("a.log", "first\n");
    fixture.git(&["checkout", "-q", "-b", "work"]);
    fixture.commit("a.log", "first\nwork\n");
    fixture.git(&["checkout", "-q", "main"]);
    fixture.commit("a.log", "first\nmain\n");
    fixture.git(&["checkout", "-q", "--detach", "main~2"]);
    let done = merge(&fixture.repo, Strategy::Merge);
    assert_eq!(done.status, TestStatus::Merged);
    assert_eq!(fixture.git(&["show", "main:a.log"]), "first\nmain\nwork");
}
