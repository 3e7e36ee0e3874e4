//! `probe`: checks the node of a cluster that it runs on, for `doctor --on`. Hidden, and started as a job.

use std::collections::BTreeMap;
use std::env;
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use super::doctor::{self, NodeReport, ProbeFolder};
use super::output;
use super::places::Places;
use crate::cli::hint;
use crate::config::Settings;
use crate::files::{self, FileError, lease};
use crate::process::Host;

/// Time limit for the exchange with the other host. The job has one minute.
const LIMIT: Duration = Duration::from_secs(40);
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub(super) fn run(folder: &Path, places: &Places) -> ExitCode {
    match report(folder, places) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::note(&hint::of(&error));
            ExitCode::FAILURE
        }
    }
}

fn report(folder: &Path, places: &Places) -> Result<(), FileError> {
    // The other host removes the folder.
    let files = std::mem::ManuallyDrop::new(ProbeFolder::at(folder));
    let settings = Settings::load(places.config.as_deref()).unwrap_or_default();
    let variables: BTreeMap<String, String> = files::read_json(&files.variables())?.unwrap_or_default();
    // As in a job: a variable of the server counts first, and then one of the node or the prologue.
    let variable = move |name: &str| variables.get(name).cloned().or_else(|| env::var(name).ok());
    let agents = thread::spawn(move || doctor::check_node(&settings, variable));
    let node = Host::own().name.clone();
    let locks_hold = lease::take(&files.lock()).ok().map(|taken| taken.is_none());
    let (content, name) = exchange(&files, &node)?;
    let mut checks = vec![doctor::git_version(folder)];
    let (of_agents, usable, missing) = agents.join().unwrap_or_default();
    checks.extend(of_agents);
    let report = NodeReport { node, content, name, locks_hold, checks, usable, missing };
    files::replace_json(&files.report(), &Some(report), true)
}

/// Writes the name of the node, and measures how long it takes until the answer and a new name are visible here.
fn exchange(files: &ProbeFolder, node: &str) -> Result<(Option<Duration>, Option<Duration>), FileError> {
    // A name that was looked up before it exists can stay invisible for long.
    let is_there = || files.new_name().exists();
    is_there();
    let began = Instant::now();
    files::replace_json(&files.node_file(), &Some(node), true)?;
    let (mut content, mut name) = (None, None);
    while (content.is_none() || name.is_none()) && began.elapsed() < LIMIT {
        let answer = || files::read_json::<Option<String>>(&files.server_file()).ok().flatten().flatten();
        if content.is_none() && answer().is_some() {
            content = Some(began.elapsed());
        }
        if name.is_none() && is_there() {
            name = Some(began.elapsed());
        }
        thread::sleep(LOOK_EVERY);
    }
    Ok((content, name))
}
