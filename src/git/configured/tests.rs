use std::fs;

use super::*;
use crate::git::command::Git;
use crate::git::integrate::tests::{Integrate, integrate};
use crate::git::testing::{Fixture, at, commit, git, read, write};
use crate::git::trust::{Checkout, Trust};
use crate::git::{CommitIdentity, Request, Strategy, commit_uncommitted, create, tree_state, uncommitted_and_ignored};

/// Has the repository trust only what is configured now.
fn trust_what_is_configured(fixture: &mut Fixture) -> Configuration {
    let before = Configuration::of(&fixture.repo).unwrap();
    fixture.repo.trust = Trust::only(&fixture.repo.common_dir, before.clone());
    before
}

/// Returns the settings that a call in `dir` would get.
fn overrides(fixture: &Fixture, dir: &Path) -> Vec<(String, String)> {
    let dir = Checkout::new(dir, &fixture.repo.trust);
    let before = dir.restriction();
    before.map(|before| before.overrides(own_settings(&dir).unwrap())).unwrap_or_default()
}

/// A program that leaves a mark, and what the mark is called.
fn trap(fixture: &Fixture, name: &str) -> (String, PathBuf) {
    let mark = fixture.beside(&format!("ran-{name}"));
    let script = fixture.beside(&format!("trap-{name}"));
    fs::write(&script, format!("#!/bin/sh\necho \"$0 $*\" >> '{}'\n", mark.display())).unwrap();
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    (script.to_string_lossy().into_owned(), mark)
}

#[test]
fn changes_are_reported_by_name_without_values() {
    let fixture = Fixture::new();
    fixture.git(&["config", "user.signingKey", "old-secret"]);
    fixture.git(&["config", "core.pager", "less"]);
    let before = Configuration::of(&fixture.repo).unwrap();
    assert_eq!(before.changes(&before), Vec::<String>::new());
    fixture.git(&["config", "branch.main.remote", "origin"]);
    fixture.git(&["config", "submodule.lib.active", "true"]);
    fixture.git(&["config", "lfs.repositoryformatversion", "0"]);
    fixture.git(&["config", "lfs.https://example.org/x.git/info/lfs.access", "basic"]);
    fixture.git(&["config", "remote.origin.gh-resolved", "base"]);
    let linked = fixture.beside("linked");
    fixture.git(&["worktree", "add", "-q", linked.to_str().unwrap()]);
    git(&linked, &["sparse-checkout", "set", "some"]);
    assert_eq!(before.changes(&Configuration::of(&fixture.repo).unwrap()), Vec::<String>::new());

    git(&linked, &["config", "--worktree", "core.fsmonitor", "run-me"]);
    fixture.git(&["config", "user.signingKey", "new-secret"]);
    fixture.git(&["config", "--unset", "core.pager"]);
    let included = fixture.beside("included");
    fs::write(&included, "[filter \"Evil\"]\n\tclean = run-me\n").unwrap();
    fixture.git(&["config", "include.path", included.to_str().unwrap()]);
    write(&fixture.repo.common_dir, "hooks/pre-commit", "#!/bin/sh\n");
    write(&fixture.repo.common_dir, "info/attributes", "* filter=Evil\n");
    let now = Configuration::of(&fixture.repo).unwrap();
    let expected = [
        "core.pager (removed)",
        "filter.Evil.clean (added)",
        "include.path (added)",
        "user.signingkey (changed)",
        "worktrees/linked: core.fsmonitor (added)",
        "hooks/pre-commit (added)",
        "info/attributes (added)",
    ];
    assert_eq!(before.changes(&now), expected);
    assert_eq!(now.changes(&before).len(), 7);
    let kept = serde_json::to_string(&now).unwrap();
    assert!(!kept.contains("secret") && kept.contains("run-me"), "{kept}");
}

