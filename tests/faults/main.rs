//! Faults of disk and files, each really produced: full disks, folders that cannot be written, damaged, replaced and
//! removed files, clocks that jump, repositories that move. The real server over JSON lines, real supervisors, the fake
//! CLI. After each fault: no panic, no settled result lost, a message that says what was wrong and what to do, and all
//! goes on once the fault is gone.

mod clock;
mod disk;
mod full;
mod moved;
mod output;
mod permission;
mod state_file;
mod stranger;
#[path = "../support/mod.rs"]
mod support;
#[cfg(target_os = "linux")]
mod watches;
mod worker_files;
mod world;
