//! Races: several workers get the same task, and the first verified one wins.

use std::path::Path;
use std::time::Duration;

use orchestrator_boss::attempt::inbox::Delivery;
use orchestrator_boss::mission::create::Draft;
use orchestrator_boss::mission::lifecycle::{Ending, WorkerStatus};
use orchestrator_boss::orchestrator::{
    IntegrationRequest, IntegrationSource, NewMessage, RaceView, RetryRequest, WaitStatus, WorkerView,
};

use crate::support::wait::CEILING;
use crate::world::{Server, World, mission, until_exists};

const CANCELLED: WorkerStatus = WorkerStatus::Settled(Ending::Cancelled);
const COMPLETED: WorkerStatus = WorkerStatus::Settled(Ending::Completed);

/// Returns one racer for each title, all with the same script.
fn racers(titles: &[&str], script: &str) -> Vec<Draft> {
    let racer = |(at, title): (usize, &&str)| Draft {
        backend: if at == 0 { "fake" } else { "other" }.into(),
        task_id: Some("t".into()),
        ..mission(title, script)
    };
    titles.iter().enumerate().map(racer).collect()
}

/// Returns a script line that runs only in the worktree of the racer with this title.
fn only(title: &str, command: &str) -> String {
    format!("run case \"$PWD\" in *-{title}) {command};; esac\n")
}

fn loop_until(path: &Path) -> String {
    format!("while [ ! -e {} ]; do sleep 0.02; done", path.display())
}

async fn start(server: &Server, drafts: Vec<Draft>) -> Vec<String> {
    server.create_race(drafts).await.into_iter().map(|made| made.expect("an accepted racer")).collect()
}

async fn race_of(server: &Server, id: &str) -> RaceView {
    server.orchestrator.get(id).await.expect("a known worker").race.expect("a racer")
}

