//! `attach` becomes the CLI of a settled worker, in its worktree and session, and is refused otherwise.

use std::io::Write;
use std::process::Stdio;

use serde_json::json;

use crate::support::sandbox::fake_cli;
use crate::world::*;

/// Returns settings with a backend whose session opens in the terminal, and one without sessions.
fn settings() -> String {
    format!(
        "[[custom]]\nname = \"talker\"\nprogram = {:?}\noutput = \"jsonl\"\nenv = {{ GREETING = \"hello\" }}\n\
         attach_args = [\"--resume\", \"{{session_id}}\"]\n[[custom]]\nname = \"mute\"\nprogram = \"true\"\n",
        fake_cli()
    )
}

#[test]
fn attach_becomes_the_cli_in_worktree_and_session() {
    let world = World::with(&settings());
    let mut boss = world.boss();
    let worker = create(&mut boss, with(mission("talk", "session ses-9\nsay hello"), "backend", "talker"));
    until_status(&mut boss, &worker, "completed");
    let mut command = world.program(&["attach", "w-1"]);
    command.env("CLAUDE_CODE_SESSION_ID", "the-boss").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let pid = child.id().to_string();
    let script = "FAKE:\npid pid\nenv PWD directory\nenv GREETING greeting\nenv CLAUDE_CODE_SESSION_ID boss\nexit 5\n";
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let said = wait_for_end(child).ended(5);
    assert!(said.contains("ses-9"), "{said}");
    let worktree = world.worktree(&worker);
    let written = |name: &str| std::fs::read_to_string(worktree.join(name)).unwrap().trim().to_owned();
    assert_eq!(written("pid"), pid, "it is another process");
    let found = ["directory", "greeting", "boss"].map(written);
    assert_eq!(found, [format!("set {}", worktree.display()), "set hello".into(), "unset".into()]);
}

#[test]
fn attach_is_refused_with_the_reason() {
    let world = World::with(&settings());
    let mut boss = world.boss();
    let open = create(&mut boss, with(mission("open", "wait-file ../../repo/go"), "backend", "talker"));
    until_status(&mut boss, &open, "running");
    let refused = |worker: &str, why: &str| {
        let ran = world.run(&["attach", worker]);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.stderr.contains(why), "{why} in {ran:?}");
    };
    refused(&open, "it is running; `orchestrator-boss wait");
    std::fs::write(world.repo().join("go"), "").unwrap();
    until_status(&mut boss, &open, "completed");
    let other = create(&mut boss, mission("other", "session ses-9\nsay x"));
    let mute = create(&mut boss, with(mission("mute", "say x"), "backend", "mute"));
    until_status(&mut boss, &other, "completed");
    until_status(&mut boss, &mute, "completed");
    refused(&other, "fake cannot open a session in the terminal; set attach_args");
    refused(&mute, "it has no session; `orchestrator-boss open");
    boss.succeed("remove_worktree", json!({"worker_id": open, "force": true}));
    refused(&open, "it was removed");
    assert_eq!(world.run(&["attach", "w-9"]).code, Some(2));
}
