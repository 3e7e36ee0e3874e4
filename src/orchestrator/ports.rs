//! Blocks of ten ports, one for each worker with a worktree, so that the servers of several workers do not collide.
//!
//! The servers of a state directory share one record of the blocks. A worker keeps its block until its worktree is
//! removed. A worker without a block works as well, so no failure here keeps one from starting.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};

use crate::attempt::state_dir::StateDir;
use crate::files::lease;
use crate::files::{self, FileError};
use crate::git::Worktree;
use crate::mission::id::WorkerId;

/// First port of the first block. All blocks are below the ports that systems give to clients.
const FIRST: u16 = 20_000;
const SIZE: u16 = 10;
const BLOCKS: u16 = 1_200;

/// The workers by the first port of their blocks.
type Blocks = BTreeMap<u16, WorkerId>;

/// Returns the first port of the worker's block: that of its earlier attempts, or else a free one. `None` if there is
/// none, or the record cannot be used.
pub(super) fn block_of(dir: &StateDir, worker: &WorkerId) -> Option<u16> {
    let mut hasher = DefaultHasher::new();
    // Another state directory begins elsewhere, since it does not know these blocks.
    (dir.root(), worker.as_str()).hash(&mut hasher);
    let start = (hasher.finish() % u64::from(BLOCKS)) as u16;
    let taken = change(dir, |blocks| {
        let found = take(blocks, worker, start, is_free);
        found.or_else(|| {
            blocks.retain(|_, owner| has_worktree(dir, owner));
            take(blocks, worker, start, is_free)
        })
    });
    taken.unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot record the ports of a worker: it gets none");
        None
    })
}

/// Returns the ports of a block on which processes listen. Other programs may have taken them, since a worker keeps its
/// block between attempts.
pub(super) fn in_use(first: u16) -> Vec<u16> {
    (first..first + SIZE).filter(|port| !is_free(*port)).collect()
}

/// Frees the block of a worker whose worktree was removed.
pub(super) fn release(dir: &StateDir, worker: &WorkerId) {
    if !dir.ports().exists() {
        return;
    }
    if let Err(error) = change(dir, |blocks| blocks.retain(|_, owner| owner != worker)) {
        tracing::warn!(%error, "cannot free the ports of a worker");
    }
}

/// Changes the record while no other server does.
fn change<T>(dir: &StateDir, change: impl FnOnce(&mut Blocks) -> T) -> Result<T, FileError> {
    let _lock = lease::wait_for(&dir.ports_lock())?;
    let before: Blocks = files::read_json(&dir.ports())?.unwrap_or_default();
    let mut blocks = before.clone();
    let result = change(&mut blocks);
    if blocks != before {
        files::replace_json(&dir.ports(), &blocks, false)?;
    }
    Ok(result)
}

/// Returns the worker's block, or gives it the first free one from number `start` on.
fn take(blocks: &mut Blocks, worker: &WorkerId, start: u16, is_free: impl Fn(u16) -> bool) -> Option<u16> {
    if let Some((port, _)) = blocks.iter().find(|(_, owner)| *owner == worker) {
        return Some(*port);
    }
    let candidates = (0..BLOCKS).map(|number| FIRST + (start + number) % BLOCKS * SIZE);
    let mut untaken = candidates.filter(|port| !blocks.contains_key(port));
    let port = untaken.find(|port| (*port..port + SIZE).all(&is_free))?;
    blocks.insert(port, worker.clone());
    Some(port)
}

/// Returns whether no process listens at the port.
fn is_free(port: u16) -> bool {
    let addresses = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    addresses.into_iter().all(|address| match TcpListener::bind((address, port)) {
        Ok(_) => true,
        // A machine may lack one of the two.
        Err(error) => error.kind() != ErrorKind::AddrInUse,
    })
}

fn has_worktree(dir: &StateDir, worker: &WorkerId) -> bool {
    match dir.worker(worker).worktree::<Worktree>() {
        Ok(Some(made)) => made.path.exists(),
        Ok(None) => false,
        // Unknown: its processes may run.
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(number: u64) -> WorkerId {
        WorkerId::new(number, "x")
    }

    #[test]
    fn block_is_kept_and_given_once() {
        let mut blocks = Blocks::new();
        let last = BLOCKS - 1;
        assert_eq!(take(&mut blocks, &worker(1), last, |_| true), Some(31_990));
        assert_eq!(take(&mut blocks, &worker(2), last, |_| true), Some(20_000), "it goes on at the beginning");
        assert_eq!(take(&mut blocks, &worker(1), 5, |_| false), Some(31_990), "kept, although its ports are in use");
        assert_eq!(
            take(&mut blocks, &worker(3), 0, |port| port != 20_019),
            Some(20_020),
            "a port of the next one is in use"
        );
        assert_eq!(take(&mut blocks, &worker(4), 0, |_| false), None);
        assert_eq!(blocks.len(), 3);
    }

    #[test]
    fn port_with_a_listener_is_not_free() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(!is_free(port));
        assert!(in_use(port - 3).contains(&port));
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        assert!(!is_free(listener.local_addr().unwrap().port()));
    }

    #[test]
    fn released_block_is_given_again() {
        let folder = tempfile::tempdir().unwrap();
        let dir = StateDir::open(&folder.path().join(".orchestrator")).unwrap();
        release(&dir, &worker(1));
        assert!(!dir.ports().exists());
        let first = block_of(&dir, &worker(1)).unwrap();
        assert_eq!(block_of(&dir, &worker(1)), Some(first));
        assert_ne!(block_of(&dir, &worker(2)), Some(first));
        release(&dir, &worker(1));
        let blocks: Blocks = files::read_json(&dir.ports()).unwrap().unwrap();
        assert_eq!(blocks.into_values().collect::<Vec<_>>(), [worker(2)]);
    }
}
