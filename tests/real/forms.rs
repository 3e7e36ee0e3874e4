//! Claude Code in a terminal shows the question of a worker as a form of its own, while the boss has ended its turn. The
//! boss is not asked; the end of its wait wakes it.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::boss_loop::lead_by;
use crate::interactive::Terminal;
use crate::model_server::Script;
use crate::woken::{begin, finish, last_request, start, wait_tool};
use crate::world::World;

const RIGHT: &str = "\x1b[C";
const DOWN: &str = "\x1b[B";

with_each_cli!(accepted_form_allows: Claude);
with_each_cli!(declined_form_denies: Claude);

async fn accepted_form_allows(world: &World) {
    let mut terminal = shown_form(world);
    press(&mut terminal, RIGHT, "Spacetoselect");
    press(&mut terminal, " ", "Decision:▸allow");
    press(&mut terminal, DOWN, "Typesomething");
    press(&mut terminal, DOWN, "❯Accept");
    terminal.send_until_shown("\r", "Allisdone");
    let last = last_request(world);
    assert!(last.contains("ask: once") && !last.contains("permission_denials"), "{last}");
    assert!(log(world).contains("answered by the user: allow"), "{}", log(world));
    terminal.end();
}

async fn declined_form_denies(world: &World) {
    let mut terminal = shown_form(world);
    press(&mut terminal, DOWN, "Typesomething");
    press(&mut terminal, DOWN, "❯Accept");
    press(&mut terminal, DOWN, "❯Decline");
    terminal.send_until_shown("\r", "Allisdone");
    let last = last_request(world);
    assert!(last.contains(r#""permission_denials":1,"denied":["edit: /etc/hosts"#), "{last}");
    assert!(log(world).contains("answered by the user: deny"), "{}", log(world));
    terminal.end();
}

/// Opens a terminal whose boss has ended its turn when a worker asks, and waits for the form.
fn shown_form(world: &World) -> Terminal {
    let mission =
        json!({"title": "ask", "prompt": "FAKE:\nwait-file go 100\nask edit /etc/hosts\nsay done", "backend": "agent"});
    let script = Script::new()
        .call(&wait_tool(world, "create_worker_mission"), mission)
        .call(&wait_tool(world, "wait_for_any_worker"), json!({}))
        .rest("I rest")
        .say("All is done");
    lead_by(world);
    allow_questions(world);
    let mut terminal = start(world, script, &[]);
    begin(&mut terminal);
    terminal.until_shown("Irest");
    finish(world, "w-1-ask");
    terminal.until_shown("w-1-askasks:permissionforedit:/etc/hosts");
    terminal.until_shown("Esctoanswerlater");
    terminal
}

/// Sets the policy `ask`, and adds an agent that can ask.
fn allow_questions(world: &World) {
    let path = world.path(".config/orchestrator-boss/config.toml");
    let settings = fs::read_to_string(&path).expect("written before");
    let fake = Path::new(env!("CARGO_BIN_EXE_orchestrator-boss")).with_file_name("examples/fake-cli");
    let agent = format!(
        "[[custom]]\nname = \"agent\"\nprogram = {fake:?}\noutput = \"acp\"\nargs = [\"--acp\", \"--quick\"]\n"
    );
    fs::write(&path, format!("questions = \"ask\"\n{settings}{agent}")).expect("a writable file");
}

fn press(terminal: &mut Terminal, key: &str, then_shown: &str) {
    terminal.send(key);
    terminal.until_shown(then_shown);
}

/// Returns the events of the worker, as the user reads them.
fn log(world: &World) -> String {
    let mut command = world.home.command(env!("CARGO_BIN_EXE_orchestrator-boss"));
    let output = command.args(["logs", "w-1"]).current_dir(world.repo()).output().expect("the program runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
