//! Finds the processes of a worker: one scan of the process table, and the evidence for each process found.
//!
//! Evidence is the worker's tag in the environment, descent from a root, or the session that a proven process leads. A
//! name is never evidence. A scan changes nothing; `sweep.rs` ends processes.
//!
//! Cost: one read of the process table, except the pre-existing processes. The environment is read only of processes
//! that could be the worker's and are not already proven by descent.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::daemons::{self, Private};
use super::identity::{self, Bystanders, Identity, Record, State};
use super::platform;

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

/// Ends the tag of a worker that a worker leads, with how many workers that makes.
const DEPTH: &str = ".depth-";

/// A tag for a worker that is this many deep: 1 below a boss that is no worker itself.
pub fn tag_at_depth(tag: String, depth: u32) -> String {
    if depth > 1 { format!("{tag}{DEPTH}{depth}") } else { tag }
}

/// How many workers a process with this tag runs in.
pub fn depth_of(tag: &str) -> u32 {
    tag.rsplit_once(DEPTH).and_then(|(_, depth)| depth.parse().ok()).unwrap_or(1)
}

/// Whose processes to look for. This process itself never belongs to a scope, though what it started may.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// The value of [`TAG_VARIABLE`]. Empty: nothing is found by tag.
    pub tag: String,
    /// Processes that belong to the scope with all their descendants. A supervisor (a session leader) names itself
    /// here, so processes that it runs for its own purposes belong too. A server that cleans up names the dead
    /// supervisor and the processes which that had started. The earliest root also bounds the search in time, which
    /// halves its cost.
    pub roots: Vec<Identity>,
    /// The allowlist: daemons that a user shares between projects (sccache, gradle, …), by the names in `daemons.rs`,
    /// by program name or by Java main class. They are left alone, and so are processes below them that run outside the
    /// worker's places.
    pub spare: Vec<String>,
    /// The places that belong to the worker alone, so nothing in them is shared.
    pub private: Private,
    /// Children of this process that other code in it waits for (tokio, std). Their exit status must not be taken away.
    pub own_children: Vec<u32>,
    /// Pre-existing processes, from before the worker's first one. They never belong to the scope and are not checked.
    pub bystanders: Bystanders,
}

/// Why a process counts as the worker's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Evidence {
    /// It carries the worker's tag.
    Tag,
    /// It is a root, or its parents lead to a process that is proven.
    Descent,
    /// It is in the session that a proven process leads: sessions are inherited and cannot be joined.
    Session,
}

/// How much "nothing is left" is worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// We adopt every orphan of the worker (a root and subreaper), and no process of this user hid its environment.
    Full,
    /// The system hid something, or orphans without the tag could have escaped before we looked.
    #[default]
    BestEffort,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Found {
    pub identity: Identity,
    pub name: String,
    pub by: Evidence,
    pub stopped: bool,
}

/// What one look found; zombies are not in it.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    pub found: Vec<Found>,
    pub spared: Vec<Found>,
    /// The proof that it is all.
    pub proof: Proof,
    /// What has ended and was not reaped, but for `own_children`. One that was not there at the last look has lived
    /// in between, so something may still be being born.
    pub(super) zombies: Vec<Identity>,
    /// Process groups of which every living member was found.
    pub(super) whole_groups: Vec<u32>,
}

/// Looks once. A few milliseconds; does not block on anything.
pub fn look(scope: &Scope) -> Survey {
    let table = identity::records(&scope.bystanders);
    let own = std::process::id();
    let mut search = Search { scope, table: &table, own, proven: BTreeMap::new() };

    let roots: Vec<&Record> = table.iter().filter(|record| scope.roots.contains(&record.identity())).collect();
    search.prove(&roots, Evidence::Descent);
    let hidden = search.prove_tagged();
    search.survey(hidden)
}

struct Search<'a> {
    scope: &'a Scope,
    table: &'a [Record],
    own: u32,
    proven: BTreeMap<u32, Evidence>,
}

