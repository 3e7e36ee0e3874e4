//! `diff` shows the same as the tool.

use serde_json::json;

use crate::world::*;

#[test]
fn diff_equals_that_of_the_tool() {
    let world = World::with("commit_leftovers = false");
    let mut boss = world.boss();
    let script = "write a.txt committed\ncommit a\nappend README changed\nwrite b.txt untracked";
    let worker = create(&mut boss, mission("diff", script));
    until_status(&mut boss, &worker, "completed");
    let by_tool = boss.succeed("get_worker_status", json!({"worker_id": worker, "include": ["diff"]}));
    let shown = world.run(&["diff", &worker]).ended(0);
    assert_eq!(by_tool["diff"].as_str().unwrap(), shown);
    for part in ["+committed", "+changed", "+untracked"] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    let stat = world.run(&["diff", &worker, "--stat"]).ended(0);
    assert!(stat.contains("3 files changed") && stat.contains("b.txt"), "{stat}");
    let json = world.run(&["diff", &worker, "--json"]).json();
    assert_eq!((json["diff"].as_str(), json["worker_id"].as_str()), (Some(&*shown), Some(&*worker)));
}

#[test]
fn missing_worktree_shows_the_branch() {
    let world = World::new();
    let mut boss = world.boss();
    let worker = create(&mut boss, mission("diff", "write a.txt committed\ncommit a"));
    until_status(&mut boss, &worker, "completed");
    std::fs::remove_dir_all(world.worktree(&worker)).unwrap();
    assert!(world.run(&["diff", &worker]).ended(0).contains("+committed"));
}

#[test]
fn deleted_branch_shows_its_last_commit() {
    let world = World::new();
    let mut boss = world.boss();
    let worker = create(&mut boss, mission("diff", "write a.txt committed\ncommit a"));
    until_status(&mut boss, &worker, "completed");
    world.run(&["integrate", &worker]).ended(0);
    world.run(&["clean", "--branches", "--yes"]).ended(0);
    let branch = format!("orchestrator/{worker}");
    let merged = status(&mut boss, &worker)["integrated"]["commit"].as_str().unwrap()[..10].to_owned();
    let ran = world.run(&["path", &worker]);
    let why = format!(
        "it was removed, and its branch {branch} was deleted; its work was merged into main as {merged}, and \
         `orchestrator-boss diff {worker}` shows it"
    );
    assert!(ran.code == Some(1) && ran.stderr.contains(&why), "{why} in {ran:?}");
    let ran = world.run(&["diff", &worker]);
    assert!(ran.stderr.contains(&format!("branch {branch} was deleted")), "{ran:?}");
    let shown = ran.ended(0);
    assert!(shown.contains("+committed"), "{shown}");
    let by_tool = boss.succeed("get_worker_status", json!({"worker_id": worker, "include": ["diff"]}));
    assert_eq!(by_tool["diff"].as_str().unwrap(), shown);
}

#[test]
fn deleted_branch_whose_commits_are_gone_is_explained() {
    let world = World::new();
    let mut boss = world.boss();
    let worker = create(&mut boss, mission("diff", "write a.txt committed\ncommit a"));
    until_status(&mut boss, &worker, "completed");
    let tree = world.worktree(&worker);
    world.git(&["worktree", "remove", "-f", "-f", tree.to_str().unwrap()]);
    world.git(&["branch", "-D", &format!("orchestrator/{worker}")]);
    let ran = world.run(&["path", &worker]);
    assert!(ran.stderr.contains("was deleted; its last commit is"), "{ran:?}");
    world.git(&["reflog", "expire", "--expire=now", "--all"]);
    world.git(&["gc", "-q", "--prune=now"]);
    let ran = world.run(&["path", &worker]);
    assert!(ran.stderr.contains("no longer exists") && !ran.stderr.contains("shows it"), "{ran:?}");
    let ran = world.run(&["diff", &worker]);
    assert!(ran.code == Some(1) && ran.stderr.contains("it was deleted, and its last commit"), "{ran:?}");
}

#[test]
fn worktree_without_its_git_file_shows_the_branch() {
    let world = World::new();
    let mut boss = world.boss();
    let worker = create(&mut boss, mission("diff", "write a.txt committed\ncommit a\nrun rm -f .git"));
    until("it settles", || ["completed", "failed"].iter().any(|end| status(&mut boss, &worker)["status"] == *end));
    let ran = world.run(&["diff", &worker]);
    assert!(ran.stderr.contains("has no usable .git file any more"), "{ran:?}");
    let shown = ran.ended(0);
    assert!(shown.contains("+committed"), "{shown}");
    let by_tool = boss.succeed("get_worker_status", json!({"worker_id": worker, "include": ["diff"]}));
    assert_eq!(by_tool["diff"].as_str().unwrap(), shown);
}

#[test]
fn filter_by_a_worker_elsewhere_is_not_run() {
    let world = World::with("commit_leftovers = false");
    let mut boss = world.boss();
    // The recorded configuration of the first repository says nothing about the other one.
    let here = create(&mut boss, mission("here", "say hello"));
    until_status(&mut boss, &here, "completed");
    let other = world.path("other");
    world.git(&["clone", "-q", ".", other.to_str().unwrap()]);
    let mark = world.shared("ran");
    let filter = format!("run git config filter.evil.clean 'touch {}; cat'", mark.display());
    let script = format!("{filter}\nwrite .gitattributes * filter=evil\nappend README more");
    let worker = create(&mut boss, with(mission("there", &script), "working_directory", other.to_str().unwrap()));
    until_status(&mut boss, &worker, "completed");
    assert!(!mark.exists(), "the server or the supervisor ran it");
    let shown = world.run(&["diff", &worker]).ended(0);
    assert!(shown.contains("+more") && !mark.exists(), "{shown}");
}

#[test]
fn diff_before_the_start_is_an_error() {
    let world = World::with("max_workers = 0");
    let mut boss = world.boss();
    let worker = create(&mut boss, mission("diff", "hang"));
    let ran = world.run(&["diff", &worker]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("cannot show the changes of w-1-diff"), "{ran:?}");
}
