//! The process table of Linux, read from /proc, and signals by pidfd. It has the same functions as `macos.rs`.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirEntryExt;
use std::path::PathBuf;
use std::time::Duration;

use procfs::FromRead;
use procfs::process::{Stat, Status};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Resource, Signal, WaitId, WaitIdOptions, geteuid, getpid, getrlimit, getuid, pidfd_open,
    pidfd_send_signal, waitid,
};

use super::record::{ListedPid, ProcessRecord, ProcessState};

/// Start times come from one monotonic clock, so a worker's processes never start before its root.
pub(super) const STARTS_IN_ORDER: bool = true;

/// Maximum size in bytes of a process's line, which has a name of 64 characters and 51 numbers.
const STAT_SIZE: usize = 2_048;

/// Distance to the limit on processes below which the threads of this user are counted.
const NEAR_LIMIT: u64 = 2_000;

/// Reads a process. Parses only the necessary fields, since a scan reads every process and all fields take twice the
/// time.
pub(super) fn record(pid: u32) -> Option<ProcessRecord> {
    let mut buffer = [0; STAT_SIZE];
    let length = File::open(format!("/proc/{pid}/stat")).and_then(|mut file| file.read(&mut buffer)).ok()?;
    parse(pid, &String::from_utf8_lossy(&buffer[..length]))
}

/// Parses `<pid> (<name>) <state> <parent> <group> <session> …`, see proc(5). A name may contain any character.
fn parse(pid: u32, stat: &str) -> Option<ProcessRecord> {
    let (head, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().take(20).collect();
    let number = |at: usize| fields.get(at)?.parse().ok();
    Some(ProcessRecord {
        pid,
        started: fields.get(19)?.parse().ok()?,
        parent: number(1)?,
        group: number(2)?,
        session: number(3)?,
        state: match *fields.first()? {
            // A main thread that has ended has the state of a zombie while the other threads continue.
            "Z" | "X" | "x" if number(17)? <= 1 => ProcessState::Zombie,
            "T" | "t" => ProcessState::Stopped,
            _ => ProcessState::Active,
        },
        name: head.split_once('(')?.1.to_owned(),
    })
}

/// Returns every visible pid with the inode number of its folder. Empty if /proc cannot be read.
///
/// The kernel removes a folder with its process and gives each new folder a new number (`proc_flush_pid`,
/// `get_next_ino`). Short of memory it may remove a folder earlier. The process then gets a new number, but never that
/// of another process.
pub(super) fn listed() -> Vec<ListedPid> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let listed = |entry: fs::DirEntry| Some((entry.file_name().to_str()?.parse().ok()?, Some(entry.ino())));
    entries.flatten().filter_map(listed).collect()
}

/// Returns the children of all threads of a process.
pub(super) fn children(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>()).collect()
}

/// Identifies the boot and the process namespace in which a pid and a start time are unique.
pub(super) fn host() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let namespace = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    match boot.trim() {
        "" => String::new(),
        boot => format!("{boot} {}", namespace.display()),
    }
}

/// Returns whether a process was started with this variable. `None` if the system hides the environment. `Some(false)`
/// if the process has ended.
pub(super) fn environment_has(pid: u32, key: &str, value: &str) -> Option<bool> {
    match fs::read(format!("/proc/{pid}/environ")) {
        Ok(environment) => Some(environment.split(|byte| *byte == 0).any(|entry| is_entry(entry, key, value))),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => None,
        Err(_) => Some(false),
    }
}

/// Returns the value with which a process was started for this variable, if it is visible.
pub(super) fn environment_value(pid: u32, key: &str) -> Option<String> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let mut entries = environment.split(|byte| *byte == 0);
    let value = entries.find_map(|entry| entry.strip_prefix(key.as_bytes())?.strip_prefix(b"="))?;
    Some(String::from_utf8_lossy(value).into_owned())
}

fn is_entry(entry: &[u8], key: &str, value: &str) -> bool {
    entry.strip_prefix(key.as_bytes()).and_then(|rest| rest.strip_prefix(b"=")) == Some(value.as_bytes())
}

/// Returns a process's working directory. `None` if the process has ended, or belongs to another user.
pub(super) fn working_directory(pid: u32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/cwd")).ok()
}

pub(super) fn arguments(pid: u32) -> Vec<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// Returns whether the process runs as our user. Called only for a hidden environment, since this file is slower to
/// read.
pub(super) fn runs_as_us(pid: u32) -> bool {
    let us = geteuid().as_raw();
    Status::from_file(format!("/proc/{pid}/status"))
        .is_ok_and(|status| [status.ruid, status.euid, status.suid].contains(&us))
}

