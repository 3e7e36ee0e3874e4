use super::*;
use crate::git::testing::{Fixture, commit, git, read, write};
use crate::git::{Remove, Request, Worktree, create, remove};

/// A repository with a worktree whose worker has a clone.
struct Cloned {
    fixture: Fixture,
    made: Worktree,
}

impl Cloned {
    fn new() -> Cloned {
        Cloned::of(Fixture::new())
    }

    fn of(fixture: Fixture) -> Cloned {
        let made = create(&fixture.repo, &Request { branch: "work".into(), ..Request::default() }, None).unwrap();
        let cloned = Cloned { fixture, made };
        cloned.enter();
        cloned
    }

    fn enter(&self) {
        enter(&self.fixture.repo, &self.made.path, "work", "w-1").unwrap();
        assert!(self.made.path.join(".git").is_dir());
    }

    fn back(&self) -> Result<Returned, CloneError> {
        bring_back(&self.fixture.repo, &self.made.path)
    }

    /// Takes the clone back, after which the worktree is a usual one.
    fn leave(&self) {
        self.back().unwrap();
        assert!(self.made.path.join(".git").is_file());
        crate::git::check_in_place(&self.fixture.repo, &self.made.path).unwrap();
        self.fixture.git(&["fsck", "--no-dangling"]);
    }

    fn git(&self, args: &[&str]) -> String {
        git(&self.made.path, args)
    }

    fn commit(&self, name: &str) -> String {
        commit(&self.made.path, name, "x\n")
    }

    fn refs(&self) -> String {
        self.fixture.git(&["for-each-ref", "--format=%(refname) %(objectname)"])
    }

    fn folder(&self) -> PathBuf {
        Place::of(&self.fixture.repo, &self.made.path).unwrap().folder()
    }
}

#[test]
fn unused_clone_changes_nothing() {
    let cloned = Cloned::of(Fixture::new());
    cloned.leave();
    let before = cloned.refs();
    cloned.enter();
    assert_eq!(cloned.git(&["status", "--porcelain", "--branch"]), "## work");
    cloned.leave();
    assert_eq!(cloned.refs(), before);
    assert_eq!(cloned.git(&["status", "--porcelain", "--branch"]), "## work");
}

#[test]
fn everything_that_a_worker_made_comes_back() {
    let cloned = Cloned::new();
    let first = cloned.commit("a.txt");
    cloned.git(&["checkout", "-q", "-b", "other"]);
    let other = cloned.commit("other.txt");
    cloned.git(&["tag", "-a", "-m", "note", "v1"]);
    cloned.git(&["checkout", "-q", "work"]);
    let undone = cloned.commit("undone.txt");
    cloned.git(&["reset", "-q", "--hard", "HEAD~1"]);
    for text in ["one", "two"] {
        write(&cloned.made.path, "a.txt", text);
        cloned.git(&["stash"]);
    }
    let stashes = cloned.git(&["stash", "list", "--format=%H"]);
    write(&cloned.made.path, "staged.txt", "staged\n");
    cloned.git(&["add", "staged.txt"]);
    write(&cloned.made.path, "untracked.txt", "x\n");
    cloned.leave();
    assert_eq!(cloned.fixture.git(&["rev-parse", "work"]), first);
    assert_eq!(cloned.git(&["status", "--porcelain", "--branch"]), "## work\nA  staged.txt\n?? untracked.txt");
    assert_eq!(cloned.git(&["show", ":staged.txt"]), "staged");
    assert_eq!(cloned.fixture.git(&["rev-parse", "refs/orchestrator/clones/w-1/heads/other"]), other);
    assert!(cloned.git(&["reflog", "--format=%H"]).contains(&undone));
    let found: Vec<String> =
        super::stashes(&cloned.fixture.repo, &cloned.made.path).unwrap().into_iter().map(|(id, _)| id).collect();
    assert!(stashes.lines().count() == 2 && stashes.lines().all(|id| found.iter().any(|it| it == id)), "{found:?}");
    for of_user in ["refs/heads/other", "refs/tags/v1", "refs/stash"] {
        assert!(!cloned.refs().lines().any(|line| line.starts_with(&format!("{of_user} "))), "{of_user}");
    }
    cloned.fixture.git(&["gc", "-q", "--prune=now"]);
    cloned.git(&["commit", "-qm", "staged"]);
    // The next clone goes on where the last one ended.
    cloned.enter();
    assert_eq!(cloned.git(&["rev-parse", "other"]), other);
    assert_eq!(cloned.git(&["stash", "list", "--format=%H"]), stashes);
    assert_eq!(cloned.git(&["log", "-1", "--format=%s"]), "staged");
    assert_eq!(cloned.git(&["cat-file", "-t", "v1"]), "tag");
    cloned.git(&["branch", "-D", "other"]);
    cloned.git(&["stash", "clear"]);
    cloned.leave();
    assert!(!cloned.refs().contains("heads/other") && !cloned.refs().contains("stashes/"), "{}", cloned.refs());
}

