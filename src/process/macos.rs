//! The process table of macOS, by libproc and sysctl. It has the same functions as `linux.rs`.

use std::ffi::c_int;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use libproc::libproc::bsd_info::BSDInfo;
use libproc::libproc::pid_rusage::{RUsageInfoV2, pidrusage};
use libproc::libproc::proc_pid::pidinfo;
use libproc::processes::{ProcFilter, pids_by_type};
use rustix::io::Errno;
use rustix::process::{Pid, Resource, Signal, geteuid, getrlimit, getsid, getuid};

use super::record::{ListedPid, ProcessRecord, ProcessState};

/// Start times come from the wall clock, which may be set back, so their order is no evidence.
pub(super) const STARTS_IN_ORDER: bool = false;

pub(super) fn record(pid: u32) -> Option<ProcessRecord> {
    let info = bsd_info(pid)?;
    Some(ProcessRecord {
        pid,
        started: info.pbi_start_tvsec * 1_000_000 + info.pbi_start_tvusec,
        parent: info.pbi_ppid,
        group: info.pbi_pgid,
        session: raw_pid(pid)
            .and_then(|pid| getsid(Some(pid)).ok())
            .map_or(0, |leader| leader.as_raw_pid().unsigned_abs()),
        state: match info.pbi_status {
            libc::SZOMB => ProcessState::Zombie,
            libc::SSTOP => ProcessState::Stopped,
            _ => ProcessState::Active,
        },
        name: text(&info.pbi_name).or_else(|| text(&info.pbi_comm)).unwrap_or_default(),
    })
}

/// Returns every visible pid. Empty if the list cannot be read.
pub(super) fn listed() -> Vec<ListedPid> {
    pids_by_type(ProcFilter::All).unwrap_or_default().into_iter().map(|pid| (pid, None)).collect()
}

pub(super) fn children(pid: u32) -> Vec<u32> {
    pids_by_type(ProcFilter::ByParentProcess { ppid: pid }).unwrap_or_default()
}

/// Returns a constant, since start times in microseconds since 1970 already differ between boots.
pub(super) fn host() -> String {
    "macos".to_owned()
}

fn bsd_info(pid: u32) -> Option<BSDInfo> {
    // The argument 1 includes zombies (xnu `proc_pidinfo`, PROC_PIDTBSDINFO).
    pidinfo::<BSDInfo>(i32::try_from(pid).ok()?, 1).ok()
}

