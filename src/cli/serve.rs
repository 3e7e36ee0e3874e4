//! `serve`: reads the settings and the environment for the orchestrator, and ends the session on a signal. Nothing slow
//! happens before the server answers the client.

use std::env;
use std::io;
use std::process::ExitCode;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::places::Places;
use crate::backend::Backends;
use crate::config::{ConfigError, Settings};
use crate::mcp::{self, ServeError, StartError};
use crate::mission::hint::with_hints;
use crate::mission::id::BossId;
use crate::orchestrator::{Orchestrator, Startup};
use crate::process;

pub(super) fn run(places: Places) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    let result = runtime.block_on(serve(places));
    // A thread may hang in a read of stdin; all other work has ended or is abandoned.
    runtime.shutdown_background();
    match result {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => failed(&error),
        Err(error) => failed(&error),
    }
}

fn failed(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    tracing::error!(error, "startup failed");
    ExitCode::FAILURE
}

async fn serve(places: Places) -> io::Result<Result<(), ServeError>> {
    let closing = CancellationToken::new();
    for kind in [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()] {
        tokio::spawn(close_on(signal(kind)?, closing.clone()));
    }
    Ok(mcp::serve(move || start(&places), closing).await)
}

async fn close_on(mut signal: Signal, closing: CancellationToken) {
    signal.recv().await;
    closing.cancel();
}

/// Starts the orchestrator. Every tool reports the error to the boss.
fn start(places: &Places) -> Result<Orchestrator, StartError> {
    let settings = Settings::load(places.config.as_deref());
    let most = settings.as_ref().map_or(1, |settings| settings.max_depth);
    if let Some(tag) = process::inherited_tag().filter(|tag| process::depth_of(tag) >= most) {
        return Err(StartError::InWorker { tag, most });
    }
    start_with(settings, places).inspect_err(|error| tracing::error!("{}", with_hints(error)))
}

fn start_with(settings: Result<Settings, ConfigError>, places: &Places) -> Result<Orchestrator, StartError> {
    let settings = settings?;
    let state_dir = places.state_dir.clone().or(settings.state_dir.clone());
    let startup = Startup {
        settings: Settings { state_dir, ..settings },
        directory: env::current_dir()?,
        boss: boss(),
        program: env::current_exe()?,
    };
    let backends = Backends::with_custom(startup.settings.custom.clone());
    Ok(Orchestrator::start(startup, backends)?)
}

/// Returns the boss whose session Claude Code names to its servers. Other clients name it in each request, or never.
fn boss() -> Option<BossId> {
    let session = env::var("CLAUDE_CODE_SESSION_ID").ok()?;
    BossId::of_claude(&session)
}
