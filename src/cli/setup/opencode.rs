//! OpenCode: `opencode.json` or `opencode.jsonc`, in its folder of `$XDG_CONFIG_HOME` or in the project.
//!
//! `opencode mcp add` is not used, since it has no option for the timeout. OpenCode passes its whole environment on.

use std::path::{Path, PathBuf};

use super::document::Format;
use super::entry::{FieldRule, NAME};
use super::json::Dialect;
use super::registration::{CALL_SECONDS, Environment, Registration, SetupScope};

pub fn registration(environment: &Environment, scope: SetupScope) -> Registration {
    let folder = match scope {
        SetupScope::User => environment.folder_in("XDG_CONFIG_HOME", ".config").join("opencode"),
        SetupScope::Project => environment.project.clone(),
    };
    let command = [vec![environment.command.clone()], environment.arguments.clone()].concat();
    let format = Format::Json(Dialect { comments: true, trailing_commas: true });
    Registration {
        path: file_in(&folder, format),
        format,
        keys: vec!["mcp", NAME],
        fields: vec![
            (vec!["type"], FieldRule::Exactly("local".into())),
            (vec!["command"], FieldRule::CommandLine(command)),
            (vec!["enabled"], FieldRule::Default(true.into())),
            // The default is 60 s without activity.
            (vec!["timeout"], FieldRule::AtLeast(CALL_SECONDS * 1000)),
        ],
        rules: None,
        notes: Vec::new(),
    }
}

/// Returns the file for our entry: the one that has it, or else the one that exists. OpenCode reads both.
fn file_in(folder: &Path, format: Format) -> PathBuf {
    let [json, jsonc] = ["opencode.json", "opencode.jsonc"].map(|name| folder.join(name));
    let has_ours = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        matches!(format.get(&text, &["mcp", NAME]), Ok(Some(_)))
    };
    if has_ours(&jsonc) || (!json.exists() && jsonc.exists()) { jsonc } else { json }
}
