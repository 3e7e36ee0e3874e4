//! Real faults of disks and files: full disks, unwritable folders, damaged, replaced and removed files, clock jumps,
//! moved repositories. The tests use the real server over JSON lines, real supervisors, and the fake CLI. After each
//! fault there is no panic and no lost result, a message names the cause and the fix, and work continues once the fault
//! is gone.

mod clock;
mod clones;
mod disk;
mod full;
mod moved;
mod output;
mod permission;
mod state_file;
#[path = "../support/mod.rs"]
mod support;
mod untrusted;
#[cfg(target_os = "linux")]
mod watches;
mod worker_files;
mod world;
