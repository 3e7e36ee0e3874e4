//! One boss leads all four CLIs and an agent of the Agent Client Protocol at once: it creates a batch, waits until all
//! have settled, and merges.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use crate::model_server::Script;
use crate::real_cli::Cli;
use crate::world::{self, World};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_of_all_clis_and_agent_is_merged() {
    let agent = Path::new(env!("CARGO_BIN_EXE_orchestrator-boss")).with_file_name("examples/fake-cli");
    let settings = format!("[[custom]]\nname = \"agent\"\nprogram = {agent:?}\nargs = [\"--acp\"]\noutput = \"acp\"\n");
    world::with_settings(Cli::Claude, &settings, leads_all).await;
}

async fn leads_all(world: &World) {
    let status = world.call("get_backend_status", json!({})).await;
    for cli in Cli::ALL {
        let known = find(&status["backends"], "backend", world::backend(cli));
        assert_eq!(known["installed"], true, "{known:#}");
        assert!(known["version"].is_string(), "{known:#}");
        assert_ne!(known["authenticated"], "no", "{known:#}");
    }

    let missions = Cli::ALL.into_iter().map(|cli| {
        let file = format!("{}.txt", cli.program());
        let commit = format!("git add {file} && git commit -qm 'add {file}'");
        world::mission(cli, &Script::new().write(&file, "x\n").run(&commit).say("committed"))
    });
    let script = "FAKE:\nwrite agent.txt x\ncommit add agent.txt\nsay committed";
    let agent = json!({"title": "try", "backend": "agent", "prompt": script});
    let missions: Vec<Value> = missions.chain([agent]).collect();
    let created = world.call("batch_create_workers", json!({"workers": missions})).await;
    assert_eq!((&created["created"], &created["failed"]), (&json!(5), &json!(0)), "{created:#}");

    let mut workers = BTreeSet::new();
    while workers.len() < 5 {
        let answer = world.next_report().await;
        assert_eq!(answer["status"], "settled", "{answer:#}");
        for worker in answer["settled"].as_array().expect("a list") {
            assert_eq!(worker["status"], "completed", "{worker:#}");
            assert!(
                workers.insert(worker["worker_id"].as_str().expect("an id").to_owned()),
                "reported twice: {worker:#}"
            );
        }
    }
    assert_eq!(world.call("wait_for_any_worker", json!({"timeout_seconds": 0})).await["status"], "idle");

    for worker in &workers {
        let merged = world.call("integrate_worker", json!({"worker_id": worker})).await;
        assert_eq!((&merged["status"], &merged["integrated"]), (&json!("merged"), &json!([worker])), "{merged:#}");
    }
    assert_eq!(world.git(&["ls-files"]), "README\nagent.txt\nclaude.txt\ncodex.txt\ngemini.txt\nopencode.txt");
    assert_eq!(world.git(&["status", "--porcelain"]), "");
}

fn find<'a>(list: &'a Value, key: &str, value: &str) -> &'a Value {
    let found = list.as_array().and_then(|list| list.iter().find(|item| item[key] == value));
    found.unwrap_or_else(|| panic!("{value} is not in {list:#}"))
}
