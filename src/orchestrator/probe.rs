//! Asking the CLIs about themselves: installed, which version, logged in. What to ask and how to read the answer is the
//! backend's business; asking is done here, with a ceiling, and never spends anything.

use std::collections::{BTreeSet, HashMap};
use std::env;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use rustix::process::{Pid, Signal, kill_process_group};

use super::answers::BackendView;
use super::context::Context;
use super::error::OrchestratorError;
use super::mail::Counts;
use crate::backend::{self, Backend, Backends, LoginFile, Probe};
use crate::config::Settings;
use crate::mission::id::BackendName;

/// A CLI's `--version` takes up to 2 s on a loaded machine.
const CEILING: Duration = Duration::from_secs(20);

/// A backend as it can be told without a state directory.
#[derive(Debug, Clone)]
pub struct Looked {
    /// Nothing of it runs or is queued, as far as this says.
    pub view: BackendView,
    /// It ended when it was asked for its version.
    pub answered: bool,
    /// Why it does not start: an interpreter that is missing, a library, a wrong machine.
    pub trouble: Option<String>,
}

/// Asks all backends at once, and takes no longer than `ceiling`.
pub async fn look_at_backends(settings: &Settings, backends: &Backends, ceiling: Duration) -> Vec<Looked> {
    let looks = backends.names().filter_map(|name| Some((BackendName::from(name), backends.get(name).ok()?)));
    let looks = looks.map(|(name, backend)| async move { look(settings, &name, &*backend, ceiling).await });
    futures_util::future::join_all(looks).await
}

/// The program that a backend runs, as the user's settings or the PATH name it.
pub(super) fn find_program(context: &Context, name: &BackendName) -> Result<PathBuf, OrchestratorError> {
    let backend = context.backends.get(name.as_str()).map_err(super::start::refused)?;
    program(&context.settings, name, &*backend).map_err(|missing| {
        OrchestratorError::Refused(format!(
            "cannot start {name}: {}; {}, or choose another backend; get_backend_status shows which are there",
            missing.why, missing.fix
        ))
    })
}

/// Why a backend's program is not found, and what to do about it.
struct Missing {
    why: String,
    fix: String,
}

