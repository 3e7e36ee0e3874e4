//! Every call of the git program goes through [`Git`], so that the same precautions apply to all of them.
//!
//! A call never runs a hook or an fsmonitor, nor a filter that came with a worker (see [`super::configuration`]). It
//! never starts background maintenance and never prompts on the terminal. Its messages are in English. It ignores
//! environment variables of the caller that name another repository. The caller must make untrusted values harmless (a
//! full ref name, an object id, or after `--`), because arguments are not interpreted here.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use super::configuration;
use super::trust::Checkout;
use crate::mission::hint::{Hint, Hinted};

/// The oldest supported git: 2.38 added `merge-tree --write-tree`.
const OLDEST_SUPPORTED: (u32, u32) = (2, 38);

/// Variables that make git use another repository or another configuration than those of the folder
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

/// Maximum number of bytes of git's error output in an error.
const STDERR_KEPT: usize = 4_000;
/// Time limit of a call that changes something. A first checkout over a slow network, with large files fetched by a
/// filter, takes minutes. A call that takes longer hangs, and would block the start or the end of a worker.
const WRITE_LIMIT: Duration = Duration::from_secs(30 * 60);
const READ_LIMIT: Duration = Duration::from_secs(10 * 60);
/// Time that a stopped git gets to remove its lock files.
const STOP_GRACE: Duration = Duration::from_secs(3);

#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("cannot find the git program: it is not on PATH")]
    NotInstalled,
    #[error(
        "cannot use {}: git {}.{} or newer is required",
        found,
        OLDEST_SUPPORTED.0,
        OLDEST_SUPPORTED.1
    )]
    TooOld { found: String },
    #[error("cannot run git in {}: the directory does not exist", dir.display())]
    NoDirectory { dir: PathBuf },
    #[error("cannot run `git {command}` in {}", dir.display())]
    Start { command: String, dir: PathBuf, source: io::Error },
    #[error(
        "cannot run `git {command}` in {} ({}): {stderr}",
        dir.display(),
        code.map_or_else(|| "killed by a signal".to_owned(), |code| format!("exit code {code}"))
    )]
    Failed { command: String, dir: PathBuf, code: Option<i32>, stderr: String },
    #[error(
        "cannot finish `git {command}` in {}: it was stopped after {} minutes",
        dir.display(),
        seconds.div_ceil(60)
    )]
    TimeUp { command: String, dir: PathBuf, seconds: u64 },
    #[error("cannot read the output of `git {command}`: it is not UTF-8")]
    NotUtf8 { command: String },
}

impl Hinted for CommandError {
    fn hints(&self) -> Vec<Hint> {
        match self {
            Self::NotInstalled => {
                let (major, minor) = OLDEST_SUPPORTED;
                vec![Hint::to(format!("install git {major}.{minor} or newer"))]
            }
            Self::TooOld { .. } => vec![Hint::to("upgrade git")],
            Self::TimeUp { .. } => vec![
                Hint::to("check whether the disk or network hangs"),
                Hint::to("check whether a filter or a credential helper waits for an answer, then try again"),
            ],
            Self::NoDirectory { .. } | Self::Start { .. } | Self::Failed { .. } | Self::NotUtf8 { .. } => Vec::new(),
        }
    }
}

/// The output of a finished git. `code` is `None` when a signal ended it.
#[derive(Debug)]
pub struct Output {
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

/// A part of a long output. `more` is true if there was more.
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
    /// `None`: the call uses all settings of the repository.
    checkout: Option<Checkout>,
    shown: Vec<String>,
    input: Option<Vec<u8>>,
    limit: Duration,
}

impl Git {
    /// Begins a call that reads. It takes no lock that could block another process that works in the folder.
    ///
    /// There is no call without trust:
    ///
    /// ```compile_fail,E0308
    /// orchestrator_boss::git::Git::read(std::path::Path::new("/repo"));
    /// ```
    pub fn read(dir: &Checkout) -> Git {
        Git::write(dir).reading()
    }

