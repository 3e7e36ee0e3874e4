use super::super::lifecycle::Ending;
use super::super::testing::{apply, brief, create, draft, needs, settle};
use super::super::{graph, retry};
use super::*;

fn requeue(registry: &mut Registry, id: &WorkerId) {
    let next =
        NextAttempt { backend: "codex".into(), model: None, effort: None, start: Start::Mission, written: Vec::new() };
    apply(registry, "s", Entry::Requeued { worker: id.clone(), next: Box::new(next), lead: None });
}

fn start(registry: &mut Registry, id: &WorkerId, attempt: u32) {
    apply(registry, "s", Entry::Starting { worker: id.clone(), attempt });
}

#[test]
fn what_a_slow_server_says_of_an_earlier_attempt_changes_nothing() {
    let mut registry = Registry::default();
    let id = create(&mut registry, &[draft("t")]).remove(0).unwrap();
    settle(&mut registry, &id, Ending::Failed);
    requeue(&mut registry, &id);
    let late = [
        Entry::Settled { worker: id.clone(), brief: Box::new(brief(1, Ending::Failed)) },
        Entry::Running { worker: id.clone(), attempt: 1, base_commit: None, base_branch: None, repository: None },
        Entry::Verifying { worker: id.clone(), attempt: 1 },
        Entry::Unstarted { worker: id.clone(), attempt: 1 },
    ];
    for entry in &late {
        apply(&mut registry, "slow", entry.clone());
        assert_eq!(registry.get(&id).unwrap().status, WorkerStatus::Queued, "after {entry:?}");
    }
    start(&mut registry, &id, 2);
    for entry in &late {
        apply(&mut registry, "slow", entry.clone());
        let worker = registry.get(&id).unwrap();
        assert_eq!((worker.status, worker.attempt), (WorkerStatus::Starting, 2), "after {entry:?}");
    }
    apply(&mut registry, "s", Entry::Settled { worker: id.clone(), brief: Box::new(brief(2, Ending::Completed)) });
    assert_eq!(registry.get(&id).unwrap().settled.len(), 2);
}

#[test]
fn removed_worktree_counts_as_present_once_a_retry_runs_in_it() {
    let mut registry = Registry::default();
    let id = create(&mut registry, &[draft("t")]).remove(0).unwrap();
    settle(&mut registry, &id, Ending::Completed);
    apply(&mut registry, "s", Entry::WorktreeRemoved { worker: id.clone(), salvage_ref: None });
    requeue(&mut registry, &id);
    start(&mut registry, &id, 2);
    assert!(registry.get(&id).unwrap().worktree_removed);
    let begun =
        Entry::Running { worker: id.clone(), attempt: 2, base_commit: None, base_branch: None, repository: None };
    apply(&mut registry, "s", begun);
    assert!(!registry.get(&id).unwrap().worktree_removed);
}

#[test]
fn what_was_called_off_is_not_tried_again_by_itself() {
    let mut registry = Registry::default();
    let mut twice = draft("t");
    twice.max_attempts = 3;
    let id = create(&mut registry, &[twice]).remove(0).unwrap();
    start(&mut registry, &id, 1);
    let cancel = Entry::CancelRequested { worker: id.clone(), by: "b".into(), reason: "enough".to_owned() };
    apply(&mut registry, "s", cancel);
    // It failed at the same moment.
    apply(&mut registry, "s", Entry::Settled { worker: id.clone(), brief: Box::new(brief(1, Ending::Failed)) });
    assert_eq!(retry::automatic(registry.get(&id).unwrap()), None);
    requeue(&mut registry, &id);
    start(&mut registry, &id, 2);
    apply(&mut registry, "s", Entry::Settled { worker: id.clone(), brief: Box::new(brief(2, Ending::Failed)) });
    assert!(retry::automatic(registry.get(&id).unwrap()).is_some(), "the boss wanted it again");
}

#[test]
fn a_dependant_that_is_blocked_again_is_told_again() {
    let mut registry = Registry::default();
    let made = create(&mut registry, &[draft("a"), needs("b", &["a"]), needs("c", &["b"])]);
    let ids: Vec<WorkerId> = made.into_iter().map(Result::unwrap).collect();
    settle(&mut registry, &ids[0], Ending::Failed);
    let blocked = ids[1..].to_vec();
    apply(&mut registry, "s", Entry::Notified { boss: "b".into(), settled: Vec::new(), blocked });
    let offer = registry.seq;
    apply(
        &mut registry,
        "s",
        Entry::Acknowledged { deliveries: vec![offer], settled: Vec::new(), blocked: Vec::new() },
    );
    assert_eq!(registry.get(&ids[1]).unwrap().block_notification, Notification::Acknowledged);

    requeue(&mut registry, &ids[0]);
    for id in &ids[1..] {
        let worker = registry.get(id).unwrap();
        assert_eq!(
            (graph::block(&registry, worker), &worker.block_notification),
            (None, &Notification::Pending),
            "{id}"
        );
    }
}

#[test]
fn who_cancels_is_remembered_and_a_race_is_cancelled_by_nobody() {
    let mut registry = Registry::default();
    let ids: Vec<_> = create(&mut registry, &[draft("a"), draft("b")]).into_iter().flatten().collect();
    for (id, by, says) in [(&ids[0], BossId::from("b"), "boss"), (&ids[1], BossId::visitor(&"s".into()), "user")] {
        let cancel = Entry::CancelRequested { worker: id.clone(), by, reason: "the plan has changed".to_owned() };
        apply(&mut registry, "s", cancel);
        let cancelled = registry.get(id).unwrap().cancelled().unwrap();
        assert_eq!(cancelled.sentence(), format!("cancelled by the {says}: the plan has changed"));
    }
    let nobody = Cancelled { by: None, reason: "w-2 won the race".to_owned() };
    assert_eq!(nobody.sentence(), "cancelled: w-2 won the race");
}

#[test]
fn a_worker_that_is_blocked_needs_somebody_until_something_came_of_it() {
    let mut registry = Registry::default();
    let id = create(&mut registry, &[draft("a")]).remove(0).unwrap();
    let blocked = Brief { says_blocked: true, ..brief(1, Ending::Completed) };
    apply(&mut registry, "s", Entry::Starting { worker: id.clone(), attempt: 1 });
    apply(&mut registry, "s", Entry::Settled { worker: id.clone(), brief: Box::new(blocked) });
    assert!(registry.get(&id).unwrap().needs_you());
    let mut merged = Worker::clone(registry.get(&id).unwrap());
    merged.integrated =
        Some(Integrated { into: "main".to_owned(), commit: "c".to_owned(), source: None, partial: false });
    assert!(!merged.needs_you());
    let next =
        NextAttempt { backend: "codex".into(), model: None, effort: None, start: Start::Mission, written: Vec::new() };
    apply(&mut registry, "s", Entry::Requeued { worker: id.clone(), next: Box::new(next), lead: None });
    assert!(!registry.get(&id).unwrap().needs_you());
}

#[test]
fn what_an_earlier_build_noted_is_counted_with_its_verification() {
    use crate::mission::outcome::Verification;
    let verification = Verification::Passed { commit: None, seconds: 43.2 };
    let old = Brief { seconds: 2, verification, ..brief(1, Ending::Completed) };
    assert_eq!(old.elapsed(), 45);
    assert_eq!(Brief { elapsed_seconds: Some(46), ..old }.elapsed(), 46);
}
