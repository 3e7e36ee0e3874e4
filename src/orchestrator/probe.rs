//! Queries the CLIs: whether they are installed, their version, and whether they are logged in. The backend knows the
//! query and parses the answer. This module runs the query, with a time limit and without any cost.

use std::collections::{BTreeSet, HashMap};
use std::env;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::sync::OnceCell;

use super::answers::BackendView;
use super::answers::{Counts, Login};
use super::context::Context;
use super::error::OrchestratorError;
use crate::backend::{self, Backend, Backends, LoginFile, OwnService, Probe};
use crate::config::Settings;
use crate::mission::id::BackendName;
use crate::process;

/// Time limit of a query. A CLI's `--version` takes up to 2 s on a loaded machine.
const CEILING: Duration = Duration::from_secs(20);

/// The status of a backend, as far as it can be determined without a state directory.
#[derive(Debug, Clone)]
pub struct BackendCheck {
    /// The view of the backend. Its numbers of running and queued workers are always 0.
    pub view: BackendView,
    /// True unless its program is missing, or the version query timed out.
    pub answered: bool,
    /// The reason why it does not start: a missing program, interpreter or library, or a wrong architecture.
    pub trouble: Option<String>,
    /// The reason why a login that was found may be refused.
    pub doubt: Option<&'static str>,
}

/// Queries all backends in parallel, within `ceiling`.
pub async fn check_backends(settings: &Settings, backends: &Backends, ceiling: Duration) -> Vec<BackendCheck> {
    let queries = &Queries::default();
    let checks = backends.names().filter_map(|name| Some((BackendName::from(name), backends.get(name).ok()?)));
    let checks = checks.map(|(name, backend)| async move { check(settings, &name, &*backend, queries, ceiling).await });
    futures_util::future::join_all(checks).await
}

pub(super) fn find_program(context: &Context, name: &BackendName) -> Result<PathBuf, OrchestratorError> {
    program_of(&context.settings, &context.backends, name)
}

/// Finds the program of a backend, from the user's settings or on the PATH.
pub fn program_of(settings: &Settings, backends: &Backends, name: &BackendName) -> Result<PathBuf, OrchestratorError> {
    let backend = backends.get(name.as_str())?;
    program(settings, name, &*backend).map_err(|missing| OrchestratorError::NoProgram {
        backend: name.to_string(),
        why: missing.why,
        fix: missing.fix,
    })
}

/// Returns the program of a backend as a node of a cluster has to look for it.
pub(super) fn program_on_node(context: &Context, name: &BackendName) -> Result<PathBuf, OrchestratorError> {
    let backend = context.backends.get(name.as_str())?;
    let named = context.settings.backend(name.as_str()).program;
    Ok(expanded(&named.unwrap_or_else(|| backend.program().to_owned())))
}

/// Returns whether a file shows that a backend is logged in. Nodes of a cluster share it.
pub(super) fn has_login_file(probe: &Probe) -> bool {
    probe.login_files.iter().any(exists)
}

/// The reason why a backend's program was not found, and the fix.
struct MissingProgram {
    why: String,
    fix: String,
}

fn program(settings: &Settings, name: &BackendName, backend: &dyn Backend) -> Result<PathBuf, MissingProgram> {
    let named = settings.backend(name.as_str()).program;
    let program = named.clone().unwrap_or_else(|| backend.program().to_owned());
    which::which(expanded(&program)).map_err(|_| {
        let why = format!("{program} {}", what_is_wrong(&expanded(&program)));
        match named {
            // Installing the CLI would not help, since the settings name another program.
            Some(_) => MissingProgram {
                why: format!("the settings name a program, but {why}"),
                fix: format!("correct `program` below [backends.{name}] in the settings, or remove it"),
            },
            None if program.contains('/') => MissingProgram {
                why,
                fix: format!("correct `program` of the backend {name} below [[custom]] in the settings"),
            },
            None => MissingProgram { why, fix: backend.probe().install_command },
        }
    })
}

