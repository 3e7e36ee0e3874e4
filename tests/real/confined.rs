//! Whole missions of the real CLIs in the confinement, with resume and cancel: they work, the user's settings stay byte
//! for byte the same, and what the CLIs write by themselves stops no integration.

use std::collections::BTreeMap;
use std::fs;

use orchestrator_boss::process::confine::{Support, support};
use serde_json::{Value, json};

use crate::model_server::Script;
use crate::real_cli::{Cli, ScratchHome};
use crate::world::{World, with_home};

/// Settings of the user, which a mission must not change.
const SETTINGS: [(&str, &str); 9] = [
    (".claude.json", "{\n  \"numStartups\": 7,\n  \"mcpServers\": {}\n}\n"),
    (".claude/settings.json", "{\"sandbox\": {\"enabled\": true}, \"permissions\": {\"deny\": [\"Read(./x)\"]}}\n"),
    (".claude/CLAUDE.md", "Be brief.\n"),
    (".claude/hooks/stop.sh", "true\n"),
    (".codex/AGENTS.md", "Be brief.\n"),
    (".gemini/GEMINI.md", "Be brief.\n"),
    (".gemini/.env", "X=1\n"),
    (".ssh/id", "secret\n"),
    (".profile", "true\n"),
];
/// Settings that the home has already.
const OF_THE_HOME: [&str; 4] =
    [".codex/config.toml", ".gemini/settings.json", ".config/opencode/opencode.json", "gitconfig"];

const CONFINED: &str = "confine = \"require\"\nconfine_unreadable = [\"~/.ssh\"]\n";

/// The same for workers that have a clone.
const CLONED: &str = "confine = \"require\"\nconfine_git = \"clone\"\n";

/// Runs a test in a world of each CLI with these settings, unless the kernel cannot confine.
macro_rules! confined {
    ($test:ident: $settings:ident: $($cli:ident)*) => {
        mod $test {
            use crate::real_cli::Cli;

            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[allow(non_snake_case)]
            async fn $cli() {
                super::confined(Cli::$cli, super::$settings, super::$test).await;
            })*
        }
    };
}

confined!(mission_leaves_settings_of_the_user: CONFINED: Claude Codex Gemini OpenCode);
confined!(mission_in_a_clone_brings_its_commits: CLONED: Claude Codex Gemini OpenCode);

async fn confined(cli: Cli, settings: &str, test: impl AsyncFnOnce(&World)) {
    if let Support::No { why } = support() {
        assert!(std::env::var_os("CI").is_none(), "the kernel cannot confine: {why}");
        eprintln!("SKIPPED: the kernel cannot confine: {why}");
        return;
    }
    with_home(cli, settings, prepare, test).await;
}

/// Writes the settings. Claude Code keeps its state where it is without a variable.
fn prepare(home: &mut ScratchHome) {
    home.unset("CLAUDE_CONFIG_DIR");
    for (path, text) in SETTINGS {
        home.write(path, text);
    }
}

fn settings(world: &World) -> BTreeMap<&'static str, String> {
    let names = SETTINGS.iter().map(|(name, _)| *name).chain(OF_THE_HOME);
    names.map(|name| (name, fs::read_to_string(world.path(name)).unwrap_or_default())).collect()
}

async fn mission_leaves_settings_of_the_user(world: &World) {
    let before = settings(world);
    let secret = format!("cat {}", world.path(".ssh/id").display());
    let script = Script::new()
        .run(&format!("if {secret}; then touch readable; fi; echo x > a.txt && git add -A && git commit -qm a"))
        .say("done");
    let worker = world.start(&script, json!({})).await;
    let settled = world.settled(&worker).await;
    check(&settled, 1);
    assert_eq!(settled["outcome"]["changes"]["files"], json!(["a.txt"]), "{settled:#}");
    let details = world.details(&worker, &[]).await;
    assert_eq!(details["worker"]["confined"]["reads"], "limited", "{details:#}");
    let notes = settled["outcome"]["changes"]["notes"].to_string();
    assert!(notes.contains("refused reading") && !notes.contains("refused writing"), "{settled:#}");

    world.call("send_message_to_worker", json!({"worker_id": worker, "message": "go on"})).await;
    let resumed = world.settled(&worker).await;
    check(&resumed, 2);
    assert_eq!(resumed["final_message"], "heard: go on", "{resumed:#}");

    let sleep = Script::new().run("touch started; sleep 300").say("slept");
    let cancelled = world.start(&sleep, json!({})).await;
    world.until_made(&cancelled, "started").await;
    let answer = world.call("cancel_worker", json!({"worker_id": cancelled, "reason": "enough"})).await;
    assert_eq!((&answer["status"], &answer["survivors"]), (&json!("cancelled"), &json!(0)), "{answer:#}");
    world.call("send_message_to_worker", json!({"worker_id": cancelled, "message": "go on"})).await;
    check(&world.settled(&cancelled).await, 2);

    assert_eq!(settings(world), before);
    integrates(world, &worker).await;
}

async fn mission_in_a_clone_brings_its_commits(world: &World) {
    let before = settings(world);
    let commit = |name: &str| format!("test -d .git && echo x > {name} && git add -A && git commit -qm {name}");
    let script = Script::new().run(&format!("{} && git tag -a -m note v1", commit("a.txt"))).say("done");
    let worker = world.start(&script, json!({"verify_command": "test -d .git && git cat-file tag v1"})).await;
    check(&world.settled(&worker).await, 1);
    let details = world.details(&worker, &[]).await;
    assert_eq!(details["worker"]["confined"]["git"], "clone", "{details:#}");
    // The same session works in the next clone.
    world.call("send_message_to_worker", json!({"worker_id": worker, "message": "go on"})).await;
    let resumed = world.settled(&worker).await;
    check(&resumed, 2);
    assert_eq!(resumed["final_message"], "heard: go on", "{resumed:#}");

    let sleep = Script::new().run(&format!("{}; touch started; sleep 300", commit("c.txt"))).say("slept");
    let cancelled = world.start(&sleep, json!({})).await;
    world.until_made(&cancelled, "started").await;
    let answer = world.call("cancel_worker", json!({"worker_id": cancelled, "reason": "enough"})).await;
    assert_eq!((&answer["status"], &answer["survivors"]), (&json!("cancelled"), &json!(0)), "{answer:#}");
    for (id, subject) in [(&worker, "a.txt"), (&cancelled, "c.txt")] {
        assert!(world.worktree(id).join(".git").is_file());
        let commits = world.git(&["log", "--format=%s", &format!("main..orchestrator/{id}")]);
        assert!(commits.lines().any(|line| line == subject), "{commits}");
    }
    assert_eq!(settings(world), before);
    integrates(world, &worker).await;
}

fn check(settled: &Value, attempt: u32) {
    let found = (&settled["status"], &settled["enforced"], &settled["attempt"]);
    assert_eq!(found, (&json!("completed"), &json!("kernel"), &json!(attempt)), "{settled:#}");
    let notes = settled["outcome"]["changes"]["notes"].to_string();
    assert!(!notes.contains("settings of its CLI"), "{settled:#}");
}

async fn integrates(world: &World, worker: &str) {
    let answer = world.call("integrate_worker", json!({"worker_id": worker})).await;
    assert_eq!(answer["status"], "merged", "{answer:#}");
    assert!(!world.repo().join(".orchestrator/cli-settings").exists());
}