#[test]
fn tags_of_a_clone_survive_pruning_and_removal() {
    let cloned = Cloned::new();
    let fixture = &cloned.fixture;
    cloned.commit("a.txt");
    for tag in ["v1", "v2"] {
        cloned.git(&["tag", "-a", "-m", "note of a tag", tag]);
    }
    let ids: Vec<String> = ["v1", "v2"].map(|tag| cloned.git(&["rev-parse", tag])).into();
    cloned.leave();
    fixture.git(&["merge", "-q", "work"]);
    // In the next clone, the tags are borrowed.
    cloned.enter();
    fixture.git(&["gc", "-q", "--prune=now"]);
    assert_eq!(cloned.git(&["rev-parse", "v1", "v2"]).lines().collect::<Vec<_>>(), ids);
    cloned.leave();
    let open = || tags(&fixture.repo, &cloned.made.path).unwrap();
    assert_eq!(open(), [("v1".to_owned(), ids[0].clone()), ("v2".to_owned(), ids[1].clone())]);
    // The user takes one.
    fixture.git(&["update-ref", "refs/tags/v1", &ids[0]]);
    assert_eq!(open(), [("v2".to_owned(), ids[1].clone())]);
    let request = Remove { path: cloned.made.path.clone(), salvage_name: "w-1".into(), ..Remove::default() };
    let removed = remove(&fixture.repo, &request).unwrap();
    let kept = fixture.git(&["log", "-1", "--format=%B", &removed.salvage_ref.unwrap().name]);
    assert!(kept.contains("tag v2") && kept.contains("note of a tag") && !kept.contains("tag v1"), "{kept}");
    assert!(!cloned.refs().contains(HELD));
}

#[test]
fn commits_of_worktrees_in_a_clone_come_back() {
    let cloned = Cloned::new();
    let inner = cloned.made.path.join("inner");
    cloned.git(&["worktree", "add", "-q", "--detach", "inner"]);
    let made = commit(&inner, "inner.txt", "x\n");
    cloned.leave();
    assert_eq!(cloned.fixture.git(&["cat-file", "-t", &made]), "commit");
    assert_eq!(nested(&cloned.fixture.repo, &cloned.made.path).unwrap(), [made]);
    assert!(inner.join("inner.txt").exists());
}

