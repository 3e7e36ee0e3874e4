//! Hundreds of workers at once, a thousand in one batch, a server with few descriptors.
//!
//! `LIMITS_ALIVE` and `LIMITS_BATCH` set the sizes. The figures are printed.

use std::time::Instant;

use serde_json::{Value, json};

use crate::server::{Server, World, mission};
use crate::support::wait::until_some;

/// Default sizes. A debug build on two cores takes well under a minute.
const ALIVE: usize = 24;
const BATCH: usize = 60;
/// KiB of server memory that the registry may keep for each worker.
const KEPT_FOR_EACH: u64 = 40;
/// KiB that an allocator may keep after a burst of work.
const ALLOCATOR: u64 = 24 * 1024;

fn size(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// The resources of a process.
#[derive(Debug)]
struct Resources {
    /// Private memory, in KiB.
    anonymous: u64,
    files: usize,
    watches: usize,
    threads: usize,
}

impl Resources {
    fn of(pid: u32) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a live process");
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a known field");
            line.split_whitespace().find_map(|word| word.parse().ok()).expect("a number")
        };
        let files = std::fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("a child process").flatten();
        let infos: Vec<String> = files.map(|file| std::fs::read_to_string(file.path()).unwrap_or_default()).collect();
        Self {
            anonymous: number("RssAnon:"),
            files: infos.len(),
            watches: infos.iter().flat_map(|info| info.lines()).filter(|line| line.starts_with("inotify wd:")).count(),
            threads: number("Threads:") as usize,
        }
    }
}

/// Returns zombies whose parent is this process or a descendant.
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
    until_some("all settle", || {
        let now = counts(server);
        let open = ["queued", "starting", "running", "verifying"].iter().any(|status| now.get(*status).is_some());
        (!open).then(|| assert_eq!(now, *expected))
    });
}

/// Checks that the server has released all resources of workers.
fn check_at_rest(before: &Resources, pid: u32, workers: usize) -> Resources {
    let after = until_some("the server releases files, watches and threads", || {
        let now = Resources::of(pid);
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
    // Measures after a first worker, so that one-time allocations do not count.
    create(&mut server, vec![mission("first", "say hello")]);
    until_settled(&mut server, &json!({"completed": 1}));
    let before = Resources::of(server.pid());

    // Workers of all kinds of endings; half of them run until the gate opens.
    let wait = format!("wait-file {} 600", gate.display());
    let ends = ["say done", "exit 3", "write a.txt x\ncommit a", "daemon 300\nsay done"];
    let missions = (0..alive).map(|n| mission(&format!("w{n}"), &format!("{wait}\n{}", ends[n % 4]))).collect();
    let began = Instant::now();
    create(&mut server, missions);
    until_some("all are alive", || (counts(&mut server)["running"] == alive).then_some(()));
    let started = began.elapsed();
    let busy = Resources::of(server.pid());
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
    let before = Resources::of(server.pid());
    let began = Instant::now();
    create(&mut server, (0..batch).map(|n| mission(&format!("w{n}"), "say done")).collect());
    let answered = began.elapsed();
    let mut reported = 0;
    // The first worker is reported too.
    while reported < batch + 1 {
        let answer = server.call("wait_for_any_worker", json!({"timeout_seconds": 60}));
        assert_eq!(answer["status"], "settled", "{answer:#}");
        reported += answer["settled"].as_array().expect("a list").len();
    }
    let settled = began.elapsed();
    assert_eq!(counts(&mut server), json!({"completed": batch + 1}));
    let after = check_at_rest(&before, server.pid(), batch);
    println!(
        "{batch} in a batch, answered after {answered:.1?}, settled and reported after {settled:.1?}\n  before {before:?}\n  after {after:?}"
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
    // Not all run at once: workers that cannot start stay queued.
    until_some("many are alive", || (counts(&mut server)["running"].as_u64()? >= alive as u64 / 3).then_some(()));
    std::fs::write(&gate, "").expect("a file");
    until_some("all settle", || {
        let now = counts(&mut server);
        let open = ["queued", "starting", "running", "verifying"].iter().any(|status| now.get(*status).is_some());
        (!open).then(|| assert_eq!(now, json!({"completed": alive}), "{}", world.log()))
    });
    server.leave();
}
