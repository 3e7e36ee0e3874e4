//! The command line: reads the arguments and dispatches. Only this module may print to stdout. Even here `serve` must
//! not print, since stdout is the protocol there.
#![allow(clippy::print_stdout)]

mod answer;
mod attach;
mod cancel;
mod clean;
mod completion;
mod config;
mod demo;
mod demo_agent;
mod diff;
mod doctor;
mod error;
mod file_watcher;
mod guard;
mod help;
mod hint;
mod integrate;
mod log;
mod logs;
mod message;
mod moment;
mod one_shot;
mod open;
mod output;
mod path;
mod places;
mod probe;
mod question;
mod recorded_settings;
mod report;
mod retry;
mod sanitize;
mod serve;
mod settings;
mod setup;
mod shell;
mod status;
mod terminal;
mod text;
mod text_argument;
mod user_events;
mod wait;
mod workspace;
mod worktree;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{FromArgMatches, Parser, Subcommand};

use self::places::Places;
use crate::{mcp, process, supervisor};

/// Let one coding agent manage many: real agent CLIs as workers, each in its own git worktree.
#[derive(Debug, Parser)]
#[command(name = "orchestrator-boss", version = env!("ORCHESTRATOR_VERSION"), after_help = "All settings: orchestrator-boss help settings")]
struct CommandLine {
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
    /// Show the state of all workers
    Status(status::StatusArgs),
    /// Run a demo, without any key or agent CLI
    #[command(after_help = DEMO_HELP)]
    Demo,
    /// Show the log of a worker, optionally following live
    Logs(logs::LogsArgs),
    /// Show the changes of a worker
    Diff(diff::DiffArgs),
    /// Print the path of a worker's worktree
    Path(path::PathArgs),
    /// Open a worker's worktree in your editor
    Open(open::OpenArgs),
    /// Continue a finished worker's session in your terminal
    Attach(attach::AttachArgs),
    /// Send a message to a worker
    Message(message::MessageArgs),
    /// Answer the question of a worker
    Answer(answer::AnswerArgs),
    /// Wait until workers have finished
    Wait(wait::WaitArgs),
    /// Merge the branches of workers into another branch
    Integrate(integrate::IntegrateArgs),
    /// Remove merged worktrees, and list those that are kept
    Clean(clean::CleanArgs),
    /// Cancel workers, and check that no process is left
    Cancel(cancel::CancelArgs),
    /// Start the next attempt of a finished worker
    Retry(retry::RetryArgs),
    /// Print a completion script for a shell
    Completions(completion::CompletionsArgs),
    /// Print the manual page: orchestrator-boss man | man -l -
    #[command(after_help = MAN_HELP)]
    Man,
    /// Check whether workers can run here
    Doctor(doctor::DoctorArgs),
    /// Write an HTML report about the workers
    Report(report::ReportArgs),
    /// Register this server with claude, codex, gemini or opencode
    Setup(setup::SetupArgs),
    /// Create, show or check your settings file
    Config(config::ConfigArgs),
    /// Show the reference of all settings
    #[command(hide = true, long_about = settings::REFERENCE, help_template = "{about}")]
    Settings,
    /// Run as the agent of the demo's workers
    #[command(hide = true)]
    DemoAgent(demo_agent::AgentArgs),
    /// Print completion candidates; called by the completion scripts
    #[command(hide = true)]
    Complete(completion::CompleteArgs),
    /// Decide whether a boss may edit a file; called by the plugin's hook
    #[command(hide = true)]
    Guard,
    /// Supervise one attempt of a worker; started by the server
    #[command(hide = true)]
    Supervise {
        /// Run as a job of a cluster
        #[arg(long)]
        job: bool,
        folder: PathBuf,
    },
    /// Verify an integration in a scratch worktree; started by the server
    #[command(hide = true)]
    Verify {
        /// Run as a job of a cluster
        #[arg(long)]
        job: bool,
        folder: PathBuf,
    },
    /// Check the node of a cluster that this runs on; started by `doctor --on`
    #[command(hide = true)]
    Probe { folder: PathBuf },
    /// Print the table of the tools (`src/docs/tools.md`), or their definitions
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

MCP clients start the server: `orchestrator-boss setup` registers it.

Exit codes:
  0    the client disconnected, or a signal arrived; workers keep running
  1    startup failed";

const DEMO_HELP: &str = "\
Examples:
  orchestrator-boss demo

Exit codes:
  0    success
  1    a step failed; the error names it";

const MAN_HELP: &str = "\
Examples:
  orchestrator-boss man > ~/.local/share/man/man1/orchestrator-boss.1

Exit codes:
  0    success";

pub fn run() -> ExitCode {
    process::use_one_heap();
    let matches = help::command().get_matches();
    let arguments = CommandLine::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    if !matches!(&arguments.command, Some(Command::Status(args)) if args.draws()) {
        log::to_stderr();
    }
    match arguments.command.unwrap_or(Command::Serve) {
        Command::Serve => serve::run(arguments.places),
        Command::Status(args) => status::run(&args, &arguments.places),
        Command::Demo => run_demo(),
        Command::Logs(args) => logs::run(&args, &arguments.places),
        Command::Diff(args) => diff::run(&args, &arguments.places),
        Command::Path(args) => path::run(&args, &arguments.places),
        Command::Open(args) => open::run(&args, &arguments.places),
        Command::Attach(args) => attach::run(&args, &arguments.places),
        Command::Message(args) => message::run(&args, &arguments.places),
        Command::Answer(args) => answer::run(&args, &arguments.places),
        Command::Wait(args) => wait::run(&args, &arguments.places),
        Command::Integrate(args) => integrate::run(&args, &arguments.places),
        Command::Clean(args) => clean::run(&args, &arguments.places),
        Command::Cancel(args) => cancel::run(&args, &arguments.places),
        Command::Retry(args) => retry::run(&args, &arguments.places),
        Command::DemoAgent(args) => demo_agent::run(&args),
        Command::Completions(args) => completion::print_script(&args),
        Command::Complete(args) => completion::answer(args),
        Command::Man => help::man(),
        Command::Doctor(args) => doctor::run(&args, &arguments.places),
        Command::Report(args) => report::run(&args, &arguments.places),
        Command::Setup(args) => setup::run(&args, &arguments.places),
        Command::Config(args) => config::run(&args, &arguments.places),
        Command::Settings => settings::print(),
        Command::Guard => guard::run(&arguments.places),
        Command::Supervise { job: false, folder } => supervise(&folder),
        Command::Supervise { job: true, folder } => supervisor::run_job(&folder),
        Command::Verify { job, folder } => supervisor::run_verification(&folder, job),
        Command::Probe { folder } => probe::run(&folder, &arguments.places),
        Command::Tools { json } => print_tools(json),
    }
}

fn supervise(folder: &Path) -> ExitCode {
    let code = supervisor::run(folder, user_events::on_alert);
    if code == ExitCode::SUCCESS {
        user_events::after_attempt(folder);
    }
    code
}

fn run_demo() -> ExitCode {
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
    if json {
        println!("{:#}", mcp::surface());
    } else {
        print!("{}", mcp::tool_table());
    }
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn global_options_work_before_and_after_commands() {
        CommandLine::command().debug_assert();
        for line in [["x", "--state-dir", "/s", "serve"], ["x", "serve", "--state-dir", "/s"]] {
            let arguments = CommandLine::parse_from(line);
            assert_eq!(arguments.places.state_dir, Some(PathBuf::from("/s")));
            assert!(matches!(arguments.command, Some(Command::Serve)));
        }
        assert!(CommandLine::parse_from(["x"]).command.is_none());
    }
}