/// Expands `~/` as a shell does.
fn expanded(program: &str) -> PathBuf {
    let in_home = program.strip_prefix("~/").and_then(|rest| Some(etcetera::home_dir().ok()?.join(rest)));
    in_home.unwrap_or_else(|| program.into())
}

/// Completes a sentence about a program that was not found.
fn what_is_wrong(program: &Path) -> &'static str {
    let is_name = program.components().count() == 1 && !program.is_absolute();
    match program.metadata() {
        _ if is_name => "is not on the PATH",
        Ok(found) if found.is_dir() => "is a folder",
        Ok(_) => "is not executable (chmod +x makes it so)",
        Err(_) if program.is_symlink() => "is a link to a file that does not exist",
        Err(error) if error.kind() == ErrorKind::NotFound => "does not exist",
        Err(_) => "cannot be reached",
    }
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
    let queries = Queries::default();
    let counts = |name| counts.get(name).cloned().unwrap_or_default();
    let views = names.iter().map(|name| view(context, name, &queries, counts(name)));
    futures_util::future::try_join_all(views).await
}

async fn view(
    context: &Context,
    name: &BackendName,
    queries: &Queries,
    counts: Counts,
) -> Result<BackendView, OrchestratorError> {
    let backend = context.backends.get(name.as_str())?;
    let BackendCheck { view, .. } = check(&context.settings, name, &*backend, queries, CEILING).await;
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

async fn check(
    settings: &Settings,
    name: &BackendName,
    backend: &dyn Backend,
    queries: &Queries,
    ceiling: Duration,
) -> BackendCheck {
    let probe = backend.probe();
    let found = program(settings, name, backend);
    let path = found.as_ref().ok().cloned();
    let (said, authenticated) = match &path {
        Some(path) => {
            let said = queries.ask(path, &probe.version_args, ceiling);
            futures_util::future::join(said, authenticated(path, &probe, queries, ceiling)).await
        }
        None => (Err(NoAnswer::InTime), None),
    };
    let answered = !matches!(said, Err(NoAnswer::InTime));
    let version = said.as_ref().ok().and_then(|said| backend::read_version(&said.stdout));
    // A custom program need not support `--version`.
    let trouble = match said {
        Ok(said) if version.is_none() && said.does_not_start(!probe.tested_version.is_empty()) => Some(said.words()),
        Err(NoAnswer::Start(error)) => Some(error),
        _ => None,
    };
    let untested = if probe.is_from_documentation {
        path.is_some().then(|| "never tried: its adapter follows its documentation".to_owned())
    } else {
        version.as_deref().and_then(|version| backend::untested(version, &probe.tested_version))
    };
    let doubt = probe.login_files.iter().filter(|file| authenticated.is_none() && exists(file)).find_map(|it| it.doubt);
    let how_to_fix = match (&found, authenticated) {
        (Err(missing), _) => Some(missing.fix.clone()),
        (Ok(_), _) if trouble.is_some() => trouble.clone(),
        (Ok(_), Some(false)) => Some(probe.login_command),
        (Ok(_), None) => doubt.map(|doubt| format!("{doubt}; if so, {}", probe.login_command)),
        _ => None,
    };
    let view = BackendView {
        backend: name.clone(),
        is_optional: backend.is_optional(),
        installed: path.is_some(),
        version,
        untested,
        path,
        authenticated,
        how_to_fix,
        models: models(settings, name),
        running: 0,
        queued: 0,
        limit: super::context::limits(settings).of(name),
        waits_for: None,
        held_until: None,
        asks: backend.asks(),
    };
    let trouble = trouble.or(found.err().map(|missing| missing.why));
    BackendCheck { view, answered, trouble, doubt }
}

/// Returns the models that the settings list for a custom backend. For the others, it is one that certainly exists.
fn models(settings: &Settings, name: &BackendName) -> Vec<String> {
    match settings.custom.iter().find(|custom| custom.name == name.as_str()) {
        Some(custom) => custom.models.clone(),
        None => {
            let example = backend::example_model(name.as_str());
            if example.is_empty() { Vec::new() } else { vec![example.to_owned()] }
        }
    }
}

/// Returns the backends that are certainly not logged in, with the fix: work would only be wasted on them. A backend
/// that was found ready is not checked again for a while.
pub(super) async fn logged_out(
    context: &Context,
    names: BTreeSet<BackendName>,
) -> HashMap<BackendName, Arc<OrchestratorError>> {
    let mut refused = HashMap::new();
    for name in names {
        let found = context.backends.get(name.as_str()).ok().zip(find_program(context, &name).ok());
        let Some((backend, program)) = found.filter(|_| !context.was_ready(&name)) else { continue };
        let probe = backend.probe();
        if authenticated(&program, &probe, &Queries::default(), CEILING).await == Some(false) {
            let (backend, login) = (name.to_string(), probe.login_command.to_string());
            refused.insert(name, Arc::new(OrchestratorError::LoggedOut { backend, login }));
        } else {
            context.note_ready(name);
        }
    }
    refused
}

/// Determines the login of a backend. `None` if the backend, or its program, is missing.
pub(super) async fn login(context: &Context, name: &BackendName) -> Option<Login> {
    let probe = context.backends.get(name.as_str()).ok()?.probe();
    let program = find_program(context, name).ok()?;
    let seen = |file: &LoginFile| {
        let metadata = std::fs::metadata(place(file)?).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    let files = probe.login_files.iter().map(seen).collect();
    Some(Login { answer: authenticated(&program, &probe, &Queries::default(), CEILING).await, files })
}

/// Determines whether the CLI is logged in: by a key in the environment, the CLI's own answer, or a file that a login
/// leaves. `None` if there is no evidence, or only doubtful evidence.
async fn authenticated(program: &Path, probe: &Probe, queries: &Queries, ceiling: Duration) -> Option<bool> {
    let set = |name: &String| env::var_os(name).is_some_and(|value| !value.is_empty());
    if probe.key_variables.iter().any(set) {
        return Some(true);
    }
    if let Some(args) = &probe.auth_args
        && let Ok(said) = queries.ask(program, args, ceiling).await
        && !said.does_not_start(false)
        && let Some(answer) = (probe.read_auth)(&said.stdout, said.code)
        && (answer || !uses_a_service_of_its_own(probe))
    {
        return Some(answer);
    }
    probe.login_files.iter().any(|file| file.doubt.is_none() && exists(file)).then_some(true)
}

fn uses_a_service_of_its_own(probe: &Probe) -> bool {
    own_service(probe).is_some_and(|(service, config)| (service.is_used)(&config))
}

/// Returns the variable with the key of the service for which the CLI is configured, if there is such a service.
pub(super) fn own_key_variable(probe: &Probe) -> Option<String> {
    own_service(probe).and_then(|(service, config)| (service.key_variable)(&config))
}

/// Returns the addresses of the service that a CLI uses, of which one is enough. Empty if that is not known.
pub fn services_of(probe: &Probe, variable: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let own = own_service(probe).and_then(|(service, config)| (service.address)(&config));
    let Some(usual) = probe.service else { return own.into_iter().collect() };
    let named = || variable(usual.variable).filter(|address| !address.is_empty());
    match own.or_else(named) {
        Some(address) => vec![address],
        None => usual.addresses.iter().map(|address| (*address).to_owned()).collect(),
    }
}

/// Returns the service for which a CLI may be configured, and the content of its configuration.
fn own_service(probe: &Probe) -> Option<(&OwnService, String)> {
    let service = probe.own_service.as_ref()?;
    Some((service, std::fs::read_to_string(place(&service.config)?).ok()?))
}

fn exists(file: &LoginFile) -> bool {
    place(file).is_some_and(|path| path.exists())
}

fn place(file: &LoginFile) -> Option<PathBuf> {
    let moved = file.variable.as_ref().and_then(env::var_os).map(PathBuf::from);
    let folder = moved.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(&file.default_folder)));
    Some(folder?.join(&file.file))
}