/// Sets up, from `worktree`, everything that a repository could make git run.
fn plant(fixture: &Fixture, worktree: &Path) -> Vec<PathBuf> {
    let mut marks = Vec::new();
    let mut trap = |name: &str| {
        let (script, mark) = trap(fixture, name);
        marks.push(mark);
        script
    };
    let settings = [
        ("filter.evil.clean", "clean"),
        ("filter.evil.smudge", "smudge"),
        ("filter.second.process", "process"),
        ("diff.evil.textconv", "textconv"),
        ("diff.evil.command", "diff-command"),
        ("diff.external", "diff-external"),
        ("merge.evil.driver", "merge-driver"),
        ("core.sshCommand", "ssh"),
        ("core.editor", "editor"),
        ("core.pager", "pager"),
        ("core.askPass", "askpass"),
        ("core.fsmonitor", "fsmonitor"),
        ("sequence.editor", "sequence-editor"),
        ("gpg.program", "gpg"),
        ("gpg.ssh.program", "gpg-ssh"),
        ("hook.evil.command", "hook-of-the-settings"),
    ];
    for (name, mark) in settings {
        git(worktree, &["config", name, &trap(mark)]);
    }
    for (name, mark) in [("credential.helper", "credential"), ("alias.status", "alias")] {
        git(worktree, &["config", name, &format!("!{}", trap(mark))]);
    }
    let settings = [
        ("filter.evil.required", "true"),
        ("commit.gpgSign", "true"),
        ("log.showSignature", "true"),
        ("merge.verifySignatures", "true"),
        ("hook.evil.event", "pre-commit"),
        // Objects that are not there are fetched, by a program that the repository names.
        ("extensions.partialClone", "far"),
        ("remote.far.promisor", "true"),
        ("remote.far.url", "ssh://nowhere.invalid/x"),
        ("remote.far.uploadpack", "false"),
    ];
    for (name, value) in settings {
        git(worktree, &["config", name, value]);
    }
    let hooks = fixture.beside("hooks");
    fs::create_dir(&hooks).unwrap();
    let client_hooks = [
        "applypatch-msg",
        "pre-applypatch",
        "post-applypatch",
        "pre-commit",
        "pre-merge-commit",
        "prepare-commit-msg",
        "commit-msg",
        "post-commit",
        "pre-rebase",
        "post-checkout",
        "post-merge",
        "pre-push",
        "reference-transaction",
        "post-rewrite",
        "post-index-change",
        "pre-auto-gc",
        "fsmonitor-watchman",
        "sendemail-validate",
        "push-to-checkout",
        "update",
        "pre-receive",
        "post-update",
    ];
    for name in client_hooks {
        let script = trap(&format!("hook-{name}"));
        for folder in [&hooks, &fixture.repo.common_dir.join("hooks")] {
            fs::create_dir_all(folder).unwrap();
            fs::copy(&script, folder.join(name)).unwrap();
        }
    }
    git(worktree, &["config", "core.hooksPath", hooks.to_str().unwrap()]);
    write(&fixture.repo.common_dir, "info/attributes", "*.txt filter=evil diff=evil merge=evil\n*.md filter=second\n");
    marks
}

#[test]
fn recorded_repository_runs_only_recorded_programs() {
    for (is_own, is_readable) in [(false, true), (false, false), (true, true)] {
        let mut fixture = Fixture::new();
        write(fixture.root(), "a.md", "a\n");
        let before = Configuration::of(&fixture.repo).unwrap();
        let records = fixture.beside("records");
        fs::create_dir(&records).unwrap();
        let common_dir = fixture.repo.common_dir.clone();
        fixture.repo.trust = Trust::recorded(&records, is_own.then_some(&*common_dir));
        assert_eq!(fixture.repo.trust.before(&common_dir), None, "there is no record yet");
        let record = if is_readable { serde_json::to_string(&before).unwrap() } else { "{".to_owned() };
        fs::write(fixture.repo.trust.record(&common_dir).unwrap(), record).unwrap();
        let marks = plant(&fixture, fixture.root());
        fixture.repo.read().args(["hash-object", "a.md"]).run().unwrap();
        crate::git::diff(&fixture.repo.checkout(), "HEAD", 0, 10_000).unwrap();
        let ran: Vec<_> = marks.iter().filter(|mark| mark.exists()).collect();
        assert!(ran.is_empty(), "these were run: {ran:#?}");
    }
}

