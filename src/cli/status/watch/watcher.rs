//! Watches the state directory, and the log and changes of the selected worker, on its own thread. Only reads. A
//! directory that does not exist yet, or is replaced, is checked every second.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};

use super::super::dashboard::Dashboard;
use super::log::LogTail;
use super::state::{Pane, ScreenEvent};
use crate::cli::error::CliError;
use crate::cli::workspace::Workspace;
use crate::git::{self, Checkout, Trust};
use crate::mission::id::WorkerId;
use crate::mission::registry::Worker;
use crate::orchestrator::{self, Observer, OrchestratorError, Overview};

/// Interval of updates without changes: for the clocks, and for missed changes.
const TICK: Duration = Duration::from_secs(1);
/// Time in which several changes cause one update.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// Interval of new diffs for a running worker.
const DIFF_INTERVAL: Duration = Duration::from_secs(3);
/// Maximum size of a diff in bytes.
const MAX_DIFF: usize = 256 * 1024;

/// The selected worker and pane.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Focus {
    pub worker: Option<WorkerId>,
    /// Number of the selection; a new one requests all data again.
    pub choice: u64,
    pub pane: Pane,
}

pub(super) enum WatcherMessage {
    FileChanged,
    Focus(Focus),
}

pub(super) struct StateWatcher {
    state_root: PathBuf,
    repository: Option<PathBuf>,
    /// The integration branch that the settings name.
    set_branch: Option<String>,
    events: Sender<ScreenEvent>,
    observer: Option<Observer>,
    /// Identifies the journal's folder, which may be replaced.
    inode: Option<u64>,
    watcher: Option<RecommendedWatcher>,
    watched: Vec<PathBuf>,
    focus: Focus,
    followed: Option<(WorkerId, u32, LogTail)>,
    /// The last diff: its worker, whether that had settled, and the time.
    diffed: Option<(WorkerId, bool, Instant)>,
    diffing: Arc<AtomicBool>,
}

