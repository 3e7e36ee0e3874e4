use proptest::prelude::*;

use super::super::archive::{Retention, movable};
use super::super::create::{Draft, Rejection};
use super::super::delivery::{Selection, due};
use super::super::entry::Entry;
use super::super::graph::{self, Readiness};
use super::super::id::ServerId;
use super::super::lifecycle::Event;
use super::super::outcome::Verification;
use super::super::testing::{apply, brief, create, create_race, draft, needs, requeued};
use super::*;

fn racer(backend: &str) -> Draft {
    Draft { backend: backend.into(), task_id: Some("t".into()), ..draft(backend) }
}

/// A registry with a race of three, and a dependant of it.
fn race() -> (Registry, Vec<WorkerId>, WorkerId) {
    race_of(&["codex", "gemini", "claudecode"].map(racer))
}

fn race_of(drafts: &[Draft]) -> (Registry, Vec<WorkerId>, WorkerId) {
    let mut registry = Registry::default();
    let ids = create_race(&mut registry, drafts).into_iter().map(Result::unwrap).collect();
    let after = create(&mut registry, &[needs("after", &["t"])]).remove(0).unwrap();
    (registry, ids, after)
}

fn start(registry: &mut Registry, id: &WorkerId) {
    let attempt = registry.get(id).unwrap().attempt + 1;
    apply(registry, "s", Entry::Starting { worker: id.clone(), attempt });
}

fn end(registry: &mut Registry, id: &WorkerId, status: Ending, commits: u32) {
    let worker = registry.get(id).unwrap();
    let attempt = if worker.status == WorkerStatus::Queued { worker.attempt + 1 } else { worker.attempt };
    let mut brief = brief(attempt, status);
    brief.changes.commits = commits;
    brief.changes.head = Some(format!("head of {id}"));
    apply(registry, "s", Entry::Settled { worker: id.clone(), brief: Box::new(brief) });
}

fn run(registry: &mut Registry, id: &WorkerId, status: Ending, commits: u32) {
    start(registry, id);
    end(registry, id, status, commits);
}

fn requeue(registry: &mut Registry, id: &WorkerId) {
    apply(registry, "s", requeued(id));
}

fn winner(registry: &Registry, id: &WorkerId) -> Option<WorkerId> {
    registry.get(id).unwrap().race.as_ref().unwrap().winner.clone()
}

fn readiness(registry: &Registry, id: &WorkerId) -> Readiness {
    graph::readiness(registry, registry.get(id).unwrap())
}

#[test]
fn first_with_changes_wins_and_cancels_the_others() {
    let (mut registry, ids, after) = race();
    ids.iter().take(2).for_each(|id| start(&mut registry, id));
    end(&mut registry, &ids[0], Ending::Completed, 0);
    assert_eq!(winner(&registry, &ids[0]), None, "it changed nothing");
    assert_eq!(readiness(&registry, &after), Readiness::Waiting(vec!["t".into()]));

    end(&mut registry, &ids[1], Ending::Completed, 1);
    for id in &ids {
        assert_eq!(winner(&registry, id).as_ref(), Some(&ids[1]), "{id}");
    }
    assert!(registry.get(&ids[2]).unwrap().cancel.as_ref().is_some_and(|why| why.contains(ids[1].as_str())));
    assert_eq!(registry.get(&ids[0]).unwrap().cancel, None, "it had settled");
    assert_eq!(readiness(&registry, &after), Readiness::Ready);
    assert_eq!(graph::bases(&registry, registry.get(&after).unwrap(), None), [format!("head of {}", ids[1])]);
    assert_eq!(registry.named("t").one().unwrap().id, ids[1]);
}

#[test]
fn read_only_racer_wins_without_changes() {
    let verified = Draft { verify_command: Some("true".to_owned()), ..racer("a") };
    let (mut registry, ids, _) = race_of(&[verified.clone(), verified]);
    run(&mut registry, &ids[0], Ending::Failed, 3);
    assert_eq!(winner(&registry, &ids[0]), None);
    start(&mut registry, &ids[1]);
    let mut passed = brief(1, Ending::Completed);
    passed.verification = Verification::Passed { commit: None, seconds: 1.0 };
    apply(&mut registry, "s", Entry::Settled { worker: ids[1].clone(), brief: Box::new(passed) });
    assert_eq!(winner(&registry, &ids[0]).as_ref(), Some(&ids[1]));

    let read_only = Draft { permissions: Permissions::ReadOnly, ..racer("a") };
    let (mut registry, ids, _) = race_of(&[read_only.clone(), read_only]);
    run(&mut registry, &ids[1], Ending::Completed, 0);
    assert_eq!(winner(&registry, &ids[0]).as_ref(), Some(&ids[1]));
}

