//! `doctor`: checks whether a run would work here, and what prevents it. All checks run at once and need no server.
//! They do what a run does if that leaves nothing behind. They change nothing, but the CLIs that they call may write
//! caches of their own. A check that hangs is abandoned and reported.
//!
//! Each topic has a file of its own; `check.rs` defines a finding.

mod agents;
mod check;
mod checkout;
mod clients;
mod cluster;
mod confined;
mod confinement;
mod git;
mod leftovers;
mod machine;
mod network;
mod next;
mod plugin;
mod version;

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use unicode_width::UnicodeWidthStr;

use self::agents::Usable;
pub(super) use self::agents::check_node;
use self::check::{BackgroundCheck, Finding, Severity, start};
pub(super) use self::cluster::{NodeReport, ProbeFolder};
pub(super) use self::git::version as git_version;
use super::places::Places;
use super::terminal::{self, Tone, paint};
use super::text::wrap_whole;
use crate::cli::error::CliError;
use crate::cli::hint;
use crate::cli::output;
use crate::cli::sanitize;
use crate::config::Settings;
use crate::git::{Repository, RepositoryError, Trust};
use crate::orchestrator::state_root;

/// Time limit for each topic, longer than that for an answer of a CLI.
const LIMIT: Duration = Duration::from_secs(25);
/// The exit status if it is not known whether a run would work.
const UNKNOWN: u8 = 3;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  orchestrator-boss doctor
  orchestrator-boss doctor --json
  orchestrator-boss doctor --on cluster

Creates a scratch worktree, commits in it under the confinement of workers, and
removes it. Asks each agent CLI for its version and login, and starts it once
confined. It changes nothing, but the CLIs may write caches.
--on checks a cluster instead, and runs a job of at most one minute on a node.

Exit codes:
  0    workers can run; there may be warnings
  1    workers cannot run
  2    wrong usage
  3    unknown: no agent CLI is known to work and to be logged in
  130  Ctrl-C; a job of --on is cancelled")]
pub(super) struct DoctorArgs {
    /// Check this launcher of your settings, on one of its nodes
    #[arg(long, value_name = "LAUNCHER")]
    on: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// The place to check, with the facts that all topics need.
struct CheckContext {
    named_settings: Option<PathBuf>,
    /// The settings; the defaults if the file could not be read.
    settings: Settings,
    settings_error: Option<String>,
    directory: PathBuf,
    repository: Result<Option<Repository>, RepositoryError>,
    state_root: PathBuf,
}

struct Topic {
    name: &'static str,
    checks: Vec<Finding>,
}

struct Verdict {
    usable: Usable,
    /// Names of the findings that keep every run from working.
    stops: Vec<String>,
}

impl Verdict {
    fn works(&self) -> bool {
        self.stops.is_empty() && !self.usable.surely.is_empty()
    }

    fn could_work(&self) -> bool {
        self.stops.is_empty() && !self.usable.maybe.is_empty()
    }

    fn exit_code(&self) -> ExitCode {
        match (self.works(), self.could_work()) {
            (true, _) => ExitCode::SUCCESS,
            (false, true) => ExitCode::from(UNKNOWN),
            (false, false) => ExitCode::FAILURE,
        }
    }

