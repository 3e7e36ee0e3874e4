//! A git configuration that changed while workers ran is shown. Nothing is merged or run until the user has checked it.

use orchestrator_boss::mission::hint::with_hints;
use orchestrator_boss::orchestrator::{IntegrationAnswer, IntegrationRequest, IntegrationSource};

use crate::world::{Server, World, mission};

async fn integrate(server: &Server, worker: &str, dry_run: bool) -> Result<IntegrationAnswer, String> {
    let source = IntegrationSource::Worker(worker.to_owned());
    let request = IntegrationRequest { dry_run, ..IntegrationRequest::of(source) };
    server.orchestrator.integrate(&server.boss, request).await.map_err(|error| with_hints(&error))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_git_configuration_blocks_integration_until_accepted() {
    let world = World::new();
    // The user's earlier filter stays in use: the uncommitted changes below are committed in capitals.
    world.git(&["config", "filter.shout.clean", "tr a-z A-Z"]);
    std::fs::create_dir_all(world.repo().join(".git/info")).unwrap();
    std::fs::write(world.repo().join(".git/info/attributes"), "*.loud filter=shout\n").unwrap();
    let server = world.server(Some("boss"));
    let ran = world.shared("ran");
    let script = format!(
        "write a.txt a\ncommit a\nrun git config filter.evil.clean 'touch {0}; cat'\n\
         run git config filter.evil.smudge 'touch {0}; cat'\nrun git config alias.status '!touch {0}'\n\
         write .gitattributes *.txt filter=evil\nwrite left.txt left\nwrite left.loud left",
        ran.display()
    );
    let first = server.create_one(mission("plants", &script)).await;
    server.until(&first, "completed").await;
    let other = server.create_one(mission("honest", "write b.txt b\ncommit b")).await;
    server.until(&other, "completed").await;
    let changes = server.orchestrator.get(&first).await.unwrap().worker.last().unwrap().changes.clone();
    assert_eq!(changes.committed_by_us, 3);
    let branch = changes.branch.expect("a branch of its own");
    assert_eq!(world.git(&["cat-file", "blob", &format!("{branch}:left.loud")]), "LEFT");

    let before = world.git(&["rev-parse", "main"]);
    for (worker, dry_run) in [(&first, false), (&other, false), (&other, true)] {
        let refusal = integrate(&server, worker, dry_run).await.unwrap_err();
        for part in
            ["alias.status (added)", "filter.evil.clean (added)", "filter.evil.smudge (added)", "git config --unset"]
        {
            assert!(refusal.contains(part), "{refusal}");
        }
        assert!(!refusal.contains("touch"), "values may be secrets: {refusal}");
    }
    assert_eq!(world.git(&["rev-parse", "main"]), before);

    // After the change is undone, the integration continues.
    world.git(&["config", "--remove-section", "filter.evil"]);
    world.git(&["config", "--unset", "alias.status"]);
    assert_eq!(integrate(&server, &other, false).await.unwrap().status.as_str(), "merged");

    // After the change is accepted, the integration continues too, with the new configuration as recorded.
    world.git(&["config", "core.pager", "less"]);
    let refusal = integrate(&server, &first, false).await.unwrap_err();
    let file = world.repo().join(".orchestrator/git-configuration.json");
    assert!(refusal.contains("core.pager (added)") && refusal.contains(file.to_str().unwrap()), "{refusal}");
    std::fs::remove_file(&file).unwrap();
    assert_eq!(integrate(&server, &first, false).await.unwrap().status.as_str(), "merged");
    assert!(file.exists());
    assert!(!ran.exists(), "a program that a worker configured was run");
    server.orchestrator.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replaced_worktree_repository_runs_nothing() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let ran = world.shared("ran");
    let script = format!(
        "write a.txt a\ncommit a\nrun cp -r ../../repo/.git fake.git\n\
         run git --git-dir=fake.git config filter.evil.clean 'touch {0}; cat'\n\
         run git --git-dir=fake.git config core.fsmonitor 'touch {0}'\n\
         run echo gitdir: fake.git > .git\nwrite .gitattributes *.txt filter=evil\nwrite a.txt changed",
        ran.display()
    );
    let id = server.create_one(mission("swaps", &script)).await;
    let waited = server.wait(&[&id], crate::support::wait::CEILING).await;
    assert_eq!(waited.settled.len(), 1);
    assert!(!ran.exists(), "a program configured in the worker's repository was run");
    server.orchestrator.shut_down().await;
}
