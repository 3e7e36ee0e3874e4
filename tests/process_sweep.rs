//! Sweeps of real processes, each by its own supervisor: the test starts itself again as a process that leads a
//! session and adopts orphans, and checks from outside that no process is left.
//!
//! Linux only, since the scripts need setsid(1) and full containment.
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use orchestrator_boss::mission::outcome::Containment;
use orchestrator_boss::process::{
    Evidence, Identity, Launch, PreexistingProcesses, ProcessScope, Signal, SignalResult, SpawnedProcess, StdinSource,
    Sweep, TAG_VARIABLE, WorkerPlaces, become_session_leader, become_subreaper, reap_orphans, scan, send, spawn, sweep,
};

const GRACE: Duration = Duration::from_millis(50);
const LONG_GRACE: Duration = Duration::from_secs(60);
/// Set in the supervisor that a test starts itself again as; the value is the worker's tag.
const SUPERVISED: &str = "TEST_SUPERVISED_TAG";

/// A worker, seen from its supervisor.
struct Worker {
    directory: tempfile::TempDir,
    scope: ProcessScope,
    started: SpawnedProcess,
}

impl Worker {
    fn start(script: &str) -> Self {
        become_session_leader().unwrap();
        become_subreaper().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let preexisting = PreexistingProcesses::now();
        let tag = std::env::var(SUPERVISED).unwrap();
        let started = spawn(&Launch {
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            cwd: directory.path().to_owned(),
            env_set: BTreeMap::from([(TAG_VARIABLE.to_owned(), (&tag).into())]),
            env_remove: vec![SUPERVISED.to_owned()],
            stdin: StdinSource::Null,
            output_pipe: false,
            stdout: directory.path().join("stdout"),
            stderr: directory.path().join("stderr"),
            confine: None,
        })
        .unwrap();
        let scope = ProcessScope {
            tag,
            roots: vec![Identity::own().unwrap()],
            allowlist: Vec::new(),
            private: WorkerPlaces::default(),
            own_children: vec![started.identity.pid],
            preexisting,
        };
        Self { directory, scope, started }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    /// Returns the process that wrote its pid to this file.
    fn process(&self, file: &str) -> Identity {
        let path = self.path(file);
        let pid = eventually(&format!("a pid in {file}"), || std::fs::read_to_string(&path).ok()?.trim().parse().ok());
        Identity::of(pid).expect("a process that writes its pid")
    }

    async fn sweep(&self, grace: Duration) -> Sweep {
        let swept = sweep(&self.scope, grace).await;
        assert!(swept.survivors.is_empty(), "{swept:?}");
        assert_eq!(reap_orphans(&self.scope.own_children), 0, "the sweep left zombies");
        swept
    }
}

/// Polls a condition that depends on other processes.
fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(started.elapsed() < LONG_GRACE, "waited 60 s for {what}");
        std::thread::yield_now();
    }
}

/// Runs the test again as a supervisor, checks that it passed, and returns how many of its worker's processes
/// it had left. In the supervisor: runs `inside` and ends there.
fn as_supervisor<F: Future<Output = ()>>(test: &str, inside: impl FnOnce() -> F) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    if std::env::var_os(SUPERVISED).is_some() {
        runtime.block_on(inside());
        std::process::exit(0);
    }
    let tag = format!("w-1.1-{}", uuid::Uuid::new_v4());
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(SUPERVISED, &tag)
        .output()
        .unwrap();
    let scope = ProcessScope { tag, ..ProcessScope::default() };
    let left = runtime.block_on(sweep(&scope, GRACE));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(left.survivors.is_empty(), "{left:?}");
    assert_eq!(left.containment, Containment::BestEffort, "no process adopts orphans after the supervisor ended");
    left.ended
}

#[test]
fn grandchild_in_own_session_is_ended() {
    let left = as_supervisor("grandchild_in_own_session_is_ended", async || {
        let mut worker = Worker::start("setsid sh -c 'echo $$ > deep; exec sleep 60' & wait");
        let deep = worker.process("deep");
        let swept = worker.sweep(LONG_GRACE).await;
        assert!(!deep.is_alive());
        assert_eq!(swept.containment, Containment::Full);
        assert!(swept.ended >= 2, "{swept:?}");
        // Tokio waits for its exit.
        let status = worker.started.child.wait().await.unwrap();
        assert!(!status.success());
    });
    assert_eq!(left, 0);
}

