//! `doctor --on`: what it finds on a node, and that it leaves nothing there.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::sandbox::PROGRAM;
use crate::support::wait::{until, until_some};
use crate::world::{LAUNCHER, World};

/// Returns the finding of this name.
fn finding<'a>(checks: &'a Value, topic: &str, name: &str) -> &'a Value {
    let found = checks["checks"][topic].as_array().and_then(|all| all.iter().find(|check| check["name"] == name));
    found.unwrap_or_else(|| panic!("no {name} in {checks:#}"))
}

fn message(finding: &Value) -> &str {
    finding["message"].as_str().unwrap_or_default()
}

/// Returns the answer of `doctor` with these arguments, with one more folder on its PATH.
fn doctor(world: &World, arguments: &[&str], folder: &str) -> Value {
    doctor_with(world, arguments, folder, &[])
}

fn doctor_with(world: &World, arguments: &[&str], folder: &str, variables: &[(&str, &str)]) -> Value {
    let path = std::env::var("PATH").expect("a PATH");
    let mut command = world.command(&[&["doctor", "--json"], arguments].concat());
    command.envs(variables.iter().copied()).env("PATH", format!("{folder}:{path}"));
    let output = command.output().expect("doctor runs");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {errors}"))
}

#[test]
fn doctor_finds_what_a_node_lacks() {
    let Some(world) = World::start(&[("NODES", "1")]) else { return };
    // The folder /tmp of the login host is its own.
    let claude = "mkdir /tmp/bin && printf '#!/bin/sh\\necho 2.0.0\\n' >/tmp/bin/claude && chmod 755 /tmp/bin/claude";
    world.cluster.run("login", &["sh", "-c", claude]);
    let checks = doctor(&world, &["--on", "cluster"], "/tmp/bin");
    assert!(message(finding(&checks, "cluster", "commands")).contains("sbatch"), "{checks:#}");
    assert!(message(finding(&checks, "cluster", "partition")).starts_with("agents is up, with 1 of 1"), "{checks:#}");
    assert!(message(finding(&checks, "node", "job")).starts_with("a job ran on c"), "{checks:#}");
    for name in ["folder", "locks", "git"] {
        assert_eq!(finding(&checks, "node", name)["severity"], "ok", "{checks:#}");
    }
    assert!(message(finding(&checks, "node", "fake")).contains("fake-cli"), "{checks:#}");
    let missing = "not found on the nodes";
    assert!(message(finding(&checks, "node", "claudecode")).starts_with(missing), "{checks:#}");
    assert_eq!(world.jobs(), 0);
    let left = fs::read_dir(world.sandbox.state_dir()).expect("the state directory").flatten();
    let left: Vec<_> = left.filter(|entry| entry.file_name().to_string_lossy().starts_with("probe-")).collect();
    assert!(left.is_empty(), "{left:?}");

    let mut boss = world.boss();
    let status = boss.succeed("get_backend_status", json!({}));
    let launcher = &status["launchers"][0];
    assert_eq!(launcher["answers"], "yes", "{status:#}");
    assert!(
        launcher["problem"].as_str().is_some_and(|it| it.contains(&format!("claudecode: {missing}"))),
        "{status:#}"
    );

    // A job whose worker has ended.
    let id = world.create(&mut boss, "End", "say done");
    world.until(&mut boss, &id, "completed");
    let state = fs::read(world.sandbox.state_dir().join("id.json")).expect("an id");
    let state: Value = serde_json::from_slice(&state).expect("JSON");
    let digits = state["id"].as_str().expect("an id").replace('-', "");
    let name = format!("--job-name=ob-{}-{id}-1", &digits[..12]);
    world.cluster.run("login", &["sbatch", &name, "--output=/dev/null", "--wrap=sleep 300"]);
    let checks = doctor(&world, &[], "/tmp/bin");
    let jobs = finding(&checks, "left_over", "jobs");
    assert!(message(jobs).starts_with("on the cluster of cluster, their attempts"), "{checks:#}");
    assert!(message(jobs).contains(&format!("of {id}")), "{checks:#}");
    assert!(jobs["fix"][0].as_str().is_some_and(|fix| fix.starts_with("scancel ")), "{checks:#}");
    boss.leave();
}

#[test]
fn doctor_measures_a_lagging_file_system() {
    let Some(world) = World::start(&[("NODES", "1"), ("SHAREDFS", "lagging"), ("LAG", "15")]) else { return };
    let checks = doctor(&world, &["--on", "cluster"], "/tmp");
    let (folder, locks) = (finding(&checks, "node", "folder"), finding(&checks, "node", "locks"));
    assert_eq!((&folder["severity"], &locks["severity"]), (&json!("note"), &json!("note")), "{checks:#}");
    assert!(message(locks).contains("within one host only"), "{checks:#}");
}

