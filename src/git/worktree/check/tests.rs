use super::*;
use crate::git::repository::RepositoryError;
use crate::git::testing::Fixture;
use crate::git::worktree::create;
use std::fs;
use std::os::unix::fs::symlink;

fn request(branch: &str) -> Request {
    Request { branch: branch.to_owned(), ..Request::default() }
}

fn at(path: impl Into<PathBuf>) -> Request {
    Request { path: Some(path.into()), ..request("work") }
}

#[test]
fn names_git_refuses_or_misreads_are_invalid() {
    let fixture = Fixture::new();
    for name in
        ["-d", "--force", "", "a b", "a..b", "@{-1}", "@", "HEAD", "a/", "/a", ".a", "a.lock", "a\0b", "a\nb", "x~1"]
    {
        let error = check(&fixture.repo, &request(name)).unwrap_err();
        assert!(matches!(error, WorktreeError::InvalidBranch { .. }), "{name:?}: {error}");
    }
    for name in ["a", "ü/ö", "refs/x", "it's-$(id)"] {
        check(&fixture.repo, &request(name)).unwrap();
    }
}

#[test]
fn unknown_base_is_refused_by_name() {
    let fixture = Fixture::new();
    for base in ["nowhere", "--all", "-", "main..main", "HEAD:readme.txt"] {
        let request = Request { base: Some(base.to_owned()), ..request("work") };
        let error = check(&fixture.repo, &request).unwrap_err().to_string();
        assert!(error.contains(&format!("{base:?}")), "{error}");
    }
}

#[test]
fn base_is_a_branch_tag_or_commit() {
    let fixture = Fixture::new();
    let first = fixture.git(&["rev-parse", "HEAD"]);
    fixture.git(&["tag", "-am", "x", "v1"]);
    fixture.commit("more.txt", "x\n");
    for base in ["v1", &first, &first[..10], "main~1"] {
        let request = Request { base: Some(base.to_owned()), ..request("work") };
        assert_eq!(check(&fixture.repo, &request).unwrap().base_commit, first);
    }
}

#[test]
fn existing_branch_takes_only_its_own_base() {
    let fixture = Fixture::new();
    fixture.git(&["branch", "work"]);
    let other = fixture.commit("more.txt", "x\n");
    let with_base = |base: &str| Request { base: Some(base.to_owned()), ..request("work") };
    assert!(!check(&fixture.repo, &with_base("work")).unwrap().new_branch);
    let error = check(&fixture.repo, &with_base(&other)).unwrap_err();
    assert!(matches!(error, WorktreeError::BranchExists { .. }));
}

#[test]
fn checked_out_branch_names_its_worktree() {
    let fixture = Fixture::new();
    let made = create(&fixture.repo, &request("work"), None).unwrap();
    for (branch, place) in [("main", fixture.root()), ("work", &made.path)] {
        let error = check(&fixture.repo, &request(branch)).unwrap_err();
        assert!(matches!(error, WorktreeError::BranchInUse { .. }));
        let error = error.to_string();
        assert!(error.contains(place.to_str().unwrap()), "{error}");
    }
}

#[test]
fn branch_cannot_be_file_and_folder() {
    let fixture = Fixture::new();
    fixture.git(&["branch", "a/b"]);
    for (branch, in_the_way) in [("a", "a/b"), ("a/b/c", "a/b")] {
        let error = check(&fixture.repo, &request(branch)).unwrap_err();
        let WorktreeError::BranchInTheWay { existing, .. } = error else {
            panic!("{error}");
        };
        assert_eq!(existing, in_the_way);
    }
    check(&fixture.repo, &request("a/c")).unwrap();
    check(&fixture.repo, &request("ab")).unwrap();
}

#[test]
fn repository_without_commits_is_refused() {
    let fixture = Fixture::empty(&[]);
    let error = check(&fixture.repo, &request("work")).unwrap_err();
    assert!(matches!(error, WorktreeError::Repository(RepositoryError::NoCommits { .. })), "{error}");
}