impl<'a> Search<'a> {
    /// These are ours, and with them whatever descends from them or is in their sessions.
    fn prove(&mut self, seeds: &[&'a Record], by: Evidence) {
        let mut queue = seeds.to_vec();
        self.proven.extend(seeds.iter().map(|record| (record.pid, by)));
        while let Some(parent) = queue.pop() {
            for (child, by) in self.unproven_below(parent) {
                self.proven.insert(child.pid, by);
                queue.push(child);
            }
        }
    }

    fn unproven_below(&self, parent: &Record) -> Vec<(&'a Record, Evidence)> {
        let below: Vec<_> = self
            .table
            .iter()
            .filter(|record| !self.proven.contains_key(&record.pid) && may_come_from(parent, record))
            .filter_map(|record| Some((record, link(parent, record)?)))
            .collect();
        // The table is not read in one instant. Only if the parent is still the same process now was it the parent
        // then; otherwise its pid may have become a stranger's in between.
        if !below.is_empty() && parent.identity().record().is_none() { Vec::new() } else { below }
    }

    /// Proves by tag. True if some process that could be ours hides its environment.
    ///
    /// In the middle of an exec an environment reads as empty, which is why a sweep trusts only two looks in a row.
    fn prove_tagged(&mut self) -> bool {
        let mut hidden = false;
        for record in self.table {
            if self.scope.tag.is_empty() || !self.could_be_tagged(record) {
                continue;
            }
            match platform::environment_has(record.pid, TAG_VARIABLE, &self.scope.tag) {
                Some(true) => self.prove(&[record], Evidence::Tag),
                Some(false) => {}
                None => hidden |= platform::runs_as_us(record.pid),
            }
        }
        hidden
    }

    fn could_be_tagged(&self, record: &Record) -> bool {
        let earliest = self.scope.roots.iter().map(|root| root.started).min().unwrap_or(0);
        let in_time = !platform::STARTS_IN_ORDER || record.started >= earliest;
        in_time && record.pid != self.own && record.state != State::Zombie && !self.proven.contains_key(&record.pid)
    }

    fn survey(&self, hidden: bool) -> Survey {
        let daemons = self.shared_daemons();
        let ours = self.table.iter().filter(|record| self.proven.contains_key(&record.pid) && record.pid != self.own);
        let (spared, found): (Vec<&Record>, Vec<&Record>) = ours.partition(|record| self.is_spared(record, &daemons));
        let (zombies, found): (Vec<&Record>, Vec<&Record>) =
            found.into_iter().partition(|record| record.state == State::Zombie);
        let living = |records: &[&Record]| -> Vec<Found> {
            records.iter().filter(|record| record.state != State::Zombie).map(|record| self.found(record)).collect()
        };
        let mut living_spared = living(&spared);
        for found in &mut living_spared {
            // The system's name for it may be just `java`.
            found.name = daemons.get(&found.identity.pid).unwrap_or(&found.name).clone();
        }
        Survey {
            found: living(&found),
            spared: living_spared,
            proof: if !hidden && self.adopts_orphans() { Proof::Full } else { Proof::BestEffort },
            whole_groups: self.whole_groups(&found, &zombies),
            zombies: zombies
                .iter()
                .map(|record| record.identity())
                .filter(|zombie| !self.scope.own_children.contains(&zombie.pid))
                .collect(),
        }
    }

    fn found(&self, record: &Record) -> Found {
        Found {
            identity: record.identity(),
            name: record.name.clone(),
            by: self.proven[&record.pid],
            stopped: record.state == State::Stopped,
        }
    }

    /// Whether descent alone finds all that we started, whatever it did to its environment.
    fn adopts_orphans(&self) -> bool {
        // If even we are not in the table, then the table could not be read.
        let is_root = self.scope.roots.iter().any(|root| root.pid == self.own);
        is_root && self.proven.contains_key(&self.own) && platform::is_subreaper()
    }

    /// Returns the names of the shared daemons by pid.
    fn shared_daemons(&self) -> BTreeMap<u32, String> {
        if self.scope.spare.is_empty() {
            return BTreeMap::new();
        }
        let proven = self.table.iter().filter(|record| self.proven.contains_key(&record.pid) && record.pid != self.own);
        let name = |record: &Record| {
            let apart = self.scope.roots.iter().all(|root| root.pid != record.session);
            daemons::shared_daemon(record, apart, &self.scope.spare, &self.scope.private)
        };
        proven.filter_map(|record| Some((record.pid, name(record)?))).collect()
    }

    /// Returns whether the process is a shared daemon or runs below one. A process below one that runs in the worker's
    /// places is the worker's, such as a server that the worker started in a shared terminal.
    fn is_spared(&self, record: &Record, daemons: &BTreeMap<u32, String>) -> bool {
        let is_daemon = daemons.contains_key(&record.pid);
        is_daemon || self.is_below(record, daemons) && !daemons::works_in(record.pid, &self.scope.private)
    }

    /// Returns whether the process is a daemon or has one among its ancestors.
    fn is_below(&self, record: &Record, daemons: &BTreeMap<u32, String>) -> bool {
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
    fn whole_groups(&self, found: &[&Record], zombies: &[&Record]) -> Vec<u32> {
        let groups: BTreeSet<u32> = found.iter().chain(zombies).map(|record| record.group).collect();
        let is_whole = |group: &u32| {
            let mut living = self.table.iter().filter(|other| other.group == *group && other.state != State::Zombie);
            living.all(|member| found.iter().any(|record| record.pid == member.pid))
        };
        groups.into_iter().filter(is_whole).collect()
    }
}

/// Returns whether the start times permit descent: no process is older than its parent. If the clock may be set back,
/// start times are no evidence.
fn may_come_from(parent: &Record, child: &Record) -> bool {
    !platform::STARTS_IN_ORDER || child.started >= parent.started
}

fn link(parent: &Record, child: &Record) -> Option<Evidence> {
    if child.parent == parent.pid {
        return Some(Evidence::Descent);
    }
    let leads = parent.session == parent.pid;
    (leads && child.session == parent.pid).then_some(Evidence::Session)
}
