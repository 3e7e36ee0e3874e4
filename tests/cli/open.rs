//! `path` and `open` lead to a worker's worktree: `path` prints it for a shell, `open` starts the user's editor in it.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::support::json_lines::Boss;
use crate::world::*;

/// Writes an editor that records its directory and its arguments, and ends with this status. Returns its path and that
/// of the record.
fn editor(world: &World, name: &str, status: u8) -> (PathBuf, PathBuf) {
    let (program, record) = (world.path(name), world.path(&format!("{name}.record")));
    let script = format!("#!/bin/sh\necho \"$PWD\" \"$@\" > '{}'\nexit {status}\n", record.display());
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    (program, record)
}

fn completed(boss: &mut Boss) -> String {
    let worker = create(boss, mission("open", "write a.txt a\ncommit a"));
    until_status(boss, &worker, "completed");
    worker
}

fn open_with(world: &World, worker: &str, variables: &[(&str, &str)]) -> Ran {
    let mut command = world.program(&["open", worker]);
    Ran::of(command.envs(variables.iter().copied()).output().unwrap())
}

#[test]
fn path_prints_only_the_path_of_the_worktree() {
    let world = World::new();
    let mut boss = world.boss();
    let worker = completed(&mut boss);
    let path = world.worktree(&worker).display().to_string();
    assert_eq!(world.run(&["path", "w-1"]).ended(0), format!("{path}\n"));
    let json = world.run(&["path", &worker, "--json"]).json();
    let branch = format!("orchestrator/{worker}");
    assert_eq!(json, serde_json::json!({"worker_id": worker, "path": path, "branch": branch}));
}

#[test]
fn missing_worktree_is_explained() {
    let world = World::with("max_workers = 1");
    let mut boss = world.boss();
    let removed = completed(&mut boss);
    boss.succeed("remove_worktree", serde_json::json!({"worker_id": removed, "force": true}));
    let holder = create(&mut boss, mission("hold", "wait-file ../../repo/go"));
    until_status(&mut boss, &holder, "running");
    let queued = create(&mut boss, mission("queued", "say x"));
    let (editor, record) = editor(&world, "editor", 0);
    for command in ["path", "open"] {
        for (worker, why) in [(&removed, "it was removed; its work is on branch"), (&queued, "has not started")] {
            let mut command = world.program(&[command, worker]);
            let ran = Ran::of(command.env("VISUAL", &editor).output().unwrap());
            assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{ran:?}");
            assert!(ran.stderr.contains(why), "{ran:?}");
        }
        let ran = world.run(&[command, "w-9"]);
        assert_eq!(ran.code, Some(2), "{ran:?}");
        assert!(ran.stderr.contains(&queued), "{ran:?}");
    }
    assert!(!record.exists());
    std::fs::write(world.repo().join("go"), "").unwrap();
    until_status(&mut boss, &queued, "completed");
}

#[test]
fn open_uses_visual_then_editor_then_own_git_setting() {
    let world = World::new();
    let mut boss = world.boss();
    let worker = completed(&mut boss);
    let worktree = world.worktree(&worker);
    let (visual, by_visual) = editor(&world, "visual", 0);
    let (spaced, by_editor) = editor(&world, "an editor", 0);
    let (own, by_git) = editor(&world, "own", 0);
    let settings = world.path("gitconfig");
    std::fs::write(&settings, format!("[core]\n\teditor = {}\n", own.display())).unwrap();
    let (visual, spaced, settings) =
        (format!("{} --wait", visual.display()), spaced.display().to_string(), settings.display().to_string());
    for (variables, record, arguments) in [
        (vec![("VISUAL", &*visual), ("EDITOR", &*spaced)], by_visual, "--wait "),
        (vec![("VISUAL", ""), ("EDITOR", &*spaced), ("GIT_CONFIG_GLOBAL", &*settings)], by_editor, ""),
        (vec![("GIT_CONFIG_GLOBAL", &*settings)], by_git, ""),
    ] {
        assert_eq!(open_with(&world, &worker, &variables).ended(0), "");
        let expected = format!("{0} {arguments}{0}\n", worktree.display());
        assert_eq!(std::fs::read_to_string(record).unwrap(), expected);
    }
}

#[test]
fn open_reads_the_editor_as_git_does() {
    let world = World::new();
    let mut boss = world.boss();
    let worker = completed(&mut boss);
    let worktree = world.worktree(&worker);
    let (program, record) = editor(&world, "an editor", 0);
    let at = program.display();
    for (command, arguments) in [
        (format!("'{at}' -f"), "-f "),
        (format!("\"{at}\" --wait"), "--wait "),
        (format!("FOO=1 '{at}'"), ""),
        ("~/'an editor'".to_owned(), ""),
        ("\"$HOME/an editor\" '--title=a  b'".to_owned(), "--title=a  b "),
        (format!("{at}"), ""),
    ] {
        assert_eq!(open_with(&world, &worker, &[("VISUAL", &command)]).ended(0), "", "{command}");
        let expected = format!("{0} {arguments}{0}\n", worktree.display());
        assert_eq!(std::fs::read_to_string(&record).unwrap_or_default(), expected, "{command}");
        std::fs::remove_file(&record).unwrap();
    }
}

#[test]
fn unusable_editor_is_an_error_with_a_fix() {
    let world = World::new();
    let mut boss = world.boss();
    let worker = completed(&mut boss);
    let (failing, _) = editor(&world, "failing", 3);
    // A worker can write the repository's configuration.
    let mark = world.path("mark");
    world.git(&["config", "core.editor", &format!("touch {}", mark.display())]);
    let failing = failing.display().to_string();
    for (variables, says) in [
        (vec![], "no editor is set; set VISUAL or EDITOR"),
        (vec![("VISUAL", "no-such-editor --wait")], "cannot start the editor no-such-editor --wait: there is no such"),
        (vec![("VISUAL", "no-such-editor")], "cannot start the editor no-such-editor: there is no such program"),
        (vec![("VISUAL", "'/no/such editor' -f")], "cannot start the editor '/no/such editor' -f: there is no such"),
        (vec![("VISUAL", "FOO=1 no-such-editor")], "there is no such program"),
        (vec![("VISUAL", "'no end")], "the editor 'no end ended with exit status: "),
        (vec![("EDITOR", &*failing)], "ended with exit status: 3"),
    ] {
        let ran = open_with(&world, &worker, &variables);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.stderr.contains(says), "{says} in {ran:?}");
    }
    assert!(!mark.exists());
}