/// Returns the CPU time of the process and of the children that it has waited for.
pub(super) fn cpu_time(pid: u32) -> Option<Duration> {
    let stat = Stat::from_file(format!("/proc/{pid}/stat")).ok()?;
    let waited_for = u64::try_from(stat.cutime + stat.cstime).unwrap_or(0);
    let ticks = stat.utime + stat.stime + waited_for;
    Some(Duration::from_secs_f64(ticks as f64 / procfs::ticks_per_second() as f64))
}

/// Returns a descriptor of exactly the process that has this pid now.
pub(super) fn open_pidfd(pid: Pid) -> rustix::io::Result<OwnedFd> {
    pidfd_open(pid, PidfdFlags::empty())
}

pub(super) fn signal_pidfd(pidfd: &OwnedFd, signal: Signal) -> rustix::io::Result<()> {
    pidfd_send_signal(pidfd, signal)
}

pub(super) fn total_memory() -> Option<u64> {
    let physical = rustix::system::sysinfo();
    Some(physical.totalram as u64 * u64::from(physical.mem_unit.max(1)))
}

pub(super) fn free_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let available = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(available.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

/// Returns the free processes by the limits of the system and of this user. Threads count as processes.
pub(super) fn free_processes() -> Option<u64> {
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    // "0.20 0.18 0.12 1/80 11206": the fourth word has the running and all threads.
    let load = fs::read_to_string("/proc/loadavg").ok()?;
    let all: u64 = load.split(['/', ' ']).nth(4)?.parse().ok()?;
    let most = [number("/proc/sys/kernel/pid_max"), number("/proc/sys/kernel/threads-max")].into_iter().flatten().min();
    let own = getrlimit(Resource::Nproc).current.filter(|_| !geteuid().is_root());
    // The threads of this user are counted only near the limit, since that reads every process.
    let own =
        own.map(|limit| limit.saturating_sub(if limit < all + NEAR_LIMIT { threads_of_this_user() } else { all }));
    own.into_iter().chain(most.map(|most| most.saturating_sub(all))).min()
}

fn threads_of_this_user() -> u64 {
    let us = getuid().as_raw();
    let statuses = listed().into_iter().filter_map(|(pid, _)| Status::from_file(format!("/proc/{pid}/status")).ok());
    statuses.filter(|status| status.ruid == us).map(|status| status.threads).sum()
}

pub(super) fn become_subreaper() -> rustix::io::Result<()> {
    rustix::process::set_child_subreaper(Some(getpid()))
}

/// Returns whether this process has no child, dead or alive. It adopts all orphans below it, so it then has no
/// descendant.
pub(super) fn has_no_descendants() -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    is_subreaper() && matches!(waitid(WaitId::All, options), Err(Errno::CHILD))
}

/// Returns whether orphans below this process become its children, so that descent alone finds them all.
pub(super) fn is_subreaper() -> bool {
    matches!(rustix::process::child_subreaper(), Ok(Some(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The library reads every field, so it checks the positions of the parsed ones.
    #[test]
    fn process_is_read_as_library_reads_it() {
        let own = std::process::id();
        let stat = Stat::from_file("/proc/self/stat").unwrap();
        let record = record(own).unwrap();
        let numbers = (record.started, record.parent as i32, record.group as i32, record.session as i32);
        assert_eq!(numbers, (stat.starttime, stat.ppid, stat.pgrp, stat.session));
        assert_eq!((record.name, record.state), (stat.comm, ProcessState::Active));
    }

    #[test]
    fn names_and_ended_main_threads_are_parsed() {
        let line = |state: &str, threads: u32| {
            format!("7 (a) (Z 1) b) {state} 1 2 3 0 -1 4 5 6 7 8 9 10 11 12 20 0 {threads} 0 99 1000 1")
        };
        let found = parse(7, &line("Z", 1)).unwrap();
        assert_eq!((found.name.as_str(), found.parent, found.session, found.started), ("a) (Z 1) b", 1, 3, 99));
        assert_eq!(found.state, ProcessState::Zombie);
        assert_eq!(parse(7, &line("Z", 2)).unwrap().state, ProcessState::Active);
        assert_eq!(parse(7, &line("T", 1)).unwrap().state, ProcessState::Stopped);
        assert!(parse(7, "7 (cut) S 1").is_none());
    }
}
