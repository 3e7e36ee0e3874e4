//! Workers that have a clone: their work arrives, attempts follow each other, crashes lose nothing, and what a hostile
//! clone names is neither run nor followed.

use std::fs;

use serde_json::{Value, json};

use crate::support::git::git;
use crate::support::json_lines::Boss;
use crate::support::sandbox::{create, mission, status, with};
use crate::support::wait::{until_exists, until_some};
use crate::world::{World, run, settled};

const CLONE: &str = "confine_git = \"clone\"";

fn changes(worker: &Value) -> &Value {
    &worker["outcome"]["changes"]
}

/// Returns the worker's report once it has this attempt and has settled.
fn attempt_settled(boss: &mut Boss, id: &str, attempt: u32) -> Value {
    until_some("the attempt settles", || Some(settled(boss, id)).filter(|worker| worker["attempt"] == attempt))
}

#[test]
fn work_in_a_clone_is_committed_verified_and_integrated() {
    let Some(world) = World::new(CLONE) else { return };
    let mut boss = world.boss();
    let script = "write a.txt x\ncommit a\nwrite left.txt x\nrun test -d .git";
    let verify = "test -d .git && git status && git log -1 && git commit -q --allow-empty -m tried && git reset -q --hard HEAD~1";
    let draft = with(mission("t", script), "setup_command", "test -d .git && git config a.b c");
    let worker = run(&mut boss, with(draft, "verify_command", verify));
    assert_eq!(worker["status"], "completed", "{worker:#}");
    assert_eq!(worker["confined"]["git"], "clone", "{worker:#}");
    assert_eq!((&changes(&worker)["commits"], &changes(&worker)["uncommitted"]), (&json!(2), &json!(1)), "{worker:#}");
    let tree = world.sandbox.worktree("w-1-t");
    assert!(tree.join(".git").is_file());
    let answer = boss.succeed("integrate_worker", json!({"worker_id": "w-1-t", "verify_command": "git status && git commit -q --allow-empty -m x && git reset -q --hard HEAD~1 && ! touch $(git rev-parse --git-common-dir)/../../repo/.git/planted"}));
    assert_eq!(answer["status"], "merged", "{answer:#}");
    assert!(world.sandbox.repo().join("left.txt").exists());
    let removed = boss.succeed("remove_worktree", json!({"worker_id": "w-1-t"}));
    assert_eq!(removed["removed"].as_array().map(Vec::len), Some(1), "{removed:#}");
    assert!(!tree.exists());
    assert_eq!(world.sandbox.git(&["for-each-ref", "refs/orchestrator/clones"]), "");
    boss.leave();
}

#[test]
fn attempts_and_messages_go_on_in_the_same_state() {
    let Some(world) = World::new(CLONE) else { return };
    let mut boss = world.boss();
    let script = "session s\nwrite a.txt x\ncommit a\nrun git checkout -q -b side && git commit -q --allow-empty -m side && git checkout -q -\nrun echo y > stashed && git stash -q -u";
    let worker = run(&mut boss, mission("t", script));
    let parts = changes(&worker)["not_on_branch"].to_string();
    assert!(parts.contains("on branch side") && parts.contains("a stash"), "{worker:#}");
    world.sandbox.git(&["commit", "-q", "--allow-empty", "-m", "news"]);
    let message = "FAKE:\nrun git stash pop -q && git merge -q side && git rev-parse main > main-commit\ncommit b";
    boss.succeed("send_message_to_worker", json!({"worker_id": "w-1-t", "message": message}));
    let worker = attempt_settled(&mut boss, "w-1-t", 2);
    assert_eq!(worker["status"], "completed", "{worker:#}");
    let tree = world.sandbox.worktree("w-1-t");
    assert_eq!(fs::read_to_string(tree.join("main-commit")).unwrap().trim(), world.sandbox.git(&["rev-parse", "main"]));
    assert!(tree.join("stashed").exists());
    assert_eq!(changes(&worker)["not_on_branch"], json!(null), "{worker:#}");
    boss.succeed("retry_worker", json!({"worker_id": "w-1-t", "prompt": "FAKE:\nwrite c.txt x\ncommit c"}));
    let worker = attempt_settled(&mut boss, "w-1-t", 3);
    assert_eq!(git(&tree, &["log", "-1", "--format=%s"]), "c", "{worker:#}");
    boss.leave();
}

