//! Cancellation, time limit, removal and loss end the worker's processes and no others.
//!
//! Linux only: the scripts need setsid(1), and full containment is guaranteed only there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use orchestrator_boss::attempt::state_dir::StateDir;
use orchestrator_boss::attempt::worker_dir::AttemptDir;
use orchestrator_boss::mission::id::WorkerId;
use orchestrator_boss::mission::lifecycle::{Ending, WorkerStatus};
use orchestrator_boss::mission::outcome::{Containment, Outcome};
use orchestrator_boss::orchestrator::{RemovalRequest, RemovalTarget};
use orchestrator_boss::process::confine::{Support, support};
use orchestrator_boss::process::{Identity, Signal, TAG_VARIABLE, send};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::Value;

use crate::support::git;
use crate::support::wait::{CEILING, eventually};
use crate::world::{Server, World, mission, until_exists};

/// Shell commands, by name. Each starts a process that tries to escape and writes its pid to the file of that name.
const STUBBORN: [(&str, &str); 8] = [
    ("child", "sleep 300 & echo $! > child"),
    ("session", "setsid sh -c 'echo $$ > session; exec sleep 300' &"),
    ("daemon", "(setsid sh -c '(sh -c \"echo \\$\\$ > daemon; exec sleep 300\" &)' &)"),
    ("deaf", "setsid sh -c 'trap \"\" TERM INT HUP; echo $$ > deaf; while :; do sleep 1; done' &"),
    ("stopped", "setsid sh -c 'echo $$ > stopped; kill -STOP $$; sleep 300' &"),
    ("bare", "env -i setsid sh -c 'echo $$ > bare; exec sleep 300' &"),
    ("bare-daemon", "(env -i setsid sh -c '(sh -c \"echo \\$\\$ > bare-daemon; exec sleep 300\" &)' &)"),
    // All of these at once.
    (
        "worst",
        "(env -i setsid sh -c '(sh -c \"trap \\\"\\\" TERM INT HUP; echo \\$\\$ > worst; kill -STOP \\$\\$; while :; do sleep 1; done\" &)' &)",
    ),
];

/// A worker that has started all the processes of [`STUBBORN`].
struct Stubborn {
    id: String,
    processes: BTreeMap<&'static str, Identity>,
}

impl Stubborn {
    async fn start(world: &World, server: &Server, minutes: u32) -> Self {
        let pids = world.shared("pids");
        std::fs::create_dir_all(&pids).unwrap();
        let lines: Vec<&str> = STUBBORN.iter().map(|(_, line)| *line).collect();
        let script = format!("cd {}\nexec >/dev/null 2>&1 </dev/null\n{}\n", pids.display(), lines.join("\n"));
        std::fs::write(world.path("stubborn.sh"), script).unwrap();
        let script =
            format!("ignore-term\nrun sh {}\nfork-loop 1000\ntouch ready\nhang", world.path("stubborn.sh").display());
        let mut draft = mission("t", &script);
        draft.timeout_minutes = minutes;
        let id = server.create_one(draft).await;
        let mut processes = BTreeMap::new();
        for (name, _) in STUBBORN {
            processes.insert(name, process(&pids.join(name)).await);
        }
        until_exists(&world.worktree(&id).join("ready")).await;
        Self { id, processes }
    }

    fn check_gone(&self) {
        let living: Vec<_> = self.processes.iter().filter(|(_, it)| it.is_alive()).map(|(name, _)| name).collect();
        assert!(living.is_empty(), "these survive: {living:?}");
    }
}

/// Waits for a pid in this file, and returns the process.
pub async fn process(path: &Path) -> Identity {
    eventually(&format!("a pid in {}", path.display()), || {
        Identity::of(std::fs::read_to_string(path).ok()?.trim().parse().ok()?)
    })
    .await
}

pub fn attempt(world: &World) -> AttemptDir {
    let dir = StateDir::open(&world.repo().join(".orchestrator")).unwrap();
    dir.worker(&WorkerId::new(1, "t")).attempt(1)
}

fn json(path: PathBuf) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap_or_default()).unwrap_or_default()
}

fn supervisor(attempt: &AttemptDir) -> Identity {
    serde_json::from_value(json(attempt.status())["supervisor"].clone()).unwrap()
}

pub fn tag(attempt: &AttemptDir) -> String {
    json(attempt.assignment())["tag"].as_str().unwrap().to_owned()
}

