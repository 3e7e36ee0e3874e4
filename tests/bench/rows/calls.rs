//! Tool calls, compared with an MCP server whose tool returns the same answer.

use std::path::Path;
use std::time::Duration;

use rmcp::handler::server::router::tool::ToolRouter;
use rmcp::model::{CallToolResult, ContentBlock};
use rmcp::{ServerHandler, ServiceExt, tool, tool_handler, tool_router};
use serde_json::{Value, json};

use crate::agent::program;
use crate::rows::many::with_a_thousand;
use crate::server::Server;
use crate::table::{Line, Sides};
use crate::world::{World, created, mission_in};

/// Runs a floor: a server of the protocol library with a tool whose answer, of text and data, is in this file.
pub fn serve_answer(file: &Path) {
    let text = std::fs::read_to_string(file).expect("an answer");
    let answer = Answer { data: serde_json::from_str(&text).expect("JSON"), text, tool_router: Answer::tool_router() };

    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let stdio = (tokio::io::stdin(), tokio::io::stdout());
        let running = answer.serve(stdio).await.expect("a client");
        let _ = running.waiting().await;
    });
}

#[derive(Clone)]
struct Answer {
    text: String,
    data: Value,
    #[allow(dead_code)]
    tool_router: ToolRouter<Self>,
}

#[tool_router]
impl Answer {
    #[tool(description = "Returns the answer")]
    async fn answer(&self) -> CallToolResult {
        let mut result = CallToolResult::structured(self.data.clone());
        result.content = vec![ContentBlock::text(self.text.clone())];
        result
    }
}

#[tool_handler]
impl ServerHandler for Answer {}

pub fn reads() -> Vec<Line> {
    let world = World::with_repository(1);
    let mut server = world.server(0);
    with_a_thousand(&mut server);
    let reads = [("list_worker_missions", json!({})), ("get_worker_status", json!({"worker_id": "w-700"}))];
    let line = |(tool, arguments): (&str, Value)| {
        let answer = world.path(tool);
        std::fs::write(&answer, server.call(tool, arguments.clone()).to_string()).expect("a file");
        let mut floor = world.sealed(program());
        floor.arg("serve-answer").arg(answer);
        let (mut floor, mut sides) = (Server::start(floor), Sides::default());
        for number in 0..320 {
            let (ours, floor) = (server.time(tool, arguments.clone()), floor.time("answer", json!({})));
            if number >= 20 {
                sides.ours.push(ours);
                sides.floor.push(floor);
            }
        }
        let what = format!("`{tool}` with 1,000 tasks");
        sides.times(&what, "an rmcp server whose tool returns the same answer", 3.0)
    };
    reads.map(line).into()
}

pub fn beside_waits() -> Vec<Line> {
    const WAITS: usize = 64;
    let world = World::plain();
    let mut server = world.server(1);
    let answer = server.call("create_worker_mission", mission_in("quiet", &world.place("quiet")));
    let worker = created(&answer);
    let _agent = world.bell.answer();
    let mut sides = Sides::default();
    let read = |server: &mut Server| server.time("get_worker_status", json!({"worker_id": worker}));
    for round in 0..8 {
        let alone: Vec<f64> = (0..60).map(|_| read(&mut server)).collect();
        let waits: Vec<u64> =
            (0..WAITS).map(|_| server.begin("wait_for_any_worker", json!({"timeout_seconds": 100}))).collect();
        std::thread::sleep(Duration::from_millis(300));
        let beside: Vec<f64> = (0..60).map(|_| read(&mut server)).collect();
        waits.into_iter().for_each(|wait| server.give_up(wait));
        std::thread::sleep(Duration::from_millis(300));
        if round > 0 {
            alone.into_iter().for_each(|it| sides.floor.push(it));
            beside.into_iter().for_each(|it| sides.ours.push(it));
        }
    }
    let what = format!("`get_worker_status` while {WAITS} waits block");
    vec![sides.times(&what, "the same without them", 1.2)]
}
