//! `clean` removes only merged worktrees and branches, and loses no work.

use serde_json::{Value, json};

use crate::world::*;

fn ids(list: &Value) -> Vec<String> {
    let ids = list.as_array().unwrap().iter();
    ids.map(|item| item["worker_id"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn clean_removes_only_merged_committed_worktrees() {
    let world = World::with("commit_leftovers = false");
    let mut boss = world.boss();
    let merged = create(&mut boss, mission("merged", "write a.txt a\ncommit a"));
    let unmerged = create(&mut boss, mission("unmerged", "write b.txt b\ncommit b"));
    let dirty = create(&mut boss, mission("dirty", "write c.txt c"));
    let idle = create(&mut boss, mission("idle", "say nothing to do"));
    let runs = create(&mut boss, mission("runs", "wait-file ../../repo/go"));
    for worker in [&merged, &unmerged, &dirty, &idle] {
        until_status(&mut boss, worker, "completed");
    }
    until_status(&mut boss, &runs, "running");
    world.run(&["integrate", &merged]).ended(0);
    std::fs::create_dir(world.worktree("stranger")).unwrap();

    let plan = world.run(&["clean", "--dry-run", "--json"]).json();
    assert_eq!(ids(&plan["removed"]), [merged.as_str(), idle.as_str()], "{plan:#}");
    assert_eq!(ids(&plan["kept"]), [unmerged.as_str(), dirty.as_str(), runs.as_str(), ""], "{plan:#}");
    let why = plan["kept"].as_array().unwrap().iter().map(|it| it["why"].as_str().unwrap()).collect::<Vec<_>>();
    for (why, part) in why.iter().zip([
        "not merged into main (commits that are not there: 1)",
        "uncommitted files: 1 (c.txt)",
        "its worker is running",
        "it belongs to no worker",
    ]) {
        assert!(why.contains(part), "{part} in {why}");
    }
    assert!(world.worktree(&merged).exists(), "a dry run removes nothing");

    let ran = world.run(&["clean"]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.stderr.contains("--yes"), "{ran:?}");
    assert!(world.worktree(&merged).exists());

    let said = world.run(&["clean", "--yes"]).ended(0);
    assert!(said.contains("2 worktrees removed, ") && said.contains("freed"), "{said}");
    let there = [&merged, &unmerged, &dirty, &idle, &runs].map(|worker| world.worktree(worker).exists());
    assert_eq!(there, [false, true, true, false, true]);
    assert!(world.git(&["branch", "--list"]).contains(&merged), "branches stay");
    assert!(world.run(&["clean", "--yes"]).ended(0).contains("nothing to remove"));
    std::fs::write(world.repo().join("go"), "").unwrap();
    until_status(&mut boss, &runs, "completed");
}

#[test]
fn concurrent_cleans_tolerate_a_removed_worktree() {
    let world = World::new();
    let mut boss = world.boss();
    let one = create(&mut boss, mission("one", "write a.txt a\ncommit a"));
    let two = create(&mut boss, mission("two", "say nothing"));
    for worker in [&one, &two] {
        until_status(&mut boss, worker, "completed");
    }
    world.run(&["integrate", &one]).ended(0);
    boss.kill_server();
    std::fs::remove_dir_all(world.worktree(&two)).unwrap();
    let both = [world.begin(&["clean", "--yes"]), world.begin(&["clean", "--yes"])];
    for clean in both {
        wait_for_end(clean).ended(0);
    }
    assert!(!world.worktree(&one).exists());
    assert!(!world.git(&["worktree", "list"]).contains(".orchestrator"));
    assert!(world.run(&["clean", "--yes"]).ended(0).contains("nothing to remove"));
}

#[test]
fn worktrees_in_the_data_directory_are_cleaned() {
    let world = World::new();
    // A file of that name prevents the folder beside the repository.
    std::fs::write(world.path("repo.worktrees"), "a file").unwrap();
    let mut boss = world.boss();
    let worker = create(&mut boss, mission("a", "write a.txt a\ncommit a"));
    until_status(&mut boss, &worker, "completed");
    let folders = world.path(".local/share/orchestrator-boss/worktrees");
    let folder = std::fs::read_dir(folders).unwrap().next().unwrap().unwrap().path();
    assert!(folder.join(&worker).join("a.txt").exists());
    world.run(&["integrate", &worker]).ended(0);
    std::fs::create_dir(folder.join("stranger")).unwrap();
    let plan = world.run(&["clean", "--dry-run", "--json"]).json();
    assert_eq!(ids(&plan["removed"]), [worker.as_str()], "{plan:#}");
    assert_eq!(ids(&plan["kept"]), [""], "{plan:#}");
    std::fs::remove_dir(folder.join("stranger")).unwrap();
    world.run(&["clean", "--yes"]).ended(0);
    assert!(!folder.exists(), "the folder is removed with its last worktree");
}

fn branches(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|item| item["branch"].as_str().unwrap().to_owned()).collect()
}

/// Deletes the merged branches, those of worktrees that were removed before among them.
#[test]
fn clean_deletes_only_merged_branches_of_workers() {
    let world = World::new();
    let mut boss = world.boss();
    let earlier = create(&mut boss, mission("earlier", "write a.txt a\ncommit a"));
    let now = create(&mut boss, mission("now", "write b.txt b\ncommit b"));
    let unmerged = create(&mut boss, mission("unmerged", "write c.txt c\ncommit c"));
    let named = create(&mut boss, with(mission("named", "say nothing"), "worktree", json!({"branch": "feature"})));
    let used = create(&mut boss, mission("used", "say nothing"));
    for worker in [&earlier, &now, &unmerged, &named, &used] {
        until_status(&mut boss, worker, "completed");
    }
    let branch = |worker: &str| format!("orchestrator/{worker}");
    world.run(&["integrate", &earlier]).ended(0);
    world.run(&["integrate", &now]).ended(0);
    boss.succeed("remove_worktree", json!({"worker_id": earlier}));
    boss.succeed("remove_worktree", json!({"worker_id": unmerged}));
    boss.succeed("remove_worktree", json!({"worker_id": used}));
    world.git(&["worktree", "add", "-q", "../mine", &branch(&used)]);
    world.git(&["branch", "orchestrator/stranger"]);

    assert!(world.run(&["clean", "--dry-run", "--json"]).json()["branches"].is_null());
    let plan = world.run(&["clean", "--branches", "--dry-run", "--json"]).json();
    assert_eq!(ids(&plan["removed"]), [now.as_str(), named.as_str()], "{plan:#}");
    let deleted = [branch(&earlier), branch(&now)];
    assert_eq!(branches(&plan["branches"]["deleted"]), deleted, "{plan:#}");
    let kept: Vec<(&str, &str)> = plan["branches"]["kept"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["branch"].as_str().unwrap(), it["why"].as_str().unwrap()))
        .collect();
    let expected = [
        (branch(&unmerged), "is not merged into main (commits that are not there: 1)"),
        ("feature".to_owned(), "its name was given by the boss"),
        (branch(&used), "it is checked out in"),
        ("orchestrator/stranger".to_owned(), "it belongs to no worker"),
    ];
    assert_eq!(kept.len(), expected.len(), "{plan:#}");
    for (name, why) in &expected {
        assert!(kept.iter().any(|(branch, said)| branch == name && said.contains(why)), "{name}: {why} in {plan:#}");
    }

    let said = world.run(&["clean", "--branches", "--yes"]).ended(0);
    assert!(said.contains("2 worktrees removed, 2 branches deleted, "), "{said}");
    let left = world.git(&["branch", "--list", "--format=%(refname:short)"]);
    let mut wanted: Vec<String> = expected.into_iter().map(|(name, _)| name).chain(["main".to_owned()]).collect();
    wanted.sort();
    assert_eq!(left.lines().collect::<Vec<_>>(), wanted);
    assert_eq!(status(&mut boss, &earlier)["integrated"]["into"], "main");
    assert!(world.run(&["clean", "--branches", "--yes"]).ended(0).contains("nothing to remove"));
}

#[test]
fn clean_can_be_limited_to_older_workers() {
    let world = World::new();
    let mut boss = world.boss();
    let worker = create(&mut boss, mission("a", "say nothing"));
    until_status(&mut boss, &worker, "completed");
    let plan = world.run(&["clean", "--branches", "--older-than", "7d", "--dry-run", "--json"]).json();
    assert_eq!((ids(&plan["removed"]).len(), ids(&plan["kept"])), (0, vec![worker.clone()]), "{plan:#}");
    assert!(plan["kept"][0]["why"].as_str().unwrap().contains("--older-than"), "{plan:#}");
    assert_eq!(branches(&plan["branches"]["deleted"]).len(), 0, "{plan:#}");
    let plan = world.run(&["clean", "--older-than", "0s", "--dry-run", "--json"]).json();
    assert_eq!(ids(&plan["removed"]), [worker], "{plan:#}");
    assert_eq!(world.run(&["clean", "--older-than", "soon"]).code, Some(2));
}