#[test]
fn other_places_are_allowed_only_if_named() {
    let fixture = Fixture::new();
    let outside = tempfile::tempdir().unwrap();
    let outside = outside.path().canonicalize().unwrap();
    for path in ["inside/deep", "../beside", "x/../y"] {
        if path.contains("x/") {
            fs::create_dir(fixture.root().join("x")).unwrap();
        }
        check(&fixture.repo, &at(path)).unwrap();
    }
    let far = outside.join("far");
    for path in [PathBuf::from("../.."), "../beside/deeper".into(), far.clone()] {
        let error = check(&fixture.repo, &at(&path)).unwrap_err();
        assert!(matches!(error, WorktreeError::PathOutside { .. }), "{}: {error}", path.display());
    }
    let allowed = Request { allowed_roots: vec![outside.clone()], ..at(&far) };
    assert_eq!(check(&fixture.repo, &allowed).unwrap().place, PlannedPath::Given(far));
}

#[test]
fn links_and_parent_paths_stay_inside() {
    let fixture = Fixture::new();
    let outside = tempfile::tempdir().unwrap();
    symlink(outside.path(), fixture.root().join("link")).unwrap();
    symlink("nowhere", fixture.root().join("dangling")).unwrap();
    assert!(matches!(check(&fixture.repo, &at("link/work")), Err(WorktreeError::PathOutside { .. })));
    for path in ["missing/../../../work", "a\0b", "a\nb"] {
        let error = check(&fixture.repo, &at(path)).unwrap_err();
        assert!(matches!(error, WorktreeError::InvalidPath { .. }), "{path:?}: {error}");
    }
    assert!(matches!(check(&fixture.repo, &at("dangling/work")), Err(WorktreeError::ReadPath { .. })));
}

#[test]
fn places_in_use_are_refused() {
    let fixture = Fixture::new();
    fixture.write("full/file", "x");
    fs::create_dir(fixture.root().join("empty")).unwrap();
    check(&fixture.repo, &at("empty")).unwrap();
    for path in ["full", "readme.txt"] {
        let error = check(&fixture.repo, &at(path)).unwrap_err();
        assert!(matches!(error, WorktreeError::PathTaken { .. }), "{error}");
    }
    let error = check(&fixture.repo, &at(".git/hooks/x")).unwrap_err();
    assert!(matches!(error, WorktreeError::InvalidPath { .. }), "{error}");
    let made = create(&fixture.repo, &request("other"), None).unwrap();
    let error = check(&fixture.repo, &at(made.path.join("inner"))).unwrap_err();
    assert!(matches!(error, WorktreeError::PathInWorktree { .. }));
    fs::remove_dir_all(&made.path).unwrap();
    let error = check(&fixture.repo, &at(&made.path)).unwrap_err();
    assert!(matches!(error, WorktreeError::PathRegistered { .. }));
}

#[test]
fn default_place_follows_no_link_outside() {
    let fixture = Fixture::new();
    let outside = tempfile::tempdir().unwrap();
    symlink(outside.path(), fixture.root().join(".orchestrator")).unwrap();
    let error = check(&fixture.repo, &request("work")).unwrap_err();
    assert!(matches!(error, WorktreeError::PathOutside { .. }), "{error}");
    let allowed = Request { allowed_roots: vec![outside.path().to_owned()], ..request("work") };
    check(&fixture.repo, &allowed).unwrap();
}

#[test]
fn default_place_avoids_missing_worktrees() {
    let fixture = Fixture::new();
    let gone = create(&fixture.repo, &request("a/b"), None).unwrap();
    fs::remove_dir_all(&gone.path).unwrap();
    let made = create(&fixture.repo, &request("a-b"), None).unwrap();
    assert!(made.path.ends_with("a-b-2"), "{}", made.path.display());
}
