//! Submits the job of one attempt: the command, its script, and what a refusal means.
//!
//! A submission whose answer was lost may have worked, so the next one first looks for a job of that name. A job that is
//! missed all the same does no harm: the claim of the attempt lets only one supervisor run it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use thiserror::Error;

use super::command::{Answer, Engine, NoAnswer};
use super::names::JobNames;
use super::observe::{ObservedJob, job_of, jobs_named};
use super::quote;
use crate::config::LauncherSettings;
use crate::mission::hint::{Hint, Hinted};
use crate::mission::id::WorkerId;
use crate::mission::life::JobId;

/// Slurm sends TERM to the supervisor this many seconds before its limit.
const NOTICE_SECONDS: u32 = 120;
/// Name of the job's own output, in the folder of the attempt.
pub(super) const ENGINE_LOG: &str = "engine.log";

/// Texts of refusals that pass by themselves.
const TRANSIENT: [&str; 5] =
    ["temporarily unable", "resource temporarily unavailable", "submitjob", "maxsubmit", "too many open files"];

/// Texts of final refusals, and the settings that they are about. The first one that matches counts.
const CAUSES: [(&str, &[&str]); 15] = [
    (POLICY, &["qos", "account", "cpus", "memory"]),
    ("account", &["account", "partition"]),
    ("invalid qos", &["qos"]),
    ("partition", &["partition"]),
    ("memory", &["memory"]),
    ("--mem", &["memory"]),
    ("feature", &["constraint"]),
    ("--constraint", &["constraint"]),
    ("gres", &["gres"]),
    ("trackable resource", &["gres"]),
    ("more processors", &["cpus"]),
    ("node count", &["args"]),
    ("unrecognized option", &["args"]),
    ("invalid option", &["args"]),
    ("node configuration", &["cpus", "memory", "constraint", "gres"]),
];
const TIME_LIMIT: &str = "time limit is invalid";
const POLICY: &str = "violates accounting/qos policy";
/// Texts of a command that does not find the configuration of the cluster. Slurm tries it again for a minute.
const NO_CONFIGURATION: [&str; 3] = ["cannot stat file", "configuration source", "unable to process configuration"];

/// A job to submit.
#[derive(Debug)]
pub struct JobRequest<'a> {
    pub names: &'a JobNames,
    pub worker: &'a WorkerId,
    pub attempt: u32,
    /// The folder of the attempt.
    pub folder: &'a Path,
    /// This program's path on the nodes.
    pub program: &'a Path,
    /// The name of the launcher.
    pub launcher: &'a str,
    pub settings: &'a LauncherSettings,
    /// The time limit: see [`JobMinutes`](super::minutes::JobMinutes).
    pub minutes: u64,
}

/// The result of a submission.
#[derive(Debug)]
pub enum Submission {
    Accepted(JobId),
    /// An earlier submission had worked. The job may have ended.
    Found(JobId),
    /// Submit again later, with `may_exist`: the job may exist. The text is the reason.
    Later(String),
    /// The same request would be refused again. Fence the attempt before it is settled, and cancel by name: with an
    /// unreadable answer the job may exist.
    Refused(SubmitError),
}

/// The reason why a job cannot be submitted.
#[derive(Debug, Error)]
pub enum SubmitError {
    #[error("cannot submit the job: {text}")]
    Refused { text: String, settings: &'static [&'static str], launcher: String },
    #[error("cannot submit the job: {text}")]
    TooLong { text: String },
    #[error("cannot submit the job: {text}")]
    NoConfiguration { text: String },
    #[error("cannot submit the job: sbatch printed no number of a job: {printed:?}")]
    Unreadable { printed: String },
    #[error("cannot submit the job: {program} is not on the PATH")]
    NotFound { program: String, launcher: String },
}

impl Hinted for SubmitError {
    fn hints(&self) -> Vec<Hint> {
        match self {
            Self::Refused { settings: [], .. } => Vec::new(),
            Self::Refused { settings, launcher, .. } => {
                let names: Vec<String> = settings.iter().map(|name| format!("`{name}`")).collect();
                vec![Hint::to(format!("change {} in [launchers.{launcher}]", names.join(" or ")))]
            }
            Self::TooLong { .. } => {
                vec![Hint::to("lower the mission's `timeout_minutes`"), Hint::to("use a partition with a longer limit")]
            }
            Self::NoConfiguration { .. } => {
                vec![Hint::to("set SLURM_CONF to the configuration file of the cluster where the server starts")]
            }
            Self::Unreadable { .. } => vec![Hint::to("check what `sbatch --parsable` prints on this machine")],
            Self::NotFound { launcher, .. } => vec![
                Hint::to("install the commands of Slurm on this machine"),
                Hint::to(format!("set `command` in [launchers.{launcher}], such as [\"ssh\", \"login1\"]")),
            ],
        }
    }
}

