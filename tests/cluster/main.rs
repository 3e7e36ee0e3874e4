//! Workers as jobs of a real Slurm cluster (`tests/slurm/fixture.sh`), with the server on the login host, which is no
//! node, and the scripted CLI.
//!
//! Without Linux, root and the packages of `fixture.sh DIR install` each test prints SKIPPED; with `CI=true` it fails.

#[path = "../support/mod.rs"]
mod support;

mod checks;
mod controller;
mod crashes;
mod launchers;
mod many;
mod nodes;
mod refusals;
mod secrets;
mod world;

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

use support::json_lines::Boss;
use support::sandbox::{create, mission, status, with};
use support::wait::until;
use world::{World, on_cluster, text};

const LAGGING: &[(&str, &str)] = &[("SHAREDFS", "lagging")];

#[test]
fn twelve_workers_run_on_three_nodes() {
    let Some(world) = World::start(&[]) else { return };
    run_twelve(&world);
}

/// Here, locks and inotify work within one host only, and new names are visible up to 30 s late.
#[test]
fn twelve_workers_run_on_a_lagging_file_system() {
    let Some(world) = World::start(LAGGING) else { return };
    run_twelve(&world);
}

/// At most six fit on the nodes at once. The others are shown as queued, with the reason of the cluster.
fn run_twelve(world: &World) {
    let mut boss = world.boss();
    let go = world.on_hosts(world.sandbox.shared("go"));
    let script = format!("run hostname > host.txt\ncommit Name the host\nwait-file {} 300\nsay done", go.display());
    let missions: Vec<Value> = (0..12).map(|n| on_cluster(&format!("Part {n}"), &script)).collect();
    let made = boss.succeed("batch_create_workers", json!({"workers": missions}));
    assert_eq!(made["created"], 12, "{made:#}");
    let listed = boss.succeed("list_worker_missions", json!({}));
    let ids: Vec<String> =
        listed["workers"].as_array().expect("workers").iter().map(|it| text(&it["worker_id"])).collect();
    let mut counts = (0, 0);
    until("six run and six wait for the cluster", || {
        let workers = boss.succeed("list_worker_missions", json!({}))["workers"].as_array().expect("workers").clone();
        let running = workers.iter().filter(|worker| worker["status"] == "running").count();
        let is_waiting =
            |worker: &&Value| worker["status"] == "queued" && text(&worker["waits_for"]).starts_with("the cluster: ");
        let explained = |worker: &&Value| text(&worker["waits_for"]).contains("(job ");
        assert!(running <= 6, "{workers:#?}");
        counts = (running, workers.iter().filter(is_waiting).filter(explained).count());
        counts == (6, 6)
    });
    // Written on the host of the test, where the true state is.
    fs::write(world.sandbox.shared("go"), "").expect("a writable folder");
    world.ends(&mut boss, 12, "completed");
    let mut hosts = BTreeSet::new();
    for id in &ids {
        let branch = format!("worker/{id}");
        let shown = world.sandbox.git(&["for-each-ref", "--format=%(refname:short)", "refs/heads"]);
        let branch = shown.lines().find(|name| name.ends_with(id.as_str())).unwrap_or(&branch).to_owned();
        hosts.insert(world.sandbox.git(&["show", &format!("{branch}:host.txt")]).trim().to_owned());
        let attempt = world.sandbox.attempt(id, 1);
        let outcome = fs::read_to_string(attempt.join("outcome.json")).expect("an outcome");
        let outcome: Value = serde_json::from_str(&outcome).expect("JSON");
        assert_eq!(outcome["cleanup"]["containment"], "full", "{outcome:#}");
        assert!(!attempt.join("environment.json").exists());
    }
    assert_eq!(hosts.len(), 3, "{hosts:?}");
    boss.leave();
}