    /// Begins a call that changes something.
    pub fn write(dir: &Checkout) -> Git {
        Git::new(dir, Some(dir.clone())).with_folders_of(dir)
    }

    /// Makes git use the folders that are known, and not those that the worktree's `.git` names.
    fn with_folders_of(self, dir: &Checkout) -> Git {
        match dir.named_git_dir() {
            Some(git_dir) => self.env("GIT_DIR", git_dir).env("GIT_WORK_TREE", dir.as_os_str()),
            None => self,
        }
    }

    /// Begins a reading call that uses all settings of the repository in `dir`. Only for calls that run nothing that a
    /// repository names, such as those for the version, the place or the configuration of a repository.
    pub fn without_trust(dir: impl AsRef<Path>) -> Git {
        Git::new(dir.as_ref(), None).reading()
    }

    fn new(dir: &Path, checkout: Option<Checkout>) -> Git {
        let mut command = Command::new("git");
        for name in INHERITED_VARIABLES {
            command.env_remove(name);
        }
        command.current_dir(dir).env("LC_ALL", "C").env("GIT_TERMINAL_PROMPT", "0");
        for setting in SAFE_CONFIGURATION {
            command.args(["-c", setting]);
        }
        #[cfg(test)]
        super::testing::seal(&mut command);
        Git { command, dir: dir.to_owned(), checkout, shown: Vec::new(), input: None, limit: WRITE_LIMIT }
    }

    fn reading(mut self) -> Git {
        self.limit = READ_LIMIT;
        self.command.env("GIT_OPTIONAL_LOCKS", "0");
        self
    }

    /// Adds a setting for this call alone. Must come before the first argument.
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

    /// Replaces the default time limit.
    pub fn limit(mut self, limit: Duration) -> Git {
        self.limit = limit;
        self
    }

    /// Runs to the end, with any exit code.
    pub fn output(mut self) -> Result<Output, CommandError> {
        let ended = self.collect(|stdout| {
            let mut bytes = Vec::new();
            stdout.read_to_end(&mut bytes).map(|_| bytes)
        })?;
        Ok(Output { code: ended.status.code(), stdout: ended.stdout, stderr: shorten(&ended.stderr) })
    }

    /// Returns the output of a call that must succeed.
    pub fn run(self) -> Result<Vec<u8>, CommandError> {
        self.run_and_listen().map(|(stdout, _)| stdout)
    }

    /// Returns the output of a call that must succeed, and its error output.
    pub fn run_and_listen(self) -> Result<(Vec<u8>, String), CommandError> {
        let (command, dir) = (self.shown.join(" "), self.dir.clone());
        let output = self.output()?;
        match output.code {
            Some(0) => Ok((output.stdout, output.stderr)),
            code => Err(CommandError::Failed { stderr: with_lack_of_space(output.stderr, &dir), command, dir, code }),
        }
    }

    /// Returns the output as text, without the newline at its end.
    pub fn text(self) -> Result<String, CommandError> {
        let command = self.shown.join(" ");
        let mut text = String::from_utf8(self.run()?).map_err(|_| CommandError::NotUtf8 { command })?;
        if text.ends_with('\n') {
            text.pop();
        }
        Ok(text)
    }

    /// Returns the output as a path, without the newline at its end.
    pub fn path(self) -> Result<PathBuf, CommandError> {
        let mut bytes = self.run()?;
        if bytes.ends_with(b"\n") {
            bytes.pop();
        }
        Ok(PathBuf::from(OsString::from_vec(bytes)))
    }

    /// Returns the output if the exit code is 0, and `None` if it is 1. Any other exit code is an error.
    pub fn answer(self) -> Result<Option<Vec<u8>>, CommandError> {
        let (command, dir) = (self.shown.join(" "), self.dir.clone());
        let output = self.output()?;
        match output.code {
            Some(0) => Ok(Some(output.stdout)),
            Some(1) => Ok(None),
            code => Err(CommandError::Failed { command, dir, code, stderr: output.stderr }),
        }
    }

