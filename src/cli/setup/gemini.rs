//! Gemini CLI: `settings.json` in `~/.gemini`, or in `.gemini` of a folder that the user trusts.
//!
//! `gemini mcp add` is not used: it rewrites the file with the values of all `$NAME`s of all servers.

use super::document::Format;
use super::entry::{FieldRule, NAME};
use super::json::Dialect;
use super::registration::{CALL_SECONDS, Environment, Registration, SetupScope};
use super::variables;

pub fn registration(environment: &Environment, scope: SetupScope) -> Registration {
    let folder = match scope {
        SetupScope::User => environment.home.join(".gemini"),
        SetupScope::Project => environment.project.join(".gemini"),
    };
    let mut fields = environment.command_and_args();
    fields.push((vec!["timeout"], FieldRule::AtLeast(CALL_SECONDS * 1000)));
    // `$NAME` stands for its value whenever Gemini CLI starts, so the file holds no secret.
    let passed_on = |name: &'static str| (vec!["env", name], FieldRule::Default(format!("${name}").into()));
    fields.extend(variables::set_secrets().into_iter().map(passed_on));
    if environment.allow_tools {
        fields.push((vec!["trust"], FieldRule::Exactly(true.into())));
    }
    Registration {
        path: folder.join("settings.json"),
        format: Format::Json(Dialect { comments: true, trailing_commas: false }),
        keys: vec!["mcpServers", NAME],
        fields,
        rules: None,
        notes: vec!["Gemini CLI starts servers only in folders that you trust".into()],
    }
}
