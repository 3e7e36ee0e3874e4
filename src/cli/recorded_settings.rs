//! Finds the settings with which a worker was started. Its server may have a settings file of its own (`--config`),
//! which a command at a terminal does not get. The worker's record has the path of that file and its content.

use std::path::Path;

use super::workspace::Workspace;
use crate::attempt::assignment::Assignment;
use crate::backend::Backends;
use crate::config::Settings;
use crate::files;
use crate::mission::id::WorkerId;
use crate::orchestrator::Observer;

/// Returns the settings for a command that acts on these workers and was given no settings file.
pub(super) fn of(workspace: &Workspace, names: &[String]) -> Settings {
    let own = workspace.settings.clone();
    let Some(recorded) = names.iter().find_map(|name| assignment(workspace, name)) else { return own };
    let named = recorded.settings_file.as_deref().filter(|path| !is_within_reach_of_workers(workspace, path));
    match named.and_then(|path| Settings::load(Some(path)).ok()) {
        Some(settings) => Settings { state_dir: own.state_dir, ..settings },
        None => with_backends_of(own, recorded.settings),
    }
}

/// Returns whether the file is in the repository or the state directory. Such a file must not decide which programs
/// run.
fn is_within_reach_of_workers(workspace: &Workspace, path: &Path) -> bool {
    [Some(&workspace.state_root), workspace.repository.as_ref()]
        .into_iter()
        .flatten()
        .any(|folder| path.starts_with(folder))
}

/// Adds the backends of the record to the user's own settings, when the file cannot be used. The record has no secrets.
fn with_backends_of(mut own: Settings, recorded: Settings) -> Settings {
    let known = Backends::with_custom(own.custom.clone());
    own.custom.extend(recorded.custom.into_iter().filter(|custom| known.get(&custom.name).is_err()));
    for (name, backend) in recorded.backends {
        own.backends.entry(name).or_insert(backend);
    }
    own
}

/// Returns the record of the worker's newest attempt; for a worker that never started, of any worker of the same
/// backend.
fn assignment(workspace: &Workspace, name: &str) -> Option<Assignment> {
    let mut observer = workspace.try_observer().ok()??;
    let worker = observer.find(name).ok()?.worker;
    newest(&observer, &worker.id).or_else(|| {
        let overview = observer.read().ok()?;
        let mut alike = overview.workers().filter(|view| view.worker.next.backend == worker.next.backend);
        alike.find_map(|view| newest(&observer, &view.worker.id))
    })
}

fn newest(observer: &Observer, id: &WorkerId) -> Option<Assignment> {
    let folder = observer.folder(id);
    folder
        .attempts()
        .into_iter()
        .rev()
        .find_map(|number| files::read_json(&folder.attempt(number).assignment()).ok().flatten())
}