    /// Returns whether the exit code is 0, for questions that git answers by it alone.
    pub fn succeeds(self) -> Result<bool, CommandError> {
        Ok(self.answer()?.is_some())
    }

    /// Returns whether the commit `part` is contained in `whole`; `false` if git does not have one of them.
    pub fn is_ancestor(self, part: &str, whole: &str) -> Result<bool, CommandError> {
        Ok(self.args(["merge-base", "--is-ancestor", part, whole]).output()?.code == Some(0))
    }

    /// Returns the merge base of two commits; `None` for unrelated histories.
    pub fn merge_base(self, one: &str, other: &str) -> Result<Option<String>, CommandError> {
        let answer = self.args(["merge-base", one, other]).answer()?;
        Ok(answer.map(|commit| String::from_utf8_lossy(&commit).trim().to_owned()))
    }

    /// Prepares a call that creates an unreferenced commit and prints its id.
    pub fn commit_tree<P: AsRef<str>>(self, tree: &str, parents: &[P], message: impl Into<Vec<u8>>) -> Self {
        let parents = parents.iter().flat_map(|parent| ["-p", parent.as_ref()]);
        self.args(["commit-tree", tree]).args(parents).args(["-F", "-"]).input(message)
    }

    pub fn tree_of(self, commit: &str) -> Result<String, CommandError> {
        self.args(["rev-parse", &format!("{commit}^{{tree}}")]).text()
    }

    /// Returns at most `limit` bytes of the output from `offset` on, without holding the rest in memory.
    pub fn page(mut self, offset: u64, limit: usize) -> Result<Page, CommandError> {
        // If there was more, the closed pipe ends git, and its exit code means nothing.
        let Ended { status, stdout: page, stderr } = self.collect(move |stdout| read_page(stdout, offset, limit))?;
        if !page.more && !status.success() {
            return Err(self.failed(status, &stderr));
        }
        Ok(page)
    }

    /// Passes the output on as it arrives, to the end or until it is no longer accepted, which is no error.
    pub fn pass_on(mut self, mut out: impl Write + Send + 'static) -> Result<(), CommandError> {
        let copy = move |stdout: &mut ChildStdout| match io::copy(stdout, &mut out).and_then(|_| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            copied => copied.map(|()| true),
        };
        let Ended { status, stdout: all_taken, stderr } = self.collect(copy)?;
        if status.success() || !all_taken { Ok(()) } else { Err(self.failed(status, &stderr)) }
    }

    fn failed(self, status: ExitStatus, stderr: &[u8]) -> CommandError {
        let command = self.shown.join(" ");
        CommandError::Failed { command, dir: self.dir, code: status.code(), stderr: shorten(stderr) }
    }

    /// Removes the time limit, since the user reads its output in a pager.
    pub fn unlimited(mut self) -> Self {
        self.limit = Duration::from_secs(30 * 24 * 3_600);
        self
    }

