//! The conflict radar: conflicting branches are reported while workers run, and no longer once they merge cleanly.

use std::collections::BTreeMap;

use orchestrator_boss::orchestrator::{IntegrationRequest, IntegrationSource, Unchecked};
use serde_json::json;

use crate::support::git::git;
use crate::support::wait::{CEILING, in_time};
use crate::world::{Server, World, mission};

/// Waits until each of these workers conflicts with exactly these workers and branches.
async fn until_conflicts(server: &Server, expected: &[(&str, &[&str])]) {
    let expected: BTreeMap<&str, Vec<String>> =
        expected.iter().map(|(id, with)| (*id, with.iter().map(ToString::to_string).collect())).collect();
    let mut found = BTreeMap::new();
    let reached = in_time(async || {
        for id in expected.keys() {
            let view = server.orchestrator.get(id).await.unwrap();
            let mut with: Vec<String> = view.collisions.into_iter().map(|it| it.with.name().to_owned()).collect();
            with.sort();
            found.insert(*id, with);
        }
        found == expected
    });
    assert!(reached.await, "{found:?} instead of {expected:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conflicting_branches_are_reported_until_they_merge_cleanly() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let gate = world.path("gate");
    let waits = format!("write README one\ncommit one\nwait-file {}\nsay done", gate.display());
    let one = server.create_one(mission("one", &waits)).await;
    let two = server.create_one(mission("two", "write README two\ncommit two\nsay done")).await;
    let three = server.create_one(mission("three", "write three.txt 3\ncommit three\nsay done")).await;
    until_conflicts(&server, &[(&one, &[&two]), (&two, &[&one]), (&three, &[])]).await;
    server.until(&one, "running").await;
    world
        .until_state(|state| state["tasks"][0]["conflicts_with"][0] == json!({"worker_id": two, "paths": ["README"]}))
        .await;

    // The user commits to the integration branch.
    std::fs::write(world.repo().join("README"), "three").unwrap();
    world.git(&["commit", "-qam", "three"]);
    until_conflicts(&server, &[(&one, &["main", &two]), (&two, &["main", &one]), (&three, &[])]).await;

    // Both workers have settled, so nothing commits the files that the moved branch leaves in the worktree.
    server.until(&two, "completed").await;
    server.until(&three, "completed").await;
    world.git(&["update-ref", &format!("refs/heads/orchestrator/{two}"), &format!("orchestrator/{three}")]);
    until_conflicts(&server, &[(&one, &["main"]), (&two, &[]), (&three, &[])]).await;
    std::fs::write(&gate, "").unwrap();
    server.until(&one, "completed").await;
    until_conflicts(&server, &[(&one, &["main"])]).await;
    world.git(&["reset", "-q", "--hard", "HEAD^"]);
    until_conflicts(&server, &[(&one, &[])]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn next_server_reports_the_same_conflicts() {
    let world = World::new();
    let first = world.server(Some("boss"));
    let mut ids = Vec::new();
    for title in ["one", "two"] {
        let script = format!("write README {title}\ncommit {title}\nsay done");
        ids.push(first.create_one(mission(title, &script)).await);
        first.wait(&[ids.last().unwrap()], CEILING).await;
    }
    first.orchestrator.shut_down().await;
    let next = world.server(Some("boss"));
    until_conflicts(&next, &[(&ids[0], &[&ids[1]]), (&ids[1], &[&ids[0]])]).await;
}

/// Creates a worker that commits one file, waits for its settlement, and returns its id.
async fn settled(server: &Server, title: &str, file: &str) -> String {
    let script = format!("write {file} {title}\ncommit {title}\nsay done");
    let id = server.create_one(mission(title, &script)).await;
    server.until(&id, "completed").await;
    id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn newer_branch_is_not_blamed_for_mains_conflict() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let old = settled(&server, "old", "README").await;
    std::fs::write(world.repo().join("README"), "main").unwrap();
    world.git(&["commit", "-qam", "main"]);
    let new = settled(&server, "new", "new.txt").await;
    let both = server.create_one(mission("both", "write README both\ncommit both\nsay done")).await;
    server.until(&both, "completed").await;
    // A worker that starts from another worker's branch contains that worker's conflicts, but does not cause them.
    let other = settled(&server, "other", "shared.txt").await;
    let third = settled(&server, "third", "shared.txt").await;
    let mut on_top = mission("on-top", "write top.txt x\ncommit top\nsay done");
    on_top.depends_on = vec![other.clone()];
    let on_top = server.create_one(on_top).await;
    server.until(&on_top, "completed").await;
    until_conflicts(
        &server,
        &[(&old, &["main"]), (&new, &[]), (&both, &[]), (&other, &[&third]), (&third, &[&other]), (&on_top, &[])],
    )
    .await;
    let dry = IntegrationRequest { dry_run: true, ..IntegrationRequest::of(IntegrationSource::Worker(other.clone())) };
    let answer = server.orchestrator.integrate(&server.boss, dry).await.unwrap();
    assert_eq!(answer.status.as_str(), "would_merge");
    assert!(answer.notes.iter().any(|note| note.contains(&format!("{third} in shared.txt"))), "{:?}", answer.notes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreported_conflict_does_not_hide_another() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let first = settled(&server, "first", "README").await;
    std::fs::write(world.repo().join("README"), "main").unwrap();
    world.git(&["commit", "-qam", "main"]);
    // Resolves the first worker's conflict with main, which does not involve the third worker.
    let merge = format!("run git merge -q -X theirs -m merged orchestrator/{first}\nsay done");
    let second = server.create_one(mission("second", &merge)).await;
    server.until(&second, "completed").await;
    let third = settled(&server, "third", "README").await;
    until_conflicts(&server, &[(&first, &["main"]), (&second, &[&third]), (&third, &[&second])]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn branches_that_will_not_merge_do_not_count() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let waits =
        |title: &str| format!("write README {title}\ncommit {title}\nwait-file {}", world.path("never").display());
    let one = server.create_one(mission("one", &waits("one"))).await;
    let cancelled = server.create_one(mission("cancelled", &waits("off"))).await;
    until_conflicts(&server, &[(&one, &[&cancelled]), (&cancelled, &[&one])]).await;
    server.orchestrator.cancel(&server.boss, &cancelled, "not needed").await.unwrap();
    let mut fails = mission("fails", "write README fails\ncommit fails\nsay done");
    fails.verify_command = Some("false".to_owned());
    let fails = server.create_one(fails).await;
    server.until(&fails, "failed").await;
    until_conflicts(&server, &[(&one, &[]), (&cancelled, &[]), (&fails, &[])]).await;

    // A manual squash merge, which leaves neither a record nor an ancestor.
    let by_hand = settled(&server, "by hand", "hand.txt").await;
    let same = settled(&server, "same", "hand.txt").await;
    until_conflicts(&server, &[(&by_hand, &[&same]), (&same, &[&by_hand])]).await;
    world.git(&["merge", "-q", "--squash", &format!("orchestrator/{by_hand}")]);
    world.git(&["commit", "-qm", "by hand"]);
    until_conflicts(&server, &[(&by_hand, &[]), (&same, &["main"])]).await;
    server.orchestrator.cancel(&server.boss, &one, "done").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn integrated_branch_with_new_commits_is_checked() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let one = settled(&server, "one", "one.txt").await;
    let two = settled(&server, "two", "two.txt").await;
    server
        .orchestrator
        .integrate(&server.boss, IntegrationRequest::of(IntegrationSource::Worker(one.clone())))
        .await
        .unwrap();
    std::fs::write(world.repo().join("one.txt"), "changed after the merge").unwrap();
    world.git(&["commit", "-qam", "after"]);
    until_conflicts(&server, &[(&one, &[]), (&two, &[])]).await;
    std::fs::write(world.worktree(&one).join("two.txt"), "conflicts").unwrap();
    git(&world.worktree(&one), &["add", "."]);
    git(&world.worktree(&one), &["commit", "-qm", "more"]);
    until_conflicts(&server, &[(&one, &[&two]), (&two, &[&one])]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn branch_for_another_target_is_named_as_such() {
    let world = World::new();
    let beside = world.path("beside");
    world.git(&["worktree", "add", "-q", "-b", "other", beside.to_str().unwrap()]);
    let (server, second) = (world.server(Some("boss")), world.server_in(&beside, Some("second"), world.settings()));
    settled(&server, "here", "here.txt").await;
    let there = settled(&second, "there", "there.txt").await;
    let unchecked = async || server.orchestrator.get(&there).await.unwrap().unchecked;
    assert!(in_time(async || unchecked().await == Some(Unchecked::OtherTarget)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn above_the_limit_only_the_target_is_checked() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let first = settled(&server, "first", "README").await;
    let drafts = (0..33).map(|number| mission("more", &format!("write f{number}.txt x\ncommit x\nsay done")));
    let more: Vec<String> = server.create(drafts.collect()).await.into_iter().map(Result::unwrap).collect();
    for id in &more {
        server.until(id, "completed").await;
    }
    std::fs::write(world.repo().join("README"), "main").unwrap();
    world.git(&["commit", "-qam", "main"]);
    until_conflicts(&server, &[(&first, &["main"])]).await;
    let mut unchecked = Vec::new();
    for id in [&first, &more[0], &more[1], &more[32]] {
        unchecked.push(server.orchestrator.get(id).await.unwrap().unchecked);
    }
    assert_eq!(unchecked, [Some(Unchecked::OtherWorkers), Some(Unchecked::OtherWorkers), None, None]);
}
