//! Execution of a shell command that the user or the boss wrote: `setup_command` or `verify_command`.
//!
//! Such a command runs code that a worker may have written, so its environment holds no keys.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::exit::{end_of, to_exit};
use super::isolation::{SocketFolder, reaches_boss_terminal};
use crate::config::Settings;
use crate::mission::outcome::Exit;
use crate::process::confine::WriteRules;
use crate::process::{self, Launch, Signal, SpawnError, SpawnedProcess, StdinSource, TAG_VARIABLE};

/// Parts of names of variables that hold secrets.
const SECRET: [&str; 8] = ["KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "PASSPHRASE", "CREDENTIAL", "COOKIE"];
/// Ends of such names.
const SECRET_END: [&str; 5] = ["_PASS", "_AUTH", "_PAT", "_DSN", "_ASKPASS"];
/// Variables that connect to a program that signs or logs in on request.
const AGENTS: [&str; 6] =
    ["SSH_AUTH_SOCK", "SSH_AGENT_PID", "SSH_ASKPASS", "GPG_AGENT_INFO", "GNOME_KEYRING_CONTROL", "KRB5CCNAME"];
/// Variables beginning with `GIT_` that neither point at another repository nor run or unlock anything. The others
/// would redirect a test's own repositories to those of the user who started the server.
const GIT_KEPT: [&str; 16] = [
    "GIT_AUTHOR_DATE",
    "GIT_AUTHOR_EMAIL",
    "GIT_AUTHOR_NAME",
    "GIT_CEILING_DIRECTORIES",
    "GIT_COMMITTER_DATE",
    "GIT_COMMITTER_EMAIL",
    "GIT_COMMITTER_NAME",
    "GIT_CONFIG_GLOBAL",
    "GIT_CONFIG_NOSYSTEM",
    "GIT_CONFIG_SYSTEM",
    "GIT_DEFAULT_HASH",
    "GIT_EXEC_PATH",
    "GIT_SSL_CAINFO",
    "GIT_SSL_CAPATH",
    "GIT_TEMPLATE_DIR",
    "GIT_TERMINAL_PROMPT",
];

/// The command to run, and its directory.
#[derive(Clone, Copy)]
pub(super) struct ShellCommand<'a> {
    pub command: &'a str,
    pub directory: &'a Path,
    /// The tag in the environment of all its processes.
    pub tag: &'a str,
    /// The log file, to which the output is appended.
    pub log: &'a Path,
    pub settings: &'a Settings,
    /// Further variables of the worker.
    pub variables: &'a BTreeMap<String, String>,
    pub sockets: &'a SocketFolder,
    /// The paths that it can write; `None`: all.
    pub confine: Option<&'a WriteRules>,
}

pub(super) struct ShellRun {
    pub end: ShellEnd,
    pub seconds: f64,
    /// The end of its output.
    pub log_tail: String,
}

pub(super) enum ShellEnd {
    Exited(Exit),
    TimedOut,
    Cancelled,
    NotStarted(SpawnError),
}

/// Runs the command until it exits, reaches the limit, or `cancelled` completes. Processes that it started may still
/// run afterwards: the caller sweeps them.
pub(super) async fn run(command: &ShellCommand<'_>, limit: Duration, cancelled: impl Future<Output = ()>) -> ShellRun {
    let began = Instant::now();
    let log_from = std::fs::metadata(command.log).map_or(0, |metadata| metadata.len());
    let end = match process::spawn(&launch(command)) {
        Ok(started) => until_end(started, began + limit, cancelled).await,
        Err(error) => ShellEnd::NotStarted(error),
    };
    ShellRun { end, seconds: began.elapsed().as_secs_f64(), log_tail: end_of(command.log, log_from) }
}

async fn until_end(mut started: SpawnedProcess, deadline: Instant, cancelled: impl Future<Output = ()>) -> ShellEnd {
    let exit = tokio::select! {
        exit = started.child.wait() => exit.ok().map(to_exit),
        () = tokio::time::sleep_until(deadline) => None,
        () = cancelled => {
            stop(&mut started).await;
            return ShellEnd::Cancelled;
        }
    };
    match exit {
        Some(exit) => ShellEnd::Exited(exit),
        None => {
            stop(&mut started).await;
            ShellEnd::TimedOut
        }
    }
}

