//! The contract between a server and its supervisors: the layout of the state directory's folders, the assignment, the
//! inbox, the claim, the status and the outcome record. Files are the interface, each with one writer or created
//! exclusively; the socket only makes this faster.
//!
//! This room starts no process and makes no decision about a mission. [`state_dir::StateDir`] alone knows where files
//! are.

pub mod assignment;
pub mod cli_settings;
pub mod facts;
pub mod inbox;
pub mod launch;
pub mod node_check;
pub mod notify_failure;
pub mod prompt;
pub mod secrets;
pub mod servers;
pub mod sockets;
pub mod state_dir;
pub mod status;
pub mod verification;
pub mod verification_dir;
pub mod worker_dir;
