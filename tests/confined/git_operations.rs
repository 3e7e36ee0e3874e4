//! Every git operation of a worker works confined as it works unconfined: files and reftable, with the user's own
//! `git gc` and `git config` in between.
//!
//! Each operation is a shell script. It begins on the worker's branch at [`PREPARE`]'s last commit, with a clean tree.
//! It must succeed and print no error. `$BARE` is the remote `origin`, `$REPO` the user's main checkout.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::json;

use crate::support::git::{commit_all, git, identify, init, try_git};
use crate::support::json_lines::Boss;
use crate::support::sandbox::{create, mission};
use crate::support::wait::until_exists;
use crate::world::{World, settled};

/// Returns to the start of the worker's branch, which operations may have left.
const RESET: &str = "git rebase --abort; git merge --abort; git cherry-pick --abort; git revert --abort; git am --abort; \
     git bisect reset; git sparse-checkout disable; git checkout -q -f $BRANCH; git reset -q --hard start; git clean -q -fdx";

/// Commits that the operations use: a branch that does not conflict, one that does, and a patch.
const PREPARE: &str = "BRANCH=$(git symbolic-ref --short HEAD); START=$(git rev-parse HEAD); \
     git checkout -q -b side && echo side > side.txt && git add side.txt && git commit -q -m side && \
     git checkout -q -b clash $START && echo clash > README && git commit -q -a -m clash && \
     git checkout -q $BRANCH && echo one > one.txt && git add one.txt && git commit -q -m one && \
     echo two > two.txt && git add two.txt && git commit -q -m two && git tag start && \
     git format-patch -q -1 --stdout side > \"$TMPDIR/side.patch\"";

