//! A backend that a user describes in the settings. Its program gets the prompt on stdin, and prints either plain text
//! or lines of JSON in the small vocabulary of `custom/stream.rs`; or it speaks the Agent Client Protocol (`acp.rs`).
//!
//! An argument may hold `{model}`, `{effort}`, `{session_id}`, `{dir}` and `{permissions}`. An argument whose value is
//! missing (no model was requested) is left out, so write `--model={model}` rather than two arguments.

mod stream;

use std::collections::BTreeMap;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::catalog::{CLAUDE_CODE, CODEX, GEMINI, OPENCODE, unusable};
use super::{
    AttachPlan, Backend, Decoder, Enforcement, LaunchPlan, Probe, PromptInput, Refusal, Session, StateFolder,
    StopSignal, StopStep, Turn, acp, environment, permissions_word, probe, state,
};
use crate::mission::spec::{Mission, Permissions};

/// One `[[custom]]` entry of the settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CustomBackend {
    /// The name that missions give as `backend`: lower-case letters, digits and hyphens.
    #[schemars(extend("pattern" = "^[a-z0-9-]+$"))]
    pub name: String,
    /// The program: a path, or a name to look for on the PATH.
    #[schemars(length(min = 1))]
    pub program: String,
    /// Arguments. One that holds a placeholder without a value is left out.
    #[serde(default)]
    pub args: Vec<String>,
    /// Arguments that continue a session. Without them every turn is a new session.
    #[serde(default)]
    pub resume_args: Option<Vec<String>>,
    /// Arguments that open a session in the terminal, for `attach`. Without them there is no way.
    #[serde(default)]
    pub attach_args: Option<Vec<String>>,
    /// Format of the program's output.
    #[serde(default)]
    pub output: CustomOutput,
    /// Additional environment variables.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Variables of which any one is enough to log in.
    #[serde(default)]
    pub key_variables: Vec<String>,
    /// Accepted models. Default: any.
    #[serde(default)]
    pub models: Vec<String>,
    /// Accepted efforts. Default: any.
    #[serde(default)]
    pub efforts: Vec<String>,
    /// Whether the program reports its cost while it runs, so that `max_cost_usd` can be enforced.
    #[serde(default)]
    pub reports_cost: bool,
    /// Arguments that print the version.
    #[serde(default = "version_args")]
    pub version_args: Vec<String>,
    /// First signal that ends the program. SIGKILL follows if it does not end.
    #[serde(default = "stop")]
    pub stop: StopSignal,
}

/// The format of the program's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CustomOutput {
    /// Text. Exit status 0 is the only sign of success, so use a `verify_command`. The final message is the end of the
    /// output.
    #[default]
    Plain,
    /// Lines of JSON, the last one with the result.
    Jsonl,
    /// The Agent Client Protocol: for any agent that speaks it, with no further settings. The agent reports the end of
    /// its turn, which proves little, so use a `verify_command`. Tokens and cost are not counted.
    Acp,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CustomError {
    #[error("cannot use the backend name {name:?}: a built-in backend has it")]
    NameTaken { name: String },
    #[error("cannot use the backend name {name:?}: it may contain only lower-case letters, digits and hyphens")]
    Name { name: String },
    #[error("cannot use the backend {name:?}: it has no program, which is a name on the PATH or a path")]
    NoProgram { name: String },
    #[error(
        "cannot use the backend {name:?}: its argument {argument:?} has an unknown placeholder; the placeholders are {{model}}, {{effort}}, {{session_id}}, {{dir}} and {{permissions}}"
    )]
    Placeholder { name: String, argument: String },
    #[error("cannot use the backend {name:?}: with output = \"acp\" it cannot have {setting}, since {why}")]
    Acp { name: String, setting: &'static str, why: &'static str },
}

impl CustomError {
    /// Returns the name of the backend.
    pub fn backend(&self) -> &str {
        match self {
            Self::NameTaken { name }
            | Self::Name { name }
            | Self::NoProgram { name }
            | Self::Placeholder { name, .. }
            | Self::Acp { name, .. } => name,
        }
    }
}

const PLACEHOLDERS: [&str; 5] = ["{model}", "{effort}", "{session_id}", "{dir}", "{permissions}"];

fn version_args() -> Vec<String> {
    vec!["--version".into()]
}

fn stop() -> StopSignal {
    StopSignal::Terminate
}

impl CustomBackend {
    /// Checks the entry.
    pub fn check_settings(&self) -> Result<(), CustomError> {
        let name = self.name.clone();
        if [CODEX, CLAUDE_CODE, GEMINI, OPENCODE].contains(&self.name.as_str()) {
            return Err(CustomError::NameTaken { name });
        }
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if self.name.is_empty() || !self.name.chars().all(plain) {
            return Err(CustomError::Name { name });
        }
        if self.program.is_empty() {
            return Err(CustomError::NoProgram { name });
        }
        if let Some(argument) = self.all_args().find(|argument| has_unknown_placeholder(argument)) {
            return Err(CustomError::Placeholder { name, argument: argument.clone() });
        }
        match self.unusable_with_acp().filter(|_| self.output == CustomOutput::Acp) {
            Some((setting, why)) => Err(CustomError::Acp { name, setting, why }),
            None => Ok(()),
        }
    }