    fn words(&self) -> String {
        let Usable { surely, maybe, is_silent } = &self.usable;
        if !self.stops.is_empty() {
            return format!("Workers cannot run: check {}.", self.stops.join(", "));
        }
        let unknown = match maybe.len() {
            _ if *is_silent => "not everything could be checked",
            1 => "its login is unknown",
            _ => "their logins are unknown",
        };
        match (&surely[..], &maybe[..]) {
            ([], []) => "Workers cannot run: no agent CLI is usable.".to_owned(),
            (surely, []) => format!("Workers can run with: {}.", surely.join(", ")),
            ([], maybe) => format!("Workers may run with: {} ({unknown}).", maybe.join(", ")),
            (surely, maybe) => format!(
                "Workers can run with: {}. They may run with: {} ({unknown}).",
                surely.join(", "),
                maybe.join(", ")
            ),
        }
    }
}

pub(super) fn run(args: &DoctorArgs, places: &Places) -> ExitCode {
    output::run(async {
        let places = places.clone();
        let (topics, verdict) = match &args.on {
            Some(launcher) => cluster::check_all(launcher, places).await?,
            None => {
                let checking = tokio::task::spawn_blocking(move || check_all(places));
                let doing = || "checking git, the agents, this machine and earlier runs".to_owned();
                let checking = output::with_progress(doing, checking);
                checking.await.map_err(|error| CliError::Failed(error.to_string()))?
            }
        };
        let printed = if args.json { output::json(&as_json(&topics, &verdict)) } else { print(&topics, &verdict) };
        match printed {
            // A caller that closed stdout still needs the exit status.
            Ok(()) | Err(CliError::ClosedPipe) => Ok(verdict.exit_code()),
            Err(error) => Err(error),
        }
    })
}

fn check_all(places: Places) -> (Vec<Topic>, Verdict) {
    let Some(context) = start(move || CheckContext::find(places)).finish(LIMIT) else {
        let hangs =
            Finding::bad("here", "the current directory does not respond: its disk or network hangs").stops_all();
        let verdict = Verdict { usable: Usable::default(), stops: vec!["here".to_owned()] };
        return (vec![Topic { name: "place", checks: vec![hangs] }], verdict);
    };
    let context = Arc::new(context);
    let in_background = |check: fn(&CheckContext) -> Vec<Finding>| {
        let context = Arc::clone(&context);
        start(move || check(&context))
    };
    let git = in_background(git::check_all);
    let agents = {
        let context = Arc::clone(&context);
        start(move || agents::check_all(&context.settings))
    };
    let state = in_background(machine::state);
    let machine = in_background(|context| {
        [machine::machine(&context.settings), confinement::confinement(&context.settings)].concat()
    });
    let confined = in_background(|context| confined::starts(&context.settings));
    let clients = in_background(clients::check_all);
    let left = in_background(leftovers::check_all);

    let mut place = vec![machine::settings(&context)];
    place.extend(finish(state, "state", true));
    let (agents, usable) = agents.finish(LIMIT).unwrap_or_else(|| (vec![hangs("agents")], Usable::default()));
    let topics = vec![
        Topic { name: "git", checks: finish(git, "git", true) },
        Topic { name: "agents", checks: agents },
        Topic { name: "place", checks: place },
        Topic {
            name: "machine",
            checks: [finish(machine, "machine", false), finish(confined, "confined starts", false)].concat(),
        },
        Topic { name: "clients", checks: finish(clients, "clients", false) },
        Topic { name: "left over", checks: finish(left, "left over", false) },
    ];
    let stops = topics.iter().flat_map(|topic| &topic.checks).filter(|check| check.stops_all);
    let stops = stops.map(|check| check.name.clone()).collect();
    (topics, Verdict { usable, stops })
}

fn finish(check: BackgroundCheck<Vec<Finding>>, name: &str, stops_all: bool) -> Vec<Finding> {
    check.finish(LIMIT).unwrap_or_else(|| vec![Finding { stops_all, ..hangs(name) }])
}

fn hangs(name: &str) -> Finding {
    Finding::bad(name, format!("no answer within {} s: a disk, a network or a program hangs", LIMIT.as_secs()))
}

impl CheckContext {
    fn find(Places { config, state_dir }: Places) -> Self {
        let loaded = Settings::load(config.as_deref());
        let settings_error = loaded.as_ref().err().map(|error| hint::of(error));
        let settings = loaded.unwrap_or_default();
        let directory = env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
        let directory = directory.canonicalize().unwrap_or(directory);
        let repository = Repository::discover(&directory, &Trust::everything());
        let found = repository.as_ref().ok().and_then(Option::as_ref);
        let state_root = state_root(state_dir.or(settings.state_dir.clone()).as_deref(), found, &directory);
        Self { named_settings: config, settings, settings_error, directory, repository, state_root }
    }
}

fn print(topics: &[Topic], verdict: &Verdict) -> Result<(), CliError> {
    let width =
        topics.iter().flat_map(|topic| &topic.checks).map(|check| check.name.chars().count()).max().unwrap_or(0);
    for topic in topics.iter().filter(|topic| !topic.checks.is_empty()) {
        output::line(&paint(Tone::Strong, topic.name))?;
        for check in &topic.checks {
            let (tone, severity) = match check.severity {
                Severity::Ok => (Tone::Good, "✓ ok  "),
                Severity::Note => (Tone::Quiet, "· note"),
                Severity::Warn => (Tone::Waiting, "! warn"),
                Severity::Bad => (Tone::Bad, "✗ bad "),
            };
            // An error may have several lines: one about the settings file quotes the file.
            let message = sanitize::text(check.message.trim_end());
            let indent = " ".repeat(width + 12);
            let room = terminal::is_terminal().then(|| terminal::width().saturating_sub(indent.len()).max(LEAST_ROOM));
            let mut lines = message.lines().flat_map(|line| wrapped(line, room));
            let first = lines.next().unwrap_or_default();
            output::line(&format!("  {}  {:width$}  {first}", paint(tone, severity), sanitize::text(&check.name)))?;
            lines.try_for_each(|line| output::line(&format!("{indent}{line}")))?;
            let fix =
                |command: &String| output::line(&format!("{indent}{}", paint(Tone::Busy, &sanitize::text(command))));
            check.fix.iter().try_for_each(fix)?;
        }
        output::line("")?;
    }
    let tone = if verdict.works() { Tone::Good } else { Tone::Bad };
    output::line(&paint(tone, &sanitize::text(&verdict.words())))?;
    output::line(&sanitize::text(&format!("Next: {}", next::next(topics, verdict))))
}

/// Minimum width for wrapped text, in columns.
const LEAST_ROOM: usize = 24;

/// Breaks a line between words if it is wider than `room`. A path stays whole, so that it can be copied.
fn wrapped(line: &str, room: Option<usize>) -> Vec<String> {
    match room.filter(|room| line.width() > *room) {
        Some(room) => wrap_whole(line, room),
        None => vec![line.to_owned()],
    }
}

fn as_json(topics: &[Topic], verdict: &Verdict) -> serde_json::Value {
    let checks: serde_json::Map<String, serde_json::Value> =
        topics.iter().map(|topic| (topic.name.replace(' ', "_"), json!(topic.checks))).collect();
    json!({
        "would_work": verdict.works(),
        "could_work": verdict.works() || verdict.could_work(),
        "with": verdict.usable.surely,
        "maybe_with": verdict.usable.maybe,
        "stopped_by": verdict.stops,
        "verdict": verdict.words(),
        "next": next::next(topics, verdict),
        "checks": checks,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdict_names_usable_agents_or_obstacles() {
        let list = |names: &[&str]| names.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        let verdict = |surely: &[&str], maybe: &[&str], stops: &[&str]| Verdict {
            usable: Usable { surely: list(surely), maybe: list(maybe), is_silent: false },
            stops: list(stops),
        };
        assert_eq!(verdict(&["codex", "claudecode"], &[], &[]).words(), "Workers can run with: codex, claudecode.");
        let unknown = verdict(&[], &["gemini"], &[]);
        assert_eq!(unknown.words(), "Workers may run with: gemini (its login is unknown).");
        assert!(!unknown.works() && unknown.could_work());
        assert!(verdict(&["a"], &["b", "c"], &[]).words().ends_with("with: b, c (their logins are unknown)."));
        assert!(!verdict(&[], &[], &[]).works());
        let stopped = verdict(&["codex"], &[], &["disk"]);
        assert!(!stopped.works() && !stopped.could_work() && stopped.words().contains("check disk"));
    }

    #[test]
    fn wrapping_keeps_paths_whole() {
        let path = "/a/very/long/path/that/is/wider/than/the/room";
        let line = format!("the file {path} is not there, and so on");
        assert_eq!(wrapped(&line, Some(24)), ["the file", path, "is not there, and so on"]);
        assert_eq!(wrapped(&line, None), vec![line]);
        assert_eq!(wrapped("", Some(24)), [""]);
    }
}
