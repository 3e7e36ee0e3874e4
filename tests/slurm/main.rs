//! Slurm as the program uses it: submit, observe, cancel. Each test has a real cluster of its own (`fixture.sh`), with real
//! daemons on this machine.
//!
//! Without Linux, root and the packages of `fixture.sh DIR install` each test prints SKIPPED; with `CI=true` it fails.

#[path = "../support/mod.rs"]
mod support;

mod refusals;
mod world;

use std::time::{Duration, Instant};

use orchestrator_boss::launcher::slurm::{
    Engine, LIMIT, Submission, cancel_by_name, job_with_name, observe, tracks_by_cgroup,
};
use orchestrator_boss::mission::life::{EndState, EngineState};
use rustix::process::{Pid, Signal, kill_process};

use support::cluster::Cluster;
use world::{World, is_over, runs, waits};

#[tokio::test]
async fn job_waits_runs_and_ends() {
    let Some(world) = World::start(&[("NODES", "1")]) else { return };
    let first = world.attempt("first", &["hold"]);
    let folder = "a \"b\" 'c' $HOME %j \\ \t é\r\n*x ";
    let second = world.attempt(folder, &[]);
    let whole_node = world.settings("cpus = 2\nprologue = ['export GREETING=\"hello  there\"']");
    world.accepted(&first, &whole_node).await;
    world.until(&first, "runs", runs).await;
    let job = world.accepted(&second, &whole_node).await;
    let seen = world.until(&second, "waits", waits).await;
    assert_eq!(seen.job, job);
    // The scheduler may not have looked at it yet.
    let reasons = ["None", "Resources", "Priority"].map(|reason| EngineState::Waits { reason: reason.to_owned() });
    assert!(reasons.contains(&seen.state), "{seen:?}");
    assert!(!second.has("ran"));

    first.release();
    let ended = world.until(&first, "ends", is_over).await;
    assert_eq!(ended.state, EngineState::Ended(EndState::Completed));
    let ended = world.until(&second, "ends", is_over).await;
    assert_eq!((ended.state, ended.job), (EngineState::Ended(EndState::Completed), job));
    assert!(ended.node.is_some_and(|node| second.read("host").trim() == node));
    let folder = second.folder.display();
    assert_eq!(second.read("arguments"), format!("<supervise><--job><{folder}>"));
    assert_eq!(second.read("pwd"), format!("{folder}\n"));
    assert!(second.read("env").contains("GREETING=hello  there\n"));
    assert_eq!(second.read("engine.log"), "the log\n");

    let percent = world.attempt("100%j %%", &[]);
    world.accepted(&percent, &whole_node).await;
    world.until(&percent, "ends", is_over).await;
    assert_eq!(percent.read("engine.log"), "the log\n");
}

#[tokio::test]
async fn jobs_are_cancelled_by_name() {
    let Some(world) = World::start(&[("NODES", "1"), ("PROCTRACK", "linuxproc")]) else { return };
    assert_eq!(tracks_by_cgroup(&world.engine).await, Ok(false));
    let whole_node = world.settings("cpus = 2");
    let attempts = ["running", "waiting", "other", "last"].map(|name| world.attempt(name, &["hold"]));
    for attempt in &attempts {
        world.accepted(attempt, &whole_node).await;
    }
    let [running, waiting, other, last] = &attempts;
    // Slurm can need a minute and more to end a job that it is about to start.
    world.until(running, "runs", |job| runs(job) && running.has("ran")).await;
    cancel_by_name(&world.engine, &world.name(waiting)).await.expect("cancelled");
    let cancelled = world.until(waiting, "is cancelled", is_over).await;
    assert_eq!(cancelled.state, EngineState::Ended(EndState::Cancelled));
    assert!(world.seen(other).await.is_some_and(|job| waits(&job)));

    cancel_by_name(&world.engine, &world.name(running)).await.expect("cancelled");
    world.until(running, "is cancelled", is_over).await;
    world.until(other, "runs", |job| runs(job) && other.has("ran")).await;
    for attempt in [other, last] {
        cancel_by_name(&world.engine, &world.name(attempt)).await.expect("cancelled");
        world.until(attempt, "is cancelled", is_over).await;
    }
    for attempt in &attempts {
        cancel_by_name(&world.engine, &world.name(attempt)).await.expect("nothing to cancel");
    }
    assert!(!waiting.has("ran") && running.has("ran"));
}