#[test]
fn detached_head_and_unfinished_merge_come_back() {
    let cloned = Cloned::new();
    cloned.git(&["checkout", "-q", "-b", "side"]);
    commit(&cloned.made.path, "readme.txt", "side\n");
    cloned.git(&["checkout", "-q", "work"]);
    commit(&cloned.made.path, "readme.txt", "work\n");
    cloned.git(&["checkout", "-q", "--detach"]);
    let head = cloned.commit("detached.txt");
    assert!(
        !crate::git::Git::write(&crate::git::testing::at(&cloned.made.path))
            .args(["merge", "-q", "side"])
            .succeeds()
            .unwrap()
    );
    cloned.leave();
    assert_eq!(cloned.git(&["rev-parse", "HEAD"]), head);
    assert_eq!(cloned.git(&["status", "--porcelain"]), "UU readme.txt");
    assert_eq!(
        cloned.git(&["rev-parse", "MERGE_HEAD"]),
        cloned.fixture.git(&["rev-parse", "refs/orchestrator/clones/w-1/heads/side"])
    );
    cloned.enter();
    write(&cloned.made.path, "readme.txt", "both\n");
    cloned.git(&["commit", "-qam", "both"]);
    cloned.leave();
    assert_eq!(cloned.git(&["log", "-1", "--format=%s %p"]).split(' ').count(), 3);
}

#[test]
fn clone_and_repository_share_no_names() {
    let cloned = Cloned::new();
    let main = cloned.fixture.git(&["rev-parse", "main"]);
    cloned.git(&["checkout", "-q", "main"]);
    let theirs = cloned.commit("on-main.txt");
    cloned.git(&["config", "alias.planted", "status"]);
    cloned.leave();
    assert_eq!(cloned.fixture.git(&["rev-parse", "main"]), main);
    assert_eq!(cloned.git(&["rev-parse", "HEAD"]), theirs);
    assert!(!read(&cloned.fixture.repo.common_dir, "config").contains("planted"));
    cloned.fixture.commit("users.txt", "x\n");
    cloned.enter();
    assert_eq!(cloned.git(&["config", "alias.planted"]), "status");
    cloned.leave();
}

#[test]
fn branch_that_the_user_moved_stays() {
    let cloned = Cloned::new();
    let made = cloned.commit("a.txt");
    let users = cloned.fixture.commit("users.txt", "x\n");
    cloned.fixture.git(&["update-ref", "refs/heads/work", &users]);
    cloned.leave();
    assert_eq!(cloned.fixture.git(&["rev-parse", "work"]), users);
    assert_eq!(cloned.git(&["rev-parse", "HEAD"]), made);
}

#[test]
fn every_storage_of_git_works() {
    for option in ["--object-format=sha256", "--ref-format=reftable"] {
        let fixture = Fixture::empty(&[option]);
        fixture.commit("readme.txt", "hello\n");
        let cloned = Cloned::of(fixture);
        let made = cloned.commit("a.txt");
        cloned.git(&["checkout", "-q", "-b", "other"]);
        let other = cloned.commit("b.txt");
        cloned.git(&["checkout", "-q", "work"]);
        cloned.leave();
        assert_eq!(cloned.fixture.git(&["rev-parse", "work"]), made, "{option}");
        assert_eq!(cloned.fixture.git(&["rev-parse", "refs/orchestrator/clones/w-1/heads/other"]), other);
    }
    let cloned = Cloned::new();
    let made = cloned.commit("a.txt");
    // Git cannot migrate logs yet.
    fs::remove_dir_all(cloned.made.path.join(".git/logs")).unwrap();
    cloned.git(&["refs", "migrate", "--ref-format=reftable"]);
    let more = cloned.commit("b.txt");
    cloned.leave();
    assert_eq!(cloned.fixture.git(&["log", "--format=%H", "main..work"]), format!("{more}\n{made}"));
}

#[test]
fn shallow_repository_works() {
    let origin = Fixture::new();
    origin.commit("b.txt", "x\n");
    let fixture = Fixture::empty(&[]);
    let url = format!("file://{}", origin.root().display());
    fixture.git(&["remote", "add", "origin", &url]);
    fixture.git(&["fetch", "-q", "--depth=1", "origin", "main"]);
    fixture.git(&["reset", "-q", "--hard", "FETCH_HEAD"]);
    let cloned = Cloned::of(fixture);
    let made = cloned.commit("a.txt");
    cloned.git(&["fetch", "-q", "--unshallow", "origin", "main"]);
    cloned.leave();
    assert_eq!(cloned.fixture.git(&["rev-parse", "work"]), made);
}

