//! The CLIs that workers run: installed, answering, logged in.

use std::time::Duration;

use super::check::Check;
use crate::backend::Backends;
use crate::config::Settings;
use crate::orchestrator::{Looked, look_at_backends};

/// A CLI takes up to 2 s to say its version on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// The checks, and the names of the backends of which nothing speaks against a run.
pub fn look(settings: &Settings) -> (Vec<Check>, Vec<String>) {
    let backends = Backends::with_custom(settings.custom.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let looked = match runtime {
        Ok(runtime) => runtime.block_on(look_at_backends(settings, &backends, PATIENCE)),
        Err(error) => return (vec![Check::bad("agents", format!("nothing can be started here: {error}"))], Vec::new()),
    };
    let usable = looked.iter().filter(|it| is_usable(it)).map(|it| it.view.backend.to_string()).collect();
    (looked.iter().map(|it| check(it, &backends)).collect(), usable)
}

/// A program of the user's own need not know `--version`, but has to say something to it.
fn is_usable(looked: &Looked) -> bool {
    looked.view.installed && looked.answered && looked.view.authenticated != Some(false)
}

fn check(looked: &Looked, backends: &Backends) -> Check {
    let view = &looked.view;
    let name = view.backend.as_str();
    let Some(path) = &view.path else {
        let install = view.how_to_fix.clone().unwrap_or_default();
        return Check::warn(name, "not installed, or not on the PATH").fix(install);
    };
    let place = path.display();
    if !looked.answered {
        return Check::bad(name, format!("{place} does not say its version within {} s", PATIENCE.as_secs()))
            .fix(format!("{} --version", super::quoted(path)));
    }
    let version = view.version.as_deref().unwrap_or("of unknown version");
    let untested = view.untested.as_deref().map(|what| format!("; {what}")).unwrap_or_default();
    let about = format!("{version}, {place}");
    let probe = backends.get(name).ok().map(|backend| backend.probe());
    let login = probe.as_ref().map(|probe| probe.login_command.clone()).unwrap_or_default();
    let needs_login = probe.is_some_and(|probe| !probe.key_variables.is_empty() || probe.auth_args.is_some());
    match view.authenticated {
        Some(false) => Check::bad(name, format!("not logged in ({about}{untested})")).fix(login),
        None if needs_login => {
            Check::warn(name, format!("installed ({about}{untested}); whether it is logged in cannot be told without spending, and nothing shows that it is")).fix(login)
        }
        _ if untested.contains("older") => Check::warn(name, format!("{about}{untested}")),
        Some(true) => Check::ok(name, format!("logged in ({about}{untested})")),
        None => Check::ok(name, format!("installed ({about}{untested})")),
    }
}
