//! Completion in bash, zsh and fish: the scripts that `completions` prints, and the hidden `complete` that they call at
//! each TAB. clap's own engine computes the candidates from the commands' definitions. The workers' ids come from the
//! state directory, without any server.
//!
//! clap's ready-made bash script does not work for a program with a hyphen in its name (clap-rs/clap issue 6421). None
//! of the ready-made scripts completes ids. Nothing here may disturb the line that is being typed: no errors are
//! printed, and slow answers are left out.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use clap::{Args, Command, ValueEnum};
use clap_complete::CompletionCandidate;
use clap_complete::engine::{self, ArgValueCandidates};

use super::error::CliError;
use super::help;
use super::output;
use super::places::Places;
use super::sanitize;
use super::setup::program;
use super::shell::word;
use super::workspace::Workspace;
use crate::backend::Backends;
use crate::config::Settings;
use crate::mission::lifecycle::{Ending, WorkerStatus};
use crate::mission::registry::Worker;
use crate::store::reader::Reader;

/// Time limit for the answer to a TAB. The state may lie on a disk that hangs.
const LIMIT: Duration = Duration::from_secs(1);
/// Maximum number of workers that are listed. The newest come first, and no screen shows more.
const MOST_WORKERS: usize = 200;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orchestrator-boss completions bash > ~/.bash_completion.d/orchestrator-boss
  orchestrator-boss completions zsh > ~/.zfunc/_orchestrator-boss
  orchestrator-boss completions fish | source

Exit codes:
  0    success
  1    cannot find this program's path
  2    wrong usage")]
pub(super) struct CompletionsArgs {
    /// Shell to complete for
    shell: Shell,
}