/// A message and a cancellation reach a worker on a node through files alone, and nothing of it is left.
#[test]
fn message_and_cancellation_reach_a_node() {
    let Some(world) = World::start(LAGGING) else { return };
    let mut boss = world.boss();
    let talks = world.create(&mut boss, "Listen", "say first\nwait-file never 300");
    world.until(&mut boss, &talks, "running");
    boss.succeed(
        "send_message_to_worker",
        json!({"worker_id": talks, "message": "FAKE:\nsay I heard it", "delivery": "interrupt"}),
    );
    let settled = boss.succeed("wait_for_any_worker", json!({"timeout_seconds": 60}));
    assert_eq!(settled["settled"][0]["final_message"], "I heard it", "{settled:#}");

    let stubborn = world.create(&mut boss, "Stay", "ignore-term\nchild 600\nhang");
    world.until(&mut boss, &stubborn, "running");
    until("its child runs", || world.processes(&stubborn) >= 2);
    let cancelled = boss.succeed("cancel_worker", json!({"worker_id": stubborn}));
    assert_eq!((&cancelled["status"], &cancelled["proof"]), (&json!("cancelled"), &json!("full")), "{cancelled:#}");
    assert_eq!(world.processes(&stubborn), 0);
    boss.leave();
}

/// A worker that waits in the queue of the cluster is cancelled at once, also while the controller is dead, and never
/// runs its CLI.
#[test]
fn waiting_worker_is_cancelled_without_a_controller() {
    let Some(world) = World::start(&[("NODES", "1")]) else { return };
    let mut boss = world.boss();
    let go = world.on_hosts(world.sandbox.shared("go"));
    let waits = format!("wait-file {} 300\nsay done", go.display());
    let running: Vec<String> = (0..2).map(|n| world.create(&mut boss, &format!("Hold {n}"), &waits)).collect();
    for id in &running {
        world.until(&mut boss, id, "running");
    }
    let ran = world.on_hosts(world.sandbox.shared("ran"));
    let waiting = world.create(&mut boss, "Wait", &format!("touch {}", ran.display()));
    until("its job waits", || text(&status(&mut boss, &waiting)["waits_for"]).contains("(job "));
    world.cluster.run("ctl-kill", &[]);
    let cancelled = boss.succeed("cancel_worker", json!({"worker_id": waiting}));
    assert_eq!((&cancelled["status"], &cancelled["proof"]), (&json!("cancelled"), &json!("full")), "{cancelled:#}");
    world.cluster.run("ctl-start", &[]);
    fs::write(world.sandbox.shared("go"), "").expect("a writable folder");
    for id in &running {
        world.until(&mut boss, id, "completed");
    }
    until("no job is left", || world.jobs() == 0);
    assert!(!world.sandbox.shared("ran").exists(), "a cancelled worker ran its CLI");
    boss.leave();
}

/// The commands show where a worker runs and what its job printed, and move it between the cluster and this host.
#[test]
fn commands_show_and_move_a_worker() {
    let Some(world) = World::with_settings(
        &[("NODES", "1")],
        "[launchers.cluster]\nkind = \"slurm\"\nprologue = [\"echo before the supervisor\"]\n",
    ) else {
        return;
    };
    let mut boss = world.boss();
    let id = world.create(&mut boss, "Go there", "say there");
    let done = world.until(&mut boss, &id, "completed");
    let node = text(&done["node"]);
    assert!(node.starts_with('c') && done["job"].is_u64() && done["launcher"] == "cluster", "{done:#}");
    let shown = world.print(&["status", &id]);
    assert!(shown.contains(&format!("cluster, job {} on {node}", done["job"])), "{shown}");
    assert_eq!(world.print(&["logs", &id, "--engine"]), "before the supervisor\n");

    let retried = world.print(&["retry", &id, "--run-on", "local", "--prompt", "FAKE:\nsay here"]);
    assert!(retried.contains("attempt 2"), "{retried}");
    let local = world.until(&mut boss, &id, "completed");
    assert_eq!((&local["final_message"], &local["attempt"]), (&json!("here"), &json!(2)), "{local:#}");
    assert!(local.get("node").is_none() && local.get("job").is_none() && local.get("launcher").is_none(), "{local:#}");
    let without = world.command(&["logs", &id, "--engine"]).output().expect("the program runs");
    let said = String::from_utf8_lossy(&without.stderr).into_owned();
    assert!(!without.status.success() && said.contains("does not run on a cluster"), "{said}");
    assert_eq!(world.print(&["logs", &id, "--engine", "--attempt", "1"]), "before the supervisor\n");

    let refused = world.command(&["retry", &id, "--run-on", "nowhere"]).output().expect("the program runs");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("local, cluster"), "{said}");
    world.print(&["retry", &id, "--run-on", "cluster", "--prompt", "FAKE:\nsay back"]);
    assert_eq!(world.until(&mut boss, &id, "completed")["final_message"], "back");
    boss.leave();
}

