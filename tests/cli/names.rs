//! Every command that takes a worker accepts each of its names: number, id in any case, task and branch.

use serde_json::json;

use crate::world::*;

#[test]
fn every_command_accepts_every_name() {
    let world = World::new();
    let mut boss = world.boss();
    create(&mut boss, mission("other", "say nothing"));
    let work = with(mission("Fix it", "write a.txt a\ncommit a\nsession ses-9"), "task_id", json!("the-task"));
    let id = create(&mut boss, work);
    until_status(&mut boss, &id, "completed");
    let (upper, branch) = (id.to_uppercase(), format!("orchestrator/{id}"));
    let full = format!("refs/heads/{branch}");
    let names = ["2", "w-2", "W-2", &id, &upper, "the-task", &branch, &full];
    for name in names {
        for (command, code, says) in [
            (&["status"][..], 0, "Fix it"),
            (&["logs"], 0, "completed"),
            (&["diff"], 0, "+a"),
            (&["path"], 0, id.as_str()),
            (&["open"], 0, ""),
            (&["attach"], 1, "fake cannot open a session"),
            (&["wait"], 0, id.as_str()),
            (&["cancel"], 0, "already finished"),
            (&["integrate", "--dry-run"], 0, "would merge into main"),
        ] {
            let mut program = world.program(command);
            let ran = Ran::of(program.arg(name).env("VISUAL", "true").output().unwrap());
            assert_eq!(ran.code, Some(code), "{command:?} {name}: {ran:?}");
            assert!(ran.stdout.contains(says) || ran.stderr.contains(says), "{command:?} {name}: {ran:?}");
        }
    }
    // These change the worker, so each name starts one more attempt.
    for name in ["2", "W-2", "the-task", &branch] {
        for command in [&["retry", name][..], &["message", name, "FAKE:\nsay more"]] {
            let said = world.run(command).ended(0);
            assert!(said.contains(&id), "{command:?}: {said}");
            until_status(&mut boss, &id, "completed");
        }
    }
    world.run(&["integrate", &branch]).ended(0);
}
