//! The verification of a worker that only reads runs in a scratch copy of its files, which leaves nothing behind.

use std::fs;
use std::path::Path;

use orchestrator_boss::process::{Signal, send};
use serde_json::json;

use crate::support::git::{commit_all, git, init};
use crate::support::sandbox::{create, mission, with};
use crate::support::wait::until;
use crate::world::{World, run, settled};

/// Returns the names of scratch copies beside the repository.
fn copies(world: &World) -> Vec<String> {
    let entries = fs::read_dir(world.path("repo.worktrees")).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with("verify-")).collect()
}

fn check_nothing_is_left(world: &World) {
    assert_eq!(copies(world), [""; 0]);
    assert!(!world.sandbox.repo().join(".orchestrator/integrations").exists());
    assert_eq!(git(&world.sandbox.repo(), &["worktree", "list"]).lines().count(), 2);
}

fn ignoring(world: &World, settings: &str) {
    fs::write(world.sandbox.repo().join(".gitignore"), "ignored/\n").unwrap();
    commit_all(&world.sandbox.repo(), "ignore");
    let file = world.sandbox.settings_file();
    fs::write(&file, format!("{settings}\n{}", fs::read_to_string(&file).unwrap())).unwrap();
}

#[test]
fn copy_has_ignored_and_uncommitted_files() {
    let Some(world) = World::new("") else { return };
    ignoring(&world, "commit_leftovers = false");
    let mut boss = world.boss();
    let draft = with(mission("t", "say done"), "permissions", "read_only");
    let setup = "mkdir ignored && echo dependency > ignored/file && echo changed > README && echo new > untracked";
    let draft = with(draft, "setup_command", setup);
    let command = "grep dependency ignored/file && grep changed README && grep new untracked && git status && \
                   touch built && echo broken > README && echo said";
    let worker = run(&mut boss, with(draft, "verify_command", command));
    let tree = world.sandbox.worktree("w-1-t");
    // It passed, and no commit has what it verified.
    assert_eq!(worker["outcome"]["verification"]["result"], "could_not_run", "{worker:#}");
    assert_eq!(fs::read_to_string(tree.join("README")).unwrap(), "changed\n");
    assert!(!tree.join("built").exists());
    let log = fs::read_to_string(world.sandbox.attempt("w-1-t", 1).join("verify.log")).unwrap();
    assert!(log.ends_with("said\n"), "{log}");
    check_nothing_is_left(&world);
    boss.leave();
}

#[test]
fn result_of_the_copy_is_that_of_the_commit() {
    let Some(world) = World::new("") else { return };
    let mut boss = world.boss();
    for (number, command, result, status) in
        [(1, "touch built", "passed", "completed"), (2, "echo why; exit 3", "failed", "failed")]
    {
        let draft = with(mission("t", "say done"), "permissions", "read_only");
        let worker = run(&mut boss, with(draft, "verify_command", command));
        let verification = &worker["outcome"]["verification"];
        assert_eq!((&worker["status"], &verification["result"]), (&json!(status), &json!(result)), "{worker:#}");
        let tree = world.sandbox.worktree(format!("w-{number}-t"));
        assert_eq!(verification["commit"], git(&tree, &["rev-parse", "HEAD"]), "{worker:#}");
    }
    assert_eq!(copies(&world), [""; 0]);
    boss.leave();
}

#[test]
fn directory_of_the_user_is_only_read() {
    let Some(world) = World::new("") else { return };
    let [mine, plain] = ["mine", "plain"].map(|name| world.path(name));
    init(&mine);
    fs::create_dir_all(mine.join("inner")).unwrap();
    fs::write(mine.join("inner/file"), "committed\n").unwrap();
    commit_all(&mine, "first");
    fs::write(mine.join("inner/file"), "edited\n").unwrap();
    fs::create_dir(&plain).unwrap();
    fs::write(plain.join("file"), "edited\n").unwrap();
    let mut boss = world.boss();
    let draft = |folder: &Path, command: &str| {
        let draft = with(mission("t", "run sh -c '! touch planted'"), "permissions", "read_only");
        let draft = with(draft, "working_directory", folder.display().to_string());
        with(draft, "verify_command", command)
    };
    let worker = run(&mut boss, draft(&mine.join("inner"), "grep edited file && touch built"));
    assert_eq!(worker["outcome"]["verification"]["result"], "passed", "{worker:#}");
    assert_eq!(worker["outcome"]["verification"]["commit"], json!(null), "no commit has the edit: {worker:#}");
    let worker = run(&mut boss, draft(&plain, "grep edited file && echo broken > file && touch built"));
    assert_eq!(worker["outcome"]["verification"]["result"], "passed", "{worker:#}");
    for folder in [mine.join("inner"), plain] {
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "{}", folder.display());
        assert_eq!(fs::read_to_string(folder.join("file")).unwrap(), "edited\n");
    }
    assert_eq!(git(&mine, &["worktree", "list"]).lines().count(), 1);
    boss.leave();
}

