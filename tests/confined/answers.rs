//! Answers say what the kernel enforces, and the settings decide what happens where it cannot.

use std::fs;
use std::path::PathBuf;

use serde_json::json;

use crate::support::git::git;
use crate::support::sandbox::{create, fake_backend, mission, status, with};
use crate::support::wait::until;
use crate::world::{World, run};

#[test]
fn answer_says_what_the_kernel_enforces() {
    let Some(_) = World::new("") else { return };
    for (abi, confined) in [
        ("3", json!({"by": "landlock", "abi": 3, "signals": false})),
        ("5", json!({"by": "landlock", "abi": 5, "signals": false})),
        ("6", json!({"by": "landlock", "abi": 6, "signals": true})),
        ("2", json!({"why_not": "this kernel has version 2 of Landlock, and 3 (Linux 6.2) is needed"})),
        ("0", json!({"why_not": "this kernel or container has no Landlock"})),
    ] {
        let world = World::anywhere("");
        let mut boss = world.boss_with(&[("ORCHESTRATOR_TEST_LANDLOCK_ABI", abi)]);
        let worker = run(&mut boss, mission("t", "say done"));
        let mut expected = confined;
        if expected["by"] != json!(null) {
            for (name, value) in [
                ("git", "shared"),
                ("reads", "all"),
                ("network", "all"),
                ("sockets", "path sockets open"),
                ("cli_state", "none"),
            ] {
                expected[name] = json!(value);
            }
        }
        assert_eq!(worker["confined"], expected, "{worker:#}");
        let enforced = if expected["by"].is_null() { "none" } else { "kernel" };
        assert_eq!(worker["enforced"], enforced, "{worker:#}");
        boss.leave();
    }
}

#[test]
fn kernel_that_enforces_nothing_is_reported() {
    let Some(_) = World::new("") else { return };
    let idle = [("ORCHESTRATOR_TEST_LANDLOCK_IDLE", "1")];
    let why = "the kernel reports that Landlock is enforced, but enforces nothing";
    let world = World::anywhere("");
    let mut boss = world.boss_with(&idle);
    let worker = run(&mut boss, mission("t", "say done"));
    assert_eq!((&worker["confined"], &worker["enforced"]), (&json!({"why_not": why}), &json!("none")), "{worker:#}");
    boss.leave();
    let world = World::anywhere("confine = \"require\"");
    let mut boss = world.boss_with(&idle);
    let worker = run(&mut boss, mission("t", "say done"));
    assert_eq!(worker["outcome"]["run"]["reason"], "could_not_start", "{worker:#}");
    assert!(worker.to_string().contains(why), "{worker:#}");
    boss.leave();
}

/// As on file systems whose inodes differ at each access, such as 9p.
#[test]
fn file_system_without_effect_of_rules_is_reported() {
    let Some(_) = World::new("") else { return };
    for setting in ["auto", "require"] {
        let world = World::anywhere(&format!("confine = \"{setting}\"\nconfine_git = \"clone\""));
        let mut boss = world.boss();
        let script = "write new.txt x\ncommit new";
        run(&mut boss, mission("a", script));
        boss.leave();
        let root = world.sandbox.root();
        let mut boss = world.boss_with(&[("ORCHESTRATOR_TEST_LANDLOCK_WITHOUT_EFFECT", root.to_str().unwrap())]);
        let draft = with(mission("t", &script.replace("new", "other")), "setup_command", "touch set-up");
        let worker = run(&mut boss, with(draft, "verify_command", "touch built && test -e other.txt"));
        let tree = world.sandbox.worktree("w-2-t");
        let why = format!("it would be able to write nothing on the file system of {}", tree.display());
        let answer = boss.succeed("integrate_worker", json!({"worker_id": "w-1-a", "verify_command": "touch built"}));
        if setting == "auto" {
            let found = (&worker["status"], &worker["enforced"], &worker["confined"]);
            assert_eq!(found, (&json!("completed"), &json!("none"), &json!({"why_not": why})), "{worker:#}");
            assert_eq!(answer["verification"]["result"], "passed", "{answer:#}");
        } else {
            assert_eq!(worker["outcome"]["run"]["reason"], "could_not_start", "{worker:#}");
            assert!(worker.to_string().contains(&format!("demands: {why}")), "{worker:#}");
            assert!(!tree.join("set-up").exists());
            assert_eq!(answer["verification"]["result"], "could_not_run", "{answer:#}");
            assert!(answer.to_string().contains("demands: it would be able to write nothing"), "{answer:#}");
        }
        boss.leave();
    }
}

