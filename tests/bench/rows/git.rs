//! Git operations, compared with the single git command that does the main part.

use std::process::Command;

use orchestrator_boss::git::{self, Keep, Repository, Trust, radar};
use serde_json::json;

use crate::clock;
use crate::table::{Line, Sides};
use crate::world::{World, file, text};

pub fn integrate() -> Vec<Line> {
    let world = World::with_repository(5_000);
    commit_on(&world, "work", &(0..20).map(|number| number * 200).collect::<Vec<_>>());
    commit_on(&world, "main", &(0..20).map(|number| number * 200 + 100).collect::<Vec<_>>());
    let mut server = world.server(8);
    let mut sides = Sides::default();
    for number in 0..31 {
        let ours = server.time("integrate_worker", json!({"branch": "work", "dry_run": true}));
        let began = clock::now();
        let tree = output(world.sealed("git").args(["merge-tree", "--write-tree", "main", "work"]));
        time(world.sealed("git").args(["diff-tree", "-r", "main", tree.trim()]));
        time(world.sealed("git").args(["status", "--porcelain=v2", "--untracked-files=no"]));
        let floor = clock::between(began, clock::now());
        if number > 0 {
            sides.ours.push(ours);
            sides.floor.push(floor);
        }
    }
    let floor = "`git merge-tree`, and what it would overwrite: `git diff-tree`, `git status`";
    vec![sides.times("`integrate_worker` dry run, 5,000 files", floor, 1.25)]
}

pub fn collisions() -> Vec<Line> {
    const BRANCHES: usize = 32;
    let world = World::with_repository(600);
    let branches: Vec<String> = (0..BRANCHES).map(|number| format!("work-{number}")).collect();
    for (number, branch) in branches.iter().enumerate() {
        commit_on(&world, branch, &[number, number + 100, number + 200]);
    }
    let repository =
        Repository::discover(&world.repo(), &Trust::everything()).expect("git runs").expect("a repository");
    let mut sides = Sides::default();
    for round in 0..21 {
        // A changed branch is checked against the target and against each other branch.
        commit_on(&world, &branches[0], &[300 + round]);
        let began = clock::now();
        let all: Vec<String> = branches.iter().cloned().chain(["main".to_owned()]).collect();
        let tips = radar::tips(&repository, &all).expect("git runs");
        let pairs: Vec<_> = all[1..].iter().map(|other| (tips[&branches[0]].clone(), tips[other].clone())).collect();
        let scratch = radar::scratch().expect("a temporary folder");
        let found = radar::merge_pairs(&repository, "main", &pairs, scratch.path()).expect("git runs");
        let ours = clock::between(began, clock::now());
        assert!(
            found.len() == BRANCHES && found.iter().all(|it| it.as_ref().is_some_and(|it| it.conflicts.is_empty()))
        );
        let scratch = radar::scratch().expect("a temporary folder");
        let began = clock::now();
        for other in &all[1..] {
            let mut merge = world.sealed("git");
            merge.env("GIT_OBJECT_DIRECTORY", scratch.path());
            merge.env("GIT_ALTERNATE_OBJECT_DIRECTORIES", world.repo().join(".git/objects"));
            time(merge.args(["merge-tree", "--write-tree", &branches[0], other]));
        }
        let floor = clock::between(began, clock::now());
        if round > 0 {
            sides.ours.push(ours);
            sides.floor.push(floor);
        }
    }
    let what = format!("radar: {BRANCHES} branches, all pairs, after one has changed");
    vec![sides.times(&what, &format!("{BRANCHES} times `git merge-tree`, with its objects in a new folder too"), 1.0)]
}

pub fn salvage() -> Vec<Line> {
    let world = World::with_repository(600);
    let place = world.path("work/worktree");
    world.git(&["worktree", "add", "-q", "-b", "work", &place.to_string_lossy()]);
    let repository =
        Repository::discover(&world.repo(), &Trust::everything()).expect("git runs").expect("a repository");
    let mut sides = Sides::default();
    for round in 0..21 {
        // Both sides use new contents each time, since existing objects cost less.
        let change = |seed: usize| {
            (0..200).for_each(|at| std::fs::write(place.join(file(at)), text(seed + at, 80)).expect("a file"))
        };
        change(1_000_000 + round * 1_000);
        let began = clock::now();
        let kept = git::salvage(&repository, &place, &format!("round-{round}"), Keep::default()).expect("git runs");
        let ours = clock::between(began, clock::now());
        assert!(kept.is_some());
        change(2_000_000 + round * 1_000);
        let floor = time(world.sealed("git").args(["stash", "create"]).current_dir(&place));
        if round > 0 {
            sides.ours.push(ours);
            sides.floor.push(floor);
        }
    }
    vec![sides.times("salvage of 200 changed files", "`git stash create`", 1.5)]
}

fn commit_on(world: &World, branch: &str, files: &[usize]) {
    if branch != "main" && world.git(&["branch", "--list", branch]).is_empty() {
        world.git(&["branch", branch, "main"]);
    }
    world.git(&["checkout", "-q", branch]);
    for number in files {
        std::fs::write(world.repo().join(file(*number)), text(*number + branch.len() * 7_919, 81)).expect("a file");
    }
    world.git(&["commit", "-qam", "work"]);
    world.git(&["checkout", "-q", "main"]);
}

fn time(command: &mut Command) -> f64 {
    let began = clock::now();
    output(command);
    clock::between(began, clock::now())
}

fn output(command: &mut Command) -> String {
    let output = command.output().expect("git runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
