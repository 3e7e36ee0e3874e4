//! `doctor --on LAUNCHER`: checks a cluster, and runs a job of one minute on a node, which reports what is there.
//!
//! The job and this process exchange files in a folder of the state directory. What the node cannot see there, no worker
//! on it could see either. Locks and clocks of two hosts prove nothing, so the node measures by its own clock how long an
//! exchange takes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use uuid::Uuid;

use super::agents::Usable;
use super::check::{Finding, Severity};
use super::machine::edit;
use super::network::PROXIES;
use super::{CheckContext, Topic, Verdict};
use crate::attempt::node_check::NodeCheck;
use crate::attempt::state_dir::StateDir;
use crate::backend::Backends;
use crate::cli::error::CliError;
use crate::cli::hint;
use crate::cli::output;
use crate::cli::places::Places;
use crate::cli::shell::behind;
use crate::config::{LauncherSettings, Settings};
use crate::files::{self, FileError, lease};
use crate::mission::hint::Hint;
use crate::mission::id::BackendName;
use crate::mission::life::EngineState;
use crate::mission::outcome::tail;
use crate::orchestrator::{ClusterCheck, Partition, lasting, program_of};

/// Time limit for the job to start and to report.
const LIMIT: Duration = Duration::from_secs(180);
/// Time for the report to become visible after the job has ended.
const AFTER_END: Duration = Duration::from_secs(10);
/// Time for a reason that does not pass by itself, after which the probe is given up.
const STUCK: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(100);
const ASK_EVERY: Duration = Duration::from_secs(2);
/// Bytes of the job's output that a finding quotes.
const QUOTED: usize = 700;
/// Exchange times above this are worth a note.
const SLOW: Duration = Duration::from_secs(5);

/// The name of the topic of what the node reports.
pub(super) const NODE: &str = "node";

/// The folder through which the probe and `doctor` exchange files. All of them but one exist before the probe starts.
pub(in crate::cli) struct ProbeFolder(PathBuf);

/// Facts that the probe found on its node.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::cli) struct NodeReport {
    pub node: String,
    /// Time until the node saw the answer to what it wrote. `None`: not within its limit.
    pub content: Option<Duration>,
    /// The same for a new name in the folder.
    pub name: Option<Duration>,
    /// Whether a lock that this host holds is refused there. `None`: locks do not work at all.
    pub locks_hold: Option<bool>,
    pub checks: Vec<Finding>,
    pub usable: Usable,
    /// Backends whose program is not there.
    pub missing: Vec<String>,
}

impl ProbeFolder {
    pub fn at(folder: &Path) -> Self {
        Self(folder.to_owned())
    }

    fn make(state: &StateDir) -> Result<Self, FileError> {
        let folder = Self(state.root().join(format!("probe-{}", Uuid::new_v4().simple())));
        files::make_private_dir(&folder.0)?;
        for path in [folder.node_file(), folder.server_file(), folder.report()] {
            files::replace_json(&path, &None::<()>, false)?;
        }
        Ok(folder)
    }

    /// The name of the node, once the probe runs.
    pub fn node_file(&self) -> PathBuf {
        self.0.join("from-node.json")
    }

    /// The same name, as the answer.
    pub fn server_file(&self) -> PathBuf {
        self.0.join("from-server.json")
    }

    /// Is created with the answer.
    pub fn new_name(&self) -> PathBuf {
        self.0.join("new-name")
    }

    pub fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }

    pub fn report(&self) -> PathBuf {
        self.0.join("report.json")
    }

    /// Variables that jobs get from their server, by name.
    pub fn variables(&self) -> PathBuf {
        self.0.join("variables.json")
    }
}

