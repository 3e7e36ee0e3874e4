//! Table tests and property tests of admission.

use proptest::prelude::*;

use std::path::Path;

use super::super::create::{Defaults, Draft, DraftPlace, Registered, register};
use super::super::entry::{Entry, FailureSummary, Line};
use super::super::lifecycle::Ending;
use super::super::outcome::Usage;
use super::super::testing::{apply, brief, create, draft, needs, takes};
use super::*;

const FLOORS: Floors = Floors { memory_mib: 500, disk_mib: 100, processes: 50, files: 20 };

fn limits() -> Limits {
    let per_backend = HashMap::from([("codex".into(), 3)]);
    Limits { total: 4, per_backend, per_launcher: HashMap::new(), floors: FLOORS, budget: Budget::default() }
}

fn now() -> Conditions {
    conditions(Headroom::default())
}

fn conditions(free: Headroom) -> Conditions {
    Conditions { now: Timestamp::UNIX_EPOCH, free, spending: HashMap::new() }
}

fn create_for(registry: &mut Registry, boss: &str, server: &str, drafts: &[Draft]) -> Vec<WorkerId> {
    let defaults = Defaults { worktrees: Path::new("/worktrees"), branch_prefix: "o/", integration_branch: None };
    let made = register(registry, &boss.into(), drafts, defaults).into_iter().map(Result::unwrap);
    let workers: Vec<_> = made
        .map(|it| match it {
            Registered::New(new) => *new,
            Registered::Existing(id) => panic!("{id} was there"),
        })
        .collect();
    let ids = workers.iter().map(|new| new.id.clone()).collect();
    apply(registry, server, Entry::Created { workers });
    ids
}

fn apply_at(registry: &mut Registry, now: Timestamp, server: &str, entry: Entry) {
    registry.apply(&Line { seq: registry.seq + 1, at: now, server: server.into(), entry });
}

/// The end of a worker in the property below: well, or refused, maybe with a stated reset.
#[derive(Debug, Clone, Copy)]
enum How {
    Well,
    Refused(FailureKind, Option<i64>),
}

fn any_end() -> impl Strategy<Value = (usize, How, i64)> {
    let how = prop_oneof![
        4 => Just(How::Well),
        1 => Just(How::Refused(FailureKind::RateLimit, None)),
        1 => (1..400i64).prop_map(|after| How::Refused(FailureKind::UsageLimit, Some(after))),
        1 => Just(How::Refused(FailureKind::Auth, None)),
    ];
    (0..24usize, how, 0..120i64)
}

fn end(registry: &mut Registry, id: &WorkerId, how: How, now: Timestamp) {
    let worker = registry.get(id).unwrap();
    let mut brief = brief(1, Ending::Completed);
    brief.backend = worker.next.backend.clone();
    (brief.started_at, brief.settled_at) = (worker.started_at, now);
    if let How::Refused(kind, resets) = how {
        brief.status = Ending::Failed;
        brief.failure = Some(FailureSummary { kind, message: "no".to_owned() });
        brief.resets_at = resets.map(|after| now + jiff::SignedDuration::from_secs(after));
    }
    apply_at(registry, now, "s", Entry::Settled { worker: id.clone(), brief: Box::new(brief) });
}