const OPERATIONS: [(&str, &str); 56] = [
    ("status", "git status"),
    ("log", "git log --all --oneline"),
    ("diff", "echo x >> README && git diff && git diff --cached && git diff origin/main"),
    ("worktree-list", "git worktree list"),
    ("fsck", "git fsck"),
    ("prune", "git prune"),
    ("apply", "git apply --index \"$TMPDIR/side.patch\""),
    ("clean", "touch junk && git clean -f junk && test ! -e junk"),
    ("add", "echo x > new && git add new && git diff --cached --quiet || test $? = 1"),
    (
        "commit",
        "echo x > new && git add new && git commit -q -m new && test $(git rev-parse HEAD~1) = $(git rev-parse start)",
    ),
    ("amend", "git commit -q --amend -m amended && test \"$(git log -1 --format=%s)\" = amended"),
    ("commit-all", "echo x >> README && git commit -q -a -m readme"),
    ("merge", "git merge -q -m merged side && test -e side.txt"),
    ("merge-fast-forward", "git checkout -q -b forward-$ROUND start~1 && git merge -q --ff-only start"),
    (
        "merge-conflict",
        "echo other > README && git commit -q -a -m other && ! git merge -q clash 2>/dev/null >&2 && echo both > README && git commit -q -a -m both && test ! -e \"$(git rev-parse --git-path MERGE_HEAD)\"",
    ),
    ("rebase", "git checkout -q -b moving-$ROUND side && git rebase -q $BRANCH && test -e two.txt"),
    ("rebase-interactive", "GIT_SEQUENCE_EDITOR='sed -i 1d' git rebase -q -i HEAD~2 && test ! -e one.txt"),
    (
        "rebase-conflict",
        "echo other > README && git commit -q -a -m other && ! git rebase -q clash 2>/dev/null >&2 && echo both > README && git add README && GIT_EDITOR=true git rebase --continue 2>/dev/null >&2",
    ),
    (
        "rebase-autostash",
        "echo x >> one.txt && git rebase -q --autostash side 2>/dev/null && git diff --quiet; test $? = 1",
    ),
    ("am", "git am -q \"$TMPDIR/side.patch\""),
    ("checkout-new", "git checkout -q -b $BRANCH-more-$ROUND && echo x > x && git add x && git commit -q -m x"),
    ("checkout-elsewhere", "git checkout -q -b feature/$ROUND && git commit -q --allow-empty -m x"),
    ("switch", "git switch -q -c switched-$ROUND && git switch -q $BRANCH"),
    ("restore", "echo x > README && git restore README && git diff --quiet"),
    ("reset", "git reset -q --hard HEAD~1 && test ! -e two.txt && git reset -q --soft HEAD~1"),
    ("move-and-remove", "git mv one.txt three.txt && git rm -q two.txt && git commit -q -m moved"),
    (
        "cherry-pick",
        "git cherry-pick side >/dev/null && git commit -q --allow-empty -m x && test ! -e \"$(git rev-parse --git-path CHERRY_PICK_HEAD)\" && test \"$(git log -1 --format=%s)\" = x",
    ),
    (
        "revert",
        "git revert --no-edit HEAD >/dev/null && git commit -q --allow-empty -m x && test ! -e \"$(git rev-parse --git-path REVERT_HEAD)\" && test \"$(git log -1 --format=%s)\" = x",
    ),
    ("stash", "echo x >> README && git stash -q && git diff --quiet && git stash pop -q && ! git diff --quiet"),
    ("stash-keep", "echo y > untracked && git stash -q -u && git stash list | grep -q . && git stash drop -q"),
    ("notes", "git notes add -m note && git notes show >/dev/null && git notes remove 2>/dev/null"),
    ("branch-delete", "git branch gone && git branch -q -D gone"),
    (
        "branch-rename",
        "git checkout -q -b early-$ROUND && git branch -m late-$ROUND && test $(git symbolic-ref --short HEAD) = late-$ROUND",
    ),
    ("tag", "git tag lightweight && git tag -a -m annotated annotated && git tag -d lightweight annotated >/dev/null"),
    ("fetch", "git fetch -q && git rev-parse -q --verify origin/main >/dev/null"),
    (
        "fetch-prune",
        "git push -q origin HEAD:refs/heads/leaving && git --git-dir=$BARE update-ref -d refs/heads/leaving && git fetch -q --prune && ! git rev-parse -q --verify origin/leaving",
    ),
    (
        "push",
        "git push -q origin HEAD:refs/heads/pushed && git --git-dir=$BARE rev-parse -q --verify refs/heads/pushed >/dev/null",
    ),
    (
        "push-upstream",
        "git checkout -q -B upstream && git push -q -f -u origin upstream && git rev-parse '@{u}' >/dev/null",
    ),
    ("push-delete", "git push -q origin HEAD:refs/heads/brief && git push -q origin --delete brief"),
    ("pull-rebase", "git pull -q --rebase origin main"),
    (
        "checkout-tracking",
        "git checkout -q -b tracking-$ROUND origin/main && test \"$(git config branch.tracking-$ROUND.merge)\" = refs/heads/main",
    ),
    (
        "bisect",
        "git bisect start HEAD HEAD~2 >/dev/null && git bisect run true >/dev/null && git bisect reset 2>/dev/null >&2",
    ),
    (
        "config",
        "git config planted.by worker && test $(git config planted.by) = worker && git config --unset planted.by",
    ),
    (
        "worktree-add",
        "git worktree add -q \"$TMPDIR/tree\" HEAD --detach && test -e \"$TMPDIR/tree/README\" && git worktree remove \"$TMPDIR/tree\"",
    ),
    (
        "sparse-checkout",
        "mkdir in && echo x > in/x && git add in && git commit -q -m in && git sparse-checkout set in && test -e in/x && git sparse-checkout disable",
    ),
    ("gc", "git gc -q"),
    ("reflog-expire", "git reflog expire --all --expire=never"),
    ("auto-gc", "git -c gc.auto=1 -c gc.autoDetach=false commit -q --allow-empty -m x 2>/dev/null"),
    ("pack-refs", "git pack-refs --all"),
    ("repack", "git repack -q -d"),
    (
        "rerere",
        "git config rerere.enabled true && echo other > README && git commit -q -a -m other; git merge -q clash >/dev/null 2>&1; git rerere >/dev/null 2>&1; git merge --abort && git config --unset rerere.enabled",
    ),
    ("replace", "git replace HEAD HEAD~1 && git replace -d $(git rev-parse HEAD) >/dev/null"),
    (
        "update-ref",
        "git update-ref refs/heads/made HEAD && git symbolic-ref refs/heads/link refs/heads/made && git symbolic-ref -d refs/heads/link && git update-ref -d refs/heads/made",
    ),
    ("archive", "git archive HEAD | tar -t >/dev/null"),
    (
        "bundle",
        "git bundle create -q \"$TMPDIR/all.bundle\" HEAD && git bundle verify -q \"$TMPDIR/all.bundle\" >/dev/null",
    ),
    ("blame-and-grep", "git blame README >/dev/null && git grep -q hello && git shortlog -s HEAD >/dev/null"),
];