impl Drop for ProbeFolder {
    /// Removes the folder. The probe, which did not create it, forgets its value instead of dropping it.
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Checks a launcher. Cancels the job of the probe however this ends.
pub(super) async fn check_all(launcher: &str, places: Places) -> Result<(Vec<Topic>, Verdict), CliError> {
    let context = CheckContext::find(places);
    if let Some(error) = context.settings_error {
        return Err(CliError::Failed(error));
    }
    let settings = context.settings.launcher(launcher).map_err(|error| CliError::Usage(hint::of(&error)))?;
    let Some(settings) = settings.cloned() else {
        return Err(CliError::Usage(format!("{launcher} is this machine: run doctor without --on")));
    };
    let check = ClusterCheck::new(launcher, &settings);
    let doing = Mutex::new(format!("asking the cluster {launcher}"));
    let show = || doing.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut cluster = output::with_progress(show, cluster(&check, launcher, &settings, &context.settings)).await;
    let mut usable = Usable::default();
    let mut node = Vec::new();
    if cluster.iter().all(|finding| !finding.stops_all) {
        let state = StateDir::open(&context.state_root).map_err(|error| CliError::Failed(hint::of(&error)))?;
        let folder = ProbeFolder::make(&state).map_err(|error| CliError::Failed(hint::of(&error)))?;
        let probe =
            Probe { check: &check, launcher, settings: &settings, all: &context.settings, folder, doing: &doing };
        let probing = output::unless_interrupted(output::with_progress(show, probe.run())).await;
        // One that is forgotten ends after a minute by itself.
        if let Err(why) = check.cancel_probe().await {
            cluster.push(Finding::warn("job", format!("cannot cancel the job of the probe: {why}")));
        }
        (node, usable) = probing?;
        keep(&node, state.root(), launcher);
    }
    let topics = vec![Topic { name: "cluster", checks: cluster }, Topic { name: NODE, checks: node }];
    let stops = topics.iter().flat_map(|topic| &topic.checks).filter(|check| check.stops_all);
    let stops = stops.map(|check| check.name.clone()).collect();
    Ok((topics, Verdict { usable, stops }))
}

/// Keeps the problems of the nodes, for the answers of servers. Without a node, an earlier result is kept.
fn keep(node: &[Finding], state_root: &Path, launcher: &str) {
    if node.iter().any(|finding| finding.stops_all && finding.severity == Severity::Warn) {
        return;
    }
    let is_problem = |finding: &&Finding| matches!(finding.severity, Severity::Bad) || is_missing(finding);
    let problems = node.iter().filter(is_problem);
    let problems = problems.map(|finding| format!("{}: {}", finding.name, finding.message)).collect();
    if let Err(error) = (NodeCheck { at: Timestamp::now(), problems }).write(state_root, launcher) {
        output::note(&hint::of(&error));
    }
}

const MISSING: &str = "not found on the nodes";

fn is_missing(finding: &Finding) -> bool {
    finding.message.starts_with(MISSING)
}

/// Checks what the commands of the cluster report.
async fn cluster(check: &ClusterCheck, launcher: &str, own: &LauncherSettings, settings: &Settings) -> Vec<Finding> {
    let section = format!("[launchers.{launcher}]");
    let fix = settings.file.as_deref().map(edit);
    let fixed = |finding: Finding| fix.clone().map_or(finding.clone(), |fix| finding.fix(fix));
    let sinfo = |options: &str| behind(&own.command, format!("sinfo {options}").trim_end());
    let mut findings = commands(check, &section, fixed).await;
    if findings.iter().any(|finding| finding.stops_all) {
        return findings;
    }
    let partition = match check.partition().await {
        Ok(Some(partition)) => partition,
        Ok(None) => {
            let message = format!("the cluster has none of this name, or no default: see `partition` in {section}");
            findings.push(fixed(Finding::bad("partition", message).stops_all().fix(sinfo(""))));
            return findings;
        }
        Err(why) => {
            let message = format!("it does not answer: {why}");
            findings.push(Finding::bad("controller", message).stops_all().fix(sinfo("")));
            return findings;
        }
    };
    let Partition { name, availability, nodes, usable_nodes } = &partition;
    let message = format!("{name} is {availability}, with {usable_nodes} of {nodes} nodes usable");
    if availability != "up" || *usable_nodes == 0 {
        let fix = sinfo(&format!("--partition={name}"));
        findings.push(Finding::bad("partition", message).stops_all().fix(fix));
        return findings;
    }
    findings.push(Finding::ok("partition", message));
    findings.push(processes(check).await);
    if check.takes_all_memory(name).await == Ok(true) {
        let message = format!(
            "a job that asks for none gets all memory of its node, so only one worker runs there: set `memory` in {section}"
        );
        findings.push(fixed(Finding::note("memory", message)));
    }
    findings
}

/// Checks the commands. Those that fail for the same reason are one finding.
async fn commands(check: &ClusterCheck, section: &str, fixed: impl Fn(Finding) -> Finding) -> Vec<Finding> {
    let (mut versions, mut failed) = (BTreeMap::<_, Vec<_>>::new(), BTreeMap::<_, Vec<_>>::new());
    for (command, answer) in check.versions().await {
        match answer {
            Ok(version) => versions.entry(version).or_default().push(command),
            Err(why) => failed.entry(why).or_default().push(command),
        }
    }
    let failed = failed.into_iter().map(|(why, commands)| {
        let message = format!("{why}; install it here, or set `command` in {section}");
        fixed(Finding::bad(&commands.join(", "), message).stops_all())
    });
    let versions =
        versions.iter().map(|(version, of)| Finding::ok("commands", format!("{version} ({})", of.join(", "))));
    failed.chain(versions).collect()
}

async fn processes(check: &ClusterCheck) -> Finding {
    const NAME: &str = "processes";
    match check.tracks_by_cgroup().await {
        Ok(true) => Finding::ok(NAME, "the cluster ends all processes of a job with it (proctrack/cgroup)"),
        Ok(false) => Finding::note(
            NAME,
            "the cluster does not track them by cgroup (its ProctrackType): after a node failed, a cancellation is \
             proven only as best_effort",
        ),
        Err(why) => Finding::warn(NAME, why),
    }
}

/// The probe of a node, as this process sees it.
struct Probe<'a> {
    check: &'a ClusterCheck,
    launcher: &'a str,
    settings: &'a LauncherSettings,
    all: &'a Settings,
    folder: ProbeFolder,
    doing: &'a Mutex<String>,
}

