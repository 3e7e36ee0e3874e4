//! The time of day is set back and forward by hours and days, only for processes of the test: a preloaded library adds
//! an offset from a file. The monotonic clock is unchanged, as when a user sets the time of day.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::json_lines::Boss;
use crate::world::{World, create, mission, read_json, settled, skip, status, until, until_exists, with};

const HOUR: i64 = 3_600;

const SHIM: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static long offset(void) {
    char text[32] = {0};
    const char *path = getenv("FAULTS_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return 0;
    if (read(file, text, sizeof text - 1) < 0) text[0] = 0;
    close(file);
    return atol(text);
}
#ifdef __APPLE__
#define NEW(name) new_##name
#define OLD_GETTIME(id, at) clock_gettime(id, at)
#else
#include <sys/syscall.h>
#define NEW(name) name
#define OLD_GETTIME(id, at) syscall(SYS_clock_gettime, id, at)
#endif
int NEW(clock_gettime)(clockid_t id, struct timespec *at) {
    int result = OLD_GETTIME(id, at);
    if (result == 0 && id == CLOCK_REALTIME) at->tv_sec += offset();
    return result;
}
int NEW(gettimeofday)(struct timeval *at, void *zone) {
    struct timespec now;
    (void)zone;
    if (NEW(clock_gettime)(CLOCK_REALTIME, &now) != 0) return -1;
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}
time_t NEW(time)(time_t *at) {
    struct timespec now;
    NEW(clock_gettime)(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
#ifdef __APPLE__
#define REPLACE(name) __attribute__((used, section("__DATA,__interpose"))) \
    static struct { const void *new_one, *old_one; } replace_##name = { (const void *)new_##name, (const void *)name }
REPLACE(clock_gettime);
REPLACE(gettimeofday);
REPLACE(time);
#endif
"#;

/// A world whose servers, supervisors and workers read this clock.
struct Clock {
    world: World,
    file: PathBuf,
}

impl Clock {
    /// Creates a world. Without a C compiler or if the library is not loaded, prints that and returns `None`.
    fn new(settings: &str) -> Option<Self> {
        let world = World::new().set(settings);
        let (source, library, file) = (world.path("clock.c"), world.path("clock.so"), world.path("clock"));
        fs::write(&source, SHIM).unwrap();
        fs::write(&file, "0").unwrap();
        let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).output();
        if !built.as_ref().is_ok_and(|output| output.status.success()) {
            skip(&format!("the clock's library cannot be built: {built:?}"));
            return None;
        }
        let preload = if cfg!(target_os = "macos") { "DYLD_INSERT_LIBRARIES" } else { "LD_PRELOAD" };
        let world = world.env(preload, &library.to_string_lossy()).env("FAULTS_CLOCK", &file.to_string_lossy());
        Some(Self { world, file })
    }

    /// Sets the offset of the time of day, in seconds.
    fn set(&self, offset: i64) {
        let beside = self.file.with_extension("new");
        fs::write(&beside, offset.to_string()).unwrap();
        fs::rename(beside, &self.file).unwrap();
    }

    /// Returns whether the servers read the set clock, by the time in the state file.
    fn reads_clock(&self, offset: i64) -> bool {
        let now = jiff::Timestamp::now().as_second();
        let said = self.world.state()["as_of"].as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
        let believed = said.is_some_and(|said| (said.as_second() - now - offset).abs() < HOUR / 2);
        if !believed {
            skip(&format!("the servers do not read the clock that was set: {said:?}"));
        }
        believed
    }
}

/// Checks durations with a limit far above the real ones and far below absurd ones.
fn check_durations(worker: &Value) {
    for field in ["elapsed_seconds", "idle_seconds"] {
        let seconds = &worker[field];
        assert!(seconds.is_null() || seconds.as_u64().is_some_and(|it| it < 600), "{field}: {worker:#}");
    }
}

fn in_state(world: &World, worker: &str) -> bool {
    fs::read_to_string(world.state_file()).is_ok_and(|text| text.contains(worker))
}

#[test]
fn clock_jump_ends_no_worker_and_distorts_nothing() {
    for jump in [49 * HOUR, -3 * HOUR, -500 * 24 * HOUR] {
        let Some(clock) = Clock::new("stall_minutes = 5") else { return };
        let world = &clock.world;
        let mut boss = world.boss();
        let gate = world.path("gate");
        let script = format!("session s\nsay begun\ntouch ready\nwait-file {}\nsay done", gate.display());
        let worker = create(&mut boss, with(mission("t", &script), "timeout_minutes", 10));
        until_exists(&world.worktree(&worker).join("ready"));
        until("it runs", || status(&mut boss, &worker)["status"] == "running");
        clock.set(jump);
        let other = create(&mut boss, mission("u", "say done"));
        assert_eq!(settled(&mut boss, &other)["status"], "completed");
        until("the state file has it", || in_state(world, &other));
        if !clock.reads_clock(jump) {
            return;
        }
        let running = status(&mut boss, &worker);
        assert_eq!(running["status"], "running", "{jump}: {running:#}");
        assert_ne!(running["stalled"], true, "{jump}");
        check_durations(&running);
        let waited = boss.succeed("wait_for_worker", json!({"worker_id": worker, "timeout_seconds": 0}));
        assert_eq!(waited["status"], "still_running", "{waited:#}");
        waited["still_running"].as_array().unwrap().iter().for_each(check_durations);
        fs::write(&gate, "").unwrap();
        let ended = settled(&mut boss, &worker);
        assert_eq!(ended["status"], "completed", "{jump}: {ended:#}");
        check_durations(&ended);
    }
}

#[test]
fn queue_keeps_its_order_after_clock_setback() {
    let Some(clock) = Clock::new("max_workers = 1") else { return };
    let world = &clock.world;
    let mut boss = world.boss();
    let (gate, order) = (world.path("gate"), world.shared("order"));
    let first = create(&mut boss, mission("first", &format!("wait-file {}", gate.display())));
    until("the first runs", || status(&mut boss, &first)["status"] == "running");
    let mut ids = Vec::new();
    for (title, offset) in [("one", 0), ("two", -30 * HOUR), ("three", 30 * HOUR), ("four", -5 * HOUR)] {
        clock.set(offset);
        ids.push(create(&mut boss, mission(title, &format!("append {} {title}", order.display()))));
    }
    until("the state file has the last", || in_state(world, &ids[3]));
    if !clock.reads_clock(-5 * HOUR) {
        return;
    }
    fs::write(&gate, "").unwrap();
    for id in &ids {
        assert_eq!(settled(&mut boss, id)["status"], "completed");
    }
    assert_eq!(fs::read_to_string(order).unwrap(), "one\ntwo\nthree\nfour\n");
}

/// Returns the workers that an answer reports without a redelivery mark.
fn reported(answer: &Value) -> Vec<String> {
    let settled = answer["settled"].as_array().into_iter().flatten();
    settled.filter(|it| it["redelivered"] != true).map(|it| it["worker_id"].as_str().unwrap().to_owned()).collect()
}

fn wait_until_idle(boss: &mut Boss) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        let answer = boss.succeed("wait_for_any_worker", json!({"timeout_seconds": 5}));
        all.extend(reported(&answer));
        if answer["status"] == "idle" {
            return all;
        }
    }
}