#[test]
fn default_settings_confine() {
    let Some(world) = World::new("") else { return };
    fs::write(world.sandbox.settings_file(), fake_backend("fake")).unwrap();
    let mut boss = world.boss();
    let outside = world.path("outside");
    let worker = run(&mut boss, mission("t", &format!("run touch {}", outside.display())));
    assert_eq!((&worker["status"], &worker["enforced"]), (&json!("completed"), &json!("kernel")), "{worker:#}");
    assert!(!outside.exists());
    boss.leave();
}

#[test]
fn confinement_can_be_switched_off() {
    let world = World::anywhere("confine = \"off\"");
    let mut boss = world.boss();
    let outside = world.path("outside");
    let script = format!("env TMPDIR place\nrun touch {}", outside.display());
    let worker = run(&mut boss, mission("t", &script));
    assert_eq!((&worker["status"], &worker["enforced"]), (&json!("completed"), &json!("none")), "{worker:#}");
    assert_eq!(worker["confined"], json!(null), "{worker:#}");
    assert!(outside.exists());
    let place = fs::read_to_string(world.sandbox.worktree("w-1-t").join("place")).unwrap();
    assert!(!place.contains("/ob-"), "{place}");
    let refused = boss.refused("create_worker_mission", with(mission("u", "say done"), "permissions", "read_only"));
    assert!(refused.contains("read_only"), "{refused}");
    boss.leave();
}

/// A backend that is not known can write the existing folders that are named after it, and no others.
#[test]
fn custom_backend_writes_the_folders_of_its_name() {
    let Some(world) = World::new("") else { return };
    let program = world.path("bin/agent");
    fs::create_dir(world.path("bin")).unwrap();
    std::os::unix::fs::symlink(crate::support::sandbox::fake_cli(), &program).unwrap();
    let settings =
        fake_backend("fake").replace(&format!("{:?}", crate::support::sandbox::fake_cli()), &format!("{program:?}"));
    fs::write(world.sandbox.settings_file(), settings).unwrap();
    for folder in [".agent", ".config/agent", ".local/share/agent", ".cache/fake", ".other"] {
        fs::create_dir_all(world.path(folder)).unwrap();
    }
    let mut boss = world.boss();
    let script = "run cd ~ && for f in .agent .config/agent .local/share/agent .cache/fake .other .config; do touch $f/x; done; mkdir .local/state";
    let worker = run(&mut boss, mission("t", script));
    for (folder, is_written) in [
        (".agent/x", true),
        (".config/agent/x", true),
        (".local/share/agent/x", true),
        (".cache/fake/x", true),
        (".other/x", false),
        (".config/x", false),
        (".local/state", false),
    ] {
        assert_eq!(world.path(folder).exists(), is_written, "{folder}: {worker:#}");
    }
    boss.leave();
}

#[test]
fn required_confinement_refuses_to_start_without_it() {
    let world = World::anywhere("confine = \"require\"");
    let mut boss = world.boss_with(&[("ORCHESTRATOR_TEST_LANDLOCK_ABI", "2")]);
    let worker = run(&mut boss, with(mission("t", "touch started"), "setup_command", "touch set-up"));
    assert_eq!(worker["outcome"]["run"]["reason"], "could_not_start", "{worker:#}");
    assert!(worker.to_string().contains("demands: this kernel has version 2 of Landlock"), "{worker:#}");
    for file in ["started", "set-up"] {
        assert!(!world.sandbox.worktree("w-1-t").join(file).exists(), "{file}");
    }
    boss.leave();
}

