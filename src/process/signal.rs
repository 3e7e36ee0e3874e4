//! Signals, to proven identities only, and the ladder by which a CLI is asked to end.
//!
//! Which signals a CLI obeys is its backend's knowledge; here a ladder is only data.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, getpgrp, kill_process, kill_process_group};

use super::identity::{Identity, State};
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

/// One rung: send `signal`, then give it `grace` before the next rung.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub signal: Signal,
    /// To the whole process group that the target leads, not to it alone.
    pub to_group: bool,
    pub grace: Duration,
}

/// How to end a CLI, from the polite to the final.
pub type Ladder = Vec<Step>;

/// Signals exactly this process, or nobody.
pub fn send(target: &Identity, signal: Signal) -> Delivery {
    platform::signal(target, signal.raw())
}

/// Signals the process group that this process leads, or nobody. A leader that ended but was not reaped still holds
/// the group's number, so its group can be signalled.
pub fn send_group(leader: &Identity, signal: Signal) -> Delivery {
    match leader.record() {
        Some(record) if record.group == leader.pid => signal_group(record.group, signal),
        _ => Delivery::Gone,
    }
}

/// Climbs down the ladder until `exited` is ready. `None` if the last grace passed without that.
/// Dropping the future stops the climb; what was sent was sent.
pub async fn descend<F: Future>(ladder: &[Step], target: &Identity, exited: F) -> Option<F::Output> {
    let mut exited = pin!(exited);
    // An exit that is already there wins over the first signal.
    if let Ok(output) = tokio::time::timeout(Duration::ZERO, &mut exited).await {
        return Some(output);
    }
    for step in ladder {
        take(step, target);
        if let Ok(output) = tokio::time::timeout(step.grace, &mut exited).await {
            return Some(output);
        }
    }
    None
}

fn take(step: &Step, target: &Identity) {
    let deliver = if step.to_group { send_group } else { send };
    let delivery = deliver(target, step.signal);
    tracing::debug!(pid = target.pid, ?step, ?delivery, "signalled");
    // A stopped process would not notice what it was asked.
    if target.record().is_some_and(|record| record.state == State::Stopped) && step.signal != Signal::Stop {
        deliver(target, Signal::Continue);
    }
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
    use std::os::unix::process::ExitStatusExt;
    use std::process::Stdio;
    use tokio::io::{AsyncBufReadExt, BufReader};
    use tokio::process::{Child, Command};

    /// A shell that has run `script` up to its first line of output.
    async fn shell(script: &str) -> (Child, Identity) {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let identity = Identity::of(child.id().unwrap()).unwrap();
        BufReader::new(child.stdout.take().unwrap()).lines().next_line().await.unwrap().unwrap();
        (child, identity)
    }

    fn step(signal: Signal, to_group: bool, milliseconds: u64) -> Step {
        Step { signal, to_group, grace: Duration::from_millis(milliseconds) }
    }

    #[tokio::test]
    async fn the_ladder_ends_at_the_rung_that_works() {
        let (mut child, identity) = shell("trap '' INT; trap 'exit 7' TERM; echo; while :; do sleep 0.01; done").await;
        let ladder = [step(Signal::Interrupt, false, 50), step(Signal::Terminate, false, 10_000)];
        let status = descend(&ladder, &identity, child.wait()).await.unwrap().unwrap();
        assert_eq!(status.code(), Some(7));
    }

    #[tokio::test]
    async fn a_process_that_ignores_everything_is_killed_with_its_group() {
        let (mut child, identity) = shell("trap '' INT TERM; echo; while :; do sleep 0.01; done").await;
        let ladder = [step(Signal::Terminate, true, 20), step(Signal::Kill, true, 10_000)];
        let status = descend(&ladder, &identity, child.wait()).await.unwrap().unwrap();
        assert_eq!(status.signal(), Some(9));
    }

    #[tokio::test]
    async fn a_stopped_process_gets_to_obey() {
        let (mut child, identity) = shell("trap 'exit 3' TERM; echo; kill -STOP $$; exit 4").await;
        while identity.record().unwrap().state != State::Stopped {
            tokio::task::yield_now().await;
        }
        let status = descend(&[step(Signal::Terminate, false, 10_000)], &identity, child.wait()).await;
        assert_eq!(status.unwrap().unwrap().code(), Some(3));
    }

    #[tokio::test]
    async fn the_ladder_says_when_it_ran_out() {
        let (mut child, identity) = shell("trap '' TERM; echo; while :; do sleep 0.01; done").await;
        assert!(descend(&[step(Signal::Terminate, false, 30)], &identity, child.wait()).await.is_none());
        assert_eq!(send(&identity, Signal::Kill), Delivery::Sent);
        child.wait().await.unwrap();
    }

    #[tokio::test]
    async fn a_process_that_ended_by_itself_is_not_signalled() {
        let (mut child, identity) = shell("echo; exit 5").await;
        while identity.is_alive() {
            tokio::task::yield_now().await;
        }
        assert_eq!(send(&identity, Signal::Kill), Delivery::Gone);
        let status = descend(&[step(Signal::Kill, true, 1)], &identity, child.wait()).await;
        assert_eq!(status.unwrap().unwrap().code(), Some(5));
    }

    #[tokio::test]
    async fn a_reused_pid_is_never_signalled() {
        let (mut child, identity) = shell("echo; exec sleep 30").await;
        let earlier = Identity { started: identity.started - 1, ..identity };
        assert_eq!(send(&earlier, Signal::Kill), Delivery::Gone);
        assert_eq!(send_group(&earlier, Signal::Kill), Delivery::Gone);
        assert!(identity.is_alive());
        child.kill().await.unwrap();
    }

    #[tokio::test]
    async fn a_group_signal_needs_a_leader() {
        let mut child = Command::new("sleep").arg("30").kill_on_drop(true).spawn().unwrap();
        let identity = Identity::of(child.id().unwrap()).unwrap();
        assert_eq!(send_group(&identity, Signal::Kill), Delivery::Gone);
        assert!(identity.is_alive());
        child.kill().await.unwrap();
    }
}
