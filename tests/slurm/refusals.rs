//! Requests that the cluster refuses, and jobs that would wait for ever.

use std::time::Duration;

use orchestrator_boss::launcher::slurm::{
    Engine, Submission, TimeLimit, lasting, observe, partition_limit, tracks_by_cgroup,
};
use orchestrator_boss::mission::hint::{Hint, with_hints};
use orchestrator_boss::mission::life::EngineState;

use crate::world::World;

#[tokio::test]
async fn refusal_has_slurms_text_and_the_setting() {
    let Some(world) = World::start(&[("NODES", "1")]) else { return };
    for (settings, said) in [
        ("partition = 'nope'", ["nvalid partition", "change `partition` in [launchers.cluster]"]),
        ("memory = '999G'", ["Memory specification can not be satisfied", "change `memory`"]),
        ("constraint = 'gpu'", ["Invalid feature specification", "change `constraint`"]),
        ("gres = 'gpu:1'", ["Invalid generic resource", "change `gres`"]),
        ("args = ['--no-such-option']", ["unrecognized option", "change `args`"]),
    ] {
        let attempt = world.attempt(settings, &[]);
        match world.submit(&attempt, &world.settings(settings), false).await {
            Submission::Refused(error) => {
                let shown = with_hints(&error);
                assert!(said.iter().all(|part| shown.contains(part)), "{settings}: {shown}");
            }
            other => panic!("{settings}: {other:?}"),
        }
        assert!(!attempt.has("ran"));
    }
    let nowhere = world.variables().into_iter().map(|(name, value)| match name.to_str() {
        Some("SLURM_CONF") => (name, "/no/such/slurm.conf".into()),
        _ => (name, value),
    });
    let engine = Engine::in_environment(&[], nowhere);
    let attempt = world.attempt("nowhere", &[]);
    match world.submit_through(&engine, &attempt, &world.settings(""), false).await {
        Submission::Refused(error) => assert!(with_hints(&error).contains("set SLURM_CONF"), "{error}"),
        other => panic!("{other:?}"),
    }
    assert!(observe(&engine, &world.names).await.is_err());
    assert_eq!(world.commands(), Vec::<String>::new());
}

#[tokio::test]
async fn job_that_can_never_start_names_the_reason() {
    let Some(world) = World::start(&[("NODES", "1")]) else { return };
    assert_eq!(partition_limit(&world.engine, Some("short")).await, Ok(TimeLimit::At(Duration::from_secs(600))));
    assert_eq!(partition_limit(&world.engine, Some("agents,short")).await, Ok(TimeLimit::Unlimited));
    assert_eq!(partition_limit(&world.engine, None).await, Ok(TimeLimit::Unlimited));
    assert_eq!(partition_limit(&world.engine, Some("nope")).await, Ok(TimeLimit::Unknown));
    let is_tracked = world.scontrol(&["show", "config"]).contains("proctrack/cgroup");
    assert_eq!(tracks_by_cgroup(&world.engine).await, Ok(is_tracked));
    for (settings, expected, said) in [
        ("cpus = 64", "PartitionConfig", "`cpus`"),
        ("partition = 'short'", "PartitionTimeLimit", "lower the mission's `timeout_minutes`"),
        ("args = ['--hold']", "JobHeldUser", "scontrol release"),
    ] {
        let attempt = world.attempt(settings, &[]);
        let job = world.accepted(&attempt, &world.settings(settings)).await;
        let waits = EngineState::Waits { reason: expected.to_owned() };
        let seen = world.until(&attempt, expected, |job| job.state == waits).await;
        assert_eq!((seen.job, seen.node), (job, None));
        let hints = lasting(expected, "cluster", job).expect("a lasting reason");
        let words = hints.iter().map(Hint::words).collect::<Vec<_>>().join(", or ");
        assert!(words.contains(said), "{words}");
    }
}
