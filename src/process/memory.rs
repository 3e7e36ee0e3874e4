//! How much memory this machine has, for the default limit on workers.

/// Physical memory, or the limit of the container around us where that is smaller. `None` where the system does not say.
#[cfg(target_os = "linux")]
pub fn total_memory_bytes() -> Option<u64> {
    let physical = rustix::system::sysinfo();
    let physical = physical.totalram as u64 * u64::from(physical.mem_unit.max(1));
    // cgroup v2; "max" when there is none.
    let limit = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
    Some(limit.map_or(physical, |limit: u64| limit.min(physical)))
}

#[cfg(target_os = "macos")]
pub fn total_memory_bytes() -> Option<u64> {
    let mut bytes: u64 = 0;
    let mut length = std::mem::size_of::<u64>();
    let name = c"hw.memsize";
    // SAFETY: `hw.memsize` writes a u64 into a buffer of that length.
    let failed =
        unsafe { libc::sysctlbyname(name.as_ptr(), (&raw mut bytes).cast(), &mut length, std::ptr::null_mut(), 0) };
    (failed == 0).then_some(bytes)
}
