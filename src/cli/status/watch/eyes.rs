//! Looks at the state directory, the selected worker's log and its changes, beside the thread that draws. It reads and
//! changes nothing; a directory that is not there yet, is removed, or comes anew is looked for every second.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};

use super::super::board::Board;
use super::log::Follow;
use super::state::{Event, Pane};
use crate::cli::here::Here;
use crate::cli::hint;
use crate::git::{self, Repository};
use crate::mission::id::WorkerId;
use crate::mission::registry::Worker;
use crate::orchestrator::{self, Observer, OrchestratorError, Overview};

/// For the clocks, and for what watching may have missed.
const TICK: Duration = Duration::from_secs(1);
/// Several changes in a row are looked at once.
const GATHER: Duration = Duration::from_millis(100);
/// A diff of a worker that works is made again so often.
const DIFF_EVERY: Duration = Duration::from_secs(3);
/// Most bytes of a diff.
const DIFF: usize = 256 * 1024;

/// What is looked at closely.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Wish {
    pub worker: Option<WorkerId>,
    /// Another one each time when nothing that was told is known any more.
    pub choice: u64,
    pub pane: Pane,
}

pub(super) enum Poke {
    /// A file was written.
    Changed,
    Wish(Wish),
}

pub(super) struct Eyes {
    state_root: PathBuf,
    repository: Option<PathBuf>,
    /// The integration branch that the settings name.
    set_branch: Option<String>,
    news: Sender<Event>,
    observer: Option<Observer>,
    /// Which folder that is: another one may come in its place.
    inode: Option<u64>,
    watcher: Option<RecommendedWatcher>,
    watched: Vec<PathBuf>,
    wish: Wish,
    followed: Option<(WorkerId, u32, Follow)>,
    /// Whose changes were looked at last, whether it had settled, and when.
    diffed: Option<(WorkerId, bool, Instant)>,
    diffing: Arc<AtomicBool>,
}

