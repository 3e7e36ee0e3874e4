//! Renders the next steps of errors and blocked tasks as commands for users at a terminal.

use std::env;

use super::shell;
use crate::mission::hint::{Advice, Hint, Hinted};

/// Returns a text with its next steps in one line.
pub(crate) fn line(advice: &Advice) -> String {
    advice.line(command)
}

/// Returns an error with its causes and next steps in one line.
pub(crate) fn of(error: &dyn Hinted) -> String {
    line(&Advice::of(error))
}

/// Returns the command that runs the command of this process on another host.
fn on_host(host: &str) -> String {
    let here = env::current_dir().map_or_else(|_| "~".to_owned(), |here| shell::quoted(&here));
    let arguments: Vec<String> = env::args().skip(1).map(|argument| shell::word(&argument)).collect();
    let there = format!("cd {here} && orchestrator-boss {}", arguments.join(" "));
    format!("ssh {} {}", shell::word(host), shell::word(&there))
}

fn command(hint: &Hint) -> String {
    match hint {
        Hint::Retry(worker) => format!("`orchestrator-boss retry {worker}`"),
        Hint::Cancel(worker) => format!("`orchestrator-boss cancel {worker}`"),
        Hint::Message(worker) => format!("`orchestrator-boss message {worker} TEXT`"),
        Hint::WaitFor(worker) => format!("`orchestrator-boss wait {worker}`"),
        Hint::Integrate(worker) => format!("`orchestrator-boss integrate {worker}`"),
        Hint::IntegrateUnfinished { worker, branch } => {
            format!("read `orchestrator-boss diff {worker}` and run `orchestrator-boss integrate --branch {branch}`")
        }
        Hint::CreateWorkers => "have a boss create some".to_owned(),
        Hint::ListWorkers => "`orchestrator-boss status` lists all".to_owned(),
        Hint::CheckBackends => "`orchestrator-boss doctor` shows which are ready".to_owned(),
        Hint::RemoveWorktree(path) => format!("`git worktree remove {path}`"),
        Hint::OnHost(host) => format!("run it there: `{}`", on_host(host)),
        Hint::KeepBranch => "leave out `--branches`".to_owned(),
        Hint::Force(_) | Hint::Run(_) | Hint::Set(_) | Hint::Do(_) => hint.words(),
    }
}