/// Starts what may start on one server, and checks for each that it was its turn and within all limits.
fn start(registry: &mut Registry, server: &str, now: Timestamp) -> Result<usize, TestCaseError> {
    let at = |now| Conditions { now, ..self::now() };
    let (admitted, _) = admit(registry, &limits(), &server.into(), at(now), |_| true, |_| false);
    for id in &admitted {
        let limits = limits();
        let load = Load::of(registry, &limits, at(now));
        let worker = registry.get(id).unwrap();
        prop_assert_eq!(worker.status, WorkerStatus::Queued);
        prop_assert_eq!(load.wait_reason(worker), None);
        let running = |boss: &BossId| load.per_boss.get(boss).copied().unwrap_or(0);
        for other in queue(registry, &server.into()) {
            let could = load.wait_reason(other).is_none() && graph::readiness(registry, other) == Readiness::Ready;
            let fewer = running(&other.boss) < running(&worker.boss);
            prop_assert!(!(could && fewer), "{id} starts while {} of a boss with fewer waits", other.id);
        }
        apply_at(registry, now, server, Entry::Starting { worker: id.clone(), attempt: 1 });
        apply_at(
            registry,
            now,
            server,
            Entry::Running { worker: id.clone(), attempt: 1, base_commit: None, base_branch: None, repository: None },
        );
    }
    let live: Vec<_> = registry.workers().filter(|worker| worker.status.is_live()).collect();
    let codex = live.iter().filter(|worker| worker.next.backend.as_str() == "codex").count();
    prop_assert!(live.len() <= 4 && codex <= 3, "{} at once, {codex} of codex", live.len());
    for (backend, backoff) in backoff::backoffs(registry) {
        let tries = live.iter().filter(|it| it.next.backend == backend && backoff.is_probed_by(it)).count();
        prop_assert!(tries <= 1, "{tries} try {backend}");
    }
    Ok(admitted.len())
}

proptest! {
    /// However workers of three bosses on two servers start, end and are refused: the limits hold, one worker tries a
    /// backend that accepts no work, bosses take turns, no worker runs twice at once, and in the end all have run.
    #[test]
    fn limits_hold_and_every_worker_starts(ends in prop::collection::vec(any_end(), 0..80)) {
        let mut registry = Registry::default();
        let mut ids = Vec::new();
        for (boss, server, count) in [("many", "s", 16), ("few", "s", 4), ("elsewhere", "t", 4)] {
            let drafts: Vec<_> = (0..count).map(|n| {
                let name = format!("{boss}-{n}");
                let before = |back: usize| format!("{boss}-{}", n - back);
                let task = match n % 6 {
                    2 | 5 => needs(&name, &[&before(1)]),
                    4 => takes(&name, &[&before(1), &before(2)]),
                    _ => draft(&name),
                };
                Draft { backend: if n % 2 == 0 { "codex".into() } else { "gemini".into() }, ..task }
            }).collect();
            ids.extend(create_for(&mut registry, boss, server, &drafts));
        }
        let mut now = Timestamp::UNIX_EPOCH;
        let at_last = (0..24).cycle().take(24 * 24).map(|at| (at, How::Well, 60));
        for (at, how, seconds) in ends.into_iter().chain(at_last) {
            now += jiff::SignedDuration::from_secs(seconds + 1);
            start(&mut registry, "s", now)?;
            start(&mut registry, "t", now)?;
            if registry.get(&ids[at]).unwrap().status.is_live() {
                now += jiff::SignedDuration::from_secs(1);
                end(&mut registry, &ids[at], how, now);
            }
        }
        for worker in registry.workers().filter(|worker| !worker.status.is_settled()) {
            let blocked = matches!(graph::readiness(&registry, worker), Readiness::Blocked(_));
            prop_assert!(blocked, "{} never ran", worker.id);
        }
    }
}

#[test]
fn bosses_take_turns_with_any_queues() {
    let mut registry = Registry::default();
    let many: Vec<_> = (0..1_000).map(|n| draft(&format!("many-{n}"))).collect();
    let many = create_for(&mut registry, "many", "s", &many);
    let me = ServerId::from("s");
    let starts = |registry: &Registry, server: &ServerId, leaves: bool| {
        admit(registry, &limits(), server, now(), |_| true, |_| leaves).0
    };
    for id in starts(&registry, &me, true) {
        apply(&mut registry, "s", Entry::Starting { worker: id, attempt: 1 });
    }
    // Of the same server, or of another one that is not as quick to see that a place is free.
    for (boss, server) in [("one", "s"), ("two", "t")] {
        let id = create_for(&mut registry, boss, server, &[draft(boss)]).remove(0);
        let runs = registry.workers().find(|worker| worker.status.is_live() && worker.boss.as_str() == "many");
        let runs = runs.unwrap().id.clone();
        apply(&mut registry, "s", Entry::Settled { worker: runs, brief: Box::new(brief(1, Ending::Completed)) });
        if server == "t" {
            assert_eq!(starts(&registry, &me, true), [], "the place is left to it");
            assert_eq!(starts(&registry, &me, false), [many[3].clone()], "but not for ever");
        }
        assert_eq!(starts(&registry, &server.into(), true), std::slice::from_ref(&id));
        apply(&mut registry, server, Entry::Starting { worker: id, attempt: 1 });
    }
}