#[test]
fn configuration_by_a_worker_is_never_run() {
    let mut fixture = Fixture::new();
    fixture.commit("notes.md", "notes\n");
    let request = |branch: &str| Request { branch: branch.to_owned(), ..Request::default() };
    let made = create(&fixture.repo, &request("work"), None).unwrap();
    let base = made.base_commit.clone();
    trust_what_is_configured(&mut fixture);
    commit(&made.path, "readme.txt", "theirs\n");
    commit(&made.path, "a.md", "a\n");
    fixture.commit("readme.txt", "ours\n");
    let marks = plant(&fixture, &made.path);

    write(&made.path, "readme.txt", "uncommitted\n");
    write(&made.path, "b.md", "b\n");
    let fallback = CommitIdentity::fallback();
    tree_state(&fixture.repo.at(&made.path)).unwrap();
    crate::git::fingerprint(&fixture.repo).unwrap();
    crate::git::diff(&fixture.repo.at(&made.path), &base, 0, 10_000).unwrap();
    crate::git::changes(&fixture.repo.at(&made.path), &base).unwrap();
    commit_uncommitted(
        &fixture.repo.at(&made.path),
        uncommitted_and_ignored(&fixture.repo.at(&made.path)).unwrap(),
        "left",
        &fallback,
        None,
        &[],
    )
    .unwrap()
    .commit
    .expect("it is committed");
    write(&made.path, "readme.txt", "again\n");
    crate::git::salvage(&fixture.repo, &made.path, "kept", crate::git::Keep { copies: &[], ..Default::default() })
        .unwrap();
    let second = create(&fixture.repo, &request("second"), None).unwrap();
    assert_eq!(read(&second.path, "readme.txt"), "ours\n");
    let integration = |strategy, into: &str| {
        let (source, message) = ("work".to_owned(), "m".to_owned());
        integrate(&fixture.repo, &Integrate { source, into: into.to_owned(), strategy, message, dry_run: false })
    };
    for strategy in [Strategy::Merge, Strategy::Squash, Strategy::CherryPick] {
        // Both sides changed one file, so that a driver would be asked.
        integration(strategy, "main").unwrap();
    }
    git(&made.path, &["update-ref", "refs/heads/ahead", &base]);
    let _ = integration(Strategy::Merge, "ahead").unwrap();
    let remove = crate::git::Remove {
        path: made.path.clone(),
        force: true,
        delete_branch: true,
        integration_branch: Some("main".into()),
        earlier_integrations: Vec::new(),
        salvage_name: "w".into(),
        copies: Vec::new(),
        branch: None,
        base: None,
        ignored: Vec::new(),
    };
    crate::git::remove(&fixture.repo, &remove).unwrap();
    // An object that is not there.
    let missing = "1234567890123456789012345678901234567890";
    assert!(fixture.repo.resolve(missing).is_err());
    let _ = fixture.repo.read().args(["cat-file", "-e", missing]).output();
    let ran: Vec<_> = marks.iter().filter(|mark| mark.exists()).collect();
    assert!(ran.is_empty(), "these were run: {ran:#?}");
}

#[test]
fn preexisting_filter_survives_changes_by_a_worker() {
    let mut fixture = Fixture::new();
    fixture.git(&["config", "filter.shout.clean", "tr a-z A-Z"]);
    write(&fixture.repo.common_dir, "info/attributes", "*.txt filter=shout\n");
    trust_what_is_configured(&mut fixture);
    let made = fixture.worktree("work");
    for clean in [None, Some("sed s/a/evil/")] {
        if let Some(clean) = clean {
            git(&made.path, &["config", "filter.shout.clean", clean]);
        }
        write(&made.path, "new.txt", &format!("abc {clean:?}\n"));
        let commit = commit_uncommitted(
            &fixture.repo.at(&made.path),
            uncommitted_and_ignored(&fixture.repo.at(&made.path)).unwrap(),
            "left",
            &CommitIdentity::fallback(),
            None,
            &[],
        )
        .unwrap()
        .commit
        .unwrap();
        assert!(crate::git::testing::show(&made.path, &commit, "new.txt").starts_with("ABC"));
    }
}

