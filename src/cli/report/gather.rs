//! Gathers the data of a report from a state directory and its repository. Changes nothing there. Reads no settings,
//! since they may hold secrets (keys of custom backends) that do not belong in a report.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::conversation::Conversation;
use crate::attempt::assignment::Assignment;
use crate::attempt::worker_dir::AttemptDir;
use crate::files;
use crate::git::{self, Checkout, FileChange};
use crate::mission::budget::Spent;
use crate::mission::entry::{AttemptSummary, Start};
use crate::mission::id::BossId;
use crate::mission::lifecycle::{Ending, WorkerStatus};
use crate::mission::message::Author;
use crate::mission::outcome::{Changes, WorktreeSetup};
use crate::mission::registry::Worker;
use crate::orchestrator::{self, DeliveryState, MessageView, Observer, OrchestratorError, Overview, WorkerView};

/// Maximum number of workers in a report, the newest ones.
const MOST_WORKERS: usize = 500;
/// Maximum size in bytes of HTML: of all conversations, and of one.
const ALL_CONVERSATIONS: usize = 12 << 20;
const ONE_CONVERSATION: usize = 96 << 10;
/// Maximum number of attempts of a worker with a conversation; the others only have the outcome.
const MOST_CONVERSATIONS: usize = 4;

#[derive(Debug, Default)]
pub struct ReportFilter {
    /// The boss's id, or its beginning.
    pub boss: Option<String>,
    /// Includes workers that were created or settled since then, or are open.
    pub since: Option<Timestamp>,
}

pub struct ReportData {
    /// The repository's name, or the folder's.
    pub name: String,
    pub place: PathBuf,
    pub state_root: PathBuf,
    pub as_of: Timestamp,
    pub since: Option<Timestamp>,
    pub integration_branch: Option<String>,
    /// The bosses in order of their first workers; each has at least one.
    pub bosses: Vec<BossReport>,
    /// Older workers that did not fit.
    pub left_out: usize,
}

pub struct BossReport {
    pub id: BossId,
    pub directory: Option<PathBuf>,
    pub workers: Vec<WorkerSection>,
}

pub struct WorkerSection {
    pub view: WorkerView,
    /// Oldest first; the last one may be open.
    pub attempts: Vec<AttemptSection>,
    /// The spending of all attempts, including the running one.
    pub spent: Spent,
    /// The changed files of the last attempt with changes, with their lines if git still has the commits.
    pub files: Vec<FileLines>,
    /// Messages to the newest attempt that wait, or were never delivered.
    pub undelivered: Vec<MessageView>,
    /// The worker's folder.
    pub folder: PathBuf,
}

pub struct FileLines {
    pub path: String,
    /// The numbers of added and deleted lines.
    pub lines: Option<(usize, usize)>,
}

pub struct AttemptSection {
    pub number: u32,
    pub backend: String,
    pub model: Option<String>,
    pub status: WorkerStatus,
    pub began: Option<Timestamp>,
    /// The time when it settled.
    pub ended: Option<Timestamp>,
    /// Seconds that it ran, verification included, and the seconds of verification.
    pub seconds: u64,
    pub verifying_seconds: f64,
    pub brief: Option<AttemptSummary>,
    /// The setup of its worktree, with the end of the log.
    pub setup: Option<WorktreeSetup>,
    /// The final message, as far as it is kept.
    pub final_message: String,
    /// Its context, and the messages with which it began instead of the mission's prompt, with their authors. A text
    /// without an author is from this program.
    pub asked: Vec<(Option<Author>, String)>,
    pub conversation: Option<Conversation>,
}

impl ReportData {
    pub fn workers(&self) -> impl Iterator<Item = &WorkerSection> {
        self.bosses.iter().flat_map(|boss| &boss.workers)
    }

    /// Reads the data; `None` if no worker matches the filter.
    pub fn gather(
        observer: &mut Observer,
        filter: &ReportFilter,
        place: &Path,
    ) -> Result<Option<Self>, OrchestratorError> {
        let overview = observer.read()?;
        let mut views = observer.archived(|worker| filter.includes(worker));
        views.extend(overview.workers().filter(|view| filter.includes(&view.worker)).cloned());
        let left_out = views.len().saturating_sub(MOST_WORKERS);
        views.drain(..left_out);
        if views.is_empty() {
            return Ok(None);
        }
        let attempts: usize = views.iter().map(|view| view.worker.settled.len().clamp(1, MOST_CONVERSATIONS)).sum();
        let room = (ALL_CONVERSATIONS / attempts.max(1)).min(ONE_CONVERSATION);
        let repository = overview.repository.clone();
        let as_of = overview.as_of;
        let report =
            views.into_iter().map(|view| WorkerSection::new(observer, view, repository.as_deref(), as_of, room));
        let bosses = by_boss(report, &overview);
        let place = repository.unwrap_or_else(|| place.to_owned());
        Ok(Some(Self {
            name: place.file_name().map_or_else(|| "/".to_owned(), |name| name.to_string_lossy().into_owned()),
            place,
            state_root: observer.state_root().to_owned(),
            as_of,
            since: filter.since,
            integration_branch: overview.integration_branch,
            bosses,
            left_out,
        }))
    }
}

impl ReportFilter {
    fn includes(&self, worker: &Worker) -> bool {
        let is_boss = self.boss.as_ref().is_none_or(|boss| worker.boss.as_str().starts_with(boss));
        let is_new = |since: Timestamp| {
            let settled = worker.last().is_some_and(|brief| brief.settled_at >= since);
            worker.created_at >= since || settled || !worker.status.is_settled()
        };
        is_boss && self.since.is_none_or(is_new)
    }
}