impl Eyes {
    pub fn new(here: &Here, news: Sender<Event>, pokes: Sender<Poke>) -> Self {
        let on_event = move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| !event.kind.is_access()) {
                // Nobody looks any more: there is nothing to tell.
                let _ = pokes.send(Poke::Changed);
            }
        };
        Self {
            state_root: here.state_root.clone(),
            repository: here.repository.clone(),
            set_branch: here.settings.integration_branch.clone(),
            news,
            observer: None,
            inode: None,
            watcher: notify::recommended_watcher(on_event).ok(),
            watched: Vec::new(),
            wish: Wish::default(),
            followed: None,
            diffed: None,
            diffing: Arc::new(AtomicBool::new(false)),
        }
    }

    /// Until nobody listens any more.
    pub fn run(mut self, pokes: &Receiver<Poke>) {
        loop {
            let began = Instant::now();
            let overview = self.look();
            let more = self.follow();
            self.diff();
            let board = match overview {
                Ok(overview) => Ok(overview.map(|overview| Box::new(self.board(&overview)))),
                Err(error) => Err(error),
            };
            if self.news.send(Event::Seen(board)).is_err() {
                return;
            }
            let patience = if more { Duration::ZERO } else { TICK };
            if !self.wait(pokes, began, patience) {
                return;
            }
        }
    }

    /// Whether to go on. Who chooses another worker sees it at once; changes of files are gathered.
    fn wait(&mut self, pokes: &Receiver<Poke>, looked: Instant, patience: Duration) -> bool {
        let mut until = looked + patience;
        loop {
            match pokes.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Poke::Changed) => until = until.min((looked + GATHER).max(Instant::now())),
                Ok(Poke::Wish(wish)) => {
                    if wish.choice != self.wish.choice {
                        (self.followed, self.diffed) = (None, None);
                    }
                    self.wish = wish;
                    until = Instant::now();
                }
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }

    fn board(&self, overview: &Overview) -> Board {
        let mut board = Board::of(overview);
        let wanted = self.wish.worker.as_ref();
        let mut all = board.groups.iter_mut().flat_map(|group| &mut group.workers);
        if let (Some(shown), Some(observer)) = (all.find(|it| Some(&it.view.worker.id) == wanted), &self.observer) {
            shown.written = orchestrator::written(&shown.view.worker, &observer.folder(&shown.view.worker.id));
        }
        board
    }

    fn look(&mut self) -> Result<Option<Overview>, String> {
        let inode = std::fs::metadata(self.state_root.join("journal")).ok().map(|metadata| metadata.ino());
        if inode.is_none() || inode != self.inode {
            (self.observer, self.inode) = (None, inode);
            // Workers of the same names are different ones now.
            (self.followed, self.diffed) = (None, None);
            self.forget_watches();
        }
        if self.observer.is_none() {
            let opened = Observer::open(&self.state_root, self.set_branch.as_deref());
            self.observer = opened.map_err(|error| hint::of(&error))?;
        }
        let Some(observer) = &mut self.observer else { return Ok(None) };
        let looked = observer.look().map_err(|error| hint::of(&error));
        if looked.is_err() {
            self.observer = None;
        }
        self.watch(&self.state_root.join("journal"));
        looked.map(Some)
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
            // It is gone with its folder, if that is.
            let _ = watcher.unwatch(&folder);
        }
    }

    fn wanted(&self) -> Option<Arc<Worker>> {
        let observer = self.observer.as_ref()?;
        Some(observer.find(self.wish.worker.as_ref()?.as_str()).ok()?.worker)
    }

    /// Tells whether there is more to read at once.
    fn follow(&mut self) -> bool {
        let (Some(worker), Some(observer)) = (self.wanted(), &self.observer) else { return false };
        let attempt = observer.folder(&worker.id).attempt(worker.attempt);
        let is_it = |(id, number, _): &(WorkerId, u32, Follow)| *id == worker.id && *number == worker.attempt;
        let fresh = !self.followed.as_ref().is_some_and(is_it);
        if fresh {
            self.forget_watches();
            self.watch(&self.state_root.join("journal"));
            self.watch(attempt.root());
            self.followed = Some((worker.id.clone(), worker.attempt, Follow::new(attempt.events())));
        }
        let Some((_, _, follow)) = &mut self.followed else { return false };
        let (lines, more) = follow.more();
        if fresh || !lines.is_empty() {
            // That nobody listens is found at the end of the look.
            let _ = self.news.send(Event::Logged { worker: worker.id.clone(), fresh, lines });
        }
        more
    }

    /// Git may take its time: in a thread of its own, one at once.
    fn diff(&mut self) {
        let Some(worker) = self.wanted().filter(|_| self.wish.pane == Pane::Diff) else {
            self.diffed = None;
            return;
        };
        let settled = worker.status.is_settled();
        // What was looked at before its end may have changed until then.
        let is_fresh = |(id, was_settled, at): &(WorkerId, bool, Instant)| {
            *id == worker.id && *was_settled == settled && (settled || at.elapsed() < DIFF_EVERY)
        };
        if self.diffed.as_ref().is_some_and(is_fresh) || self.diffing.swap(true, Ordering::AcqRel) {
            return;
        }
        self.diffed = Some((worker.id.clone(), settled, Instant::now()));
        let (state_root, repository) = (self.state_root.clone(), self.repository.clone());
        let attempt = self.observer.as_ref().map(|observer| observer.folder(&worker.id).attempt(worker.attempt));
        let (news, diffing) = (self.news.clone(), Arc::clone(&self.diffing));
        std::thread::spawn(move || {
            let base = attempt.map_or(Ok(None), |attempt| orchestrator::base_commit(&worker, &attempt));
            let text = base.map_err(|error| hint::of(&error)).and_then(|base| match base {
                Some(base) => changes_of(&worker, &base, &state_root, repository.as_deref()),
                None => Err("it did not begin, or not in a repository".to_owned()),
            });
            diffing.store(false, Ordering::Release);
            let _ = news.send(Event::Diffed { worker: worker.id.clone(), text });
        });
    }
}

/// Against the files in its directory; of a worktree that is gone, what is on its branch.
fn changes_of(worker: &Worker, base: &str, state_root: &Path, repository: Option<&Path>) -> Result<String, String> {
    let discovered = repository.map(Repository::discover).transpose().map_err(|error| hint::of(&error))?.flatten();
    if let Some(repository) = &discovered {
        let kept = orchestrator::keep_git_to_what_is_remembered(state_root, repository);
        kept.map_err(|error: OrchestratorError| hint::of(&error))?;
    }
    let directory = worker.mission.place.path();
    let page = match (worker.mission.place.branch().filter(|_| !directory.exists()), &discovered) {
        (Some(branch), Some(repository)) => git::branch_diff(repository, branch, base, 0, DIFF),
        _ => git::diff(directory, base, 0, DIFF),
    };
    let page = page.map_err(|error| hint::of(&error))?;
    Ok(match page.next_offset {
        Some(_) => format!("{}\n… orchestrator-boss diff {} shows all of it", page.text, worker.id),
        None => page.text,
    })
}
