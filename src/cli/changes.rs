//! Wakes a command when a folder may say something new: by the system's word (inotify, kqueue), and every two seconds in
//! case a word is lost. Where nothing can be watched it looks twice a second.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

const SAFETY: Duration = Duration::from_secs(2);
const UNWATCHED: Duration = Duration::from_millis(500);
/// Of several changes in a row, one is enough to look again.
const GATHER: Duration = Duration::from_millis(30);

pub(super) struct Changes {
    wake: Arc<Notify>,
    watcher: Option<RecommendedWatcher>,
    watched: HashSet<PathBuf>,
}

impl Changes {
    /// Only of paths that it heeds.
    pub fn new(heeds: fn(&Path) -> bool) -> Self {
        let wake = Arc::new(Notify::new());
        let waker = Arc::clone(&wake);
        let on_event = move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| !event.kind.is_access() && event.paths.iter().any(|path| heeds(path))) {
                waker.notify_one();
            }
        };
        Self { wake, watcher: notify::recommended_watcher(on_event).ok(), watched: HashSet::new() }
    }

    /// What lies in this folder, from now on. One that is not there yet is asked for again by the caller.
    pub fn watch(&mut self, folder: &Path) {
        let Some(watcher) = &mut self.watcher else { return };
        if !self.watched.contains(folder) && watcher.watch(folder, RecursiveMode::NonRecursive).is_ok() {
            self.watched.insert(folder.to_owned());
        }
    }

    pub async fn next(&self) {
        let patience = if self.watched.is_empty() { UNWATCHED } else { SAFETY };
        // The permit of a change that came since the last look is kept, so none is missed.
        if tokio::time::timeout(patience, self.wake.notified()).await.is_ok() {
            tokio::time::sleep(GATHER).await;
        }
    }
}
