//! The processes below this process, to be recorded for a successor.
//!
//! Descent is evidence only while the ancestors live. A process that clears its environment, begins a session and is
//! orphaned can no longer be attributed once its supervisor is killed. Therefore a supervisor records its descendants
//! regularly. Pid and start time together are unique on this machine until it boots again, and in this process
//! namespace.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::platform;
use super::record::{Identity, ProcessState};

/// Maximum size of a tree, above that of a build with all its compilers. Only a part of a larger tree is recorded.
const SIZE_LIMIT: usize = 2_000;

/// A process and all its descendants at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessTree {
    /// The boot and the process namespace in which the identities are valid.
    pub host: String,
    pub processes: BTreeSet<Identity>,
}

impl ProcessTree {
    /// Returns the identities. Empty if they were recorded on another machine, before a boot, or in another namespace.
    pub fn here(self) -> Vec<Identity> {
        let is_valid = !self.host.is_empty() && self.host == platform::host();
        if is_valid { self.processes.into_iter().collect() } else { Vec::new() }
    }
}

/// Returns this process and its descendants. Reads no other processes, so it is cheap on a busy machine.
pub fn tree() -> ProcessTree {
    let processes = Identity::own().map(below).unwrap_or_default();
    ProcessTree { host: platform::host(), processes }
}

/// Returns a process and its descendants.
pub(super) fn below(root: Identity) -> BTreeSet<Identity> {
    let mut found = BTreeSet::new();
    let mut queue = vec![root];
    while let Some(process) = queue.pop() {
        queue.extend(children(&process));
        found.insert(process);
        if found.len() >= SIZE_LIMIT {
            break;
        }
    }
    found
}

fn children(parent: &Identity) -> Vec<Identity> {
    let records = platform::children(parent.pid).into_iter().filter_map(platform::record);
    let living = records.filter(|child| child.parent == parent.pid && child.state != ProcessState::Zombie);
    let children: Vec<Identity> = living.map(|child| child.identity()).collect();
    // Checked last: if it is the same process now, its pid was not reused while the children were read.
    if parent.record().is_some() { children } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn tree_has_grandchild_and_no_other_process() {
        let script = "sleep 30 & echo $!; wait";
        let mut child = Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.as_mut().unwrap()), &mut line).unwrap();
        let grandchild = Identity::of(line.trim().parse().unwrap()).unwrap();
        let tree = tree();
        for ours in [Identity::own().unwrap(), Identity::of(child.id()).unwrap(), grandchild] {
            assert!(tree.processes.contains(&ours), "{ours:?} is not in {tree:?}");
        }
        assert!(!tree.processes.contains(&Identity::own().unwrap().parent().unwrap()));
        assert!(tree.clone().here().contains(&grandchild));
        assert_eq!(ProcessTree { host: "elsewhere".to_owned(), ..tree.clone() }.here(), []);
        assert_eq!(ProcessTree { host: String::new(), ..tree }.here(), []);
        super::super::send(&grandchild, super::super::Signal::Kill);
        child.wait().unwrap();
    }
}