#[derive(Debug, Args)]
pub(super) struct CompleteArgs {
    shell: Shell,
    /// Command line up to the cursor
    #[arg(last = true)]
    words: Vec<OsString>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

pub(super) fn print_script(args: &CompletionsArgs) -> ExitCode {
    let script = program::command(true)
        .map(|program| script(args.shell, &program))
        .map_err(|error| CliError::Failed(format!("cannot find the path of this program: {error}")));
    output::end(script.and_then(|script| output::line(script.trim_end())).map(|()| ExitCode::SUCCESS))
}

/// Returns the script for a shell. The scripts use `2>/dev/null`, since a missing or older program must not print into
/// the line that is typed.
fn script(shell: Shell, program: &str) -> String {
    match shell {
        Shell::Bash => BASH.replace("PROGRAM", &word(program)),
        Shell::Zsh => ZSH.replace("PROGRAM", &word(program)),
        Shell::Fish => {
            let quoted = format!("'{}'", program.replace('\\', r"\\").replace('\'', r"\'"));
            FISH.replace("PROGRAM", &quoted)
        }
    }
}

/// The script for bash. There, `--option=value` is three words, and only the last one is replaced.
const BASH: &str = r#"
_orchestrator_boss() {
    local IFS=$'\n' words=() current='' joined='' i
    for ((i = 0; i <= COMP_CWORD; i++)); do
        current=${COMP_WORDS[i]}
        if ((i == COMP_CWORD)) && [[ $current != '=' ]]; then current=$2; fi
        if ((i > 1)) && [[ $current == '=' || ${COMP_WORDS[i - 1]} == '=' ]] && [[ ${words[${#words[@]} - 1]} == --* ]]; then
            [[ $current == '=' ]] && joined=${words[${#words[@]} - 1]}=
            words[${#words[@]} - 1]+=$current
        else
            joined=''
            words+=("$current")
        fi
    done
    COMPREPLY=($(PROGRAM complete bash -- "${words[@]}" 2>/dev/null))
    COMPREPLY=("${COMPREPLY[@]#"$joined"}")
    if [[ ${COMPREPLY[0]} == */* ]]; then compopt -o filenames 2>/dev/null; fi
}
if ((BASH_VERSINFO[0] > 4 || (BASH_VERSINFO[0] == 4 && BASH_VERSINFO[1] >= 4))); then
    complete -o nosort -F _orchestrator_boss orchestrator-boss
else
    complete -F _orchestrator_boss orchestrator-boss
fi
"#;

const ZSH: &str = r#"#compdef orchestrator-boss
_orchestrator-boss() {
    local -a found folders
    found=("${(@f)$(PROGRAM complete zsh -- "${(@)words[1,CURRENT-1]}" "$PREFIX" 2>/dev/null)}")
    found=("${(@)found:#}")
    folders=("${(@M)found:#*/}")
    found=("${(@)found:#*/}")
    (( $#found )) && _describe -V 'orchestrator-boss' found
    (( $#folders )) && _describe -V 'folder' folders -S ''
}
if [[ $funcstack[1] == _orchestrator-boss ]]; then
    _orchestrator-boss "$@"
else
    compdef _orchestrator-boss orchestrator-boss
fi
"#;

const FISH: &str = r#"
function __orchestrator_boss_complete
    set --local words (commandline --current-process --tokenize --cut-at-cursor)
    PROGRAM complete fish -- $words (commandline --current-token --cut-at-cursor) 2>/dev/null
end
complete --command orchestrator-boss --no-files --keep-order --arguments '(__orchestrator_boss_complete)'
"#;

/// Answers a shell's script with the candidates, or with none after an error.
pub(super) fn answer(args: CompleteArgs) -> ExitCode {
    let CompleteArgs { shell, words } = args;
    let (sender, found) = mpsc::channel();
    thread::spawn(move || sender.send(candidates(words)));
    for candidate in found.recv_timeout(LIMIT).unwrap_or_default() {
        if output::line(&as_line(shell, &candidate)).is_err() {
            break;
        }
    }
    ExitCode::SUCCESS
}

fn candidates(words: Vec<OsString>) -> Vec<CompletionCandidate> {
    let Some((current, before)) = words.split_last().map(|(last, before)| (last.clone(), before.to_vec())) else {
        return Vec::new();
    };
    let places = places(&before);
    let found = engine::complete(&mut command(&places), words, before.len(), env::current_dir().ok().as_deref());
    let mut found = found.unwrap_or_default();
    // A word that was already typed is no candidate.
    found.retain(|it| !before.iter().any(|word| word == it.get_value()));
    let is_option = |it: &CompletionCandidate| it.get_value().as_encoded_bytes().starts_with(b"-");
    if current.is_empty() && found.iter().any(|it| !is_option(it)) {
        found.retain(|it| !is_option(it));
    }
    found
}

fn as_line(shell: Shell, candidate: &CompletionCandidate) -> String {
    let one_line = |text: &str| sanitize::text(text).replace(['\n', '\t'], " ");
    let value = one_line(&candidate.get_value().to_string_lossy());
    let about = candidate.get_help().map(|help| one_line(&help.to_string())).filter(|about| !about.is_empty());
    match (shell, about) {
        (Shell::Bash, _) | (Shell::Fish, None) => value,
        (Shell::Fish, Some(about)) => format!("{value}\t{about}"),
        (Shell::Zsh, None) => value.replace(':', "\\:"),
        (Shell::Zsh, Some(about)) => format!("{}:{about}", value.replace(':', "\\:")),
    }
}

/// Returns the places that the typed line names.
fn places(words: &[OsString]) -> Places {
    Places { config: named(words, "--config"), state_dir: named(words, "--state-dir") }
}

fn named(words: &[OsString], option: &str) -> Option<PathBuf> {
    let words: Vec<&str> = words.iter().map(|word| word.to_str().unwrap_or_default()).collect();
    let at = words.iter().rposition(|word| *word == option || word.starts_with(&format!("{option}=")))?;
    let value = words[at].strip_prefix(option)?.strip_prefix('=').or_else(|| words.get(at + 1).copied())?;
    // The shell passes on what was typed, before it expands `~`.
    Some(match (value.strip_prefix("~/"), etcetera::home_dir()) {
        (Some(below), Ok(home)) => home.join(below),
        _ => PathBuf::from(value),
    })
}

/// The workers that a command accepts.
#[derive(Debug, Clone, Copy)]
enum WorkerFilter {
    All,
    Open,
    Running,
    Settled,
    /// Settled, with a session.
    WithSession,
    /// Its worktree was created and not removed.
    WithWorktree,
    /// Completed and not merged.
    ToMerge,
}

impl WorkerFilter {
    fn accepts(self, worker: &Worker) -> bool {
        let is_there = !worker.worktree_removed && worker.attempt > 0;
        match self {
            WorkerFilter::All => true,
            WorkerFilter::Open => !worker.status.is_settled(),
            WorkerFilter::Running => worker.status.is_live(),
            WorkerFilter::Settled => worker.status.is_settled(),
            WorkerFilter::WithWorktree => is_there,
            WorkerFilter::WithSession => {
                is_there && worker.status.is_settled() && worker.last().is_some_and(|last| last.session_id.is_some())
            }
            WorkerFilter::ToMerge => {
                worker.status == WorkerStatus::Settled(Ending::Completed) && worker.integrated.is_none()
            }
        }
    }
}

/// The commands with an argument for workers, the name of that argument, and the workers that make sense for it.
const WORKERS: [(&str, &str, WorkerFilter); 12] = [
    ("status", "worker", WorkerFilter::All),
    ("logs", "worker", WorkerFilter::All),
    ("diff", "worker", WorkerFilter::All),
    ("path", "worker", WorkerFilter::WithWorktree),
    ("open", "worker", WorkerFilter::WithWorktree),
    ("attach", "worker", WorkerFilter::WithSession),
    ("message", "worker", WorkerFilter::All),
    ("answer", "worker", WorkerFilter::Running),
    ("wait", "workers", WorkerFilter::Open),
    ("cancel", "workers", WorkerFilter::Open),
    ("retry", "worker", WorkerFilter::Settled),
    ("integrate", "workers", WorkerFilter::ToMerge),
];

fn command(places: &Places) -> Command {
    let of_workers = |command: Command, (name, argument, filter): (&str, &'static str, WorkerFilter)| {
        let places = places.clone();
        let candidates = ArgValueCandidates::new(move || workers(&places, filter).unwrap_or_default());
        command.mut_subcommand(name, |sub| sub.mut_arg(argument, |arg| arg.add(candidates)))
    };
    let command = WORKERS.into_iter().fold(help::command(), of_workers);
    let of_settings = |names: fn(&Settings) -> Vec<CompletionCandidate>| {
        let places = places.clone();
        let settings = move || Some(Workspace::find(&places).ok()?.settings);
        ArgValueCandidates::new(move || settings().as_ref().map(names).unwrap_or_default())
    };
    let decisions = ArgValueCandidates::new(|| ["allow", "deny"].map(CompletionCandidate::new).into());
    command
        .mut_subcommand("retry", |sub| {
            sub.mut_arg("backend", |arg| arg.add(of_settings(backends)))
                .mut_arg("run_on", |arg| arg.add(of_settings(launchers)))
        })
        .mut_subcommand("doctor", |sub| sub.mut_arg("on", |arg| arg.add(of_settings(clusters))))
        .mut_subcommand("answer", |sub| sub.mut_arg("decision", |arg| arg.add(decisions)))
}

/// Returns the workers as candidates, the newest first.
fn workers(places: &Places, filter: WorkerFilter) -> Option<Vec<CompletionCandidate>> {
    let reader = Reader::open(&Workspace::find(places).ok()?.state_root).ok()??;
    let registry = reader.registry();
    // If no server runs, the folder of a live worker is more recent than the journal.
    let known = registry.workers().map(|it| if it.status.is_live() { reader.up_to_date(it) } else { it.clone() });
    let mut known: Vec<_> = known.filter(|worker| filter.accepts(worker)).collect();
    known.sort_by_key(|worker| std::cmp::Reverse(worker.number()));
    let candidate = |(at, worker): (usize, &Arc<Worker>)| {
        let about = format!("{} · {}", worker.mission.title, worker.status.as_str());
        CompletionCandidate::new(worker.id.as_str()).help(Some(about.into())).display_order(Some(at))
    };
    Some(known.iter().take(MOST_WORKERS).enumerate().map(candidate).collect())
}

fn backends(settings: &Settings) -> Vec<CompletionCandidate> {
    Backends::with_custom(settings.custom.clone()).names().map(CompletionCandidate::new).collect()
}

/// Returns the places where workers can run, with `local` first.
fn launchers(settings: &Settings) -> Vec<CompletionCandidate> {
    let ordered = settings.launcher_names().enumerate();
    ordered.map(|(at, name)| CompletionCandidate::new(name).display_order(Some(at))).collect()
}

fn clusters(settings: &Settings) -> Vec<CompletionCandidate> {
    settings.launchers.keys().map(CompletionCandidate::new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates_for(line: &[&str]) -> Vec<String> {
        let words = line.iter().map(OsString::from).collect();
        candidates(words).iter().map(|it| it.get_value().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn hidden_commands_are_no_candidates() {
        let found = candidates_for(&["orchestrator-boss", ""]);
        for shown in ["status", "retry", "setup", "help"] {
            assert!(found.contains(&shown.to_owned()), "{found:?}");
        }
        for hidden in ["demo-agent", "guard", "supervise", "verify", "tools", "complete", "--config"] {
            assert!(!found.contains(&hidden.to_owned()), "{found:?}");
        }
    }

    #[test]
    fn values_of_arguments_and_options_are_candidates() {
        let boss = "orchestrator-boss";
        assert_eq!(candidates_for(&[boss, "setup", ""]), ["claude", "codex", "gemini", "opencode"]);
        assert_eq!(candidates_for(&[boss, "integrate", "--strategy", "sq"]), ["squash"]);
        assert_eq!(candidates_for(&[boss, "integrate", "--strategy=sq"]), ["--strategy=squash"]);
        assert_eq!(candidates_for(&[boss, "setup", "--sco"]), ["--scope"]);
        assert_eq!(candidates_for(&[boss, "answer", "w-3", ""]), ["allow", "deny"]);
        assert_eq!(candidates_for(&[boss, "--config", "/dev/null", "retry", "w-3", "--run-on", ""]), ["local"]);
        assert!(candidates_for(&[boss, "doctor", ""]).contains(&"--json".to_owned()));
        // Free text: names of files would be wrong.
        assert_eq!(candidates_for(&[boss, "retry", "--feedback", ""]), [""; 0]);
        assert_eq!(candidates_for(&[]), [""; 0]);
    }

    #[test]
    fn options_on_the_line_are_used() {
        let words = |line: &[&str]| places(&line.iter().map(OsString::from).collect::<Vec<_>>());
        assert_eq!(words(&["x", "--config", "/a", "retry"]).config, Some("/a".into()));
        assert_eq!(words(&["x", "--state-dir=/s"]).state_dir, Some("/s".into()));
        assert_eq!(words(&["x", "--config"]).config, None);
    }

    #[test]
    fn candidates_cannot_control_the_terminal() {
        let candidate = CompletionCandidate::new("a:b").help(Some("x\u{1b}[2Jy\nz".into()));
        assert_eq!(as_line(Shell::Bash, &candidate), "a:b");
        assert_eq!(as_line(Shell::Zsh, &candidate), "a\\:b:xy z");
        assert_eq!(as_line(Shell::Fish, &candidate), "a:b\txy z");
        assert!(script(Shell::Fish, "/it's").contains(r"'/it\'s' complete"));
        assert!(script(Shell::Bash, "/a b").contains("'/a b' complete"));
    }
}
