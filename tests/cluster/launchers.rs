//! Launchers that change while workers run: removed from the settings, full, chosen anew by a retry, or several in a race.

use std::fs;

use serde_json::json;

use crate::support::sandbox::{create, mission, status, with};
use crate::support::wait::until;
use crate::world::{LAUNCHER, World, text};

/// A server whose settings lack the launcher follows the workers by their files alone.
#[test]
fn worker_outlives_its_launcher_in_the_settings() {
    let Some(world) = World::start(&[("NODES", "1"), ("CPUS", "1")]) else { return };
    let mut boss = world.boss();
    let go = world.on_hosts(world.sandbox.shared("go"));
    let waits = format!("wait-file {} 300\nwrite it.txt x\ncommit Add it", go.display());
    let running = world.create(&mut boss, "Go on", &waits);
    world.until(&mut boss, &running, "running");
    let kept = boss.succeed("remove_worktree", json!({"worker_id": running, "force": true}));
    assert!(text(&kept["kept"][0]["why"]).contains("it is still running"), "{kept:#}");
    assert!(world.sandbox.worktree(&running).join("README").exists());
    let waiting = world.create(&mut boss, "Wait", "say never");
    until("its job waits", || text(&status(&mut boss, &waiting)["waits_for"]).contains("(job "));
    boss.leave();

    let settings = fs::read_to_string(world.sandbox.settings_file()).expect("settings");
    fs::write(world.sandbox.settings_file(), settings.replace(LAUNCHER, "")).expect("a settings file");
    let mut boss = world.boss();
    assert_eq!(status(&mut boss, &running)["status"], "running");
    until("the missing launcher is reported", || {
        text(&status(&mut boss, &waiting)["waits_for"]).contains("the launcher cluster, which is not in the settings")
    });
    let launchers = boss.succeed("get_backend_status", json!({}))["launchers"].clone();
    assert_eq!((&launchers[0]["running"], &launchers[0]["waiting"]), (&json!(1), &json!(1)), "{launchers:#}");
    assert!(text(&launchers[0]["problem"]).contains("not in the settings any more"), "{launchers:#}");
    // Cancelled although no scheduler can be asked: its job finds that it must not begin.
    let cancelled = boss.succeed("cancel_worker", json!({"worker_id": waiting}));
    assert_eq!((&cancelled["status"], &cancelled["proof"]), (&json!("cancelled"), &json!("full")), "{cancelled:#}");
    fs::write(world.sandbox.shared("go"), "").expect("a writable folder");
    let done = world.until(&mut boss, &running, "completed");
    assert_eq!(done["outcome"]["changes"]["commits"], 1, "{done:#}");
    until("the cancelled job has ended by itself", || world.jobs() == 0);
    let log = fs::read_to_string(world.sandbox.attempt(&waiting, 1).join("engine.log")).expect("a log");
    assert!(log.contains("nothing to do"), "{log}");
    boss.leave();
}

#[test]
fn launcher_has_no_more_jobs_than_it_may() {
    let Some(world) = World::with_settings(&[("NODES", "1")], &format!("{LAUNCHER}max_jobs = 1\n")) else { return };
    let mut boss = world.boss();
    let go = world.on_hosts(world.sandbox.shared("go"));
    let script = format!("wait-file {} 300\nsay done", go.display());
    let first = world.create(&mut boss, "First", &script);
    world.until(&mut boss, &first, "running");
    let second = world.create(&mut boss, "Second", "say done");
    let why = text(&status(&mut boss, &second)["waits_for"]);
    assert!(why.contains("max_jobs"), "{why}");
    let here = create(&mut boss, with(mission("Here", "say done"), "run_on", "local"));
    world.until(&mut boss, &here, "completed");
    assert_eq!(world.jobs(), 1);
    assert_eq!(status(&mut boss, &second)["status"], "queued");
    fs::write(world.sandbox.shared("go"), "").expect("a writable folder");
    world.until(&mut boss, &second, "completed");
    boss.leave();
}