#[test]
fn unsupported_repository_is_refused_with_the_reason() {
    let why = |fixture: &Fixture| {
        let made = fixture.worktree("work");
        refusal(&fixture.repo, &made.path).unwrap()
    };
    assert_eq!(why(&Fixture::new()), None);
    let fixture = Fixture::new();
    fixture.add_library();
    assert_eq!(why(&fixture).unwrap(), "the repository has submodules");
    let fixture = Fixture::new();
    fixture.commit("deep/.gitattributes", "*.bin filter=lfs\n");
    assert_eq!(why(&fixture).unwrap(), "the repository uses git-lfs");
    let fixture = Fixture::new();
    fixture.git(&["config", "remote.origin.promisor", "true"]);
    assert_eq!(why(&fixture).unwrap(), "the repository is a partial clone");
}

#[test]
fn deleted_or_replaced_clone_is_no_obstacle() {
    for what in ["deleted", "file", "link", "folder", "link to a folder"] {
        let cloned = Cloned::new();
        let dot_git = cloned.made.path.join(".git");
        fs::remove_dir_all(&dot_git).unwrap();
        let elsewhere = cloned.fixture.beside("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        write(&elsewhere, "kept", "x");
        match what {
            "file" => fs::write(&dot_git, format!("gitdir: {}\n", elsewhere.display())).unwrap(),
            "link" => std::os::unix::fs::symlink("/nowhere", &dot_git).unwrap(),
            "folder" => fs::create_dir(&dot_git).unwrap(),
            "link to a folder" => std::os::unix::fs::symlink(&elsewhere, &dot_git).unwrap(),
            _ => {}
        }
        cloned.leave();
        assert!(elsewhere.join("kept").exists(), "{what}");
        assert_eq!(cloned.git(&["status", "--porcelain", "--branch"]), "## work", "{what}");
        cloned.enter();
        cloned.leave();
    }
}

#[test]
fn links_in_place_of_our_folders_are_not_followed() {
    for what in ["", "kept", "kept/logs"] {
        let cloned = Cloned::new();
        cloned.leave();
        let target = cloned.fixture.beside("target");
        write(&target, "config", "x");
        write(&target, "git/HEAD", "x");
        let link = cloned.folder().join(what);
        let _ = fs::remove_dir_all(&link);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(&target, link.components().collect::<PathBuf>()).unwrap();
        assert!(enter(&cloned.fixture.repo, &cloned.made.path, "work", "w-1").is_err(), "{what}");
        assert!(cloned.back().is_err(), "{what}");
        assert_eq!((read(&target, "config"), read(&target, "git/HEAD")), ("x".to_owned(), "x".to_owned()));
    }
}

#[test]
fn unreadable_folders_hide_no_work() {
    let cloned = Cloned::new();
    let made = cloned.commit("a.txt");
    for folder in ["refs/heads", "objects", "logs"] {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o000);
        fs::set_permissions(cloned.made.path.join(".git").join(folder), mode).unwrap();
    }
    cloned.leave();
    assert_eq!(cloned.fixture.git(&["rev-parse", "work"]), made);
}

#[test]
fn deleted_worktree_is_no_obstacle() {
    let cloned = Cloned::new();
    fs::remove_dir_all(&cloned.made.path).unwrap();
    assert!(cloned.back().unwrap().note().is_some_and(|note| note.contains("commits of that turn are gone")));
    assert!(!cloned.made.path.exists());
    let request = Remove { path: cloned.made.path.clone(), salvage_name: "w-1".into(), ..Remove::default() };
    remove(&cloned.fixture.repo, &request).unwrap();
}