/// An integration is verified on a node. Its output is in the answer, and no process of it is left on the node or here.
#[test]
fn integration_is_verified_on_a_node() {
    let settings = "verify_on = \"cluster\"\n[launchers.cluster]\nkind = \"slurm\"\n\
                    prologue = [\"echo module loaded\", \"cat\", \"export FROM_PROLOGUE=yes\"]\n";
    let Some(world) = World::with_settings(&[("NODES", "1"), ("CPUS", "1")], settings) else { return };
    let mut boss = world.boss();
    let make = |boss: &mut Boss, name: &str| {
        let id = create(boss, mission(name, &format!("write {name}.txt x\ncommit Add {name}")));
        world.until(boss, &id, "completed");
        id
    };
    let host = world.sandbox.shared("host");
    let one = make(&mut boss, "one");
    let command = format!("test -e one.txt && test $FROM_PROLOGUE = yes && hostname > {}", host.display());
    let merged = boss.succeed("integrate_worker", json!({"worker_id": one, "verify_command": command}));
    assert_eq!(merged["status"], "merged", "{merged:#}");
    assert_eq!(merged["verification"]["result"], "passed", "{merged:#}");
    assert!(fs::read_to_string(&host).expect("the host").starts_with('c'), "it ran on a node");

    let two = make(&mut boss, "two");
    let command = "(setsid sleep 600 &); echo it is broken; exit 3";
    let failed = boss.succeed("integrate_worker", json!({"worker_id": two, "verify_command": command}));
    let verification = &failed["verification"];
    assert_eq!((&verification["result"], &verification["exit_code"]), (&json!("failed"), &json!(3)), "{failed:#}");
    assert!(text(&verification["output_tail"]).contains("it is broken"), "{failed:#}");
    until("no job is left", || world.jobs() == 0);
    assert_eq!(world.processes("integration"), 0);
    assert!(!world.sandbox.state_dir().join("integrations").exists(), "its folder is removed");

    // While the only node is busy, the verification waits. It ends with its server.
    let busy = world.create(&mut boss, "Be busy", "hang");
    world.until(&mut boss, &busy, "running");
    let three = make(&mut boss, "three");
    boss.start_call("integrate_worker", json!({"worker_id": three, "verify_command": "true"}));
    until("its job waits", || world.jobs() == 2);
    boss.leave();
    until("its job is gone", || world.jobs() == 1);
    let mut boss = world.boss();
    boss.succeed("cancel_worker", json!({"worker_id": busy}));
    until("no job is left", || world.jobs() == 0);
    let merged = boss.succeed("integrate_worker", json!({"worker_id": three, "verify_command": "true"}));
    assert_eq!(merged["status"], "merged", "{merged:#}");
    boss.leave();
}