impl Probe<'_> {
    async fn run(self) -> (Vec<Finding>, Usable) {
        match self.report().await {
            Ok(report) => self.findings(report),
            Err(finding) => (vec![finding.stops_all()], Usable::default()),
        }
    }

    async fn report(&self) -> Result<NodeReport, Finding> {
        let failed = |error: FileError| Finding::bad("folder", hint::of(&error));
        let _held = lease::take(&self.folder.lock()).map_err(failed)?;
        files::replace_json(&self.folder.variables(), &self.variables(), false).map_err(failed)?;
        let own = std::env::current_exe().map_err(|error| Finding::bad("program", error.to_string()))?;
        let program = self.settings.program.clone().unwrap_or(own);
        let file = self.all.file.as_ref().map(|file| file.canonicalize().unwrap_or_else(|_| file.clone()));
        let submitted = self.check.submit_probe(&self.folder.0, &program, file.as_deref()).await;
        let job = submitted.map_err(|error| Finding::bad("job", hint::of(&error)))?;
        let began = Instant::now();
        let (mut asked, mut ended, mut waits) = (began, None, String::new());
        let mut stuck: Option<(Instant, Vec<Hint>)> = None;
        loop {
            self.answer().map_err(failed)?;
            if let Some(report) = files::read_json::<Option<NodeReport>>(&self.folder.report()).ok().flatten().flatten()
            {
                return Ok(report);
            }
            if asked.elapsed() >= ASK_EVERY {
                asked = Instant::now();
                match self.check.probe_state().await {
                    Ok(Some((EngineState::Waits { reason }, _))) => {
                        let since = stuck.map_or_else(Instant::now, |(since, _)| since);
                        stuck = lasting(&reason, self.launcher, job).map(|hints| (since, hints));
                        waits = format!("it waits: {reason}");
                    }
                    Ok(Some((EngineState::Runs, node))) => waits = format!("it runs on {}", node.unwrap_or_default()),
                    Ok(Some((EngineState::Ended(state), _))) => {
                        ended.get_or_insert((Instant::now(), format!("ended as {state}")));
                    }
                    Ok(_) => drop(ended.get_or_insert((Instant::now(), "is not known to the cluster".to_owned()))),
                    Err(why) => waits = why,
                }
                *self.doing.lock().unwrap_or_else(PoisonError::into_inner) = format!("job {job}: {waits}");
            }
            if let Some((_, how)) = ended.as_ref().filter(|(at, _)| at.elapsed() > AFTER_END) {
                return Err(self.without_report(&format!("job {job} {how} without a report")));
            }
            if let Some((_, hints)) = stuck.as_ref().filter(|(since, _)| since.elapsed() > STUCK) {
                let hints: Vec<String> = hints.iter().map(Hint::words).collect();
                return Err(self.to_edit(Finding::bad("job", format!("{waits}; {}", hints.join(", or ")))));
            }
            if began.elapsed() > LIMIT {
                let message = format!("job {job} did not report within {} s; {waits}", LIMIT.as_secs());
                return Err(Finding::warn("job", message).fix(behind(&self.settings.command, "sinfo")));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Returns the variables that decide how a job reaches the services of the models. None of them is a key.
    fn variables(&self) -> BTreeMap<String, String> {
        let backends = Backends::with_custom(self.all.custom.clone());
        let services = backends.names().filter_map(|name| backends.get(name).ok()?.probe().service);
        let passed =
            services.map(|service| service.variable).filter(|name| self.settings.pass_env.iter().any(|it| it == name));
        let names = PROXIES.into_iter().chain(passed);
        names.filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?))).collect()
    }

    /// Answers the probe once it has written the name of its node.
    fn answer(&self) -> Result<(), FileError> {
        let node = files::read_json::<Option<String>>(&self.folder.node_file()).ok().flatten().flatten();
        let Some(node) = node.filter(|_| !self.folder.new_name().exists()) else { return Ok(()) };
        files::replace_json(&self.folder.server_file(), &Some(node), false)?;
        files::replace_json(&self.folder.new_name(), &None::<()>, false)
    }

    fn without_report(&self, what: &str) -> Finding {
        let printed = ClusterCheck::printed(&self.folder.0);
        let printed = tail(printed.trim_end(), QUOTED);
        if printed.is_empty() {
            // Such a job cannot write its log either.
            let folder = self.folder.0.display();
            let message = format!(
                "{what}, and printed nothing: the node must see {folder} under the same path, so have the repository on a \
                 file system that the nodes share"
            );
            return Finding::bad("job", message);
        }
        let settings = format!("see `program` and `prologue` in [launchers.{}]", self.launcher);
        self.to_edit(Finding::bad("job", format!("{what}, but printed:\n{printed}\n{settings}")))
    }

    fn to_edit(&self, finding: Finding) -> Finding {
        self.all.file.as_deref().map_or(finding.clone(), |file| finding.fix(edit(file)))
    }

    fn findings(&self, report: NodeReport) -> (Vec<Finding>, Usable) {
        let NodeReport { node, content, name, locks_hold, checks, usable, missing } = report;
        let mut findings = vec![Finding::ok("job", format!("a job ran on {node}")), exchange(content, name)];
        findings.push(match locks_hold {
            Some(true) => Finding::ok("locks", "hold between this host and the node"),
            Some(false) => Finding::note("locks", "hold within one host only, which is enough"),
            None => Finding::note("locks", "do not work on the node, which is enough"),
        });
        // Not part of the report, which is JSON: only git is needed by every worker.
        let stops = |check: &Finding| check.name == "git" && check.severity == Severity::Bad;
        findings.extend(checks.into_iter().map(|check| Finding { stops_all: stops(&check), ..check }));
        findings.extend(self.missing(&missing));
        if findings.iter().all(|finding| finding.name != "network") {
            findings.push(Finding::note(
                "network",
                "not checked: workers need a way from the nodes to the service of their model, if need be through a \
                 proxy (pass_env, prologue)",
            ));
        }
        (findings, usable)
    }

    /// Reports the backends that are installed here, and not on the node.
    fn missing(&self, names: &[String]) -> Vec<Finding> {
        let backends = Backends::with_custom(self.all.custom.clone());
        let is_here = |name: &&String| program_of(self.all, &backends, &BackendName::from(name.as_str())).is_ok();
        let report = |name: &String| {
            let message = format!(
                "{MISSING}; install it there, or add its folder to the PATH by `prologue` in [launchers.{}]",
                self.launcher
            );
            self.to_edit(Finding::warn(name, message))
        };
        names.iter().filter(is_here).map(report).collect()
    }
}

/// Reports how late the node sees what this host writes.
fn exchange(content: Option<Duration>, name: Option<Duration>) -> Finding {
    let words = |time: Option<Duration>| {
        time.map_or_else(|| "not in time".to_owned(), |time| format!("after {:.1} s", time.as_secs_f64()))
    };
    let message = format!("the node sees changes {}, new names {}", words(content), words(name));
    match (content, name) {
        (None, _) => Finding::bad("folder", format!("{message}: messages would not reach workers")).stops_all(),
        (Some(content), Some(name)) if content < SLOW && name < SLOW => Finding::ok("folder", message),
        _ => Finding::note("folder", format!("{message}; workers do not rely on new names")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_names_are_a_note_and_late_content_a_defect() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        for (content, name, severity) in [
            (seconds(1), seconds(2), Severity::Ok),
            (seconds(1), seconds(30), Severity::Note),
            (seconds(1), None, Severity::Note),
            (None, seconds(1), Severity::Bad),
        ] {
            assert_eq!(exchange(content, name).severity, severity, "{content:?} {name:?}");
        }
        assert!(exchange(seconds(1), None).message.contains("new names not in time"));
    }
}
