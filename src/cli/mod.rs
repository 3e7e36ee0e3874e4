//! The command line: reads the arguments and dispatches. Only this module may print to stdout. Even here `serve` must
//! not print, since stdout is the protocol there.
#![allow(clippy::print_stdout)]

mod cancel;
mod changes;
mod clean;
mod completion;
mod demo;
mod demo_agent;
mod diff;
mod doctor;
mod guard;
mod harmless;
mod help;
mod here;
mod hint;
mod integrate;
mod log;
mod logs;
mod out;
mod places;
mod recorded;
mod report;
mod retry;
mod serve;
mod settings;
mod setup;
mod shell;
mod status;
mod terminal;
mod visit;
mod wait;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{FromArgMatches, Parser, Subcommand};

use self::places::Places;
use crate::{mcp, process, supervisor};

/// One coding agent leads many: real agent CLIs as workers, each in a git worktree of its own.
#[derive(Debug, Parser)]
#[command(name = "orchestrator-boss", version, after_help = "All settings: orchestrator-boss help settings")]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    places: Places,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve an MCP client on stdin and stdout (the default)
    #[command(after_help = SERVE_HELP)]
    Serve,
    /// Show all workers, what they do and what came of them
    Status(status::StatusArgs),
    /// See it work, without any key or agent CLI
    #[command(after_help = DEMO_HELP)]
    Demo,
    /// Show what a worker did, as it does it if you like
    Logs(logs::LogsArgs),
    /// Show what a worker changed
    Diff(diff::DiffArgs),
    /// Wait until workers have settled
    Wait(wait::WaitArgs),
    /// Bring workers' branches into another
    Integrate(integrate::IntegrateArgs),
    /// Remove worktrees that are merged, and say what stays and why
    Clean(clean::CleanArgs),
    /// End workers, with proof that nothing of theirs is left running
    Cancel(cancel::CancelArgs),
    /// Begin the next attempt of a settled worker
    Retry(retry::RetryArgs),
    /// Print a script that completes commands and worker ids in a shell
    Completions(completion::CompletionsArgs),
    /// Print the manual page: orchestrator-boss man | man -l -
    #[command(after_help = MAN_HELP)]
    Man,
    /// Say whether a run would work here, and what is in its way
    Doctor(doctor::DoctorArgs),
    /// Write one HTML file about what the workers did, for people
    Report(report::ReportArgs),
    /// Register this server with claude, codex, gemini or opencode
    Setup(setup::SetupArgs),
    /// Show the reference of all settings
    #[command(hide = true, long_about = settings::REFERENCE, help_template = "{about}")]
    Settings,
    /// The agent that the demo's workers run
    #[command(hide = true)]
    DemoAgent(demo_agent::AgentArgs),
    /// Say what could be typed next; called by the scripts for shells
    #[command(hide = true)]
    Complete(completion::CompleteArgs),
    /// Say whether the boss's own session may edit a file; called by the plugin's hook
    #[command(hide = true)]
    Guard,
    /// Look after one attempt of a worker; started by the server
    #[command(hide = true)]
    Supervise { folder: PathBuf },
    /// Verify an integration in a worktree of its own; started by the server, and ends with it
    #[command(hide = true)]
    Verify { folder: PathBuf },
    /// Print the table of `src/docs/tools.md`, or all that a client sees of the tools
    #[command(hide = true)]
    Tools {
        #[arg(long)]
        json: bool,
    },
}

const SERVE_HELP: &str = "\
Examples:
  orchestrator-boss
  orchestrator-boss serve --state-dir /srv/orchestrator

A client starts it: `orchestrator-boss setup` registers it with one.

Exit codes:
  0    the client has gone, or a signal came; the workers go on
  1    it could not serve";

const DEMO_HELP: &str = "\
Examples:
  orchestrator-boss demo

Exit codes:
  0    all went as promised
  1    something did not, and it says what";

const MAN_HELP: &str = "\
Examples:
  orchestrator-boss man > ~/.local/share/man/man1/orchestrator-boss.1

Exit codes:
  0    it was printed";

pub fn run() -> ExitCode {
    process::use_one_heap();
    let matches = help::command().get_matches();
    let arguments = Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    if !matches!(&arguments.command, Some(Command::Status(args)) if args.draws()) {
        log::to_stderr();
    }
    match arguments.command.unwrap_or(Command::Serve) {
        Command::Serve => serve::run(arguments.places),
        Command::Status(args) => status::run(&args, &arguments.places),
        Command::Demo => play_demo(),
        Command::Logs(args) => logs::run(&args, &arguments.places),
        Command::Diff(args) => diff::run(&args, &arguments.places),
        Command::Wait(args) => wait::run(&args, &arguments.places),
        Command::Integrate(args) => integrate::run(&args, &arguments.places),
        Command::Clean(args) => clean::run(&args, &arguments.places),
        Command::Cancel(args) => cancel::run(&args, &arguments.places),
        Command::Retry(args) => retry::run(&args, &arguments.places),
        Command::DemoAgent(args) => match demo_agent::run(&args) {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        },
        Command::Completions(args) => completion::print_script(&args),
        Command::Complete(args) => completion::answer(args),
        Command::Man => help::man(),
        Command::Doctor(args) => doctor::run(&args, &arguments.places),
        Command::Report(args) => report::run(&args, &arguments.places),
        Command::Setup(args) => setup::run(&args, &arguments.places),
        Command::Settings => settings::print(),
        Command::Guard => guard::run(&arguments.places),
        Command::Supervise { folder } => supervisor::run(&folder),
        Command::Verify { folder } => supervisor::run_verification(&folder),
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