#[test]
fn hanging_file_system_delays_only_its_workers() {
    let mut registry = Registry::default();
    let place =
        |folder: &str| DraftPlace::Worktree { branch: None, base: None, path: Some(folder.into()), directory: None };
    let drafts = [Draft { place: place("/slow/a"), ..draft("a") }, Draft { place: place("/quick/b"), ..draft("b") }];
    let ids: Vec<_> = create(&mut registry, &drafts).into_iter().map(Result::unwrap).collect();
    let one = Limits { total: 1, ..limits() };
    let starts = |free: Headroom| admit(&registry, &one, &"s".into(), conditions(free), |_| true, |_| true).0;
    let unseen = Headroom { unseen: BTreeSet::from(["/slow".into()]), ..Headroom::default() };
    let asked = Headroom { just_asked: unseen.unseen.clone(), ..unseen.clone() };
    assert_eq!(starts(asked), []);
    assert_eq!(starts(unseen), std::slice::from_ref(&ids[1]));
    assert_eq!(starts(Headroom::default()), std::slice::from_ref(&ids[0]));
}

#[test]
fn used_up_budget_starts_nothing_with_a_reason() {
    let mut registry = Registry::default();
    let rich = create_for(&mut registry, "rich", "s", &[draft("a"), draft("b")]);
    let other = create_for(&mut registry, "other", "s", &[draft("c")]);
    apply(&mut registry, "s", Entry::Starting { worker: rich[0].clone(), attempt: 1 });
    let usage = Usage { input_tokens: 60, output_tokens: 1, ..Usage::default() };
    let brief = Box::new(super::super::entry::AttemptSummary { usage, ..brief(1, Ending::Completed) });
    apply(&mut registry, "s", Entry::Settled { worker: rich[0].clone(), brief });
    let limits = Limits { budget: Budget { max_tokens: Some(100), ..Budget::default() }, ..limits() };
    let spending = |tokens| HashMap::from([("rich".into(), Spent { tokens, ..Spent::default() })]);
    let conditions = |tokens| Conditions { spending: spending(tokens), ..now() };
    let starts = |tokens| admit(&registry, &limits, &"s".into(), conditions(tokens), |_| true, |_| true).0;
    assert_eq!(starts(38), [other[0].clone(), rich[1].clone()], "rich had its turn before");
    assert_eq!(starts(39), [other[0].clone()]);
    let load = Load::of(&registry, &limits, conditions(39));
    let why = wait_reason(&registry, &load, &"s".into(), registry.get(&rich[1]).unwrap(), |_| None).unwrap();
    assert!(why.is_lasting() && why.to_string().contains("max_tokens 100 of [boss]"), "{why}");
}

#[test]
fn server_starts_only_what_it_can() {
    let mut registry = Registry::default();
    create(&mut registry, &[draft("a"), draft("b")]);
    assert!(admit(&registry, &limits(), &"other".into(), now(), |_| true, |_| true).0.is_empty());
    let able = |worker: &Worker| worker.task().as_str() == "b";
    let (admitted, _) = admit(&registry, &limits(), &"s".into(), now(), able, |_| true);
    assert_eq!(admitted.iter().map(WorkerId::as_str).collect::<Vec<_>>(), ["w-2-b"]);
}