/// When a server is killed, its verification ends too, whether that runs or waits. No other server is needed.
#[test]
fn verification_ends_with_a_killed_server() {
    let settings = "verify_on = \"cluster\"\n[launchers.cluster]\nkind = \"slurm\"\n";
    let Some(world) = World::with_settings(&[("NODES", "1"), ("CPUS", "1")], settings) else { return };
    let mut boss = world.boss();
    let id = create(&mut boss, with(mission("One", "write one.txt x\ncommit Add it"), "run_on", json!("local")));
    world.until(&mut boss, &id, "completed");
    boss.start_call("integrate_worker", json!({"worker_id": id, "verify_command": "setsid sleep 600"}));
    until("it runs on the node", || world.processes("integration") > 0);
    boss.kill_server();
    until("nothing of it is left", || (world.jobs(), world.processes("integration")) == (0, 0));

    let mut boss = world.boss();
    let busy = world.create(&mut boss, "Be busy", "hang");
    world.until(&mut boss, &busy, "running");
    boss.start_call("integrate_worker", json!({"worker_id": id, "verify_command": "true"}));
    until("its job waits", || world.jobs() == 2);
    boss.kill_server();
    until("its job is gone", || world.jobs() == 1);
    let mut boss = world.boss();
    boss.succeed("cancel_worker", json!({"worker_id": busy}));
    let merged = boss.succeed("integrate_worker", json!({"worker_id": id, "verify_command": "true"}));
    assert_eq!(merged["status"], "merged", "{merged:#}");
    until("no job is left", || world.jobs() == 0);
    boss.leave();
}

/// A verification that the cluster refuses has the result `could_not_run`, with the text of the cluster.
#[test]
fn refused_verification_could_not_run() {
    let settings = "verify_on = \"cluster\"\n[launchers.cluster]\nkind = \"slurm\"\npartition = \"nowhere\"\n";
    let Some(world) = World::with_settings(&[("NODES", "1")], settings) else { return };
    let mut boss = world.boss();
    let id = create(&mut boss, mission("One", "write one.txt x\ncommit Add it"));
    world.until(&mut boss, &id, "completed");
    let refused = boss.succeed("integrate_worker", json!({"worker_id": id, "verify_command": "true"}));
    let verification = &refused["verification"];
    assert_eq!(verification["result"], "could_not_run", "{refused:#}");
    let why = verification.to_string();
    assert!(why.contains("invalid partition") && why.contains("[launchers.cluster]"), "{refused:#}");
    boss.leave();
}

/// A mission that needs more time than its partition allows is refused when it is created.
#[test]
fn mission_over_the_limit_of_its_partition_is_refused() {
    let settings = "questions = \"ask\"\n[launchers.cluster]\nkind = \"slurm\"\npartition = \"short\"\n\
                    [launchers.free]\nkind = \"slurm\"\n";
    let Some(world) = World::with_settings(&[("NODES", "1")], settings) else { return };
    let mut boss = world.boss();
    let refused = boss.refused("create_worker_mission", on_cluster("Too long", "say never"));
    assert!(refused.contains("its jobs are limited to 10 minutes (partition short)"), "{refused}");
    assert!(refused.contains("needs 145 (timeout_minutes 120, questions 10, reserve 15)"), "{refused}");
    assert!(refused.contains("[launchers.cluster]"), "{refused}");
    let id = create(&mut boss, with(mission("Elsewhere", "say there"), "run_on", json!("free")));
    world.until(&mut boss, &id, "completed");
    boss.leave();
}

/// The server is killed while workers run and wait. The next one follows the running ones and the waiting jobs.
#[test]
fn next_server_takes_over_jobs() {
    let Some(world) = World::start(&[("NODES", "1")]) else { return };
    let mut boss = world.boss();
    let go = world.on_hosts(world.sandbox.shared("go"));
    let count = world.on_hosts(world.sandbox.shared("starts"));
    let script = format!("run echo x >> {}\nwait-file {} 300\nsay done", count.display(), go.display());
    let ids: Vec<String> = (0..4).map(|n| world.create(&mut boss, &format!("Part {n}"), &script)).collect();
    // Any two may be the first, since the workers are prepared at the same time.
    until("two of them run", || ids.iter().filter(|id| status(&mut boss, id)["status"] == "running").count() == 2);
    boss.kill_server();
    let mut boss = world.boss();
    fs::write(world.sandbox.shared("go"), "").expect("a writable folder");
    for id in &ids {
        world.until(&mut boss, id, "completed");
    }
    let starts = fs::read_to_string(world.sandbox.shared("starts")).expect("the count");
    assert_eq!(starts.lines().count(), 4, "each CLI ran once");
    boss.leave();
}