impl StateWatcher {
    pub fn new(workspace: &Workspace, events: Sender<ScreenEvent>, messages: Sender<WatcherMessage>) -> Self {
        let on_event = move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| !event.kind.is_access()) {
                // The receiver is gone once the screen has ended.
                let _ = messages.send(WatcherMessage::FileChanged);
            }
        };
        Self {
            state_root: workspace.state_root.clone(),
            repository: workspace.repository.clone(),
            set_branch: workspace.settings.integration_branch.clone(),
            events,
            observer: None,
            inode: None,
            watcher: notify::recommended_watcher(on_event).ok(),
            watched: Vec::new(),
            focus: Focus::default(),
            followed: None,
            diffed: None,
            diffing: Arc::new(AtomicBool::new(false)),
        }
    }

    /// Sends updates until the screen has ended.
    pub fn run(mut self, messages: &Receiver<WatcherMessage>) {
        loop {
            let began = Instant::now();
            let overview = self.read_overview();
            let more = self.follow();
            self.diff();
            let dashboard = overview.map(|overview| overview.map(|overview| Box::new(self.dashboard(&overview))));
            if self.events.send(ScreenEvent::Seen(dashboard)).is_err() {
                return;
            }
            let patience = if more { Duration::ZERO } else { TICK };
            if !self.wait(messages, began, patience) {
                return;
            }
        }
    }

    /// Waits for the next update: at once after a new selection, a little later after changes of files. Returns false
    /// if the screen has ended.
    fn wait(&mut self, messages: &Receiver<WatcherMessage>, last_read: Instant, patience: Duration) -> bool {
        let mut until = last_read + patience;
        loop {
            match messages.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(WatcherMessage::FileChanged) => until = until.min((last_read + DEBOUNCE).max(Instant::now())),
                Ok(WatcherMessage::Focus(focus)) => {
                    if focus.choice != self.focus.choice {
                        (self.followed, self.diffed) = (None, None);
                    }
                    self.focus = focus;
                    until = Instant::now();
                }
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }

    fn dashboard(&self, overview: &Overview) -> Dashboard {
        let mut dashboard = Dashboard::of(overview);
        let wanted = self.focus.worker.as_ref();
        let mut all = dashboard.groups.iter_mut().flat_map(|group| &mut group.workers);
        if let (Some(shown), Some(observer)) = (all.find(|it| Some(&it.view.worker.id) == wanted), &self.observer) {
            shown.messages = orchestrator::messages_to(&shown.view.worker, &observer.folder(&shown.view.worker.id));
        }
        dashboard
    }

    fn read_overview(&mut self) -> Result<Option<Overview>, OrchestratorError> {
        let inode = std::fs::metadata(self.state_root.join("journal")).ok().map(|metadata| metadata.ino());
        if inode.is_none() || inode != self.inode {
            (self.observer, self.inode) = (None, inode);
            // The same names are different workers now.
            (self.followed, self.diffed) = (None, None);
            self.forget_watches();
        }
        if self.observer.is_none() {
            self.observer = Observer::open(&self.state_root, self.set_branch.as_deref())?;
        }
        let Some(observer) = &mut self.observer else { return Ok(None) };
        let overview = observer.read();
        if overview.is_err() {
            self.observer = None;
        }
        self.watch(&self.state_root.join("journal"));
        overview.map(Some)
    }

    fn watch(&mut self, folder: &Path) {
        let Some(watcher) = &mut self.watcher else { return };
        if !self.watched.iter().any(|it| it == folder) && watcher.watch(folder, RecursiveMode::NonRecursive).is_ok() {
            self.watched.push(folder.to_owned());
        }
    }

    fn forget_watches(&mut self) {
        let Some(watcher) = &mut self.watcher else { return };
        for folder in self.watched.drain(..) {
            // A watch ends with its folder.
            let _ = watcher.unwatch(&folder);
        }
    }

    fn wanted(&self) -> Option<Arc<Worker>> {
        let observer = self.observer.as_ref()?;
        Some(observer.find(self.focus.worker.as_ref()?.as_str()).ok()?.worker)
    }

    /// Sends new lines of the log. Returns whether there is more to read at once.
    fn follow(&mut self) -> bool {
        let (Some(worker), Some(observer)) = (self.wanted(), &self.observer) else { return false };
        let attempt = observer.folder(&worker.id).attempt(worker.attempt);
        let is_it = |(id, number, _): &(WorkerId, u32, LogTail)| *id == worker.id && *number == worker.attempt;
        let fresh = !self.followed.as_ref().is_some_and(is_it);
        if fresh {
            self.forget_watches();
            self.watch(&self.state_root.join("journal"));
            self.watch(attempt.root());
            self.followed = Some((worker.id.clone(), worker.attempt, LogTail::new(attempt.events())));
        }
        let Some((_, _, follow)) = &mut self.followed else { return false };
        let (lines, more) = follow.more();
        if fresh || !lines.is_empty() {
            // A closed channel is noticed by `run`.
            let _ = self.events.send(ScreenEvent::Logged { worker: worker.id.clone(), fresh, lines });
        }
        more
    }

    /// Starts a diff on its own thread, since git may be slow; one at a time.
    fn diff(&mut self) {
        let Some(worker) = self.wanted().filter(|_| self.focus.pane == Pane::Diff) else {
            self.diffed = None;
            return;
        };
        let settled = worker.status.is_settled();
        // A diff from before the end may be outdated.
        let is_fresh = |(id, was_settled, at): &(WorkerId, bool, Instant)| {
            *id == worker.id && *was_settled == settled && (settled || at.elapsed() < DIFF_INTERVAL)
        };
        if self.diffed.as_ref().is_some_and(is_fresh) || self.diffing.swap(true, Ordering::AcqRel) {
            return;
        }
        self.diffed = Some((worker.id.clone(), settled, Instant::now()));
        let (state_root, repository) = (self.state_root.clone(), self.repository.clone());
        let attempt = self.observer.as_ref().map(|observer| observer.folder(&worker.id).attempt(worker.attempt));
        let (events, diffing) = (self.events.clone(), Arc::clone(&self.diffing));
        std::thread::spawn(move || {
            let base = attempt.map_or(Ok(None), |attempt| orchestrator::base_commit(&worker, &attempt));
            let text = base.map_err(CliError::from).and_then(|base| match base {
                Some(base) => Ok(changes_of(&worker, &base, &state_root, repository.as_deref())?),
                None => Err(CliError::Failed(
                    "no changes to show: it never started, or works outside a repository".to_owned(),
                )),
            });
            diffing.store(false, Ordering::Release);
            let _ = events.send(ScreenEvent::Diffed { worker: worker.id.clone(), text });
        });
    }
}

/// Returns the diff of the worker's directory or, if its worktree is gone, of its branch.
fn changes_of(
    worker: &Worker,
    base: &str,
    state_root: &Path,
    repository: Option<&Path>,
) -> Result<String, OrchestratorError> {
    let own = repository.map(|root| orchestrator::own_repository(root, state_root)).transpose()?.flatten();
    let place = worker.mission.place.path();
    let unknown = || Checkout::new(place, &Trust::recorded(state_root, None));
    let directory = &own.as_ref().map_or_else(unknown, |it| it.at(place));
    let page = match (orchestrator::branch_to_compare(worker), &own) {
        (Some(branch), Some(repository)) => {
            let tip = git::branch_tip(repository, branch, worker.last_commit())?;
            git::commit_diff(repository, &tip.commit, base, 0, MAX_DIFF)?
        }
        _ => git::diff(directory, base, 0, MAX_DIFF)?,
    };
    Ok(match page.next_offset {
        Some(_) => format!("{}\n… see all with orchestrator-boss diff {}", page.text, worker.id),
        None => page.text,
    })
}
