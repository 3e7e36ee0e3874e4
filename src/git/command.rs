//! Every call of the git program goes through [`Git`], so that all of them are equally careful.
//!
//! A call never runs a hook or an fsmonitor, never starts background maintenance, never asks a question on the
//! terminal, speaks English, and forgets the repository that the caller's own environment points at. Values that come
//! from outside must be made harmless by the caller (a full ref name, an object id, or after `--`): this file does not
//! know which argument is which.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::thread;

/// The oldest git that we support: 2.38 brought `merge-tree --write-tree`.
const OLDEST_SUPPORTED: (u32, u32) = (2, 38);

/// What makes git work on another repository or another configuration than the folder's own
/// (`git rev-parse --local-env-vars` of git 2.47, and four that change what paths and refs mean).
const INHERITED_VARIABLES: [&str; 19] = [
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_CONFIG",
    "GIT_CONFIG_PARAMETERS",
    "GIT_CONFIG_COUNT",
    "GIT_OBJECT_DIRECTORY",
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_GRAFT_FILE",
    "GIT_INDEX_FILE",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_REPLACE_REF_BASE",
    "GIT_PREFIX",
    "GIT_SHALLOW_FILE",
    "GIT_COMMON_DIR",
    "GIT_NAMESPACE",
    "GIT_QUARANTINE_PATH",
    "GIT_LITERAL_PATHSPECS",
    "GIT_EXTERNAL_DIFF",
];

const SAFE_CONFIGURATION: [&str; 5] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "submodule.recurse=false",
];

/// How much of git's error output an error carries, in bytes.
const STDERR_KEPT: usize = 4_000;

#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("find the git program on PATH; install git {}.{} or newer", OLDEST_SUPPORTED.0, OLDEST_SUPPORTED.1)]
    NotInstalled,
    #[error(
        "use {found}: git {}.{} or newer is needed; upgrade git",
        OLDEST_SUPPORTED.0,
        OLDEST_SUPPORTED.1
    )]
    TooOld { found: String },
    #[error("run git in {}: the directory does not exist", dir.display())]
    NoDirectory { dir: PathBuf },
    #[error("run `git {command}` in {}", dir.display())]
    Start { command: String, dir: PathBuf, source: io::Error },
    #[error(
        "run `git {command}` in {} ({}): {stderr}",
        dir.display(),
        code.map_or_else(|| "killed by a signal".to_owned(), |code| format!("exit code {code}"))
    )]
    Failed { command: String, dir: PathBuf, code: Option<i32>, stderr: String },
    #[error("read the output of `git {command}` as UTF-8")]
    NotUtf8 { command: String },
}

/// What a finished git said. `code` is `None` when a signal ended it.
#[derive(Debug)]
pub struct Output {
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

/// A part of a long output; `more` tells that git had more to say.
#[derive(Debug)]
pub struct Page {
    pub bytes: Vec<u8>,
    pub more: bool,
}

/// One call of the git program, built up and then run once.
#[derive(Debug)]
pub struct Git {
    command: Command,
    dir: PathBuf,
    shown: Vec<String>,
    input: Option<Vec<u8>>,
}

impl Git {
    /// A call that reads: it takes no lock that could get in the way of somebody who works in `dir`.
    pub fn read(dir: impl AsRef<Path>) -> Git {
        let mut git = Git::write(dir);
        git.command.env("GIT_OPTIONAL_LOCKS", "0");
        git
    }

    /// A call that changes something.
    pub fn write(dir: impl AsRef<Path>) -> Git {
        let mut command = Command::new("git");
        for name in INHERITED_VARIABLES {
            command.env_remove(name);
        }
        command.current_dir(&dir).env("LC_ALL", "C").env("GIT_TERMINAL_PROMPT", "0");
        for setting in SAFE_CONFIGURATION {
            command.args(["-c", setting]);
        }
        #[cfg(test)]
        super::testing::seal(&mut command);
        Git { command, dir: dir.as_ref().to_owned(), shown: Vec::new(), input: None }
    }