#[test]
fn hostile_clone_is_neither_run_nor_followed() {
    let cloned = Cloned::new();
    let (path, root) = (&cloned.made.path, cloned.fixture.beside("x"));
    let secret = root.with_file_name("secret");
    fs::create_dir(&secret).unwrap();
    write(&secret, "id", "1111111111111111111111111111111111111111\n");
    let made = cloned.commit("a.txt");
    let mark = |name: &str| format!("touch {}", root.with_file_name(format!("ran-{name}")).display());
    let settings = [
        "core.fsmonitor",
        "core.sshCommand",
        "core.pager",
        "core.editor",
        "diff.external",
        "gpg.program",
        "uploadpack.packObjectsHook",
        "core.alternateRefsCommand",
        "remote.origin.uploadpack",
        "filter.x.clean",
        "filter.x.smudge",
        "diff.x.textconv",
        "merge.x.driver",
        "credential.helper",
        "sequence.editor",
    ];
    for name in settings {
        cloned.git(&["config", name, &mark(name)]);
    }
    let others = [
        ("log.showSignature", "true"),
        ("commit.gpgSign", "true"),
        ("extensions.partialClone", "origin"),
        ("remote.origin.promisor", "true"),
        ("protocol.ext.allow", "always"),
        ("core.worktree", "/"),
    ];
    let dot_git = path.join(".git");
    let hook = format!("#!/bin/sh\n{}\n", mark("hook"));
    for name in ["reference-transaction", "post-checkout", "pre-commit", "post-index-change", "pre-auto-gc"] {
        write(&dot_git, &format!("hooks/{name}"), &hook);
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(dot_git.join("hooks").join(name), mode).unwrap();
    }
    for (name, value) in others {
        cloned.git(&["config", name, value]);
    }
    let url = format!("ext::sh -c {}", mark("url").replace(' ', "% "));
    let config = read(&dot_git, "config");
    write(&dot_git, "config", &format!("{config}[remote \"origin\"]\n\turl = {url}\n[include]\n\tpath = /dev/zero\n"));
    write(&dot_git, "commondir", &format!("{}\n", cloned.fixture.repo.common_dir.display()));
    write(&dot_git, "info/attributes", "* filter=x diff=x merge=x\n");
    write(&dot_git, "refs/heads/broken", "rubbish\n");
    write(&dot_git, "refs/heads/missing", "1111111111111111111111111111111111111111\n");
    std::os::unix::fs::symlink(secret.join("id"), dot_git.join("refs/heads/link")).unwrap();
    std::os::unix::fs::symlink(&secret, dot_git.join("refs/tags/folder")).unwrap();
    std::os::unix::fs::symlink(&secret, dot_git.join("logs/folder")).unwrap();
    for pipe in ["refs/heads/pipe", "objects/pack/pipe.idx"] {
        assert!(std::process::Command::new("mkfifo").arg(dot_git.join(pipe)).status().unwrap().success());
    }
    write(&dot_git, "objects/info/alternates", &format!("{}\n/nowhere\n", secret.display()));
    cloned.back().unwrap();
    let repo = &cloned.fixture.repo;
    crate::git::uncommitted(&repo.at(path)).unwrap();
    let page = crate::git::diff(&repo.at(path), &cloned.made.base_commit, 0, 10_000).unwrap();
    assert!(page.text.contains("a.txt"), "{}", page.text);
    assert_eq!(cloned.fixture.git(&["rev-parse", "work"]), made);
    assert!(!cloned.refs().contains("1111111"), "{}", cloned.refs());
    let entries =
        root.parent().unwrap().read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let marks: Vec<String> = entries.filter(|name| name.starts_with("ran-")).collect();
    assert_eq!(marks, Vec::<String>::new());
}

#[test]
fn git_ignores_a_clone_in_the_worktree() {
    let cloned = Cloned::new();
    let path = &cloned.made.path;
    let mark = cloned.fixture.beside("ran");
    cloned.git(&["config", "core.fsmonitor", &format!("touch {}", mark.display())]);
    cloned.git(&["config", "diff.external", &format!("touch {}", mark.display())]);
    write(path, "readme.txt", "changed\n");
    let repo = &cloned.fixture.repo;
    let _ = fs::remove_file(&mark);
    let page = crate::git::diff(&repo.at(path), &cloned.made.base_commit, 0, 10_000).unwrap();
    assert!(page.text.contains("+changed"), "{}", page.text);
    assert_eq!(crate::git::uncommitted(&repo.at(path)).unwrap().entries.len(), 1);
    assert_eq!(crate::git::head(&repo.at(path)).unwrap(), Some(cloned.made.base_commit.clone()));
    assert!(!mark.exists());
    cloned.leave();
}