#[test]
fn race_has_one_winner() {
    let (mut registry, ids, after) = race();
    ids.iter().for_each(|id| start(&mut registry, id));
    end(&mut registry, &ids[2], Ending::Completed, 1);
    end(&mut registry, &ids[0], Ending::Completed, 5);
    assert_eq!(registry.get(&ids[0]).unwrap().status, WorkerStatus::Settled(Ending::Completed));
    assert!(has_lost(registry.get(&ids[0]).unwrap()));
    end(&mut registry, &ids[1], Ending::Cancelled, 0);

    requeue(&mut registry, &ids[1]);
    let again = registry.get(&ids[1]).unwrap();
    assert_eq!((has_lost(again), &again.cancel, lost_to(again)), (false, &None, Some(&ids[2])));
    assert!(!ends_quietly(&registry, again), "its boss wants to know");
    run(&mut registry, &ids[1], Ending::Completed, 9);
    for id in &ids {
        assert_eq!(winner(&registry, id).as_ref(), Some(&ids[2]));
    }
    assert_eq!(graph::bases(&registry, registry.get(&after).unwrap(), None), [format!("head of {}", ids[2])]);
}

#[test]
fn lost_race_blocks_until_a_retry_wins() {
    let (mut registry, ids, after) = race();
    run(&mut registry, &ids[0], Ending::Failed, 0);
    run(&mut registry, &ids[1], Ending::Completed, 0);
    assert_eq!(graph::block(&registry, registry.get(&ids[0]).unwrap()), None, "one still runs");
    run(&mut registry, &ids[2], Ending::Cancelled, 0);
    for id in &ids {
        let why = graph::block(&registry, registry.get(id).unwrap()).expect("it is blocked");
        for said in [ids[0].as_str(), "failed", "changed nothing", "cancelled"] {
            assert!(why.text.contains(said), "{said}: {why:?}");
        }
    }
    assert!(matches!(readiness(&registry, &after), Readiness::Blocked(why) if why.text.contains("no worker won")));

    requeue(&mut registry, &ids[0]);
    assert_eq!(readiness(&registry, &after), Readiness::Waiting(vec!["t".into()]));
    run(&mut registry, &ids[0], Ending::Completed, 1);
    assert_eq!(winner(&registry, &ids[2]).as_ref(), Some(&ids[0]));
    assert_eq!(readiness(&registry, &after), Readiness::Ready);
}

#[test]
fn race_cancelled_by_its_boss_is_no_block() {
    let (mut registry, ids, _) = race();
    ids.iter().for_each(|id| run(&mut registry, id, Ending::Cancelled, 0));
    assert_eq!(graph::block(&registry, registry.get(&ids[0]).unwrap()), None);
}

#[test]
fn pending_fallback_keeps_the_race_open() {
    let twice = |name: &str| Draft { fallback_backends: vec!["other".into()], max_attempts: 2, ..racer(name) };
    let (mut registry, ids, _) = race_of(&[twice("a"), twice("b")]);
    ids.iter().for_each(|id| start(&mut registry, id));
    end(&mut registry, &ids[0], Ending::Failed, 0);
    assert_eq!(standing(&registry, registry.get(&ids[0]).unwrap()), Some(Standing::On));
    assert!(retry::automatic(registry.get(&ids[0]).unwrap()).is_some());
    end(&mut registry, &ids[1], Ending::Completed, 1);
    assert_eq!(retry::automatic(registry.get(&ids[0]).unwrap()), None);
}