#[test]
fn full_permissions_are_not_confined() {
    let world = World::anywhere("allow_full_permissions = true");
    let mut boss = world.boss();
    let outside = world.path("outside");
    let mission = mission("t", &format!("touch {}", outside.display()));
    let worker = run(&mut boss, with(mission, "permissions", "full"));
    assert_eq!(worker["confined"], json!({"why_not": "permissions: full"}), "{worker:#}");
    assert!(outside.exists());
    boss.leave();
}

#[test]
fn allowed_folders_are_writable_and_missing_ones_refused() {
    let Some(world) = World::new("confine_writable = [\"~/allowed\"]") else { return };
    let mut boss = world.boss();
    let script = format!("touch {}", world.path("allowed/file").display());
    let worker = run(&mut boss, mission("a", &script));
    assert!(worker.to_string().contains("confine_writable names"), "{worker:#}");
    fs::create_dir(world.path("allowed")).unwrap();
    assert_eq!(run(&mut boss, mission("b", &script))["status"], "completed");
    assert!(world.path("allowed/file").exists());
    boss.leave();
}

#[test]
fn unreadable_folders_cannot_be_read() {
    let Some(world) = World::new("confine_unreadable = [\"~/secret\", \"~/link\"]") else { return };
    fs::create_dir(world.path("secret")).unwrap();
    fs::create_dir(world.path("real")).unwrap();
    std::os::unix::fs::symlink(world.path("real"), world.path("link")).unwrap();
    for file in ["secret/key", "real/key"] {
        fs::write(world.path(file), "x").unwrap();
    }
    let root = world.sandbox.root();
    let cannot = format!("! cat {0}/secret/key && ! cat {0}/real/key && ! ls {0}/secret", root.display());
    let can = format!("cat {0}/repo/README && git log -1 && git status && ls {0}/repo", root.display());
    let mut boss = world.boss();
    let script = format!("run sh -c '{cannot}'\nrun sh -c '{can}'\nwrite new.txt x\ncommit new");
    let draft = with(mission("t", &script), "setup_command", format!("{cannot} && {can}"));
    let worker = run(&mut boss, with(draft, "verify_command", format!("{cannot} && {can} && cat new.txt")));
    assert_eq!(
        (&worker["status"], &worker["confined"]["reads"]),
        (&json!("completed"), &json!("limited")),
        "{worker:#}"
    );
    let integration = json!({"worker_id": "w-1-t", "verify_command": format!("{cannot} && cat new.txt")});
    let answer = boss.succeed("integrate_worker", integration);
    assert_eq!(answer["verification"]["result"], "passed", "{answer:#}");
    boss.leave();
}

#[test]
fn unreadable_paths_that_a_worker_needs_are_refused() {
    let Some(_) = World::new("") else { return };
    for (named, message) in [
        ("~/nowhere", "confine_unreadable names"),
        ("ROOT", "(the home folder)"),
        ("~/repo", "(the repository)"),
        ("~/repo/.git/objects", "(the repository)"),
        ("~/repo.worktrees", "(the directory of the worker)"),
        ("~/repo/.orchestrator", "(the state directory)"),
        ("~/to-repo", "(the repository)"),
    ] {
        let world = World::anywhere("");
        let named = named.replace("ROOT", &world.sandbox.root().display().to_string());
        std::os::unix::fs::symlink(world.sandbox.repo(), world.path("to-repo")).unwrap();
        let settings = fs::read_to_string(world.sandbox.settings_file()).unwrap();
        fs::write(world.sandbox.settings_file(), format!("confine_unreadable = [{named:?}]\n{settings}")).unwrap();
        let mut boss = world.boss();
        let worker = run(&mut boss, mission("t", "say done"));
        assert_eq!(worker["outcome"]["run"]["reason"], "could_not_start", "{named}: {worker:#}");
        let text = worker.to_string();
        assert!(text.contains(message) && text.contains("confine_unreadable names"), "{named}: {worker:#}");
        boss.leave();
    }
}

