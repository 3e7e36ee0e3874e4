//! Many missions at once: 20, or as many as `CLUSTER_JOBS` says.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::wait::until;
use crate::world::{LAUNCHER, World, on_cluster};

/// The time for which calls are counted.
const WATCHED: Duration = Duration::from_secs(11);
/// The most calls in that time with `poll_seconds = 5`.
const MOST_CALLS: usize = 4;

/// The scheduler is asked as often for 200 jobs as for one, and all of them end.
#[test]
fn scheduler_is_asked_as_often_for_many_jobs() {
    let many = LAUNCHER.replace("memory = \"500M\"", "memory = \"50M\"") + "max_jobs = 1000\n";
    let most = std::env::var("CLUSTER_JOBS").map_or(20, |most| most.parse().expect("a number"));
    let Some(world) = World::with_settings(&[("CPUS", "4")], &many) else { return };
    let counts = |program: &str| format!("echo >>\"$0.calls\"\nexport PATH=${{PATH#*:}}\nexec {program} \"$@\"");
    let path = ["sbatch", "squeue", "scancel"].map(|program| world.wrap(program, &counts(program)));
    let mut boss = world.boss_with(&[("PATH", &path[0])]);
    let go = world.on_hosts(world.sandbox.shared("go"));
    let script = format!("wait-file {} 1000\nsay done", go.display());
    let calls = |program: &str| {
        fs::read_to_string(world.sandbox.path("bin").join(format!("{program}.calls"))).unwrap_or_default().len()
    };
    let mut created = 0;
    for wanted in [1, most / 4, most] {
        let began = Instant::now();
        let missions: Vec<Value> = (created..wanted).map(|n| on_cluster(&format!("Part {n}"), &script)).collect();
        boss.succeed("batch_create_workers", json!({"workers": missions}));
        created = wanted;
        until("all are submitted", || calls("sbatch") == wanted);
        let submitted = began.elapsed();
        until("as many run as can", || world.jobs() == wanted);
        let (before, began) = (calls("squeue"), Instant::now());
        until("the time is over", || began.elapsed() > WATCHED);
        let squeue = calls("squeue") - before;
        eprintln!("{wanted} jobs: submitted in {submitted:?}, {squeue} squeue in {WATCHED:?} (poll_seconds 5)");
        assert!(squeue <= MOST_CALLS, "{squeue}");
    }
    let began = Instant::now();
    fs::write(world.sandbox.shared("go"), "").expect("a writable folder");
    let mut ended = 0;
    until("all end", || {
        let answer = boss.succeed("wait_for_any_worker", json!({"timeout_seconds": 10}));
        let settled = answer["settled"].as_array().expect("settled");
        assert!(settled.iter().all(|worker| worker["status"] == "completed"), "{answer:#}");
        ended += settled.len();
        answer["status"] == "idle"
    });
    eprintln!(
        "{ended} reported, all ended in {:?}; {} sbatch, {} scancel",
        began.elapsed(),
        calls("sbatch"),
        calls("scancel")
    );
    assert_eq!(calls("sbatch"), most);
    until("no job is left", || world.jobs() == 0);
    boss.leave();
}