#[test]
fn losers_are_reported_with_the_winner() {
    let (mut registry, ids, after) = race();
    let server = ServerId::from("s");
    let boss = "b".into();
    let reported = |registry: &Registry, selection: &Selection| {
        let due = due(registry, &boss, selection, &server);
        (due.is_pressing(), due.settled.iter().map(|it| it.worker.id.clone()).collect::<Vec<_>>())
    };
    run(&mut registry, &ids[0], Ending::Failed, 0);
    assert_eq!(reported(&registry, &Selection::Mine), (false, vec![ids[0].clone()]));
    assert!(reported(&registry, &Selection::Named(vec![ids[0].clone()])).0, "it alone was named");
    ids[1..].iter().for_each(|id| start(&mut registry, id));
    end(&mut registry, &ids[2], Ending::Completed, 1);
    assert_eq!(reported(&registry, &Selection::Mine), (true, vec![ids[2].clone(), ids[0].clone()]), "the winner first");

    let settled = vec![(ids[2].clone(), 1), (ids[0].clone(), 1)];
    apply(&mut registry, "s", Entry::Notified { boss: boss.clone(), settled, blocked: Vec::new() });
    end(&mut registry, &ids[1], Ending::Cancelled, 0);
    assert_eq!(reported(&registry, &Selection::Mine), (false, vec![ids[1].clone()]), "the dependant is still to come");
    run(&mut registry, &after, Ending::Completed, 1);
    assert_eq!(reported(&registry, &Selection::Mine), (true, vec![after, ids[1].clone()]));
}

#[test]
fn race_is_registered_whole_or_not() {
    let refused = |drafts: &[Draft]| {
        let mut registry = Registry::default();
        create(&mut registry, &[draft("known")]);
        let made = create_race(&mut registry, drafts);
        assert!(made.iter().all(Result::is_err) && registry.workers().count() == 1, "{made:?}");
        made.into_iter().map(Result::unwrap_err).collect::<Vec<_>>()
    };
    assert_eq!(refused(&[racer("a")]), [Rejection::RaceOfOne]);
    let other = Draft { prompt: "something else".to_owned(), ..racer("b") };
    assert_eq!(refused(&[racer("a"), other])[0], Rejection::RaceDiffers { field: "prompt", index: 1 });
    let named = Draft { task_id: Some("u".into()), ..racer("b") };
    assert_eq!(refused(&[racer("a"), named])[1], Rejection::RaceDiffers { field: "task_id", index: 1 });
    let taken = |name| Draft { task_id: Some("known".into()), ..racer(name) };
    assert!(matches!(refused(&[taken("a"), taken("b")])[0], Rejection::TaskOpen { .. }));
    let place = super::super::create::DraftPlace::Directory("/d".into());
    let there = |name| Draft { place: place.clone(), ..racer(name) };
    let both = refused(&[there("a"), there("b")]);
    assert_eq!(both[0], Rejection::RaceRefused { index: 1 });
    assert!(matches!(both[1], Rejection::PlaceTaken { .. }));
    let itself = |name| Draft { depends_on: vec!["t".to_owned()], ..racer(name) };
    assert!(matches!(refused(&[itself("a"), itself("b")])[0], Rejection::Cycle { .. }));
}

#[test]
fn task_is_taken_while_a_racer_runs() {
    let (mut registry, ids, _) = race();
    ids.iter().for_each(|id| start(&mut registry, id));
    end(&mut registry, &ids[2], Ending::Completed, 1);
    end(&mut registry, &ids[1], Ending::Cancelled, 0);
    let open = create(&mut registry, &[draft("t")]).remove(0);
    assert!(matches!(open, Err(Rejection::TaskOpen { worker, .. }) if worker == ids[0]));
    end(&mut registry, &ids[0], Ending::Cancelled, 0);
    assert!(create(&mut registry, &[draft("t")]).remove(0).is_ok());
}

#[test]
fn repeated_request_is_the_same_race() {
    let asked = |name: &str| Draft { request_id: Some(name.to_owned()), ..racer(name) };
    let mut registry = Registry::default();
    let ids = create_race(&mut registry, &[asked("a"), asked("b")]);
    assert_eq!(create_race(&mut registry, &[asked("a"), asked("b")]), ids);
    let more = create_race(&mut registry, &[asked("a"), asked("b"), asked("c")]);
    assert!(more.iter().all(Result::is_err), "{more:?}");
    let twice = Draft { task_id: Some("u".into()), ..asked("d") };
    let same = create_race(&mut registry, &[twice.clone(), twice]);
    assert_eq!(same[0], Err(Rejection::RaceRequest { request: "d".to_owned() }));
    assert_eq!(registry.workers().count(), 2);
}

#[test]
fn race_without_task_id_gets_one() {
    let unnamed = |name| Draft { task_id: None, ..racer(name) };
    let mut registry = Registry::default();
    create(&mut registry, &[draft("first")]);
    let ids: Vec<_> = create_race(&mut registry, &["a", "b"].map(unnamed)).into_iter().map(Result::unwrap).collect();
    let race = registry.get(&ids[1]).unwrap().race.clone().unwrap();
    assert_eq!((race.id.as_str(), &race.racers), ("race-2", &ids));
    assert!(registry.named("race-2").one().is_some());
    assert!(create(&mut registry, &[needs("after", &["race-2"])])[0].is_ok());
}

