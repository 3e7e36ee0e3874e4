//! Signals, only to identified processes. Only a sweep signals groups, since it knows all their members.

use rustix::io::Errno;
use rustix::process::{Pid, kill_process, kill_process_group};

use super::platform;
use super::record::Identity;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    Interrupt,
    Terminate,
    Kill,
    Stop,
    Continue,
}

/// The result of sending a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalResult {
    Sent,
    /// The process has ended. A later process with its pid was not signalled.
    NoSuchProcess,
    /// The system refused, with this errno: EPERM if the process runs as another user.
    Refused(i32),
}

/// Signals exactly this process, or none.
pub fn send(target: &Identity, signal: Signal) -> SignalResult {
    let Some(pid) = i32::try_from(target.pid).ok().and_then(Pid::from_raw) else {
        return SignalResult::NoSuchProcess;
    };
    // The pidfd is opened before the start time is compared, so the compared process is the one that gets the signal.
    let pidfd = platform::open_pidfd(pid);
    if !target.is_alive() {
        return SignalResult::NoSuchProcess;
    }
    match pidfd {
        Ok(pidfd) => platform::signal_pidfd(&pidfd, signal.raw()).into(),
        Err(Errno::SRCH) => SignalResult::NoSuchProcess,
        // There are no pidfds or no free descriptors, or a sandbox forbids the call.
        Err(_) => kill_process(pid, signal.raw()).into(),
    }
}

/// Signals a group, every member of which must be known to be ours. Refuses our own group and the groups 0 and 1, which
/// reach other processes.
pub(super) fn signal_group(group: u32, signal: Signal) -> SignalResult {
    match i32::try_from(group).ok().and_then(Pid::from_raw) {
        Some(group) if group != Pid::INIT && group.as_raw_pid() != own_group() => {
            kill_process_group(group, signal.raw()).into()
        }
        _ => SignalResult::Refused(Errno::INVAL.raw_os_error()),
    }
}

/// Returns the group of this process. 0 if it was started in a PID namespace from outside, where its group has no number.
/// The function of rustix does not allow for that.
fn own_group() -> i32 {
    // SAFETY: it takes nothing and cannot fail.
    unsafe { libc::getpgrp() }
}

impl Signal {
    fn raw(self) -> rustix::process::Signal {
        match self {
            Self::Interrupt => rustix::process::Signal::INT,
            Self::Terminate => rustix::process::Signal::TERM,
            Self::Kill => rustix::process::Signal::KILL,
            Self::Stop => rustix::process::Signal::STOP,
            Self::Continue => rustix::process::Signal::CONT,
        }
    }
}

impl From<rustix::io::Result<()>> for SignalResult {
    fn from(result: rustix::io::Result<()>) -> Self {
        match result {
            Ok(()) => Self::Sent,
            Err(Errno::SRCH) => Self::NoSuchProcess,
            Err(errno) => Self::Refused(errno.raw_os_error()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn ended_process_is_not_signalled() {
        let mut child = Command::new("true").spawn().unwrap();
        let identity = Identity::of(child.id()).unwrap();
        while identity.is_alive() {
            std::thread::yield_now();
        }
        assert_eq!(send(&identity, Signal::Kill), SignalResult::NoSuchProcess, "a zombie has ended");
        assert!(child.wait().unwrap().success());
        assert_eq!(send(&identity, Signal::Kill), SignalResult::NoSuchProcess);
    }

    #[test]
    fn reused_pid_is_not_signalled() {
        let mut child = Command::new("sleep").arg("30").spawn().unwrap();
        let identity = Identity::of(child.id()).unwrap();
        let earlier = Identity { started: identity.started - 1, ..identity };
        assert_eq!(send(&earlier, Signal::Kill), SignalResult::NoSuchProcess);
        assert!(identity.is_alive());
        assert_eq!(send(&identity, Signal::Kill), SignalResult::Sent);
        child.wait().unwrap();
    }

    #[test]
    fn own_and_universal_groups_are_refused() {
        let own = Identity::own().unwrap().record().unwrap().group;
        for group in [0, 1, own] {
            assert!(matches!(signal_group(group, Signal::Continue), SignalResult::Refused(_)), "{group}");
        }
        // No group has this number.
        assert_eq!(signal_group(i32::MAX.unsigned_abs(), Signal::Continue), SignalResult::NoSuchProcess);
    }

    /// A process that was started in a PID namespace from outside, such as by `nsenter`, sees its own group as 0.
    #[cfg(target_os = "linux")]
    #[test]
    fn own_group_outside_of_the_namespace_is_refused() {
        let mut inside = Command::new("unshare");
        inside.args(["--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]);
        if !inside.arg("true").status().is_ok_and(|status| status.success()) {
            return eprintln!("SKIPPED: no PID namespace can be made here");
        }
        let mut inside = Command::new("unshare");
        inside.args(["--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]);
        inside
            .arg(std::env::current_exe().unwrap())
            .arg("process::signal::tests::own_and_universal_groups_are_refused");
        let run = inside.arg("--exact").output().unwrap();
        assert!(String::from_utf8_lossy(&run.stdout).contains("1 passed"), "{run:?}");
    }
}