    /// One more setting for this call alone. Must come before the first argument.
    pub fn config(mut self, setting: &str) -> Git {
        self.command.args(["-c", setting]);
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Git {
        self.command.env(name, value);
        self
    }

    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Git {
        self.shown.push(argument.as_ref().to_string_lossy().into_owned());
        self.command.arg(argument);
        self
    }

    pub fn args<A: AsRef<OsStr>>(self, arguments: impl IntoIterator<Item = A>) -> Git {
        arguments.into_iter().fold(self, Git::arg)
    }

    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Git {
        self.input = Some(bytes.into());
        self
    }

    /// Runs to the end, whatever the exit code is.
    pub fn output(mut self) -> Result<Output, CommandError> {
        let mut child = self.start()?;
        let input = self.input.take();
        let stdin = child.stdin.take();
        let finished = thread::scope(|scope| {
            // Written beside reading, so that neither side waits for a full pipe. Git may stop reading early: the
            // exit code tells whether that was a failure.
            if let (Some(mut stdin), Some(input)) = (stdin, input) {
                scope.spawn(move || stdin.write_all(&input));
            }
            child.wait_with_output()
        });
        let output = finished.map_err(|source| self.start_error(source))?;
        Ok(Output { code: output.status.code(), stdout: output.stdout, stderr: shorten(&output.stderr) })
    }

    /// The output of a call that must succeed.
    pub fn run(self) -> Result<Vec<u8>, CommandError> {
        self.run_and_listen().map(|(stdout, _)| stdout)
    }

    /// The output of a call that must succeed, and what git complained about all the same.
    pub fn run_and_listen(self) -> Result<(Vec<u8>, String), CommandError> {
        let (command, dir) = (self.shown.join(" "), self.dir.clone());
        let output = self.output()?;
        match output.code {
            Some(0) => Ok((output.stdout, output.stderr)),
            code => Err(CommandError::Failed { command, dir, code, stderr: output.stderr }),
        }
    }

    /// The output as text, without the newline at its end.
    pub fn text(self) -> Result<String, CommandError> {
        let command = self.shown.join(" ");
        let mut text = String::from_utf8(self.run()?).map_err(|_| CommandError::NotUtf8 { command })?;
        if text.ends_with('\n') {
            text.pop();
        }
        Ok(text)
    }

    /// The output as a path, without the newline at its end.
    pub fn path(self) -> Result<PathBuf, CommandError> {
        let mut bytes = self.run()?;
        if bytes.ends_with(b"\n") {
            bytes.pop();
        }
        Ok(PathBuf::from(OsString::from_vec(bytes)))
    }

    /// The output where exit code 0 means yes and 1 means no, which is `None`. Anything else is a failure.
    pub fn answer(self) -> Result<Option<Vec<u8>>, CommandError> {
        let (command, dir) = (self.shown.join(" "), self.dir.clone());
        let output = self.output()?;
        match output.code {
            Some(0) => Ok(Some(output.stdout)),
            Some(1) => Ok(None),
            code => Err(CommandError::Failed { command, dir, code, stderr: output.stderr }),
        }
    }

    /// For questions that git answers by exit code alone.
    pub fn succeeds(self) -> Result<bool, CommandError> {
        Ok(self.answer()?.is_some())
    }

    /// At most `limit` bytes of the output from `offset` on, without holding the rest in memory.
    pub fn page(mut self, offset: u64, limit: usize) -> Result<Page, CommandError> {
        let mut child = self.start()?;
        let stderr = child.stderr.take();
        let complaint = thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut stderr) = stderr {
                // What cannot be read of a complaint is only missing from the error's text.
                let _ = stderr.read_to_end(&mut bytes);
            }
            bytes
        });
        let mut stdout = child.stdout.take().expect("stdout was asked for as a pipe");
        let read = read_page(&mut stdout, offset, limit);
        drop(stdout);
        // Git ends by the closed pipe when there was more; its exit code then means nothing.
        let status = child.wait().map_err(|source| self.start_error(source))?;
        let stderr = complaint.join().unwrap_or_default();
        let page = read.map_err(|source| self.start_error(source))?;
        if !page.more && !status.success() {
            return Err(CommandError::Failed {
                command: self.shown.join(" "),
                dir: self.dir,
                code: status.code(),
                stderr: shorten(&stderr),
            });
        }
        Ok(page)
    }

    fn start(&mut self) -> Result<Child, CommandError> {
        let stdin = match self.input {
            Some(_) => Stdio::piped(),
            None => Stdio::null(),
        };
        self.command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| self.start_error(source))
    }

    fn start_error(&self, source: io::Error) -> CommandError {
        let dir = self.dir.clone();
        // A missing program and a missing directory are the same error number.
        match source.kind() {
            io::ErrorKind::NotFound if !dir.is_dir() => CommandError::NoDirectory { dir },
            io::ErrorKind::NotFound => CommandError::NotInstalled,
            _ => CommandError::Start { command: self.shown.join(" "), dir, source },
        }
    }
}

