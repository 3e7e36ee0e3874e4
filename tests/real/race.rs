//! Two real CLIs race for one task: the first verified one wins, and no process of the other one is left.

use serde_json::json;

use crate::model_server::Script;
use crate::real_cli::Cli;
use crate::world::{self, World, processes};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_verified_racer_wins_and_others_end() {
    world::with(Cli::Claude, one_wins).await;
}

async fn one_wins(world: &World) {
    // No other process on this machine sleeps with this duration.
    let sleep = format!("sleep 300.{}", world.model.url().rsplit(':').next().expect("an address has a port"));
    let hang = format!("touch started; (setsid {sleep} &) ; {sleep}");
    let follow = "while [ ! -e ../w-1-slow/started ]; do sleep 0.1; done";
    let work = "echo right > right.txt; git add right.txt; git commit -qm right";
    let command = format!("sh -c 'case \"$PWD\" in *-slow) {hang};; *-fast) {follow};; esac; {work}'");
    let script = Script::new().run(&command).say("done");
    let racer = |cli, title: &str| {
        let mut mission = world::mission(cli, &script);
        mission["title"] = title.into();
        mission["verify_command"] = "grep -q right right.txt".into();
        mission
    };
    let race = json!({"race": true, "workers": [racer(Cli::Codex, "slow"), racer(Cli::Claude, "fast")]});
    let created = world.call("batch_create_workers", race).await;
    assert_eq!((&created["created"], &created["race_id"]), (&json!(2), &json!("race-1")), "{created:#}");
    world.until_made("w-1-slow", "started").await;

    let answer = world.next_report().await;
    assert_eq!(answer["status"], "settled", "{answer:#}");
    let winner = &answer["settled"][0];
    assert_eq!((&winner["worker_id"], &winner["status"]), (&json!("w-2-fast"), &json!("completed")), "{winner:#}");
    assert_eq!(winner["outcome"]["verification"]["result"], "passed", "{winner:#}");
    assert_eq!(winner["race"]["winner"], "w-2-fast", "{winner:#}");
    let racers = winner["race"]["racers"].as_array().expect("a list");
    assert_eq!(racers.len(), 2, "{winner:#}");
    for racer in racers {
        let has_cost = ["cost_usd", "tokens"].iter().any(|known| racer[*known].is_number());
        assert!(
            has_cost || racer["cost_unknown"] == true,
            "the cost is neither reported nor marked as unknown: {racer:#}"
        );
    }

    let loser = world.settled("w-1-slow").await;
    assert_eq!((&loser["status"], &loser["race"]["winner"]), (&json!("cancelled"), &json!("w-2-fast")), "{loser:#}");
    assert!(loser["survivors"].is_null(), "{loser:#}");
    let left: Vec<_> = processes().into_iter().filter(|it| it.command.contains(&sleep)).collect();
    assert!(left.is_empty(), "{left:?}");

    let merged = world.call("integrate_worker", json!({"worker_id": "w-2-fast"})).await;
    assert_eq!(merged["status"], "merged", "{merged:#}");
    assert_eq!(world.git(&["ls-files"]), "README\nright.txt");
}