/// The queries of one round. Backends that share a program also share its answers.
#[derive(Default)]
struct Queries {
    answers: Mutex<HashMap<Query, Arc<Answer>>>,
}

/// A program and its arguments.
type Query = (PathBuf, Vec<String>);
/// The answer to a query, once it has come.
type Answer = OnceCell<Result<Said, NoAnswer>>;

impl Queries {
    async fn ask(&self, program: &Path, args: &[String], ceiling: Duration) -> Result<Said, NoAnswer> {
        let answer = {
            let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            answers.entry((program.to_owned(), args.to_vec())).or_default().clone()
        };
        answer.get_or_init(|| ask(program, args, ceiling)).await.clone()
    }
}

/// The answer of a CLI to a query.
#[derive(Clone)]
struct Said {
    stdout: String,
    stderr: String,
    code: i32,
}

#[derive(Clone)]
enum NoAnswer {
    /// No answer within the time limit.
    InTime,
    Start(String),
}

impl Said {
    /// Returns whether the exit status shows that the program does not start. Shells, `env` and launchers exit with 126
    /// or 127 if they cannot run a program.
    fn does_not_start(&self, must_succeed: bool) -> bool {
        matches!(self.code, 126 | 127) || (must_succeed && self.code != 0)
    }

    fn words(&self) -> String {
        let text = if self.stderr.trim().is_empty() { &self.stdout } else { &self.stderr };
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let said: String = lines.take(2).collect::<Vec<_>>().join("; ").chars().take(200).collect();
        if said.is_empty() { format!("it ends with exit status {}", self.code) } else { said }
    }
}

