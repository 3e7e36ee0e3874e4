//! Checks the CLIs that workers run: installed, answering, logged in.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::check::Finding;
use super::network;
use crate::backend::{Backends, CustomOutput};
use crate::cli::shell::quoted;
use crate::config::Settings;
use crate::orchestrator::{BackendCheck, check_backends};

/// Time limit for an answer of a CLI. On a loaded machine, `--version` has taken 13 s.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);

/// The backends with which a run would work.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Usable {
    /// Backends without any known problem.
    pub surely: Vec<String>,
    /// Backends of which it is not known whether they are logged in, or whether they work at all.
    pub maybe: Vec<String>,
    /// True if one of these did not print its version in time.
    pub is_silent: bool,
}

pub fn check_all(settings: &Settings) -> (Vec<Finding>, Usable) {
    let backends = Backends::with_custom(settings.custom.clone());
    let checks = match ask(settings, &backends) {
        Ok(checks) => checks,
        Err(finding) => return (vec![finding], Usable::default()),
    };
    let usable = usable(&checks, &backends);
    let (absent, listed): (Vec<_>, Vec<_>) = checks.iter().partition(|it| is_absent(it, settings));
    let listed = listed.into_iter().map(|it| check(it, settings, &backends));
    (listed.chain(others(&absent)).collect(), usable)
}

/// Checks the CLIs on a node of a cluster, and the way to their services. Also returns the names of the backends whose
/// program is not there.
pub fn check_node(
    settings: &Settings,
    variable: impl Fn(&str) -> Option<String>,
) -> (Vec<Finding>, Usable, Vec<String>) {
    let backends = Backends::with_custom(settings.custom.clone());
    let checks = match ask(settings, &backends) {
        Ok(checks) => checks,
        Err(finding) => return (vec![finding], Usable::default(), Vec::new()),
    };
    let usable = usable(&checks, &backends);
    let (there, missing): (Vec<_>, Vec<_>) = checks.iter().partition(|it| it.view.path.is_some());
    let missing = missing.iter().map(|it| it.view.backend.to_string()).collect();
    let names: Vec<&str> = there.iter().map(|it| it.view.backend.as_str()).collect();
    let network = network::check(&backends, &names, variable);
    let agents = there.iter().map(|it| check(it, settings, &backends));
    (agents.chain(network).collect(), usable, missing)
}

/// Asks all CLIs at once.
fn ask(settings: &Settings, backends: &Backends) -> Result<Vec<BackendCheck>, Finding> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Finding::bad("agents", format!("cannot start the checks: {error}")))?;
    let checks = runtime.block_on(check_backends(settings, backends, ANSWER_LIMIT));
    // Another form of a CLI has the same program and login, so it gets no line of its own.
    let is_form = |it: &BackendCheck| {
        let backend = backends.get(it.view.backend.as_str());
        backend.is_ok_and(|backend| backend.form_of().is_some())
    };
    Ok(checks.into_iter().filter(|it| !is_form(it)).collect())
}

fn usable(checks: &[BackendCheck], backends: &Backends) -> Usable {
    let mut usable = Usable::default();
    for it in checks.iter().filter(|it| it.trouble.is_none() && it.view.authenticated != Some(false)) {
        usable.is_silent |= !it.answered;
        let is_known = it.answered && (it.view.authenticated == Some(true) || !needs_login(it, backends));
        let list = if is_known { &mut usable.surely } else { &mut usable.maybe };
        list.push(it.view.backend.to_string());
    }
    usable
}

/// Returns whether an optional backend is not installed, and the settings do not name its program.
fn is_absent(backend: &BackendCheck, settings: &Settings) -> bool {
    let view = &backend.view;
    view.is_optional && !view.installed && settings.backend(view.backend.as_str()).program.is_none()
}

/// Returns one line for all backends that are not installed and need not be.
fn others(absent: &[&BackendCheck]) -> Option<Finding> {
    let names: Vec<&str> = absent.iter().map(|it| it.view.backend.as_str()).collect();
    (!names.is_empty()).then(|| Finding::ok("others", format!("not installed, and optional: {}", names.join(", "))))
}

/// Returns the advice for an agent whose behaviour is unknown; else an empty text.
fn advice(name: &str, settings: &Settings) -> &'static str {
    let is_agent = settings.custom.iter().any(|it| it.name == name && it.output == CustomOutput::Acp);
    if is_agent { "; use a verify_command, since its own report of success shows little" } else { "" }
}

fn needs_login(backend: &BackendCheck, backends: &Backends) -> bool {
    let probe = backends.get(backend.view.backend.as_str()).ok().map(|backend| backend.probe());
    probe.is_some_and(|probe| !probe.key_variables.is_empty() || probe.auth_args.is_some())
}

fn check(backend: &BackendCheck, settings: &Settings, backends: &Backends) -> Finding {
    let view = &backend.view;
    let name = view.backend.as_str();
    let Some(path) = &view.path else {
        let fix = view.how_to_fix.clone().unwrap_or_default();
        let is_named = settings.backend(name).program.is_some() || settings.custom.iter().any(|it| it.name == name);
        return match &backend.trouble {
            Some(why) if is_named => Finding::bad(name, why).fix(fix),
            _ => Finding::warn(name, "not installed, or not on the PATH").fix(fix),
        };
    };
    let place = path.display();
    if !backend.answered && view.authenticated != Some(false) {
        let message = format!("{place} printed no version within {} s, so it may not work", ANSWER_LIMIT.as_secs());
        return Finding::warn(name, message).fix(format!("{} --version", quoted(path)));
    }
    if let Some(trouble) = &backend.trouble {
        return Finding::bad(name, format!("{place} does not start: {trouble}"))
            .fix(format!("{} --version", quoted(path)));
    }
    let version = view.version.as_deref().unwrap_or("of unknown version");
    let untested = view.untested.as_deref().map(|what| format!("; {what}")).unwrap_or_default();
    let about = format!("{version}, {place}{}", advice(name, settings));
    let probe = backends.get(name).ok().map(|backend| backend.probe());
    let login = probe.as_ref().map(|probe| probe.login_command.clone()).unwrap_or_default();
    let needs_login = needs_login(backend, backends);
    match view.authenticated {
        Some(false) => Finding::bad(name, format!("not logged in ({about}{untested})")).fix(login),
        None if needs_login => {
            let evidence = backend.doubt.unwrap_or("nothing shows one");
            let message = "the login cannot be checked without cost";
            Finding::warn(name, format!("installed ({about}{untested}); {message}, and {evidence}")).fix(login)
        }
        _ if untested.contains("older") => Finding::warn(name, format!("{about}{untested}")),
        Some(true) => Finding::ok(name, format!("logged in ({about}{untested})")),
        None => Finding::ok(name, format!("installed ({about}{untested})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_agent_of_the_protocol_gets_advice() {
        let text = "[[custom]]\nname = 'a'\nprogram = 'a'\noutput = 'acp'\n[[custom]]\nname = 'b'\nprogram = 'b'\noutput = 'jsonl'";
        let settings = Settings::parse(text).expect("valid settings");
        assert!(advice("a", &settings).contains("use a verify_command"));
        assert_eq!((advice("b", &settings), advice("codex", &settings)), ("", ""));
    }
}