#[test]
fn daemon_that_outlives_cli_is_ended_and_reaped() {
    let left = as_supervisor("daemon_that_outlives_cli_is_ended_and_reaped", async || {
        let mut worker = Worker::start("(setsid sh -c 'echo $$ > daemon; exec sleep 60' &); exit 3");
        let daemon = worker.process("daemon");
        assert_eq!(worker.started.child.wait().await.unwrap().code(), Some(3));
        let swept = worker.sweep(LONG_GRACE).await;
        assert_eq!(Identity::of(daemon.pid).filter(|now| *now == daemon), None, "reaped, not only dead");
        assert_eq!((swept.ended, swept.containment), (1, Containment::Full));
    });
    assert_eq!(left, 0);
}

#[test]
fn ended_orphan_is_reaped_between_sweeps() {
    let left = as_supervisor("ended_orphan_is_reaped_between_sweeps", async || {
        let mut worker =
            Worker::start("(setsid sh -c 'while [ ! -e go ]; do sleep 0.01; done' & echo $! > orphan); exit 3");
        let orphan = worker.process("orphan");
        eventually("the exit of the CLI", || (!worker.started.identity.is_alive()).then_some(()));
        std::fs::write(worker.path("go"), "").unwrap();
        eventually("the orphan's end", || (!orphan.is_alive()).then_some(()));
        eventually("its reaping", || (reap_orphans(&worker.scope.own_children) > 0).then_some(()));
        assert_ne!(Identity::of(orphan.pid), Some(orphan));
        let status = worker.started.child.wait().await.unwrap();
        assert_eq!(status.code(), Some(3), "the CLI's exit is not for us to reap");
    });
    assert_eq!(left, 0);
}

#[test]
fn process_that_ignores_sigterm_is_killed() {
    let left = as_supervisor("process_that_ignores_sigterm_is_killed", async || {
        let worker = Worker::start("trap '' TERM; echo $$ > deaf; while :; do sleep 0.05; done");
        let deaf = worker.process("deaf");
        worker.sweep(GRACE).await;
        assert!(!deaf.is_alive());
    });
    assert_eq!(left, 0);
}

#[test]
fn stopped_process_may_exit_by_itself() {
    let left = as_supervisor("stopped_process_may_exit_by_itself", async || {
        let script = "sh -c 'trap \"echo bye > farewell; exit\" TERM; echo $$ > pid; kill -STOP $$; sleep 60' & wait";
        let worker = Worker::start(script);
        let stopped = worker.process("pid");
        eventually("it to be stopped", || {
            let found = scan(&worker.scope).found;
            found.iter().any(|found| found.identity == stopped && found.stopped).then_some(())
        });
        worker.sweep(LONG_GRACE).await;
        assert_eq!(std::fs::read_to_string(worker.path("farewell")).unwrap(), "bye\n");
    });
    assert_eq!(left, 0);
}

#[test]
fn fork_loop_is_frozen_and_killed() {
    let left = as_supervisor("fork_loop_is_frozen_and_killed", async || {
        let script = "trap '' TERM; i=0; while [ $i -lt 400 ]; do sleep 60 & i=$((i+1)); echo $i > count; done; wait";
        let worker = Worker::start(script);
        let count = worker.path("count");
        eventually("some forks", || {
            (std::fs::read_to_string(&count).ok()?.trim().parse::<u32>().ok()? > 20).then_some(())
        });
        let swept = worker.sweep(Duration::ZERO).await;
        assert!(swept.ended > 20, "{swept:?}");
        assert_eq!(swept.containment, Containment::Full);
    });
    assert_eq!(left, 0);
}

#[test]
fn chain_of_short_lived_processes_is_ended() {
    let left = as_supervisor("chain_of_short_lived_processes_is_ended", async || {
        // Each shell starts the next one and exits, so no pid exists long enough to be signalled individually.
        let script =
            "trap '' TERM; echo 'echo $1 > hop; [ $1 -lt 5000 ] && { sh hop.sh $(($1+1)) & }' > hop.sh; sh hop.sh 0";
        let worker = Worker::start(script);
        let hop = worker.path("hop");
        let read = || std::fs::read_to_string(&hop).ok()?.trim().parse::<u32>().ok();
        eventually("some hops", || (read()? > 20).then_some(()));
        let swept = worker.sweep(GRACE).await;
        assert_eq!(swept.containment, Containment::Full);
        let last = read();
        assert!(last < Some(5000), "the chain ended by itself: {last:?}");
    });
    assert_eq!(left, 0);
}

