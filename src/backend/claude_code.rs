//! The backend for Claude Code. It uses stream-json in both directions and keeps stdin open, so that messages reach a
//! running turn. The command lines are here; `claude_code/stream.rs` decodes the output.

mod failures;
mod permission;
mod stream;

use std::path::Path;

use super::catalog::{CLAUDE_CODE, check_effort, check_model};
use super::{
    AttachPlan, Backend, Decoder, Enforcement, LaunchPlan, Probe, PromptInput, Refusal, Session, StateFolder,
    StopSignal, StopStep, Turn, environment, probe, state,
};
use crate::mission::question::QuestionPolicy;
use crate::mission::spec::{Mission, Permissions};

pub struct ClaudeCode;

impl Backend for ClaudeCode {
    fn name(&self) -> &str {
        CLAUDE_CODE
    }

    fn program(&self) -> &str {
        "claude"
    }

    fn check(&self, mission: &Mission) -> Result<Enforcement, Refusal> {
        check_model(CLAUDE_CODE, mission.model.as_deref())?;
        check_effort(CLAUDE_CODE, mission.effort.as_deref())?;
        Ok(self.enforcement(mission.permissions))
    }

    fn enforcement(&self, permissions: Permissions) -> Enforcement {
        match permissions {
            Permissions::ReadOnly => Enforcement::Cli,
            // Its file tools stay in the directory, but the commands that it may run reach everywhere.
            Permissions::Edit | Permissions::Full => Enforcement::None,
        }
    }

    fn reports_usage_in_time(&self) -> bool {
        true
    }

    fn state_folders(&self) -> Vec<StateFolder> {
        state::CLAUDE_CODE.to_vec()
    }

    fn plan(&self, turn: &Turn<'_>) -> LaunchPlan {
        // By itself it retries for minutes. After a few retries the supervisor should decide.
        let mut env_set = environment::set(turn.dir, [("CLAUDE_CODE_MAX_RETRIES", "4"), ("DISABLE_AUTOUPDATER", "1")]);
        if turn.root && turn.mission.permissions == Permissions::Full {
            // Without it Claude Code refuses to skip permissions as root.
            env_set.insert("IS_SANDBOX".into(), "1".into());
        }
        LaunchPlan {
            program: self.program().into(),
            args: args(turn),
            env_set,
            env_remove: environment::removed(&[]),
            stdin: PromptInput::KeepOpen(stream::user_frame(turn.message_id, turn.prompt)),
            needs_output_pipe: false,
            files: Vec::new(),
            // On SIGTERM it ends its commands and exits within 2 s; SIGKILL leaves its commands running.
            stop: vec![StopStep::signal(StopSignal::Terminate, 5)],
        }
    }

    fn decoder(&self, turn: &Turn<'_>) -> Box<dyn Decoder> {
        Box::new(stream::ClaudeStream::new(&turn.questions))
    }

    fn asks(&self) -> bool {
        true
    }

    fn takes_reasons(&self) -> bool {
        true
    }

    fn accepts_live_messages(&self) -> bool {
        true
    }

    fn attach(&self, session_id: &str, dir: &Path) -> Option<AttachPlan> {
        Some(AttachPlan::new(dir, [&format!("--resume={session_id}")]))
    }

    fn probe(&self) -> Probe {
        probe::claude_code()
    }
}

fn args(turn: &Turn<'_>) -> Vec<String> {
    let mission = turn.mission;
    let fixed = [
        "--print",
        "--verbose",
        "--output-format=stream-json",
        "--input-format=stream-json",
        "--replay-user-messages",
        // Otherwise it starts every MCP server of the project and of the user, this one too.
        "--strict-mcp-config",
    ];
    let mut args: Vec<String> = fixed.map(str::to_owned).to_vec();
    args.push(match turn.session {
        Session::New(id) => format!("--session-id={id}"),
        Session::Resume(id) => format!("--resume={id}"),
    });
    args.extend(turn.around().map(|top| format!("--add-dir={}", top.display())));
    let asks = turn.questions.policy == QuestionPolicy::Ask;
    if turn.confined {
        // Its own sandbox cannot start in ours. This wins over the user's setting.
        args.push(r#"--settings={"sandbox":{"enabled":false}}"#.into());
    }
    args.extend(permissions(mission.permissions).iter().map(|arg| (*arg).to_owned()));
    args.extend(disallowed(mission.permissions, asks));
    args.extend(asks.then(|| "--permission-prompt-tool=stdio".to_owned()));
    args.extend(mission.model.as_ref().map(|model| format!("--model={model}")));
    args.extend(mission.effort.as_ref().map(|effort| format!("--effort={effort}")));
    args.extend(mission.max_cost_usd.map(|cost| format!("--max-budget-usd={cost}")));
    args
}

/// Returns the options for permissions. Read-only is not `plan`, in which the agent submits a plan and waits for its
/// approval.
fn permissions(permissions: Permissions) -> &'static [&'static str] {
    match permissions {
        Permissions::ReadOnly => &["--permission-mode=manual", "--allowedTools=WebFetch,WebSearch"],
        Permissions::Edit => &["--permission-mode=acceptEdits", "--allowedTools=Bash,Skill,WebFetch,WebSearch"],
        Permissions::Full => &["--dangerously-skip-permissions"],
    }
}

/// Returns the tools that it may not use. Rules in the user's own settings could allow edits to a read-only worker, and
/// a disallowed tool overrides them. Only a CLI that asks has the plan mode, in which it changes nothing.
fn disallowed(permissions: Permissions, asks: bool) -> Option<String> {
    let edits = ["Edit", "Write", "NotebookEdit"].iter().filter(|_| permissions == Permissions::ReadOnly);
    let plans = ["EnterPlanMode", "ExitPlanMode"].iter().filter(|_| asks);
    let tools: Vec<&str> = edits.chain(plans).copied().collect();
    (!tools.is_empty()).then(|| format!("--disallowedTools={}", tools.join(",")))
}