    /// Returns a setting of the entry that has no meaning in the Agent Client Protocol, and why.
    fn unusable_with_acp(&self) -> Option<(&'static str, &'static str)> {
        if self.resume_args.is_some() {
            Some(("resume_args", "sessions are resumed by the protocol"))
        } else if self.takes("{session_id}") {
            Some(("{session_id} in its arguments", "the agent chooses the id of a session"))
        } else if self.reports_cost {
            Some(("reports_cost", "agents mean different things by their numbers"))
        } else {
            None
        }
    }

    fn all_args(&self) -> impl Iterator<Item = &String> {
        self.args.iter().chain(self.resume_args.iter().flatten()).chain(self.attach_args.iter().flatten())
    }

    fn takes(&self, placeholder: &str) -> bool {
        self.args.iter().any(|argument| argument.contains(placeholder))
    }

    fn check_model(&self, model: &str) -> Result<(), Refusal> {
        let accepted = if let Some(why) = unusable(model) {
            why.to_owned()
        } else if !self.takes("{model}") {
            "its arguments have no {model}".to_owned()
        } else if !self.models.is_empty() && !self.models.iter().any(|known| known == model) {
            format!("its settings name {}", self.models.join(", "))
        } else {
            return Ok(());
        };
        Err(Refusal::Model { backend: self.name.clone(), model: model.into(), accepted })
    }

    fn check_effort(&self, effort: &str) -> Result<(), Refusal> {
        let accepted = if !self.takes("{effort}") {
            "none".to_owned()
        } else if !self.efforts.is_empty() && !self.efforts.iter().any(|known| known == effort) {
            self.efforts.join(", ")
        } else {
            return Ok(());
        };
        Err(Refusal::Effort { backend: self.name.clone(), effort: effort.into(), accepted })
    }

    fn check_permissions(&self, permissions: Permissions) -> Result<(), Refusal> {
        if permissions == Permissions::ReadOnly && !self.takes("{permissions}") {
            return Err(Refusal::Permissions {
                backend: self.name.clone(),
                permissions,
                fix: "put {permissions} into its arguments if the program can, or use another backend".into(),
            });
        }
        Ok(())
    }

    fn fill(&self, turn: &Turn<'_>) -> Vec<String> {
        let (template, session_id) = match (turn.session, &self.resume_args) {
            (Session::Resume(id), Some(resume_args)) => (resume_args, id.to_owned()),
            (Session::Resume(id), None) => (&self.args, id.to_owned()),
            (Session::New(id), _) => (&self.args, id.to_string()),
        };
        let dir = turn.dir.to_string_lossy();
        let values = [
            turn.mission.model.as_deref(),
            turn.mission.effort.as_deref(),
            Some(session_id.as_str()),
            Some(&*dir),
            Some(permissions_word(turn.mission.permissions)),
        ];
        template.iter().filter_map(|argument| filled(argument, &values)).collect()
    }
}

/// Fills the placeholders of an argument. `None` if a value is missing. Values are never searched for placeholders.
fn filled(argument: &str, values: &[Option<&str>; 5]) -> Option<String> {
    let mut filled = String::new();
    let mut rest = argument;
    while let Some((at, index)) = first_placeholder(rest) {
        filled.push_str(&rest[..at]);
        filled.push_str(values[index]?);
        rest = &rest[at + PLACEHOLDERS[index].len()..];
    }
    Some(filled + rest)
}

fn first_placeholder(text: &str) -> Option<(usize, usize)> {
    PLACEHOLDERS.iter().enumerate().filter_map(|(index, name)| Some((text.find(name)?, index))).min()
}

/// Returns whether the argument has a word in braces that is no placeholder. Other braces (JSON, shell) are allowed.
fn has_unknown_placeholder(argument: &str) -> bool {
    argument.split('{').skip(1).filter_map(|rest| rest.split_once('}')).any(|(word, _)| {
        let is_word = !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        is_word && !PLACEHOLDERS.contains(&format!("{{{word}}}").as_str())
    })
}

impl Backend for CustomBackend {
    fn name(&self) -> &str {
        &self.name
    }

    fn program(&self) -> &str {
        &self.program
    }

    fn check(&self, mission: &Mission) -> Result<Enforcement, Refusal> {
        mission.model.as_deref().map_or(Ok(()), |model| self.check_model(model))?;
        mission.effort.as_deref().map_or(Ok(()), |effort| self.check_effort(effort))?;
        self.check_permissions(mission.permissions)?;
        if mission.max_cost_usd.is_some() && !self.reports_cost {
            return Err(Refusal::Cost { backend: self.name.clone() });
        }
        if mission.max_tokens.is_some() && self.output == CustomOutput::Acp {
            return Err(Refusal::Tokens { backend: self.name.clone() });
        }
        Ok(self.enforcement(mission.permissions))
    }

    fn enforcement(&self, _permissions: Permissions) -> Enforcement {
        Enforcement::None
    }