#[test]
fn daemon_without_tag_is_found_by_descent() {
    let left = as_supervisor("daemon_without_tag_is_found_by_descent", async || {
        let script = "(env -i setsid /bin/sh -c 'echo $$ > bare; exec sleep 60' &); exit 0";
        let mut worker = Worker::start(script);
        let bare = worker.process("bare");
        worker.started.child.wait().await.unwrap();
        eventually("the daemon to be ours", || {
            let found = scan(&worker.scope).found;
            found.iter().any(|found| found.identity == bare && found.by == Evidence::Descent).then_some(())
        });
        assert_eq!(bare.environment_has(TAG_VARIABLE, &worker.scope.tag), Some(false));
        worker.sweep(LONG_GRACE).await;
        assert!(!bare.is_alive());
    });
    assert_eq!(left, 0);
}

#[test]
fn similar_foreign_process_is_not_signalled() {
    const SCRIPT: &str = "echo $$ > same; while :; do sleep 0.05; done";
    let outside = std::env::var_os(SUPERVISED).is_none();
    let mut foreign = outside.then(|| start_foreign(SCRIPT));
    let left = as_supervisor("similar_foreign_process_is_not_signalled", async || {
        let worker = Worker::start(SCRIPT);
        let same = worker.process("same");
        worker.sweep(GRACE).await;
        assert!(!same.is_alive());
    });
    assert_eq!(left, 0);
    let (child, _directory) = foreign.as_mut().expect("a path outside");
    assert!(child.0.try_wait().unwrap().is_none(), "the foreign process was ended");
}

/// Starts the same program with the same arguments and the tag of another worker.
fn start_foreign(script: &str) -> (Guarded, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]).current_dir(&directory).env(TAG_VARIABLE, "w-1.1-another");
    (Guarded(command.spawn().unwrap()), directory)
}

#[test]
fn shared_daemon_and_its_children_survive() {
    let left = as_supervisor("shared_daemon_and_its_children_survive", async || {
        let script = "printf '#!/bin/sh\\necho $$ > shared\\nsleep 61 & echo $! > below\\nwait\\n' > sccache; \
            chmod +x sccache; (setsid ./sccache &); echo $$ > cli; sleep 60";
        let mut worker = Worker::start(script);
        let (cli, shared) = (worker.process("cli"), worker.process("shared"));
        let below = worker.process("below");
        eventually("the exec", || (below.name()? == "sleep").then_some(()));
        worker.scope.allowlist = vec!["sccache".to_owned()];
        let swept = worker.sweep(GRACE).await;
        assert!(!cli.is_alive());
        assert!(shared.is_alive() && below.is_alive());
        assert_eq!(swept.allowlisted, ["sccache", "sleep"]);

        worker.scope.allowlist.clear();
        worker.sweep(GRACE).await;
        assert!(!shared.is_alive() && !below.is_alive());
    });
    assert_eq!(left, 0);
}

#[test]
fn processes_of_dead_supervisor_are_found_by_tag() {
    let left = as_supervisor("processes_of_dead_supervisor_are_found_by_tag", async || {
        let worker = Worker::start("setsid sh -c 'echo $$ > deep; exec sleep 60' & echo $$ > cli; wait");
        worker.process("deep");
        worker.process("cli");
    });
    assert!(left >= 2, "{left}");
}

#[test]
fn empty_scope_finds_nothing() {
    let survey = scan(&ProcessScope::default());
    assert_eq!(
        (survey.found, survey.allowlisted, survey.containment),
        (Vec::new(), Vec::new(), Containment::BestEffort)
    );
}

#[test]
fn root_with_other_start_time_is_no_evidence() {
    let child = Guarded(Command::new("sleep").arg("60").spawn().unwrap());
    let identity = Identity::of(child.0.id()).unwrap();
    let earlier = Identity { started: identity.started - 1, ..identity };
    let by_earlier = scan(&ProcessScope { roots: vec![earlier], ..ProcessScope::default() }).found;
    let by_identity = scan(&ProcessScope { roots: vec![identity], ..ProcessScope::default() }).found;
    assert_eq!(by_earlier, Vec::new());
    assert_eq!(by_identity.iter().map(|found| found.identity).collect::<Vec<_>>(), [identity]);
}

