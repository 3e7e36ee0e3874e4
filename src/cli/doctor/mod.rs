//! `doctor`: would a run work here, and what is in its way. Looks at everything at once and changes nothing; needs no
//! server; whatever hangs is left behind and said to hang.
//!
//! One file for each thing that is looked at; `check.rs` says what a finding is.

mod agents;
mod check;
mod clients;
mod git;
mod leftovers;
mod machine;

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use self::check::{Check, Look, Mark, begin};
use super::Places;
use super::out::{self, End};
use super::terminal::{Tone, paint};
use crate::config::Settings;
use crate::git::Repository;
use crate::mission::causes::with_causes;
use crate::orchestrator::state_root;

/// For each look, longer than the CLIs are given to answer.
const LIMIT: Duration = Duration::from_secs(25);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  orchestrator-boss doctor
  orchestrator-boss doctor --json

Exit codes:
  0    a run would work; there may be warnings
  1    it would not
  2    wrong usage")]
pub(super) struct DoctorArgs {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Where to look, with what is known without looking further.
struct Place {
    named_settings: Option<PathBuf>,
    /// The defaults, where they could not be read.
    settings: Settings,
    settings_error: Option<String>,
    directory: PathBuf,
    repository: Result<Option<Repository>, String>,
    state_root: PathBuf,
}

/// What was looked at, and what was found.
struct Topic {
    name: &'static str,
    checks: Vec<Check>,
}

struct Verdict {
    /// Backends of which nothing speaks against a run.
    usable: Vec<String>,
    /// What keeps everything from running.
    stops: Vec<String>,
}

impl Verdict {
    fn works(&self) -> bool {
        self.stops.is_empty() && !self.usable.is_empty()
    }

    fn words(&self) -> String {
        match (&self.stops[..], &self.usable[..]) {
            ([], []) => "A run would not work: no agent CLI can be used.".to_owned(),
            ([], usable) => format!("A run would work with: {}.", usable.join(", ")),
            (stops, _) => format!("A run would not work: look at {}.", stops.join(", ")),
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
            // Who reads no further wants to know all the same.
            Ok(()) | Err(End::Closed) if verdict.works() => Ok(ExitCode::SUCCESS),
            Ok(()) | Err(End::Closed) => Ok(ExitCode::FAILURE),
            Err(error) => Err(error),
        }
    })
}

fn look(places: Places) -> (Vec<Topic>, Verdict) {
    let Some(place) = begin(move || Place::find(places)).end(LIMIT) else {
        let hangs = Check::bad("here", "the current directory does not answer: its disk or network hangs").stops_all();
        let verdict = Verdict { usable: Vec::new(), stops: vec!["here".to_owned()] };
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
    let (agents, usable) = agents.end(LIMIT).unwrap_or_else(|| (vec![hangs("agents")], Vec::new()));
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
        let settings_error = loaded.as_ref().err().map(|error| with_causes(error));
        let settings = loaded.unwrap_or_default();
        let directory = env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
        let directory = directory.canonicalize().unwrap_or(directory);
        let repository = Repository::discover(&directory).map_err(|error| with_causes(&error));
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
                Mark::Warn => (Tone::Waiting, "! warn"),
                Mark::Bad => (Tone::Bad, "✗ bad "),
            };
            // The text of an error may have lines of its own: a settings file's damage is shown as it stands there.
            let says = out::harmless(check.says.trim_end());
            let mut lines = says.lines();
            let first = lines.next().unwrap_or_default();
            out::line(&format!("  {}  {:width$}  {first}", paint(tone, mark), out::harmless(&check.name)))?;
            let indent = " ".repeat(width + 12);
            lines.try_for_each(|line| out::line(&format!("{indent}{line}")))?;
            let fix = |command: &String| out::line(&format!("{indent}{}", paint(Tone::Busy, &out::harmless(command))));
            check.fix.iter().try_for_each(fix)?;
        }
        out::line("")?;
    }
    let tone = if verdict.works() { Tone::Good } else { Tone::Bad };
    out::line(&paint(tone, &out::harmless(&verdict.words())))
}

fn as_json(topics: &[Topic], verdict: &Verdict) -> serde_json::Value {
    let topics: serde_json::Map<String, serde_json::Value> =
        topics.iter().map(|topic| (topic.name.replace(' ', "_"), json!(topic.checks))).collect();
    json!({
        "would_work": verdict.works(),
        "with": verdict.usable,
        "stopped_by": verdict.stops,
        "verdict": verdict.words(),
        "checks": topics,
    })
}

/// As a shell takes it for one word.
pub(super) fn quoted(path: &Path) -> String {
    word(&path.to_string_lossy())
}

fn word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:@%,".contains(c);
    match !text.is_empty() && text.chars().all(is_plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_for_a_shell() {
        for (path, word) in [("/a/b-c.d", "/a/b-c.d"), ("/a b", "'/a b'"), ("it's", r"'it'\''s'"), ("$(x)", "'$(x)'")] {
            assert_eq!(quoted(Path::new(path)), word);
        }
    }

    #[test]
    fn the_verdict_names_who_would_work_or_what_is_in_the_way() {
        let verdict = |usable: &[&str], stops: &[&str]| Verdict {
            usable: usable.iter().map(|it| (*it).to_owned()).collect(),
            stops: stops.iter().map(|it| (*it).to_owned()).collect(),
        };
        assert_eq!(verdict(&["codex", "claudecode"], &[]).words(), "A run would work with: codex, claudecode.");
        assert!(!verdict(&[], &[]).works());
        let stopped = verdict(&["codex"], &["disk"]);
        assert!(!stopped.works() && stopped.words().contains("look at disk"));
    }
}