fn raw_pid(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

fn text(field: &[std::ffi::c_char]) -> Option<String> {
    let bytes: Vec<u8> = field.iter().map(|byte| byte.to_ne_bytes()[0]).take_while(|byte| *byte != 0).collect();
    (!bytes.is_empty()).then(|| String::from_utf8_lossy(&bytes).into_owned())
}

/// Returns whether a process was started with this variable. `None` if the system hides the environment, as it does for
/// its own protected programs.
pub(super) fn environment_has(pid: u32, key: &str, value: &str) -> Option<bool> {
    let Some((_, environment)) = arguments_and_environment(pid) else {
        return if bsd_info(pid).is_some() { None } else { Some(false) };
    };
    let wanted = format!("{key}={value}");
    (!environment.is_empty()).then(|| environment.contains(&wanted))
}

/// Returns the value with which a process was started for this variable, if it is visible.
pub(super) fn environment_value(pid: u32, key: &str) -> Option<String> {
    let (_, environment) = arguments_and_environment(pid)?;
    environment.iter().find_map(|entry| Some(entry.strip_prefix(key)?.strip_prefix('=')?.to_owned()))
}

/// Returns a process's working directory. `None` if the process has ended, or belongs to another user.
pub(super) fn working_directory(pid: u32) -> Option<PathBuf> {
    // SAFETY: the struct consists of plain numbers and bytes, all of which may be zero.
    let mut info: libc::proc_vnodepathinfo = unsafe { std::mem::zeroed() };
    let size = c_int::try_from(size_of::<libc::proc_vnodepathinfo>()).ok()?;
    let pid = c_int::try_from(pid).ok()?;
    // SAFETY: `info` is the struct that this request fills, and `size` is its size.
    let read = unsafe { libc::proc_pidinfo(pid, libc::PROC_PIDVNODEPATHINFO, 0, (&raw mut info).cast(), size) };
    // The library splits the path into pieces of 32 bytes.
    (read == size).then(|| text(info.pvi_cdir.vip_path.as_flattened())).flatten().map(PathBuf::from)
}

pub(super) fn arguments(pid: u32) -> Vec<String> {
    arguments_and_environment(pid).map(|(arguments, _)| arguments).unwrap_or_default()
}

fn arguments_and_environment(pid: u32) -> Option<(Vec<String>, Vec<String>)> {
    parse_arguments(&process_arguments(c_int::try_from(pid).ok()?)?)
}

/// Parses the layout of KERN_PROCARGS2: the number of arguments, the program's path, zero bytes as padding, the
/// arguments, the environment, an empty string, and the data of the loader.
fn parse_arguments(bytes: &[u8]) -> Option<(Vec<String>, Vec<String>)> {
    let (count, rest) = bytes.split_first_chunk::<4>()?;
    let count = usize::try_from(i32::from_ne_bytes(*count)).ok()?;
    let path_end = rest.iter().position(|byte| *byte == 0)?;
    let first = path_end + rest[path_end..].iter().position(|byte| *byte != 0)?;
    let mut strings = rest[first..].split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
    let arguments = strings.by_ref().take(count).collect();
    let environment = strings.take_while(|entry| !entry.is_empty()).collect();
    Some((arguments, environment))
}

fn process_arguments(pid: c_int) -> Option<Vec<u8>> {
    let mut name = [libc::CTL_KERN, libc::KERN_PROCARGS2, pid];
    let mut size = argument_space()?;
    let mut buffer = vec![0_u8; size];
    // SAFETY: `name` has the three numbers announced, and `buffer` has the `size` bytes that the call may write.
    let result =
        unsafe { libc::sysctl(name.as_mut_ptr(), 3, buffer.as_mut_ptr().cast(), &mut size, std::ptr::null_mut(), 0) };
    buffer.truncate(size);
    (result == 0).then_some(buffer)
}

/// Returns the maximum size in bytes of the arguments and the environment of one process.
fn argument_space() -> Option<usize> {
    let mut name = [libc::CTL_KERN, libc::KERN_ARGMAX];
    let mut space: c_int = 0;
    let mut size = size_of::<c_int>();
    // SAFETY: `space` is the one int that KERN_ARGMAX writes, and `size` is its size.
    let result =
        unsafe { libc::sysctl(name.as_mut_ptr(), 2, (&raw mut space).cast(), &mut size, std::ptr::null_mut(), 0) };
    if result == 0 { usize::try_from(space).ok() } else { None }
}

/// Returns whether the process runs as our user.
pub(super) fn runs_as_us(pid: u32) -> bool {
    let us = geteuid().as_raw();
    bsd_info(pid).is_some_and(|info| [info.pbi_uid, info.pbi_ruid, info.pbi_svuid].contains(&us))
}

/// Returns the CPU time of the process and of the children that it has waited for.
pub(super) fn cpu_time(pid: u32) -> Option<Duration> {
    let usage = pidrusage::<RUsageInfoV2>(i32::try_from(pid).ok()?).ok()?;
    let ticks = usage.ri_user_time + usage.ri_system_time + usage.ri_child_user_time + usage.ri_child_system_time;
    Some(from_mach_time(ticks))
}

/// Converts Mach time, which is in nanoseconds on Intel and in ticks of 125/3 ns on Apple silicon.
#[allow(deprecated)] // libc points to another crate for two integers
fn from_mach_time(ticks: u64) -> Duration {
    let mut base = libc::mach_timebase_info { numer: 0, denom: 0 };
    // SAFETY: the call fills the struct that it is given.
    let known = unsafe { libc::mach_timebase_info(&mut base) } == 0 && base.denom != 0;
    let factor = if known { f64::from(base.numer) / f64::from(base.denom) } else { 1.0 };
    Duration::from_secs_f64(ticks as f64 * factor / 1e9)
}

/// Fails, since macOS has no pidfds. The start time is then compared immediately before the call of `kill`, and pids
/// are handed out in a circle.
pub(super) fn open_pidfd(_pid: Pid) -> rustix::io::Result<OwnedFd> {
    Err(Errno::NOSYS)
}

pub(super) fn signal_pidfd(_pidfd: &OwnedFd, _signal: Signal) -> rustix::io::Result<()> {
    Err(Errno::NOSYS)
}

pub(super) fn total_memory() -> Option<u64> {
    let mut bytes: u64 = 0;
    let mut length = size_of::<u64>();
    let name = c"hw.memsize";
    // SAFETY: `hw.memsize` writes a u64 into a buffer of that length.
    let failed =
        unsafe { libc::sysctlbyname(name.as_ptr(), (&raw mut bytes).cast(), &mut length, std::ptr::null_mut(), 0) };
    (failed == 0).then_some(bytes)
}

/// Returns the free memory by the percentage that the system itself uses (`memory_pressure` prints it).
pub(super) fn free_memory() -> Option<u64> {
    let percent = small_number(c"kern.memorystatus_level")?;
    Some(total_memory()? / 100 * percent)
}

pub(super) fn free_processes() -> Option<u64> {
    let all = pids_by_type(ProcFilter::All).ok()?.len() as u64;
    let own = pids_by_type(ProcFilter::ByRealUID { ruid: getuid().as_raw() }).ok()?.len() as u64;
    let most = small_number(c"kern.maxproc").map(|most| most.saturating_sub(all));
    let mine = small_number(c"kern.maxprocperuid").into_iter().chain(getrlimit(Resource::Nproc).current).min();
    mine.map(|mine| mine.saturating_sub(own)).into_iter().chain(most).min()
}

/// Reads a kernel setting that is a C int.
fn small_number(name: &std::ffi::CStr) -> Option<u64> {
    let mut number: c_int = 0;
    let mut length = size_of::<c_int>();
    // SAFETY: these names write one int into a buffer of that length.
    let failed =
        unsafe { libc::sysctlbyname(name.as_ptr(), (&raw mut number).cast(), &mut length, std::ptr::null_mut(), 0) };
    if failed == 0 { u64::try_from(number).ok() } else { None }
}

/// Does nothing: macOS has no subreapers. Orphans go to launchd, and only the tag and the session find them.
pub(super) fn become_subreaper() -> rustix::io::Result<()> {
    Ok(())
}

/// Returns false, since orphans go to launchd.
pub(super) fn has_no_descendants() -> bool {
    false
}

pub(super) fn is_subreaper() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_and_environment_are_parsed() {
        let mut bytes = 2_i32.to_ne_bytes().to_vec();
        bytes.extend_from_slice(b"/bin/sleep\0\0\0\0sleep\x0030\0A=1\0B=2\0\0loader=1\0");
        let (arguments, environment) = parse_arguments(&bytes).unwrap();
        assert_eq!(arguments, ["sleep", "30"]);
        assert_eq!(environment, ["A=1", "B=2"]);
    }
}
