//! `guard`: the hook of the Claude Code plugin. It refuses edits that a boss makes itself, as the skill demands.
//!
//! It is off unless the user has turned it on. It refuses only clear cases: a session that has missions in the state of
//! this repository edits a file of this repository. It allows everything else, and all that it cannot read, since a
//! failing hook must not stop the user's work. Claude Code passes the call as JSON on stdin and reads the decision from
//! stdout.

use std::env;
use std::io::{Read, stdin};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Deserialize;
use serde_json::json;

use super::places::Places;
use crate::attempt::state_dir;
use crate::config::Settings;
use crate::files;
use crate::git::{Repository, Trust};
use crate::mission::id::BossId;
use crate::orchestrator::{Around, all_folders, state_root};
use crate::process;

/// The variable in which Claude Code passes on the user's choice for the plugin's option `guard`.
const TURNED_ON: &str = "CLAUDE_PLUGIN_OPTION_GUARD";
/// Maximum number of bytes read of a call. No edit is larger.
const LONGEST_CALL: u64 = 64 << 20;

const REFUSAL: &str = "You are the boss of workers in this repository: you do not edit its files yourself. Give it to a \
                       worker: send_message_to_worker or retry_worker with feedback for a worker's own work, \
                       create_worker_mission for anything else. (The user can turn this guard off in the settings of \
                       the orchestrator-boss plugin.)";

#[derive(Deserialize)]
struct HookCall {
    session_id: String,
    cwd: PathBuf,
    tool_input: ToolInput,
}

#[derive(Deserialize)]
struct ToolInput {
    #[serde(alias = "notebook_path")]
    file_path: PathBuf,
}

#[derive(Deserialize)]
struct HookStateFile {
    tasks: Vec<HookTask>,
    completed_tasks: Vec<HookTask>,
    blocked_tasks: Vec<HookTask>,
}

#[derive(Deserialize)]
struct HookTask {
    boss_id: String,
}

pub(super) fn run(places: &Places) -> ExitCode {
    let on = env::var(TURNED_ON).is_ok_and(|value| matches!(value.as_str(), "true" | "1"));
    // A worker inherits the plugin from its user; its edits are its job.
    if on && process::inherited_tag().is_none() && is_edit_of_a_boss(places).unwrap_or(false) {
        let decision = json!({"hookSpecificOutput": {
            "hookEventName": "PreToolUse",
            "permissionDecision": "deny",
            "permissionDecisionReason": REFUSAL,
        }});
        println!("{decision}");
    }
    ExitCode::SUCCESS
}

/// Returns whether a boss edits a file of its repository; `None` if that cannot be read.
fn is_edit_of_a_boss(places: &Places) -> Option<bool> {
    let mut text = Vec::new();
    stdin().lock().take(LONGEST_CALL).read_to_end(&mut text).ok()?;
    let call: HookCall = serde_json::from_slice(&text).ok()?;
    let boss = BossId::of_claude(&call.session_id)?;
    let settings = Settings::load(places.config.as_deref()).ok()?;
    let named = places.state_dir.as_deref().or(settings.state_dir.as_deref());
    let repository = Repository::discover(&call.cwd, &Trust::nothing()).ok()?;
    let root = state_root(named, repository.as_ref(), &call.cwd);
    let file = call.cwd.join(&call.tool_input.file_path);
    // The session may work in a linked worktree, which is in another folder.
    let mut folders = vec![call.cwd.clone()];
    if let Some(repository) = &repository {
        let template = settings.worktrees_dir.as_deref();
        folders.extend(all_folders(Around { repository, state_root: &root, template }));
        folders.push(repository.root().to_owned());
    }
    if !folders.iter().any(|folder| is_edited_in(folder, &file)) {
        return Some(false);
    }
    let state: HookStateFile = files::read_json(&state_dir::state_file(&root)).ok()??;
    let mut tasks = state.tasks.iter().chain(&state.completed_tasks).chain(&state.blocked_tasks);
    Some(tasks.any(|task| task.boss_id == boss.as_str()))
}

/// Returns whether the file is in the folder. It may not exist yet, and the folder may be a link.
fn is_edited_in(folder: &Path, file: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let Some(there) = file.ancestors().skip(1).find(|folder| folder.exists()) else { return false };
    real(there).starts_with(real(folder))
}
