//! Three real CLIs and a task graph: dependencies are in the worktree at the start, and all work is merged and
//! verified.

use serde_json::{Value, json};

use crate::model_server::Script;
use crate::real_cli::Cli;
use crate::world::{self, World};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dependent_tasks_end_in_one_verified_branch() {
    world::with(Cli::Claude, builds_on_two).await;
}

async fn builds_on_two(world: &World) {
    let commit = |file: &str| format!("git add {file} && git commit -qm 'add {file}'");
    let mission = |cli, task: &str, script: Script, verify: &str| {
        let mut mission = world::mission(cli, &script.say("committed"));
        (mission["title"], mission["task_id"], mission["verify_command"]) = (task.into(), task.into(), verify.into());
        mission
    };
    let file = |name: &str| Script::new().write(name, &format!("{name}\n")).run(&commit(name));
    let mut joined = mission(
        Cli::OpenCode,
        "joined",
        Script::new().run(&format!("cat one.txt two.txt > joined.txt && {}", commit("joined.txt"))),
        "grep -q one.txt joined.txt && grep -q two.txt joined.txt",
    );
    joined["depends_on"] = json!(["one", "two"]);
    let missions = [
        // The dependent task is created before its dependencies.
        joined,
        mission(Cli::Codex, "one", file("one.txt"), "test -f one.txt"),
        mission(Cli::Claude, "two", file("two.txt"), "test -f two.txt"),
    ];
    let created = world.call("batch_create_workers", json!({"workers": missions})).await;
    assert_eq!((&created["created"], &created["failed"]), (&json!(3), &json!(0)), "{created:#}");

    let mut reported: Vec<Value> = Vec::new();
    while reported.len() < 3 {
        let answer = world.next_report().await;
        assert_eq!(answer["status"], "settled", "{answer:#}");
        reported.extend(answer["settled"].as_array().expect("a list").iter().cloned());
    }
    for worker in &reported {
        assert_eq!(worker["status"], "completed", "{worker:#}");
        assert_eq!(worker["outcome"]["verification"]["result"], "passed", "{worker:#}");
    }
    assert_eq!(reported[2]["task_id"], "joined", "the dependent task settles last: {reported:#?}");

    let ids: Vec<&Value> = ["one", "two", "joined"]
        .map(|task| &reported.iter().find(|it| it["task_id"] == task).expect("all were reported")["worker_id"])
        .to_vec();
    let merged = world
        .call(
            "integrate_worker",
            json!({"worker_ids": ids, "verify_command": "cat one.txt two.txt | cmp - joined.txt"}),
        )
        .await;
    assert_eq!((&merged["status"], &merged["integrated"]), (&json!("merged"), &json!(ids)), "{merged:#}");
    assert_eq!(merged["verification"]["result"], "passed", "{merged:#}");
    assert_eq!(merged["verification"]["commit"], json!(world.git(&["rev-parse", "main"])), "{merged:#}");
    assert_eq!(world.git(&["ls-files"]), "README\njoined.txt\none.txt\ntwo.txt");
    assert_eq!(world.git(&["status", "--porcelain"]), "");
}