/// Waits until the supervisor has recorded all of these processes.
async fn until_recorded(attempt: &AttemptDir, stubborn: &Stubborn) {
    eventually("the recorded processes", || {
        let known: Vec<Identity> = serde_json::from_value(json(attempt.processes())["processes"].clone()).ok()?;
        stubborn.processes.values().all(|process| known.contains(process)).then_some(())
    })
    .await;
}

pub fn outcome(world: &World) -> Outcome {
    attempt(world).outcome().unwrap().expect("a settled attempt")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancel_ends_every_escaping_process() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let stubborn = Stubborn::start(&world, &server, 10).await;
    let answer = server.orchestrator.cancel(&server.boss, &stubborn.id, "enough").await.unwrap();
    assert_eq!((answer.status, answer.survivors), (WorkerStatus::Settled(Ending::Cancelled), 0));
    assert_eq!(answer.proof, Containment::Full);
    stubborn.check_gone();
}

/// Takes a minute, the shortest time limit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn time_limit_ends_every_escaping_process() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let stubborn = Stubborn::start(&world, &server, 1).await;
    let answer = server.wait(&[&stubborn.id], CEILING * 3).await;
    assert_eq!(answer.settled[0].worker.status, WorkerStatus::Settled(Ending::TimedOut), "{answer:#?}");
    let cleanup = outcome(&world).cleanup;
    assert_eq!((cleanup.survivors, cleanup.containment), (0, Containment::Full));
    stubborn.check_gone();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancel_after_takeover_ends_every_escaping_process() {
    let world = World::new();
    let first = world.server(Some("boss"));
    let stubborn = Stubborn::start(&world, &first, 10).await;
    first.orchestrator.shut_down().await;
    let second = world.server(Some("boss"));
    let answer = second.orchestrator.cancel(&second.boss, &stubborn.id, "enough").await.unwrap();
    assert_eq!((answer.survivors, answer.proof), (0, Containment::Full));
    stubborn.check_gone();
}

/// Checks processes without a tag whose parents are gone: only the supervisor's record identifies them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_supervisor_leaves_no_process() {
    let world = World::new();
    let first = world.server(Some("boss"));
    let stubborn = Stubborn::start(&world, &first, 10).await;
    let attempt = attempt(&world);
    until_recorded(&attempt, &stubborn).await;
    first.orchestrator.shut_down().await;
    let supervisor = supervisor(&attempt);
    send(&supervisor, Signal::Kill);
    eventually("its exit", || (!supervisor.is_alive()).then_some(())).await;
    let second = world.server(Some("boss"));
    second.until(&stubborn.id, "lost").await;
    let cleanup = outcome(&world).cleanup;
    assert_eq!(
        (cleanup.survivors, cleanup.containment),
        (0, Containment::BestEffort),
        "processes that escaped between two scans are unknown"
    );
    stubborn.check_gone();
}

