//! What runs below this process, to be written down for a successor.
//!
//! Descent proves whose a process is, but only while the processes above it live: what clears its environment, begins a
//! session and is orphaned can no longer be told from a stranger once its supervisor is killed. So a supervisor writes
//! down now and then what descends from it. Pid and start time together are that process and no other, on this machine
//! until it boots again, and in this process namespace.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::identity::{Identity, State};
use super::platform;

/// More than a build with all its compilers; a tree that is larger is known in part.
const MOST: usize = 2_000;

/// Everything that descended from one process at one moment, itself included.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree {
    /// Where the identities mean anything.
    pub host: String,
    pub processes: BTreeSet<Identity>,
}

impl Tree {
    /// The identities; none if they were written down on another machine, before it booted, or in another namespace.
    pub fn here(self) -> Vec<Identity> {
        match !self.host.is_empty() && self.host == platform::host() {
            true => self.processes.into_iter().collect(),
            false => Vec::new(),
        }
    }
}

/// What descends from this process now. Asks about its own processes only, so it costs little on a busy machine.
pub fn tree() -> Tree {
    let mut tree = Tree { host: platform::host(), processes: BTreeSet::new() };
    let mut queue: Vec<Identity> = Identity::own().into_iter().collect();
    while let Some(process) = queue.pop() {
        queue.extend(children(&process));
        tree.processes.insert(process);
        if tree.processes.len() >= MOST {
            break;
        }
    }
    tree
}

fn children(parent: &Identity) -> Vec<Identity> {
    let records = platform::children(parent.pid).into_iter().filter_map(platform::record);
    let living = records.filter(|child| child.parent == parent.pid && child.state != State::Zombie);
    let children: Vec<Identity> = living.map(|child| child.identity()).collect();
    // Asked last: if it is the same process now, it was the parent all the while, and no stranger with its pid.
    if parent.record().is_some() { children } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_grandchild_is_in_the_tree_and_a_stranger_is_not() {
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
        assert_eq!(Tree { host: "elsewhere".to_owned(), ..tree.clone() }.here(), []);
        assert_eq!(Tree { host: String::new(), ..tree }.here(), []);
        super::super::send(&grandchild, super::super::Signal::Kill);
        child.wait().unwrap();
    }
}
