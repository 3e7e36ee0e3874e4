//! Runs a program in the foreground of this process's terminal, as a shell does, and takes the terminal back when the
//! program ends or stops. The program has a process group of its own, so that Ctrl-C and Ctrl-Z reach only it.
//!
//! Only commands at a terminal use it: a server and a supervisor have none. It alone uses `pre_exec`, and so forks, which
//! is quick in a process of this size.

use std::io::{self, stdin};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, getpgrp, kill_process_group, waitpid};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr, tcsetpgrp};

use super::record::Identity;
use super::signal::signal_group;

/// Runs the program until it ends, and returns its status. Blocks the calling thread, which must be the only one that
/// uses the terminal meanwhile. `started` gets the program's identity, so that another thread can signal it.
///
/// After the call the terminal has the modes that it had before, and belongs to the process group of this process,
/// however the program ended. If the user stops the program (Ctrl-Z), this process stops too, and both go on together.
pub fn run_in_foreground(command: &mut Command, started: impl FnOnce(Identity)) -> io::Result<ExitStatus> {
    let modes = tcgetattr(stdin())?;
    command.process_group(0);
    // The program itself takes the terminal. If it had to wait for this process, it could fail at its first read: a read
    // from the background is an error where nothing could continue the program.
    // SAFETY: between fork and exec it makes only system calls, and allocates nothing.
    unsafe { command.pre_exec(|| Ok(take_terminal()?)) };
    let child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            // It may have had the terminal already.
            take_back(&modes);
            return Err(error);
        }
    };
    if let Some(identity) = Identity::of(child.id()) {
        started(identity);
    }
    let ended = follow(Pid::from_child(&child), &modes);
    take_back(&modes);
    ended
}

/// Signals a program that has the foreground, and the processes of its group, such as those that its shell started.
pub fn signal_foreground(program: &Identity, signal: super::Signal) {
    if program.is_alive() {
        signal_group(program.pid, signal);
    }
}

/// Makes the group of this process the one in the foreground.
fn take_terminal() -> rustix::io::Result<()> {
    // SAFETY: the descriptor is only borrowed for this call. `stdin()` would allocate.
    let terminal = unsafe { BorrowedFd::borrow_raw(libc::STDIN_FILENO) };
    while_unstoppable(|| tcsetpgrp(terminal, getpgrp()))
}

/// Waits for the end of the program. Each time it stops, it gets the terminal again when this process goes on.
fn follow(program: Pid, modes: &Termios) -> io::Result<ExitStatus> {
    let mut programs_modes = None;
    loop {
        let given = hand_over(program, programs_modes.as_ref());
        // Continues it after a stop.
        let _ = kill_process_group(program, Signal::CONT);
        let status = wait(program, WaitOptions::UNTRACED)?;
        let Some(signal) = status.stopping_signal() else { return Ok(ExitStatus::from_raw(status.as_raw())) };
        let wants_terminal = [Signal::TTIN, Signal::TTOU].iter().any(|it| it.as_raw() == signal);
        if let (true, Err(error)) = (wants_terminal, given) {
            return end(program, error);
        }
        if !wants_terminal {
            programs_modes = tcgetattr(stdin()).ok();
            take_back(modes);
            // Has no effect if no shell could continue this process. Then the program goes on at once.
            let _ = kill_process_group(getpgrp(), Signal::TSTP);
        }
    }
}

/// Ends a program that stopped because it cannot get the terminal, and returns the reason.
fn end(program: Pid, reason: io::Error) -> io::Result<ExitStatus> {
    let _ = kill_process_group(program, Signal::KILL);
    wait(program, WaitOptions::empty())?;
    Err(reason)
}

fn wait(program: Pid, options: WaitOptions) -> io::Result<WaitStatus> {
    loop {
        match waitpid(Some(program), options) {
            Ok(Some((_, status))) => return Ok(status),
            Ok(None) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn hand_over(program: Pid, modes: Option<&Termios>) -> io::Result<()> {
    while_unstoppable(|| {
        if let Some(modes) = modes {
            tcsetattr(stdin(), OptionalActions::Drain, modes)?;
        }
        Ok(tcsetpgrp(stdin(), program)?)
    })
}

/// Takes the terminal back. Errors are ignored, since the terminal may be gone.
fn take_back(modes: &Termios) {
    while_unstoppable(|| {
        let _ = take_terminal();
        let _ = tcsetattr(stdin(), OptionalActions::Drain, modes);
    });
}

/// Changes the terminal while SIGTTOU is blocked in this thread. The signal would stop a process in the background,
/// which this process is until it has the terminal again.
fn while_unstoppable<T>(change: impl FnOnce() -> T) -> T {
    let mut signals = MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: both sets are initialized by the calls that get them first, and the calls fail only for invalid arguments.
    unsafe {
        libc::sigemptyset(signals.as_mut_ptr());
        libc::sigaddset(signals.as_mut_ptr(), libc::SIGTTOU);
        libc::sigemptyset(before.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_BLOCK, signals.as_ptr(), before.as_mut_ptr());
    }
    let changed = change();
    // SAFETY: `before` was initialized above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut()) };
    changed
}
