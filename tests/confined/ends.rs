//! Ends of confined workers: no process is left, no work is lost, and what an attempt leaves in the repository gives the
//! next one no more than it had.

use std::fs;

use serde_json::json;

use crate::support::git::git;
use crate::support::processes::until_none_in;
use crate::support::sandbox::{create, mission};
use crate::support::wait::until;
use crate::world::{World, run, settled};

#[test]
fn cancel_ends_the_whole_tree() {
    let Some(world) = World::new("") else { return };
    let mut boss = world.boss();
    let script = "run sh -c 'setsid sh -c \"touch detached; sleep 600\" & (sleep 600 & touch forked); \
                  trap \"\" TERM INT HUP; touch began; while :; do sleep 600; done'";
    let id = create(&mut boss, mission("t", script));
    let tree = world.sandbox.worktree(&id);
    until("all run", || ["detached", "forked", "began"].iter().all(|file| tree.join(file).exists()));
    let answer = boss.succeed("cancel_worker", json!({"worker_id": id}));
    assert_eq!((&answer["status"], &answer["survivors"]), (&json!("cancelled"), &json!(0)), "{answer:#}");
    assert_eq!(settled(&mut boss, &id)["enforced"], "kernel");
    until_none_in(&tree);
    boss.leave();
}

#[test]
fn uncommitted_work_is_salvaged() {
    let Some(world) = World::new("commit_leftovers = false") else { return };
    let mut boss = world.boss();
    let script = "write kept.txt x\ncommit kept\nwrite left.txt y\nrun git stash\nwrite other.txt z";
    let worker = run(&mut boss, mission("t", script));
    assert_eq!((&worker["status"], &worker["enforced"]), (&json!("completed"), &json!("kernel")), "{worker:#}");
    let answer = boss.succeed("remove_worktree", json!({"worker_id": "w-1-t", "force": true, "delete_branch": true}));
    let salvaged = answer["removed"][0]["salvage_ref"].as_str().unwrap_or_else(|| panic!("{answer:#}"));
    let files = git(&world.sandbox.repo(), &["ls-tree", "--name-only", salvaged]);
    assert!(["kept.txt", "other.txt"].iter().all(|file| files.lines().any(|line| line == *file)), "{files}");
    boss.leave();
}

#[test]
fn links_of_an_earlier_attempt_grant_nothing() {
    let forgeries = [
        "rm -rf $REPO/.git/refs/tags && ln -s $ROOT/user $REPO/.git/refs/tags",
        "ln -s $ROOT/user $REPO/.git/objects/link",
        "echo $ROOT/user > $REPO/.git/worktrees/w-1-t/commondir",
        "cp -r $REPO/.git/worktrees/w-1-t forged && echo $ROOT/user > forged/commondir && \
         echo gitdir: $PWD/forged > .git",
        "rm .git && ln -s $ROOT/user .git",
        "rm -rf $PWD/inner && ln -s $ROOT/user inner",
    ];
    let mut retried = 0;
    for forgery in forgeries {
        let Some(world) = World::new("") else { return };
        fs::create_dir(world.path("user")).unwrap();
        fs::write(world.path("user/file"), "old\n").unwrap();
        let script = |name: &str, text: &str| {
            let (repo, root) = (world.sandbox.repo(), world.sandbox.root());
            let path = world.path(name);
            fs::write(&path, format!("REPO={}\nROOT={}\n{text}\n", repo.display(), root.display())).unwrap();
            format!("FAKE:\nrun sh {}", path.display())
        };
        let mut boss = world.boss();
        let forge = script("forge.sh", &format!("set -e\n{forgery}\ntouch $TMPDIR/x"));
        run(&mut boss, json!({"title": "t", "backend": "fake", "prompt": forge}));
        let write = "for path in $ROOT/user $REPO/.git/refs/tags $REPO/.git/objects/link .git inner; do\n\
                     echo new > $path/file; touch $path/planted\ndone\nexit 0";
        let retry = json!({"worker_id": "w-1-t", "prompt": script("write.sh", write)});
        // Where git is disconnected for good, there is no second attempt.
        if let Some(Ok(_)) = boss.call("retry_worker", retry) {
            assert_eq!(settled(&mut boss, "w-1-t")["attempt"], 2, "{forgery}");
            retried += 1;
        }
        assert_eq!(fs::read_to_string(world.path("user/file")).unwrap(), "old\n", "{forgery}");
        assert_eq!(fs::read_dir(world.path("user")).unwrap().count(), 1, "{forgery}");
        boss.leave();
    }
    assert!(retried >= 3, "{retried} had a second attempt");
}
