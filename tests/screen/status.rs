//! `status`: one screen of all workers.

use serde_json::json;

use crate::terminal::{Terminal, skipped};
use crate::world::{World, mission};

/// Creates a running worker with output, a completed one, and one whose check failed.
fn three_workers(world: &World) -> crate::support::json_lines::Boss {
    let mut boss = world.boss("6f1c2f3a-1111");
    let mut bad = mission("Speed up the lexer", "write l.rs x\ncommit lexer\nusage 20000 1000 0.11");
    bad["verify_command"] = json!("echo 3 tests failed; exit 1");
    let mut good = mission("Write a tutorial", "write tutorial.md x\ncommit tutorial\nusage 8000 900 0.05");
    good["verify_command"] = json!("true");
    let workers = json!([
        mission(
            "Fix the parser, 日本語も",
            &format!("usage 1000 20 0.5\nsay I look at \u{1b}[31m\u{202e}the parser\n{}", world.hold("go"))
        ),
        good,
        bad,
    ]);
    boss.succeed("batch_create_workers", json!({"workers": workers}));
    boss.succeed("wait_for_worker", json!({"worker_id": "w-2", "timeout_seconds": 60}));
    boss.succeed("wait_for_worker", json!({"worker_id": "w-3", "timeout_seconds": 60}));
    crate::world::until("output of the first worker", || {
        let workers = world.json(&["status", "--json"])["bosses"][0]["workers"].clone();
        workers[0]["last_activity"].as_str().is_some_and(|said| said.contains("I look at"))
    });
    boss
}

#[test]
fn status_shows_all_workers_at_any_width() {
    if skipped() {
        return;
    }
    let world = World::new();
    let _boss = three_workers(&world);

    let narrow = Terminal::start(&world, (80, 24), &["status"], &[]);
    narrow.until("ended with 0");
    let screen = narrow.screen();
    assert!(screen.starts_with("1 running · 1 completed · 1 failed · $0.66"), "{screen}");
    for says in ["boss claude:6f1c2f3a", "here", "● running", "✓ completed", "✗ failed", "to merge: 1 commit", "$0.50"]
    {
        assert!(screen.contains(says), "{says:?} is missing in\n{screen}");
    }
    // No line is wrapped: there is one line for each worker.
    assert_eq!(screen.trim_end().lines().count(), 9, "{screen}");
    assert!(narrow.coloured().contains("\u{1b}[32m✓ completed"), "{}", narrow.coloured());

    let wide = Terminal::start(&world, (200, 24), &["status"], &[("NO_COLOR", "1")]);
    wide.until("ended with 0");
    let screen = wide.screen();
    for says in [
        "Fix the parser, 日本語も",
        "w-2-write-a-tutorial",
        "said: I look at ␛[31m\u{fffd}the parser",
        "passed",
        "3 tests failed",
    ] {
        assert!(screen.contains(says), "{says:?} is missing in\n{screen}");
    }
    assert!(!wide.coloured().contains('\u{1b}'), "{:?}", wide.coloured());

    let piped = world.says(&["status"]);
    assert!(!piped.contains(['\u{1b}', '\u{202e}']) && piped.contains("● running"), "{piped}");
}

#[test]
fn status_has_json_and_details() {
    let world = World::new();
    let mut boss = three_workers(&world);
    let answer = world.json(&["status", "--json"]);
    assert_eq!(answer["counts"], json!({"completed": 1, "failed": 1, "running": 1}));
    let workers = answer["bosses"][0]["workers"].as_array().unwrap();
    assert_eq!(workers[0]["title"], "Fix the parser, 日本語も");
    for worker in workers {
        let id = worker["worker_id"].as_str().unwrap();
        let of_tool = boss.succeed("get_worker_status", json!({"worker_id": id}))["worker"].clone();
        for field in ["status", "backend", "branch", "worktree", "attempt", "outcome", "cost_usd", "last_activity"] {
            assert_eq!(worker[field], of_tool[field], "{field} of {id}");
        }
        assert_eq!(worker["led"], true);
        assert_eq!(world.json(&["status", "--json", id])["worker_id"], *id);
    }
    let detail = world.says(&["status", "w-3"]);
    for says in ["✗ failed", "exit status 1", "3 tests failed", "1 commit, 1 file +1 -0", "FAKE:"] {
        assert!(detail.contains(says), "{says:?} is missing in\n{detail}");
    }
    let unknown = world.run(&["status", "w-9"]);
    let said = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(unknown.status.code() == Some(2) && said.contains("w-2-write-a-tutorial"), "{said}");
}

#[test]
fn status_without_missions_creates_nothing() {
    let world = World::new();
    let said = world.says(&["status"]);
    assert!(said.contains("No workers here yet") && said.contains("setup claude"), "{said}");
    assert_eq!(world.json(&["status", "--json"])["bosses"], json!([]));
    assert!(!world.state_dir().exists());
}

#[test]
fn workers_of_dead_server_are_marked() {
    let world = World::new();
    let mut boss = three_workers(&world);
    let queued = json!({"title": "Later", "prompt": "x", "backend": "fake", "depends_on": ["w-1"]});
    boss.succeed("create_worker_mission", queued);
    boss.kill_server();
    let said = world.says(&["status"]);
    assert!(said.contains("away") && said.contains("its server has ended") && said.contains("no server"), "{said}");
    let answer = world.json(&["status", "--json"]);
    let led: Vec<_> = answer["bosses"][0]["workers"].as_array().unwrap().iter().map(|it| it["led"] == true).collect();
    assert_eq!(led, [false, false, true, true]);
}
