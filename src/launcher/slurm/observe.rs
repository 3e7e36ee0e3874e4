//! Reads the states of all our jobs with one `squeue`.

use std::ffi::OsString;

use jiff::civil::DateTime;

use super::command::Engine;
use super::names::JobNames;
use crate::mission::id::WorkerId;
use crate::mission::life::{EngineState, JobId};

/// Job, name, state, reason, node and start.
const FORMAT: &str = "--format=%i|%j|%T|%r|%N|%S";
/// Texts of `squeue` for a field without a value.
const NO_VALUE: [&str; 5] = ["", "N/A", "n/a", "(null)", "None assigned"];

/// One of our jobs, as the engine reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedJob {
    pub job: JobId,
    pub worker: WorkerId,
    pub attempt: u32,
    pub state: EngineState,
    pub node: Option<String>,
    /// The time at which the job began, or likely will, by the clock of the cluster.
    pub start: Option<DateTime>,
}

/// Returns all our jobs that the engine knows, including those that have ended. An error is the reason why there is no
/// answer, and says nothing about any job.
pub async fn observe(engine: &Engine, names: &JobNames) -> Result<Vec<ObservedJob>, String> {
    let printed = engine.ask("squeue", &arguments(engine, None)).await.output()?;
    parse(&printed, names).ok_or_else(|| unreadable(&printed))
}

/// Returns the jobs with this name, as [`observe`] does.
pub(super) async fn jobs_named(engine: &Engine, names: &JobNames, name: &str) -> Result<Vec<ObservedJob>, String> {
    let printed = engine.ask("squeue", &arguments(engine, Some(name))).await.output()?;
    let mut jobs = parse(&printed, names).ok_or_else(|| unreadable(&printed))?;
    jobs.retain(|job| names.name(&job.worker, job.attempt) == name);
    Ok(jobs)
}

/// Returns the state and the node of a job by its name, which no other job has. `None`: the engine does not know it.
pub(super) async fn state_of(engine: &Engine, name: &str) -> Result<Option<(EngineState, Option<String>)>, String> {
    let printed = engine.ask("squeue", &arguments(engine, Some(name))).await.output()?;
    let mut lines = printed.lines().filter(|line| !line.trim().is_empty()).peekable();
    if lines.peek().is_none() {
        return Ok(None);
    }
    let line = lines.filter_map(Fields::of).find(|fields| fields.name == name).ok_or_else(|| unreadable(&printed))?;
    Ok(Some((EngineState::named(line.state, line.reason), value(line.node))))
}

/// Returns the job of an attempt. If there are several, from a submission whose answer was lost, the one that runs
/// counts, then one that waits, then the newest. `None` means that the engine does not know it.
pub fn job_of<'a>(jobs: &'a [ObservedJob], worker: &WorkerId, attempt: u32) -> Option<&'a ObservedJob> {
    let of_attempt = jobs.iter().filter(|job| job.worker == *worker && job.attempt == attempt);
    of_attempt.max_by_key(|job| (rank(&job.state), job.job))
}

fn rank(state: &EngineState) -> u8 {
    match state {
        EngineState::Runs => 2,
        EngineState::Waits { .. } => 1,
        EngineState::Ended(_) | EngineState::Gone | EngineState::Unknown => 0,
    }
}

fn arguments(engine: &Engine, name: Option<&str>) -> Vec<OsString> {
    // Behind a prefix, the uid of the user may be another one. `--me` exists since Slurm 20.02.
    let by_number = || format!("--user={}", rustix::process::getuid().as_raw());
    let user = if engine.has_prefix() { "--me".to_owned() } else { by_number() };
    let name = name.map(|name| format!("--name={name}"));
    let fixed = ["--noheader", "--states=all", FORMAT].map(str::to_owned);
    fixed.into_iter().chain([user]).chain(name).map(OsString::from).collect()
}

/// Returns our jobs from the output of `squeue`. `None` if the output is not that of `squeue`: that a job is missing
/// from it then means nothing.
fn parse(printed: &str, names: &JobNames) -> Option<Vec<ObservedJob>> {
    let lines: Vec<&str> = printed.lines().filter(|line| !line.trim().is_empty()).collect();
    let is_answer = lines.is_empty() || lines.iter().any(|line| Fields::of(line).is_some());
    is_answer.then(|| lines.iter().filter_map(|line| job(line, names)).collect())
}

/// The fields of one line.
struct Fields<'a> {
    id: &'a str,
    name: &'a str,
    state: &'a str,
    reason: &'a str,
    node: &'a str,
    start: &'a str,
}

impl<'a> Fields<'a> {
    /// Splits a line. Only the reason can contain the separator.
    fn of(line: &'a str) -> Option<Self> {
        let mut before = line.splitn(4, '|');
        let (id, name, state) = (before.next()?.trim(), before.next()?, before.next()?);
        let mut after = before.next()?.rsplitn(3, '|');
        let (start, node, reason) = (after.next()?, after.next()?, after.next()?);
        // The id of a job of an array is not a number, but begins with one.
        let is_id = id.starts_with(|c: char| c.is_ascii_digit());
        is_id.then_some(Self { id, name, state, reason: reason.trim(), node: node.trim(), start: start.trim() })
    }
}

