//! The backend for Codex CLI, which runs as `codex exec --json` and `codex exec resume`. It reads its prompt once, so
//! messages wait for the end of a turn. The command lines are here; `codex/stream.rs` decodes the output.

mod stream;

use std::path::Path;

use jiff::tz::TimeZone;

use super::catalog::{CODEX, check_effort, check_model, check_no_cost_limit};
use super::{
    AttachPlan, Backend, Decoder, Enforcement, LaunchPlan, Probe, PromptInput, Refusal, Session, StateFolder,
    StopSignal, StopStep, Turn, environment, probe, state,
};
use crate::mission::spec::{Mission, Permissions};

/// Codex, with the time zone in which it prints when a usage limit ends.
pub struct Codex {
    zone: TimeZone,
}

impl Codex {
    pub fn in_zone(zone: TimeZone) -> Self {
        Self { zone }
    }
}

impl Default for Codex {
    /// Uses this machine's zone, in which the worker runs too.
    fn default() -> Self {
        Self::in_zone(TimeZone::system())
    }
}

/// Returns the arguments with which Codex passes a message to a thread, where it becomes a turn of its own. Exit status 0
/// means only that the message is stored. Only the daemon delivers it to an open terminal.
pub fn queue_arguments(thread: &str, message: &str) -> Vec<String> {
    ["queue", "--thread", thread, "--message", message].map(str::to_owned).to_vec()
}

/// Returns whether a process with these ancestors was started by Codex's daemon, which owns the threads of terminals. A
/// launcher such as `npx` may be between them, but no other Codex, which would own its threads itself.
pub fn is_below_daemon(ancestors: &[Vec<String>]) -> bool {
    let is_codex = |arguments: &&Vec<String>| {
        let program = |word: &String| Path::new(word).file_name().is_some_and(|name| name == "codex");
        // A script is listed with its interpreter first.
        arguments.iter().take(2).any(program) || is_daemon(arguments)
    };
    ancestors.iter().find(is_codex).is_some_and(|arguments| is_daemon(arguments))
}

fn is_daemon(arguments: &[String]) -> bool {
    ["app-server", "--managed-daemon"].iter().all(|word| arguments.iter().any(|argument| argument == word))
}

impl Backend for Codex {
    fn name(&self) -> &str {
        CODEX
    }

    fn program(&self) -> &str {
        "codex"
    }

    fn check(&self, mission: &Mission) -> Result<Enforcement, Refusal> {
        check_model(CODEX, mission.model.as_deref())?;
        check_effort(CODEX, mission.effort.as_deref())?;
        check_no_cost_limit(CODEX, mission.max_cost_usd)?;
        Ok(self.enforcement(mission.permissions))
    }

    fn enforcement(&self, permissions: Permissions) -> Enforcement {
        match permissions {
            Permissions::ReadOnly | Permissions::Edit => Enforcement::Sandbox,
            Permissions::Full => Enforcement::None,
        }
    }

    fn state_folders(&self) -> Vec<StateFolder> {
        state::CODEX.to_vec()
    }

    fn plan(&self, turn: &Turn<'_>) -> LaunchPlan {
        LaunchPlan {
            program: self.program().into(),
            args: args(turn),
            env_set: environment::set(turn.dir, []),
            // With RUST_BACKTRACE its error messages end in stack traces.
            env_remove: environment::removed(&["RUST_BACKTRACE", "RUST_LIB_BACKTRACE"]),
            stdin: PromptInput::Once(turn.prompt.into()),
            needs_output_pipe: false,
            files: Vec::new(),
            // On SIGINT it ends its commands and exits within 0.1 s; SIGTERM leaves grandchildren running.
            stop: vec![StopStep::signal(StopSignal::Interrupt, 5)],
        }
    }

    fn decoder(&self, _turn: &Turn<'_>) -> Box<dyn Decoder> {
        Box::new(stream::CodexStream::new(self.zone.clone()))
    }

    fn attach(&self, session_id: &str, dir: &Path) -> Option<AttachPlan> {
        Some(AttachPlan::new(dir, ["resume", session_id]))
    }

    fn probe(&self) -> Probe {
        probe::codex()
    }
}

/// Returns the arguments. All options stand before `resume`, which accepts no sandbox and no directory after it, and
/// does not restore them.
fn args(turn: &Turn<'_>) -> Vec<String> {
    let mission = turn.mission;
    let mut args = vec!["exec".to_owned(), "--json".into(), "--skip-git-repo-check".into()];
    // Its own sandbox cannot start in ours, which is stricter.
    let permissions = if turn.confined { Permissions::Full } else { mission.permissions };
    args.push(format!("--sandbox={}", sandbox(permissions)));
    args.push(format!("--cd={}", turn.dir.display()));
    if permissions == Permissions::Edit {
        args.extend(turn.around().map(|top| format!("--add-dir={}", top.display())));
        args.extend(git_dirs(turn));
        args.extend(["-c".into(), "sandbox_workspace_write.network_access=true".into()]);
    }
    args.extend(mission.model.as_ref().map(|model| format!("--model={model}")));
    if let Some(effort) = &mission.effort {
        args.extend(["-c".into(), format!("model_reasoning_effort={effort}")]);
    }
    for name in turn.own_registrations {
        // Without a command the whole configuration is invalid if Codex does not read the file with this name.
        args.extend(["-c".into(), format!("mcp_servers.{name}.command=\"\"")]);
        args.extend(["-c".into(), format!("mcp_servers.{name}.enabled=false")]);
    }
    if let Session::Resume(id) = turn.session {
        args.extend(["resume".into(), id.into()]);
    }
    args.push("-".into());
    args
}

fn sandbox(permissions: Permissions) -> &'static str {
    match permissions {
        Permissions::ReadOnly => "read-only",
        Permissions::Edit => "workspace-write",
        Permissions::Full => "danger-full-access",
    }
}

/// Returns the options that make git's folders writable, since the sandbox makes every `.git` read-only. A commit in a
/// linked worktree writes to the repository's folder and to the worktree's folder in it.
fn git_dirs(turn: &Turn<'_>) -> Vec<String> {
    let Some(git) = turn.git else { return Vec::new() };
    let mut dirs = vec![git.common, git.own];
    dirs.dedup();
    dirs.into_iter().map(|dir| format!("--add-dir={}", dir.display())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_codex_decides_about_the_daemon() {
        let daemon = "/home/u/.codex/packages/codex app-server --listen unix:// --managed-daemon";
        let cases = [
            (vec![daemon], true),
            (vec!["sh -c exec", "node /usr/bin/npx orchestrator-boss", daemon], true),
            (vec!["sh /home/u/bin/codex app-server --managed-daemon"], true),
            // A terminal without the daemon, in a shell that the daemon has started.
            (vec!["/usr/bin/codex", "bash", daemon], false),
            (vec!["node /usr/bin/codex"], false),
            (vec!["codex app-server --listen unix://"], false),
            (vec!["bash", "sshd"], false),
            (vec![], false),
        ];
        for (ancestors, is_below) in cases {
            let words = |line: &&str| line.split(' ').map(str::to_owned).collect();
            assert_eq!(is_below_daemon(&ancestors.iter().map(words).collect::<Vec<_>>()), is_below, "{ancestors:?}");
        }
    }
}