#[test]
fn doctor_tries_the_way_to_the_service_of_a_model() {
    let Some(world) = World::start(&[("NODES", "1")]) else { return };
    let bin = world.on_hosts(world.sandbox.shared("bin"));
    fs::create_dir_all(&bin).expect("a folder");
    fs::write(bin.join("claude"), "#!/bin/sh\necho 2.0.0\n").expect("a script");
    fs::set_permissions(bin.join("claude"), fs::Permissions::from_mode(0o755)).expect("a mode");
    let more = format!("pass_env = [\"ANTHROPIC_BASE_URL\"]\nprologue = [\"export PATH='{}':$PATH\"]\n", bin.display());
    let settings = fs::read_to_string(world.sandbox.settings_file()).expect("settings");
    fs::write(world.sandbox.settings_file(), settings.replace(LAUNCHER, &format!("{LAUNCHER}{more}"))).expect("a file");
    // The nodes share the loopback of this host.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let service = listener.local_addr().expect("an address");
    let network = |variables: &[(&str, &str)]| {
        let checks = doctor_with(&world, &["--on", "cluster"], "/tmp", variables);
        finding(&checks, "node", "network").clone()
    };
    let address = format!("http://{service}/v1");
    let reached = network(&[("ANTHROPIC_BASE_URL", &address)]);
    let expected = json!(format!("{service} is reached (claudecode)"));
    assert_eq!((&reached["severity"], &reached["message"]), (&json!("ok"), &expected));
    let proxy = service.to_string();
    let reached = network(&[("ANTHROPIC_BASE_URL", "https://model.invalid"), ("HTTPS_PROXY", &proxy)]);
    assert_eq!(reached["message"], format!("{service}, the proxy to model.invalid, is reached (claudecode)"));
    drop(listener);
    let refused = network(&[("ANTHROPIC_BASE_URL", &address)]);
    assert_eq!(refused["severity"], "warn", "{refused:#}");
    assert!(message(&refused).starts_with(&format!("cannot reach {service} (claudecode): ")), "{refused:#}");
}

#[test]
fn doctor_names_settings_of_launchers_that_do_harm() {
    let launchers = format!(
        "{LAUNCHER}[launchers.greedy]\nkind = \"slurm\"\n[launchers.away]\nkind = \"slurm\"\ncommand = [\"/nowhere/ssh\", \"login\"]\n"
    );
    let Some(world) = World::with_settings(&[("NODES", "1")], &launchers) else { return };
    let checks = doctor(&world, &["--on", "greedy"], "/tmp");
    let memory = finding(&checks, "cluster", "memory");
    assert!(message(memory).contains("gets all memory of its node"), "{checks:#}");
    assert!(message(memory).contains("[launchers.greedy]"), "{checks:#}");
    let checks = doctor(&world, &["--on", "cluster"], "/tmp");
    assert!(!checks.to_string().contains("all memory of its node"), "{checks:#}");
    let checks = doctor(&world, &["--on", "away"], "/tmp");
    let failed = finding(&checks, "cluster", "sbatch, squeue, scancel, sinfo, scontrol, srun");
    assert!(message(failed).contains("/nowhere/ssh"), "{checks:#}");
}

#[test]
fn doctor_gives_up_a_job_that_never_starts() {
    let launchers = format!("{LAUNCHER}[launchers.large]\nkind = \"slurm\"\ncpus = 64\nmemory = \"10M\"\n");
    let Some(world) = World::with_settings(&[("NODES", "1")], &launchers) else { return };
    let checks = doctor(&world, &["--on", "large"], "/tmp");
    let job = finding(&checks, "node", "job");
    assert_eq!(job["severity"], "bad", "{checks:#}");
    assert!(message(job).contains("it waits: ") && message(job).contains("`cpus`"), "{checks:#}");
    assert!(message(job).contains("[launchers.large]"), "{checks:#}");
    assert_eq!(world.jobs(), 0);
}

#[test]
fn interrupted_doctor_cancels_its_job() {
    let Some(world) = World::start(&[("NODES", "1"), ("CPUS", "1")]) else { return };
    let mut boss = world.boss();
    let busy = world.create(&mut boss, "Be busy", "hang");
    world.until(&mut boss, &busy, "running");
    let mut doctor = world.command(&["doctor", "--on", "cluster"]);
    let mut doctor = doctor.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("doctor runs");
    until("its job waits", || world.jobs() == 2);
    // Its parent enters the namespaces of the login host, and passes no signal on.
    let pid = until_some("the process of doctor", || doctor_of(&world.sandbox.root()));
    kill_process(pid, Signal::INT).expect("it runs");
    assert_eq!(doctor.wait().expect("it ends").code(), Some(130));
    until("its job is gone", || world.jobs() == 1);
    boss.succeed("cancel_worker", json!({"worker_id": busy}));
    boss.leave();
}

/// Returns the process of `doctor` with the settings in this folder.
fn doctor_of(home: &Path) -> Option<Pid> {
    let settings = home.join("config.toml").display().to_string();
    let pids = fs::read_dir("/proc").expect("the process table").flatten();
    let mut pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_it = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<_> = line.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
        words.first().is_some_and(|word| word == PROGRAM)
            && words.iter().any(|word| *word == settings)
            && words.iter().any(|word| word == "doctor")
    };
    pids.find(is_it).and_then(Pid::from_raw)
}
