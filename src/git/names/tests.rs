use super::*;
use crate::git::check::{Request, check};
use crate::git::testing::{Fixture, git};
use crate::git::worktree::{WorktreeError, create};
use crate::mission::hint::with_hints;

/// Creates a repository whose remote `origin` has `main` and `shared`; `shared` does not exist locally.
fn with_remote() -> Fixture {
    let fixture = Fixture::new();
    let origin = fixture.beside("origin.git");
    fixture.git(&["branch", "shared"]);
    fixture.git(&["clone", "-q", "--bare", ".", origin.to_str().unwrap()]);
    fixture.git(&["branch", "-qD", "shared"]);
    fixture.git(&["remote", "add", "origin", origin.to_str().unwrap()]);
    fixture.git(&["fetch", "-q", "origin"]);
    fixture.commit("more.txt", "x\n");
    fixture
}

fn found(fixture: &Fixture, name: &str) -> Result<String, RepositoryError> {
    commit(&fixture.repo, &fixture.repo.checkout(), name)
}

#[test]
fn ambiguous_name_is_refused_with_its_meanings() {
    let fixture = with_remote();
    let first = fixture.git(&["rev-parse", "HEAD~1"]);
    fixture.git(&["tag", "main", &first]);
    let second = fixture.git(&["rev-parse", "HEAD"]);
    let make = |name: &str, commit: &str| fixture.git(&["update-ref", name, commit]);
    make("refs/heads/origin/main", &second);
    make("refs/tags/shared", &second);
    make("refs/heads/HEAD", &first);
    make(&format!("refs/heads/{}", &first[..8]), &second);
    make(&format!("refs/heads/{first}"), &second);
    let cases = [
        ("main", ["refs/heads/main", "refs/tags/main"]),
        ("main~1", ["refs/heads/main", "refs/tags/main"]),
        ("main^{commit}", ["refs/heads/main", "refs/tags/main"]),
        ("origin/main", ["refs/heads/origin/main", "refs/remotes/origin/main"]),
        ("shared", ["refs/tags/shared", "refs/remotes/origin/shared"]),
        ("HEAD", ["HEAD", "refs/heads/HEAD"]),
        (&first[..8], [&*format!("refs/heads/{}", &first[..8]), "commit"]),
        (&first, [&*format!("refs/heads/{first}"), "commit"]),
    ]
    .map(|(name, meanings)| (name.to_owned(), meanings.map(str::to_owned)));
    for (name, meanings) in cases {
        let error = found(&fixture, &name).unwrap_err().to_string();
        assert!(meanings.iter().all(|meaning| error.contains(meaning)), "{name}: {error}");
    }
    let head = fixture.git(&["rev-parse", "refs/heads/main"]);
    for (full, expected) in
        [("refs/heads/main", &head), ("refs/tags/main", &first), ("refs/remotes/origin/main", &first)]
    {
        assert_eq!(found(&fixture, full).unwrap(), *expected, "{full}");
    }
}

#[test]
fn unambiguous_name_resolves_to_its_commit() {
    let fixture = with_remote();
    let (head, first) = (fixture.git(&["rev-parse", "HEAD"]), fixture.git(&["rev-parse", "HEAD~1"]));
    fixture.git(&["tag", "-am", "x", "v1", &first]);
    fixture.git(&["tag", "same"]);
    fixture.git(&["branch", "same"]);
    fixture.git(&["branch", "feed"]);
    let cases = [
        ("main", &head),
        ("HEAD", &head),
        ("@", &head),
        ("same", &head),
        ("feed", &head),
        ("heads/main", &head),
        ("v1", &first),
        ("v1^{commit}", &first),
        ("main~1", &first),
        ("shared", &first),
        ("origin/shared", &first),
        (&first[..9], &first),
        (&first, &first),
    ];
    for (name, expected) in cases {
        assert_eq!(found(&fixture, name).unwrap(), *expected, "{name}");
    }
    for name in ["nothing", "", "-x", "main..main", "HEAD^{tree}", "main:readme.txt", "@{-1}"] {
        assert!(matches!(found(&fixture, name), Err(RepositoryError::UnknownCommit { .. })), "{name:?}");
    }
}

#[test]
fn head_comes_from_the_working_tree() {
    let fixture = Fixture::new();
    let linked = fixture.beside("linked");
    fixture.git(&["worktree", "add", "-q", "-b", "other", linked.to_str().unwrap()]);
    let there = crate::git::testing::commit(&linked, "there.txt", "x\n");
    assert_eq!(commit(&fixture.repo, &fixture.repo.at(&linked), "HEAD").unwrap(), there);
    let request = Request { tree: Some(linked), branch: "work".into(), ..Request::default() };
    assert_eq!(check(&fixture.repo, &request).unwrap().base_commit, there);
}

#[test]
fn remote_branch_is_adopted_at_its_commit() {
    let fixture = with_remote();
    let first = fixture.git(&["rev-parse", "HEAD~1"]);
    let start = Some(fixture.git(&["rev-parse", "HEAD"]));
    let shared = Request { branch: "shared".into(), start, ..Request::default() };
    let with_base = Request { base: Some("main".into()), ..shared.clone() };
    let error = check(&fixture.repo, &with_base).unwrap_err();
    assert!(matches!(error, WorktreeError::RemoteHasBranch { .. }), "{error}");
    let made_up = Request { is_made_up: true, ..shared.clone() };
    assert_ne!(check(&fixture.repo, &made_up).unwrap().base_commit, first);

    let made = create(&fixture.repo, &shared, None).unwrap();
    assert_eq!((made.base_commit, made.created_branch), (first.clone(), true));
    assert_eq!(git(&made.path, &["rev-parse", "--abbrev-ref", "@{u}"]), "origin/shared");

    fixture.git(&["update-ref", "refs/remotes/origin/into", &first]);
    assert_eq!(tip(&fixture.repo, "into").unwrap(), Some(first));
    assert!(adopt(&fixture.repo, "into").unwrap());
    assert!(!adopt(&fixture.repo, "into").unwrap());
    assert_eq!(fixture.git(&["rev-parse", "--abbrev-ref", "into@{u}"]), "origin/into");
    assert!(!adopt(&fixture.repo, "nowhere").unwrap());
}

