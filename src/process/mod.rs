//! Operating-system processes: starting them, identifying them again, following what they write, and ending them.
//!
//! The supervisor is the main user. It starts the worker's CLI ([`spawn()`]), follows its output files ([`Tail`]) and
//! signals it ([`send`]). It records the processes below the CLI ([`tree()`]), and checks with a [`sweep()`] that none
//! is left. The server only checks whether a supervisor is alive ([`Identity`]), starts new ones ([`start_detached`])
//! and sweeps after one that died.
//!
//! Rules of this module: A bare pid is never trusted, only pid and start time. A signal goes only to a process that is
//! ours by tag or descent, now or when it was recorded; a name is no evidence. Servers and supervisors do not use
//! `pre_exec`, since it forces a fork that gets slower with the memory of the parent. Nothing here depends on backends,
//! missions or state files.
//!
//! Linux and macOS differ in one module each (`linux.rs`, `macos.rs`) with the same functions; `confine/` has two more.

#[cfg(target_os = "linux")]
mod cgroup;
mod clock;
pub mod confine;
mod daemons;
mod detached;
mod file_system;
mod foreground;
mod growth;
mod headroom;
mod heap;
mod host;
mod identity;
#[cfg(test)]
mod messages;
mod output_copy;
#[cfg_attr(target_os = "linux", path = "linux.rs")]
#[cfg_attr(target_os = "macos", path = "macos.rs")]
mod platform;
mod program;
mod record;
mod running_in;
mod scope;
mod session;
mod signal;
mod spawn;
mod sweep;
mod tail;
mod tree;
mod usage;
mod user_command;

pub use clock::monotonic;
pub use daemons::{WorkerPlaces, known_daemons};
pub use detached::{Detached, DetachedLaunch, start_detached};
pub use file_system::network_file_system;
pub use foreground::{run_in_foreground, signal_foreground};
pub use headroom::{free_disk_bytes, free_files, free_memory_bytes, free_processes, total_memory_bytes};
pub use heap::use_one_heap;
pub use host::Host;
pub use identity::{IdentityError, PreexistingProcesses, ancestors};
pub use output_copy::{OutputCopy, OutputCopyError};
pub use program::{Program, show_program_name};
pub use record::Identity;
pub use running_in::{Occupant, is_running_in, occupant};
pub use scope::{
    Evidence, FoundProcess, ProcessScope, ScanResult, TAG_VARIABLE, depth_of, inherited_tag, scan, tag_at_depth,
};
pub use session::{SessionError, become_session_leader, become_subreaper};
pub use signal::{Signal, SignalResult, send};
pub use spawn::{Launch, SpawnError, SpawnedProcess, StdinSource, explain, spawn};
pub use sweep::{Sweep, reap_orphans, sweep};
pub use tail::{Tail, TailError, TailLine};
pub use tree::{ProcessTree, tree};
pub use usage::{ResourceUsage, scope_usage};
pub use user_command::{UserCommand, UserCommandError, run_program, run_user_command};
