//! Probes that determine whether an agent is installed and logged in. Four agents are a CLI that has a backend of its
//! own, or an adapter of such a CLI, and share its login.

use super::presets::{Evidence, Preset};
use crate::backend::Probe;
use crate::backend::catalog::{GEMINI, OPENCODE};
use crate::backend::probe::{claude_code, codex, gemini, login_file, opencode, read_nothing};

/// Returns the probe of an agent.
pub fn of(preset: &Preset) -> Probe {
    let own = Probe {
        version_args: vec!["--version".to_owned()],
        auth_args: None,
        key_variables: preset.key_variables.iter().map(|name| (*name).to_owned()).collect(),
        login_files: preset.login_files.iter().map(|(name, folder, file)| login_file(*name, folder, file)).collect(),
        install_command: preset.install.to_owned(),
        login_command: preset.login.to_owned(),
        read_auth: read_nothing,
        own_service: None,
        service: None,
        tested_version: match preset.evidence {
            Evidence::Tried(version) => version.to_owned(),
            Evidence::Documentation => String::new(),
        },
        is_from_documentation: preset.evidence == Evidence::Documentation,
    };
    match preset.name {
        _ if preset.form_of == Some(OPENCODE) => opencode(),
        _ if preset.form_of == Some(GEMINI) => gemini(),
        // These have no command that shows their login, which is that of another program.
        "claude-agent-acp" => login_of(claude_code(), own),
        "codex-acp" => login_of(codex(), own),
        _ => own,
    }
}

/// Returns the probe of an adapter with the login of another program.
fn login_of(other: Probe, own: Probe) -> Probe {
    Probe {
        key_variables: other.key_variables,
        login_files: other.login_files,
        login_command: other.login_command,
        own_service: other.own_service,
        ..own
    }
}