    /// Runs git to its end or to the time limit. Input and both outputs are handled in parallel, so that none blocks on
    /// a full pipe. Each has its own thread, which may be left behind: a child of git may keep a pipe open for ever.
    fn collect<T: Send + 'static>(
        &mut self,
        read: impl FnOnce(&mut ChildStdout) -> io::Result<T> + Send + 'static,
    ) -> Result<Ended<T>, CommandError> {
        let deadline = Instant::now() + self.limit;
        let mut child = self.start()?;
        if let (Some(mut stdin), Some(input)) = (child.stdin.take(), self.input.take()) {
            // Git may stop reading early. The exit code shows whether that was an error.
            thread::spawn(move || stdin.write_all(&input));
        }
        let mut stdout = child.stdout.take().expect("stdout was asked for as a pipe");
        let mut stderr = child.stderr.take().expect("stderr was asked for as a pipe");
        let output = in_a_thread(move || read(&mut stdout));
        let complaint = in_a_thread(move || {
            let mut bytes = Vec::new();
            // Unreadable error output is only missing from the error's text.
            let _ = stderr.read_to_end(&mut bytes);
            bytes
        });
        let ended = (|| {
            let stdout = output.recv_timeout(left(deadline)).ok()?;
            let stderr = complaint.recv_timeout(left(deadline)).ok()?;
            Some((wait_until(&mut child, deadline).transpose()?, stdout, stderr))
        })();
        match ended {
            Some((status, stdout, stderr)) => {
                let fail = |source| self.start_error(source);
                Ok(Ended { status: status.map_err(fail)?, stdout: stdout.map_err(fail)?, stderr })
            }
            None => {
                stop(child);
                let (command, dir) = (self.shown.join(" "), self.dir.clone());
                Err(CommandError::TimeUp { command, dir, seconds: self.limit.as_secs() })
            }
        }
    }

    fn start(&mut self) -> Result<Child, CommandError> {
        self.restrict_configuration();
        let stdin = match self.input {
            Some(_) => Stdio::piped(),
            None => Stdio::null(),
        };
        self.command
            .stdin(stdin)
            // A process group of its own, so that its children can be ended with it.
            .process_group(0)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| self.start_error(source))
    }

    /// Replaces the settings that are not trusted. Variables take precedence like `-c`, and may be added last.
    fn restrict_configuration(&mut self) {
        // A configuration that cannot be read stops the call itself too.
        let overrides = self.checkout.as_ref().and_then(|it| Some(it.restriction()?.overrides(own_settings(it).ok()?)));
        let overrides = overrides.unwrap_or_default();
        self.command.env("GIT_CONFIG_COUNT", overrides.len().to_string());
        for (at, (name, value)) in overrides.iter().enumerate() {
            self.command.env(format!("GIT_CONFIG_KEY_{at}"), name).env(format!("GIT_CONFIG_VALUE_{at}"), value);
        }
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

/// Returns the settings of the repository and of the worktree in `dir`, with those of included files.
pub(super) fn own_settings(dir: &Checkout) -> Result<Vec<(String, String)>, CommandError> {
    let args = ["config", "--includes", "--list", "--show-scope", "-z"];
    Ok(configuration::parse_own(&Git::without_trust(dir).with_folders_of(dir).args(args).run()?))
}

/// The result of a call that ran to its end.
struct Ended<T> {
    status: ExitStatus,
    stdout: T,
    stderr: Vec<u8>,
}

fn in_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Receiver<T> {
    let (sender, receiver) = channel();
    thread::spawn(move || sender.send(work()));
    receiver
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// Waits for the exit of a child whose outputs are closed, usually for microseconds. `None` if it did not exit in time.
fn wait_until(child: &mut Child, deadline: Instant) -> io::Result<Option<ExitStatus>> {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        if began.elapsed() < Duration::from_millis(1) {
            thread::yield_now()
        } else {
            thread::sleep(Duration::from_millis(1))
        }
    }
}

/// Asks git and its children to terminate, so that git removes its lock files, then kills them. Git is not reaped
/// before that, so its process group id cannot be reused. A process that hangs in the kernel is left to a waiting
/// thread.
fn stop(mut child: Child) {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(group, Signal::TERM);
        let until = Instant::now() + STOP_GRACE;
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        while matches!(waitid(WaitId::Pid(group), look), Ok(None)) && Instant::now() < until {
            thread::sleep(Duration::from_millis(5));
        }
        let _ = kill_process_group(group, Signal::KILL);
    }
    if !matches!(wait_until(&mut child, Instant::now() + STOP_GRACE), Ok(Some(_))) {
        thread::spawn(move || child.wait());
    }
}

