//! Codex: `config.toml` in `$CODEX_HOME`, or in `.codex` of a project that the user trusts.
//!
//! `codex mcp add` is not used: it rewrites the file and has no options for the timeout and other fields.

use super::document::Format;
use super::entry::{FieldRule, NAME};
use super::registration::{CALL_SECONDS, Environment, Registration, SetupScope};
use super::variables;

pub fn registration(environment: &Environment, scope: SetupScope) -> Registration {
    let folder = match scope {
        SetupScope::User => environment.folder_in("CODEX_HOME", ".codex"),
        SetupScope::Project => environment.project.join(".codex"),
    };
    let mut fields = environment.command_and_args();
    fields.extend([
        // The default of Codex is 300 s.
        (vec!["tool_timeout_sec"], FieldRule::AtLeast(CALL_SECONDS)),
        // Otherwise a wait blocks our other tools.
        (vec!["supports_parallel_tool_calls"], FieldRule::Default(true.into())),
        // Otherwise `codex exec` refuses tools that change something.
        (vec!["default_tools_approval_mode"], FieldRule::Default("approve".into())),
        // By default Codex passes no keys to its servers.
        (vec!["env_vars"], FieldRule::Including(variables::keys_and_set_variables())),
    ]);
    Registration {
        path: folder.join("config.toml"),
        format: Format::Toml,
        keys: vec!["mcp_servers", NAME],
        fields,
        rules: None,
        notes: match scope {
            SetupScope::User => Vec::new(),
            SetupScope::Project => vec!["Codex reads a project's settings only when you trust the project".into()],
        },
    }
}
