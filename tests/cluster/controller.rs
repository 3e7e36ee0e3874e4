//! The controller of the cluster dies and comes back.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::wait::until;
use crate::world::{World, on_cluster, text};

/// The time in which a server answers that has nothing to ask the cluster.
const AT_ONCE: Duration = Duration::from_secs(1);

/// What runs goes on, ends and is reported. What waits is shown as such, and runs once the controller is back.
#[test]
fn dead_controller_delays_only_what_waits() {
    let Some(world) = World::start(&[]) else { return };
    let mut boss = world.boss();
    let (go, starts) = (world.on_hosts(world.sandbox.shared("go")), world.on_hosts(world.sandbox.shared("starts")));
    let script = format!("trace {} cli\nwait-file {} 300\nsay done", starts.display(), go.display());
    let missions: Vec<Value> = (0..12).map(|n| on_cluster(&format!("Part {n}"), &script)).collect();
    boss.succeed("batch_create_workers", json!({"workers": missions}));
    let mut list = || {
        let began = Instant::now();
        let listed = boss.succeed("list_worker_missions", json!({}))["workers"].as_array().expect("workers").clone();
        assert!(began.elapsed() < AT_ONCE, "a list took {:?}", began.elapsed());
        listed
    };
    let waiting = |workers: &[Value], why: &str| {
        let waits = workers.iter().filter(|worker| text(&worker["waits_for"]).contains(why));
        waits.map(|worker| text(&worker["worker_id"])).collect::<Vec<_>>()
    };
    until("six run and six wait for the cluster", || {
        let running = list().iter().filter(|worker| worker["status"] == "running").count();
        (running, waiting(&list(), "(job ").len()) == (6, 6)
    });
    // It forgets what it has not saved, and gives the numbers of such jobs to others.
    let saved = world.cluster.folder().join("state/job_state");
    let all: Vec<String> = list().iter().map(|worker| text(&worker["worker_id"])).collect();
    until("the controller has saved all jobs", || {
        let saved = String::from_utf8_lossy(&fs::read(&saved).unwrap_or_default()).into_owned();
        all.iter().all(|worker| saved.contains(worker.as_str()))
    });
    world.cluster.run("ctl-kill", &[]);
    until("six are said to wait for a cluster that does not answer", || waiting(&list(), "does not answer").len() == 6);
    let waits = waiting(&list(), "does not answer");
    let began = Instant::now();
    let shown = boss.succeed("get_worker_status", json!({"worker_id": waits[0]}));
    let launchers = boss.succeed("get_backend_status", json!({}))["launchers"].clone();
    assert!(began.elapsed() < 2 * AT_ONCE, "{:?}", began.elapsed());
    assert_eq!(shown["worker"]["status"], "queued", "{shown:#}");
    assert_eq!((&launchers[0]["answers"], &launchers[0]["running"]), (&json!("no"), &json!(6)), "{launchers:#}");

    fs::write(world.sandbox.shared("go"), "").expect("a writable folder");
    let ended = world.ends(&mut boss, 6, "completed");
    assert!(waits.iter().all(|waiting| !ended.contains(waiting)), "{ended:?}");
    world.cluster.run("ctl-start", &[]);
    assert!(world.ends(&mut boss, 6, "completed").is_disjoint(&ended));
    let starts = world.starts("starts");
    assert_eq!(starts.len(), 12, "each CLI ran once: {starts:?}");
    until("no job is left", || world.jobs() == 0);
    boss.leave();
}
