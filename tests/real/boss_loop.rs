//! A whole session of each real CLI as the boss: it checks the backends, starts workers of other CLIs, waits, sends one
//! a message, cancels one, reads a diff and merges. The model takes ids from earlier answers.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::lead::{command, setup, tool_name, write};
use crate::model_server::Script;
use crate::real_cli::{Cli, run_to_end};
use crate::world::{self, CEILING, World};

with_each_cli!(boss_leads_workers_of_other_clis: Claude Codex Gemini OpenCode);

async fn boss_leads_workers_of_other_clis(world: &World) {
    lead_by(world);
    world.model.register("loop", session(world));
    let ended = run_to_end(&mut command(world), "Lead. SCRIPT:loop", CEILING);
    let received = received(world);
    assert!(ended.status.success(), "{ended:?}\n{received}");
    assert!(received.contains("claudecode") && received.contains("installed"), "the backends: {received}");
    assert!(received.contains("+heard"), "the diff: {received}");
    assert!(!received.contains("never told"), "{received}");

    assert_eq!(world.git(&["show", "HEAD:made.txt"]), "made");
    assert_eq!(world.git(&["show", "HEAD:heard.txt"]), "heard");
    assert_eq!(world.git(&["status", "--porcelain"]), "");
    let expected = ["Hang: cancelled, -", "Make: completed, main", "Talk: completed, main"];
    // The state file follows within 100 ms, or at the server's exit.
    let began = Instant::now();
    while tasks(&state(world)) != expected {
        assert!(began.elapsed() < CEILING, "{:#}", state(world));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Returns how each task ended.
fn tasks(state: &Value) -> Vec<String> {
    let tasks = ["tasks", "completed_tasks", "blocked_tasks"].map(|list| state[list].as_array().expect("a list"));
    let mut tasks: Vec<_> = tasks.into_iter().flatten().map(ended_how).collect();
    tasks.sort();
    tasks
}

/// Returns how a task ended; an open one has no ending.
fn ended_how(task: &Value) -> String {
    let text = |key: &str| task[key].as_str().unwrap_or("-").to_owned();
    let open = if task["settled_at"].is_string() { "" } else { " (open)" };
    format!("{}: {}, {}{open}", text("description"), text("status"), text("integrated_into"))
}

/// Returns the script of the session. The order is fixed: the real worker ends before the other calls.
fn session(world: &World) -> Script {
    let make = Script::new().write("made.txt", "made\n").say("done");
    let mut make = world::mission(worker_of(world.cli), &make);
    make["title"] = "Make".into();
    let fake =
        |title: &str, lines: &str| json!({"title": title, "prompt": format!("FAKE:\n{lines}"), "backend": "fake"});
    let missions = [make, fake("Talk", "session s-1\nhang"), fake("Hang", "ignore-term\nhang")];
    let message = "FAKE:\nwrite heard.txt heard\ncommit Hear it";
    let tool = |name: &str| tool_name(world.cli, name);
    Script::new()
        .call(&tool("get_backend_status"), json!({}))
        .call(&tool("batch_create_workers"), json!({"workers": missions}))
        .until(&tool("wait_for_worker"), json!({"worker_id": "{worker:make}", "timeout_seconds": 20}), "status:settled")
        .until(&tool("get_worker_status"), json!({"worker_id": "{worker:talk}"}), "status:running")
        .call(
            &tool("send_message_to_worker"),
            json!({"worker_id": "{worker:talk}", "message": message, "delivery": "interrupt"}),
        )
        .call(&tool("cancel_worker"), json!({"worker_id": "{worker:hang}", "reason": "it hangs"}))
        .until(&tool("wait_for_any_worker"), json!({"timeout_seconds": 20}), "status:idle")
        .call(&tool("get_worker_status"), json!({"worker_id": "{worker:talk}", "include": ["diff"]}))
        .call(&tool("integrate_worker"), json!({"worker_id": "{worker:make}"}))
        .call(&tool("integrate_worker"), json!({"worker_id": "{worker:talk}"}))
        .say("all is merged")
}

/// Returns another CLI, which needs no variables that this boss withholds from its servers.
fn worker_of(boss: Cli) -> Cli {
    match boss {
        Cli::Claude | Cli::OpenCode => Cli::Codex,
        Cli::Codex | Cli::Gemini => Cli::OpenCode,
    }
}

/// Registers the server, with the fake CLI as one more backend.
pub fn lead_by(world: &World) {
    let fake = Path::new(env!("CARGO_BIN_EXE_orchestrator-boss")).with_file_name("examples/fake-cli");
    let settings = format!(
        "max_workers = 4\n[[custom]]\nname = \"fake\"\nprogram = {fake:?}\noutput = \"jsonl\"\nresume_args = [\"--resume\", \"{{session_id}}\"]\n"
    );
    write(&world.path(".config/orchestrator-boss/config.toml"), &settings);
    // Codex passes on no variable with the path of the sealed home's git settings.
    world.git(&["config", "user.name", "Test"]);
    world.git(&["config", "user.email", "test@localhost"]);
    setup(world, &[]);
}

/// Returns everything that the boss's model received.
pub fn received(world: &World) -> String {
    world.asked().iter().map(|request| request.body.to_string()).collect::<Vec<_>>().join("\n")
}

fn state(world: &World) -> Value {
    let path = world.repo().join(".orchestrator/orchestrator-state.json");
    serde_json::from_slice(&fs::read(path).expect("the server wrote it")).expect("valid JSON")
}
