//! Permissions that a CLI is documented to enforce are enforced.

use std::fs;
use std::path::Path;

use orchestrator_boss::process::confine::{Support, support};
use serde_json::json;

use crate::model_server::Script;
use crate::real_cli::Cli;
use crate::world::{World, enforced, with_settings};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sandbox_of_codex_is_used_without_confinement() {
    with_settings(Cli::Codex, "confine = \"off\"\n", sandboxed_worker_stays_in_its_worktree).await;
}

with_each_cli!(read_only_worker_changes_nothing: Claude Codex Gemini OpenCode);

async fn read_only_worker_changes_nothing(world: &World) {
    let script = Script::new()
        .write("by-tool.txt", "x\n")
        .run("echo x > by-command.txt")
        .run("git commit -q --allow-empty -m 'by command'")
        .say("I could not");
    let worker = world.start(&script, json!({"permissions": "read_only"})).await;
    let settled = world.settled(&worker).await;

    let worktree = world.worktree(&worker);
    assert_eq!(world.git_in(&worktree, &["status", "--porcelain", "--ignored"]), "");
    assert_eq!(world.git_in(&worktree, &["rev-parse", "HEAD"]), world.git(&["rev-parse", "main"]));
    assert_eq!(fs::read_dir(&worktree).expect("it is kept").count(), 2, "README and .git");
    assert_eq!(settled["outcome"]["changes"]["commits"], 0);
    assert_eq!(settled["status"], "completed", "{settled:#}");
    assert_eq!(settled["final_message"], "I could not", "{settled:#}");
    let otherwise = if world.cli == Cli::Codex { "sandbox" } else { "cli" };
    assert_eq!(settled["enforced"], enforced(otherwise), "{settled:#}");
    // The results in the model's requests show that all three were tried.
    let results = world.asked().last().and_then(|it| it.conversation.clone()).expect("a request to the model");
    assert!(results.turns.len() >= 6, "{:?}", results.turns);
}

/// Checks a sandbox. Codex allows writes to temporary folders, except to this one.
async fn sandboxed_worker_stays_in_its_worktree(world: &World) {
    let name = world.path("").file_name().expect("a name").to_string_lossy().into_owned();
    let outside = Path::new("/var/tmp").join(name);
    let script = Script::new().run(&format!("echo x > {}", outside.display())).run("echo x > inside.txt").say("done");
    let worker = world.start(&script, json!({})).await;
    let settled = world.settled(&worker).await;
    assert_eq!((&settled["status"], &settled["enforced"]), (&json!("completed"), &json!("sandbox")), "{settled:#}");
    assert_eq!(settled["outcome"]["changes"]["files"], json!(["inside.txt"]));
    assert!(fs::remove_file(&outside).is_err(), "it wrote {}", outside.display());
}

/// Runs the test of the confinement in a world of each CLI, unless the kernel cannot confine.
macro_rules! with_each_confined_cli {
    ($($cli:ident)*) => {
        mod confined_worker_stays_in_its_worktree {
            use crate::real_cli::Cli;
            use crate::world::with_settings;

            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[allow(non_snake_case)]
            async fn $cli() {
                if super::kernel_confines() {
                    with_settings(Cli::$cli, "confine = \"require\"\n", super::confined_worker_stays_in_its_worktree).await;
                }
            })*
        }
    };
}

with_each_confined_cli!(Claude Codex Gemini OpenCode);

fn kernel_confines() -> bool {
    let support = support();
    if let Support::No { why } = &support {
        eprintln!("SKIPPED: the kernel cannot confine: {why}");
    }
    matches!(support, Support::Yes(_))
}

async fn confined_worker_stays_in_its_worktree(world: &World) {
    let name = world.path("").file_name().expect("a name").to_string_lossy().into_owned();
    let outside = Path::new("/var/tmp").join(name);
    let [readme, profile, claude] = [world.repo().join("README"), world.path(".profile"), world.path(".claude.json")];
    fs::write(&profile, "old\n").expect("a file in the scratch home");
    let before = fs::read(&claude).ok();
    let mut script = Script::new();
    for path in [&outside, &readme, &profile] {
        script = script.run(&format!("echo x >> {}", path.display()));
    }
    let worker = world.start(&script.run("echo x > inside.txt").say("done"), json!({})).await;
    let settled = world.settled(&worker).await;
    assert_eq!((&settled["status"], &settled["enforced"]), (&json!("completed"), &json!("kernel")), "{settled:#}");
    assert_eq!(settled["outcome"]["changes"]["files"], json!(["inside.txt"]));
    assert!(fs::remove_file(&outside).is_err(), "it wrote {}", outside.display());
    assert_eq!(fs::read_to_string(&readme).expect("it is there"), "hello\n");
    assert_eq!(fs::read_to_string(&profile).expect("it is there"), "old\n");
    assert_eq!(fs::read(&claude).ok(), before, "it wrote {}", claude.display());
}

with_each_cli!(files_of_the_cli_are_not_work: Claude Codex Gemini OpenCode);

/// Configuration files that CLIs read in a project and may complete or update.
const PROJECT_FILES: [(&str, &str); 8] = [
    ("opencode.json", "{\n  \"instructions\": []\n}\n"),
    (".opencode/opencode.jsonc", "{ \"instructions\": [] }\n"),
    (".opencode/agent/reviewer.md", "---\ndescription: reviews\nmode: subagent\n---\nReview.\n"),
    (".claude/settings.json", "{}\n"),
    (".gemini/settings.json", "{}\n"),
    (".codex/config.toml", "# ours\n"),
    ("AGENTS.md", "Be brief.\n"),
    ("package.json", "{\"name\": \"x\", \"private\": true}\n"),
];

async fn files_of_the_cli_are_not_work(world: &World) {
    for (path, text) in PROJECT_FILES {
        let path = world.repo().join(path);
        fs::create_dir_all(path.parent().expect("a path with a parent")).expect("a folder");
        fs::write(path, text).expect("a file");
    }
    world.git(&["add", "-A"]);
    world.git(&["commit", "-q", "-m", "project files"]);
    let script = Script::new()
        .run("echo x > mine.txt && git add -A && git commit -qm mine")
        .run("echo y > left.txt")
        .say("done");
    let worker = world.start(&script, json!({})).await;
    let settled = world.settled(&worker).await;
    assert_eq!(settled["status"], "completed", "{settled:#}");
    let worktree = world.worktree(&worker);
    assert_eq!(world.git_in(&worktree, &["diff", "--name-only", "main", "HEAD"]), "left.txt\nmine.txt");
    assert_eq!(world.git_in(&worktree, &["status", "--porcelain"]), "");

    let reader = world.start(&Script::new().say("I have read it"), json!({"permissions": "read_only"})).await;
    assert_eq!(world.settled(&reader).await["outcome"]["changes"]["commits"], 0);
    assert_eq!(world.git_in(&world.worktree(&reader), &["status", "--porcelain"]), "");
}
