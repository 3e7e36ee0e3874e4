//! Observers show the same as a server, work without one, and change nothing.

use orchestrator_boss::orchestrator::{Observer, Overview, Scope};

use crate::support::wait::{CEILING, in_time};
use crate::world::{Server, World, mission, until_exists};

fn observer(world: &World) -> Observer {
    Observer::open(&world.repo().join(".orchestrator"), None).unwrap().expect("a state directory")
}

fn status(overview: &Overview, id: &str) -> String {
    overview.workers().find(|view| view.worker.id.as_str() == id).expect("a known worker").worker.status.to_string()
}

/// Returns each worker's id, status and wait reason, as the server reports them.
async fn reported_by(server: &Server) -> Vec<(String, String, Option<String>)> {
    let list = server.orchestrator.list(&server.boss, Scope::All).await.unwrap().workers;
    list.iter()
        .map(|view| (view.worker.id.to_string(), view.worker.status.to_string(), view.waits_for.clone()))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn observer_and_server_show_the_same() {
    let world = World::new();
    assert!(Observer::open(&world.repo().join(".orchestrator"), None).unwrap().is_none());
    let mut settings = world.settings();
    settings.max_workers = Some(2);
    let gate = world.path("gate");
    let server = world.server_with(Some("boss"), settings);
    let done = server.create_one(mission("done", "commit a")).await;
    server.until(&done, "completed").await;
    let script = format!("say hello\nwait-file {}", gate.display());
    for n in 0..3 {
        server.create_one(mission(&format!("t{n}"), &script)).await;
    }
    server.until("w-2", "running").await;
    server.until("w-3", "running").await;

    let mut observer = observer(&world);
    let seen = |overview: &Overview| -> Vec<(String, String, Option<String>)> {
        let views = overview.workers();
        views.map(|view| (view.worker.id.to_string(), view.worker.status.to_string(), view.waits_for.clone())).collect()
    };
    // The wait reasons are in the state file, which follows within 100 ms.
    let is_same = async || seen(&observer.read().unwrap()) == reported_by(&server).await;
    assert!(in_time(is_same).await, "the server reports {:?}", reported_by(&server).await);

    let overview = observer.read().unwrap();
    let [boss] = &overview.bosses[..] else { panic!("{:?}", overview.bosses) };
    assert!(boss.is_here && boss.boss == server.boss);
    assert_eq!(boss.directory.as_deref(), Some(world.repo().as_path()));
    assert_eq!(overview.integration_branch.as_deref(), Some("main"));
    assert!(overview.workers().all(|view| overview.is_led(&view.worker)));
    let running = overview.workers().find(|view| view.worker.id.as_str() == "w-2-t0").unwrap();
    assert!(running.live.is_some() && running.elapsed_seconds.is_some());
    assert_eq!(observer.find("w-1").unwrap().worker.status.as_str(), "completed");
    let unknown = observer.find("w-9").unwrap_err().to_string();
    assert!(unknown.contains("w-4-t2"), "{unknown}");

    // The observer consumed no notification.
    std::fs::write(&gate, "").unwrap();
    let mut reported = 0;
    while reported < 4 {
        reported += server.wait(&[], CEILING).await.settled.len();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn observer_sees_an_end_without_a_server() {
    let world = World::new();
    let gate = world.path("gate");
    let server = world.server(Some("boss"));
    let id = server.create_one(mission("t", &format!("wait-file {}\nwrite a x\ncommit a", gate.display()))).await;
    server.until(&id, "running").await;
    server.orchestrator.shut_down().await;

    let mut observer = observer(&world);
    let overview = observer.read().unwrap();
    assert_eq!(status(&overview, &id), "running");
    let worker = &overview.workers().next().unwrap().worker;
    assert!(!overview.is_led(worker) && !overview.bosses[0].is_here);

    std::fs::write(&gate, "").unwrap();
    until_exists(&world.repo().join(".orchestrator/workers/w-1-t/attempts/1/outcome.json")).await;
    let overview = observer.read().unwrap();
    assert_eq!(status(&overview, &id), "completed");
    assert_eq!(observer.find(&id).unwrap().worker.last().unwrap().changes.commits, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn observer_reads_the_configured_integration_branch() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let id = server.create_one(mission("one", "write one.txt x\ncommit one")).await;
    server.until(&id, "completed").await;
    world.git(&["branch", "release", &format!("orchestrator/{id}")]);
    for (set, into) in [(None, None), (Some("release"), Some("release"))] {
        let mut observer =
            Observer::open(&world.repo().join(".orchestrator"), set).unwrap().expect("a state directory");
        observer.read().unwrap();
        let worker = observer.find(&id).unwrap().worker;
        assert_eq!(worker.integrated.as_ref().map(|it| it.into.as_str()), into);
    }
}
