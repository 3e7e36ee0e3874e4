//! The free resources of the machine, as last read. Memory, processes and files are read at once. File systems are
//! queried on threads of their own, since one that hangs (a network mount) would hang the actor and every answer. Until
//! a file system answers again, its last answer counts.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use crate::mission::admission::{Headroom, TAKES, folder};
use crate::mission::registry::Worker;
use crate::process;

/// Time for which the resources are not read again, so that a batch of a thousand reads them once.
const SEEN_FOR: Duration = Duration::from_secs(1);

/// The resources as last read, less the share of workers that were started since.
#[derive(Default)]
pub(super) struct Machine {
    /// Without the disks of workers.
    free: Headroom,
    seen: Option<Instant>,
    disks: HashMap<PathBuf, Disk>,
}

#[derive(Default)]
struct Disk {
    /// `Some(None)` if it answered without a figure.
    free_mib: Option<Option<u64>>,
    answered: Option<Instant>,
    /// The time of a query without an answer yet.
    asked: Option<Instant>,
    /// Number of workers that were started on it since the query.
    started: u64,
}

impl Machine {
    /// Reads the resources, unless they were just read. `ask` queries a folder elsewhere and calls
    /// [`Machine::note_disk`].
    pub fn survey<'a>(
        &mut self,
        now: Instant,
        state_root: &Path,
        folders: impl Iterator<Item = &'a Path>,
        mut ask: impl FnMut(&Path) -> bool,
    ) {
        let is_old = |seen: Option<Instant>| seen.is_none_or(|seen| now.saturating_duration_since(seen) >= SEEN_FOR);
        if !is_old(self.seen) {
            return;
        }
        self.seen = Some(now);
        self.free = Headroom {
            memory_mib: process::free_memory_bytes().map(|bytes| bytes >> 20),
            processes: process::free_processes(),
            files: process::free_files(),
            // The journal is there, so the actor depends on it anyway.
            state_disk_mib: free_disk_mib(state_root),
            ..Headroom::default()
        };
        for folder in folders {
            if !self.disks.contains_key(folder) {
                self.disks.insert(folder.to_owned(), Disk::default());
            }
            let Some(disk) = self.disks.get_mut(folder) else { continue };
            if disk.asked.is_none() && is_old(disk.answered) {
                (disk.asked, disk.started) = (ask(folder).then_some(now), 0);
            }
        }
    }

    /// Stores the answer of a file system.
    pub fn note_disk(&mut self, folder: PathBuf, free_mib: Option<u64>) {
        let disk = self.disks.entry(folder).or_default();
        let free_mib = free_mib.map(|free| free.saturating_sub(disk.started * TAKES.disk_mib));
        *disk = Disk { free_mib: Some(free_mib), answered: Some(Instant::now()), ..Disk::default() };
    }

    pub fn note_started(&mut self, worker: &Worker) {
        self.free.take(worker);
        if let Some(disk) = self.disks.get_mut(folder(worker)) {
            disk.started += 1;
            disk.free_mib.iter_mut().flatten().for_each(|free| *free = free.saturating_sub(TAKES.disk_mib));
        }
    }

    pub fn free(&self) -> Headroom {
        let mut free = self.free.clone();
        for (folder, disk) in &self.disks {
            match disk.free_mib {
                Some(mib) => free.disk_mib.extend(mib.map(|mib| (folder.clone(), mib))),
                None => {
                    free.unseen.insert(folder.clone());
                    if disk.asked.is_some_and(|asked| asked.elapsed() < SEEN_FOR) {
                        free.just_asked.insert(folder.clone());
                    }
                }
            }
        }
        free
    }
}

/// May hang.
pub(super) fn free_disk_mib(folder: &Path) -> Option<u64> {
    process::free_disk_bytes(folder).map(|bytes| bytes >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hanging_file_system_is_queried_once() {
        let mut machine = Machine::default();
        let (here, there) = (PathBuf::from("/here"), PathBuf::from("/there"));
        let mut asked = Vec::new();
        let begin = Instant::now();
        let mut survey = |machine: &mut Machine, surveys: u32| {
            let folders = [here.as_path(), there.as_path()];
            asked.clear();
            machine.survey(begin + (SEEN_FOR + SEEN_FOR) * surveys, Path::new("/"), folders.into_iter(), |folder| {
                asked.push(folder.to_owned());
                true
            });
            asked.clone()
        };
        assert_eq!(survey(&mut machine, 0), [here.clone(), there.clone()]);
        assert_eq!(machine.free().unseen.len(), 2);
        machine.note_disk(here.clone(), Some(900));
        assert_eq!(survey(&mut machine, 0), Vec::<PathBuf>::new(), "it was just read");
        for surveys in 1..4 {
            // The one that has answered is asked again; the other one still hangs.
            assert_eq!(survey(&mut machine, surveys), std::slice::from_ref(&here));
            assert_eq!(machine.free().disk_mib.get(&here), Some(&900));
            assert!(machine.free().unseen.contains(&there));
            machine.note_disk(here.clone(), Some(900));
        }
        machine.note_disk(there.clone(), None);
        assert!(machine.free().unseen.is_empty(), "an answer without a figure holds no worker up");
    }
}
