//! Codex (0.169.0): `config.toml` in `$CODEX_HOME`, or in `.codex` of a project that the user trusts.
//!
//! Not by `codex mcp add`, which has no options for what its defaults lack and rewrites the file.

use super::document::Format;
use super::entry::{NAME, Wanted};
use super::registration::{CALL_SECONDS, Environment, Registration, Scope};
use super::variables;

pub fn registration(environment: &Environment, scope: Scope) -> Registration {
    let folder = match scope {
        Scope::User => environment.folder_in("CODEX_HOME", ".codex"),
        Scope::Project => environment.project.join(".codex"),
    };
    let mut fields = environment.command_and_args();
    fields.extend([
        // By default Codex ends a call after 300 s.
        (vec!["tool_timeout_sec"], Wanted::AtLeast(CALL_SECONDS)),
        // Otherwise a wait holds up the other tools of ours.
        (vec!["supports_parallel_tool_calls"], Wanted::Unless(true.into())),
        // Otherwise `codex exec` refuses those that change something.
        (vec!["default_tools_approval_mode"], Wanted::Unless("approve".into())),
        // Codex hands on no keys by itself.
        (vec!["env_vars"], Wanted::Including(variables::keys_and_set_places())),
    ]);
    Registration {
        path: folder.join("config.toml"),
        format: Format::Toml,
        keys: vec!["mcp_servers", NAME],
        fields,
        rule: None,
        notes: match scope {
            Scope::User => Vec::new(),
            Scope::Project => vec!["Codex reads a project's settings only when you trust the project".into()],
        },
    }
}
