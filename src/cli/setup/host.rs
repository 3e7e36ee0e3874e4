//! A server on another host: the client starts `ssh`, which starts the server there, in one repository. Its settings,
//! workers and worktrees are on that host. The server ends with the connection, and the workers continue.
//!
//! The login shell of the host, which may be any shell, gets only `exec sh -c` and one quoted word.

use std::process::{Command, Stdio};

use super::SetupError;
use super::entry::NAME;
use crate::cli::shell::word;

const PROGRAM: &str = "ssh";
/// Options of `ssh`. A client has no terminal in which it could ask for a password. A dead connection ends within 45
/// seconds.
const OPTIONS: [&str; 7] = ["-T", "-o", "BatchMode=yes", "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=3"];

#[derive(Debug, Default, clap::Args)]
pub struct HostArgs {
    /// Start the server on this host, through ssh
    #[arg(long, value_name = "HOST", requires = "directory", conflicts_with = "remove", value_parser = host)]
    host: Option<String>,
    /// The repository on that host: a full path, or one that begins with ~/
    #[arg(long, value_name = "DIR", requires = "host", value_parser = directory)]
    directory: Option<String>,
}

impl HostArgs {
    /// Returns the host and the directory. `None` for a server on this machine.
    fn place(&self) -> Option<(&str, &str)> {
        self.host.as_deref().zip(self.directory.as_deref())
    }

    /// Returns the command line with which a client starts the server on the host.
    pub fn command_line(&self) -> Option<(String, Vec<String>)> {
        let (host, directory) = self.place()?;
        Some((PROGRAM.to_owned(), arguments(host, directory, NAME)))
    }

    /// Returns a note about what the registration means.
    pub fn note(&self) -> Option<String> {
        let (host, directory) = self.place()?;
        Some(format!("every session works in {directory} on {host}, with the settings, CLIs and logins of that host"))
    }

    /// Starts the program on the host once, so that a mistake is found before the client meets it.
    pub fn check(&self) -> Result<(), SetupError> {
        let Some((host, directory)) = self.place() else { return Ok(()) };
        let arguments = arguments(host, directory, &format!("{NAME} --version"));
        let line = std::iter::once(PROGRAM).chain(arguments.iter().map(String::as_str)).map(word);
        let line = line.collect::<Vec<_>>().join(" ");
        let mut ssh = Command::new(PROGRAM);
        let output = ssh.args(["-o", "ConnectTimeout=10"]).args(&arguments).stdin(Stdio::null()).output();
        let output = output.map_err(|source| SetupError::Start { line: line.clone(), source })?;
        if output.status.success() && output.stdout.starts_with(NAME.as_bytes()) {
            return Ok(());
        }
        let output = [output.stderr, output.stdout].concat();
        let output = String::from_utf8_lossy(&output).trim().to_owned();
        Err(SetupError::Host { host: host.to_owned(), line, output })
    }
}

/// Returns the arguments of `ssh` for a program in a directory of the host. The program is started by the login shell,
/// which knows the user's PATH. Output of the shell's start files goes to stderr.
fn arguments(host: &str, directory: &str, program: &str) -> Vec<String> {
    let start = word(&format!("exec {program} 1>&3 3>&-"));
    let script = format!("cd -- {} && exec 3>&1 1>&2 && exec \"${{SHELL:-/bin/sh}}\" -lc {start}", in_home(directory));
    let words = OPTIONS.iter().map(|option| (*option).to_owned());
    words.chain([host.to_owned(), format!("exec sh -c {}", word(&script))]).collect()
}

/// Quotes a directory for a shell of the host.
fn in_home(directory: &str) -> String {
    match directory.strip_prefix('~') {
        Some("" | "/") => "\"$HOME\"".to_owned(),
        Some(rest) => format!("\"$HOME\"{}", word(rest)),
        None => word(directory),
    }
}

fn host(text: &str) -> Result<String, &'static str> {
    // A leading hyphen would make it an option of ssh.
    let is_plain = |c: char| !c.is_whitespace() && !c.is_control();
    if text.is_empty() || text.starts_with('-') || !text.chars().all(is_plain) {
        return Err("not a host name of the ssh configuration, nor USER@HOST");
    }
    Ok(text.to_owned())
}

fn directory(text: &str) -> Result<String, &'static str> {
    let is_full = text.starts_with('/') || text == "~" || text.starts_with("~/");
    if !is_full || text.chars().any(char::is_control) {
        return Err(
            "not a full path on the host, nor one that begins with ~/ (in quotes, so that this shell does not expand it)",
        );
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directory_is_one_word_of_the_remote_shell() {
        let cases = [
            ("~/src/project", "\"$HOME\"/src/project"),
            ("~/my project's", r#""$HOME"'/my project'\''s'"#),
            ("~", "\"$HOME\""),
            ("/srv/$(x)", "'/srv/$(x)'"),
        ];
        for (given, quoted) in cases {
            assert_eq!(in_home(given), quoted);
        }
    }

    #[test]
    fn options_and_relative_paths_are_refused() {
        for name in ["", "-oProxyCommand=x", "a b", "a\nb"] {
            assert!(host(name).is_err(), "{name:?}");
        }
        for path in ["", "src", "../src", "~other/src", "$HOME/src", "/a\nb"] {
            assert!(directory(path).is_err(), "{path:?}");
        }
        assert!(host("me@big").is_ok() && host("ssh://me@big:22").is_ok() && directory("/srv/a b").is_ok());
    }
}