#[test]
fn running_worker_can_be_read() {
    let Some(world) = World::new(CLONE) else { return };
    let mut boss = world.boss();
    let ran = world.path("ran");
    let script = format!(
        "write a.txt text-of-a\ncommit a\nrun git config core.fsmonitor 'touch {0}' && git config diff.external 'touch {0}'\ntouch ready\nwait-file {1}",
        ran.display(),
        world.path("go-on").display()
    );
    let id = create(&mut boss, mission("t", &script));
    until_exists(&world.sandbox.worktree(&id).join("ready"));
    let answer = boss.succeed("get_worker_status", json!({"worker_id": id, "include": ["diff"]}));
    assert!(answer["diff"].to_string().contains("text-of-a"), "{answer:#}");
    assert!(!ran.exists());
    fs::write(world.path("go-on"), "").unwrap();
    assert_eq!(settled(&mut boss, &id)["status"], "completed");
    boss.leave();
}

#[test]
fn repository_moved_during_a_turn_gets_the_commits() {
    let Some(world) = World::new(CLONE) else { return };
    let mut boss = world.boss();
    let script = format!("write a.txt x\ncommit a\ntouch ready\nwait-file {}", world.path("go-on").display());
    let id = create(&mut boss, mission("t", &script));
    let tree = world.sandbox.worktree(&id);
    until_exists(&tree.join("ready"));
    let moved = world.path("moved");
    fs::rename(world.sandbox.repo(), &moved).unwrap();
    fs::write(world.path("go-on"), "").unwrap();
    let outcome = moved.join(".orchestrator/workers").join(&id).join("attempts/1/outcome.json");
    until_exists(&outcome);
    assert!(fs::read_to_string(outcome).unwrap().contains("its repository was moved while it ran"));
    boss.leave();
    assert!(tree.join(".git").is_file());
    assert_eq!(git(&moved, &["show", &format!("orchestrator/{id}:a.txt")]), "x");
    assert!(!world.sandbox.repo().exists());
    git(&moved, &["worktree", "repair", tree.to_str().unwrap()]);
    assert_eq!(git(&tree, &["status", "--porcelain"]), "?? ready");
    git(&moved, &["fsck", "--no-dangling"]);
}

#[test]
fn submodules_fall_back_to_the_shared_repository() {
    let Some(world) = World::new(CLONE) else { return };
    let repo = world.sandbox.repo();
    git(&repo, &["clone", "-q", "--bare", ".", "../library.git"]);
    git(&repo, &["-c", "protocol.file.allow=always", "submodule", "-q", "add", "../library.git", "lib"]);
    git(&repo, &["commit", "-q", "-m", "library"]);
    let mut boss = world.boss();
    let worker = run(&mut boss, mission("t", "write a.txt x\ncommit a"));
    assert_eq!((&worker["status"], &worker["confined"]["git"]), (&json!("completed"), &json!("shared")), "{worker:#}");
    assert!(changes(&worker)["notes"].to_string().contains("the repository has submodules"), "{worker:#}");
    boss.leave();
}

#[test]
fn worktree_stays_linked_without_confinement() {
    for settings in
        ["confine = \"off\"\nconfine_git = \"clone\"", "allow_full_permissions = true\nconfine_git = \"clone\""]
    {
        let world = World::anywhere(settings);
        let mut boss = world.boss();
        let draft = mission("t", "run test -f .git\nwrite a.txt x\ncommit a");
        let draft = if settings.contains("full") { with(draft, "permissions", "full") } else { draft };
        let worker = run(&mut boss, draft);
        assert_eq!((&worker["status"], &changes(&worker)["commits"]), (&json!("completed"), &json!(1)), "{worker:#}");
        boss.leave();
    }
}

