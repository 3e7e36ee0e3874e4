//! Keys reach a node in one private file, which exists from the preparation of the job to the claim, and only with
//! `pass_keys`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde_json::json;

use crate::support::sandbox::{create, status};
use crate::support::wait::until;
use crate::world::{LAUNCHER, World, holders, on_cluster, text};

/// In the server's environment: one that the backend needs, and one that nothing names.
const NEEDED: &str = "sk-needed-by-the-backend";
const STRAY: &str = "sk-of-another-program";
/// In the settings of the backend.
const SET: &str = "sk-set-for-the-backend";
const ENVIRONMENT: [(&str, &str); 2] = [("FAKE_KEY", NEEDED), ("OTHER_KEY", STRAY)];
const BACKEND: &str = "key_variables = [\"FAKE_KEY\"]\n[custom.env]\nFAKE_TOKEN = \"sk-set-for-the-backend\"";

#[test]
fn keys_are_in_one_private_file_until_the_job_begins() {
    let held = format!("{LAUNCHER}pass_keys = true\nargs = [\"--hold\"]\n");
    let Some(world) = World::with_settings(&[("NODES", "1")], &held) else { return };
    world.configure_backend(BACKEND);
    let mut boss = world.boss_with(&ENVIRONMENT);
    let got = |name: &str| world.on_hosts(world.sandbox.shared(name)).display().to_string();
    let script = format!(
        "run printenv FAKE_KEY | wc -c > {}\nrun printenv FAKE_TOKEN | wc -c > {}\nenv OTHER_KEY {}\nwait-file {} 300",
        got("key"),
        got("token"),
        got("other"),
        got("go")
    );
    let id = world.create(&mut boss, "Use the keys", &script);
    until("its job waits", || text(&status(&mut boss, &id)["waits_for"]).contains("(job "));
    let attempt = world.sandbox.attempt(&id, 1);
    let file = attempt.join("environment.json");
    assert_eq!(fs::metadata(&file).expect("the file").permissions().mode() & 0o777, 0o600);
    for (secret, expected) in [(NEEDED, vec![file.clone()]), (SET, vec![file.clone()]), (STRAY, Vec::new())] {
        assert_eq!(found(&world, secret), expected, "while the job waits");
    }
    let job = world.job(&id).expect("a job");
    let shown = world.slurm("scontrol", &["--details", "show", "job", &job])
        + &world.slurm("scontrol", &["write", "batch_script", &job, "-"]);
    assert!(shown.contains(&job) && shown.contains("supervise --job"), "{shown}");
    assert!(!shown.contains("sk-"), "{shown}");

    world.slurm("scontrol", &["release", &job]);
    until("the CLI has read its keys", || world.sandbox.shared("other").exists());
    assert!(!file.exists());
    for secret in [NEEDED, SET, STRAY] {
        assert_eq!(found(&world, secret), Vec::<PathBuf>::new(), "while the job runs");
    }
    let read = |name: &str| fs::read_to_string(world.sandbox.shared(name)).expect("a result").trim().to_owned();
    assert_eq!(read("key"), (NEEDED.len() + 1).to_string());
    assert_eq!(read("token"), (SET.len() + 1).to_string());
    assert_eq!(read("other"), "unset");
    fs::write(world.sandbox.shared("go"), "").expect("a writable folder");
    world.until(&mut boss, &id, "completed");
    assert_eq!(found(&world, NEEDED), Vec::<PathBuf>::new(), "at the end");
    boss.leave();
}

/// Returns the files of the cluster, of the repository and of its state that contain a secret, and the processes with it
/// among their arguments.
fn found(world: &World, secret: &str) -> Vec<PathBuf> {
    // The user's own file, in which the backend is defined.
    let mut found = holders(world.cluster.folder(), secret);
    found.retain(|path| *path != world.sandbox.settings_file());
    for process in fs::read_dir("/proc").expect("the process table").flatten() {
        let arguments = process.path().join("cmdline");
        if fs::read_to_string(&arguments).is_ok_and(|arguments| arguments.contains(secret)) {
            found.push(arguments);
        }
    }
    found
}

#[test]
fn keys_stay_here_unless_the_settings_say_otherwise() {
    let Some(world) = World::start(&[("NODES", "1")]) else { return };
    world.configure_backend(BACKEND);
    let mut boss = world.boss_with(&ENVIRONMENT);
    let refused = boss.refused("create_worker_mission", on_cluster("Use the keys", "say never"));
    assert!(refused.contains("FAKE_KEY, FAKE_TOKEN") && refused.contains("pass_keys"), "{refused}");
    assert!(!refused.contains("sk-"), "{refused}");
    assert_eq!(boss.succeed("list_worker_missions", json!({}))["workers"], json!([]));
    boss.leave();
}

/// A backend that needs no key gets none, even where the server has some.
#[test]
fn environment_of_the_server_stays_on_its_host() {
    let Some(world) = World::start(&[("NODES", "1")]) else { return };
    let mut boss = world.boss_with(&ENVIRONMENT);
    let got = world.on_hosts(world.sandbox.shared("got"));
    let id = create(&mut boss, on_cluster("Look", &format!("run env > {}", got.display())));
    world.until(&mut boss, &id, "completed");
    let got = fs::read_to_string(world.sandbox.shared("got")).expect("the variables");
    assert!(got.contains("SLURM_JOB_ID=") && !got.contains("sk-"), "{got}");
    for secret in [NEEDED, STRAY] {
        assert_eq!(holders(world.cluster.folder(), secret), Vec::<PathBuf>::new());
    }
    assert!(world.sandbox.attempt(&id, 1).join("engine.log").exists());
    boss.leave();
}