/// Writes a script that runs all operations twice, with a pause in between for commands of the user.
fn script(world: &World) -> String {
    let mut script = format!(
        "BARE={}\nREPO={}\nTMPDIR=${{TMPDIR:-$(mktemp -d)}}\n{PREPARE} || exit 1\n",
        world.path("bare").display(),
        world.sandbox.repo().display()
    );
    for round in ["before", "after"] {
        script.push_str(&format!("ROUND={round}\n"));
        for (name, operation) in OPERATIONS {
            script.push_str(&format!(
                "( {RESET} ) >/dev/null 2>&1\n( {operation} ) >\"$TMPDIR/out\" 2>\"$TMPDIR/why\"; code=$?\n\
                 if [ $code != 0 ] || grep -q -e ^error: -e ^fatal: -e 'unable to' \"$TMPDIR/why\"; then \
                 echo {round}-{name} failed $code: $(tail -c 300 \"$TMPDIR/why\" | tr '\\n' ' ') >> \"$TMPDIR/results\"; \
                 else echo {round}-{name} ok >> \"$TMPDIR/results\"; fi\n"
            ));
        }
        if round == "before" {
            script.push_str("touch paused\nuntil [ -e $REPO/../go-on ]; do sleep 0.05; done\n");
        }
    }
    script.push_str(&format!("( {RESET} ) >/dev/null 2>&1\ncp \"$TMPDIR/results\" results\n"));
    script.push_str("git add results && git commit -q -m last\n");
    let path = world.path("operations.sh");
    fs::write(&path, script).unwrap();
    format!("run sh {}", path.display())
}

/// Creates a remote with another commit, and the way in which refs are stored.
fn with_remote(world: &World, reftable: bool) {
    let repo = world.sandbox.repo();
    if reftable {
        fs::remove_dir_all(repo.join(".git")).unwrap();
        git(&repo, &["init", "-q", "-b", "main", "--ref-format=reftable"]);
        identify(&repo);
        commit_all(&repo, "first");
    }
    let bare = world.path("bare");
    git(&repo, &["clone", "-q", "--bare", ".", bare.to_str().unwrap()]);
    git(&repo, &["remote", "add", "origin", bare.to_str().unwrap()]);
    let other = world.path("other");
    init(&other);
    git(&other, &["pull", "-q", bare.to_str().unwrap(), "main"]);
    fs::write(other.join("theirs.txt"), "theirs\n").unwrap();
    commit_all(&other, "theirs");
    git(&other, &["push", "-q", bare.to_str().unwrap(), "HEAD:main"]);
    git(&repo, &["fetch", "-q", "origin"]);
}

