//! Hundreds of workers at once, a thousand in one batch, a server with few descriptors.
//!
//! `LIMITS_ALIVE` and `LIMITS_BATCH` set the sizes. The figures are printed.

use std::time::Instant;

use serde_json::{Value, json};

use crate::server::{Server, World, mission};
use crate::support::wait::until_some;

/// Sizes that a debug build on two cores does in well under a minute.
const ALIVE: usize = 24;
const BATCH: usize = 60;
/// Of the server's own memory, for each worker that it has ever had: what the registry keeps of it. In KiB.
const KEPT_FOR_EACH: u64 = 40;
/// What an allocator keeps after a burst of work, in KiB.
const ALLOCATOR: u64 = 24 * 1024;

fn size(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// What a process holds.
#[derive(Debug)]
struct Holds {
    /// Its own memory, in KiB.
    anonymous: u64,
    files: usize,
    watches: usize,
    threads: usize,
}

impl Holds {
    fn of(pid: u32) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("Linux tells");
            line.split_whitespace().find_map(|word| word.parse().ok()).expect("a number")
        };
        let files = std::fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("it is ours").flatten();
        let infos: Vec<String> = files.map(|file| std::fs::read_to_string(file.path()).unwrap_or_default()).collect();
        Self {
            anonymous: number("RssAnon:"),
            files: infos.len(),
            watches: infos.iter().flat_map(|info| info.lines()).filter(|line| line.starts_with("inotify wd:")).count(),
            threads: number("Threads:") as usize,
        }
    }
}

/// Zombies whose parent is this process or one below it.
fn zombies_below(pid: u32) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").expect("Linux has /proc").flatten();
    let stats = entries.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
    let of = |stat: String| {
        let (name, rest) = stat.rsplit_once(')')?;
        let mut fields = rest.split_whitespace();
        let (state, parent) = (fields.next()?.to_owned(), fields.next()?.parse::<u32>().ok()?);
        let pid: u32 = name.split_whitespace().next()?.parse().ok()?;
        Some((pid, parent, state, name.to_owned()))
    };
    let table: Vec<_> = stats.filter_map(of).collect();
    let mut below = vec![pid];
    while let Some(more) = {
        let next: Vec<u32> =
            table.iter().filter(|it| below.contains(&it.1) && !below.contains(&it.0)).map(|it| it.0).collect();
        (!next.is_empty()).then_some(next)
    } {
        below.extend(more);
    }
    table.into_iter().filter(|it| it.2 == "Z" && below.contains(&it.1)).map(|it| it.3).collect()
}

fn create(server: &mut Server, missions: Vec<Value>) {
    let (number, answer) = (missions.len(), server.call("batch_create_workers", json!({"workers": missions})));
    assert_eq!((&answer["created"], &answer["failed"]), (&json!(number), &json!(0)), "{answer:#}");
}

fn counts(server: &mut Server) -> Value {
    server.call("list_worker_missions", json!({"limit": 1}))["counts"].clone()
}

fn until_settled(server: &mut Server, expected: &Value) {
    until_some("all to settle", || {
        let now = counts(server);
        let open = ["queued", "starting", "running", "verifying"].iter().any(|status| now.get(*status).is_some());
        (!open).then(|| assert_eq!(now, *expected))
    });
}

/// Everything that is not there for the server alone has gone.
fn check_at_rest(before: &Holds, pid: u32, workers: usize) -> Holds {
    let after = until_some("the server to let go of files, watches and threads", || {
        let now = Holds::of(pid);
        let at_rest = now.files <= before.files + 2 && now.watches <= before.watches + 1;
        // Threads for blocking work end after 10 s without any.
        (at_rest && now.threads <= before.threads + 2 && zombies_below(pid).is_empty()).then_some(now)
    });
    let most = before.anonymous + ALLOCATOR + KEPT_FOR_EACH * workers as u64;
    assert!(after.anonymous <= most, "{before:?} became {after:?}, more than {most} KiB");
    after
}

