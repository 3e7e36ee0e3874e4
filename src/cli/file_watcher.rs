//! Wakes a command when files in a folder change. The system reports changes (inotify, kqueue); a poll every two
//! seconds covers lost reports. If nothing can be watched, it polls twice a second.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

const FALLBACK_POLL: Duration = Duration::from_secs(2);
const UNWATCHED_POLL: Duration = Duration::from_millis(500);
/// Several changes in a row cause one wake-up.
const DEBOUNCE: Duration = Duration::from_millis(30);

pub(super) struct FileWatcher {
    wake: Arc<Notify>,
    watcher: Option<RecommendedWatcher>,
    watched: HashSet<PathBuf>,
}

impl FileWatcher {
    /// Creates a watcher that reports only relevant paths.
    pub fn new(is_relevant: fn(&Path) -> bool) -> Self {
        let wake = Arc::new(Notify::new());
        let waker = Arc::clone(&wake);
        let on_event = move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| !event.kind.is_access() && event.paths.iter().any(|path| is_relevant(path))) {
                waker.notify_one();
            }
        };
        Self { wake, watcher: notify::recommended_watcher(on_event).ok(), watched: HashSet::new() }
    }

    /// Watches a folder. If it does not exist yet, the caller must call again.
    pub fn watch(&mut self, folder: &Path) {
        let Some(watcher) = &mut self.watcher else { return };
        if !self.watched.contains(folder) && watcher.watch(folder, RecursiveMode::NonRecursive).is_ok() {
            self.watched.insert(folder.to_owned());
        }
    }

    /// Waits for the next change or poll.
    pub async fn next(&self) {
        let limit = if self.watched.is_empty() { UNWATCHED_POLL } else { FALLBACK_POLL };
        // `Notify` keeps the permit of a change that came since the last call, so none is missed.
        if tokio::time::timeout(limit, self.wake.notified()).await.is_ok() {
            tokio::time::sleep(DEBOUNCE).await;
        }
    }
}