#[test]
fn repository_replaced_by_a_worker_runs_nothing() {
    let (mut fixture, other) = (Fixture::new(), Fixture::new());
    trust_what_is_configured(&mut fixture);
    let (script, mark) = trap(&other, "clean");
    other.git(&["config", "filter.evil.clean", &script]);
    other.commit(".gitattributes", "* filter=evil\n");
    write(other.root(), "a.txt", "a\n");
    let _ = fs::remove_file(&mark);
    for trust in [fixture.repo.trust.clone(), Trust::nothing()] {
        let place = crate::git::Checkout::new(other.root(), &trust);
        Git::read(&place).args(["hash-object", "a.txt"]).run().unwrap();
        assert!(!mark.exists());
    }
    Git::read(&at(other.root())).args(["hash-object", "a.txt"]).run().unwrap();
    assert!(mark.exists(), "it would have been run");
}

#[test]
fn trust_is_serialized_with_the_repository() {
    let mut fixture = Fixture::new();
    trust_what_is_configured(&mut fixture);
    let text = serde_json::to_string(&fixture.repo).unwrap();
    let read: Repository = serde_json::from_str(&text).unwrap();
    assert_eq!((&read, &read.trust), (&fixture.repo, &fixture.repo.trust));
}

#[test]
fn changed_include_file_is_detected() {
    let mut fixture = Fixture::new();
    let included = fixture.beside("included");
    fs::write(&included, "[core]\n\tpager = less\n").unwrap();
    fixture.git(&["config", "include.path", included.to_str().unwrap()]);
    let before = trust_what_is_configured(&mut fixture);
    assert_eq!(overrides(&fixture, fixture.root()), []);
    fs::write(&included, "[core]\n\tpager = less\n[filter \"Evil\"]\n\tclean = run-me\n").unwrap();
    assert_eq!(overrides(&fixture, fixture.root()), [("filter.Evil.clean".to_owned(), String::new())]);
    assert_eq!(before.changes(&Configuration::of(&fixture.repo).unwrap()), ["filter.Evil.clean (added)"]);
}

#[test]
fn changed_worktree_configuration_is_detected() {
    let mut fixture = Fixture::new();
    fixture.git(&["config", "extensions.worktreeConfig", "true"]);
    let linked = fixture.beside("linked");
    fixture.git(&["worktree", "add", "-q", linked.to_str().unwrap()]);
    let before = trust_what_is_configured(&mut fixture);
    assert_eq!(overrides(&fixture, &linked), []);
    git(&linked, &["config", "--worktree", "filter.Evil.clean", "run-me"]);
    assert_eq!(overrides(&fixture, &linked), [("filter.Evil.clean".to_owned(), String::new())]);
    let changes = before.changes(&Configuration::of(&fixture.repo).unwrap());
    assert_eq!(changes, ["worktrees/linked: filter.Evil.clean (added)"]);
}

#[test]
fn common_directory_is_found_from_every_worktree() {
    let fixture = Fixture::new();
    let made = fixture.worktree("work");
    fixture.write("deep/file", "");
    let common = fixture.repo.common_dir.canonicalize().unwrap();
    for dir in [fixture.root().to_owned(), fixture.root().join("deep"), made.path, common.clone(), common.join("refs")]
    {
        assert_eq!(folders(&dir).map(|it| it.common), Some(common.clone()), "{}", dir.display());
    }
    assert_ne!(folders(&fixture.beside("nothing")).map(|it| it.common), Some(common));
}