fn job(line: &str, names: &JobNames) -> Option<ObservedJob> {
    let fields = Fields::of(line)?;
    let (worker, attempt) = names.parse(fields.name)?;
    Some(ObservedJob {
        job: fields.id.parse().ok()?,
        worker,
        attempt,
        state: EngineState::named(fields.state, fields.reason),
        node: value(fields.node),
        start: fields.start.parse().ok(),
    })
}

fn value(text: &str) -> Option<String> {
    (!NO_VALUE.contains(&text)).then(|| text.to_owned())
}

fn unreadable(printed: &str) -> String {
    let beginning: String = printed.chars().take(200).collect();
    format!("squeue: its output cannot be read: {beginning:?}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mission::life::EndState;
    use jiff::civil::datetime;
    use proptest::prelude::*;
    use uuid::Uuid;

    fn names() -> JobNames {
        JobNames::of(Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef))
    }

    fn id(worker: &str) -> WorkerId {
        WorkerId::from_folder(worker).unwrap()
    }

    fn parsed(printed: &str) -> Vec<ObservedJob> {
        parse(printed, &names()).unwrap_or_else(|| panic!("{printed}"))
    }

    #[test]
    fn every_line_of_ours_is_a_job() {
        let printed = "\
            5|sbatch|COMPLETED|None|z1|2026-11-30T17:45:23\n\
            6|ob-0123456789ab-w-1-a-1|RUNNING|None|z1|2026-11-30T17:45:24\n\
            17_[1-3]|ob-0123456789ab-w-9-1|PENDING|Priority||N/A\n\
            8|ob-0123456789ab-w-2-b-3|PENDING|ReqNodeNotAvail, a|b|(null)|2026-12-01T14:20:00\n\
            9|ob-0123456789ab-w-3-1|NODE_FAIL|NodeDown|z2|N/A\n\
            10|ob-fffffffffffb-w-3-1|RUNNING|None|z2|N/A\n";
        let jobs = parsed(printed);
        let job = |job, worker: &str, attempt, state, node: Option<&str>, start| ObservedJob {
            job: JobId(job),
            worker: id(worker),
            attempt,
            state,
            node: node.map(str::to_owned),
            start,
        };
        let waits = EngineState::Waits { reason: "ReqNodeNotAvail, a|b".to_owned() };
        let expected = [
            job(6, "w-1-a", 1, EngineState::Runs, Some("z1"), Some(datetime(2026, 11, 30, 17, 45, 24, 0))),
            job(8, "w-2-b", 3, waits, None, Some(datetime(2026, 12, 1, 14, 20, 0, 0))),
            job(9, "w-3", 1, EngineState::Ended(EndState::NodeFail), Some("z2"), None),
        ];
        assert_eq!(jobs, expected);
        assert_eq!(job_of(&jobs, &id("w-2-b"), 3).map(|job| job.job), Some(JobId(8)));
        assert_eq!(job_of(&jobs, &id("w-2-b"), 2), None);
    }

    #[test]
    fn running_job_of_a_name_counts() {
        let line = |id: u64, state: &str| format!("{id}|ob-0123456789ab-w-1-1|{state}|None||N/A\n");
        for (states, expected) in [
            (&["FAILED", "RUNNING", "PENDING", "FAILED"][..], 2),
            (&["FAILED", "PENDING", "CANCELLED"], 2),
            (&["FAILED", "CANCELLED"], 2),
            (&["RUNNING", "COMPLETING"], 2),
        ] {
            let lines: String = (1..).zip(states).map(|(id, state)| line(id, state)).collect();
            let found = job_of(&parsed(&lines), &id("w-1"), 1).map(|job| job.job);
            assert_eq!(found, Some(JobId(expected)), "{states:?}");
        }
    }

    #[test]
    fn foreign_output_says_nothing_about_jobs() {
        assert_eq!(parse("", &names()), Some(Vec::new()));
        assert_eq!(parse("\n \n", &names()), Some(Vec::new()));
        assert_eq!(parse("5|x|RUNNING|None|z1|N/A\nWelcome!\n", &names()), Some(Vec::new()));
        for printed in
            ["Welcome to the cluster\n", "JOBID|NAME|STATE|REASON|NODELIST|START_TIME\n", "1|2|3|4|5\n", "\u{0}"]
        {
            assert_eq!(parse(printed, &names()), None, "{printed}");
        }
        assert!(unreadable(&"x".repeat(10_000)).len() < 300);
    }

    proptest! {
        #[test]
        fn any_bytes_invent_no_job(bytes in proptest::collection::vec(any::<u8>(), 0..300), noise in "[|\n0-9a-zA-Z_ -]{0,80}") {
            for text in [String::from_utf8_lossy(&bytes).into_owned(), noise] {
                prop_assert!(parse(&text, &names()).unwrap_or_default().is_empty());
            }
        }

        #[test]
        fn jobs_are_found_between_any_lines(before in "[^\n\r]{0,40}", after in "[^\n\r]{0,40}", id in 1_u64..u64::from(u32::MAX), reason in "[^\n\r]{0,30}") {
            let line = format!("{id}|ob-0123456789ab-w-7-x-2|PENDING|{reason}||N/A");
            let jobs = parsed(&format!("{before}\n{line}\n{after}\n"));
            let reason = reason.trim().to_owned();
            prop_assert_eq!(jobs.len(), 1);
            prop_assert_eq!((jobs[0].job, &jobs[0].state), (JobId(id), &EngineState::Waits { reason }));
        }
    }
}