/// A retry continues in the same worktree on another host, and back.
#[test]
fn retry_chooses_another_launcher() {
    let Some(world) = World::start(&[("NODES", "1")]) else { return };
    let mut boss = world.boss();
    let look = "FAKE:\nrun hostname >> hosts.txt\ncommit Name the host\nsay done";
    let id = world.create(&mut boss, "Move", look.trim_start_matches("FAKE:\n"));
    world.until(&mut boss, &id, "completed");
    for run_on in ["local", "cluster"] {
        boss.succeed("retry_worker", json!({"worker_id": id, "prompt": look, "run_on": run_on}));
        world.until(&mut boss, &id, "completed");
    }
    let hosts = fs::read_to_string(world.sandbox.worktree(&id).join("hosts.txt")).expect("the hosts");
    let hosts: Vec<&str> = hosts.lines().collect();
    assert_eq!(hosts.len(), 3, "{hosts:?}");
    assert_eq!((hosts[0], hosts[1]), (hosts[2], "login"), "{hosts:?}");
    assert_ne!(hosts[0], "login");
    let unknown = boss.refused("retry_worker", json!({"worker_id": id, "prompt": look, "run_on": "clusters"}));
    assert!(unknown.contains("local, cluster"), "{unknown}");
    boss.leave();
}

/// A retry that needs more time than its partition allows is refused, as a new mission is. An automatic retry fails
/// without a job.
#[test]
fn retry_over_the_limit_of_its_partition_is_refused() {
    let settings = "[launchers.short]\nkind = \"slurm\"\npartition = \"short\"\n[launchers.free]\nkind = \"slurm\"\n";
    let Some(world) = World::with_settings(&[("NODES", "1")], settings) else { return };
    let mut boss = world.boss();
    let id = create(&mut boss, with(mission("Move", "say done"), "run_on", "local"));
    world.until(&mut boss, &id, "completed");
    let refused = boss.refused("retry_worker", json!({"worker_id": id, "run_on": "short"}));
    assert!(refused.contains("its jobs are limited to 10 minutes (partition short)"), "{refused}");
    assert!(
        refused.contains("needs 135 (timeout_minutes 120, reserve 15)") && refused.contains("[launchers.short]"),
        "{refused}"
    );
    let command = world.command(&["retry", &id, "--run-on", "short"]).output().expect("the program runs");
    let said = String::from_utf8_lossy(&command.stderr).into_owned();
    assert!(!command.status.success() && said.contains("limited to 10 minutes (partition short)"), "{said}");
    assert_eq!(status(&mut boss, &id)["attempt"], 1);

    let go = world.on_hosts(world.sandbox.shared("go"));
    let script = format!("wait-file {} 300\nfail it is broken", go.display());
    let fails = with(with(mission("Fail", &script), "run_on", "free"), "max_attempts", 2);
    let fails = create(&mut boss, fails);
    world.until(&mut boss, &fails, "running");
    boss.leave();
    world.slurm("scontrol", &["update", "PartitionName=agents", "MaxTime=10"]);
    // A new server is needed, since the last one remembers the former limit for some minutes.
    let mut boss = world.boss();
    fs::write(world.sandbox.shared("go"), "").expect("a writable folder");
    let failed = world.until(&mut boss, &fails, "failed");
    assert_eq!(
        (&failed["attempt"], &failed["outcome"]["run"]["reason"]),
        (&json!(2), &json!("could_not_start")),
        "{failed:#}"
    );
    let why = text(&failed["outcome"]["run"]["message"]);
    assert!(why.contains("limited to 10 minutes") && why.contains("[launchers.free]"), "{why}");
    let refused = boss.refused("retry_worker", json!({"worker_id": fails}));
    assert!(refused.contains("its jobs are limited to 10 minutes"), "{refused}");
    assert_eq!(world.jobs(), 0);
    boss.leave();
}

/// The racer on the cluster wins, while the one on this host still works, and the other way round.
#[test]
fn race_runs_here_and_on_the_cluster() {
    let Some(world) = World::start(&[("NODES", "1")]) else { return };
    let mut boss = world.boss();
    for winner in ["login", "node"] {
        // The one on the other host waits for ever.
        let test = if winner == "login" { "=" } else { "!=" };
        let script = format!(
            "run [ $(hostname) {test} login ] && touch go || true\nwait-file go 300\nwrite it.txt x\ncommit Add it"
        );
        let racers: Vec<_> = ["local", "cluster"]
            .map(|run_on| with(with(mission("Race", &script), "run_on", run_on), "verify_command", "true"))
            .into();
        let race = boss.succeed("batch_create_workers", json!({"workers": racers, "race": true}));
        let id = |index: usize| text(&race["results"][index]["worker_id"]);
        let (here, there) = (id(0), id(1));
        let (first, second) = if winner == "login" { (&here, &there) } else { (&there, &here) };
        world.until(&mut boss, first, "completed");
        world.until(&mut boss, second, "cancelled");
        assert_eq!((world.processes(&here), world.processes(&there)), (0, 0));
        until("no job is left", || world.jobs() == 0);
    }
    boss.leave();
}
