//! The backend for OpenCode, which runs as `opencode run --format json`. It reads no messages while it runs. The
//! command lines are here; `opencode/stream.rs` decodes the output.

mod stream;

use std::path::Path;

use serde_json::{Map, Value, json};

use super::catalog::{OPENCODE, check_effort, check_model, example_model};
use super::{
    AttachPlan, Backend, Decoder, Enforcement, LaunchPlan, Probe, PromptInput, Refusal, Session, StateFolder,
    StopSignal, StopStep, Turn, environment, probe, state,
};
use crate::mission::spec::{Mission, Permissions};

pub struct OpenCode;

impl Backend for OpenCode {
    fn name(&self) -> &str {
        OPENCODE
    }

    fn program(&self) -> &str {
        "opencode"
    }

    fn check(&self, mission: &Mission) -> Result<Enforcement, Refusal> {
        check_model(OPENCODE, mission.model.as_deref())?;
        check_provider(mission.model.as_deref())?;
        check_effort(OPENCODE, mission.effort.as_deref())?;
        Ok(self.enforcement(mission.permissions))
    }

    fn enforcement(&self, permissions: Permissions) -> Enforcement {
        match permissions {
            Permissions::ReadOnly => Enforcement::Cli,
            Permissions::Edit | Permissions::Full => Enforcement::None,
        }
    }

    fn reports_usage_in_time(&self) -> bool {
        true
    }

    fn self_edited_files(&self) -> &'static [&'static str] {
        &["opencode.json", "opencode.jsonc", ".opencode/opencode.json", ".opencode/opencode.jsonc"]
    }

    fn without_self_edit(&self, before: &str, now: &str) -> Option<String> {
        without_schema(before, now)
    }

    fn state_folders(&self) -> Vec<StateFolder> {
        state::OPENCODE.to_vec()
    }

    fn plan(&self, turn: &Turn<'_>) -> LaunchPlan {
        let mut env_set = environment::set(turn.dir, [("OPENCODE_DISABLE_AUTOUPDATE", "1")]);
        if let Some(config) = without_this_server(turn.own_registrations) {
            env_set.insert("OPENCODE_CONFIG_CONTENT".into(), config);
        }
        if turn.mission.permissions == Permissions::ReadOnly {
            // Overrides every configuration file; `edit` covers all tools that write.
            env_set.insert("OPENCODE_PERMISSION".into(), json!({"edit": "deny", "bash": "deny"}).to_string());
        }
        LaunchPlan {
            program: self.program().into(),
            args: args(turn),
            env_set,
            env_remove: environment::removed(&[]),
            stdin: PromptInput::Once(turn.prompt.into()),
            needs_output_pipe: false,
            files: Vec::new(),
            // It ignores SIGINT.
            stop: vec![StopStep::signal(StopSignal::Terminate, 5)],
        }
    }

    fn decoder(&self, _turn: &Turn<'_>) -> Box<dyn Decoder> {
        Box::new(stream::OpenCodeStream::default())
    }

    fn attach(&self, session_id: &str, dir: &Path) -> Option<AttachPlan> {
        Some(AttachPlan::new(dir, [&format!("--session={session_id}")]))
    }

    fn probe(&self) -> Probe {
        probe::opencode()
    }
}

/// Removes the `$schema` that OpenCode adds to a configuration file without one. No setting turns this off. Returns
/// `None` if OpenCode added nothing.
fn without_schema(before: &str, now: &str) -> Option<String> {
    const NAMED: &str = "{\n  \"$schema\": \"https://opencode.ai/config.json\",";
    let begin = &before[..=before.find('{')?];
    let is_its = begin.trim_start() == "{" && !before.contains("\"$schema\"");
    Some(format!("{begin}{}", now.strip_prefix(NAMED).filter(|_| is_its)?))
}

/// Refuses a model without its provider, since OpenCode cannot find it.
fn check_provider(model: Option<&str>) -> Result<(), Refusal> {
    match model {
        Some(model) if !model.contains('/') => Err(Refusal::Model {
            backend: OPENCODE.into(),
            model: model.into(),
            accepted: format!("it needs provider/model, for example {:?}", example_model(OPENCODE)),
        }),
        _ => Ok(()),
    }
}

fn args(turn: &Turn<'_>) -> Vec<String> {
    let mission = turn.mission;
    // Without --auto it exits, with status 0, at the first access outside its directory.
    let mut args = vec!["run".to_owned(), "--format=json".into(), "--auto".into()];
    // A session must continue in the directory in which it began: in another one it hangs.
    args.push(format!("--dir={}", turn.dir.display()));
    args.extend(mission.model.as_ref().map(|model| format!("--model={model}")));
    args.extend(mission.effort.as_ref().map(|effort| format!("--variant={effort}")));
    args.push(match turn.session {
        // Without a title it asks the model for one.
        Session::New(_) => format!("--title={}", mission.title),
        Session::Resume(id) => format!("--session={id}"),
    });
    args
}

/// Returns configuration that disables this server; it is merged over the user's own.
fn without_this_server(own_registrations: &[String]) -> Option<String> {
    let servers: Map<String, Value> =
        own_registrations.iter().map(|name| (name.clone(), json!({"enabled": false}))).collect();
    (!servers.is_empty()).then(|| json!({"mcp": servers}).to_string())
}

#[cfg(test)]
mod tests {
    use super::without_schema;

    #[test]
    fn only_the_schema_added_by_opencode_is_removed() {
        let named = |rest: &str| format!("{{\n  \"$schema\": \"https://opencode.ai/config.json\",{rest}");
        for before in ["{}", " \n{ \"a\": 1 }\n", "{\n  // why\n  \"a\": 1\n}"] {
            let rest = before.trim_start().strip_prefix('{').unwrap();
            assert_eq!(without_schema(before, &named(rest)).as_deref(), Some(before));
        }
        // The worker's own edits stay.
        assert_eq!(without_schema("{}", &named("\"b\": 2}")).as_deref(), Some("{\"b\": 2}"));
        let has_it = named("\"a\": 1}");
        assert_eq!(without_schema(&has_it, &named("\"a\": 2}")), None, "it was there before");
        assert_eq!(without_schema("// why\n{}", &named("}")), None, "it does not change such a file");
        assert_eq!(without_schema("{}", "{\"a\": 1}"), None);
    }
}