fn ids(views: &[WorkerView]) -> Vec<&str> {
    views.iter().map(|view| view.worker.id.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verified_slow_racer_beats_unverified_fast_one() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let gate = world.path("gate");
    let wait = format!("{}; echo right > good.txt", loop_until(&gate));
    let script = format!("write any.txt x\n{}commit work", only("slow", &wait));
    let mut drafts = racers(&["fast", "slow"], &script);
    drafts.iter_mut().for_each(|draft| draft.verify_command = Some("test -e good.txt".to_owned()));
    let racers = start(&server, drafts).await;
    let mut after = mission("after", "run cat good.txt > copy.txt\ncommit copy");
    after.depends_on = vec!["t".to_owned()];
    let after = server.create_one(after).await;

    server.until(&racers[0], "failed").await;
    let quiet = server.wait(&[], Duration::from_millis(50)).await;
    assert_eq!(quiet.status, WaitStatus::StillRunning, "a failed racer is not reported while another runs: {quiet:#?}");
    assert_eq!(race_of(&server, &racers[0]).await.winner, None);
    std::fs::write(&gate, "").unwrap();

    let answer = server.wait(&["t"], CEILING).await;
    assert_eq!(ids(&answer.settled), [racers[1].as_str(), &racers[0]], "the winner first");
    let race = race_of(&server, &racers[0]).await;
    assert_eq!(race.winner.as_ref().map(|it| it.as_str()), Some(&*racers[1]));
    assert!(answer.settled[1].block.is_none(), "the task was done");
    server.until(&after, "completed").await;
    assert_eq!(world.git(&["show", &format!("orchestrator/{after}:copy.txt")]), "right");
    let winner = racers[1].as_str();
    world
        .until_state(|file| {
            file["completed_tasks"][0]["race"]["winner"] == winner
                && file["blocked_tasks"].as_array().unwrap().is_empty()
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn losers_are_ended_and_their_work_is_kept() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let (begun, hung) = (world.shared("begun"), world.shared("hung"));
    let hang = format!("touch {}; sleep 600", hung.display());
    let script = format!(
        "usage 20 10 0.5\nwrite mine.txt x\nchild 600\ndaemon 600\ntouch {}\n{}{}commit work",
        begun.display(),
        only("stubborn", &hang),
        only("quick", &loop_until(&hung)),
    );
    let racers = start(&server, racers(&["stubborn", "quick"], &script)).await;
    let answer = server.wait(&[], CEILING).await;
    assert_eq!(ids(&answer.settled), [racers[1].as_str()], "the winner is reported at once");

    server.until(&racers[0], "cancelled").await;
    let loser = server.orchestrator.get(&racers[0]).await.unwrap();
    assert_eq!(loser.worker.last().unwrap().survivors, 0);
    assert_eq!(world.git(&["show", &format!("orchestrator/{}:mine.txt", racers[0])]), "x", "its work is kept");
    let race = race_of(&server, &racers[1]).await;
    let spent: Vec<_> = race.racers.iter().map(|it| (it.status, it.spent.map(|usage| usage.input_tokens))).collect();
    assert_eq!(spent, [(CANCELLED, Some(20)), (COMPLETED, Some(20))]);

    let rest = server.wait(&[], CEILING).await;
    assert_eq!(ids(&rest.settled), [racers[0].as_str()], "a loser is reported when nothing else can settle");
    assert_eq!(server.wait(&[], CEILING).await.status, WaitStatus::Idle);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_race_blocks_until_a_retried_racer_wins() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let script = format!("{}result error it is too hard", only("crashes", "kill -9 $PPID"));
    let racers = start(&server, racers(&["gives-up", "crashes"], &script)).await;
    let mut after = mission("after", "run cat a.txt > b.txt\ncommit b");
    after.depends_on = vec!["t".to_owned()];
    let after = server.create_one(after).await;

    let mut blocked = Vec::new();
    let mut settled = Vec::new();
    while blocked.is_empty() || settled.len() < 2 {
        let answer = server.wait(&[], CEILING).await;
        assert_ne!(answer.status, WaitStatus::Idle, "{blocked:?} {settled:?}");
        blocked.extend(answer.blocked);
        settled.extend(answer.settled.into_iter().map(|view| view.worker.id.to_string()));
    }
    let of_the_race: Vec<_> = blocked.iter().filter(|(task, _)| task.as_str() == "t").collect();
    assert_eq!(of_the_race.len(), 1, "{blocked:?}");
    for part in [&*racers[0], &racers[1], "it is too hard"] {
        assert!(of_the_race[0].1.text.contains(part), "{part}: {blocked:?}");
    }
    world.until_state(|file| file["blocked_tasks"].as_array().is_some_and(|tasks| tasks.len() == 3)).await;

    let prompt = Some("FAKE:\nwrite a.txt x\ncommit a".to_owned());
    let retry = RetryRequest { prompt, ..RetryRequest::default() };
    server.orchestrator.retry(&server.boss, &racers[0], retry).await.unwrap();
    server.until(&after, "completed").await;
    assert_eq!(race_of(&server, &racers[1]).await.winner.unwrap().as_str(), racers[0]);
    assert_eq!(server.orchestrator.get(&racers[1]).await.unwrap().block, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queued_racer_never_starts_after_the_win() {
    let world = World::new();
    let mut settings = world.settings();
    settings.max_workers = Some(1);
    let server = world.server_with(Some("boss"), settings);
    let racers = start(&server, racers(&["first", "second", "third"], "usage 1 1 0.1\nwrite a.txt x\ncommit a")).await;
    let answer = server.wait(&[], CEILING).await;
    assert_eq!(answer.settled[0].worker.id.as_str(), racers[0]);
    for loser in &racers[1..] {
        server.until(loser, "cancelled").await;
        assert!(!world.worktree(loser).exists());
    }
    let race = race_of(&server, &racers[0]).await;
    let costs: Vec<_> = race.racers.iter().map(|it| it.spent.and_then(|usage| usage.cost_usd)).collect();
    assert_eq!(costs, [Some(0.1), Some(0.0), Some(0.0)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn next_server_decides_the_race() {
    let world = World::new();
    let gate = world.path("gate");
    let script = format!(
        "write a.txt x\n{}{}commit a",
        only("quick", &loop_until(&gate)),
        only("slow", &format!("touch {}; sleep 600", world.shared("slow").display())),
    );
    let first = world.server(Some("boss"));
    let racers = start(&first, racers(&["slow", "quick"], &script)).await;
    first.until(&racers[0], "running").await;
    first.until(&racers[1], "running").await;
    until_exists(&world.shared("slow")).await;
    first.orchestrator.shut_down().await;
    std::fs::write(&gate, "").unwrap();
    until_exists(&world.repo().join(format!(".orchestrator/workers/{}/attempts/1/outcome.json", racers[1]))).await;

    // A server of another boss takes the racers over.
    let heir = world.server(Some("other"));
    heir.until(&racers[0], "cancelled").await;
    assert_eq!(race_of(&heir, &racers[0]).await.winner.unwrap().as_str(), racers[1]);
    let second = world.server(Some("boss"));
    let answer = second.wait(&["t"], CEILING).await;
    assert_eq!(answer.settled[0].worker.id.as_str(), racers[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_server_cancels_its_own_racers() {
    let world = World::new();
    let (one, two) = (world.server(Some("boss")), world.server(Some("boss")));
    let gate = world.path("gate");
    let script = format!("write a.txt x\n{}{}commit a", only("quick", &loop_until(&gate)), only("slow", "sleep 600"));
    let mut drafts = racers(&["slow", "quick"], &script);
    drafts[0].verify_command = Some("true".to_owned());
    drafts[1].verify_command = Some("true".to_owned());
    let racers = start(&one, drafts).await;
    one.until(&racers[0], "running").await;
    // The other server retries it, and has its lease from then on.
    two.orchestrator.cancel(&two.boss, &racers[0], "again").await.unwrap();
    two.orchestrator.retry(&two.boss, &racers[0], RetryRequest::default()).await.unwrap();
    two.until(&racers[0], "running").await;
    assert_ne!(
        two.orchestrator.get(&racers[0]).await.unwrap().worker.lease,
        two.orchestrator.get(&racers[1]).await.unwrap().worker.lease
    );
    std::fs::write(&gate, "").unwrap();
    two.until(&racers[0], "cancelled").await;
    assert_eq!(race_of(&two, &racers[0]).await.winner.unwrap().as_str(), racers[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loser_is_an_ordinary_worker_after_the_race() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let script = format!("write a.txt x\n{}commit a", only("loser", "sleep 600"));
    let racers = start(&server, racers(&["winner", "loser"], &script)).await;
    server.until(&racers[1], "cancelled").await;
    while server.wait(&[], CEILING).await.status != WaitStatus::Idle {}

    let text = "FAKE:\nwrite b.txt x\ncommit b".to_owned();
    let message = NewMessage { text, delivery: Delivery::WhenReady, by: None };
    server.orchestrator.send_message(&server.boss, &racers[1], message).await.unwrap();
    let answer = server.wait(&[], CEILING).await;
    assert_eq!((ids(&answer.settled), answer.settled[0].worker.status), (vec![racers[1].as_str()], COMPLETED));
    assert_eq!(race_of(&server, &racers[1]).await.winner.unwrap().as_str(), racers[0]);
    assert_eq!(server.orchestrator.get("t").await.unwrap().worker.id.as_str(), racers[0]);

    let merge = |id: &str| {
        let source = IntegrationSource::Worker(id.to_owned());
        let request = IntegrationRequest { dry_run: true, ..IntegrationRequest::of(source) };
        let (orchestrator, boss) = (server.orchestrator.clone(), server.boss.clone());
        async move { orchestrator.integrate(&boss, request).await.unwrap().notes }
    };
    assert_eq!(merge(&racers[0]).await, [""; 0]);
    let notes = merge(&racers[1]).await;
    assert!(notes[0].contains("did not win its race") && notes[0].contains(&racers[0]), "{notes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_racer_leaves_race_to_others() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let gate = world.path("gate");
    let script = format!("write a.txt x\n{}commit a", loop_until(&gate).replacen("while", "run while", 1) + "\n");
    let racers = start(&server, racers(&["one", "two"], &script)).await;
    let refused = server.orchestrator.cancel(&server.boss, "t", "no").await.unwrap_err().to_string();
    assert!(refused.contains(&racers[0]) && refused.contains(&racers[1]), "{refused}");
    server.orchestrator.cancel(&server.boss, &racers[0], "no").await.unwrap();
    std::fs::write(&gate, "").unwrap();
    let answer = server.wait(&["t"], CEILING).await;
    assert_eq!(answer.settled[0].worker.id.as_str(), racers[1]);
    assert_eq!(race_of(&server, &racers[0]).await.winner.unwrap().as_str(), racers[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn single_racer_or_refused_mission_prevents_the_race() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let alone = server.create_race(racers(&["one"], "say hi")).await.remove(0).unwrap_err();
    assert!(alone.contains("a race needs two or more"), "{alone}");
    let mut drafts = racers(&["one", "two"], "say hi");
    drafts[1].backend = "nobody".into();
    let made = server.create_race(drafts).await;
    assert!(made[0].as_ref().is_err_and(|why| why.contains("mission 1")), "{made:?}");
    assert!(made[1].as_ref().is_err_and(|why| why.contains("nobody")), "{made:?}");
    assert_eq!(server.wait(&[], CEILING).await.status, WaitStatus::Idle);
}