#[tokio::test]
async fn lost_answer_makes_no_second_job() {
    let Some(world) = World::start(&[("NODES", "1")]) else { return };
    let attempt = world.attempt("a", &["hold"]);
    let none = job_with_name(&world.engine, &world.names, &attempt.worker, 1).await;
    assert_eq!(none, Ok(None));
    // A controller that accepts the connection and does not answer in time.
    let controller = Pid::from_raw(world.cluster.pid("slurmctld")).expect("a pid");
    kill_process(controller, Signal::STOP).expect("it runs");
    let began = Instant::now();
    let stopped = world.submit(&attempt, &world.settings(""), false).await;
    let took = began.elapsed();
    kill_process(controller, Signal::CONT).expect("it is stopped");
    assert!(matches!(&stopped, Submission::Later(why) if why.contains("sbatch: no answer in 4 s")), "{stopped:?}");
    assert!(took < LIMIT + Duration::from_secs(20), "{took:?}");
    let seen = world.until(&attempt, "exists", |_| true).await;
    for _ in 0..2 {
        let again = world.submit(&attempt, &world.settings(""), true).await;
        assert!(matches!(again, Submission::Found(job) if job == seen.job), "{again:?}");
    }
    let jobs = observe(&world.engine, &world.names).await.expect("an answer");
    assert_eq!(jobs.len(), 1);
    attempt.release();
    world.until(&attempt, "ends", is_over).await;
    let again = world.submit(&attempt, &world.settings(""), true).await;
    assert!(matches!(again, Submission::Found(job) if job == seen.job), "{again:?}");
}

#[tokio::test]
async fn dead_controller_gives_no_answer() {
    let Some(world) = World::start(&[("NODES", "1")]) else { return };
    let [before, during] = ["before", "during"].map(|name| world.attempt(name, &["hold"]));
    // Without it, a job gets all memory of its node.
    let small = world.settings("memory = '100'");
    world.accepted(&before, &small).await;
    world.until(&before, "runs", |job| runs(job) && before.has("ran")).await;
    world.cluster.run("ctl-kill", &[]);
    let began = Instant::now();
    let observed = observe(&world.engine, &world.names).await.expect_err("no controller");
    assert!(observed.starts_with("squeue: "), "{observed}");
    assert!(cancel_by_name(&world.engine, &world.name(&before)).await.is_err());
    for may_exist in [false, true] {
        let submitted = world.submit(&during, &small, may_exist).await;
        assert!(matches!(submitted, Submission::Later(_)), "{submitted:?}");
    }
    let took = began.elapsed();
    assert!(took < 4 * LIMIT + Duration::from_secs(20), "{took:?}");
    assert_eq!(world.commands(), Vec::<String>::new());

    world.cluster.run("ctl-start", &[]);
    // It may be queued anew: the controller has not saved that it runs.
    world.until(&before, "is known", |_| true).await;
    let submitted = world.submit(&during, &small, true).await;
    assert!(matches!(submitted, Submission::Accepted(_)), "{submitted:?}");
    world.until(&during, "is known", |_| true).await;
}

#[tokio::test]
async fn boss_in_a_job_changes_and_leaks_nothing() {
    let Some(cluster) = Cluster::start(&[("NODES", "1")]) else { return };
    let of_a_job = [
        ("SBATCH_PARTITION", "short"),
        ("SBATCH_TIMELIMIT", "1"),
        ("SBATCH_EXPORT", "NONE"),
        ("SBATCH_JOB_NAME", "other"),
        ("SLURM_JOB_ID", "9999"),
        ("SLURM_JOB_NAME", "other"),
        ("SLURM_EXPORT_ENV", "NONE"),
        ("SLURM_TIME_FORMAT", "relative"),
        ("SQUEUE_STATES", "SUSPENDED"),
        ("SQUEUE_PARTITION", "short"),
        ("SCANCEL_STATE", "SUSPENDED"),
        ("ANTHROPIC_API_KEY", "planted-key"),
        ("ORCHESTRATOR_WORKER", "w-9"),
    ];
    let world = World::in_environment(cluster, &of_a_job);
    let attempt = world.attempt("a", &["hold"]);
    let job = world.accepted(&attempt, &world.settings("")).await;
    world.until(&attempt, "runs", runs).await;
    let shown = world.scontrol(&["show", "job", &job.to_string()]);
    for expected in [" JobName=ob-", "Partition=agents", "TimeLimit=00:20:00", "Requeue=0"] {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }
    let environment = attempt.read("env");
    assert!(!environment.contains("SBATCH_TIMELIMIT") && !environment.contains("9999"), "{environment}");
    cancel_by_name(&world.engine, &world.name(&attempt)).await.expect("cancelled");
    world.until(&attempt, "is cancelled", is_over).await;
    // The whole folder: the controller's state, logs and spool, and what the job wrote.
    assert_eq!(world.files_with(b"planted-key"), Vec::<std::path::PathBuf>::new());
    assert!(!world.files_with(b"the log").is_empty(), "the search finds what is there");
}

#[tokio::test]
async fn commands_run_behind_a_prefix() {
    let Some(cluster) = Cluster::start(&[("NODES", "1")]) else { return };
    let prefix = cluster.on_login();
    let world = World::in_environment(cluster, &[]);
    let far = Engine::in_environment(&prefix, world.variables());
    let attempt = world.attempt("a b", &[]);
    let submitted = world.submit_through(&far, &attempt, &world.settings(""), false).await;
    let Submission::Accepted(job) = submitted else { panic!("{submitted:?}") };
    world.until(&attempt, "ends", is_over).await;
    assert!(attempt.has("ran"));
    let found = world.submit_through(&far, &attempt, &world.settings(""), true).await;
    assert!(matches!(found, Submission::Found(found) if found == job), "{found:?}");
    assert_eq!(observe(&far, &world.names).await, observe(&world.engine, &world.names).await);
}
