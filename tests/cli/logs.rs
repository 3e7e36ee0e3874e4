//! `logs` is readable, complete and harmless: for settled workers, for running ones, and without a server.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use serde_json::json;

use crate::world::*;

#[test]
fn log_shows_messages_commands_and_the_end() {
    let world = World::new();
    let mut boss = world.boss();
    let script = "say looking around\nrun echo out; exit 3\nedit src/x.rs\nwrite a.txt a\ncommit a";
    let worker = create(&mut boss, with(mission("log", script), "verify_command", "echo broken; exit 4"));
    until_status(&mut boss, &worker, "failed");
    boss.kill_server();
    let said = world.run(&["logs", "w-1"]).ended(0);
    for part in [
        "attempt 1, fake",
        "said: looking around",
        "shell: echo out; exit 3",
        "exit 3: out",
        "edited src/x.rs",
        "verification failed: exit status 4",
        "broken",
        "failed after",
        "1 commit in 1 file",
    ] {
        assert!(said.contains(part), "{part} in\n{said}");
    }
    let json = world.run(&["logs", "w-1", "--json"]).json_lines();
    assert_eq!(json.first().unwrap()["attempt"], 1);
    let end = json.last().unwrap();
    assert_eq!((end["event"].as_str(), end["outcome"]["status"].as_str()), (Some("settled"), Some("failed")));
    let last = world.run(&["logs", "w-1", "--lines", "1"]).ended(0);
    assert!(!last.contains("looking around"), "{last}");
}

/// Removes the files as a server does, since no test waits for 30 days.
#[test]
fn removed_logs_are_named() {
    let world = World::new();
    let mut boss = world.boss();
    let worker = create(&mut boss, mission("old", "say something"));
    until_status(&mut boss, &worker, "completed");
    orchestrator_boss::attempt::worker_dir::AttemptDir::at(world.attempt(&worker, 1)).remove_logs().unwrap();
    for options in [&[][..], &["--raw"], &["--json"]] {
        let ran = world.run(&[&["logs", &worker], options].concat());
        assert!(ran.stderr.contains("the logs of attempt 1 were removed"), "{ran:?}");
        assert!(ran.code == Some(0) && !ran.stdout.contains("said"), "{ran:?}");
    }
    assert_eq!(status(&mut boss, &worker)["final_message"], "something");
}

#[test]
fn log_is_sanitized_but_raw_log_unchanged() {
    let world = World::new();
    let mut boss = world.boss();
    let worker = create(&mut boss, mission("escape", "say a\u{1b}]0;title\u{7}b\u{1b}[2J"));
    until_status(&mut boss, &worker, "completed");
    let said = world.run(&["logs", &worker]).ended(0);
    assert!(said.contains("a]0;titleb[2J") && !said.contains('\u{1b}'), "{said:?}");
    let raw = world.run(&["logs", &worker, "--raw"]).ended(0);
    let file = std::fs::read_to_string(world.attempt(&worker, 1).join("stdout.log")).unwrap();
    assert_eq!(raw, file);
    assert_eq!(world.run(&["logs", &worker, "--raw=stderr"]).ended(0), "");
}

#[test]
fn follow_spans_retries_and_ends_with_the_worker() {
    let world = World::new();
    let mut boss = world.boss();
    let script = "say first words\nwait-file ../../repo/go\nfail-once ../../shared/failed\nsay it works now";
    let worker = create(&mut boss, with(mission("follow", script), "max_attempts", 2));
    until_status(&mut boss, &worker, "running");
    let mut follow = world.begin(&["logs", &worker, "--follow"]);
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines().map(|line| line.unwrap());
    assert!(lines.by_ref().any(|line| line.contains("first words")));
    std::fs::write(world.repo().join("go"), "").unwrap();
    let rest: Vec<String> = lines.collect();
    let rest = rest.join("\n");
    for part in ["failed after", "attempt 2, fake", "it works now", "completed after"] {
        assert!(rest.contains(part), "{part} in\n{rest}");
    }
    assert_eq!(follow.wait().unwrap().code(), Some(0));
}

#[test]
fn follow_shows_the_backend_of_a_prepared_attempt() {
    let world = World::new();
    let mut boss = world.boss();
    let below = create(&mut boss, mission("below", "wait-file ../../repo/go"));
    let above = create(&mut boss, with(mission("above", "say words"), "depends_on", json!([below])));
    std::fs::create_dir_all(world.attempt(&above, 1)).unwrap();
    let follow = world.begin(&["logs", &above, "--follow"]);
    // By now `logs` has read the state.
    world.run(&["status"]).ended(0);
    std::fs::write(world.repo().join("go"), "").unwrap();
    let said = wait_for_end(follow).ended(0);
    assert!(said.contains("attempt 1, fake") && said.contains("completed after"), "{said}");
}