#[test]
fn hundreds_of_live_workers_leave_no_resources() {
    let alive = size("LIMITS_ALIVE", ALIVE);
    let world = World::new();
    let gate = world.path("gate");
    let settings = format!("max_workers = {alive}\nmin_free_memory_mib = 0\n");
    let mut server = world.server(&settings);
    // What a server holds that has work at all, and not what its first request makes it load.
    create(&mut server, vec![mission("first", "say hello")]);
    until_settled(&mut server, &json!({"completed": 1}));
    let before = Holds::of(server.pid());

    // Each in its own way; half are alive until the gate opens, and there is one for each kind of end.
    let wait = format!("wait-file {} 600", gate.display());
    let ends = ["say done", "exit 3", "write a.txt x\ncommit a", "daemon 300\nsay done"];
    let missions = (0..alive).map(|n| mission(&format!("w{n}"), &format!("{wait}\n{}", ends[n % 4]))).collect();
    let began = Instant::now();
    create(&mut server, missions);
    until_some("all to be alive", || (counts(&mut server)["running"] == alive).then_some(()));
    let started = began.elapsed();
    let busy = Holds::of(server.pid());
    std::fs::write(&gate, "").expect("a file");
    let failed = (0..alive).filter(|n| n % 4 == 1).count();
    until_settled(&mut server, &json!({"completed": 1 + alive - failed, "failed": failed}));
    let settled = began.elapsed();
    let after = check_at_rest(&before, server.pid(), alive);
    println!(
        "{alive} alive after {started:.1?}, settled after {settled:.1?}\n  before {before:?}\n  busy {busy:?}\n  after {after:?}"
    );
    server.leave();
}

#[test]
fn large_batch_settles_with_little_server_memory() {
    let batch = size("LIMITS_BATCH", BATCH);
    let world = World::new();
    let mut server = world.server("max_workers = 8\n");
    create(&mut server, vec![mission("first", "say hello")]);
    until_settled(&mut server, &json!({"completed": 1}));
    let before = Holds::of(server.pid());
    let began = Instant::now();
    create(&mut server, (0..batch).map(|n| mission(&format!("w{n}"), "say done")).collect());
    let answered = began.elapsed();
    let mut told = 0;
    // The first worker is told too.
    while told < batch + 1 {
        let answer = server.call("wait_for_any_worker", json!({"timeout_seconds": 60}));
        assert_eq!(answer["status"], "settled", "{answer:#}");
        told += answer["settled"].as_array().expect("a list").len();
    }
    let settled = began.elapsed();
    assert_eq!(counts(&mut server), json!({"completed": batch + 1}));
    let after = check_at_rest(&before, server.pid(), batch);
    println!(
        "{batch} in a batch, answered after {answered:.1?}, settled and told after {settled:.1?}\n  before {before:?}\n  after {after:?}"
    );
    server.leave();
}

#[test]
fn workers_settle_despite_few_descriptors() {
    let alive = size("LIMITS_ALIVE", ALIVE).max(30);
    let world = World::new();
    let gate = world.path("gate");
    let shell = format!("ulimit -n {} && exec \"$0\" \"$@\"", if alive < 200 { 64 } else { 256 });
    let mut server = world.start(&shell, &format!("max_workers = {alive}\nmin_free_memory_mib = 0\n"));
    let script = format!("wait-file {} 600\nsay done", gate.display());
    create(&mut server, (0..alive).map(|n| mission(&format!("w{n}"), &script)).collect());
    // Not all need be alive at once: those that could not start wait.
    until_some("many to be alive", || (counts(&mut server)["running"].as_u64()? >= alive as u64 / 3).then_some(()));
    std::fs::write(&gate, "").expect("a file");
    until_some("all to settle", || {
        let now = counts(&mut server);
        let open = ["queued", "starting", "running", "verifying"].iter().any(|status| now.get(*status).is_some());
        (!open).then(|| assert_eq!(now, json!({"completed": alive}), "{}", world.log()))
    });
    server.leave();
}
