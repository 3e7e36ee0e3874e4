//! What a worker's processes use: evidence for "nothing has moved for a while", not accounting.

use std::time::Duration;

use super::platform;
use super::scope::{Scope, look};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// User and system time of the processes that live, and of the children they waited for. A process that ended
    /// unwaited takes its share away, so this can fall; only "has it changed" is a question for it.
    pub cpu_time: Duration,
    /// Resident memory; pages that processes share are counted in each.
    pub rss_bytes: u64,
    pub processes: usize,
}

/// The sum over everything that belongs to the scope (shared daemons not included).
pub fn tree_usage(scope: &Scope) -> Usage {
    let each = look(scope).found.into_iter().filter_map(|found| platform::usage(found.identity.pid));
    each.fold(Usage::default(), |sum, one| Usage {
        cpu_time: sum.cpu_time + one.cpu_time,
        rss_bytes: sum.rss_bytes + one.rss_bytes,
        processes: sum.processes + one.processes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::TAG_VARIABLE;
    use std::process::Command;
    use std::time::Instant;

    #[test]
    fn a_busy_child_shows() {
        let tag = format!("usage-{}", uuid::Uuid::new_v4());
        let scope = Scope { tag: tag.clone(), ..Scope::default() };
        assert_eq!(tree_usage(&scope), Usage::default());

        let mut child = Command::new("/bin/sh")
            .args(["-c", "i=0; while [ $i -lt 100000000 ]; do i=$((i+1)); done"])
            .env(TAG_VARIABLE, tag)
            .spawn()
            .unwrap();
        let started = Instant::now();
        while tree_usage(&scope).cpu_time < Duration::from_millis(30) && started.elapsed().as_secs() < 60 {
            std::thread::yield_now();
        }
        let usage = tree_usage(&scope);
        child.kill().unwrap();
        child.wait().unwrap();

        assert!(usage.cpu_time >= Duration::from_millis(30), "{usage:?}");
        assert!(usage.rss_bytes > 10_000, "{usage:?}");
        assert_eq!(usage.processes, 1);
    }
}