#[test]
fn remote_branches_are_found_by_their_refspecs() {
    let fixture = with_remote();
    for (name, refspec) in [
        ("origin", "+refs/heads/*:refs/remotes/team/up-*"),
        ("one", "refs/heads/shared:refs/remotes/one/renamed"),
        ("none", "+refs/tags/*:refs/tags/none/*"),
    ] {
        fixture.git(&["config", &format!("remote.{name}.url"), "x"]);
        fixture.git(&["config", "--replace-all", &format!("remote.{name}.fetch"), refspec]);
    }
    let expected = [("one", "refs/remotes/one/renamed"), ("origin", "refs/remotes/team/up-shared")];
    let expected = expected.map(|(remote, place)| (remote.to_owned(), place.to_owned()));
    let mut found = ask_remote_places(&fixture.repo, "shared").unwrap();
    let mut same = refs::remote_places(fixture.root(), "shared").unwrap();
    found.sort();
    same.sort();
    assert_eq!((found.as_slice(), same.as_slice()), (&expected[..], &expected[..]));
}

#[test]
fn default_remote_decides_among_several() {
    let fixture = with_remote();
    fixture.git(&["remote", "add", "team/fork", "/nowhere"]);
    fixture.git(&["update-ref", "refs/remotes/team/fork/shared", "HEAD"]);
    let error = remote_branch(&fixture.repo, "shared").unwrap_err().to_string();
    assert!(error.contains("origin") && error.contains("team/fork"), "{error}");
    fixture.git(&["config", "checkout.defaultRemote", "team/fork"]);
    assert_eq!(remote_branch(&fixture.repo, "shared").unwrap().unwrap().remote, "team/fork");
}

#[test]
fn tags_and_remote_branches_are_no_branch_names() {
    let fixture = with_remote();
    let refused = |branch: &str| {
        let request = Request { branch: branch.into(), ..Request::default() };
        with_hints(&check(&fixture.repo, &request).unwrap_err())
    };
    assert!(refused("origin/shared").contains("use shared to continue"), "{}", refused("origin/shared"));
    assert!(refused("refs/tags/v1").contains("a tag"), "{}", refused("refs/tags/v1"));
    assert!(refused("refs/remotes/origin/main").contains("a remote's branch"));
    let full = Request { branch: "refs/heads/work".into(), ..Request::default() };
    assert_eq!(check(&fixture.repo, &full).unwrap().branch, "work");
}

#[test]
fn tag_does_not_affect_a_branch() {
    let fixture = Fixture::new();
    let first = fixture.git(&["rev-parse", "HEAD"]);
    fixture.git(&["branch", "work"]);
    fixture.commit("more.txt", "x\n");
    fixture.git(&["tag", "work"]);
    let made = fixture.worktree("work");
    assert_eq!((made.base_commit, made.created_branch), (first.clone(), false));
    assert_eq!(git(&made.path, &["rev-parse", "HEAD"]), first);
    assert_eq!(git(&made.path, &["symbolic-ref", "HEAD"]), "refs/heads/work");
}

#[test]
fn names_that_differ_in_case_collide() {
    let fixture = Fixture::new();
    fixture.git(&["branch", "Feature"]);
    let feature = |branch: &str| check(&fixture.repo, &Request { branch: branch.into(), ..Request::default() });
    fixture.git(&["config", "core.ignorecase", "false"]);
    feature("feature").unwrap();
    fixture.git(&["config", "core.ignorecase", "true"]);
    for name in ["feature", "feature/one", "MAIN"] {
        assert!(matches!(feature(name), Err(WorktreeError::BranchInTheWay { .. })), "{name}");
    }
    feature("Feature").unwrap();
}

#[test]
fn git_resolves_what_libgit2_cannot_read() {
    for option in ["--object-format=sha256", "--ref-format=reftable"] {
        let fixture = Fixture::empty(&[option]);
        let first = fixture.commit("a.txt", "x\n");
        fixture.commit("a.txt", "y\n");
        fixture.git(&["tag", "main", &first]);
        fixture.git(&["remote", "add", "origin", "/nowhere"]);
        fixture.git(&["update-ref", "refs/remotes/origin/shared", &first]);
        assert!(matches!(found(&fixture, "main"), Err(RepositoryError::Ambiguous { .. })), "{option}");
        assert_eq!(remote_branch(&fixture.repo, "shared").unwrap().unwrap().commit, first, "{option}");
    }
}

#[test]
fn revision_is_no_branch() {
    let fixture = with_remote();
    fixture.commit("most.txt", "x\n");
    assert!(tip(&fixture.repo, "main").unwrap().is_some() && tip(&fixture.repo, "shared").unwrap().is_some());
    for name in ["main~1", "main^", "main^{commit}", "main@{1}", "shared~0", "main:", "@", "HEAD"] {
        assert_eq!(tip(&fixture.repo, name).unwrap(), None, "{name}");
    }
}