/// Reuses a pid, in a namespace in which the next pid can be chosen.
#[test]
fn reused_pid_is_another_process() {
    const INSIDE: &str = "TEST_IN_A_NAMESPACE_OF_ITS_OWN";
    if std::env::var_os(INSIDE).is_some() {
        return reuse_pid();
    }
    let namespace = ["-rpf", "--mount-proc"];
    let possible = Command::new("unshare").args(namespace).arg("true").status().is_ok_and(|status| status.success());
    if !possible {
        eprintln!("SKIPPED: no namespace of processes can be made here, so no pid can be used again");
        assert!(std::env::var("CI").as_deref() != Ok("true"), "nothing is skipped in continuous integration");
        return;
    }
    let test = ["--exact", "reused_pid_is_another_process", "--nocapture"];
    let mut inside = Command::new("unshare");
    inside.args(namespace).arg(std::env::current_exe().unwrap()).args(test).env(INSIDE, "1");
    let output = inside.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("USED AGAIN"), "nothing was tested");
}

fn reuse_pid() {
    let sleeper = || Guarded(Command::new("sleep").arg("60").spawn().unwrap());
    let first = sleeper();
    let ours = Identity::of(first.0.id()).unwrap();
    let preexisting = PreexistingProcesses::now();
    let is_found = |identity| {
        let scope = ProcessScope { roots: vec![identity], preexisting: preexisting.clone(), ..ProcessScope::default() };
        scan(&scope).found.iter().any(|found| found.identity == identity)
    };
    assert!(!is_found(ours), "the other process is not in the tree");
    drop(first);
    assert_eq!(Identity::of(ours.pid), None);
    // Another thread may take the number, and within one clock tick two processes have the same start time.
    let foreign = eventually("the pid to be used again", || {
        std::fs::write("/proc/sys/kernel/ns_last_pid", (ours.pid - 1).to_string()).unwrap();
        let next = sleeper();
        (next.0.id() == ours.pid && Identity::of(ours.pid) != Some(ours)).then_some(next)
    });
    let now = Identity::of(foreign.0.id()).unwrap();
    assert_eq!(now.pid, ours.pid);
    assert!(!ours.is_alive() && now.is_alive());
    assert!(is_found(now), "it was mistaken for the other process");
    for signal in [Signal::Terminate, Signal::Kill] {
        assert_eq!(send(&ours, signal), SignalResult::NoSuchProcess);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let swept = runtime.block_on(sweep(&ProcessScope { roots: vec![ours], ..ProcessScope::default() }, GRACE));
    assert_eq!((swept.ended, swept.survivors), (0, Vec::new()));
    assert!(now.is_alive(), "the foreign process was ended");
    println!("USED AGAIN: {ours:?}, then {now:?}");
}

#[test]
fn unreaped_zombie_does_not_delay_sweep() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    // `sleep` takes the place of the shell and never waits for the shell's child.
    let script = "(while [ ! -e go ]; do sleep 0.01; done) & echo $! > pid; exec sleep 60";
    let mut command = Command::new("/bin/sh");
    let careless = Guarded(command.args(["-c", script]).current_dir(&directory).spawn().unwrap());
    let parent = Identity::of(careless.0.id()).unwrap();
    eventually("the exec", || (parent.name()? == "sleep").then_some(()));
    let pid = std::fs::read_to_string(path("pid")).unwrap().trim().parse().unwrap();
    let zombie = Identity::of(pid).unwrap();
    std::fs::write(path("go"), "").unwrap();
    eventually("its end", || (!zombie.is_alive()).then_some(()));

    let scope = ProcessScope { roots: vec![zombie], ..ProcessScope::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let started = Instant::now();
    let swept = runtime.block_on(sweep(&scope, LONG_GRACE));
    assert!(started.elapsed() < LONG_GRACE / 2, "{:?}", started.elapsed());
    assert_eq!((swept.ended, swept.survivors), (0, Vec::new()));
    assert_eq!(Identity::of(pid), Some(zombie), "it stayed a zombie");
}

#[test]
fn known_daemons_are_shared_by_default() {
    let default = orchestrator_boss::config::Settings::default().shared_daemons;
    assert_eq!(default, orchestrator_boss::process::known_daemons().collect::<Vec<_>>());
}

/// A child process that is killed at the end of the test.
struct Guarded(Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