/// Where the folder is in no repository, it may hold the state directory, which is not copied.
#[test]
fn plain_folder_is_verified_in_a_copy_or_not_at_all() {
    let Some(world) = World::new("") else { return };
    let plain = world.path("plain");
    fs::create_dir_all(plain.join("kept")).unwrap();
    let mut server = world.sandbox.bare_command(crate::support::sandbox::PROGRAM);
    server.arg("--config").arg(world.sandbox.settings_file()).current_dir(&plain);
    server.env("XDG_RUNTIME_DIR", world.path("runtime"));
    let mut boss = world.sandbox.boss_of(server);
    let draft = |title: &str, command: &str| {
        let draft = with(mission(title, "say done"), "permissions", "read_only");
        let draft = with(draft, "working_directory", plain.display().to_string());
        with(draft, "verify_command", command)
    };
    let worker = run(&mut boss, draft("a", "touch built && test -d kept && ! test -e .orchestrator && pwd && exit 3"));
    let verification = &worker["outcome"]["verification"];
    assert_eq!((&verification["result"], &verification["exit_code"]), (&json!("failed"), &json!(3)), "{worker:#}");
    let tail = verification["output_tail"].as_str().unwrap();
    assert!(tail.contains(&format!("it ran in a copy of {}", plain.display())), "{worker:#}");
    let copy = Path::new(tail.lines().find(|line| line.starts_with('/')).unwrap());
    assert!(!copy.exists() && !plain.join("built").exists(), "{tail}");

    std::os::unix::fs::symlink("/etc", plain.join("kept/link")).unwrap();
    let worker = run(&mut boss, draft("b", "true"));
    assert_eq!(worker["outcome"]["verification"]["result"], "could_not_run", "{worker:#}");
    let text = worker.to_string();
    assert!(text.contains("the link kept/link leads outside") && text.contains("permissions: edit"), "{worker:#}");
    boss.leave();
}

#[test]
fn copy_of_a_killed_supervisor_is_removed() {
    let Some(world) = World::new("") else { return };
    let mut boss = world.boss();
    let draft = with(mission("t", "say done"), "permissions", "read_only");
    let id = create(&mut boss, with(draft, "verify_command", "touch begun && sleep 600"));
    let has_begun = || copies(&world).iter().any(|copy| world.path("repo.worktrees").join(copy).join("begun").exists());
    until("the verification runs", has_begun);
    let status = fs::read(world.sandbox.attempt(&id, 1).join("status.json")).unwrap();
    let status: serde_json::Value = serde_json::from_slice(&status).unwrap();
    send(&serde_json::from_value(status["supervisor"].clone()).unwrap(), Signal::Kill);
    let ended = crate::support::wait::until_some("it is lost", || {
        Some(crate::support::sandbox::status(&mut boss, &id)).filter(|worker| worker["status"] == "lost")
    });
    until("the copy is removed", || copies(&world).is_empty());
    until("its record is removed", || !world.sandbox.repo().join(".orchestrator/integrations").exists());
    assert_eq!(git(&world.sandbox.repo(), &["worktree", "list"]).lines().count(), 2, "{ended:#}");
    boss.leave();
}

#[test]
fn cancelled_copy_is_removed() {
    let Some(world) = World::new("") else { return };
    let mut boss = world.boss();
    let draft = with(mission("t", "say done"), "permissions", "read_only");
    let id = create(&mut boss, with(draft, "verify_command", "sleep 600"));
    until("the verification runs", || !copies(&world).is_empty());
    let answer = boss.succeed("cancel_worker", json!({"worker_id": id}));
    assert_eq!((&answer["status"], &answer["survivors"]), (&json!("cancelled"), &json!(0)), "{answer:#}");
    settled(&mut boss, &id);
    check_nothing_is_left(&world);
    boss.leave();
}