/// Checks that the supervisor of a revoked claim ends its worker and leaves the rest to the server that revoked it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoked_claim_ends_every_escaping_process() {
    let world = World::new();
    let first = world.server(Some("boss"));
    let stubborn = Stubborn::start(&world, &first, 10).await;
    first.orchestrator.shut_down().await;
    let attempt = attempt(&world);
    let (supervisor, worktree) = (supervisor(&attempt), world.worktree(&stubborn.id));
    let before = world.git(&["rev-parse", &format!("orchestrator/{}", stubborn.id)]);
    attempt.revoke().unwrap();
    eventually("its exit", || (!supervisor.is_alive()).then_some(())).await;
    stubborn.check_gone();
    assert_eq!(attempt.outcome().unwrap(), None);
    assert_eq!(world.git(&["rev-parse", &format!("orchestrator/{}", stubborn.id)]), before, "nothing is committed");
    let status = git::git(&worktree, &["status", "--porcelain"]);
    assert_eq!(status.trim(), "?? ready", "uncommitted work stays");
    let second = world.server(Some("boss"));
    second.until(&stubborn.id, "lost").await;
    assert!(worktree.join("ready").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn similar_foreign_processes_survive() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let stubborn = Stubborn::start(&world, &server, 10).await;
    let (attempt, worktree) = (attempt(&world), world.worktree(&stubborn.id));
    let tag = tag(&attempt);
    let shorter = tag[..tag.len() - 1].to_owned();
    let foreign: Vec<(&str, ForeignProcess)> = vec![
        ("a shell in the worktree", ForeignProcess::start(&worktree, &[])),
        ("a worker of another state directory", ForeignProcess::start(&world.repo(), &[(TAG_VARIABLE, "w-1-t.1.0")])),
        ("a longer tag", ForeignProcess::start(&worktree, &[(TAG_VARIABLE, &format!("{tag}0"))])),
        ("a shorter tag", ForeignProcess::start(&worktree, &[(TAG_VARIABLE, &shorter)])),
        ("a longer name", ForeignProcess::start(&worktree, &[("ORCHESTRATOR_WORKER_TAG_2", &tag)])),
        ("another beginning", ForeignProcess::start(&worktree, &[("X_ORCHESTRATOR_WORKER_TAG", &tag)])),
        ("the tag in another value", ForeignProcess::start(&worktree, &[("NOTE", &format!("{TAG_VARIABLE}={tag}"))])),
    ];
    let check = |after: &str| {
        for (name, foreign) in &foreign {
            assert!(foreign.identity.is_alive(), "{name} was ended by the {after}");
        }
    };
    server.orchestrator.cancel(&server.boss, &stubborn.id, "enough").await.unwrap();
    check("cancellation");

    // The changed record claims incomplete cleanup, so the removal scans again and finds a tagged process.
    let mut changed = json(attempt.outcome_path());
    changed["cleanup"]["containment"] = "best_effort".into();
    std::fs::write(attempt.outcome_path(), changed.to_string()).unwrap();
    let ours = ForeignProcess::start(&world.repo(), &[(TAG_VARIABLE, &tag)]);
    let target = RemovalTarget::Worker(stubborn.id.clone());
    let request = RemovalRequest { target, repo_path: None, force: true, delete_branch: false };
    let removed = server.orchestrator.remove_worktree(&server.boss, request).await.unwrap();
    assert_eq!(removed.removed.len(), 1, "{removed:?}");
    assert!(!ours.identity.is_alive(), "it has the worker's tag");
    check("removal");
}

/// A foreign process that resembles one of the worker.
struct ForeignProcess {
    child: Child,
    identity: Identity,
}

impl ForeignProcess {
    fn start(directory: &Path, environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new("sleep");
        command.arg("300").current_dir(directory).envs(environment.iter().copied()).stdin(Stdio::null());
        let child = command.spawn().unwrap();
        let identity = Identity::of(child.id()).unwrap();
        Self { child, identity }
    }
}

impl Drop for ForeignProcess {
    fn drop(&mut self) {
        // It may have been ended, which the test reports.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Checks that a recorded process must match in pid, start time and boot of the machine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reused_pid_in_the_record_ends_no_process() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let id = server.create_one(mission("t", "touch ready\nhang")).await;
    until_exists(&world.worktree(&id).join("ready")).await;
    let attempt = attempt(&world);
    eventually("the record", || attempt.processes().exists().then_some(())).await;
    let supervisor = supervisor(&attempt);
    send(&supervisor, Signal::Stop);
    let (later, booted) = (ForeignProcess::start(&world.repo(), &[]), ForeignProcess::start(&world.repo(), &[]));
    let mut record = json(attempt.processes());
    let forged = Identity { started: later.identity.started - 1, ..later.identity };
    record["processes"].as_array_mut().unwrap().push(serde_json::to_value(forged).unwrap());
    std::fs::write(attempt.processes(), record.to_string()).unwrap();
    send(&supervisor, Signal::Kill);
    server.until(&id, "lost").await;
    assert!(later.identity.is_alive(), "its pid was reused");

    // The same pid and start time, but recorded before the last boot.
    record["host"] = "another boot".into();
    record["processes"].as_array_mut().unwrap().push(serde_json::to_value(booted.identity).unwrap());
    std::fs::write(attempt.processes(), record.to_string()).unwrap();
    let request =
        RemovalRequest { target: RemovalTarget::Worker(id), repo_path: None, force: true, delete_branch: false };
    server.orchestrator.remove_worktree(&server.boss, request).await.unwrap();
    assert!(booted.identity.is_alive());
}

/// Returns a daemon that ends with its worker: where the kernel confines workers, one that could not build anything else.
fn build_daemon() -> &'static str {
    if matches!(support(), Support::Yes(_)) { "sccache" } else { "mydaemon" }
}