#[test]
fn takeover_after_a_clock_jump_reports_once() {
    for jump in [-72 * HOUR, 72 * HOUR] {
        let Some(clock) = Clock::new("max_workers = 2") else { return };
        let world = &clock.world;
        let mut boss = world.boss();
        let gate = world.path("gate");
        let early = create(&mut boss, mission("early", "say done"));
        let reported_before = wait_until_idle(&mut boss);
        assert_eq!(reported_before, [early.as_str()]);
        // A later request acknowledges the answer.
        until("the acknowledgement", || {
            let answer = boss.succeed("wait_for_any_worker", json!({"timeout_seconds": 0}));
            answer["status"] == "idle"
        });
        let running = create(&mut boss, mission("running", &format!("say hi\nwait-file {}", gate.display())));
        let queued = create(&mut boss, with(mission("queued", "say done"), "depends_on", json!([running])));
        until("it runs", || status(&mut boss, &running)["status"] == "running");
        boss.kill_server();
        clock.set(jump);
        let mut next = world.boss();
        until("the takeover", || status(&mut next, &running)["elapsed_seconds"].is_u64());
        check_durations(&status(&mut next, &running));
        fs::write(&gate, "").unwrap();
        let mut news = wait_until_idle(&mut next);
        news.retain(|id| *id != early);
        news.sort();
        assert_eq!(news, [running.clone(), queued.clone()], "each once, after a jump of {jump}");
        for id in [&early, &running, &queued] {
            let ended = status(&mut next, id);
            assert_eq!(ended["status"], "completed", "{jump}: {ended:#}");
            check_durations(&ended);
        }
        let all = |state: Value| state["completed_tasks"].as_array().is_some_and(|it| it.len() == 3);
        until("the new server has written the state file", || read_json(&world.state_file()).is_some_and(all));
        if !clock.reads_clock(jump) {
            return;
        }
    }
}