fn program(settings: &Settings, name: &BackendName, backend: &dyn Backend) -> Result<PathBuf, Missing> {
    let named = settings.backend(name.as_str()).program;
    let program = named.clone().unwrap_or_else(|| backend.program().to_owned());
    which::which(&program).map_err(|_| match named {
        // To install it elsewhere would change nothing.
        Some(_) => Missing {
            why: format!("the settings name the program {program}, and there is none"),
            fix: format!("correct `program` below [backends.{name}] in the settings, or take it out"),
        },
        None => Missing { why: format!("{program} is not on the PATH"), fix: backend.probe().install_command },
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
    let Looked { view, .. } = look(&context.settings, name, &*backend, CEILING).await;
    let lost = counts.login_lost.then(|| backend.probe().login_command);
    Ok(BackendView {
        how_to_fix: view.how_to_fix.or(lost),
        running: counts.running,
        queued: counts.queued,
        limit: context.limits.of(name),
        waits_for: counts.waits_for,
        held_until: counts.held_until,
        ..view
    })
}

async fn look(settings: &Settings, name: &BackendName, backend: &dyn Backend, ceiling: Duration) -> Looked {
    let probe = backend.probe();
    let found = program(settings, name, backend);
    let path = found.as_ref().ok().cloned();
    let (said, authenticated) = match &path {
        Some(path) => {
            let said = ask(path, &probe.version_args, ceiling);
            futures_util::future::join(said, authenticated(path, &probe, ceiling)).await
        }
        None => (Err(NoAnswer::InTime), None),
    };
    let answered = !matches!(said, Err(NoAnswer::InTime));
    let version = said.as_ref().ok().and_then(|said| backend::read_version(&said.stdout));
    // A program of the user's own need not know `--version`.
    let trouble = match said {
        Ok(said) if version.is_none() && said.does_not_start(!probe.tested_version.is_empty()) => Some(said.words()),
        Err(NoAnswer::Start(error)) => Some(error),
        _ => None,
    };
    let untested = version.as_deref().and_then(|version| backend::untested(version, &probe.tested_version));
    let how_to_fix = match (&found, authenticated) {
        (Err(missing), _) => Some(missing.fix.clone()),
        (Ok(_), _) if trouble.is_some() => trouble.clone(),
        (Ok(_), Some(false)) => Some(probe.login_command),
        _ => None,
    };
    let view = BackendView {
        backend: name.clone(),
        installed: path.is_some(),
        version,
        untested,
        path,
        authenticated,
        how_to_fix,
        models: models(settings, name),
        running: 0,
        queued: 0,
        limit: super::schedule::limits(settings).of(name),
        waits_for: None,
        held_until: None,
    };
    let trouble = trouble.or(found.err().map(|missing| missing.why));
    Looked { view, answered, trouble }
}

/// Those that a backend of the user's takes, as far as its settings say; of the others one that is sure to exist.
fn models(settings: &Settings, name: &BackendName) -> Vec<String> {
    match settings.custom.iter().find(|custom| custom.name == name.as_str()) {
        Some(custom) => custom.models.clone(),
        None => vec![backend::example_model(name.as_str()).to_owned()],
    }
}

/// Those of the backends that are certainly not logged in, with what to do about it: work would only be wasted on them.
/// One that was found ready is not asked again for a while.
pub(super) async fn logged_out(context: &Context, names: BTreeSet<BackendName>) -> HashMap<BackendName, String> {
    let mut refused = HashMap::new();
    for name in names {
        let found = context.backends.get(name.as_str()).ok().zip(find_program(context, &name).ok());
        let Some((backend, program)) = found.filter(|_| !context.was_ready(&name)) else { continue };
        let probe = backend.probe();
        if authenticated(&program, &probe, CEILING).await == Some(false) {
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
    Some(Login { answer: authenticated(&program, &probe, CEILING).await, files })
}

/// A key in the environment, the CLI's own word, or the file that a login leaves; `None` when nothing tells.
async fn authenticated(program: &Path, probe: &Probe, ceiling: Duration) -> Option<bool> {
    let set = |name: &String| env::var_os(name).is_some_and(|value| !value.is_empty());
    if probe.key_variables.iter().any(set) {
        return Some(true);
    }
    if let Some(args) = &probe.auth_args
        && let Ok(said) = ask(program, args, ceiling).await
        && !said.does_not_start(false)
        && let Some(answer) = (probe.read_auth)(&said.stdout, said.code)
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

/// What a CLI said of itself.
struct Said {
    stdout: String,
    stderr: String,
    code: i32,
}

enum NoAnswer {
    /// Or it was ended by a signal.
    InTime,
    Start(String),
}

impl Said {
    /// 126 and 127 are the words of a shell, of `env` and of our launchers: what was to be run is not there.
    fn does_not_start(&self, must_succeed: bool) -> bool {
        matches!(self.code, 126 | 127) || (must_succeed && self.code != 0)
    }

    fn words(&self) -> String {
        let text = if self.stderr.trim().is_empty() { &self.stdout } else { &self.stderr };
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let said: String = lines.take(2).collect::<Vec<_>>().join("; ").chars().take(200).collect();
        match said.is_empty() {
            true => format!("it ends with exit status {}", self.code),
            false => said,
        }
    }
}

/// In the environment that a worker would have: nothing by which it could take itself for a part of the boss's session.
/// What it started ends with it.
async fn ask(program: &Path, args: &[String], ceiling: Duration) -> Result<Said, NoAnswer> {
    let mut command = tokio::process::Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_str().is_some_and(backend::is_the_bosses)) {
        command.env_remove(name);
    }
    let started = command.process_group(0).kill_on_drop(true).spawn();
    let child = started.map_err(|error| NoAnswer::Start(error.to_string()))?;
    let group = child.id().and_then(|id| Pid::from_raw(id as i32));
    let answer = child.wait_with_output();
    tokio::pin!(answer);
    let Ok(output) = tokio::time::timeout(ceiling, &mut answer).await else {
        // It is still waited for, so that nobody else can have its number.
        group.map(|group| kill_process_group(group, Signal::KILL));
        return Err(NoAnswer::InTime);
    };
    let output = output.map_err(|error| NoAnswer::Start(error.to_string()))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().ok_or(NoAnswer::InTime)?;
    Ok(Said { stdout: text(&output.stdout), stderr: text(&output.stderr), code })
}
