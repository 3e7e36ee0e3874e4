//! The follower of a worker that runs as a job of a cluster. It submits the job, reads what the supervisor writes, and
//! does what [`life`] says.
//!
//! The supervisor may be on another host. Locks, events of files and clocks prove nothing there, and the scheduler may
//! not answer, forget jobs or run them twice. So a worker that has begun ends by its outcome record alone, unless the
//! cluster reports that its job is over and this process has watched for `lost_after_seconds` without seeing a
//! heartbeat.

use std::sync::Arc;
use std::time::Duration;

use jiff::Zoned;
use tokio::time::Instant;

use super::{Reporter, assignment, lost};
use crate::attempt::inbox::InboxEntry;
use crate::attempt::launch::{Launch, PassedEnvironment};
use crate::attempt::status::LiveStatus;
use crate::attempt::worker_dir::AttemptDir;
use crate::config::LauncherSettings;
use crate::crash_point::{self, Point};
use crate::files::{self, FileError};
use crate::launcher::slurm::{self, JobRequest, ObservedJob, Submission};
use crate::mission::hint::{Advice, Hint, with_hints};
use crate::mission::life::{Claim, EndState, EngineState, EngineWatch, Evidence, Heartbeat, JobId, Life, life};
use crate::mission::lifecycle::Ending;
use crate::mission::outcome::{Containment, Failure, FailureKind};
use crate::mission::registry::Worker;
use crate::mission::worker::Job;
use crate::orchestrator::answers::ClusterWait;
use crate::orchestrator::clusters::{Answers, Cluster};
use crate::orchestrator::context::Context;
use crate::orchestrator::error::OrchestratorError;
use crate::orchestrator::job_time;
use crate::orchestrator::mailbox::Report;
use crate::orchestrator::outcomes;
use crate::process;

/// Shortest interval at which the files of a worker are read.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Bytes of the job's own output that a failure quotes.
const QUOTED: usize = 700;
/// Time without a check after which the heartbeat is watched anew.
const LONGEST_GAP: Duration = Duration::from_secs(30);
/// Time without a heartbeat after which a worker whose launcher was removed from the settings is reported.
const LOST_AFTER: Duration = Duration::from_secs(120);
/// Number of jobs in a row that the cluster may forget before they began.
const MOST_FORGOTTEN: u32 = 3;

/// An attempt that runs as a job, and what this process has seen of it.
struct Follower<'a> {
    context: &'a Context,
    attempt: AttemptDir,
    worker: Arc<Worker>,
    launch: Launch,
    /// `None` if the launcher was removed from the settings. The worker is then followed by its files alone.
    cluster: Option<Arc<Cluster>>,
    reporter: Reporter,
    /// True if an earlier submission may have worked.
    may_exist: bool,
    /// The last status. `None` as long as no supervisor is known to have claimed the attempt.
    status: Option<LiveStatus>,
    /// True if a supervisor has claimed the attempt. It may have died before it wrote a status.
    begun: bool,
    /// True if an earlier server has revoked the claim. Only the outcome record must still be written.
    is_revoked: bool,
    /// When the status last changed while this process watched, or when it began to watch.
    changed: Instant,
    /// When the last check began. A gap after it, such as one in which this process was stopped, does not count as
    /// watching.
    looked: Instant,
    engine: EngineWatch,
    /// The number of the last answer of the scheduler that was considered, and the job as of that answer.
    considered: u64,
    job: Option<ObservedJob>,
    /// When the job was submitted. Answers to polls that began earlier do not cover it.
    submitted: Instant,
    waits: ClusterWait,
    /// The last error in reading the files, which is logged once.
    error: Option<String>,
}

