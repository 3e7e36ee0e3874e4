//! The four real CLIs as workers: a boss leads them through the real server over MCP, against a scripted model.
//!
//! Without the CLIs (`npm ci` in this folder) each test prints SKIPPED; with `CI=true` it fails.

/// Defines a test for each of these CLIs from a function that takes a world.
macro_rules! with_each_cli {
    ($test:ident: $($cli:ident)*) => {
        mod $test {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[allow(non_snake_case)]
            async fn $cli() {
                crate::world::with(crate::real_cli::Cli::$cli, super::$test).await;
            })*
        }
    };
}

mod acp;
#[path = "../support/acp_agents.rs"]
mod acp_agents;
#[path = "../support/boss.rs"]
mod boss;
mod boss_loop;
mod cancel;
mod confined;
mod conformance;
mod conversations;
mod drift;
mod failures;
mod forms;
mod graph;
mod hooks;
mod inspector;
mod inspector_resources;
mod interactive;
mod lead;
mod long_lines;
mod messages;
#[path = "../support/model_server/mod.rs"]
mod model_server;
mod npm;
mod permissions;
mod plugin;
mod questions;
mod race;
#[path = "../support/real_cli.rs"]
mod real_cli;
#[path = "../support/recordings.rs"]
mod recordings;
mod registrations;
mod setup;
#[allow(dead_code)]
#[path = "../support/wait.rs"]
mod wait;
mod waits;
mod wakes;
mod wave;
mod woken;
mod work;
mod world;
