//! The conflict radar: what does not merge cleanly is told while there is time, and no longer when it does.

use std::collections::BTreeMap;

use crate::world::{CEILING, Server, World, in_time, mission};

/// The ids of those that are named, each with what its branch collides with.
async fn until_collides(server: &Server, expected: &[(&str, &[&str])]) {
    let expected: BTreeMap<&str, Vec<String>> =
        expected.iter().map(|(id, with)| (*id, with.iter().map(ToString::to_string).collect())).collect();
    let mut found = BTreeMap::new();
    let reached = in_time(async || {
        for id in expected.keys() {
            let view = server.orchestrator.get(id).await.unwrap();
            let mut with: Vec<String> = view.collisions.into_iter().map(|it| it.with).collect();
            with.sort();
            found.insert(*id, with);
        }
        found == expected
    });
    assert!(reached.await, "{found:?} instead of {expected:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn branches_that_collide_are_told_while_they_run_and_no_longer_when_they_do_not() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let gate = world.path("gate");
    let waits = format!("write README one\ncommit one\nwait-file {}\nsay done", gate.display());
    let one = server.create_one(mission("one", &waits)).await;
    let two = server.create_one(mission("two", "write README two\ncommit two\nsay done")).await;
    let three = server.create_one(mission("three", "write three.txt 3\ncommit three\nsay done")).await;
    until_collides(&server, &[(&one, &[&two]), (&two, &[&one]), (&three, &[])]).await;
    server.until(&one, "running").await;
    world.until_state(|state| state["tasks"][0]["conflicts_with"][0] == two.as_str()).await;

    // Somebody commits to the integration branch.
    std::fs::write(world.repo().join("README"), "three").unwrap();
    world.git(&["commit", "-qam", "three"]);
    until_collides(&server, &[(&one, &["main", &two]), (&two, &["main", &one]), (&three, &[])]).await;

    // One of the two gives way; both have settled, so that nobody commits what that leaves in the worktree.
    server.until(&two, "completed").await;
    server.until(&three, "completed").await;
    world.git(&["update-ref", &format!("refs/heads/orchestrator/{two}"), &format!("orchestrator/{three}")]);
    until_collides(&server, &[(&one, &["main"]), (&two, &[]), (&three, &[])]).await;
    std::fs::write(&gate, "").unwrap();
    server.until(&one, "completed").await;
    until_collides(&server, &[(&one, &["main"])]).await;
    world.git(&["reset", "-q", "--hard", "HEAD^"]);
    until_collides(&server, &[(&one, &[])]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_comes_later_knows_it_too() {
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
    until_collides(&next, &[(&ids[0], &[&ids[1]]), (&ids[1], &[&ids[0]])]).await;
}
