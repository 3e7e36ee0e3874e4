//! A server dies at each step between the preparation of a job and its end (table in `src/crash_point.rs`). The next
//! one finishes the step. A lost reply of the cluster leads to no second run.
#![cfg(debug_assertions)]

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use orchestrator_boss::attempt::state_dir::StateDir;
use orchestrator_boss::mission::id::ServerId;
use orchestrator_boss::store::journal::Journal;
use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::json_lines::Boss;
use crate::support::sandbox::{create, status, with};
use crate::support::wait::until;
use crate::world::{LAUNCHER, World, holders, named, on_cluster, text};

/// Steps of a server that hands a worker over to the cluster, with the occurrence to test.
const STEPS: [&str; 11] = [
    "Written(environment.json):1",
    "Named(environment.json):1",
    "Written(launch.json):1",
    "Named(launch.json):1",
    "JobPrepared:1",
    "Written(id.json):1",
    "Named(id.json):1",
    "JobSubmitted:1",
    "Written(launch.json):2",
    "Named(launch.json):2",
    "JobNoted:1",
];
/// A secret of a backend, which is passed in `environment.json`.
const SECRET: &str = "sk-planted-in-the-settings";

#[test]
fn next_server_finishes_each_step_of_a_job() {
    let Some(cluster) = Cluster::start(&[("NODES", "2"), ("CPUS", "6")]) else { return };
    let cluster = Arc::new(cluster);
    std::thread::scope(|scope| {
        for step in STEPS {
            let thread = std::thread::Builder::new().name(step.to_owned());
            thread.spawn_scoped(scope, || crash_at(&cluster, step)).expect("a thread");
        }
    });
}

/// Crashes the server at this step, and lets the next one go on.
fn crash_at(cluster: &Arc<Cluster>, step: &str) {
    let world = World::beside(cluster, &format!("{LAUNCHER}pass_keys = true\n"));
    world.configure_backend(&format!("[custom.env]\nFAKE_KEY = {SECRET:?}"));
    let starts = world.on_hosts(world.sandbox.shared("starts"));
    let go = world.on_hosts(world.sandbox.shared("go"));
    let script = format!(
        "trace {} cli\nwait-file {} 300\nwrite it.txt x\ncommit Add it\nsay done",
        starts.display(),
        go.display()
    );
    let mission = with(on_cluster("Survive", &script), "request_id", "once");
    let mut armed = arm(&world, step);
    // It dies before or after the answer.
    drop(armed.call("create_worker_mission", mission.clone()));
    until(&format!("{step}: the server dies"), || armed.call("list_worker_missions", json!({})).is_none());
    armed.kill_server();
    check_crash(&world, step);

    let mut boss = world.boss();
    let id = create(&mut boss, mission);
    world.until(&mut boss, &id, "running");
    until(&format!("{step}: its job is reported"), || knows_job(&world, &id));
    fs::write(world.sandbox.shared("go"), "").expect("a writable folder");
    let done = world.until(&mut boss, &id, "completed");
    assert_eq!(done["outcome"]["changes"]["commits"], 1, "{step}: {done:#}");
    assert_eq!(world.starts("starts"), std::slice::from_ref(&id), "{step}: its CLI ran once");
    check_nothing_left(&world, step);
    boss.leave();
}

fn arm(world: &World, step: &str) -> Boss {
    let log = world.sandbox.path("crashes").display().to_string();
    world.boss_with(&[("ORCHESTRATOR_CRASH_AT", step), ("ORCHESTRATOR_CRASH_LOG", &log)])
}

fn check_crash(world: &World, step: &str) {
    let time: usize = step.split_once(':').and_then(|(_, time)| time.parse().ok()).expect("a number");
    let log = fs::read_to_string(world.sandbox.path("crashes")).unwrap_or_default();
    assert_eq!(log.lines().count(), time, "{step} was not reached");
}

/// Checks that no job is left, and no file that was passed to one.
fn check_nothing_left(world: &World, step: &str) {
    until(&format!("{step}: no job is left"), || {
        !world.slurm("squeue", &["--noheader", "--format=%Z"]).contains(&world.sandbox.root().display().to_string())
    });
    let passed = named(&world.sandbox.state_dir(), "environment.json");
    assert_eq!(passed, Vec::<PathBuf>::new(), "{step}");
    assert_eq!(holders(&world.sandbox.state_dir(), SECRET), passed, "{step}");
}