/// Two queued workers; the names of those that start, why the second does not, and what is left.
fn with(limits: &Limits, free: Headroom) -> (Vec<String>, Option<String>, Headroom) {
    let mut registry = Registry::default();
    let ids: Vec<_> = create(&mut registry, &[draft("a"), draft("b")]).into_iter().map(Result::unwrap).collect();
    let me = ServerId::from("s");
    let (admitted, left) = admit(&registry, limits, &me, conditions(free), |_| true, |_| true);
    for id in &admitted {
        apply(&mut registry, "s", Entry::Starting { worker: id.clone(), attempt: 1 });
    }
    let load = Load::of(&registry, limits, conditions(left.clone()));
    let why =
        wait_reason(&registry, &load, &me, registry.get(&ids[1]).unwrap(), |_| None).map(|reason| reason.to_string());
    (admitted.iter().map(ToString::to_string).collect(), why, left)
}

#[test]
fn reason_below_a_floor_names_the_setting() {
    let disk =
        |folder: &str, free| Headroom { disk_mib: BTreeMap::from([(folder.into(), free)]), ..Headroom::default() };
    let cases = [
        (Headroom { memory_mib: Some(499), ..Headroom::default() }, "min_free_memory_mib"),
        (Headroom { processes: Some(49), ..Headroom::default() }, "min_free_processes"),
        (Headroom { files: Some(19), ..Headroom::default() }, "ulimit -n"),
        (Headroom { state_disk_mib: Some(99), ..Headroom::default() }, "min_free_disk_mib"),
        (disk("/worktrees", 99), "at /worktrees"),
    ];
    for (free, setting) in cases {
        let (admitted, why, _) = with(&limits(), free);
        assert!(admitted.is_empty(), "{admitted:?}");
        assert!(why.as_ref().is_some_and(|why| why.contains(setting)), "{why:?}");
    }
    let none = Limits { floors: Floors::default(), ..limits() };
    let nothing =
        Headroom { memory_mib: Some(0), processes: Some(0), state_disk_mib: Some(0), ..disk("/worktrees", 0) };
    assert_eq!(with(&none, nothing).0.len(), 2, "0 switches a floor off");
    assert_eq!(with(&limits(), disk("/elsewhere", 0)).0.len(), 2);
}

#[test]
fn just_started_workers_reserve_resources() {
    let (admitted, why, left) = with(&limits(), Headroom { memory_mib: Some(700), ..Headroom::default() });
    assert_eq!(admitted, ["w-1-a"]);
    assert_eq!(left.memory_mib, Some(444));
    assert_eq!(why.unwrap(), "memory: 444 MiB are free, less than 500 (min_free_memory_mib)");
}

#[test]
fn each_wait_reason_has_a_text() {
    let one = Limits { total: 1, ..limits() };
    assert_eq!(with(&one, Headroom::default()).1.unwrap(), "a free slot: 1 of 1 workers run (max_workers)");
    let one = Limits { per_backend: HashMap::from([("codex".into(), 1)]), ..limits() };
    let why = with(&one, Headroom::default()).1.unwrap();
    assert_eq!(why, "a free slot: 1 of 1 codex workers run (its max_workers)");

    let mut registry = Registry::default();
    create(&mut registry, &[draft("a"), needs("b", &["a"])]);
    let (limits, me, other) = (limits(), ServerId::from("s"), ServerId::from("other"));
    let load = Load::of(&registry, &limits, now());
    let lacks = |_: &Worker| Some("a server with KEY".to_owned());
    let why = |server: &ServerId, task: &str| {
        let worker = registry.task(&task.into()).unwrap();
        wait_reason(&registry, &load, server, worker, lacks).map(|reason| reason.to_string()).unwrap()
    };
    assert_eq!(why(&me, "b"), "a");
    assert_eq!(why(&me, "a"), "a server with KEY");
    // The server that led it is gone, and this one cannot.
    assert_eq!(why(&other, "a"), "a server with KEY");
}