/// Checks a daemon that the setting lists and one that it does not, each in its own session and in the CLI's group.
async fn check_daemons(world: &World, settings: Vec<String>, end: &str, listed: &str, unlisted: &str) {
    let mut with_list = world.settings();
    with_list.shared_daemons = settings;
    let server = world.server_with(Some("boss"), with_list);
    let sleep =
        String::from_utf8(Command::new("sh").args(["-c", "command -v sleep"]).output().unwrap().stdout).unwrap();
    let pids = world.shared("pids");
    std::fs::create_dir_all(&pids).unwrap();
    let mut script = format!("cd {}\nexec >/dev/null 2>&1 </dev/null\n", pids.display());
    for name in [listed, unlisted] {
        std::os::unix::fs::symlink(sleep.trim(), pids.join(name)).unwrap();
        // Until the exec, the process has the name of its shell.
        let named = format!("while [ \"$(cat /proc/$!/comm)\" != {name} ]; do sleep 0.01; done");
        script.push_str(&format!(
            "setsid ./{name} 300 & echo $! > {name}.session\n{named}\n./{name} 300 & echo $! > {name}.group\n{named}\n"
        ));
    }
    std::fs::write(world.path("daemons.sh"), script).unwrap();
    let script = format!("ignore-term\nrun sh {}\ntouch ready\n{end}", world.path("daemons.sh").display());
    let id = server.create_one(mission("t", &script)).await;
    let mut found = Vec::new();
    for name in [listed, unlisted] {
        for way in ["session", "group"] {
            let identity = process(&pids.join(format!("{name}.{way}"))).await;
            found.push((name, way, Ended(identity)));
        }
    }
    if end == "hang" {
        until_exists(&world.worktree(&id).join("ready")).await;
        server.orchestrator.cancel(&server.boss, &id, "enough").await.unwrap();
    } else {
        server.until(&id, "completed").await;
    }
    for (name, way, Ended(identity)) in &found {
        assert_eq!(identity.is_alive(), *name == listed, "{name} in the {way}, at its end by {end:?}");
    }
    assert_eq!(outcome(world).cleanup.daemons_left, [listed, listed]);
}

/// A process that is killed at the end of the test.
struct Ended(Identity);

impl Drop for Ended {
    fn drop(&mut self) {
        send(&self.0, Signal::Kill);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shared_daemons_survive_cancellation() {
    let world = World::new();
    let default = world.settings().shared_daemons;
    check_daemons(&world, default, "hang", "watchman", build_daemon()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shared_daemons_survive_completion() {
    let world = World::new();
    let default = world.settings().shared_daemons;
    check_daemons(&world, default, "say done", "watchman", build_daemon()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn setting_selects_the_shared_daemons() {
    let world = World::new();
    check_daemons(&world, vec!["mydaemon".to_owned()], "hang", "mydaemon", "sccache").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn supervisor_accepts_again_after_descriptor_shortage() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let id = server.create_one(mission("t", "touch ready\nhang")).await;
    until_exists(&world.worktree(&id).join("ready")).await;
    server.until(&id, "running").await;
    let attempt = attempt(&world);
    let supervisor = supervisor(&attempt);
    let pid = Pid::from_raw(supervisor.pid as i32);
    let open = std::fs::read_dir(format!("/proc/{}/fd", supervisor.pid)).unwrap().count() as u64;
    let limit = prlimit(pid, Resource::Nofile, Rlimit { current: Some(open), maximum: Some(20_000) }).unwrap();
    let socket = json(attempt.assignment())["socket"].as_str().unwrap().to_owned();
    let crowd: Vec<_> = (0..20).map(|_| std::os::unix::net::UnixStream::connect(&socket).unwrap()).collect();
    let log = attempt.supervisor_log();
    eventually("a refusal", || std::fs::read_to_string(&log).ok()?.contains("cannot accept").then_some(())).await;
    drop(crowd);
    prlimit(pid, Resource::Nofile, limit).unwrap();
    let mut stream = tokio::net::UnixStream::connect(&socket).await.unwrap();
    let mut byte = [0];
    let answered = tokio::time::timeout(CEILING, tokio::io::AsyncReadExt::read_exact(&mut stream, &mut byte)).await;
    assert!(matches!(answered, Ok(Ok(_))), "{answered:?}");
    server.orchestrator.cancel(&server.boss, &id, "enough").await.unwrap();
}