#[test]
fn hostile_clone_runs_nothing_outside() {
    let Some(world) = World::new(CLONE) else { return };
    let user = world.path("user");
    fs::create_dir(&user).unwrap();
    fs::write(user.join("secret"), "1111111111111111111111111111111111111111\n").unwrap();
    let script = "T=\"touch $USER_FOLDER/ran\"\n\
        for name in core.fsmonitor core.sshCommand core.pager diff.external gpg.program uploadpack.packObjectsHook \
            core.alternateRefsCommand remote.origin.uploadpack filter.x.clean filter.x.smudge diff.x.textconv \
            merge.x.driver credential.helper; do git config $name \"$T-$name\"; done\n\
        for hook in reference-transaction pre-commit post-checkout post-index-change pre-push; do \
            printf '#!/bin/sh\\n%s\\n' \"$T-$hook\" > .git/hooks/$hook; chmod +x .git/hooks/$hook; done\n\
        echo '* filter=x diff=x merge=x' > .git/info/attributes\n\
        echo '* filter=x diff=x merge=x' > .gitattributes\n\
        git config commit.gpgSign true; git config log.showSignature true; git config core.worktree /\n\
        git config remote.origin.url \"ext::sh -c touch% $USER_FOLDER/ran-url\"; git config remote.origin.promisor true\n\
        git config extensions.partialClone origin; git config include.path $USER_FOLDER/secret\n\
        ln -s $USER_FOLDER/secret .git/refs/heads/link; ln -s $USER_FOLDER .git/refs/tags/folder\n\
        mkfifo .git/refs/heads/pipe; mkdir -p .git/logs/refs; ln -s $USER_FOLDER .git/logs/refs/folder\n\
        echo $REPO/.git > .git/commondir; echo $USER_FOLDER >> .git/objects/info/alternates\n\
        touch done\n";
    let path = world.path("forge.sh");
    let values = format!("USER_FOLDER={}\nREPO={}\n", user.display(), world.sandbox.repo().display());
    fs::write(&path, format!("{values}{script}")).unwrap();
    let mut boss = world.boss();
    let script = format!("write a.txt x\ncommit a\nrun sh {}", path.display());
    let worker = run(&mut boss, mission("t", &script));
    assert!(world.sandbox.worktree("w-1-t").join("done").exists(), "{worker:#}");
    assert_eq!((&worker["status"], &worker["confined"]["git"]), (&json!("completed"), &json!("clone")), "{worker:#}");
    boss.succeed("get_worker_status", json!({"worker_id": "w-1-t", "include": ["diff"]}));
    let answer = boss.succeed("integrate_worker", json!({"worker_id": "w-1-t"}));
    assert_eq!(answer["status"], "merged", "{answer:#}");
    boss.succeed("retry_worker", json!({"worker_id": "w-1-t", "prompt": "FAKE:\nsay again"}));
    attempt_settled(&mut boss, "w-1-t", 2);
    boss.succeed("remove_worktree", json!({"worker_id": "w-1-t", "force": true}));
    let left: Vec<_> = user.read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["secret"], "{left:?}");
    world.sandbox.git(&["fsck", "--no-dangling"]);
    boss.leave();
}

#[test]
fn crash_at_any_step_loses_nothing() {
    const BEFORE: [&str; 6] = [
        "Written(cli-settings)",
        "Named(cli-settings)",
        "Written(cli-settings.json)",
        "Named(cli-settings.json)",
        "CloneMade",
        "CloneEntered",
    ];
    const AFTER: [&str; 4] = ["CliEnded", "CloneTaken", "CloneFetched", "ChangesCommitted"];
    for point in BEFORE.into_iter().chain(AFTER) {
        let Some(world) = World::new(CLONE) else { return };
        // Without a folder of state, the CLI has no settings to record.
        fs::create_dir(world.path(".fake")).unwrap();
        let armed = format!("{point}:1");
        let log = world.path("crash.log");
        let crash = [("ORCHESTRATOR_CRASH_AT", armed.as_str()), ("ORCHESTRATOR_CRASH_LOG", log.to_str().unwrap())];
        let mut boss = world.boss_with(&crash);
        let script = "write a.txt x\ncommit a\nwrite left.txt x";
        let worker = run(&mut boss, with(mission("t", script), "verify_command", "test -e a.txt"));
        assert_eq!(worker["outcome"]["run"]["result"], "lost", "{point}: {worker:#}");
        let tree = world.sandbox.worktree("w-1-t");
        assert!(tree.join(".git").is_file(), "{point}");
        let has_run = !BEFORE.contains(&point);
        assert_eq!(
            world.sandbox.git(&["rev-list", "--count", "main..orchestrator/w-1-t"]) != "0",
            has_run,
            "{point}: {worker:#}"
        );
        boss.succeed(
            "retry_worker",
            json!({"worker_id": "w-1-t", "prompt": "FAKE:\nwrite a.txt x\nwrite b.txt x\ncommit b"}),
        );
        let worker = attempt_settled(&mut boss, "w-1-t", 2);
        assert_eq!(worker["status"], "completed", "{point}: {worker:#}");
        assert_eq!(status(&mut boss, "w-1-t")["confined"]["git"], "clone");
        world.sandbox.git(&["fsck", "--no-dangling"]);
        boss.leave();
    }
}