#[test]
fn race_is_archived_whole() {
    let (mut registry, ids, after) = race();
    run(&mut registry, &ids[0], Ending::Failed, 0);
    run(&mut registry, &ids[1], Ending::Completed, 1);
    end(&mut registry, &ids[2], Ending::Cancelled, 0);
    run(&mut registry, &after, Ending::Completed, 1);
    let report = |registry: &mut Registry, ids: &[WorkerId]| {
        let settled: Vec<_> = ids.iter().map(|id| (id.clone(), 1)).collect();
        apply(registry, "s", Entry::Notified { boss: "b".into(), settled: settled.clone(), blocked: Vec::new() });
        apply(registry, "s", Entry::Acknowledged { deliveries: Vec::new(), settled, blocked: Vec::new() });
    };
    report(&mut registry, &ids[..2]);
    let kept = Retention { newest: 2, slack: 0 };
    let now = jiff::Timestamp::UNIX_EPOCH;
    assert_eq!(movable(&registry, kept, now), [], "the end of one was not reported");
    report(&mut registry, &ids[2..]);
    assert_eq!(movable(&registry, kept, now), ids);
}

#[test]
fn rebuilt_race_keeps_winner_or_takes_earliest() {
    let (mut registry, ids, _) = race();
    let before = registry.clone();
    for (id, at) in [(&ids[2], 30), (&ids[0], 10), (&ids[1], 20)] {
        let mut worker = Worker::clone(before.get(id).unwrap());
        worker.status = WorkerStatus::Settled(Ending::Completed);
        let mut brief = brief(1, Ending::Completed);
        brief.changes.commits = 1;
        brief.settled_at = jiff::Timestamp::from_second(at).unwrap();
        worker.settled.push(brief);
        registry.restore(Arc::new(worker));
    }
    for (recorded, wins) in [(&[][..], &ids[0]), (&ids[2..], &ids[2])] {
        let mut registry = registry.clone();
        registry.decide_races(recorded);
        registry.decide_races(&[]);
        for id in &ids {
            assert_eq!(winner(&registry, id).as_ref(), Some(wins));
        }
    }
}

#[test]
fn usage_sums_all_attempts_or_is_unknown() {
    let (mut registry, ids, _) = race();
    let usage = |tokens, cost_usd| Usage { input_tokens: tokens, cost_usd, ..Usage::default() };
    let worker = registry.get(&ids[0]).unwrap();
    assert_eq!(spent(worker, None), None);
    assert_eq!(spent(worker, Some(usage(5, None))), Some(usage(5, None)));
    let mut worker = Worker::clone(worker);
    worker.settled.extend([brief(1, Ending::Failed), brief(2, Ending::Failed)]);
    (worker.settled[0].usage, worker.settled[1].usage) = (usage(10, Some(0.5)), usage(1, Some(0.25)));
    assert_eq!(spent(&worker, Some(usage(100, None))), Some(usage(111, Some(0.75))));

    end(&mut registry, &ids[1], Ending::Cancelled, 0);
    let never_ran = spent(registry.get(&ids[1]).unwrap(), None).expect("nothing");
    assert_eq!((never_ran.cost_usd, never_ran.input_tokens), (Some(0.0), 0));
}

/// An event of a racer, in any order, from any server.
#[derive(Debug, Clone, Copy)]
enum Step {
    Start(usize),
    End(usize, Ending, bool),
    GiveBack(usize),
    Cancel(usize),
    Retry(usize),
}

fn any_step() -> impl Strategy<Value = Step> {
    let endings = [Ending::Completed, Ending::Failed, Ending::Cancelled, Ending::TimedOut, Ending::Lost];
    prop_oneof![
        3 => (0..3usize).prop_map(Step::Start),
        4 => (0..3usize, prop::sample::select(endings.to_vec()), any::<bool>()).prop_map(|(at, ending, works)| Step::End(at, ending, works)),
        1 => (0..3usize).prop_map(Step::GiveBack),
        1 => (0..3usize).prop_map(Step::Cancel),
        2 => (0..3usize).prop_map(Step::Retry),
    ]
}

