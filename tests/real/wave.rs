//! One boss leads all four CLIs at once: it creates a batch, waits until all have settled, and merges.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::model_server::Script;
use crate::real_cli::Cli;
use crate::world::{self, World};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_of_four_clis_is_merged() {
    world::with(Cli::Claude, leads_all_four).await;
}

async fn leads_all_four(world: &World) {
    let status = world.call("get_backend_status", json!({})).await;
    for cli in Cli::ALL {
        let known = find(&status["backends"], "backend", world::backend(cli));
        assert_eq!(known["installed"], true, "{known:#}");
        assert!(known["version"].is_string(), "{known:#}");
        assert_ne!(known["authenticated"], "no", "{known:#}");
    }

    let missions = Cli::ALL.map(|cli| {
        let file = format!("{}.txt", cli.program());
        let commit = format!("git add {file} && git commit -qm 'add {file}'");
        world::mission(cli, &Script::new().write(&file, "x\n").run(&commit).say("committed"))
    });
    let created = world.call("batch_create_workers", json!({"workers": missions})).await;
    assert_eq!((&created["created"], &created["failed"]), (&json!(4), &json!(0)), "{created:#}");

    let mut workers = BTreeSet::new();
    while workers.len() < 4 {
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
    assert_eq!(world.git(&["ls-files"]), "README\nclaude.txt\ncodex.txt\ngemini.txt\nopencode.txt");
    assert_eq!(world.git(&["status", "--porcelain"]), "");
}

fn find<'a>(list: &'a Value, key: &str, value: &str) -> &'a Value {
    let found = list.as_array().and_then(|list| list.iter().find(|item| item[key] == value));
    found.unwrap_or_else(|| panic!("{value} is not in {list:#}"))
}
