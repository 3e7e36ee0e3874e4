//! OpenCode (1.18.33): `opencode.json` or `opencode.jsonc`, in its folder of `$XDG_CONFIG_HOME` or in the project.
//!
//! Not by `opencode mcp add`, which knows no timeout. It hands its whole environment on.

use std::path::{Path, PathBuf};

use super::document::Format;
use super::entry::{NAME, Wanted};
use super::json::Dialect;
use super::registration::{CALL_SECONDS, Environment, Registration, Scope};

pub fn registration(environment: &Environment, scope: Scope) -> Registration {
    let folder = match scope {
        Scope::User => environment.folder_in("XDG_CONFIG_HOME", ".config").join("opencode"),
        Scope::Project => environment.project.clone(),
    };
    let command = [vec![environment.command.clone()], environment.arguments.clone()].concat();
    let format = Format::Json(Dialect { comments: true, trailing_commas: true });
    Registration {
        path: file_in(&folder, format),
        format,
        keys: vec!["mcp", NAME],
        fields: vec![
            (vec!["type"], Wanted::Exactly("local".into())),
            (vec!["command"], Wanted::CommandLine(command)),
            (vec!["enabled"], Wanted::Unless(true.into())),
            // By default it ends a call after 60 s without a sign of life.
            (vec!["timeout"], Wanted::AtLeast(CALL_SECONDS * 1000)),
        ],
        rule: None,
        notes: Vec::new(),
    }
}

/// It reads both files. Ours goes where it is, or else into the one that there is.
fn file_in(folder: &Path, format: Format) -> PathBuf {
    let [json, jsonc] = ["opencode.json", "opencode.jsonc"].map(|name| folder.join(name));
    let has_ours = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        matches!(format.get(&text, &["mcp", NAME]), Ok(Some(_)))
    };
    match has_ours(&jsonc) || (!json.exists() && jsonc.exists()) {
        true => jsonc,
        false => json,
    }
}
