//! Unwritable folders: read-only mounts, which also affect root, and modes, which affect a server without root's
//! capabilities. The message names the path and the fix, and work continues without a restart once it is writable.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::disk::{in_own_mounts, set_read_only};
use crate::world::{World, create, mission, reason, settled, skip, status, until, until_exists};

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("its owner may change its mode");
}

/// Creates a world whose servers obey modes: as root they are started without the capabilities that override modes.
fn obedient() -> Option<World> {
    if !rustix::process::getuid().is_root() {
        return Some(World::new());
    }
    let drop = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search,-fowner"];
    let folder = tempfile::tempdir().unwrap();
    set_mode(folder.path(), 0o500);
    let probe = format!("! touch {}/x", folder.path().display());
    let works = Command::new(drop[0]).args(&drop[1..]).args(["sh", "-c", &probe]).output();
    if works.is_ok_and(|output| output.status.success()) {
        Some(World::new().through(&drop))
    } else {
        skip("root's capabilities cannot be dropped here (setpriv)");
        None
    }
}

fn check_message(why: &str, path: &Path) {
    assert!(why.contains(&*path.to_string_lossy()), "it names {}: {why}", path.display());
    assert!(why.contains("not permitted") && why.contains("--state-dir"), "{why}");
}

#[test]
fn unwritable_repository_is_named_and_used_later() {
    let Some(world) = obedient() else { return };
    set_mode(&world.repo(), 0o500);
    let mut boss = world.boss();
    let why = boss.refused("create_worker_mission", mission("t", "say done"));
    check_message(&why, &world.state_dir());
    boss.succeed("list_worker_missions", json!({}));
    set_mode(&world.repo(), 0o700);
    let worker = create(&mut boss, mission("t", "say done"));
    assert_eq!(settled(&mut boss, &worker)["status"], "completed");
}

#[test]
fn inaccessible_state_folder_is_named_and_used_later() {
    // A read-only folder still contains the existing journal, which is writable.
    for (mode, folders) in [(0o500, &["servers"][..]), (0o000, &["journal", "servers"])] {
        let Some(world) = obedient() else { return };
        let mut boss = world.boss();
        let worker = create(&mut boss, mission("t", "say done"));
        settled(&mut boss, &worker);
        boss.leave();
        for folder in folders {
            let folder = world.state_dir().join(folder);
            set_mode(&folder, mode);
            let mut boss = world.boss();
            let why = boss.refused("create_worker_mission", mission("u", "say done"));
            set_mode(&folder, 0o700);
            assert!(why.contains(&*folder.to_string_lossy()), "{mode:o} {}: {why}", folder.display());
            assert!(why.contains("--state-dir"), "{mode:o} {}: {why}", folder.display());
            let worker_now = settled(&mut boss, &worker);
            assert_eq!(worker_now["status"], "completed", "{mode:o}: without a restart");
            boss.leave();
        }
    }
}

#[test]
fn unwritable_worker_folder_is_named_and_loses_nothing() {
    let Some(world) = obedient() else { return };
    let mut boss = world.boss();
    let workers = world.state_dir().join("workers");
    let first = create(&mut boss, mission("first", "say done"));
    settled(&mut boss, &first);
    set_mode(&workers, 0o500);
    let second = create(&mut boss, mission("second", "say done"));
    until("a server has tried to start it", || world.log().contains("not permitted"));
    set_mode(&workers, 0o700);
    let ended = settled(&mut boss, &second);
    assert_eq!(ended["status"], "completed", "{ended:#}");
}

#[test]
fn unwritable_runtime_folder_is_named() {
    let Some(world) = obedient() else { return };
    let runtime = world.path("runtime");
    fs::create_dir(&runtime).unwrap();
    set_mode(&runtime, 0o500);
    let world = world.env("XDG_RUNTIME_DIR", &runtime.to_string_lossy());
    let mut boss = world.boss();
    let worker = create(&mut boss, mission("t", "say done"));
    let ended = settled(&mut boss, &worker);
    assert_eq!(ended["outcome"]["run"]["reason"], "could_not_start", "{ended:#}");
    let why = reason(&ended);
    assert!(why.contains(&*runtime.to_string_lossy()) && why.contains("XDG_RUNTIME_DIR"), "{why}");
    set_mode(&runtime, 0o700);
    boss.succeed("retry_worker", json!({"worker_id": worker}));
    assert_eq!(settled(&mut boss, &worker)["status"], "completed");
}

#[test]
fn repository_on_read_only_mount_is_used_later() {
    in_own_mounts(|| {
        let world = World::new();
        set_read_only(&world.repo(), true);
        let mut boss = world.boss_in(Path::new(&world.repo()));
        let why = boss.refused("create_worker_mission", mission("t", "say done"));
        check_message(&why, &world.state_dir());
        assert!(why.contains("Read-only file system"), "{why}");
        // The server's working directory is inside the mount that is removed.
        set_read_only(&world.repo(), false);
        let mut boss = world.boss();
        let worker = create(&mut boss, mission("t", "say done"));
        assert_eq!(settled(&mut boss, &worker)["status"], "completed");
    });
}

#[test]
fn state_folder_turning_read_only_loses_nothing() {
    in_own_mounts(|| {
        let world = World::new();
        let mut boss = world.boss();
        let gate = world.path("gate");
        let worker = create(&mut boss, mission("t", &format!("touch ready\nwait-file {}\nsay done", gate.display())));
        until_exists(&world.worktree(&worker).join("ready"));
        until("it runs", || status(&mut boss, &worker)["status"] == "running");
        let workers = world.state_dir().join("workers");
        set_read_only(&workers, true);
        let why = boss.refused("send_message_to_worker", json!({"worker_id": worker, "message": "hello"}));
        assert!(why.contains("not permitted") && why.contains("inbox"), "{why}");
        fs::write(&gate, "").unwrap();
        set_read_only(&workers, false);
        let ended = settled(&mut boss, &worker);
        assert_eq!(ended["status"], "completed", "{ended:#}");
    });
}

#[test]
fn read_only_commands_need_no_writable_folder() {
    in_own_mounts(|| {
        let world = World::new();
        let mut boss = world.boss();
        let worker = create(&mut boss, mission("t", "write a.txt a\ncommit a\nsay done"));
        assert_eq!(settled(&mut boss, &worker)["status"], "completed");
        boss.leave();
        let page = world.path("page.html");
        set_read_only(&world.repo(), true);
        let commands = [
            "status",
            "status --json",
            "status w-1",
            "logs w-1",
            "logs w-1 --raw",
            "logs w-1 --follow",
            "wait",
            "wait w-1",
            "diff w-1",
            "diff w-1 --stat",
            "clean --dry-run",
            &format!("report --output {}", page.display()),
        ];
        let said = commands.map(|command| (command, world.run(&command.split(' ').collect::<Vec<_>>())));
        let refused = ["cancel", "retry"].map(|command| (command, world.run(&[command, &worker])));
        set_read_only(&world.repo(), false);
        for (args, output) in said {
            assert!(output.status.success() && output.stderr.is_empty(), "{args:?}: {output:?}");
        }
        assert!(page.exists());
        for (command, output) in refused {
            let why = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.code() == Some(1) && why.contains("Read-only file system"), "{command}: {why}");
            check_message(&why, &world.repo());
        }
    });
}
