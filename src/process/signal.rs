//! Signals, to proven identities only. Groups are signalled by a sweep alone, which knows all their members.

use rustix::io::Errno;
use rustix::process::{Pid, getpgrp, kill_process, kill_process_group};

use super::identity::Identity;
use super::platform;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    Interrupt,
    Terminate,
    Kill,
    Stop,
    Continue,
    Hangup,
}

/// What became of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    Sent,
    /// That process does not exist any more, or has ended; a later one with its pid was left alone.
    Gone,
    /// The system said no, with this errno; EPERM if it runs as another user.
    Refused(i32),
}

/// Signals exactly this process, or nobody.
pub fn send(target: &Identity, signal: Signal) -> Delivery {
    platform::signal(target, signal.raw())
}

/// For groups of which every member is known to be ours. Never our own group, and never "everybody" (0 and 1).
pub(super) fn signal_group(group: u32, signal: Signal) -> Delivery {
    match i32::try_from(group).ok().and_then(Pid::from_raw) {
        Some(group) if group != Pid::INIT && group != getpgrp() => kill_process_group(group, signal.raw()).into(),
        _ => Delivery::Refused(Errno::INVAL.raw_os_error()),
    }
}

/// Compares the start time, then signals by pid: where there is no pidfd.
pub(super) fn checked_kill(target: &Identity, pid: Pid, signal: rustix::process::Signal) -> Delivery {
    if target.is_alive() { kill_process(pid, signal).into() } else { Delivery::Gone }
}

impl Signal {
    fn raw(self) -> rustix::process::Signal {
        match self {
            Self::Interrupt => rustix::process::Signal::INT,
            Self::Terminate => rustix::process::Signal::TERM,
            Self::Kill => rustix::process::Signal::KILL,
            Self::Stop => rustix::process::Signal::STOP,
            Self::Continue => rustix::process::Signal::CONT,
            Self::Hangup => rustix::process::Signal::HUP,
        }
    }
}

impl From<rustix::io::Result<()>> for Delivery {
    fn from(result: rustix::io::Result<()>) -> Self {
        match result {
            Ok(()) => Self::Sent,
            Err(Errno::SRCH) => Self::Gone,
            Err(errno) => Self::Refused(errno.raw_os_error()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_process_that_ended_by_itself_is_not_signalled() {
        let mut child = Command::new("true").spawn().unwrap();
        let identity = Identity::of(child.id()).unwrap();
        while identity.is_alive() {
            std::thread::yield_now();
        }
        assert_eq!(send(&identity, Signal::Kill), Delivery::Gone, "a zombie has ended");
        assert!(child.wait().unwrap().success());
        assert_eq!(send(&identity, Signal::Kill), Delivery::Gone);
    }

    #[test]
    fn a_reused_pid_is_never_signalled() {
        let mut child = Command::new("sleep").arg("30").spawn().unwrap();
        let identity = Identity::of(child.id()).unwrap();
        let earlier = Identity { started: identity.started - 1, ..identity };
        assert_eq!(send(&earlier, Signal::Kill), Delivery::Gone);
        assert!(identity.is_alive());
        assert_eq!(send(&identity, Signal::Kill), Delivery::Sent);
        child.wait().unwrap();
    }

    #[test]
    fn everybodys_group_and_our_own_are_refused() {
        for group in [0, 1, getpgrp().as_raw_pid().unsigned_abs()] {
            assert!(matches!(signal_group(group, Signal::Continue), Delivery::Refused(_)), "{group}");
        }
    }
}