#[test]
fn follow_without_a_server_ends() {
    let world = World::new();
    let mut boss = world.boss();
    let worker = create(&mut boss, mission("follow", "say words\nwait-file ../../repo/go"));
    until_status(&mut boss, &worker, "running");
    boss.kill_server();
    let follow = world.begin(&["logs", &worker, "--follow"]);
    let raw = world.begin(&["logs", &worker, "--follow", "--raw"]);
    std::fs::write(world.repo().join("go"), "").unwrap();
    let said = wait_for_end(follow).ended(0);
    assert!(said.contains("words") && said.contains("completed after"), "{said}");
    assert!(wait_for_end(raw).ended(0).contains("\"success\""));
}

#[test]
fn ctrl_c_exits_130_and_closed_pipe_0() {
    let world = World::new();
    let mut boss = world.boss();
    let worker = create(&mut boss, mission("loud", "flood 20000\ntouch here\nwait-file ../../repo/go"));
    until_exists(&world.worktree(&worker).join("here"));
    let mut follow = world.begin(&["logs", &worker, "--follow"]);
    let mut first = [0; 1];
    let mut out = follow.stdout.take().unwrap();
    out.read_exact(&mut first).unwrap();
    interrupt(&follow);
    // It may be blocked in a write, which reading unblocks.
    let reader = std::thread::spawn(move || out.read_to_end(&mut Vec::new()));
    assert_eq!(follow.wait().unwrap().code(), Some(130));
    reader.join().unwrap().unwrap();
    std::fs::write(world.repo().join("go"), "").unwrap();
    until_status(&mut boss, &worker, "completed");
    let mut command = world.program(&["logs", &worker, "--attempt", "all"]);
    let mut piped = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = piped.stdout.take().unwrap();
    out.read_exact(&mut first).unwrap();
    drop(out);
    let ran = wait_for_end(piped);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
}

#[test]
fn second_ctrl_c_ends_a_blocked_write() {
    let world = World::new();
    let mut boss = world.boss();
    let worker = create(&mut boss, mission("loud", "flood 20000\ntouch here\nwait-file ../../repo/go"));
    until_exists(&world.worktree(&worker).join("here"));
    let mut follow = world.begin(&["logs", &worker, "--follow"]);
    let out = follow.stdout.take().unwrap();
    let (mut held, mut same) = (0, 0);
    until("the pipe is full", || {
        let now = rustix::io::ioctl_fionread(&out).unwrap();
        same = if now > 0 && now == held { same + 1 } else { 0 };
        held = now;
        same == 20
    });
    let mut code = None;
    until("it ends", || {
        interrupt(&follow);
        code = follow.try_wait().unwrap();
        code.is_some()
    });
    assert_eq!(code.unwrap().code(), Some(130));
    std::fs::write(world.repo().join("go"), "").unwrap();
    until_status(&mut boss, &worker, "completed");
}

#[test]
fn follow_of_unstarted_raw_log_ends() {
    let world = World::new();
    let mut boss = world.boss();
    let worker = create(&mut boss, mission("gone", "say x"));
    until_status(&mut boss, &worker, "completed");
    // The folder of an attempt that was undone.
    let folder = world.attempt(&worker, 1).with_file_name("0");
    std::fs::create_dir(folder).unwrap();
    assert_eq!(world.run(&["logs", &worker, "--raw", "--follow", "--attempt", "0"]).ended(0), "");
}

