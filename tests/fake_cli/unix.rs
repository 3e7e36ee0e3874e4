//! Signals and sessions, which the standard library does not offer. It links the C library anyway.

use std::io;
use std::os::raw::c_int;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

const SIG_DFL: usize = 0;
const SIG_IGN: usize = 1;
pub const SIGINT: c_int = 2;
pub const SIGTERM: c_int = 15;
#[cfg(target_os = "linux")]
pub const SIGSTOP: c_int = 19;
#[cfg(not(target_os = "linux"))]
pub const SIGSTOP: c_int = 17;

unsafe extern "C" {
    safe fn setsid() -> c_int;
    safe fn raise(signal: c_int) -> c_int;
    safe fn signal(signal: c_int, handler: usize) -> usize;
}

pub fn ignore(number: c_int) {
    signal(number, SIG_IGN);
}

/// Ends this process by the signal, even if the signal was ignored.
pub fn die_of(number: c_int) {
    signal(number, SIG_DFL);
    raise(number);
}

pub fn stop_self() {
    raise(SIGSTOP);
}

/// Returns the number of a signal that has the same number on all supported systems.
pub fn number(name: &str) -> Option<c_int> {
    Some(match name.trim_start_matches("SIG") {
        "HUP" => 1,
        "INT" => SIGINT,
        "QUIT" => 3,
        "ABRT" => 6,
        "KILL" => 9,
        "SEGV" => 11,
        "PIPE" => 13,
        "TERM" => SIGTERM,
        number => number.parse().ok()?,
    })
}

/// Returns a command without this process's stdio, so that readers of our output do not wait for it.
pub fn quiet(program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Makes the command run in its own session.
pub fn in_own_session(command: &mut Command) -> &mut Command {
    // SAFETY: setsid is async-signal-safe and touches no memory of ours.
    unsafe {
        command.pre_exec(|| match setsid() {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        })
    }
}
