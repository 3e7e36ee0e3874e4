//! Finds the processes of a worker: one scan of the process table, and the evidence for each process found.
//!
//! Evidence is the worker's tag in the environment, descent from a root, or the session of an attributed leader. A
//! name is never evidence. A scan changes nothing; `sweep.rs` ends processes.
//!
//! Cost: one read of the process table, except the pre-existing processes. The environment is read only of processes
//! that could be the worker's and are not already attributed by descent.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::daemons::{self, WorkerPlaces};
use super::identity::{self, PreexistingProcesses};
use super::platform;
use super::record::{Identity, ProcessRecord, ProcessState};
use crate::mission::outcome::Containment;

/// The variable that every process of a worker has in its environment. Its value is unique to the attempt.
pub const TAG_VARIABLE: &str = "ORCHESTRATOR_WORKER_TAG";

/// Returns the tag of the worker that this process runs in, from its own environment or that of an ancestor. Some CLIs
/// start processes with an environment of their own.
pub fn inherited_tag() -> Option<String> {
    let mut next = Identity::own().ok();
    while let Some(process) = next {
        let tag = platform::environment_value(process.pid, TAG_VARIABLE).filter(|tag| !tag.is_empty());
        if tag.is_some() {
            return tag;
        }
        next = process.parent();
    }
    None
}

/// Suffix of the tag of a worker that another worker started. The depth follows it.
const DEPTH: &str = ".depth-";

/// Returns the tag of a worker at this depth: 1 below a boss that is no worker itself.
pub fn tag_at_depth(tag: String, depth: u32) -> String {
    if depth > 1 { format!("{tag}{DEPTH}{depth}") } else { tag }
}

/// Returns the number of workers within which a process with this tag runs.
pub fn depth_of(tag: &str) -> u32 {
    tag.rsplit_once(DEPTH).and_then(|(_, depth)| depth.parse().ok()).unwrap_or(1)
}

/// The processes to find. This process itself never belongs to a scope, but its children may.
#[derive(Clone, Debug, Default)]
pub struct ProcessScope {
    /// The value of [`TAG_VARIABLE`]. If it is empty, no process is found by tag.
    pub tag: String,
    /// Processes that belong to the scope with all their descendants. A supervisor (a session leader) names itself
    /// here, so processes that it runs for its own purposes belong too. A server that cleans up names the dead
    /// supervisor and the processes that it had recorded. The earliest root also bounds the search in time, which
    /// halves its cost.
    pub roots: Vec<Identity>,
    /// The allowlist: daemons that a user shares between projects (sccache, gradle, …), by the names in `daemons.rs`,
    /// by program name or by Java main class. They are left alone, and so are processes below them that run outside the
    /// worker's places.
    pub allowlist: Vec<String>,
    /// The places that belong to the worker alone, so nothing in them is shared.
    pub private: WorkerPlaces,
    /// Children of this process that other code in it waits for (tokio, std). Their exit status must not be taken away.
    pub own_children: Vec<u32>,
    /// Pre-existing processes, from before the worker's first one. They never belong to the scope and are not checked.
    pub preexisting: PreexistingProcesses,
}

/// The evidence that a process is the worker's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// It carries the worker's tag.
    Tag,
    /// It is a root, or one of its ancestors is attributed to the worker.
    Descent,
    /// It is in the session of an attributed leader. Sessions are inherited and cannot be joined.
    Session,
}

/// A process of the worker, with its evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FoundProcess {
    pub identity: Identity,
    pub name: String,
    pub by: Evidence,
    pub stopped: bool,
}

/// The living processes that one scan found.
#[derive(Clone, Debug, Default)]
pub struct ScanResult {
    pub found: Vec<FoundProcess>,
    pub allowlisted: Vec<FoundProcess>,
    pub containment: Containment,
    /// Unreaped zombies, except `own_children`. A new zombie lived since the last scan, so it may have started more
    /// processes.
    pub(super) zombies: Vec<Identity>,
    /// Process groups whose living members were all found.
    pub(super) whole_groups: Vec<u32>,
}

