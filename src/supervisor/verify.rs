//! Execution of `verify_command` in the worker's directory, and evaluation of its exit.
//!
//! The command runs code that a worker wrote, so its environment holds no keys. A command that could not run is
//! distinguished from one that failed.

use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::exit::{end_of, to_exit};
use super::isolation::{SocketFolder, reaches_boss_terminal};
use crate::config::Settings;
use crate::git::CommandError;
use crate::mission::hint::with_hints;
use crate::mission::outcome::{Exit, Verification};
use crate::process::{self, Launch, Signal, SpawnedProcess, StdinSource, TAG_VARIABLE};

/// Exit statuses of a shell that cannot find, or cannot run, the command.
const NOT_RUN: [i32; 2] = [126, 127];
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

/// The command to run, its directory, and the commit to verify.
pub struct VerifyCommand<'a> {
    pub command: &'a str,
    pub directory: &'a Path,
    /// The tag in the environment of all its processes.
    pub tag: &'a str,
    /// The log file, to which the output is appended.
    pub log: &'a Path,
    pub settings: &'a Settings,
    pub sockets: &'a SocketFolder,
    /// The commit that a success verifies.
    pub commit: Option<String>,
}

/// Runs the command. `None` if it was stopped because `cancelled` completed.
pub async fn verify(run: VerifyCommand<'_>, cancelled: impl Future<Output = ()>) -> Option<Verification> {
    let began = Instant::now();
    let log_from = std::fs::metadata(run.log).map_or(0, |metadata| metadata.len());
    let mut started = match process::spawn(&launch(&run)) {
        Ok(started) => started,
        Err(error) => return Some(Verification::CouldNotRun { why: with_hints(&error) }),
    };
    let limit = Duration::from_secs(60) * run.settings.verify_timeout_minutes;
    let exit = tokio::select! {
        exit = started.child.wait() => exit.ok().map(to_exit),
        () = tokio::time::sleep_until(began + limit) => None,
        () = cancelled => {
            stop(&mut started).await;
            return None;
        }
    };
    let seconds = began.elapsed().as_secs_f64();
    let log_tail = end_of(run.log, log_from);
    let commit = run.commit;
    Some(match exit {
        Some(Exit::Code(0)) => Verification::Passed { commit, seconds },
        Some(Exit::Code(code)) if NOT_RUN.contains(&code) => Verification::CouldNotRun { why: log_tail },
        Some(Exit::Signal(signal)) => {
            Verification::CouldNotRun { why: format!("it was ended by signal {signal}\n{log_tail}") }
        }
        Some(_) if is_out_of_space(run.directory, &log_tail) => {
            Verification::CouldNotRun { why: format!("no space was left on the disk\n{log_tail}") }
        }
        Some(exit) => Verification::Failed { commit, exit, log_tail, seconds },
        None => {
            stop(&mut started).await;
            Verification::TimedOut { seconds, log_tail }
        }
    })
}

/// Returns a pass unless the tree was changed meanwhile, according to its state before and after, or cannot be read.
pub(super) fn passed_if_unchanged(
    passed: Verification,
    before: Result<String, CommandError>,
    after: Result<String, CommandError>,
) -> Verification {
    let why = match (before, after) {
        (Ok(before), Ok(after)) if before == after => return passed,
        (Ok(_), Ok(_)) => "it passed, but commits or tracked files were changed while it ran".to_owned(),
        (Err(error), _) | (_, Err(error)) => {
            format!("it passed, but whether it changed tracked files is unknown: {}", with_hints(&error))
        }
    };
    Verification::Inconclusive { why }
}

/// Returns whether a full disk caused the failure, by the command's output or by the free space of its disks.
fn is_out_of_space(directory: &Path, log: &str) -> bool {
    /// Any build needs more than this.
    const LEAST: u64 = 1 << 20;
    let messages = ["No space left on device", "ENOSPC", "Disk quota exceeded", "EDQUOT"];
    messages.iter().any(|words| log.contains(words))
        || [directory, &std::env::temp_dir()]
            .iter()
            .any(|path| process::free_disk_bytes(path).is_some_and(|free| free < LEAST))
}

/// Kills the shell. The processes that it has started are swept afterwards.
async fn stop(started: &mut SpawnedProcess) {
    process::send(&started.identity, Signal::Kill);
    let _ = tokio::time::timeout(Duration::from_secs(5), started.child.wait()).await;
}

fn launch(run: &VerifyCommand<'_>) -> Launch {
    let mut env_set = run.sockets.variables();
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
        stdout: run.log.to_owned(),
        stderr: run.log.to_owned(),
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
