//! A repository that an attacker prepared: nothing in it makes the program write outside, block, or start missions that
//! the user did not request. Each refusal names the path and the fix, and work continues without a restart after it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::world::{World, create, mission, reason, settled, with};

/// Creates a world with a link at `place` in the state folder to a folder or a file outside.
fn linked(place: &str, to_a_folder: bool) -> World {
    let world = World::new();
    link(&world, place, to_a_folder);
    world
}

fn link(world: &World, place: &str, to_a_folder: bool) {
    let outside = world.path("outside");
    if to_a_folder {
        fs::create_dir(&outside).unwrap()
    } else {
        fs::write(&outside, "precious").unwrap()
    }
    let link = world.repo().join(place);
    fs::create_dir_all(link.parent().expect("a path with a parent")).unwrap();
    symlink(&outside, link).unwrap();
}

fn untouched(outside: &Path) -> bool {
    if outside.is_dir() {
        fs::read_dir(outside).unwrap().next().is_none()
    } else {
        fs::read_to_string(outside).unwrap() == "precious"
    }
}

#[test]
fn links_in_the_state_folder_are_refused() {
    let places = [
        (".orchestrator", true),
        (".orchestrator/workers", true),
        (".orchestrator/worktrees", true),
        (".orchestrator/journal", true),
        (".orchestrator/servers", true),
        (".orchestrator/journal/lock", false),
        (".orchestrator/journal/000001.jsonl", false),
    ];
    for (place, to_a_folder) in places {
        let world = linked(place, to_a_folder);
        let mut boss = world.boss();
        let why = boss.refused("create_worker_mission", mission("t", "say done"));
        assert!(why.contains(&*world.repo().join(place).to_string_lossy()), "{place}: {why}");
        assert!(why.contains("symbolic link") && why.contains("--state-dir"), "{place}: {why}");
        assert!(untouched(&world.path("outside")), "{place}");
        fs::remove_file(world.repo().join(place)).unwrap();
        let worker = create(&mut boss, mission("t", "say done"));
        assert_eq!(settled(&mut boss, &worker)["status"], "completed", "{place}: without a restart");
        assert!(untouched(&world.path("outside")), "{place}");
    }
}

/// Runs two missions, of which the second meets the link. Without a journal a worker's folder would count as an old
/// one.
fn run_worker_with_link(place: &str, to_a_folder: bool) -> Value {
    let world = World::new();
    let mut boss = world.boss();
    create(&mut boss, mission("t", "say done"));
    link(&world, &format!(".orchestrator/workers/{place}"), to_a_folder);
    let worker = create(&mut boss, mission("t", "say done"));
    assert_eq!(worker, "w-2-t");
    let ended = settled(&mut boss, &worker);
    assert!(untouched(&world.path("outside")), "{place}: {ended:#}");
    ended
}

#[test]
fn link_as_worker_folder_is_refused() {
    for place in ["w-2-t", "w-2-t/attempts", "w-2-t/attempts/1", "w-2-t/attempts/1/inbox"] {
        let ended = run_worker_with_link(place, true);
        assert_eq!(ended["outcome"]["run"]["reason"], "could_not_start", "{place}: {ended:#}");
        assert!(reason(&ended).contains("symbolic link"), "{place}: {ended:#}");
    }
}

#[test]
fn link_as_worker_log_is_refused() {
    let ended = run_worker_with_link("w-2-t/attempts/1/stdout.log", false);
    assert!(reason(&ended).contains("stdout.log: it is not a file"), "{ended:#}");
}

#[test]
fn pipe_as_lock_is_refused() {
    let world = World::new();
    let journal = world.state_dir().join("journal");
    fs::create_dir_all(&journal).unwrap();
    assert!(Command::new("mkfifo").arg(journal.join("lock")).status().unwrap().success());
    let mut boss = world.boss();
    let why = boss.refused("create_worker_mission", mission("t", "say done"));
    assert!(why.contains("journal/lock: it is not a file"), "{why}");
}

#[test]
fn configured_folder_may_be_a_link() {
    let world = World::new();
    fs::create_dir(world.path("elsewhere")).unwrap();
    symlink(world.path("elsewhere"), world.path("link")).unwrap();
    let link = world.path("link");
    let mut boss = world.boss_with(&world.repo(), &["--state-dir", &link.to_string_lossy()]);
    let worker = create(&mut boss, mission("t", "say done"));
    assert_eq!(settled(&mut boss, &worker)["status"], "completed");
    assert!(world.path("elsewhere/journal").is_dir());
}

/// Checks that listing workers in a cloned repository does not start its missions.
#[test]
fn committed_state_folder_starts_nothing() {
    let origin = World::new().set("max_workers = 0");
    let mut boss = origin.boss();
    let proof = origin.path("it-ran");
    let script = format!("touch {}", proof.display());
    create(&mut boss, with(mission("evil", &script), "working_directory", "."));
    boss.kill_server();
    origin.git(&["add", "-f", ".orchestrator/journal"]);
    origin.git(&["commit", "-q", "-m", "a gift"]);

    let world = World::new();
    fs::remove_dir_all(world.repo()).unwrap();
    crate::world::try_git(&world.path(""), &["clone", "-q", &origin.repo().to_string_lossy(), "repo"]).unwrap();
    let mut boss = world.boss();
    let why = boss.refused("list_worker_missions", json!({"scope": "all"}));
    assert!(why.contains("git tracks") && why.contains("--state-dir"), "{why}");
    boss.leave();
    assert!(!proof.exists());
}
