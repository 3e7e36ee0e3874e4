//! Telling a client that a resource changed. The files behind it are looked at once a second, and only while somebody
//! listens: their writers are other processes, and a look costs a few calls to the system.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;

use super::lead::Lead;
use super::resources::Address;
use crate::orchestrator::Orchestrator;

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Resources that one client may listen to at once.
pub(super) const MOST: usize = 100;

/// What tells one version of some files from another. Nothing was looked at: as good as changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Seen(Option<Vec<Option<(SystemTime, u64)>>>);

/// What it looks like now. Never drives a start of the orchestrator: that is for calls.
pub(super) async fn now(lead: &Lead, address: &Address) -> Seen {
    match lead.now() {
        Some(orchestrator) => Seen(Some(look(&orchestrator, address).await)),
        None => Seen::default(),
    }
}

/// Returns when the resource looks otherwise than it was seen last, and remembers that.
pub(super) async fn changed(lead: &Lead, address: &Address, seen: &mut Seen) {
    loop {
        let now = now(lead, address).await;
        if now.0.is_some() && now != *seen {
            *seen = now;
            return;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn look(orchestrator: &Orchestrator, address: &Address) -> Vec<Option<(SystemTime, u64)>> {
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
    let versions = move || files.iter().map(version).collect();
    tokio::task::spawn_blocking(versions).await.unwrap_or_default()
}

fn version(file: &PathBuf) -> Option<(SystemTime, u64)> {
    let metadata = fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// The subscriptions of the older era: each runs until it is given up or the session ends.
#[derive(Clone, Default)]
pub(super) struct Subscriptions {
    running: Arc<Mutex<HashMap<String, CancellationToken>>>,
}

impl Subscriptions {
    /// The token that ends it. `None`: it runs already. `Err`: there are too many.
    pub(super) fn add(&self, uri: &str, closing: &CancellationToken) -> Result<Option<CancellationToken>, ()> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.contains_key(uri) {
            return Ok(None);
        }
        if running.len() >= MOST {
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