/// Creates a world whose backend is named like a CLI with a known folder of state, and returns its settings file there.
fn world_with_cli_settings() -> Option<(World, PathBuf)> {
    let world = World::new("")?;
    let program = world.path("claude");
    std::os::unix::fs::symlink(crate::support::sandbox::fake_cli(), &program).unwrap();
    let settings = fs::read_to_string(world.sandbox.settings_file()).unwrap();
    let fake = crate::support::sandbox::fake_cli().display().to_string();
    fs::write(world.sandbox.settings_file(), settings.replace(&fake, &program.display().to_string())).unwrap();
    let file = world.path(".claude/settings.json");
    fs::create_dir(file.parent().unwrap()).unwrap();
    fs::write(&file, "{\"model\": \"a\"}").unwrap();
    Some((world, file))
}

#[test]
fn changed_settings_of_the_cli_stop_integration() {
    let Some((world, file)) = world_with_cli_settings() else { return };
    let mut boss = world.boss();
    let write =
        |text: &str| format!("run sh -c 'echo \"$0\" > {}' '{text}'\nwrite new.txt x\ncommit new", file.display());
    let worker = run(&mut boss, mission("t", &write("{\"model\": \"b\"}")));
    assert_eq!((&worker["status"], &worker["enforced"]), (&json!("completed"), &json!("kernel")), "{worker:#}");
    let records = world.sandbox.repo().join(".orchestrator/cli-settings");
    assert!(!records.exists());

    let worker = run(&mut boss, mission("u", &write("{\"hooks\": {\"Stop\": [1]}}").replace("new", "hooked")));
    assert!(
        worker["outcome"]["changes"]["notes"].to_string().contains("settings.json hooks (added); this can"),
        "{worker:#}"
    );
    // The work of any worker waits for the user.
    let refused = boss.refused("integrate_worker", json!({"worker_id": "w-1-t"}));
    assert!(refused.contains("settings.json hooks (added)") && refused.contains("cli-settings"), "{refused}");
    fs::write(&file, "{}").unwrap();
    boss.succeed("integrate_worker", json!({"worker_id": "w-1-t"}));
    assert!(!records.exists());

    run(&mut boss, mission("v", &write("{\"hooks\": {\"Stop\": [2]}}").replace("new", "accepted")));
    boss.refused("integrate_worker", json!({"worker_id": "w-3-v"}));
    fs::remove_dir_all(records).unwrap();
    boss.succeed("integrate_worker", json!({"worker_id": "w-3-v"}));
    boss.leave();
}

/// A message that arrives during the verification opens another turn, after the settings were compared.
#[test]
fn settings_that_a_later_turn_changes_stop_integration() {
    let Some((world, file)) = world_with_cli_settings() else { return };
    let mut boss = world.boss();
    run(&mut boss, mission("t", "write new.txt x\ncommit new"));
    let go = world.path("proceed");
    let verify = format!("touch verifying; until [ -e {} ]; do sleep 0.05; done", go.display());
    let waiting = with(mission("u", "say done"), "verify_command", json!(verify));
    let id = create(&mut boss, waiting);
    until("its verification runs", || world.sandbox.worktree(&id).join("verifying").exists());
    let message =
        format!("FAKE:\nrun sh -c 'echo \"$0\" > {}' '{{\"hooks\": {{\"Stop\": [1]}}}}'\nhang", file.display());
    boss.succeed("send_message_to_worker", json!({"worker_id": id, "message": message}));
    fs::write(go, "").unwrap();
    until("the settings change", || fs::read_to_string(&file).unwrap().contains("hooks"));
    let refused = boss.refused("integrate_worker", json!({"worker_id": "w-1-t"}));
    assert!(refused.contains("settings.json hooks (added)"), "{refused}");
    boss.succeed("cancel_worker", json!({"worker_id": id}));
    let notes = status(&mut boss, &id)["outcome"]["changes"]["notes"].to_string();
    assert!(notes.contains("settings.json hooks (added); this can"), "{notes}");
    boss.refused("integrate_worker", json!({"worker_id": "w-1-t"}));
    boss.leave();
}