/// Runs all operations in a worker, and returns those that failed.
fn run_operations(world: &World, git: Option<&str>) -> BTreeMap<String, String> {
    let mut boss = world.boss();
    let id = create(&mut boss, mission("t", &script(world)));
    let tree = world.sandbox.worktree(&id);
    until_exists(&tree.join("paused"));
    meanwhile(&world.sandbox.repo());
    fs::write(world.path("go-on"), "").unwrap();
    let worker = settled(&mut boss, &id);
    let failed = results(&tree);
    assert_eq!(worker["status"], "completed", "{failed:#?}\n{worker:#}");
    assert_eq!(worker["confined"]["git"], json!(git), "{worker:#}");
    check_work(world, &mut boss, &worker);
    boss.leave();
    failed
}

/// Commands of the user while a worker works.
fn meanwhile(repo: &Path) {
    git(repo, &["gc", "-q", "--prune=now"]);
    git(repo, &["config", "users.own", "setting"]);
    git(repo, &["commit", "-q", "--allow-empty", "-m", "of the user"]);
    git(repo, &["pack-refs", "--all"]);
}

fn results(tree: &Path) -> BTreeMap<String, String> {
    let text = fs::read_to_string(tree.join("results")).unwrap();
    let lines: Vec<&str> =
        text.lines().filter(|line| line.starts_with("before-") || line.starts_with("after-")).collect();
    assert_eq!(lines.len(), 2 * OPERATIONS.len(), "{text}");
    let failed = lines.into_iter().filter_map(|line| line.split_once(' ')).filter(|(_, result)| *result != "ok");
    failed.map(|(name, why)| (name.to_owned(), why.to_owned())).collect()
}

/// Checks that the worker's commits are on its branch in the user's repository, which is intact.
fn check_work(world: &World, boss: &mut Boss, worker: &serde_json::Value) {
    let repo = world.sandbox.repo();
    let branch = worker["branch"].as_str().unwrap();
    let titles = git(&repo, &["log", "--format=%s", &format!("main..{branch}")]);
    for title in ["last", "two", "one"] {
        assert!(titles.lines().any(|line| line == title), "{titles}");
    }
    try_git(&repo, &["fsck", "--no-dangling"]).unwrap();
    assert_eq!(git(&repo, &["config", "users.own"]), "setting");
    // A changed configuration would stop the integration.
    git(&repo, &["config", "--remove-section", "users"]);
    if worker["confined"]["git"] == "clone" {
        let listed = git(&repo, &["for-each-ref", "--format=%(refname)", "refs/heads", "refs/tags", "refs/stash"]);
        assert_eq!(listed, format!("refs/heads/main\nrefs/heads/{branch}"));
    }
    let answer = boss.succeed("integrate_worker", json!({"worker_id": worker["worker_id"]}));
    assert_eq!(answer["status"], "merged", "{answer:#}");
    assert!(repo.join("two.txt").exists());
}

/// Runs the operations in each way of storing refs that git knows.
fn check(settings: &str, git: Option<&str>) {
    for reftable in [false, true] {
        // The worker pushes to it.
        let settings = format!("confine_writable = [\"~/bare\"]\n{settings}");
        let world = if git.is_some() { World::new(&settings) } else { Some(World::anywhere(&settings)) };
        let Some(world) = world else { return };
        if reftable && !knows_reftable(&world) {
            assert!(std::env::var_os("CI").is_none(), "git does not know reftable");
            eprintln!("SKIPPED: git does not know reftable");
            return;
        }
        with_remote(&world, reftable);
        let failed = run_operations(&world, git);
        assert!(failed.is_empty(), "reftable: {reftable}: {failed:#?}");
    }
}

fn knows_reftable(world: &World) -> bool {
    let folder = world.path("probe");
    fs::create_dir(&folder).unwrap();
    try_git(&folder, &["init", "-q", "--bare", "--ref-format=reftable"]).is_ok()
}

#[test]
fn every_git_operation_works_unconfined() {
    check("confine = \"off\"", None);
}

#[test]
fn every_git_operation_works_with_shared_git() {
    check("confine_git = \"shared\"", Some("shared"));
}

#[test]
fn every_git_operation_works_with_a_clone() {
    check("confine_git = \"clone\"", Some("clone"));
}
