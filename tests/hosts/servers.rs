//! Servers on several hosts for one state directory: one host at a time has it, and another takes over when that is dead.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use orchestrator_boss::attempt::worker_dir::AttemptDir;
use serde_json::{Value, json};

use crate::hosts::{in_folder, on_login, on_node, start};
use crate::support::cluster::Cluster;
use crate::support::git;
use crate::support::json_lines::Boss;
use crate::support::sandbox::{create, fake_backend, mission};
use crate::support::wait::until;

/// A repository in the shared folder.
struct World {
    cluster: Cluster,
    /// The name of the node.
    node: String,
}

impl World {
    fn start(file_system: &str) -> Option<Self> {
        let cluster = start(file_system)?;
        let content = if file_system == "lagging" { "backing" } else { "shared" };
        let repo = cluster.folder().join(content).join("repo");
        git::init(&repo);
        fs::write(repo.join("README"), "hello\n").unwrap();
        git::commit_all(&repo, "first");
        let settings = format!("confine = \"off\"\n{}", fake_backend("fake"));
        fs::write(cluster.folder().join(content).join("settings.toml"), settings).unwrap();
        let node = cluster.run("node-exec", &["1", "hostname"]).trim().to_owned();
        Some(Self { cluster, node })
    }

    fn repo(&self) -> PathBuf {
        self.cluster.shared().join("repo")
    }