/// Submits a job. With `may_exist`, an earlier submission may have worked, and its job is looked for first.
pub async fn submit(engine: &Engine, request: &JobRequest<'_>, may_exist: bool) -> Submission {
    if may_exist {
        match job_with_name(engine, request.names, request.worker, request.attempt).await {
            Ok(Some(found)) => return Submission::Found(found.job),
            Ok(None) => {}
            Err(why) => return Submission::Later(why),
        }
    }
    match engine.submit("sbatch", &request.arguments(), &request.script()).await {
        Answer::Output(printed) => match job_number(&printed) {
            Some(job) => Submission::Accepted(job),
            None => request.after_unreadable(engine, &printed).await,
        },
        Answer::Refused { text, .. } => refused(text, request.launcher),
        Answer::None { cause: NoAnswer::NotFound { program } } => {
            Submission::Refused(SubmitError::NotFound { program, launcher: request.launcher.to_owned() })
        }
        Answer::None { cause: NoAnswer::TimedOut { text, .. } } if contains(&text, &NO_CONFIGURATION) => {
            Submission::Refused(SubmitError::NoConfiguration { text })
        }
        Answer::None { cause } => Submission::Later(cause.to_string()),
    }
}

/// Returns the job of an attempt, also one that has ended. `None` if the engine does not know one.
pub async fn job_with_name(
    engine: &Engine,
    names: &JobNames,
    worker: &WorkerId,
    attempt: u32,
) -> Result<Option<ObservedJob>, String> {
    let jobs = jobs_named(engine, names, &names.name(worker, attempt)).await?;
    Ok(job_of(&jobs, worker, attempt).cloned())
}

impl JobRequest<'_> {
    fn arguments(&self) -> Vec<OsString> {
        self.batch().arguments()
    }

    fn script(&self) -> Vec<u8> {
        self.batch().script()
    }

    fn batch(&self) -> BatchJob<'_> {
        let quoted = |path: &Path| quote::for_bash(path.as_os_str().as_bytes());
        BatchJob {
            name: self.names.name(self.worker, self.attempt),
            folder: self.folder,
            settings: self.settings,
            minutes: self.minutes,
            notice: Some(NOTICE_SECONDS),
            command: [&quoted(self.program), &b" supervise --job "[..], &quoted(self.folder)].concat(),
        }
    }

    /// Looks for the job after an answer without a number.
    async fn after_unreadable(&self, engine: &Engine, printed: &str) -> Submission {
        match job_with_name(engine, self.names, self.worker, self.attempt).await {
            Ok(Some(found)) => Submission::Accepted(found.job),
            Ok(None) => {
                let printed = printed.chars().take(200).collect();
                Submission::Refused(SubmitError::Unreadable { printed })
            }
            Err(why) => Submission::Later(why),
        }
    }
}

/// A job of one process.
#[derive(Debug)]
pub(super) struct BatchJob<'a> {
    pub name: String,
    /// The folder that it starts in, and that gets its output.
    pub folder: &'a Path,
    pub settings: &'a LauncherSettings,
    pub minutes: u64,
    /// The job gets TERM this many seconds before its limit.
    pub notice: Option<u32>,
    /// Its command, as bash reads it.
    pub command: Vec<u8>,
}

impl BatchJob<'_> {
    pub fn arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = [
            "--parsable".to_owned(),
            format!("--job-name={}", self.name),
            "--no-requeue".to_owned(),
            // All variables of `sbatch` itself, which gets only a few. Any other value makes the node run the user's
            // login shell.
            "--export=ALL".to_owned(),
            "--open-mode=append".to_owned(),
        ]
        .map(OsString::from)
        .into();
        arguments.extend(self.notice.map(|seconds| format!("--signal=B:TERM@{seconds}").into()));
        arguments.push(format!("--time={}", self.minutes).into());
        let joined = |option: &str, path: &OsStr| {
            let mut argument = OsString::from(option);
            argument.push(path);
            argument
        };
        arguments.push(joined("--output=", &file_pattern(&self.folder.join(ENGINE_LOG))));
        arguments.push(joined("--chdir=", self.folder.as_os_str()));
        arguments.extend(size_options(self.settings));
        arguments
    }

    /// Returns the script. The command becomes the batch process, so that it gets the signals of Slurm.
    pub fn script(&self) -> Vec<u8> {
        let mut script = b"#!/bin/bash\n".to_vec();
        for line in self.settings.prologue.iter().flat_map(|lines| lines.lines()) {
            script.extend(line.as_bytes());
            script.push(b'\n');
        }
        script.extend([b"exec ", self.command.as_slice(), b"\n"].concat());
        script
    }

    /// Submits the job. Its name is new, so no earlier job is looked for.
    pub async fn submit(&self, engine: &Engine, launcher: &str) -> Result<JobId, JobError> {
        match engine.submit("sbatch", &self.arguments(), &self.script()).await {
            Answer::Output(printed) => {
                let job = job_number(&printed);
                Ok(job.ok_or_else(|| SubmitError::Unreadable { printed: printed.chars().take(200).collect() })?)
            }
            Answer::Refused { text, .. } => Err(refusal(text, launcher).into()),
            Answer::None { cause } => Err(JobError::of_no_answer(cause, launcher)),
        }
    }
}

