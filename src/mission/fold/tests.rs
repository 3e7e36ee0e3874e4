use super::super::lifecycle::Ending;
use super::super::message::Cancelled;
use super::super::testing::{apply, brief, create, draft, needs, requeued, settle};
use super::super::{graph, retry};
use super::*;

fn requeue(registry: &mut Registry, id: &WorkerId) {
    apply(registry, "s", requeued(id));
}

fn start(registry: &mut Registry, id: &WorkerId, attempt: u32) {
    apply(registry, "s", Entry::Starting { worker: id.clone(), attempt });
}

#[test]
fn late_entry_of_earlier_attempt_is_ignored() {
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
fn retry_makes_a_removed_worktree_present_again() {
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
fn cancelled_worker_is_not_retried_automatically() {
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
fn repeated_block_is_reported_again() {
    let mut registry = Registry::default();
    let made = create(&mut registry, &[draft("a"), needs("b", &["a"]), needs("c", &["b"])]);
    let ids: Vec<WorkerId> = made.into_iter().map(Result::unwrap).collect();
    settle(&mut registry, &ids[0], Ending::Failed);
    let blocked = ids[1..].to_vec();
    apply(&mut registry, "s", Entry::Notified { boss: "b".into(), settled: Vec::new(), blocked });
    let delivery = registry.seq;
    apply(
        &mut registry,
        "s",
        Entry::Acknowledged { deliveries: vec![delivery], settled: Vec::new(), blocked: Vec::new() },
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
fn cancellation_records_its_author() {
    let mut registry = Registry::default();
    let ids: Vec<_> = create(&mut registry, &[draft("a"), draft("b")]).into_iter().flatten().collect();
    for (id, by, author) in
        [(&ids[0], BossId::from("b"), "boss"), (&ids[1], BossId::one_shot_client(&"s".into()), "user")]
    {
        let cancel = Entry::CancelRequested { worker: id.clone(), by, reason: "the plan has changed".to_owned() };
        apply(&mut registry, "s", cancel);
        let cancelled = registry.get(id).unwrap().cancelled().unwrap();
        assert_eq!(cancelled.sentence(), format!("cancelled by the {author}: the plan has changed"));
    }
    let without_author = Cancelled { by: None, reason: "w-2 won the race".to_owned() };
    assert_eq!(without_author.sentence(), "cancelled: w-2 won the race");
}

#[test]
fn blocked_worker_needs_attention_until_it_is_used() {
    let mut registry = Registry::default();
    let id = create(&mut registry, &[draft("a")]).remove(0).unwrap();
    let blocked = AttemptSummary { says_blocked: true, ..brief(1, Ending::Completed) };
    apply(&mut registry, "s", Entry::Starting { worker: id.clone(), attempt: 1 });
    apply(&mut registry, "s", Entry::Settled { worker: id.clone(), brief: Box::new(blocked) });
    assert!(registry.get(&id).unwrap().needs_you());
    let mut merged = Worker::clone(registry.get(&id).unwrap());
    merged.integrated =
        Some(Integrated { into: "main".to_owned(), commit: "c".to_owned(), source: None, partial: false });
    assert!(!merged.needs_you());
    requeue(&mut registry, &id);
    assert!(!registry.get(&id).unwrap().needs_you());
}