/// Returns whether the journal has the job of a worker.
fn knows_job(world: &World, worker: &str) -> bool {
    let dir = StateDir::open(&world.sandbox.state_dir()).expect("a state directory");
    let mut journal = Journal::open(&dir.journal(), ServerId::from("s-look")).expect("the journal can be read");
    journal.catch_up().expect("the journal can be read");
    let found = journal.registry().workers().find(|it| it.id.to_string() == worker);
    found.is_some_and(|worker| worker.job.is_some())
}

/// A worker that waits in the queue of the cluster is cancelled, and the server dies once it has made sure that the
/// worker never begins.
#[test]
fn next_server_finishes_a_cancellation() {
    let waits = format!("{LAUNCHER}args = [\"--begin=now+1hour\"]\n");
    let Some(world) = World::with_settings(&[("NODES", "1")], &waits) else { return };
    let ran = world.on_hosts(world.sandbox.shared("ran"));
    let mut armed = arm(&world, "JobFenced:1");
    let id = create(&mut armed, on_cluster("Wait", &format!("touch {}", ran.display())));
    until("its job waits", || text(&status(&mut armed, &id)["waits_for"]).contains("(job "));
    assert!(armed.call("cancel_worker", json!({"worker_id": id})).is_none());
    check_crash(&world, "JobFenced:1");
    let mut boss = world.boss();
    world.until(&mut boss, &id, "cancelled");
    let record = named(&world.sandbox.state_dir().join("workers").join(&id), "outcome.json");
    let outcome: Value = serde_json::from_slice(&fs::read(&record[0]).expect("an outcome")).expect("JSON");
    assert_eq!(outcome["cleanup"]["containment"], "full", "{outcome:#}");
    check_nothing_left(&world, "JobFenced");
    assert!(!world.sandbox.shared("ran").exists(), "a cancelled worker ran its CLI");
    boss.leave();
}

/// The first `sbatch` submits and does not return.
#[test]
fn lost_reply_of_a_submission_is_no_second_run() {
    let Some(world) = World::start(&[("NODES", "1")]) else { return };
    let path = world.wrap("sbatch", SUBMIT_AND_HANG);
    let mut boss = world.boss_with(&[("PATH", &path)]);
    let starts = world.on_hosts(world.sandbox.shared("starts"));
    let id = world.create(&mut boss, "Run once", &format!("trace {} cli\nsay done", starts.display()));
    world.until(&mut boss, &id, "completed");
    assert_eq!(world.starts("starts"), std::slice::from_ref(&id), "its CLI ran once");
    let calls = fs::read_to_string(world.sandbox.path("bin/sbatch.calls")).expect("the calls");
    assert_eq!(calls.lines().count(), 1, "it was submitted once");
    check_nothing_left(&world, "sbatch");
    boss.leave();
}

const SUBMIT_AND_HANG: &str = "export PATH=${PATH#*:}\n\
    number=$(sbatch \"$@\") || exit\n\
    echo \"$number\" >>\"$0.calls\"\n\
    mkdir \"$0.hung\" 2>/dev/null && exec sleep 600\n\
    echo \"$number\"";

/// A supervisor dies after it has claimed the attempt and before it has written anything, so that the attempt cannot be
/// fenced and has no heartbeat.
#[test]
fn supervisor_that_dies_at_its_claim_is_lost() {
    let Some(cluster) = Cluster::start(&[("NODES", "1")]) else { return };
    let cluster = Arc::new(cluster);
    let log = cluster.shared().join("supervisor-crashes").display().to_string();
    let dies = format!("prologue = [\"export ORCHESTRATOR_CRASH_AT=Claimed:1 ORCHESTRATOR_CRASH_LOG={log}\"]\n");
    let world = World::beside(&cluster, &format!("{LAUNCHER}{dies}"));
    let mut boss = world.boss();
    let id = world.create(&mut boss, "Die early", "say never");
    let lost = world.until(&mut boss, &id, "lost");
    assert_eq!(lost["outcome"]["run"]["reason"], "lost", "{lost:#}");
    let dead = fs::read_to_string(&log).expect("a log of crashes");
    assert_eq!(dead.lines().count(), 1, "{dead}");
    boss.succeed("retry_worker", json!({"worker_id": id, "prompt": "FAKE:\nsay done"}));
    world.until(&mut boss, &id, "completed");
    boss.leave();
}