/// Stays with an attempt until it has settled. Dropping the future leaves the job alone. `is_new`: no job was submitted
/// for it yet.
pub(super) async fn follow(
    context: &Context,
    attempt: AttemptDir,
    worker: Arc<Worker>,
    launch: Launch,
    reporter: Reporter,
    is_new: bool,
) {
    let cluster = context.clusters.get(&launch.launcher);
    let now = Instant::now();
    let follower = Follower {
        context,
        attempt,
        worker,
        launch,
        cluster,
        reporter,
        may_exist: !is_new,
        status: None,
        begun: false,
        is_revoked: false,
        changed: now,
        looked: now,
        engine: EngineWatch::new(EngineState::Unknown, process::monotonic()),
        considered: 0,
        job: None,
        submitted: now,
        waits: ClusterWait::default(),
        error: None,
    };
    follower.run().await;
}

impl Follower<'_> {
    async fn run(mut self) {
        let _counted = self.cluster.as_ref().map(Cluster::count_follower);
        self.repeat_submission();
        self.is_revoked = self.attempt.is_revoked();
        self.begun = self.is_revoked;
        loop {
            self.leave_out_gap();
            match self.look().await {
                Ok(Some(report)) => return self.end(report),
                Ok(None) => {}
                // A network file system can fail for a while. The job goes on meanwhile.
                Err(error) => {
                    self.changed = Instant::now();
                    self.log_once(with_hints(&error));
                }
            }
            match &self.cluster {
                Some(cluster) => cluster.until_next_look(LOOK_EVERY).await,
                None => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }

    /// Reports the job again if the server that submitted it could not save that.
    fn repeat_submission(&self) {
        let Some(id) = self.launch.job else { return };
        if self.worker.job.as_ref().is_none_or(|job| job.id != id) {
            self.reporter.send(Report::Submitted { job: self.job_of(id) });
        }
    }

    /// Begins to watch anew after a time in which this process saw nothing, such as one in which it was stopped.
    fn leave_out_gap(&mut self) {
        if self.looked.elapsed() > LONGEST_GAP {
            self.changed = Instant::now();
        }
        self.looked = Instant::now();
    }

    fn end(&self, report: Report) {
        PassedEnvironment::remove(self.attempt.root());
        // The job that waits is a second one of the same name, from a submission whose answer was lost, or the cluster
        // has queued the first one anew.
        if matches!(self.engine.state(), EngineState::Waits { .. }) {
            self.cancel_job();
        }
        self.reporter.send(report);
    }

    fn log_once(&mut self, error: String) {
        if self.error.as_ref() != Some(&error) {
            tracing::warn!(worker = %self.worker.id, error, "cannot use the files of a worker");
            self.error = Some(error);
        }
    }

    /// Checks the attempt once, and does what its state requires. Returns the report of its end, if it has ended.
    async fn look(&mut self) -> Result<Option<Report>, FileError> {
        if self.has_settled()? {
            return Ok(self.attempt.outcome()?.map(|outcome| Report::Ended(Box::new(outcome))));
        }
        if !self.begun && self.attempt.cancelled().is_some() {
            return self.fence(|_| None);
        }
        if !self.begun && self.launch.job.is_none() {
            return self.submit().await;
        }
        self.consider_answer()?;
        self.act().await
    }

    /// Reads the status. Returns whether the supervisor has written its record.
    fn has_settled(&mut self) -> Result<bool, FileError> {
        let status = match LiveStatus::read(&self.attempt) {
            Ok(Some(status)) => status,
            Ok(None) => return Ok(false),
            // A node that failed may have left half a file. The file shows that there was a supervisor, and nothing
            // else.
            Err(error @ FileError::Damaged { .. }) => {
                self.begun = true;
                self.log_once(with_hints(&error));
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        (self.begun, self.error) = (true, None);
        if self.status.as_ref().is_none_or(|known| known.written != status.written) {
            if self.status.is_none() {
                self.reporter.send(recorded_place(&self.attempt));
            }
            self.changed = Instant::now();
            self.reporter.send(Report::Status(Box::new(status.clone())));
            self.status = Some(status);
        }
        Ok(self.status.as_ref().is_some_and(|status| status.settled))
    }

    async fn submit(&mut self) -> Result<Option<Report>, FileError> {
        let Some(cluster) = self.cluster.clone() else {
            self.report_problem();
            return Ok(None);
        };
        if cluster.answers().problem.is_some() {
            // Otherwise hundreds of workers would ask the scheduler, one after another.
            self.report_problem();
            return self.pause(&cluster).await;
        }
        let may_exist = std::mem::replace(&mut self.may_exist, true);
        let submitted = tokio::select! {
            submitted = submission(self.context, &cluster, &self.attempt, &self.worker, may_exist) => submitted,
            // Hundreds of workers may wait for their turn while the scheduler does not answer.
            () = until_cancelled(&cluster, &self.attempt) => return Ok(None),
        };
        match submitted {
            Ok(Submission::Accepted(job) | Submission::Found(job)) => {
                crash_point::at(Point::JobSubmitted);
                self.note_job(job)?;
                self.submitted = Instant::now();
                self.report_wait(format!("the cluster: not scheduled yet (job {job})"), false);
            }
            Ok(Submission::Later(why)) => {
                self.report_wait(format!("the cluster: {why}"), false);
                return self.pause(&cluster).await;
            }
            Ok(Submission::Refused(error)) => {
                let message = with_hints(&error);
                return self.fence(|_| Some(message));
            }
            // The cluster would accept the job, and never start it.
            Err(error @ OrchestratorError::TooLongForPartition { .. }) => {
                let message = with_hints(&error);
                return self.fence(|_| Some(message));
            }
            // A file of the state directory could not be read or written.
            Err(error) => {
                self.report_wait(with_hints(&error), false);
                return self.pause(&cluster).await;
            }
        }
        Ok(None)
    }

    /// Waits until a submission can be tried again.
    async fn pause(&self, cluster: &Cluster) -> Result<Option<Report>, FileError> {
        tokio::select! {
            () = cluster.until_next_poll() => {}
            () = until_cancelled(cluster, &self.attempt) => {}
        }
        Ok(None)
    }

    fn job_of(&self, id: JobId) -> Job {
        let retry_lost = self.cluster.as_ref().is_some_and(|cluster| cluster.settings.retry_lost);
        Job { launcher: self.launch.launcher.clone(), id, retry_lost }
    }

    fn note_job(&mut self, id: JobId) -> Result<(), FileError> {
        // Kept only if it is written. Otherwise the next look finds the job again, and reports it.
        let launch = Launch { job: Some(id), ..self.launch.clone() };
        launch.write(&self.attempt)?;
        self.launch = launch;
        crash_point::at(Point::JobNoted);
        self.reporter.send(Report::Submitted { job: self.job_of(id) });
        Ok(())
    }

    /// Evaluates the latest answer of the scheduler, if it is new.
    fn consider_answer(&mut self) -> Result<(), FileError> {
        let Some(cluster) = &self.cluster else { return Ok(()) };
        let answers = cluster.answers();
        if answers.number == self.considered {
            return Ok(());
        }
        self.considered = answers.number;
        let Some(state) = self.state_in(&answers) else { return Ok(()) };
        self.engine.add(state, process::monotonic());
        // The server that submitted the job died before it could record the number, and the job has begun since.
        match self.job.as_ref().map(|job| job.job) {
            Some(job) if self.launch.job.is_none() => self.note_job(job),
            _ => Ok(()),
        }
    }

    /// Returns the state of the job. `None` if the poll began before the job was submitted.
    fn state_in(&mut self, answers: &Answers) -> Option<EngineState> {
        if answers.problem.is_some() {
            return Some(EngineState::Unknown);
        }
        if answers.asked.is_none_or(|asked| asked < self.submitted) {
            return None;
        }
        self.job = slurm::job_of(&answers.jobs, &self.worker.id, self.worker.attempt).cloned();
        Some(self.job.as_ref().map_or(EngineState::Gone, |job| job.state.clone()))
    }

    /// Does what the evidence demands.
    async fn act(&mut self) -> Result<Option<Report>, FileError> {
        let claim = if self.begun { Claim::Supervisor } else { Claim::None };
        let lost_after = self.cluster.as_ref().map_or(LOST_AFTER, |cluster| cluster.lost_after());
        let heartbeat =
            if self.is_revoked { Heartbeat::Stale } else { Heartbeat::after(self.changed.elapsed(), lost_after) };
        match life(&Evidence { has_outcome: false, claim, engine: &self.engine, heartbeat }) {
            Life::Waits => self.report_reason(),
            Life::Starts => self.report_wait(format!("the cluster: its job starts on {}", self.node()), false),
            Life::StartsLate => {
                let log = self.attempt.engine_log();
                let why = format!("the supervisor, although its job runs on {}: see {}", self.node(), log.display());
                self.report_wait(why, true);
            }
            Life::NotKnown => self.report_problem(),
            Life::Fence => return self.fence(|follower| follower.end_before_begin()),
            Life::Silent => return self.consider_silence().await,
            Life::CancelQueued => self.cancel_job(),
            Life::Lost => return self.lose().await,
            Life::Settled | Life::AskAgain | Life::Alive | Life::AliveAndQueued | Life::CutOff => {}
        }
        Ok(None)
    }

    fn report_reason(&mut self) {
        let Some((job, EngineState::Waits { reason })) = self.job.as_ref().map(|job| (job, &job.state)) else { return };
        let settings = self.cluster.as_ref().map(|cluster| &cluster.settings);
        let partition = settings.and_then(LauncherSettings::partition);
        let words = slurm::describe(reason, job.job, partition, job.start, Zoned::now().datetime());
        let hints = slurm::lasting(reason, &self.launch.launcher, job.job);
        let is_lasting = hints.is_some();
        let advice = Advice { text: format!("the cluster: {words}"), hints: hints.unwrap_or_default() };
        self.report_wait(advice.line(Hint::words), is_lasting);
    }

    fn report_problem(&mut self) {
        let Some(cluster) = &self.cluster else {
            let why = format!("the launcher {}, which is not in the settings any more", self.launch.launcher);
            return self.report_wait(why, true);
        };
        let why = match cluster.answers().problem {
            Some(problem) => problem.words(),
            None => "the cluster to report on its job".to_owned(),
        };
        self.report_wait(why, false);
    }

    fn report_wait(&mut self, why: String, is_lasting: bool) {
        let waits = ClusterWait { why, is_lasting };
        if self.waits != waits {
            self.waits = waits.clone();
            self.reporter.send(Report::Waits(waits));
        }
    }

    /// Looks for the record of a supervisor that has not written for long although its job is not known to be over. The
    /// supervisor may be suspended, or could not write that it has settled. If the launcher was removed from the
    /// settings, no cluster can report that the job is over, so a cancellation makes the worker count as lost.
    async fn consider_silence(&mut self) -> Result<Option<Report>, FileError> {
        if let Some(outcome) = self.attempt.outcome()? {
            return Ok(Some(Report::Ended(Box::new(outcome))));
        }
        if self.cluster.is_none() && self.attempt.cancelled().is_some() {
            return self.lose().await;
        }
        self.report_silence();
        Ok(None)
    }

    fn report_silence(&mut self) {
        let (node, minutes) = (self.node(), self.changed.elapsed().as_secs() / 60);
        let state = match self.engine.state() {
            EngineState::Unknown => "the cluster does not answer".to_owned(),
            _ => "the cluster reports that its job runs".to_owned(),
        };
        let Some(status) = &mut self.status else { return };
        let evidence = format!("no heartbeat from {node} for {minutes} minutes; {state}");
        if status.stalled.as_ref() != Some(&evidence) {
            status.stalled = Some(evidence);
            self.reporter.send(Report::Status(Box::new(status.clone())));
        }
    }

    /// Returns why an attempt ended before a supervisor claimed it. `None` if the cluster forgot its job, so that it can be
    /// tried again.
    fn end_before_begin(&self) -> Option<String> {
        let log = files::read_end(&self.attempt.engine_log(), QUOTED);
        let how = match self.engine.state() {
            EngineState::Ended(state) => format!("its job ended as {state}"),
            _ if !log.trim().is_empty() => "its job ended, and the cluster does not know it any more".to_owned(),
            _ if self.forgotten() >= MOST_FORGOTTEN => {
                format!("the cluster has forgotten {MOST_FORGOTTEN} of its jobs")
            }
            _ => return None,
        };
        let said = match log.trim() {
            // Such a job cannot write its log either.
            "" => format!(
                " and printed nothing: check that the node sees {} under the same path",
                self.attempt.root().display()
            ),
            said => format!(":\n{said}"),
        };
        Some(format!("cannot start the supervisor on {}: {how}{said}", self.node()))
    }

    /// Returns the number of attempts in a row that had a job and did not begin.
    fn forgotten(&self) -> u32 {
        let settled = self.worker.last().map_or(0, |last| last.attempt);
        let had_job = |number: u32| {
            let launch = Launch::read(&self.attempt.worker().attempt(number));
            launch.ok().flatten().is_some_and(|launch| launch.job.is_some())
        };
        (settled + 1..=self.worker.attempt).map(|number| u32::from(had_job(number))).sum()
    }

    /// Makes sure that no supervisor begins the attempt, and ends it: with a failure, or back into the queue. Returns
    /// `None` if a supervisor has claimed it.
    fn fence(&mut self, failure: impl FnOnce(&Self) -> Option<String>) -> Result<Option<Report>, FileError> {
        if !self.attempt.fence()? {
            self.begun = true;
            return Ok(None);
        }
        crash_point::at(Point::JobFenced);
        PassedEnvironment::remove(self.attempt.root());
        self.cancel_job();
        let inbox_entries = self.attempt.close_inbox_unread()?;
        let Some(message) = failure(self) else { return Ok(Some(Report::NeverBegan { inbox_entries })) };
        let failure = Failure { kind: FailureKind::CouldNotStart, message, resets_at: None };
        let mut outcome = outcomes::never_ran(&self.worker, self.worker.attempt, Ending::Failed, Some(failure));
        outcome.run.place_failed = true;
        outcome.run.undelivered.extend(inbox_entries.into_iter().filter_map(InboxEntry::into_text));
        self.attempt.settle(&outcome)?;
        Ok(Some(Report::Ended(Box::new(outcome))))
    }

    /// Ends an attempt whose node is gone. If a supervisor still lives there, it sees that its claim is revoked, and
    /// ends without a record.
    async fn lose(&mut self) -> Result<Option<Report>, FileError> {
        if let Some(outcome) = self.attempt.outcome()? {
            return Ok(Some(Report::Ended(Box::new(outcome))));
        }
        if !self.attempt.assignment().exists() {
            return Ok(Some(Report::Ended(Box::new(outcomes::folder_removed(&self.worker)))));
        }
        self.attempt.revoke()?;
        crash_point::at(Point::JobRevoked);
        let outcome = lost::lost_on_node(&self.attempt, &self.worker, self.loss(), self.containment().await).await;
        crash_point::at(Point::LossCleanedUp);
        let is_ours = self.attempt.settle(&outcome)?;
        crash_point::at(Point::LossRecorded);
        let outcome = if is_ours { Some(outcome) } else { self.attempt.outcome()? };
        Ok(outcome.map(|outcome| Report::Ended(Box::new(outcome))))
    }

    /// Returns the failure. Only the failure of a node may be retried automatically.
    fn loss(&self) -> Failure {
        let is_of_host = matches!(self.engine.state(), EngineState::Ended(state) if state.is_of_the_host());
        let kind = if is_of_host { FailureKind::HostLost } else { FailureKind::Lost };
        Failure { kind, message: self.words_of_loss(), resets_at: None }
    }

    fn words_of_loss(&self) -> String {
        let state = match self.engine.state() {
            EngineState::Ended(EndState::Preempted) => format!("its job on {} was preempted", self.node()),
            EngineState::Ended(state) if state.is_of_the_host() => format!("node {} failed ({state})", self.node()),
            EngineState::Ended(state) => format!("its job on {} ended ({state})", self.node()),
            EngineState::Unknown => self.words_without_answer(),
            _ => format!("the cluster does not know its job on {} any more", self.node()),
        };
        let branch = self.worker.mission.place.branch();
        let committed = branch.map_or_else(String::new, |branch| format!("committed work is on branch {branch}, "));
        let silence = if self.is_revoked {
            "an earlier server gave it up".to_owned()
        } else {
            format!("there was no heartbeat for {} s", self.changed.elapsed().as_secs())
        };
        let place = self.worker.mission.place.path().display();
        format!("{state}, and {silence}; {committed}uncommitted changes are in {place}")
    }

    /// Describes a job of which the cluster said nothing, such as one whose launcher is not in the settings any more.
    fn words_without_answer(&self) -> String {
        let launcher = &self.launch.launcher;
        let why = if self.cluster.is_none() { "is not in the settings any more" } else { "did not answer" };
        let job = self.launch.job.map_or_else(|| "its job".to_owned(), |job| format!("its job {job}"));
        format!(
            "the launcher {launcher} {why}, so {job} on {} was neither checked nor cancelled and may run on",
            self.node()
        )
    }

    /// Returns how certain it is that nothing of the worker runs. On a node that does not answer, processes may run on,
    /// although the job has ended, for example as cancelled. A job without a node was queued again, and its first run
    /// may go on.
    async fn containment(&self) -> Containment {
        let has_ended = matches!(self.engine.state(), EngineState::Ended(state) if *state != EndState::NodeFail);
        let node = self.job.as_ref().filter(|_| has_ended).and_then(|job| job.node.as_deref());
        match (&self.cluster, node) {
            (Some(cluster), Some(node)) if cluster.tracks_by_cgroup().await && cluster.answers_on(node).await => {
                Containment::Full
            }
            _ => Containment::BestEffort,
        }
    }

    fn cancel_job(&self) {
        if let Some(cluster) = self.cluster.as_ref().filter(|_| self.may_exist || self.launch.job.is_some()) {
            cluster.cancel(&self.worker.id, self.worker.attempt, self.launch.job);
        }
    }

    fn node(&self) -> String {
        let by_status = self.status.as_ref().and_then(|status| Some(status.host.as_ref()?.name.clone()));
        let by_cluster = || self.job.as_ref().and_then(|job| job.node.clone());
        by_status.or_else(by_cluster).unwrap_or_else(|| "a node".to_owned())
    }
}

/// Waits until an attempt that has not begun is cancelled.
async fn until_cancelled(cluster: &Cluster, attempt: &AttemptDir) {
    while attempt.cancelled().is_none() {
        cluster.until_next_look(LOOK_EVERY).await;
    }
}

/// Submits the job of an attempt.
async fn submission(
    context: &Context,
    cluster: &Cluster,
    attempt: &AttemptDir,
    worker: &Worker,
    may_exist: bool,
) -> Result<Submission, OrchestratorError> {
    let names = cluster.names().await?;
    let setup = assignment(attempt).and_then(|assignment| assignment.setup);
    let mission = &worker.mission;
    let minutes = job_time::minutes(
        &context.settings,
        mission.timeout_minutes,
        mission.verify_command.is_some(),
        setup.map(|setup| setup.timeout_minutes),
    );
    // A job that was submitted may have begun.
    if !may_exist {
        job_time::refuse_over_limit(cluster, async { Ok(minutes) }).await?;
    }
    let request = JobRequest {
        names,
        worker: &worker.id,
        attempt: worker.attempt,
        folder: attempt.root(),
        program: cluster.settings.program.as_deref().unwrap_or_else(|| context.program.path()),
        launcher: &cluster.name,
        settings: &cluster.settings,
        minutes: minutes.total(),
    };
    Ok(slurm::submit(&cluster.engine, &request, may_exist).await)
}

/// Reports that the supervisor runs, with the place that was recorded when the attempt was prepared.
fn recorded_place(attempt: &AttemptDir) -> Report {
    let recorded = attempt.worker().recorded().ok().flatten();
    let place = recorded.map(|worker| (worker.base_commit, worker.base_branch, worker.repository));
    let (base_commit, base_branch, repository) = place.unwrap_or_default();
    Report::Started { base_commit, base_branch, repository }
}