    /// Returns a command of this program, in the repository on this host.
    fn command(&self, host: fn(&Cluster, &'static str) -> Command, arguments: &str) -> Command {
        let settings = self.cluster.shared().join("settings.toml");
        let line = format!("exec \"$0\" --config {} {arguments}", settings.display());
        let mut command = in_folder(host(&self.cluster, "sh"), &self.repo(), &line);
        git::seal(&mut command).env("HOME", self.cluster.shared()).env_remove("ORCHESTRATOR_WORKER_TAG");
        command
    }

    fn boss_on_node(&self) -> Boss {
        Boss::start(self.command(on_node, "serve"))
    }

    fn boss_on_login(&self) -> Boss {
        Boss::start(self.command(on_login, "serve"))
    }

    fn run_on_login(&self, arguments: &str) -> Output {
        self.command(on_login, arguments).stdin(Stdio::null()).output().unwrap()
    }

    /// Sends a signal to the server on the node.
    fn signal_server_on_node(&self, signal: &str) {
        self.cluster.run("node-exec", &["1", "pkill", signal, "-f", "orchestrator-boss .* serve$"]);
    }

    fn presences(&self) -> usize {
        let servers = fs::read_dir(self.repo().join(".orchestrator/servers")).into_iter().flatten().flatten();
        servers.filter(|entry| entry.path().extension().is_some_and(|it| it == "json")).count()
    }
}

fn settle(boss: &mut Boss, title: &str) -> String {
    let worker = create(boss, mission(title, "say done"));
    let answer = boss.succeed("wait_for_worker", json!({"worker_id": worker, "timeout_seconds": 60}));
    assert_eq!(answer["settled"][0]["status"], "completed", "{answer:#}");
    worker
}

fn workers(boss: &mut Boss) -> Result<Vec<String>, String> {
    let listed = boss.call("list_worker_missions", json!({"scope": "all"})).expect("the server is alive")?;
    let id = |worker: &Value| worker["worker_id"].as_str().unwrap().to_owned();
    Ok(listed["workers"].as_array().unwrap().iter().map(id).collect())
}

#[test]
fn second_host_is_refused_and_takes_over_from_a_dead_one() {
    let Some(world) = World::start("lagging") else { return };
    let mut first = world.boss_on_node();
    let worker = settle(&mut first, "first");
    let mut second = world.boss_on_login();
    let owner = format!("a server on {} ", world.node);
    let refused = second.refused("list_worker_missions", json!({}));
    assert!(refused.contains(&owner) && refused.contains(&format!("start their agent on {}", world.node)), "{refused}");
    for (tool, arguments) in [
        ("create_worker_mission", mission("second", "say done")),
        ("get_worker_status", json!({"worker_id": worker})),
        ("wait_for_any_worker", json!({"timeout_seconds": 1})),
        ("integrate_worker", json!({"worker_id": worker})),
        ("create_worktree", json!({"branch": "b"})),
        ("remove_worktree", json!({"worker_id": worker})),
        ("cancel_all_workers", json!({})),
    ] {
        let refused = second.refused(tool, arguments);
        assert!(refused.contains(&owner), "{tool}: {refused}");
    }
    let status = world.run_on_login("status --all");
    assert!(status.status.success() && String::from_utf8_lossy(&status.stdout).contains(&worker), "{status:?}");
    for arguments in
        [format!("cancel {worker}"), format!("retry {worker}"), format!("integrate {worker}"), "clean --yes".to_owned()]
    {
        let output = world.run_on_login(&arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        let there = format!("ssh {} 'cd {} && orchestrator-boss", world.node, world.repo().display());
        assert!(!output.status.success() && error.contains(&owner) && error.contains(&there), "{arguments}: {error}");
        assert!(!error.contains("that is known in"), "it was seen to live: {error}");
    }
    assert_eq!(settle(&mut first, "third"), "w-2-third", "the first server was not disturbed");

    let began = Instant::now();
    world.cluster.run("node-poweroff", &["1"]);
    until("the second server takes over", || workers(&mut second).is_ok());
    assert!(began.elapsed() > Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!(workers(&mut second).unwrap().len(), 2);
    assert_eq!(settle(&mut second, "fourth"), "w-3-fourth");
    assert_eq!(workers(&mut second).unwrap().len(), 3);
    second.leave();
    until("its presence is removed", || world.presences() == 0);
}

#[test]
fn running_worker_keeps_the_state_on_its_host() {
    let Some(world) = World::start("lagging") else { return };
    let mut first = world.boss_on_node();
    let gate = world.cluster.shared().join("gate");
    let worker = create(
        &mut first,
        mission("first", &format!("write a.txt x\ncommit work\nwait-file {}\nsay done", gate.display())),
    );
    let status = || first.succeed("get_worker_status", json!({"worker_id": worker}))["worker"]["status"].clone();
    until("it runs", status_is(status, "running"));
    first.leave();
    let mut second = world.boss_on_login();
    let owner = format!("a running worker on {} ", world.node);
    let refused = second.refused("list_worker_missions", json!({}));
    assert!(refused.contains(&owner), "{refused}");
    let content = world.cluster.folder().join("backing");
    fs::write(content.join("gate"), "").unwrap();
    until("its host gives way", || workers(&mut second).is_ok());
    let answer = second.succeed("wait_for_worker", json!({"worker_id": worker, "timeout_seconds": 60}));
    assert_eq!(answer["settled"][0]["status"], "completed", "{answer:#}");
}

#[test]
fn worker_is_lost_with_its_host() {
    let Some(world) = World::start("lagging") else { return };
    let mut first = world.boss_on_node();
    let worker = create(&mut first, mission("first", "write a.txt x\ncommit work\nhang"));
    let status = || first.succeed("get_worker_status", json!({"worker_id": worker}))["worker"]["status"].clone();
    until("it runs", status_is(status, "running"));
    let mut second = world.boss_on_login();
    assert!(workers(&mut second).is_err());
    world.cluster.run("node-poweroff", &["1"]);
    until("the second server takes over", || workers(&mut second).is_ok());
    let answer = second.succeed("wait_for_worker", json!({"worker_id": worker, "timeout_seconds": 60}));
    assert_eq!(answer["settled"][0]["status"], "lost", "{answer:#}");
    let workers = world.cluster.folder().join("backing/repo/.orchestrator/workers");
    assert!(AttemptDir::at(workers.join(&worker).join("attempts/1")).is_revoked());
}

fn status_is(mut status: impl FnMut() -> Value, expected: &str) -> impl FnMut() -> bool {
    move || status() == expected
}

#[test]
fn server_that_stood_still_gives_way() {
    let Some(world) = World::start("lagging") else { return };
    let mut first = world.boss_on_node();
    settle(&mut first, "first");
    let mut second = world.boss_on_login();
    assert!(workers(&mut second).is_err());
    world.signal_server_on_node("-STOP");
    until("the second server takes over", || workers(&mut second).is_ok());
    settle(&mut second, "second");
    world.signal_server_on_node("-CONT");
    let refused = first.refused("create_worker_mission", mission("third", "say done"));
    assert!(refused.contains("a server on login ") && refused.contains("this state directory"), "{refused}");
    assert_eq!(workers(&mut second).unwrap().len(), 2);
    second.leave();
    until("the first server has it again", || workers(&mut first).is_ok());
    assert_eq!(settle(&mut first, "third"), "w-3-third");
}

#[test]
fn local_file_system_needs_no_presence() {
    let Some(world) = World::start("plain") else { return };
    let (mut first, mut second) = (world.boss_on_node(), world.boss_on_login());
    let worker = settle(&mut first, "first");
    assert_eq!(workers(&mut second).unwrap(), [worker]);
    assert_eq!(world.presences(), 0);
}
