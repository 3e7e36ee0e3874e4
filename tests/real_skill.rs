//! `npx skills add` installs the skill, and all four CLIs offer it to their models. `skill.rs` checks its content.

#[path = "support/model_server/mod.rs"]
mod model_server;
#[path = "support/real_cli.rs"]
mod real_cli;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use model_server::ModelServer;
use real_cli::{Cli, ScratchHome, run_to_end, skipped};

const CEILING: Duration = Duration::from_secs(90);
/// A part of the skill's description that comes from no other text.
const DESCRIPTION: &str = "Lead many coding agents at once through the orchestrator-boss MCP server";

fn own_repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn skill() -> String {
    fs::read_to_string(own_repository().join("skills/orchestrator-boss/SKILL.md"))
        .expect("the skill of this repository")
}

#[test]
fn installed_skill_reaches_every_model() {
    if skipped() {
        return;
    }
    let project = Project::with_the_skill();
    for place in [".agents/skills", ".claude/skills"] {
        let installed = fs::read_to_string(project.path().join(place).join("orchestrator-boss/SKILL.md"));
        assert_eq!(installed.expect("the skill is installed"), skill(), "in {place}");
    }
    let found = Cli::ALL.map(|cli| (cli, project.reaches_model(cli)));
    assert_eq!(found, Cli::ALL.map(|cli| (cli, true)));
}

/// A repository in a scratch home with the installed skill.
struct Project {
    model: ModelServer,
    home: ScratchHome,
}

impl Project {
    fn with_the_skill() -> Self {
        let model = ModelServer::start();
        let mut home = ScratchHome::new(&model.url());
        home.set("DISABLE_TELEMETRY", "1");
        home.set("IS_SANDBOX", "1");
        home.set("GEMINI_CLI_NO_RELAUNCH", "1");
        home.set("GEMINI_CLI_TRUST_WORKSPACE", "true");
        let project = Self { model, home };
        fs::create_dir(project.path()).expect("a new folder in the scratch home");
        project.run(project.home.command("git").args(["init", "-q"]), "");
        let skills = own_repository().join("tests/real/node_modules/.bin/skills");
        let mut add = project.home.command(skills);
        add.arg("add").arg(own_repository()).args(["--skill", "orchestrator-boss", "--yes", "--agent"]);
        project.run(add.args(["claude-code", "codex", "gemini-cli", "opencode"]), "");
        project
    }

    fn path(&self) -> PathBuf {
        self.home.path().join("project")
    }

    fn run(&self, command: &mut Command, input: &str) {
        let ended = run_to_end(command.current_dir(self.path()).env("PWD", self.path()), input, CEILING);
        assert!(ended.status.success(), "{command:?}: {ended:?}");
    }

    /// Returns whether a request of this CLI to its model has the skill's description.
    fn reaches_model(&self, cli: Cli) -> bool {
        let before = self.model.requests().len();
        let mut command = self.home.command(cli.path());
        match cli {
            Cli::Claude => command.args(["-p", "--strict-mcp-config"]),
            Cli::Codex => command.args(["exec", "-"]),
            Cli::Gemini => command.args(["-m", cli.model()]),
            Cli::OpenCode => command.args(["run", "-m", cli.model(), "--title", "T"]),
        };
        self.run(&mut command, "Hello");
        self.model.requests()[before..].iter().any(|request| request.body.to_string().contains(DESCRIPTION))
    }
}
