//! Nodes that are cut off, hang, or end a job, and what is left on them.

use std::fs;
use std::path::Path;

use orchestrator_boss::process::{Signal, send};
use serde_json::{Value, json};

use crate::support::sandbox::{create, status, with};
use crate::support::wait::until;
use crate::world::{World, on_cluster, text};

/// A node is cut off and its supervisor hangs, as with a disk that does not answer. The worker is lost, and the server
/// dies right after it has revoked the claim. When the supervisor goes on later, it ends its CLI, commits nothing, and
/// changes no record.
#[cfg(debug_assertions)]
#[test]
fn hung_supervisor_of_a_lost_worker_changes_nothing() {
    let Some(world) = World::start(&[("NODES", "1")]) else { return };
    let log = world.sandbox.path("crashes").display().to_string();
    let mut boss = world.boss_with(&[("ORCHESTRATOR_CRASH_AT", "JobRevoked:1"), ("ORCHESTRATOR_CRASH_LOG", &log)]);
    let id = world.create(&mut boss, "Hang", "write kept.txt x\ncommit Keep it\nwrite more.txt y\nhang");
    let worktree = world.sandbox.worktree(&id);
    until("it has committed", || worktree.join("more.txt").exists());
    let supervisor = world.supervisor(&id);
    world.cluster.run("slurmd-kill", &["1"]);
    send(&supervisor, Signal::Stop);
    until("the cluster gives the job up", || world.jobs() == 0);
    assert_eq!(status(&mut boss, &id)["status"], "running");
    until("the server dies", || boss.call("list_worker_missions", json!({})).is_none());
    assert_eq!(fs::read_to_string(&log).expect("a log of crashes").lines().count(), 1);

    // The next server need not wait: the claim is already revoked.
    let mut boss = world.boss();
    let lost = world.until(&mut boss, &id, "lost");
    assert_eq!(lost["outcome"]["run"]["reason"], "host_lost", "{lost:#}");
    assert_eq!(lost["outcome"]["changes"]["commits"], 1, "{lost:#}");
    let record = world.sandbox.attempt(&id, 1).join("outcome.json");
    let (before, head) = (fs::read(&record).expect("a record"), head(&worktree));
    assert_eq!(world.processes(&id), 1, "its CLI runs on");
    send(&supervisor, Signal::Continue);
    until("both end", || world.processes(&id) == 0 && !supervisor.is_alive());
    assert_eq!((fs::read(&record).expect("a record"), self::head(&worktree)), (before, head));
    assert!(worktree.join("more.txt").exists(), "the uncommitted work is kept");
    assert_eq!(status(&mut boss, &id)["status"], "lost");
    boss.leave();
}

fn head(worktree: &Path) -> String {
    crate::support::git::git(worktree, &["rev-parse", "HEAD"])
}

/// The user cancels a job by hand, and an administrator sets a time limit below ours. Both are seen as TERM on the node.
#[test]
fn job_that_the_cluster_ends_keeps_its_work() {
    let Some(world) = World::start(&[("NODES", "1")]) else { return };
    let mut boss = world.boss();
    let script = "write kept.txt x\ncommit Keep it\nwrite more.txt y\nhang";
    let ids = ["Cancel", "Limit"].map(|title| world.create(&mut boss, title, script));
    for id in &ids {
        until("it has committed", || world.sandbox.worktree(id).join("more.txt").exists());
    }
    let jobs = ids.each_ref().map(|id| world.job(id).expect("a job"));
    world.slurm("scancel", &[&jobs[0]]);
    world.slurm("scontrol", &["update", &format!("JobId={}", jobs[1]), "TimeLimit=1"]);
    for id in &ids {
        let ended = world.until(&mut boss, id, "interrupted");
        let said = text(&ended["outcome"]["run"]["message"]);
        assert!(said.contains("the cluster asked it to end"), "{ended:#}");
        assert_eq!(ended["outcome"]["changes"]["commits"], 2, "the uncommitted file is committed: {ended:#}");
        assert_eq!(world.processes(id), 0);
    }
    boss.leave();
}

/// Checks both ways in which Slurm tracks the processes of a job: by control group, where this machine has one, and by
/// parent.
#[test]
fn nothing_is_left_on_a_node() {
    std::thread::scope(|scope| {
        scope.spawn(|| check_that_nothing_is_left(&[("NODES", "1"), ("CPUS", "4")]));
        scope.spawn(|| check_that_nothing_is_left(&[("NODES", "1"), ("CPUS", "4"), ("PROCTRACK", "linuxproc")]));
    });
}

/// Three workers end in different ways, each with children in sessions of their own that ignore TERM, one of them without
/// its tag.
fn check_that_nothing_is_left(fixture: &[(&str, &str)]) {
    let Some(world) = World::start(fixture) else { return };
    let mut boss = world.boss();
    let script =
        |end: &str| format!("ignore-term\nchild 7000\nclear-env-child 7000\ndaemon 7000\nwrite it.txt x\n{end}");
    let ends = create(&mut boss, on_cluster("End", &script("say done")));
    let hangs = create(&mut boss, on_cluster("Hang", &script("hang")));
    let late = create(&mut boss, with(on_cluster("Be late", &script("hang")), "timeout_minutes", 1));
    for id in [&hangs, &late] {
        until("it has started its children", || world.sandbox.worktree(id).join("it.txt").exists());
    }
    world.until(&mut boss, &ends, "completed");
    assert_eq!(world.running_on("1", "^sleep 7000"), 6, "those of the other two");
    let cancelled = boss.succeed("cancel_worker", json!({"worker_id": hangs}));
    assert_eq!((&cancelled["survivors"], &cancelled["proof"]), (&json!(0), &json!("full")), "{cancelled:#}");
    assert_eq!(world.running_on("1", "^sleep 7000"), 3, "those of the other one");
    world.until(&mut boss, &late, "timed_out");
    assert_eq!(world.running_on("1", "^sleep 7000"), 0);
    until("no supervisor is left", || world.running_on("1", "[s]upervise --job") == 0);
    for id in [&ends, &hangs, &late] {
        let outcome = fs::read(world.sandbox.attempt(id, 1).join("outcome.json")).expect("a record");
        let outcome: Value = serde_json::from_slice(&outcome).expect("JSON");
        let cleanup = (&outcome["cleanup"]["survivors"], &outcome["cleanup"]["containment"]);

        assert_eq!(cleanup, (&json!(0), &json!("full")), "{outcome:#}");
    }
    boss.leave();
}
