//! The backend for Gemini CLI, which runs headless with stream-json. It reads no messages while it runs. Without a
//! model it chooses one by itself, which costs one small extra call per turn. No default is set here, since model names
//! change. The command lines are here; `gemini/stream.rs` decodes the output.

mod stream;

use std::path::{Path, PathBuf};

use super::catalog::{GEMINI, check_effort, check_model, check_no_cost_limit};
use super::{
    AttachPlan, Backend, Decoder, Enforcement, LaunchPlan, Probe, PromptInput, Refusal, Session, StateFolder,
    StopSignal, StopStep, Turn, environment, probe, state,
};
use crate::mission::spec::{Mission, Permissions};

/// The policy of a read-only worker. The approval mode alone is not enough: in `default` the agent may enter plan mode,
/// and leaving it without a user to ask turns on `yolo`. A rule of this tier takes precedence over the user's own.
const READ_ONLY_POLICY: &str = r#"[[rule]]
toolName = ["run_shell_command", "write_file", "replace", "enter_plan_mode", "exit_plan_mode"]
decision = "deny"
priority = 999
denyMessage = "this worker may only read"
"#;

pub struct Gemini;

impl Backend for Gemini {
    fn name(&self) -> &str {
        GEMINI
    }

    fn program(&self) -> &str {
        "gemini"
    }

    fn check(&self, mission: &Mission) -> Result<Enforcement, Refusal> {
        check_model(GEMINI, mission.model.as_deref())?;
        check_effort(GEMINI, mission.effort.as_deref())?;
        check_no_cost_limit(GEMINI, mission.max_cost_usd)?;
        Ok(self.enforcement(mission.permissions))
    }

    fn enforcement(&self, permissions: Permissions) -> Enforcement {
        match permissions {
            Permissions::ReadOnly => Enforcement::Cli,
            // Its file tools stay in the directory, but the commands that it may run reach everywhere.
            Permissions::Edit | Permissions::Full => Enforcement::None,
        }
    }

    fn state_folders(&self) -> Vec<StateFolder> {
        state::GEMINI.to_vec()
    }

    fn plan(&self, turn: &Turn<'_>) -> LaunchPlan {
        let read_only = turn.mission.permissions == Permissions::ReadOnly;
        let policy = turn.scratch.join("gemini-read-only.toml");
        let mut env_set = environment::set(
            turn.dir,
            [
                // Its launcher ignores SIGTERM and does not pass it on.
                ("GEMINI_CLI_NO_RELAUNCH", "1"),
                // Otherwise it exits with 55 in a directory that the user has not confirmed.
                ("GEMINI_CLI_TRUST_WORKSPACE", "true"),
            ],
        );
        env_set.extend(environment::identity(turn));
        LaunchPlan {
            program: self.program().into(),
            args: args(turn, read_only.then_some(&policy)),
            env_set,
            env_remove: environment::removed(&[]),
            stdin: PromptInput::Once(turn.prompt.into()),
            needs_output_pipe: false,
            files: if read_only { vec![(policy, READ_ONLY_POLICY.into())] } else { Vec::new() },
            stop: vec![StopStep::signal(StopSignal::Terminate, 5)],
        }
    }

    fn decoder(&self, _turn: &Turn<'_>) -> Box<dyn Decoder> {
        Box::new(stream::GeminiStream::default())
    }

    fn hides_identity(&self) -> bool {
        true
    }

    fn attach(&self, session_id: &str, dir: &Path) -> Option<AttachPlan> {
        Some(AttachPlan::new(dir, [&format!("--resume={session_id}")]))
    }

    fn probe(&self) -> Probe {
        probe::gemini()
    }
}

fn args(turn: &Turn<'_>, read_only_policy: Option<&PathBuf>) -> Vec<String> {
    let mut args = vec![
        "--output-format=stream-json".to_owned(),
        // No server has this name, so the CLI starts none that the project configures, this one included.
        "--allowed-mcp-server-names=none".into(),
    ];
    args.extend(turn.around().map(|top| format!("--include-directories={}", top.display())));
    match read_only_policy {
        Some(policy) => {
            args.extend(["--approval-mode=default".into(), format!("--admin-policy={}", policy.display())]);
        }
        // The other modes have no tools for commands.
        None => args.push("--approval-mode=yolo".into()),
    }
    args.extend(turn.mission.model.as_ref().map(|model| format!("--model={model}")));
    args.push(match turn.session {
        Session::New(id) => format!("--session-id={id}"),
        Session::Resume(id) => format!("--resume={id}"),
    });
    args
}
