//! Results are read at any length and with any surrounding bytes.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use orchestrator_boss::config::Settings;
use orchestrator_boss::mission::create::Draft;
use orchestrator_boss::mission::outcome::FailureKind;
use serde_json::json;

use crate::world::{World, mission};

/// Returns settings in which `prints` prints the file that its prompt names, and `claudecode` the file `printed`. The
/// latter then waits for more input.
fn printing(world: &World, output: &str) -> Settings {
    let script = |name: &str, text: &str| {
        let program = world.path(name);
        std::fs::write(&program, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        program
    };
    let print = script("print.sh", "cat \"$(sed -n 's/.*PRINT://p' | head -n 1)\"");
    let wait = script("wait.sh", &format!("cat {}; cat > /dev/null", world.path("printed").display()));
    let text = format!(
        "max_workers = 4\n[[custom]]\nname = \"prints\"\nprogram = {print:?}\noutput = {output:?}\n[backends.claudecode]\nprogram = {wait:?}\n"
    );
    toml::from_str(&text).unwrap()
}

fn prints(title: &str, file: &Path) -> Draft {
    let prompt = format!("PRINT:{}", file.display());
    Draft { backend: "prints".into(), prompt, ..mission(title, "") }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn result_is_read_with_any_surroundings() {
    let world = World::new();
    let server = world.server_with(Some("boss"), printing(&world, "jsonl"));
    let result = json!({"type": "result", "status": "success", "message": "all done"});
    let utf_16 = format!("\u{feff}{result}\r\n").encode_utf16().flat_map(u16::to_le_bytes).collect();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("mark", format!("\u{feff}{result}\n").into()),
        ("colours", format!("\x1b[32m{result}\x1b[0m\n").into()),
        ("title", format!("\x1b]0;busy\x07{result}\n").into()),
        ("progress", format!("10%\r100%\r{result}\r\n").into()),
        ("erased", format!("\x1b[2K\x1b[1G{result}").into()),
        ("dots", format!("....{result}\n").into()),
        ("nul", format!("\0\0{result}\0\n").into()),
        ("utf-16", utf_16),
        ("joined", format!("{}{result}\n", json!({"type": "message", "text": "first"})).into()),
        ("lines", format!("{result:#}\n").into()),
        ("half", format!("{}\n", result.to_string().replace("all", "\\ud83d all")).into()),
        ("python", format!("{}\n", result.to_string().replace("{", "{\"cost_usd\": NaN, ")).into()),
    ];
    for (name, text) in &cases {
        let file = world.path(name);
        std::fs::write(&file, text).unwrap();
        let id = server.create_one(prints(name, &file)).await;
        server.until(&id, "completed").await;
        let message = server.orchestrator.get(&id).await.unwrap().worker.last().unwrap().final_message.clone();
        assert!(message.ends_with("all done"), "{name}: {message:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn result_of_any_length_is_read() {
    let world = World::new();
    let server = world.server_with(Some("boss"), printing(&world, "jsonl"));
    let long = "a \"long\" word ".repeat(20 << 20 >> 4);
    let results = [
        json!({"type": "result", "status": "success", "message": format!("{long}the end")}),
        json!({"type": "result", "log": vec![&long; 2], "status": "success", "message": "the end"}),
        json!({"list": (0..2_000_000).collect::<Vec<u32>>(), "type": "result", "message": "the end", "status": "success"}),
    ];
    for (number, result) in results.iter().enumerate() {
        let file = world.path("result");
        let before = json!({"type": "tool_end", "id": "1", "output": long});
        std::fs::write(&file, format!("{before}\n{result}\n")).unwrap();
        let id = server.create_one(prints(&format!("result {number}"), &file)).await;
        server.until(&id, "completed").await;
        let message = server.orchestrator.get(&id).await.unwrap().worker.last().unwrap().final_message.clone();
        assert!(message.ends_with("the end"), "{number}: {} bytes", message.len());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_plain_text_line_keeps_its_end() {
    let world = World::new();
    let server = world.server_with(Some("boss"), printing(&world, "plain"));
    let file = world.path("text");
    std::fs::write(&file, format!("{}the end\n", "words and ".repeat(200_000))).unwrap();
    let id = server.create_one(prints("plain", &file)).await;
    server.until(&id, "completed").await;
    let message = server.orchestrator.get(&id).await.unwrap().worker.last().unwrap().final_message.clone();
    assert!(message.ends_with("words and the end"), "{} bytes", message.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn program_lingering_after_its_result_is_ended() {
    let world = World::new();
    let server = world.server(Some("boss"));
    let good = server.create_one(mission("good", "write a.txt a\ncommit a\nresult success\nhang")).await;
    let bad = server.create_one(mission("bad", "result error broken\nhang")).await;
    server.until(&good, "completed").await;
    server.until(&bad, "failed").await;
    let failure = server.orchestrator.get(&bad).await.unwrap().worker.last().unwrap().failure.clone().unwrap();
    assert_eq!(failure.message, "broken");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn result_without_newline_counts_though_cli_hangs() {
    let world = World::new();
    let settings = Settings { stall_minutes: 0.1, ..printing(&world, "jsonl") };
    let server = world.server_with(Some("boss"), settings);
    let init = json!({"type": "system", "subtype": "init", "session_id": "s-1"});
    let result = json!({"type": "result", "subtype": "success", "is_error": false, "terminal_reason": "completed", "result": "all done"});
    std::fs::write(world.path("printed"), format!("{init}\n{result}")).unwrap();
    std::fs::write(world.path("wait.sh"), format!("#!/bin/sh\ncat {}; sleep 1000\n", world.path("printed").display()))
        .unwrap();
    let id = server.create_one(Draft { backend: "claudecode".into(), ..mission("hangs", "") }).await;
    server.until(&id, "completed").await;
    let message = server.orchestrator.get(&id).await.unwrap().worker.last().unwrap().final_message.clone();
    assert_eq!(message, "all done");
}

/// Checks that the supervisor ends the CLI, which otherwise would wait for messages until its time limit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_cli_after_unreadable_line_is_ended() {
    let world = World::new();
    let server = world.server_with(Some("boss"), printing(&world, "jsonl"));
    for text in [format!("{}\n", "x".repeat(2 << 20)), format!("{{\"type\":\"result\",{}", " ".repeat(2 << 20))] {
        std::fs::write(world.path("printed"), &text).unwrap();
        let id = server.create_one(Draft { backend: "claudecode".into(), ..mission("rests", "") }).await;
        server.until(&id, "failed").await;
        let failure = server.orchestrator.get(&id).await.unwrap().worker.last().unwrap().failure.clone().unwrap();
        assert_eq!(failure.kind, FailureKind::NoResult, "{failure:?}");
    }
}
