//! Asking the CLIs about themselves: installed, which version, logged in. What to ask and how to read the answer is the
//! backend's business; asking is done here, with a ceiling, and never spends anything.

use std::collections::{BTreeSet, HashMap};
use std::env;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::answers::BackendView;
use super::context::Context;
use super::error::OrchestratorError;
use super::mail::Counts;
use crate::backend::{self, LoginFile, Probe};
use crate::mission::id::BackendName;

/// A CLI's `--version` takes up to 2 s on a loaded machine.
const CEILING: Duration = Duration::from_secs(20);

/// The program that a backend runs, as the user's settings or the PATH name it.
pub(super) fn find_program(context: &Context, name: &BackendName) -> Result<PathBuf, OrchestratorError> {
    let backend = context.backends.get(name.as_str()).map_err(super::start::refused)?;
    let program = context.settings.backend(name.as_str()).program.unwrap_or_else(|| backend.program().to_owned());
    which::which(&program).map_err(|_| {
        let install = backend.probe().install_command;
        OrchestratorError::Refused(format!(
            "{name} is not installed ({program} is not on the PATH): {install}, or choose another backend; get_backend_status shows which are there"
        ))
    })
}

pub(super) async fn status(
    context: &Context,
    only: Option<&BackendName>,
    counts: &HashMap<BackendName, Counts>,
) -> Result<Vec<BackendView>, OrchestratorError> {
    let names: Vec<BackendName> = match only {
        Some(name) => vec![name.clone()],
        None => context.backends.names().map(BackendName::from).collect(),
    };
    let views = names.iter().map(|name| view(context, name, counts.get(name).cloned().unwrap_or_default()));
    futures_util::future::try_join_all(views).await
}

async fn view(context: &Context, name: &BackendName, counts: Counts) -> Result<BackendView, OrchestratorError> {
    let backend = context.backends.get(name.as_str()).map_err(super::start::refused)?;
    let probe = backend.probe();
    let path = find_program(context, name).ok();
    let (version, authenticated) = match &path {
        Some(path) => futures_util::future::join(version(path, &probe), authenticated(path, &probe)).await,
        None => (None, None),
    };
    let untested = version.as_deref().and_then(|version| backend::untested(version, &probe.tested_version));
    let how_to_fix = match (&path, authenticated) {
        (None, _) => Some(probe.install_command.clone()),
        (Some(_), Some(false)) => Some(probe.login_command.clone()),
        _ if counts.login_lost => Some(probe.login_command.clone()),
        _ => None,
    };
    Ok(BackendView {
        backend: name.clone(),
        installed: path.is_some(),
        version,
        untested,
        path,
        authenticated,
        how_to_fix,
        models: vec![backend::example_model(name.as_str()).to_owned()],
        running: counts.running,
        queued: counts.queued,
        limit: context.limits.of(name),
        waits_for: counts.waits_for,
        held_until: counts.held_until,
    })
}

/// Those of the backends that are certainly not logged in, with what to do about it: work would only be wasted on them.
/// One that was found ready is not asked again for a while.
pub(super) async fn logged_out(context: &Context, names: BTreeSet<BackendName>) -> HashMap<BackendName, String> {
    let mut refused = HashMap::new();
    for name in names {
        let found = context.backends.get(name.as_str()).ok().zip(find_program(context, &name).ok());
        let Some((backend, program)) = found.filter(|_| !context.was_ready(&name)) else { continue };
        let probe = backend.probe();
        if authenticated(&program, &probe).await == Some(false) {
            let login = &probe.login_command;
            let why = format!(
                "{name} is not logged in: the user has to run `{login}`; or choose another backend, get_backend_status shows which are ready"
            );
            refused.insert(name, why);
        } else {
            context.note_ready(name);
        }
    }
    refused
}

/// What tells of a login: another one after it was lost shows in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Login {
    pub answer: Option<bool>,
    /// When each file that a login leaves was last written, and its length.
    files: Vec<Option<(SystemTime, u64)>>,
}

/// `None`: the backend, or its program, is not here.
pub(super) async fn login(context: &Context, name: &BackendName) -> Option<Login> {
    let probe = context.backends.get(name.as_str()).ok()?.probe();
    let program = find_program(context, name).ok()?;
    let seen = |file: &LoginFile| {
        let metadata = std::fs::metadata(place(file)?).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    let files = probe.login_files.iter().map(seen).collect();
    Some(Login { answer: authenticated(&program, &probe).await, files })
}

async fn version(program: &Path, probe: &Probe) -> Option<String> {
    let (stdout, _) = ask(program, &probe.version_args).await?;
    backend::read_version(&stdout)
}

/// A key in the environment, the CLI's own word, or the file that a login leaves; `None` when nothing tells.
async fn authenticated(program: &Path, probe: &Probe) -> Option<bool> {
    let set = |name: &String| env::var_os(name).is_some_and(|value| !value.is_empty());
    if probe.key_variables.iter().any(set) {
        return Some(true);
    }
    if let Some(args) = &probe.auth_args
        && let Some((stdout, code)) = ask(program, args).await
        && let Some(answer) = (probe.read_auth)(&stdout, code)
        && (answer || !uses_a_service_of_its_own(probe))
    {
        return Some(answer);
    }
    probe.login_files.iter().any(exists).then_some(true)
}

fn uses_a_service_of_its_own(probe: &Probe) -> bool {
    let Some(service) = &probe.own_service else { return false };
    let config = place(&service.config).and_then(|path| std::fs::read_to_string(path).ok());
    config.is_some_and(|config| (service.is_used)(&config))
}

fn exists(file: &LoginFile) -> bool {
    place(file).is_some_and(|path| path.exists())
}

fn place(file: &LoginFile) -> Option<PathBuf> {
    let moved = file.variable.as_ref().and_then(env::var_os).map(PathBuf::from);
    let folder = moved.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(&file.default_folder)));
    Some(folder?.join(&file.file))
}

async fn ask(program: &Path, args: &[String]) -> Option<(String, i32)> {
    let mut command = tokio::process::Command::new(program);
    command.args(args).stdin(std::process::Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(CEILING, command.output()).await.ok()?.ok()?;
    Some((String::from_utf8_lossy(&output.stdout).into_owned(), output.status.code()?))
}
