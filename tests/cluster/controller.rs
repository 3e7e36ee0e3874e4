//! The controller of the cluster dies and comes back. `CLUSTER_CANCELS` sets the number of jobs that are cancelled
//! meanwhile, and `CLUSTER_SEED` the moments at which it dies.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::json_lines::Boss;
use crate::support::sandbox::status;
use crate::support::wait::until;
use crate::world::{LAUNCHER, World, on_cluster, text};

/// The time in which a server answers if it need not ask the cluster.
const AT_ONCE: Duration = Duration::from_secs(1);
/// Number of cancellations, unless `CLUSTER_CANCELS` sets it.
const CANCELS: u64 = 20;
/// The controller dies at most this long before a cancellation, or after it.
const BEFORE: Duration = Duration::from_millis(150);
const AFTER: Duration = Duration::from_millis(450);

/// Workers that run go on, end and are reported. Those that wait are shown as waiting, and run once the controller is
/// back.
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
    let all: Vec<String> = list().iter().map(|worker| text(&worker["worker_id"])).collect();
    until_saved(&world, &all);
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

/// The controller dies around the cancellation of a waiting job, and may come back with that job in its queue. The
/// cancellation is answered at once all the same, and the job never runs a CLI.
#[test]
fn cancelled_job_never_runs_after_a_restart() {
    let all_at_once = format!("{LAUNCHER}max_jobs = 1000\n");
    let Some(world) = World::with_settings(&[("NODES", "1"), ("CPUS", "1")], &all_at_once) else { return };
    let mut boss = world.boss();
    let (go, starts) = (world.on_hosts(world.sandbox.shared("go")), world.on_hosts(world.sandbox.shared("starts")));
    let running = world.create(&mut boss, "Hold", &format!("wait-file {} 300\nsay done", go.display()));
    world.until(&mut boss, &running, "running");
    let script = format!("trace {} cli", starts.display());
    let waiting = waiting_workers(&world, &mut boss, number("CLUSTER_CANCELS", CANCELS), &script);
    until_saved(&world, &waiting);
    let mut seed = number("CLUSTER_SEED", 1);
    let (began, mut slowest, mut revived) = (Instant::now(), Duration::ZERO, 0);
    for (index, id) in waiting.iter().enumerate() {
        let dies = (BEFORE + AFTER).mul_f64(random(&mut seed));
        slowest = slowest.max(cancel_beside_kill(&world, &mut boss, id, dies));
        if index + 1 == waiting.len() {
            // Jobs that the controller brings back find a free node.
            fs::write(world.sandbox.shared("go"), "").expect("a writable folder");
        }
        world.cluster.run("ctl-start", &[]);
        revived += usize::from(world.slurm("squeue", &["--noheader", "--format=%j"]).contains(&format!("-{id}-1\n")));
    }
    let (count, took) = (waiting.len(), began.elapsed());
    eprintln!("{count} cancellations and restarts in {took:?}, the slowest in {slowest:?}; {revived} jobs came back");
    world.until(&mut boss, &running, "completed");
    until("no job is left", || world.jobs() == 0);
    assert_eq!(world.starts("starts"), Vec::<String>::new(), "a cancelled worker ran its CLI");
    assert!(waiting.iter().all(|id| status(&mut boss, id)["status"] == "cancelled"));
    boss.leave();
}

/// Jobs of cancelled workers leave the queue although the process that cancelled them ends at once. If the scheduler did
/// not answer it, the next server cancels them.
#[test]
fn job_of_a_cancelled_worker_leaves_the_queue() {
    let Some(world) = World::start(&[("NODES", "1"), ("CPUS", "1")]) else { return };
    let mut boss = world.boss();
    let hold = world.create(&mut boss, "Hold", "sleep 600");
    world.until(&mut boss, &hold, "running");
    let cancel = |boss: &mut Boss, ids: &[String]| {
        ids.iter().for_each(|id| drop(boss.succeed("cancel_worker", json!({"worker_id": id}))));
    };
    let waiting = waiting_workers(&world, &mut boss, 4, "say done");
    cancel(&mut boss, &waiting[..3]);
    boss.leave();
    until("the server has cancelled three jobs", || world.jobs() == 2);
    world.print(&["cancel", &waiting[3]]);
    until("the command has cancelled its job", || world.jobs() == 1);

    let mut boss = world.boss();
    let waiting = waiting_workers(&world, &mut boss, 3, "say done");
    until_saved(&world, &waiting);
    world.cluster.run("ctl-kill", &[]);
    cancel(&mut boss, &waiting);
    boss.leave();
    world.cluster.run("ctl-start", &[]);
    until("the controller has the jobs again", || world.jobs() == 4);
    let mut next = world.boss();
    until("the next server has cancelled them", || world.jobs() == 1);
    next.succeed("cancel_worker", json!({"worker_id": hold}));
    until("no job is left", || world.jobs() == 0);
    next.leave();
}

/// Creates workers and waits until the jobs of all of them wait.
fn waiting_workers(world: &World, boss: &mut Boss, count: u64, script: &str) -> Vec<String> {
    let ids: Vec<String> = (0..count).map(|n| world.create(boss, &format!("Wait {n}"), script)).collect();
    until("their jobs wait", || ids.iter().all(|id| text(&status(boss, id)["waits_for"]).contains("(job ")));
    ids
}

/// Waits until the controller has saved the jobs of these workers. If it is killed before, it forgets them and gives
/// their numbers to other jobs.
fn until_saved(world: &World, workers: &[String]) {
    let saved = world.cluster.folder().join("state/job_state");
    until("the controller has saved all jobs", || {
        let saved = String::from_utf8_lossy(&fs::read(&saved).unwrap_or_default()).into_owned();
        workers.iter().all(|worker| saved.contains(worker.as_str()))
    });
}

/// Cancels a worker after the time `BEFORE`, and kills the controller after the time `dies`, both from now. Returns how
/// long the answer took.
fn cancel_beside_kill(world: &World, boss: &mut Boss, id: &str, dies: Duration) -> Duration {
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(dies);
            world.cluster.run("ctl-kill", &[]);
        });
        thread::sleep(BEFORE);
        let began = Instant::now();
        let cancelled = boss.succeed("cancel_worker", json!({"worker_id": id}));
        let took = began.elapsed();
        assert_eq!((&cancelled["status"], &cancelled["proof"]), (&json!("cancelled"), &json!("full")), "{cancelled:#}");
        assert!(took < 2 * AT_ONCE, "the answer took {took:?}; the controller died after {dies:?}");
        took
    })
}

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |number| number.parse().expect("a number"))
}

/// Returns a number from 0 to 1, the same for the same seed (SplitMix64).
fn random(seed: &mut u64) -> f64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*seed ^ (*seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)) as f64 / u64::MAX as f64
}
