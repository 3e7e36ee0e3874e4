//! The CPU time of a worker's processes: evidence for a stall, not accounting.

use std::time::Duration;

use super::platform;
use super::scope::{ProcessScope, scan};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResourceUsage {
    /// User and system time of the living processes and of the children that they waited for. It can fall: a process
    /// that ends unwaited is no longer counted.
    pub cpu_time: Duration,
    pub processes: usize,
}

/// Returns the sum over all processes of the scope, without shared daemons.
pub fn scope_usage(scope: &ProcessScope) -> ResourceUsage {
    let each = scan(scope).found.into_iter().filter_map(|found| platform::cpu_time(found.identity.pid));
    each.fold(ResourceUsage::default(), |sum, cpu_time| ResourceUsage {
        cpu_time: sum.cpu_time + cpu_time,
        processes: sum.processes + 1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::TAG_VARIABLE;
    use std::process::Command;
    use std::time::Instant;

    #[test]
    fn busy_child_uses_cpu_time() {
        let tag = format!("usage-{}", uuid::Uuid::new_v4());
        let scope = ProcessScope { tag: tag.clone(), ..ProcessScope::default() };
        assert_eq!(scope_usage(&scope), ResourceUsage::default());

        let mut child = Command::new("/bin/sh")
            .args(["-c", "i=0; while [ $i -lt 100000000 ]; do i=$((i+1)); done"])
            .env(TAG_VARIABLE, tag)
            .spawn()
            .unwrap();
        let started = Instant::now();
        while scope_usage(&scope).cpu_time < Duration::from_millis(30) && started.elapsed().as_secs() < 60 {
            std::thread::yield_now();
        }
        let usage = scope_usage(&scope);
        child.kill().unwrap();
        child.wait().unwrap();

        assert!(usage.cpu_time >= Duration::from_millis(30), "{usage:?}");
        assert_eq!(usage.processes, 1);
    }
}