#[test]
fn incomplete_history_is_an_error_and_loses_nothing() {
    let cloned = Cloned::new();
    let lost = cloned.commit("a.txt");
    cloned.commit("b.txt");
    let object = format!(".git/objects/{}/{}", &lost[..2], &lost[2..]);
    fs::remove_file(cloned.made.path.join(object)).unwrap();
    for _again in 0..2 {
        let error = cloned.back().unwrap_err();
        assert!(matches!(error, CloneError::Fetch { .. }), "{error}");
        assert!(cloned.folder().join("git/objects").is_dir(), "the clone is kept");
        assert!(cloned.made.path.join(".git").is_file());
    }
    let request = Remove { path: cloned.made.path.clone(), force: true, ..Remove::default() };
    assert!(remove(&cloned.fixture.repo, &request).is_err());
}

#[test]
fn interrupted_steps_are_resumed() {
    // Made, but not in the worktree yet.
    let cloned = Cloned::new();
    let place = Place::of(&cloned.fixture.repo, &cloned.made.path).unwrap();
    place.exchange().unwrap();
    cloned.leave();
    // Taken out of the worktree, and not fetched.
    cloned.enter();
    let made = cloned.commit("a.txt");
    place.exchange().unwrap();
    cloned.leave();
    assert_eq!(cloned.fixture.git(&["rev-parse", "work"]), made);
    // Between the steps of an exchange, in both directions.
    for stage in ["one", "two"] {
        cloned.enter();
        let made = cloned.commit(stage);
        let between = place.folder().join("between");
        fs::rename(place.aside(), &between).unwrap();
        if stage == "two" {
            fs::rename(place.dot_git(), place.aside()).unwrap();
        }
        cloned.leave();
        assert_eq!(cloned.fixture.git(&["rev-parse", "work"]), made, "{stage}");
    }
    cloned.leave();
}

#[test]
fn removal_keeps_what_only_the_clone_had() {
    let cloned = Cloned::new();
    cloned.git(&["checkout", "-q", "-b", "other"]);
    let other = cloned.commit("other.txt");
    cloned.git(&["checkout", "-q", "work"]);
    let request = Remove { path: cloned.made.path.clone(), salvage_name: "w-1".into(), ..Remove::default() };
    let removed = remove(&cloned.fixture.repo, &request).unwrap();
    let salvaged = removed.salvage_ref.expect("a salvage ref").name;
    assert!(cloned.fixture.git(&["rev-list", &salvaged]).contains(&other));
    assert!(
        !cloned.refs().contains("refs/orchestrator/clones")
            && !cloned.refs().contains("borrowed")
            && !cloned.made.path.exists(),
        "{}",
        cloned.refs()
    );
}

#[test]
fn borrowed_objects_outlive_the_users_branches() {
    let fixture = Fixture::new();
    fixture.git(&["checkout", "-q", "-b", "gone"]);
    let gone = fixture.commit("gone.txt", "x\n");
    fixture.git(&["checkout", "-q", "main"]);
    let cloned = Cloned::of(fixture);
    cloned.fixture.git(&["branch", "-q", "-D", "gone"]);
    cloned.fixture.git(&["reflog", "expire", "--expire=now", "--all"]);
    cloned.fixture.git(&["gc", "-q", "--prune=now"]);
    cloned.git(&["fsck"]);
    cloned.git(&["merge", "-q", "gone"]);
    cloned.leave();
    assert!(cloned.fixture.git(&["rev-list", "work"]).contains(&gone));
}