#[test]
fn temporary_folder_ends_with_its_worker() {
    let Some(world) = World::new("") else { return };
    let mut boss = world.boss();
    let script = "env TMPDIR place\nrun mkdir -p $TMPDIR/a && chmod 500 $TMPDIR/a && mktemp";
    let worker = run(&mut boss, mission("t", script));
    assert_eq!(worker["status"], "completed", "{worker:#}");
    let place = fs::read_to_string(world.sandbox.worktree("w-1-t").join("place")).unwrap();
    let place = std::path::PathBuf::from(place.trim().strip_prefix("set ").unwrap());
    assert!(place.to_string_lossy().len() < 60, "{}", place.display());
    crate::support::wait::until("the folder is removed", || !place.exists());
    boss.leave();
}

#[test]
fn worker_with_read_only_permissions_cannot_write_its_worktree() {
    let Some(world) = World::new("") else { return };
    let mut boss = world.boss();
    let script =
        "run sh -c 'touch planted || echo refused > \"$TMPDIR/x\"'\nrun sh -c '! git commit --allow-empty -m x'";
    let draft = with(mission("t", script), "permissions", "read_only");
    let worker = run(&mut boss, with(draft, "verify_command", "touch built"));
    assert_eq!((&worker["status"], &worker["enforced"]), (&json!("completed"), &json!("kernel")), "{worker:#}");
    assert_eq!(worker["confined"]["git"], "none", "{worker:#}");
    let tree = world.sandbox.worktree("w-1-t");
    assert!(!tree.join("planted").exists() && !tree.join("built").exists());
    assert_eq!(git(&tree, &["rev-list", "--count", "HEAD"]), "1");
    boss.leave();
}

#[test]
fn output_files_can_be_opened_again_by_name() {
    let Some(world) = World::new("") else { return };
    let mut boss = world.boss();
    let command = "echo a > /dev/stdout && echo b > /dev/stderr";
    let worker =
        run(&mut boss, with(with(mission("t", "say done"), "setup_command", command), "verify_command", command));
    assert_eq!(worker["status"], "completed", "{worker:#}");
    boss.leave();
}

#[test]
fn worker_commits_and_its_branch_is_integrated() {
    let Some(world) = World::new("") else { return };
    let mut boss = world.boss();
    let worker = run(
        &mut boss,
        with(mission("t", "write new.txt x\ncommit new"), "verify_command", "git status && test -e new.txt"),
    );
    assert_eq!(worker["status"], "completed", "{worker:#}");
    boss.succeed("integrate_worker", json!({"worker_id": "w-1-t", "verify_command": "touch in-tree && git log -1"}));
    assert!(world.sandbox.repo().join("new.txt").exists());
    run(&mut boss, mission("u", "write u.txt x\ncommit u"));
    let outside = world.path("outside");
    let arguments = json!({"worker_id": "w-2-u", "verify_command": format!("touch {}", outside.display())});
    let answer = boss.succeed("integrate_worker", arguments);
    assert_eq!(answer["status"], "verification_failed", "{answer:#}");
    assert!(!outside.exists());
    boss.leave();
}

#[test]
fn links_of_the_user_are_followed() {
    let Some(world) = World::new("") else { return };
    let [real, link] = [world.path("real"), world.path("link")];
    fs::create_dir(&real).unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let settings = fs::read_to_string(world.sandbox.settings_file()).unwrap();
    let settings = format!("worktrees_dir = {:?}\n{settings}", link.join("trees"));
    fs::write(world.sandbox.settings_file(), settings).unwrap();
    let mut boss = world.boss();
    let worker = run(&mut boss, mission("t", "write new.txt x\ncommit new"));
    let commits = &worker["outcome"]["changes"]["commits"];
    assert_eq!((&worker["status"], &worker["enforced"], commits), (&json!("completed"), &json!("kernel"), &json!(1)));
    boss.leave();
}

#[test]
fn refused_write_is_named_with_the_setting() {
    let Some(world) = World::new("") else { return };
    let mut boss = world.boss();
    let outside = world.path("outside");
    let command = format!("touch {}", outside.display());
    let worker = run(&mut boss, with(mission("t", "say done"), "verify_command", command));
    assert_eq!(worker["status"], "failed", "{worker:#}");
    let notes = worker["outcome"]["changes"]["notes"].to_string();
    assert!(notes.contains(&format!("refused writing {}", outside.display())), "{worker:#}");
    boss.leave();
}
