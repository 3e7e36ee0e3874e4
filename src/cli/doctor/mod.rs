//! `doctor`: checks whether a run would work here, and what prevents it. All checks run at once and need no server.
//! They do what a run does if that leaves nothing behind. They change nothing, but the CLIs that they call may write
//! caches of their own. A check that hangs is abandoned and reported.
//!
//! Each topic has a file of its own; `check.rs` defines a finding.

mod agents;
mod check;
mod clients;
mod git;
mod leftovers;
mod machine;
mod plugin;
mod trial;

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use unicode_width::UnicodeWidthStr;

use self::agents::Usable;
use self::check::{Check, Look, Mark, begin};
use super::out::{self, End};
use super::places::Places;
use super::status::wrap_whole;
use super::terminal::{self, Tone, paint};
use crate::cli::hint;
use crate::config::Settings;
use crate::git::Repository;
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

It makes and removes a worktree in a scratch place, and asks each agent CLI for
its version and login; it changes nothing, but the CLIs may write caches.

Exit codes:
  0    a run would work; there may be warnings
  1    it would not
  2    wrong usage
  3    it could work: of no agent CLI is it known that it works and is logged in")]
pub(super) struct DoctorArgs {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// The place to check, with the facts that all topics need.
struct Place {
    named_settings: Option<PathBuf>,
    /// The settings; the defaults if the file could not be read.
    settings: Settings,
    settings_error: Option<String>,
    directory: PathBuf,
    repository: Result<Option<Repository>, String>,
    state_root: PathBuf,
}

/// A topic with its findings.
struct Topic {
    name: &'static str,
    checks: Vec<Check>,
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
            return format!("A run would not work: look at {}.", self.stops.join(", "));
        }
        let unknown = match maybe.len() {
            _ if *is_silent => "not all about that is known",
            1 => "whether it is logged in is not known",
            _ => "whether they are logged in is not known",
        };
        match (&surely[..], &maybe[..]) {
            ([], []) => "A run would not work: no agent CLI can be used.".to_owned(),
            (surely, []) => format!("A run would work with: {}.", surely.join(", ")),
            ([], maybe) => format!("A run could work with: {} ({unknown}).", maybe.join(", ")),
            (surely, maybe) => format!(
                "A run would work with: {}. It could work with: {} ({unknown}).",
                surely.join(", "),
                maybe.join(", ")
            ),
        }
    }
}

pub(super) fn run(args: &DoctorArgs, places: &Places) -> ExitCode {
    out::run(async {
        let places = places.clone();
        let looking = tokio::task::spawn_blocking(move || look(places));
        let looking =
            out::with_progress(|| "looking at git, the agents, this machine and what is left".to_owned(), looking);
        let (topics, verdict) = looking.await.map_err(|error| End::Failed(error.to_string()))?;
        let printed = match args.json {
            true => out::json(&as_json(&topics, &verdict)),
            false => print(&topics, &verdict),
        };
        match printed {
            // A caller that closed stdout still needs the exit status.
            Ok(()) | Err(End::Closed) => Ok(verdict.exit_code()),
            Err(error) => Err(error),
        }
    })
}

fn look(places: Places) -> (Vec<Topic>, Verdict) {
    let Some(place) = begin(move || Place::find(places)).end(LIMIT) else {
        let hangs = Check::bad("here", "the current directory does not answer: its disk or network hangs").stops_all();
        let verdict = Verdict { usable: Usable::default(), stops: vec!["here".to_owned()] };
        return (vec![Topic { name: "place", checks: vec![hangs] }], verdict);
    };
    let place = Arc::new(place);
    let beside = |look: fn(&Place) -> Vec<Check>| {
        let place = Arc::clone(&place);
        begin(move || look(&place))
    };
    let git = beside(git::look);
    let agents = {
        let place = Arc::clone(&place);
        begin(move || agents::look(&place.settings))
    };
    let state = beside(machine::state);
    let machine = beside(|place| machine::machine(&place.settings));
    let clients = beside(|place| clients::look(&place.directory));
    let left = beside(leftovers::look);

    let mut here = vec![machine::settings(&place)];
    here.extend(ended(state, "state", true));
    let (agents, usable) = agents.end(LIMIT).unwrap_or_else(|| (vec![hangs("agents")], Usable::default()));
    let topics = vec![
        Topic { name: "git", checks: ended(git, "git", true) },
        Topic { name: "agents", checks: agents },
        Topic { name: "place", checks: here },
        Topic { name: "machine", checks: ended(machine, "machine", false) },
        Topic { name: "clients", checks: ended(clients, "clients", false) },
        Topic { name: "left over", checks: ended(left, "left over", false) },
    ];
    let stops = topics.iter().flat_map(|topic| &topic.checks).filter(|check| check.stops_all);
    let stops = stops.map(|check| check.name.clone()).collect();
    (topics, Verdict { usable, stops })
}

fn ended(look: Look<Vec<Check>>, name: &str, stops_all: bool) -> Vec<Check> {
    look.end(LIMIT).unwrap_or_else(|| vec![Check { stops_all, ..hangs(name) }])
}