fn by_boss(workers: impl Iterator<Item = WorkerSection>, overview: &Overview) -> Vec<BossReport> {
    let mut bosses: Vec<BossReport> = Vec::new();
    let mut places: HashMap<BossId, usize> = HashMap::new();
    for report in workers {
        let id = report.view.worker.boss.clone();
        let place = *places.entry(id.clone()).or_insert_with(|| {
            let known = overview.bosses.iter().find(|boss| boss.boss == id);
            bosses.push(BossReport {
                directory: known.and_then(|boss| boss.directory.clone()),
                id,
                workers: Vec::new(),
            });
            bosses.len() - 1
        });
        bosses[place].workers.push(report);
    }
    bosses
}

impl WorkerSection {
    fn new(observer: &Observer, view: WorkerView, repository: Option<&Path>, as_of: Timestamp, room: usize) -> Self {
        let worker = &view.worker;
        let folder = observer.folder(&worker.id);
        let settled = worker.settled.iter().enumerate();
        let has_conversation = |at: usize| at + MOST_CONVERSATIONS >= worker.settled.len();
        let mut attempts: Vec<AttemptSection> = settled
            .map(|(at, brief)| {
                let dir = folder.attempt(brief.attempt);
                AttemptSection::settled(&dir, brief, has_conversation(at).then_some(room))
            })
            .collect();
        let mut spent = Spent::default();
        for (at, brief) in worker.settled.iter().enumerate() {
            spent.add(Spent::by(brief, &worker.settled[..at]));
        }
        if worker.status.is_live() {
            let open = AttemptSection::open(&folder.attempt(worker.attempt), &view, as_of, room);
            spent.add(Spent::of(&view.live.as_ref().map(|live| live.usage).unwrap_or_default(), open.seconds));
            attempts.push(open);
        }
        let files = worker
            .last()
            .map(|brief| files(&brief.changes, repository.map(|root| Checkout::new(root, &observer.trust())).as_ref()))
            .unwrap_or_default();
        // The next attempt receives the messages that an earlier one did not.
        let mut undelivered = orchestrator::messages_to_newest_attempt(worker, &folder);
        undelivered.retain(|message| matches!(message.state, DeliveryState::Waiting | DeliveryState::Never));
        Self { attempts, spent, files, undelivered, folder: folder.root().to_owned(), view }
    }

    pub fn brief(&self) -> Option<&AttemptSummary> {
        self.view.worker.last().filter(|_| self.view.worker.status.is_settled())
    }

    pub fn changes(&self) -> Option<&Changes> {
        self.view.worker.last().map(|brief| &brief.changes)
    }
}

impl AttemptSection {
    fn settled(dir: &AttemptDir, brief: &AttemptSummary, room: Option<usize>) -> Self {
        let outcome = dir.outcome().ok().flatten();
        let (final_message, setup) = match outcome {
            Some(outcome) => (outcome.run.final_message, outcome.run.setup),
            None => (brief.final_message.clone(), brief.setup.clone()),
        };
        Self {
            number: brief.attempt,
            backend: brief.backend.to_string(),
            model: brief.model.clone(),
            status: WorkerStatus::Settled(brief.status),
            began: brief.started_at,
            ended: Some(brief.settled_at),
            seconds: brief.elapsed(),
            verifying_seconds: brief.verification.seconds(),
            brief: Some(brief.clone()),
            setup,
            final_message,
            asked: asked(dir),
            conversation: room.map(|room| Conversation::of(dir, room)),
        }
    }

    fn open(dir: &AttemptDir, view: &WorkerView, as_of: Timestamp, room: usize) -> Self {
        let worker = &view.worker;
        let since_start = worker.started_at.map_or(0, |began| as_of.duration_since(began).as_secs().max(0) as u64);
        Self {
            number: worker.attempt,
            backend: worker.next.backend.to_string(),
            model: worker.next.model.clone(),
            status: worker.status,
            began: worker.started_at,
            ended: None,
            seconds: view.elapsed_seconds.unwrap_or(since_start),
            verifying_seconds: 0.0,
            brief: None,
            setup: None,
            final_message: String::new(),
            asked: asked(dir),
            conversation: Some(Conversation::of(dir, room)),
        }
    }

    pub fn is_completed(&self) -> bool {
        self.status == WorkerStatus::Settled(Ending::Completed)
    }
}

/// Reads the messages of a retry from the folder of the attempt.
fn asked(dir: &AttemptDir) -> Vec<(Option<Author>, String)> {
    let assignment: Option<Assignment> = files::read_json(&dir.assignment()).ok().flatten();
    let Some(Assignment { start, context, written, .. }) = assignment else { return Vec::new() };
    let asked = match start {
        Start::Mission => Vec::new(),
        _ if !written.is_empty() => written.into_iter().map(|message| (Some(message.by), message.text)).collect(),
        Start::Prompt { text } | Start::Resume { text, .. } => vec![(None, text)],
    };
    context.into_iter().map(|context| (None, context)).chain(asked).collect()
}

/// Returns the changed files, each with its lines if git still has both commits.
fn files(changes: &Changes, repository: Option<&Checkout>) -> Vec<FileLines> {
    let counted = match (repository, &changes.base_commit, &changes.head) {
        (Some(repository), Some(base), Some(head)) if base != head => git::file_changes(repository, base, head).ok(),
        _ => None,
    };
    let with_lines = |it: FileChange| FileLines { path: it.path, lines: Some((it.insertions, it.deletions)) };
    match counted {
        Some(files) => files.into_iter().map(with_lines).collect(),
        None => changes.files.iter().map(|path| FileLines { path: path.clone(), lines: None }).collect(),
    }
}