fn carry_out(registry: &mut Registry, ids: &[WorkerId], step: Step) {
    match step {
        Step::Start(at) => start(registry, &ids[at]),
        Step::End(at, ending, works) => end(registry, &ids[at], ending, u32::from(works)),
        Step::GiveBack(at) => {
            let (worker, attempt) = (ids[at].clone(), registry.get(&ids[at]).unwrap().attempt);
            apply(registry, "s", Entry::Unstarted { worker, attempt });
        }
        Step::Cancel(at) => {
            let cancel = Entry::CancelRequested { worker: ids[at].clone(), by: "b".into(), reason: "no".to_owned() };
            apply(registry, "other", cancel);
        }
        Step::Retry(at) => requeue(registry, &ids[at]),
    }
}

/// Does what servers do by themselves until nothing changes: cancels, retries, starts, and runs each to
/// its end.
fn run_out(registry: &mut Registry, ids: &[WorkerId]) {
    for _ in 0..30 {
        for id in ids {
            let worker = registry.get(id).unwrap().clone();
            match worker.status {
                status if !status.is_settled() && worker.cancel.is_some() => end(registry, id, Ending::Cancelled, 0),
                WorkerStatus::Queued => start(registry, id),
                WorkerStatus::Settled(_) if retry::automatic(&worker).is_some() => {
                    let next = Box::new(retry::automatic(&worker).unwrap());
                    apply(registry, "other", Entry::Requeued { worker: id.clone(), next, lease: None });
                }
                WorkerStatus::Settled(_) => {}
                _ => end(registry, id, Ending::Failed, 0),
            }
        }
    }
}

proptest! {
    #[test]
    fn any_order_has_one_winner_and_settles_all(
        steps in prop::collection::vec(any_step(), 0..40),
    ) {
        let twice = |name: &str| Draft { fallback_backends: vec!["other".into()], max_attempts: 2, ..racer(name) };
        let (mut registry, ids, after) = race_of(&[racer("codex"), twice("gemini"), racer("claudecode")]);
        let mut won: Option<WorkerId> = None;
        for step in steps {
            let before = registry.clone();
            carry_out(&mut registry, &ids, step);
            let winners: Vec<_> = ids.iter().map(|id| winner(&registry, id)).collect();
            prop_assert!(winners.iter().all(|it| *it == winners[0]), "the racers do not agree: {:?}", winners);
            if let Some(won) = &won {
                prop_assert_eq!(winners[0].as_ref(), Some(won), "it was decided once more");
            } else if let Some(now) = &winners[0] {
                let worker = registry.get(now).unwrap();
                prop_assert!(qualifies(&worker.mission, worker.last().unwrap()));
                for id in ids.iter().filter(|id| *id != now) {
                    let (was, is) = (before.get(id).unwrap(), registry.get(id).unwrap());
                    prop_assert!(is_final(was) || is.cancel.is_some(), "{} runs on", id);
                    prop_assert_eq!(retry::automatic(is), None);
                }
            }
            won = winners[0].clone();
            let json = serde_json::to_string(&registry).unwrap();
            let mut loaded: Registry = serde_json::from_str(&json).unwrap();
            loaded.reindex();
            prop_assert!(loaded == registry, "it is not what was saved");
        }
        run_out(&mut registry, &ids);
        for id in &ids {
            let worker = registry.get(id).unwrap();
            prop_assert!(is_final(worker), "{} is left: {:?}", id, worker.status);
            let alone = due(&registry, &"b".into(), &Selection::Named(vec![id.clone()]), &"s".into());
            prop_assert_eq!(alone.settled.len(), 1, "{} is forgotten", id);
            prop_assert!(lifecycle_is_legal(worker));
        }
        let standing = standing(&registry, registry.get(&ids[0]).unwrap()).unwrap();
        prop_assert!(standing != Standing::On);
        let ready = readiness(&registry, &after);
        match standing {
            Standing::Won(winner) => {
                let stands = registry.get(&winner).unwrap().status == WorkerStatus::Settled(Ending::Completed);
                prop_assert_eq!(ready == Readiness::Ready, stands, "{:?}", ready);
            }
            _ => prop_assert!(matches!(ready, Readiness::Blocked(_)), "{:?}", ready),
        }
    }
}

/// A settled worker can only be retried.
fn lifecycle_is_legal(worker: &Worker) -> bool {
    super::super::lifecycle::next(worker.status, Event::Requeued).is_ok()
}
