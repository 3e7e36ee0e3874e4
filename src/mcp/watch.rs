//! Detects changes of resources for subscribed clients. It polls the files behind a resource once a second, since other
//! processes write them, and only while a client is subscribed.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;

use super::resources::Address;
use super::starter::Starter;
use crate::orchestrator::Orchestrator;

const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum number of subscriptions of a client.
pub(super) const MAX_SUBSCRIPTIONS: usize = 100;

/// The modification times and sizes of some files. Empty if they were never read, which differs from any version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct FileVersions(Option<Vec<Option<(SystemTime, u64)>>>);

/// Reads the current versions. It never starts the orchestrator: only calls do.
pub(super) async fn current(starter: &Starter, address: &Address) -> FileVersions {
    match starter.started() {
        Some(orchestrator) => FileVersions(Some(versions(&orchestrator, address).await)),
        None => FileVersions::default(),
    }
}

/// Returns when the resource differs from the last versions, and updates them.
pub(super) async fn changed(starter: &Starter, address: &Address, last: &mut FileVersions) {
    loop {
        let current = current(starter, address).await;
        if current.0.is_some() && current != *last {
            *last = current;
            return;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

async fn versions(orchestrator: &Orchestrator, address: &Address) -> Vec<Option<(SystemTime, u64)>> {
    let files = match address {
        Address::State => vec![orchestrator.state_file()],
        Address::Worker { name, .. } => match orchestrator.get(name).await {
            Ok(view) => {
                let attempt = orchestrator.folder(&view.worker.id).attempt(view.worker.attempt);
                vec![attempt.assignment(), attempt.events(), attempt.outcome_path()]
            }
            Err(_) => Vec::new(),
        },
    };
    let read = move || files.iter().map(version).collect();
    tokio::task::spawn_blocking(read).await.unwrap_or_default()
}

fn version(file: &PathBuf) -> Option<(SystemTime, u64)> {
    let metadata = fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// The subscriptions of the older era. Each runs until the client unsubscribes or the session ends.
#[derive(Clone, Default)]
pub(super) struct Subscriptions {
    running: Arc<Mutex<HashMap<String, CancellationToken>>>,
}

impl Subscriptions {
    /// Adds a subscription and returns the token that ends it; `None` if it exists already, `Err` if there are too
    /// many.
    pub(super) fn add(&self, uri: &str, closing: &CancellationToken) -> Result<Option<CancellationToken>, ()> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.contains_key(uri) {
            return Ok(None);
        }
        if running.len() >= MAX_SUBSCRIPTIONS {
            return Err(());
        }
        let stop = closing.child_token();
        running.insert(uri.to_owned(), stop.clone());
        Ok(Some(stop))
    }

    pub(super) fn remove(&self, uri: &str) {
        let removed = self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(uri);
        if let Some(stop) = removed {
            stop.cancel();
        }
    }
}