fn hangs(name: &str) -> Check {
    Check::bad(name, format!("no answer within {} s: a disk, a network or a program hangs", LIMIT.as_secs()))
}

impl Place {
    fn find(Places { config, state_dir }: Places) -> Self {
        let loaded = Settings::load(config.as_deref());
        let settings_error = loaded.as_ref().err().map(|error| hint::of(error));
        let settings = loaded.unwrap_or_default();
        let directory = env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
        let directory = directory.canonicalize().unwrap_or(directory);
        let repository = Repository::discover(&directory).map_err(|error| hint::of(&error));
        let found = repository.as_ref().ok().and_then(Option::as_ref);
        let state_root = state_root(state_dir.or(settings.state_dir.clone()).as_deref(), found, &directory);
        Self { named_settings: config, settings, settings_error, directory, repository, state_root }
    }
}

fn print(topics: &[Topic], verdict: &Verdict) -> Result<(), End> {
    let width =
        topics.iter().flat_map(|topic| &topic.checks).map(|check| check.name.chars().count()).max().unwrap_or(0);
    for topic in topics.iter().filter(|topic| !topic.checks.is_empty()) {
        out::line(&paint(Tone::Strong, topic.name))?;
        for check in &topic.checks {
            let (tone, mark) = match check.mark {
                Mark::Ok => (Tone::Good, "✓ ok  "),
                Mark::Note => (Tone::Quiet, "· note"),
                Mark::Warn => (Tone::Waiting, "! warn"),
                Mark::Bad => (Tone::Bad, "✗ bad "),
            };
            // An error may have several lines: one about the settings file quotes the file.
            let says = out::harmless(check.says.trim_end());
            let indent = " ".repeat(width + 12);
            let room = terminal::is_terminal().then(|| terminal::width().saturating_sub(indent.len()).max(LEAST_ROOM));
            let mut lines = says.lines().flat_map(|line| wrapped(line, room));
            let first = lines.next().unwrap_or_default();
            out::line(&format!("  {}  {:width$}  {first}", paint(tone, mark), out::harmless(&check.name)))?;
            lines.try_for_each(|line| out::line(&format!("{indent}{line}")))?;
            let fix = |command: &String| out::line(&format!("{indent}{}", paint(Tone::Busy, &out::harmless(command))));
            check.fix.iter().try_for_each(fix)?;
        }
        out::line("")?;
    }
    let tone = if verdict.works() { Tone::Good } else { Tone::Bad };
    out::line(&paint(tone, &out::harmless(&verdict.words())))
}

/// Minimum width for wrapped text, in columns; narrower text is hard to read.
const LEAST_ROOM: usize = 24;

/// Breaks a line between words if it is wider than `room`. A path stays whole, so that it can be copied.
fn wrapped(line: &str, room: Option<usize>) -> Vec<String> {
    match room.filter(|room| line.width() > *room) {
        Some(room) => wrap_whole(line, room),
        None => vec![line.to_owned()],
    }
}

fn as_json(topics: &[Topic], verdict: &Verdict) -> serde_json::Value {
    let topics: serde_json::Map<String, serde_json::Value> =
        topics.iter().map(|topic| (topic.name.replace(' ', "_"), json!(topic.checks))).collect();
    json!({
        "would_work": verdict.works(),
        "could_work": verdict.works() || verdict.could_work(),
        "with": verdict.usable.surely,
        "maybe_with": verdict.usable.maybe,
        "stopped_by": verdict.stops,
        "verdict": verdict.words(),
        "checks": topics,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_names_who_would_work_or_what_is_in_the_way() {
        let list = |names: &[&str]| names.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        let verdict = |surely: &[&str], maybe: &[&str], stops: &[&str]| Verdict {
            usable: Usable { surely: list(surely), maybe: list(maybe), is_silent: false },
            stops: list(stops),
        };
        assert_eq!(verdict(&["codex", "claudecode"], &[], &[]).words(), "A run would work with: codex, claudecode.");
        let unknown = verdict(&[], &["gemini"], &[]);
        assert_eq!(unknown.words(), "A run could work with: gemini (whether it is logged in is not known).");
        assert!(!unknown.works() && unknown.could_work());
        assert!(
            verdict(&["a"], &["b", "c"], &[])
                .words()
                .ends_with("with: b, c (whether they are logged in is not known).")
        );
        assert!(!verdict(&[], &[], &[]).works());
        let stopped = verdict(&["codex"], &[], &["disk"]);
        assert!(!stopped.works() && !stopped.could_work() && stopped.words().contains("look at disk"));
    }

    #[test]
    fn a_line_is_broken_between_words_and_a_path_stays_whole() {
        let path = "/a/very/long/path/that/is/wider/than/the/room";
        let line = format!("the file {path} is not there, and so on");
        assert_eq!(wrapped(&line, Some(24)), ["the file", path, "is not there, and so on"]);
        assert_eq!(wrapped(&line, None), vec![line]);
        assert_eq!(wrapped("", Some(24)), [""]);
    }
}