/// A node loses power. Its worker is lost once the cluster reports the failure and the heartbeat has stopped, not
/// before, and a retry continues in its worktree on another node.
#[test]
fn worker_of_a_dead_node_is_lost_and_retried() {
    let Some(world) = World::start(&[("NODES", "2"), ("CPUS", "1")]) else { return };
    let mut boss = world.boss();
    let id = world.create(&mut boss, "Die with the node", "write kept.txt x\ncommit Keep it\nwrite more.txt y\nhang");
    world.until(&mut boss, &id, "running");
    until("it has committed", || world.sandbox.worktree(&id).join("more.txt").exists());
    let node = world.node(&id);
    world.cluster.run("node-poweroff", &[&node]);
    let lost = world.until(&mut boss, &id, "lost");
    let failure = &lost["outcome"]["run"];
    assert_eq!(failure["reason"], "host_lost", "{lost:#}");
    assert!(text(&failure["message"]).contains(&node), "{lost:#}");
    assert_eq!(lost["outcome"]["changes"]["commits"], 1, "{lost:#}");
    boss.succeed("retry_worker", json!({"worker_id": id, "prompt": "FAKE:\nrun cat more.txt\nsay done"}));
    let done = world.until(&mut boss, &id, "completed");
    assert_eq!(done["outcome"]["changes"]["commits"], 2, "the uncommitted file is kept: {done:#}");
    boss.leave();
}

/// A node is cut off from the controller while its worker runs on. The worker is not lost: its true end is reported.
#[test]
fn worker_of_a_node_that_is_cut_off_ends_by_itself() {
    let Some(world) = World::start(&[("NODES", "1")]) else { return };
    let mut boss = world.boss();
    let go = world.on_hosts(world.sandbox.shared("go"));
    let id =
        world.create(&mut boss, "Go on", &format!("wait-file {} 300\nwrite it.txt x\ncommit Add it", go.display()));
    world.until(&mut boss, &id, "running");
    world.cluster.run("slurmd-kill", &["1"]);
    until("the cluster gives the job up", || world.jobs() == 0);
    assert_eq!(status(&mut boss, &id)["status"], "running");
    fs::write(world.sandbox.shared("go"), "").expect("a writable folder");
    let done = world.until(&mut boss, &id, "completed");
    assert_eq!(done["outcome"]["changes"]["commits"], 1, "{done:#}");
    boss.leave();
}

/// What a node lacks is named, with the node.
#[test]
fn missing_program_on_a_node_is_named() {
    let launcher = "[backends.codex]\nprogram = \"/nowhere/codex\"\n[launchers.cluster]\nkind = \"slurm\"\n";
    let Some(world) = World::with_settings(&[("NODES", "1")], launcher) else { return };
    let mut boss = world.boss();
    let mut mission = on_cluster("Find it", "say never");
    mission["backend"] = json!("codex");
    let answer = boss.succeed("create_worker_mission", mission);
    let id = text(&answer["worker"]["worker_id"]);
    let failed = world.until(&mut boss, &id, "failed");
    let failure = &failed["outcome"]["run"];
    assert_eq!(failure["reason"], "could_not_start", "{failed:#}");
    let message = text(&failure["message"]);
    assert!(message.contains("/nowhere/codex was not found there") && message.contains("cannot run on c"), "{message}");
    let unknown = boss.refused("create_worker_mission", {
        let mut mission = on_cluster("Nowhere", "say never");
        mission["run_on"] = json!("clusters");
        mission
    });
    assert!(unknown.contains("local, cluster"), "{unknown}");
    boss.leave();
}