/// Says no when git is missing or older than what we are built on. Asked once; only a yes is remembered.
pub fn require_supported_version() -> Result<(), CommandError> {
    static SUPPORTED: OnceLock<()> = OnceLock::new();
    if SUPPORTED.get().is_some() {
        return Ok(());
    }
    let found = Git::read("/").arg("--version").text()?;
    match parse_version(&found) {
        Some(version) if version >= OLDEST_SUPPORTED => {
            SUPPORTED.get_or_init(|| ());
            Ok(())
        }
        _ => Err(CommandError::TooOld { found }),
    }
}

/// Reads `git version 2.39.5 (Apple Git-154)` as (2, 39).
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.strip_prefix("git version ")?.split(['.', ' ']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn read_page(from: &mut impl Read, offset: u64, limit: usize) -> io::Result<Page> {
    io::copy(&mut from.by_ref().take(offset), &mut io::sink())?;
    let mut bytes = Vec::new();
    from.by_ref().take(limit as u64).read_to_end(&mut bytes)?;
    let more = from.read(&mut [0])? > 0;
    Ok(Page { bytes, more })
}

fn shorten(stderr: &[u8]) -> String {
    let start = stderr.len().saturating_sub(STDERR_KEPT);
    String::from_utf8_lossy(&stderr[start..]).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::testing::Fixture;

    #[test]
    fn versions_of_all_vendors_are_read() {
        assert_eq!(parse_version("git version 2.47.3"), Some((2, 47)));
        assert_eq!(parse_version("git version 2.39.5 (Apple Git-154)"), Some((2, 39)));
        assert_eq!(parse_version("git version 2.45.1.windows.1"), Some((2, 45)));
        assert_eq!(parse_version("tig version 2.5"), None);
        require_supported_version().unwrap();
    }

    #[test]
    fn every_variable_that_git_calls_local_is_removed() {
        let local = Git::read("/").args(["rev-parse", "--local-env-vars"]).text().unwrap();
        for name in local.lines() {
            assert!(INHERITED_VARIABLES.contains(&name), "{name} would be inherited");
        }
    }

    #[test]
    fn a_missing_directory_is_told_from_a_missing_git() {
        let error = Git::read("/no/such/folder").arg("status").run();
        assert!(matches!(error, Err(CommandError::NoDirectory { .. })));
    }

    #[test]
    fn a_failure_carries_the_command_and_what_git_said() {
        let fixture = Fixture::new();
        let error = Git::read(fixture.root()).args(["rev-parse", "--verify", "nothing"]).run().unwrap_err().to_string();
        assert!(error.contains("git rev-parse --verify nothing") && error.contains("exit code 128"), "{error}");
    }

    #[test]
    fn large_input_and_output_do_not_block_each_other() {
        let fixture = Fixture::new();
        let lines = "HEAD\n".repeat(200_000);
        let answer = Git::read(fixture.root()).args(["cat-file", "--batch-check"]).input(lines).run().unwrap();
        assert_eq!(answer.iter().filter(|byte| **byte == b'\n').count(), 200_000);
    }

    #[test]
    fn a_page_is_a_window_on_the_output() {
        let fixture = Fixture::new();
        fixture.write("long.txt", &"0123456789".repeat(100_000));
        fixture.git(&["add", "."]);
        let show = || Git::read(fixture.root()).args(["show", ":long.txt"]);
        let page = show().page(5, 10).unwrap();
        assert_eq!((page.bytes.as_slice(), page.more), (&b"5678901234"[..], true));
        let last = show().page(999_995, 10).unwrap();
        assert_eq!((last.bytes.as_slice(), last.more), (&b"56789"[..], false));
    }
}
