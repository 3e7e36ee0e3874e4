//! Gemini CLI (0.61.0): `settings.json` in `~/.gemini`, or in `.gemini` of a folder that the user trusts.
//!
//! Not by `gemini mcp add`, which writes the file anew and puts the values of all `$NAME`s of all servers into it.

use super::document::Format;
use super::entry::{NAME, Wanted};
use super::json::Dialect;
use super::registration::{CALL_SECONDS, Environment, Registration, Scope};
use super::variables;

pub fn registration(environment: &Environment, scope: Scope) -> Registration {
    let folder = match scope {
        Scope::User => environment.home.join(".gemini"),
        Scope::Project => environment.project.join(".gemini"),
    };
    let mut fields = environment.command_and_args();
    fields.push((vec!["timeout"], Wanted::AtLeast(CALL_SECONDS * 1000)));
    // `$NAME` stands for its value whenever Gemini CLI starts, so the file holds no secret.
    let handed_on = |name: &'static str| (vec!["env", name], Wanted::Unless(format!("${name}").into()));
    fields.extend(variables::set_secrets().into_iter().map(handed_on));
    if environment.allow_tools {
        fields.push((vec!["trust"], Wanted::Exactly(true.into())));
    }
    Registration {
        path: folder.join("settings.json"),
        format: Format::Json(Dialect { comments: true, trailing_commas: false }),
        keys: vec!["mcpServers", NAME],
        fields,
        rule: None,
        notes: vec!["Gemini CLI starts servers only in folders that you trust".into()],
    }
}