/// Scans once. Takes a few milliseconds.
pub fn scan(scope: &ProcessScope) -> ScanResult {
    let table = identity::records(&scope.preexisting);
    let own = std::process::id();
    let mut scan = ProcessScan { scope, table: &table, own, attributed: BTreeMap::new() };

    let roots: Vec<&ProcessRecord> = table.iter().filter(|record| scope.roots.contains(&record.identity())).collect();
    scan.attribute(&roots, Evidence::Descent);
    let hidden = scan.attribute_tagged();
    scan.result(hidden)
}

struct ProcessScan<'a> {
    scope: &'a ProcessScope,
    table: &'a [ProcessRecord],
    own: u32,
    attributed: BTreeMap<u32, Evidence>,
}

impl<'a> ProcessScan<'a> {
    /// Attributes these processes to the worker, and with them their descendants and the members of their sessions.
    fn attribute(&mut self, seeds: &[&'a ProcessRecord], by: Evidence) {
        let mut queue = seeds.to_vec();
        self.attributed.extend(seeds.iter().map(|record| (record.pid, by)));
        while let Some(parent) = queue.pop() {
            for (child, by) in self.unattributed_below(parent) {
                self.attributed.insert(child.pid, by);
                queue.push(child);
            }
        }
    }

    fn unattributed_below(&self, parent: &ProcessRecord) -> Vec<(&'a ProcessRecord, Evidence)> {
        let below: Vec<_> = self
            .table
            .iter()
            .filter(|record| !self.attributed.contains_key(&record.pid) && may_come_from(parent, record))
            .filter_map(|record| Some((record, link(parent, record)?)))
            .collect();
        // The table is not read in one instant. If the parent has ended meanwhile, its pid may have been reused before
        // the children were read.
        if !below.is_empty() && parent.identity().record().is_none() { Vec::new() } else { below }
    }

    /// Attributes processes by tag. Returns true if a process that could be the worker's hides its environment.
    ///
    /// During an exec an environment reads as empty, so a sweep trusts only two scans in a row.
    fn attribute_tagged(&mut self) -> bool {
        let mut hidden = false;
        for record in self.table {
            if self.scope.tag.is_empty() || !self.could_be_tagged(record) {
                continue;
            }
            match platform::environment_has(record.pid, TAG_VARIABLE, &self.scope.tag) {
                Some(true) => self.attribute(&[record], Evidence::Tag),
                Some(false) => {}
                None => hidden |= platform::runs_as_us(record.pid),
            }
        }
        hidden
    }

    fn could_be_tagged(&self, record: &ProcessRecord) -> bool {
        let earliest = self.scope.roots.iter().map(|root| root.started).min().unwrap_or(0);
        let in_time = !platform::STARTS_IN_ORDER || record.started >= earliest;
        in_time
            && record.pid != self.own
            && record.state != ProcessState::Zombie
            && !self.attributed.contains_key(&record.pid)
    }

    fn result(&self, hidden: bool) -> ScanResult {
        let daemons = self.shared_daemons();
        let ours =
            self.table.iter().filter(|record| self.attributed.contains_key(&record.pid) && record.pid != self.own);
        let (allowlisted, found): (Vec<&ProcessRecord>, Vec<&ProcessRecord>) =
            ours.partition(|record| self.is_allowlisted(record, &daemons));
        let (zombies, found): (Vec<&ProcessRecord>, Vec<&ProcessRecord>) =
            found.into_iter().partition(|record| record.state == ProcessState::Zombie);
        let living = |records: &[&ProcessRecord]| -> Vec<FoundProcess> {
            records
                .iter()
                .filter(|record| record.state != ProcessState::Zombie)
                .map(|record| self.found(record))
                .collect()
        };
        let mut living_allowlisted = living(&allowlisted);
        for found in &mut living_allowlisted {
            // The name in the process table may be just `java`.
            found.name = daemons.get(&found.identity.pid).unwrap_or(&found.name).clone();
        }
        ScanResult {
            found: living(&found),
            allowlisted: living_allowlisted,
            containment: if !hidden && self.adopts_orphans() { Containment::Full } else { Containment::BestEffort },
            whole_groups: self.whole_groups(&found, &zombies),
            zombies: zombies
                .iter()
                .map(|record| record.identity())
                .filter(|zombie| !self.scope.own_children.contains(&zombie.pid))
                .collect(),
        }
    }

    fn found(&self, record: &ProcessRecord) -> FoundProcess {
        FoundProcess {
            identity: record.identity(),
            name: record.name.clone(),
            by: self.attributed[&record.pid],
            stopped: record.state == ProcessState::Stopped,
        }
    }

    /// Returns whether descent alone finds all processes of the worker, without regard to their environment.
    fn adopts_orphans(&self) -> bool {
        // If even this process is not in the table, the table could not be read.
        let is_root = self.scope.roots.iter().any(|root| root.pid == self.own);
        is_root && self.attributed.contains_key(&self.own) && platform::is_subreaper()
    }

    /// Returns the names of the shared daemons by pid.
    fn shared_daemons(&self) -> BTreeMap<u32, String> {
        if self.scope.allowlist.is_empty() {
            return BTreeMap::new();
        }
        let attributed =
            self.table.iter().filter(|record| self.attributed.contains_key(&record.pid) && record.pid != self.own);
        let name = |record: &ProcessRecord| {
            let has_own_session = self.scope.roots.iter().all(|root| root.pid != record.session);
            daemons::shared_daemon(record, has_own_session, &self.scope.allowlist, &self.scope.private)
        };
        attributed.filter_map(|record| Some((record.pid, name(record)?))).collect()
    }

    /// Returns whether the process is a shared daemon or runs below one. A process below one that runs in the worker's
    /// places is the worker's, such as a server that the worker started in a shared terminal.
    fn is_allowlisted(&self, record: &ProcessRecord, daemons: &BTreeMap<u32, String>) -> bool {
        let is_daemon = daemons.contains_key(&record.pid);
        is_daemon || self.is_below(record, daemons) && !daemons::works_in(record.pid, &self.scope.private)
    }

    /// Returns whether the process is a daemon or has one among its ancestors.
    fn is_below(&self, record: &ProcessRecord, daemons: &BTreeMap<u32, String>) -> bool {
        let mut pid = record.pid;
        // A chain of parents cannot be longer than the table. The limit prevents an endless loop after a torn read.
        for _ in 0..=self.table.len() {
            if daemons.is_empty() || daemons.contains_key(&pid) {
                break;
            }
            match self.table.iter().find(|other| other.pid == pid) {
                Some(other) => pid = other.parent,
                None => break,
            }
        }
        daemons.contains_key(&pid)
    }

    /// Returns the groups that have only the worker's processes. Groups of zombies count too, since an unreaped zombie
    /// keeps its group's number. A process that keeps forking may be alive in such a group although no scan catches it.
    fn whole_groups(&self, found: &[&ProcessRecord], zombies: &[&ProcessRecord]) -> Vec<u32> {
        let groups: BTreeSet<u32> = found.iter().chain(zombies).map(|record| record.group).collect();
        let is_whole = |group: &u32| {
            let mut living =
                self.table.iter().filter(|other| other.group == *group && other.state != ProcessState::Zombie);
            living.all(|member| found.iter().any(|record| record.pid == member.pid))
        };
        groups.into_iter().filter(is_whole).collect()
    }
}

/// Returns whether the start times permit descent: no process is older than its parent. If the clock may be set back,
/// start times are no evidence.
fn may_come_from(parent: &ProcessRecord, child: &ProcessRecord) -> bool {
    !platform::STARTS_IN_ORDER || child.started >= parent.started
}

fn link(parent: &ProcessRecord, child: &ProcessRecord) -> Option<Evidence> {
    if child.parent == parent.pid {
        return Some(Evidence::Descent);
    }
    let leads = parent.session == parent.pid;
    (leads && child.session == parent.pid).then_some(Evidence::Session)
}