/// Returns an error if git is missing or too old. Success is remembered, and not checked again.
pub fn require_supported_version() -> Result<(), CommandError> {
    static SUPPORTED: OnceLock<()> = OnceLock::new();
    if SUPPORTED.get().is_some() {
        return Ok(());
    }
    let found = Git::without_trust("/").arg("--version").text()?;
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

/// Git often says only that it could not write (`unable to write file x`), and not that the disk is full.
fn with_lack_of_space(stderr: String, dir: &Path) -> String {
    const LITTLE: u64 = 1 << 20;
    let free = rustix::fs::statvfs(dir).map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize));
    match free {
        Ok(free) if free < LITTLE => format!("{stderr} (no space left: its disk has {} kB free)", free / 1024),
        _ => stderr,
    }
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
    fn local_variables_of_git_are_removed() {
        let local = Git::without_trust("/").args(["rev-parse", "--local-env-vars"]).text().unwrap();
        for name in local.lines() {
            assert!(INHERITED_VARIABLES.contains(&name), "{name} would be inherited");
        }
    }

    #[test]
    fn missing_directory_differs_from_missing_git() {
        let error = Git::without_trust("/no/such/folder").arg("status").run();
        assert!(matches!(error, Err(CommandError::NoDirectory { .. })));
    }

    #[test]
    fn failure_names_the_command_and_exit_code() {
        let fixture = Fixture::new();
        let error = fixture.repo.read().args(["rev-parse", "--verify", "nothing"]).run().unwrap_err().to_string();
        assert!(error.contains("git rev-parse --verify nothing") && error.contains("exit code 128"), "{error}");
    }

    #[test]
    fn large_input_and_output_do_not_deadlock() {
        let fixture = Fixture::new();
        let lines = "HEAD\n".repeat(200_000);
        let answer = fixture.repo.read().args(["cat-file", "--batch-check"]).input(lines).run().unwrap();
        assert_eq!(answer.iter().filter(|byte| **byte == b'\n').count(), 200_000);
    }

    #[test]
    fn page_is_a_window_on_the_output() {
        let fixture = Fixture::new();
        fixture.write("long.txt", &"0123456789".repeat(100_000));
        fixture.git(&["add", "."]);
        let show = || fixture.repo.read().args(["show", ":long.txt"]);
        let page = show().page(5, 10).unwrap();
        assert_eq!((page.bytes.as_slice(), page.more), (&b"5678901234"[..], true));
        let last = show().page(999_995, 10).unwrap();
        assert_eq!((last.bytes.as_slice(), last.more), (&b"56789"[..], false));
    }

    #[test]
    fn hanging_git_is_stopped_with_its_children() {
        let fixture = Fixture::new();
        let folder = fixture.root().to_owned();
        // A filter that hangs, and ignores the signal to terminate.
        let script =
            "#!/bin/sh\ntrap '' TERM\necho $$ > filter.new\nmv filter.new filter.pid\nwhile :; do sleep 0.05; done\n";
        fixture.write("hang", script);
        fixture.write(".gitattributes", "*.big filter=hang\n");
        fixture.write("a.big", "x");
        let add = fixture.repo.write().config("filter.hang.clean=sh ./hang").args(["add", "a.big"]);
        let error = add.limit(Duration::from_secs(4)).run().unwrap_err();
        assert!(matches!(error, CommandError::TimeUp { .. }), "{error}");
        assert!(error.to_string().contains("git add a.big"), "{error}");
        let pid = std::fs::read_to_string(folder.join("filter.pid")).expect("the filter had begun");
        let alive = |pid: &str| rustix::process::test_kill_process(Pid::from_raw(pid.trim().parse().unwrap()).unwrap());
        let began = Instant::now();
        // An orphan is reaped by the process that inherits it.
        while alive(&pid).is_ok() {
            assert!(began.elapsed() < Duration::from_secs(60), "the filter lives on");
            thread::sleep(Duration::from_millis(5));
        }
        assert!(!folder.join(".git/index.lock").exists(), "the next call would find a lock");
    }
}
