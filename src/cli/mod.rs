//! The command line: reads the arguments and hands on. The only room that may print to stdout, and `serve` must not even
//! here: there, stdout is the protocol.
#![allow(clippy::print_stdout)]

mod demo;
mod demo_agent;
mod guard;
mod here;
mod serve;
mod setup;
mod status;
mod terminal;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::{mcp, supervisor};

/// One coding agent leads many: real agent CLIs as workers, each in a git worktree of its own.
#[derive(Debug, Parser)]
#[command(name = "orchestrator-boss", version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    places: Places,
}

#[derive(Debug, Args)]
struct Places {
    /// Settings file [default: ~/.config/orchestrator-boss/config.toml, if it is there]
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Where the state is kept [default: .orchestrator in the repository's main worktree]
    #[arg(long, value_name = "DIR", global = true)]
    state_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve an MCP client on stdin and stdout (the default)
    Serve,
    /// Show all workers: what they do, what they came to, what they need
    Status(status::StatusArgs),
    /// See it work, without any key or agent CLI
    Demo,
    /// Register this server with a coding agent: claude, codex, gemini or opencode
    Setup(setup::SetupArgs),
    /// The agent that the demo's workers run
    #[command(hide = true)]
    DemoAgent(demo_agent::AgentArgs),
    /// Say whether the boss's own session may edit a file; called by the plugin's hook
    #[command(hide = true)]
    Guard,
    /// Look after one attempt of a worker; started by the server
    #[command(hide = true)]
    Supervise { folder: PathBuf },
    /// Verify an integration in a worktree of its own; started by the server, and ends with it
    #[command(hide = true)]
    Verify { folder: PathBuf },
    /// Print the README's tool table, or all that a client sees of the tools
    #[command(hide = true)]
    Tools {
        #[arg(long)]
        json: bool,
    },
}

pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    log_to_stderr();
    match arguments.command.unwrap_or(Command::Serve) {
        Command::Serve => serve::run(arguments.places),
        Command::Status(args) => status::run(&args, &arguments.places),
        Command::Demo => play_demo(),
        Command::DemoAgent(args) => match demo_agent::run(&args) {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        },
        Command::Setup(args) => setup::run(&args, &arguments.places),
        Command::Guard => guard::run(&arguments.places),
        Command::Supervise { folder } => supervisor::run(&folder),
        Command::Verify { folder } => supervisor::run_trial(&folder),
        Command::Tools { json } => print_tools(json),
    }
}

fn play_demo() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return demo_failed(&error),
    };
    match runtime.block_on(demo::run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => demo_failed(&error),
    }
}

fn demo_failed(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("the demo failed: {error}");
    ExitCode::FAILURE
}

fn log_to_stderr() {
    let named = ["ORCHESTRATOR_LOG", "RUST_LOG"].into_iter().find_map(|name| std::env::var(name).ok()?.parse().ok());
    let filter = named.unwrap_or_else(|| Targets::new().with_default(LevelFilter::WARN));
    let log = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        // A log that cannot be written (its disk is full) must not end who writes it: that is told by `eprintln!`, which
        // panics when stderr is that very log.
        .log_internal_errors(false);
    tracing_subscriber::registry().with(log).with(filter).init();
}

fn print_tools(json: bool) -> ExitCode {
    match json {
        true => println!("{:#}", mcp::surface()),
        false => print!("{}", mcp::tool_table()),
    }
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_options_may_stand_on_either_side_of_the_command() {
        Arguments::command().debug_assert();
        for line in [["x", "--state-dir", "/s", "serve"], ["x", "serve", "--state-dir", "/s"]] {
            let arguments = Arguments::parse_from(line);
            assert_eq!(arguments.places.state_dir, Some(PathBuf::from("/s")));
            assert!(matches!(arguments.command, Some(Command::Serve)));
        }
        assert!(Arguments::parse_from(["x"]).command.is_none());
    }
}