/// Says why a program does not start, as the launch of a worker does.
fn why_not_started(error: io::Error, program: &Path) -> String {
    let text = process::explain(error, program, Path::new("/")).to_string();
    let name = format!("cannot start {}: ", program.display());
    text.strip_prefix(&name).map_or_else(|| text.clone(), str::to_owned)
}

/// Runs a CLI in the environment that a worker would have, without variables that attach it to the boss's session. Its
/// process group is killed at the time limit.
async fn ask(program: &Path, args: &[String], ceiling: Duration) -> Result<Said, NoAnswer> {
    let mut command = tokio::process::Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_str().is_some_and(backend::is_boss_variable)) {
        command.env_remove(name);
    }
    let started = command.process_group(0).kill_on_drop(true).spawn();
    let child = started.map_err(|error| NoAnswer::Start(why_not_started(error, program)))?;
    let group = child.id().and_then(|id| Pid::from_raw(id as i32));
    let answer = child.wait_with_output();
    tokio::pin!(answer);
    let Ok(output) = tokio::time::timeout(ceiling, &mut answer).await else {
        // The child is not reaped yet, so its process id cannot be reused.
        group.map(|group| kill_process_group(group, Signal::KILL));
        return Err(NoAnswer::InTime);
    };
    let output = output.map_err(|error| NoAnswer::Start(error.to_string()))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    // It displays as `signal: 11 (SIGSEGV)`.
    let code = output.status.code().ok_or_else(|| NoAnswer::Start(output.status.to_string()))?;
    Ok(Said { stdout: text(&output.stdout), stderr: text(&output.stderr), code })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn unusable_program_is_distinguished() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("plain"), "").unwrap();
        std::os::unix::fs::symlink(path("gone"), path("link")).unwrap();
        for (program, wrong) in [
            (path("gone"), "does not exist"),
            (path("plain"), "is not executable (chmod +x makes it so)"),
            (path("link"), "is a link to a file that does not exist"),
            (path("plain/x"), "cannot be reached"),
            (folder.path().to_owned(), "is a folder"),
            ("no-such-cli".into(), "is not on the PATH"),
        ] {
            assert_eq!(what_is_wrong(&program), wrong, "{program:?}");
        }
        let mut settings = Settings::default();
        settings.backends.entry("codex".into()).or_default().program = Some("~/no/such/tool".into());
        assert_eq!(expanded("~/tool"), etcetera::home_dir().unwrap().join("tool"));
        let backend = Backends::with_custom(Vec::new()).get("codex").unwrap();
        let missing = program(&settings, &"codex".into(), &*backend).err().unwrap();
        assert_eq!(missing.why, "the settings name a program, but ~/no/such/tool does not exist");
    }
}
