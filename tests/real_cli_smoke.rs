//! The pinned CLIs against the scripted model: what our backends rely on holds in these versions.

#[path = "support/model_server/mod.rs"]
mod model_server;
#[path = "support/real_cli.rs"]
mod real_cli;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use model_server::{ModelServer, Script};
use real_cli::{Cli, ScratchHome, run_to_end, skipped};
use serde_json::{Value, json};

#[test]
fn claude_commits_in_a_linked_worktree_and_resumes() {
    commits_in_a_linked_worktree_and_resumes(Cli::Claude);
}

#[test]
fn codex_commits_in_a_linked_worktree_and_resumes() {
    commits_in_a_linked_worktree_and_resumes(Cli::Codex);
}

#[test]
fn gemini_commits_in_a_linked_worktree_and_resumes() {
    commits_in_a_linked_worktree_and_resumes(Cli::Gemini);
}

#[test]
fn opencode_commits_in_a_linked_worktree_and_resumes() {
    commits_in_a_linked_worktree_and_resumes(Cli::OpenCode);
}

#[test]
fn a_refused_login_ends_each_cli_with_an_error() {
    if skipped() {
        return;
    }
    let scratch = Scratch::new();
    let prompt = Script::new().fail(401).marker();
    let exit_codes = Cli::ALL.map(|cli| scratch.run(cli, &prompt, None).status.code());
    assert_eq!(exit_codes, [Some(1), Some(1), Some(145), Some(1)]);
}

fn commits_in_a_linked_worktree_and_resumes(cli: Cli) {
    if skipped() {
        return;
    }
    let scratch = Scratch::new();
    let script =
        Script::new().write("new.txt", "one\n").run("git add new.txt && git commit -qm 'add new.txt'").say("committed");

    let first = scratch.run(cli, &script.marker(), None);
    assert!(first.status.success(), "{first:?}");
    assert_eq!(scratch.git(&["log", "-1", "--format=%s"]), "add new.txt");
    assert_eq!(scratch.git(&["show", "HEAD:new.txt"]), "one");
    assert!(stdout(&first).contains("committed"), "{first:?}");

    let session = session_id(&first).expect("every CLI names its session");
    let second = scratch.run(cli, "and then?", Some(&session));
    assert!(second.status.success(), "{second:?}");
    assert!(stdout(&second).contains("heard: and then?"), "{second:?}");
    assert_eq!(session_id(&second), Some(session));
}

/// A scripted model, a home that points at it, and a linked worktree.
struct Scratch {
    _model: ModelServer,
    home: ScratchHome,
    worktree: PathBuf,
}

impl Scratch {
    fn new() -> Self {
        let model = ModelServer::start();
        let mut home = ScratchHome::new(&model.url());
        home.set("CLAUDE_CODE_MAX_RETRIES", "1");
        home.set("IS_SANDBOX", "1");
        home.set("GEMINI_CLI_NO_RELAUNCH", "1");
        home.set("GEMINI_CLI_TRUST_WORKSPACE", "true");
        let worktree = home.path().join("worktree");
        let scratch = Self { _model: model, home, worktree };
        scratch.make_linked_worktree();
        scratch
    }

    fn make_linked_worktree(&self) {
        let repository = self.home.path().join("repository");
        fs::create_dir(&repository).expect("a new directory in the scratch home");
        let git = |arguments: &[&str]| self.git_in(&repository, arguments);
        git(&["init", "-q", "-b", "main"]);
        git(&["config", "user.name", "Scratch"]);
        git(&["config", "user.email", "scratch@example.com"]);
        git(&["commit", "-q", "--allow-empty", "-m", "begin"]);
        git(&["worktree", "add", "-q", "-b", "work", "../worktree"]);
    }

    fn run(&self, cli: Cli, prompt: &str, session: Option<&str>) -> Output {
        let mut command = self.worker_command(cli, session);
        command.current_dir(&self.worktree);
        command.env("PWD", &self.worktree);
        let input = match cli {
            Cli::Claude => claude_frame(prompt),
            _ => prompt.to_owned(),
        };
        run_to_end(&mut command, &input, Duration::from_secs(90))
    }

    fn worker_command(&self, cli: Cli, session: Option<&str>) -> Command {
        let mut command = self.home.command(cli.path());
        match cli {
            Cli::Claude => command
                .args(["-p", "--verbose", "--output-format", "stream-json"])
                .args(["--input-format", "stream-json", "--strict-mcp-config"])
                .arg("--dangerously-skip-permissions")
                .args(session.map(|id| format!("--resume={id}"))),
            Cli::Codex => command
                .args(["exec", "--json", "-s", "danger-full-access"])
                .args(session.map_or(vec!["-"], |id| vec!["resume", id, "-"])),
            Cli::Gemini => command
                .args(["-m", cli.model(), "-o", "stream-json"])
                .args(["--approval-mode", "yolo"])
                .args(session.map(|id| format!("--resume={id}"))),
            Cli::OpenCode => command
                .args(["run", "--format", "json", "-m", cli.model()])
                .args(["--title", "T", "--auto", "--dir"])
                .arg(&self.worktree)
                .args(session.map(|id| format!("--session={id}"))),
        };
        command
    }

    fn git(&self, arguments: &[&str]) -> String {
        self.git_in(&self.worktree, arguments)
    }

    fn git_in(&self, directory: &Path, arguments: &[&str]) -> String {
        let mut command = self.home.command("git");
        let output = command.args(arguments).current_dir(directory).output();
        let output = output.expect("an installed git");
        assert!(output.status.success(), "git {arguments:?}: {output:?}");
        stdout(&output).trim().to_owned()
    }
}

fn claude_frame(prompt: &str) -> String {
    json!({"type": "user", "message": {"role": "user", "content": prompt}}).to_string() + "\n"
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The id in the first line that has one; each CLI has its own name for it.
fn session_id(output: &Output) -> Option<String> {
    let names = ["session_id", "thread_id", "sessionID"];
    let id_in = |line: &str| {
        let line: Value = serde_json::from_str(line).ok()?;
        names.iter().find_map(|name| line[name].as_str().map(str::to_owned))
    };
    stdout(output).lines().find_map(id_in)
}