/// The reason why a job that is submitted only once does not run.
#[derive(Debug, Error)]
pub enum JobError {
    #[error(transparent)]
    Refused(#[from] SubmitError),
    #[error("cannot submit the job: {0}")]
    NoAnswer(NoAnswer),
}

impl Hinted for JobError {
    fn hints(&self) -> Vec<Hint> {
        match self {
            Self::Refused(error) => error.hints(),
            Self::NoAnswer(_) => Vec::new(),
        }
    }
}

impl JobError {
    pub(super) fn of_no_answer(cause: NoAnswer, launcher: &str) -> Self {
        match cause {
            NoAnswer::NotFound { program } => SubmitError::NotFound { program, launcher: launcher.to_owned() }.into(),
            cause => Self::NoAnswer(cause),
        }
    }
}

/// Returns the options for the place and the size of a job, then those of the user.
pub(super) fn size_options(settings: &LauncherSettings) -> impl Iterator<Item = OsString> {
    let LauncherSettings { partition, account, qos, constraint, gres, cpus, memory, .. } = settings;
    let size = [
        ("partition", partition),
        ("account", account),
        ("qos", qos),
        ("constraint", constraint),
        ("gres", gres),
        ("cpus-per-task", &cpus.map(|cpus| cpus.to_string())),
        ("mem", memory),
    ];
    let set = size.map(|(option, value)| Some(format!("--{option}={}", value.as_ref()?)));
    set.into_iter().flatten().map(OsString::from).chain(settings.args.iter().map(OsString::from))
}

/// Returns the pattern that Slurm expands to this path. If a pattern contains a backslash, every backslash escapes the
/// next character, and `%` has no meaning. Otherwise `%` begins a placeholder.
fn file_pattern(path: &Path) -> OsString {
    let bytes = path.as_os_str().as_bytes();
    let special = if bytes.contains(&b'\\') { b'\\' } else { b'%' };
    let doubled = bytes.iter().flat_map(|&byte| vec![byte; if byte == special { 2 } else { 1 }]);
    OsString::from_vec(doubled.collect())
}

/// Returns the number that `sbatch --parsable` prints in its last line, alone or with the name of the cluster. Programs
/// around `sbatch` may print other lines before it.
fn job_number(printed: &str) -> Option<JobId> {
    let last = printed.lines().map(str::trim).rfind(|line| !line.is_empty())?;
    let number = last.split(';').next()?;
    let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
    number.parse().ok().filter(|job: &JobId| is_number && job.0 > 0)
}

fn refused(text: String, launcher: &str) -> Submission {
    let lower = text.to_ascii_lowercase();
    // The text about a policy alone does not say which limit is meant. It may be that on submitted jobs, which passes.
    if contains(&lower, &TRANSIENT) || (lower.contains(POLICY) && !lower.contains("; ")) {
        return Submission::Later(text);
    }
    Submission::Refused(refusal(text, launcher))
}

/// Returns the error for a text of Slurm, with the settings that it is about.
pub(super) fn refusal(text: String, launcher: &str) -> SubmitError {
    let lower = text.to_ascii_lowercase();
    if contains(&lower, &NO_CONFIGURATION) {
        SubmitError::NoConfiguration { text }
    } else if lower.contains(TIME_LIMIT) {
        SubmitError::TooLong { text }
    } else {
        let cause = CAUSES.iter().find(|(phrase, _)| lower.contains(phrase));
        SubmitError::Refused {
            settings: cause.map_or(&[], |(_, settings)| settings),
            launcher: launcher.to_owned(),
            text,
        }
    }
}

fn contains(text: &str, phrases: &[&str]) -> bool {
    let lower = text.to_ascii_lowercase();
    phrases.iter().any(|phrase| lower.contains(phrase))
}

#[cfg(test)]
mod tests;