/// Returns whether a full disk probably caused the failure, judging by the command's output and the free disk space.
pub(super) fn is_out_of_space(directory: &Path, log: &str) -> bool {
    /// Minimum of free bytes, since any build needs more.
    const LEAST: u64 = 1 << 20;
    let messages = ["No space left on device", "ENOSPC", "Disk quota exceeded", "EDQUOT"];
    messages.iter().any(|words| log.contains(words))
        || [directory, &std::env::temp_dir()]
            .iter()
            .any(|path| process::free_disk_bytes(path).is_some_and(|free| free < LEAST))
}

/// Kills the shell.
async fn stop(started: &mut SpawnedProcess) {
    process::send(&started.identity, Signal::Kill);
    let _ = tokio::time::timeout(Duration::from_secs(5), started.child.wait()).await;
}

fn launch(run: &ShellCommand<'_>) -> Launch {
    let mut env_set = run.sockets.variables();
    // Git's settings in the environment are removed below, so the numbers begin at 0.
    env_set.extend(run.sockets.signing_variables(0));
    env_set.extend(run.variables.iter().map(|(name, value)| (name.clone(), value.into())));
    env_set.insert(TAG_VARIABLE.to_owned(), run.tag.into());
    Launch {
        program: "/bin/sh".into(),
        args: vec!["-c".into(), run.command.into()],
        cwd: run.directory.to_owned(),
        env_set,
        env_remove: std::env::vars_os()
            .filter_map(|(name, _)| name.into_string().ok())
            .filter(|name| is_removed(name, run.settings))
            .collect(),
        stdin: StdinSource::Null,
        output_pipe: false,
        stdout: run.log.to_owned(),
        stderr: run.log.to_owned(),
        confine: run.confine.cloned(),
    }
}

/// Returns whether a variable is removed from the environment of the command. This is a denylist, since the user's
/// toolchain may need any variable.
fn is_removed(name: &str, settings: &Settings) -> bool {
    let is_custom_key = || settings.custom.iter().any(|it| it.key_variables.iter().any(|key| key == name));
    is_secret(name)
        || redirects(name)
        || reaches_boss_terminal(name)
        || crate::backend::is_boss_variable(name)
        || is_custom_key()
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    SECRET.iter().any(|part| name.contains(part)) || SECRET_END.iter().any(|end| name.ends_with(end))
}

/// Returns whether a variable connects to an agent, or points git at another repository.
fn redirects(name: &str) -> bool {
    AGENTS.contains(&name) || (name.starts_with("GIT_") && !GIT_KEPT.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_removed_and_toolchain_variables_kept() {
        let removed = [
            "ANTHROPIC_API_KEY",
            "GITHUB_TOKEN",
            "db_password",
            "NPM_AUTH",
            "SENTRY_DSN",
            "AZURE_DEVOPS_PAT",
            "SSH_AUTH_SOCK",
            "GPG_AGENT_INFO",
            "SSH_ASKPASS",
            "GIT_ASKPASS",
            "GIT_DIR",
            "GIT_INDEX_FILE",
            "GIT_WORK_TREE",
            "GIT_COMMON_DIR",
            "GIT_SSH_COMMAND",
            "GIT_EXTERNAL_DIFF",
            "GIT_CONFIG_COUNT",
            "GIT_CONFIG_KEY_0",
            "GIT_CONFIG_VALUE_0",
            "GIT_CONFIG_PARAMETERS",
            "GIT_NAMESPACE",
            "GIT_EDITOR",
        ];
        for name in removed {
            assert!(is_secret(name) || redirects(name), "{name} is not removed");
        }
        let kept = [
            "PATH",
            "HOME",
            "LANG",
            "CARGO_HOME",
            "JAVA_HOME",
            "NODE_OPTIONS",
            "VIRTUAL_ENV",
            "GOFLAGS",
            "DISPLAY",
            "XAUTHORITY",
            "HTTPS_PROXY",
            "DATABASE_URL",
            "GIT_CONFIG_GLOBAL",
            "GIT_AUTHOR_NAME",
            "CI",
        ];
        for name in kept {
            assert!(!is_secret(name) && !redirects(name), "{name} is removed");
        }
    }
}
