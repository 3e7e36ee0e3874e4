//! What a cluster refuses, and what it accepts and never starts.

use std::fs;

use serde_json::{Value, json};

use crate::support::sandbox::{create, status, with};
use crate::support::wait::{until, until_some};
use crate::world::{LAUNCHER, World, on_cluster, text};

/// `sbatch` accepts more processors than a node has. Such a job waits for ever.
#[test]
fn job_that_can_never_start_asks_for_attention() {
    let large = LAUNCHER.replace("cpus = 1", "cpus = 64");
    let Some(world) = World::with_settings(&[("NODES", "1")], &large) else { return };
    let mut boss = world.boss();
    let id = world.create(&mut boss, "Too large", "say never");
    let answer = until_some("a wait returns with it", || {
        let answer = boss.succeed("wait_for_any_worker", json!({"timeout_seconds": 10}));
        (answer["status"] != "still_running").then_some(answer)
    });
    assert_eq!(
        (&answer["status"], &answer["attention"][0]["worker_id"]),
        (&json!("attention"), &json!(id)),
        "{answer:#}"
    );
    let why = text(&answer["attention"][0]["waits_for"]);
    assert!(why.contains("PartitionConfig") || why.contains("Resources"), "{why}");
    assert!(why.contains("`cpus`") && why.contains("[launchers.cluster]"), "{why}");
    let cancelled = boss.succeed("cancel_worker", json!({"worker_id": id}));
    assert_eq!(cancelled["status"], "cancelled", "{cancelled:#}");
    until("no job is left", || world.jobs() == 0);
    boss.leave();
}

#[test]
fn refusal_of_the_cluster_is_final_and_names_the_setting() {
    let sizes = "[launchers.nowhere]\nkind = \"slurm\"\npartition = \"nowhere\"\n\
                 [launchers.huge]\nkind = \"slurm\"\nmemory = \"900G\"\n\
                 [launchers.special]\nkind = \"slurm\"\nconstraint = \"golden\"\n";
    let Some(world) = World::with_settings(&[("NODES", "1")], sizes) else { return };
    let mut boss = world.boss();
    for (launcher, text, setting) in [
        ("nowhere", "invalid partition", "`partition`"),
        ("huge", "memory", "`memory`"),
        ("special", "feature", "`constraint`"),
    ] {
        let message = failure(&world, &mut boss, launcher);
        assert!(message.to_lowercase().contains(text) && message.contains(setting), "{launcher}: {message}");
        assert!(message.contains(&format!("[launchers.{launcher}]")), "{launcher}: {message}");
    }
    assert_eq!(world.jobs(), 0);
    boss.leave();
}

/// Returns the message of a worker that cannot start.
fn failure(world: &World, boss: &mut crate::support::json_lines::Boss, launcher: &str) -> String {
    let id = create(boss, with(on_cluster("Refused", "say never"), "run_on", launcher));
    let failed: Value = world.until(boss, &id, "failed");
    assert_eq!(failed["outcome"]["run"]["reason"], "could_not_start", "{failed:#}");
    let attempt = world.sandbox.attempt(&id, 1);
    assert!(!attempt.join("environment.json").exists(), "what was passed to a refused job is left");
    text(&failed["outcome"]["run"]["message"])
}

#[test]
fn configuration_that_is_not_there_is_named() {
    let Some(world) = World::start(&[("NODES", "1")]) else { return };
    let mut boss = world.boss_with(&[("SLURM_CONF", "/nowhere/slurm.conf")]);
    let message = failure(&world, &mut boss, "cluster");
    assert!(message.contains("/nowhere/slurm.conf") && message.contains("set SLURM_CONF"), "{message}");
    boss.leave();
}

#[test]
fn missing_commands_of_the_cluster_are_named() {
    let Some(world) = World::start(&[("NODES", "1")]) else { return };
    let programs = world.sandbox.path("programs");
    fs::create_dir(&programs).expect("a folder");
    let path = std::env::var_os("PATH").expect("a PATH");
    for name in ["git", "sh", "env"] {
        let path = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.exists());
        let path = path.expect("the program");
        std::os::unix::fs::symlink(path, programs.join(name)).expect("a link");
    }
    let mut boss = world.boss_with(&[("PATH", &programs.display().to_string())]);
    let message = failure(&world, &mut boss, "cluster");
    assert!(message.contains("sbatch is not on the PATH") && message.contains("`command`"), "{message}");
    let launchers = boss.succeed("get_backend_status", json!({}))["launchers"].clone();
    assert!(text(&launchers[0]["problem"]).contains("is not on the PATH"), "{launchers:#}");
    let here = create(&mut boss, with(on_cluster("Run here", "say done"), "run_on", "local"));
    world.until(&mut boss, &here, "completed");
    assert_eq!(status(&mut boss, &here)["status"], "completed");
    boss.leave();
}
