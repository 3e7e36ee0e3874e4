//! Checks that the Claude Code plugin can start this program. The plugin's launcher, `.claude-plugin/launch.sh`,
//! searches the same places for it.

use std::env;
use std::path::{Path, PathBuf};

use super::check::Finding;
use super::version::version;
use crate::cli::setup::plugin::Plugin;
use crate::cli::shell::quoted;

const NAME: &str = "plugin";
const PROGRAM: &str = "orchestrator-boss";

/// Checks the plugin; returns `None` if Claude Code has none. `setup`: Claude Code also has an entry made by `setup`.
pub fn check_all(project: &Path, setup: bool) -> Option<Finding> {
    Some(check(&Plugin::find(project)?, &etcetera::home_dir().ok()?, setup))
}

fn check(plugin: &Plugin, home: &Path, setup: bool) -> Finding {
    let name = &plugin.name;
    if !plugin.is_enabled {
        return Finding::note(NAME, format!("Claude Code has {name}, disabled"));
    }
    if !plugin.is_installed {
        return Finding::warn(NAME, format!("Claude Code's settings name {name}, which is not installed"))
            .fix(format!("claude plugin install {name}"));
    }
    if setup {
        let message =
            "Claude Code starts this server twice, through the plugin and setup's entry: its agent has each tool twice";
        return Finding::warn(NAME, message)
            .fix("orchestrator-boss setup claude --remove")
            .fix(format!("claude plugin disable {name}"));
    }
    let programs = programs(home);
    let fits = |path: &&PathBuf| plugin.version.is_none() || version(path) == plugin.version;
    if let Some(path) = programs.iter().find(fits) {
        return Finding::ok(NAME, format!("Claude Code starts {} through {name}", path.display()));
    }
    if plugin.is_published && which::which("npx").is_ok() {
        return Finding::ok(NAME, format!("Claude Code starts the npm package {PROGRAM} through {name}"));
    }
    match (programs.first(), &plugin.version) {
        (Some(path), Some(wanted)) => Finding::bad(
            NAME,
            format!(
                "Claude Code has {name}, which starts only version {wanted}, and {} is another one",
                path.display()
            ),
        )
        .fix(format!("claude plugin update {name}")),
        _ => {
            Finding::bad(NAME, format!("Claude Code has {name}, which does not find {PROGRAM} on the PATH")).fix(link())
        }
    }
}

/// Finds the installed programs as the launcher does.
fn programs(home: &Path) -> Vec<PathBuf> {
    let cargo = env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
    let folders = [cargo.join("bin"), home.join(".local/bin"), "/opt/homebrew/bin".into(), "/usr/local/bin".into()];
    let there = folders.iter().filter_map(|folder| which::which(folder.join(PROGRAM)).ok());
    which::which(PROGRAM).ok().into_iter().chain(there).collect()
}

fn link() -> String {
    let this = env::current_exe().map_or_else(|_| PROGRAM.to_owned(), |this| quoted(&this));
    format!("mkdir -p ~/.local/bin && ln -s {this} ~/.local/bin/{PROGRAM}")
}