    fn reports_usage_in_time(&self) -> bool {
        self.output == CustomOutput::Jsonl
    }

    fn asks(&self) -> bool {
        self.output == CustomOutput::Acp
    }

    fn state_folders(&self) -> Vec<StateFolder> {
        state::of_custom(&self.name, &self.program, &self.args, &self.env)
    }

    fn plan(&self, turn: &Turn<'_>) -> LaunchPlan {
        let mut env_set = environment::set(turn.dir, []);
        env_set.extend(self.env.clone());
        let is_acp = self.output == CustomOutput::Acp;
        LaunchPlan {
            program: self.program.clone(),
            args: self.fill(turn),
            env_set,
            env_remove: environment::removed(&[]),
            stdin: if is_acp {
                PromptInput::KeepOpen(acp::initialize())
            } else {
                PromptInput::Once(turn.prompt.into())
            },
            // Agents on Python's library of the protocol refuse a file.
            needs_output_pipe: is_acp,
            files: Vec::new(),
            stop: if is_acp { acp::stop_steps(self.stop) } else { vec![StopStep::signal(self.stop, 5)] },
        }
    }

    fn decoder(&self, turn: &Turn<'_>) -> Box<dyn Decoder> {
        let known_session = match turn.session {
            Session::New(id) if self.takes("{session_id}") => Some(id.to_string()),
            Session::Resume(id) if self.resume_args.is_some() => Some(id.to_owned()),
            _ => None,
        };
        match self.output {
            CustomOutput::Plain => Box::new(stream::PlainStream::new(self.name.clone(), known_session)),
            CustomOutput::Jsonl => Box::new(stream::JsonlStream::new(self.name.clone(), known_session)),
            CustomOutput::Acp => Box::new(acp::AcpStream::new(self.name.clone(), acp::Traits::default(), turn)),
        }
    }

    fn attach(&self, session_id: &str, dir: &Path) -> Option<AttachPlan> {
        let values = [None, None, Some(session_id), dir.to_str(), None];
        let args = self.attach_args.as_ref()?.iter().filter_map(|argument| filled(argument, &values)).collect();
        let mut env_set = environment::set(dir, []);
        env_set.extend(self.env.clone());
        Some(AttachPlan { args, env_set })
    }

    fn probe(&self) -> Probe {
        Probe {
            version_args: self.version_args.clone(),
            auth_args: None,
            key_variables: self.key_variables.clone(),
            login_files: Vec::new(),
            install_command: format!("put {} on the PATH, or name its path in the settings", self.program),
            login_command: format!("set one of: {}", self.key_variables.join(", ")),
            read_auth: probe::read_nothing,
            own_service: None,
            service: None,
            tested_version: String::new(),
            is_from_documentation: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(toml: &str) -> CustomBackend {
        toml::from_str(toml).expect("a valid entry")
    }

    #[test]
    fn entry_needs_name_and_program() {
        let mine = entry("name = 'mine'\nprogram = 'mine'");
        assert_eq!(mine.check_settings(), Ok(()));
        assert_eq!((mine.output, mine.stop), (CustomOutput::Plain, StopSignal::Terminate));
        assert!(toml::from_str::<CustomBackend>("name = 'mine'\nprogram = 'mine'\nargz = []").is_err());
    }

    #[test]
    fn invalid_entry_is_refused() {
        let cases = [
            ("name = 'codex'\nprogram = 'x'", "a built-in backend has it"),
            ("name = 'My Agent'\nprogram = 'x'", "lower-case letters"),
            ("name = 'mine'\nprogram = ''", "it has no program"),
            ("name = 'mine'\nprogram = 'x'\nargs = ['--m={modle}']", "the placeholders are {model}"),
            ("name = 'mine'\nprogram = 'x'\nresume_args = ['{session}']", "the placeholders are {model}"),
            ("name = 'mine'\nprogram = 'x'\noutput = 'acp'\nresume_args = []", "it cannot have resume_args"),
            ("name = 'mine'\nprogram = 'x'\noutput = 'acp'\nreports_cost = true", "it cannot have reports_cost"),
            ("name = 'mine'\nprogram = 'x'\noutput = 'acp'\nargs = ['{session_id}']", "{session_id} in its arguments"),
            ("name = 'mine'\nprogram = 'x'\nattach_args = ['{session}']", "the placeholders are {model}"),
        ];
        for (toml, words) in cases {
            let error = entry(toml).check_settings().unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        assert_eq!(entry("name = 'mine'\nprogram = 'x'\nargs = ['{\"a\": 1}', '${HOME}']").check_settings(), Ok(()));
    }

    #[test]
    fn argument_without_value_is_omitted() {
        let values = [None, Some("{dir}"), Some("s"), Some("/d"), Some("edit")];
        assert_eq!(filled("--model={model}", &values), None);
        assert_eq!(filled("--e={effort}:{dir}:{session_id}", &values).as_deref(), Some("--e={dir}:/d:s"));
        assert_eq!(filled("plain", &values).as_deref(), Some("plain"));
    }
}