#[test]
fn log_of_unknown_worker_lists_known_ones() {
    let world = World::with("max_workers = 0");
    let ran = world.run(&["logs", "w-1"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("no missions in"), "{ran:?}");
    let mut boss = world.boss();
    let worker = create(&mut boss, mission("queued", "hang"));
    let ran = world.run(&["logs", "w-7"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains(&worker), "{ran:?}");
    assert!(world.run(&["logs", &worker]).ended(0).contains("no attempt yet"));
    let ran = world.run(&["logs", &worker, "--attempt", "3"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("no attempt 3"), "{ran:?}");
}

#[test]
fn setup_is_shown_by_logs_status_and_report() {
    let world = World::new();
    let mut boss = world.boss();
    let worker = create(&mut boss, with(mission("setup", "say done"), "setup_command", "echo installed"));
    until_status(&mut boss, &worker, "completed");
    let said = world.run(&["logs", &worker]).ended(0);
    assert!(said.contains("setup passed (") && said.contains("s): echo installed"), "{said}");
    assert_eq!(world.run(&["logs", &worker, "--raw=setup"]).ended(0), "installed\n");
    let said = world.run(&["status", &worker]).ended(0);
    let line = said.lines().find(|line| line.starts_with("setup ")).unwrap_or_else(|| panic!("{said}"));
    assert!(line.contains("passed (") && line.ends_with("echo installed"), "{line}");
    let page = world.path("report.html");
    world.run(&["report", "--output", &page.to_string_lossy()]).ended(0);
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains("<dt>Setup</dt>") && page.contains("echo installed"), "{page}");
}

#[test]
fn grep_finds_lines_of_all_workers() {
    let world = World::new();
    let mut boss = world.boss();
    let first = create(&mut boss, mission("first", "say a red apple\nrun echo a red house; echo a green door"));
    let second = create(&mut boss, mission("second", "say a red b\u{1b}[2Joat\nsay a blue boat"));
    until_status(&mut boss, &first, "completed");
    until_status(&mut boss, &second, "completed");
    let lines = |args: &[&str], code: i32| -> Vec<String> {
        let said = world.run(&[&["logs", "--grep"][..], args].concat()).ended(code);
        let without_time = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            format!("{} {}", words[0], words[2..].join(" "))
        };
        said.lines().map(without_time).collect()
    };
    let red = ["w-1 said: a red apple", "w-1 shell: echo a red house; echo a green door", "w-1 exit 0: a red house"];
    assert_eq!(lines(&["[Rr]ed"], 0), [&red[..], &["w-2 said: a red b[2Joat"]].concat());
    assert_eq!(lines(&["a red", "w-1"], 0), red);
    assert_eq!(lines(&["^said: a blue"], 0), ["w-2 said: a blue boat"]);
    assert_eq!(lines(&["purple"], 1), [""; 0]);
    let json = world.run(&["logs", "--grep", "blue", "--json"]).json_lines();
    assert_eq!((&json[0]["worker_id"], &json[0]["attempt"]), (&json!(second), &json!(1)), "{json:?}");
    let ran = world.run(&["logs", "--grep", "("]);
    assert!(ran.code == Some(2) && ran.stderr.contains("--grep"), "{ran:?}");
    assert_eq!(world.run(&["logs", "--grep", "red", "w-9"]).code, Some(2));
    assert_eq!(world.run(&["logs"]).code, Some(2));
}

/// Whatever `logs` prints is searched: messages, the verification and the end, not only the events of the CLI.
#[test]
fn grep_finds_messages_verifications_and_endings() {
    let world = World::new();
    let mut boss = world.boss();
    let good = create(&mut boss, with(mission("good", "wait-file ../../repo/go\nsay done"), "verify_command", "true"));
    let bad = create(&mut boss, with(mission("bad", "say done"), "verify_command", "echo it broke; exit 3"));
    let no_setup = create(&mut boss, with(mission("setup", "say done"), "setup_command", "echo no disk; exit 4"));
    until_status(&mut boss, &good, "running");
    world.run(&["message", &good, "say heard"]).ended(0);
    std::fs::write(world.repo().join("go"), "").unwrap();
    until_status(&mut boss, &good, "completed");
    until_status(&mut boss, &bad, "failed");
    until_status(&mut boss, &no_setup, "failed");
    for worker in [&good, &bad, &no_setup] {
        let printed = world.run(&["logs", worker]).ended(0);
        // The first line is the heading of the attempt.
        for line in printed.lines().skip(1).filter_map(|line| line.get(10..)).map(str::trim) {
            let pattern: String = line.chars().map(|it| if it.is_ascii_alphanumeric() { it } else { '.' }).collect();
            let found = world.run(&["logs", "--grep", &format!("^{pattern}$"), worker]).ended(0);
            assert!(found.contains(line), "{line} in {found}");
        }
    }
    let found = world.run(&["logs", "--grep", "^(user wrote|verification|completed|failed)"]).ended(0);
    for part in
        ["user wrote: say heard", "verification passed", "completed after", "verification failed", "failed after"]
    {
        assert!(found.contains(part), "{part} in {found}");
    }
    let json = world.run(&["logs", "--grep", "^(verification|failed)", &bad, "--json"]).json_lines();
    assert_eq!(json.len(), 1, "one line for one event: {json:?}");
    assert_eq!((&json[0]["event"], &json[0]["worker_id"]), (&json!("settled"), &json!(bad)), "{json:?}");
    let json = world.run(&["logs", "--grep", "user wrote", "--json"]).json_lines();
    assert_eq!((&json[0]["event"], &json[0]["text"]), (&json!("message"), &json!("user wrote: say heard")), "{json:?}");
}
