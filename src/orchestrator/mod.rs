//! The server's one stateful room: an actor that owns the journal, and the tasks that start and follow workers for it.
//!
//! [`Orchestrator`] is the handle that the rooms above hold: cheap to clone, each method one message and its answer.
//! [`Observer`] reads the same state without being a server.
//! Inside, [`actor`] is a mailbox loop that decides, saves, then answers; [`schedule`] starts what may start;
//! [`waiters`] holds the waits; [`recover`] takes over what dead servers left. No module but the actor touches the
//! journal, and no lock is held across an await.

mod actor;
pub mod answers;
mod budget;
mod checks;
mod commands;
mod configuration;
mod context;
mod error;
mod follow;
mod former_state;
mod handle;
mod integrate;
mod integration_branch;
mod jobs;
mod logins;
mod machine;
mod mail;
mod merged;
#[cfg(test)]
mod messages;
mod not_included;
mod observer;
mod place;
mod probe;
mod prove;
mod radar;
mod recover;
mod registrations;
mod schedule;
mod settle;
mod shared_look;
mod start;
mod train;
mod views;
mod waiters;
mod worktree_places;
mod worktrees;
mod written;

pub use answers::*;
pub use configuration::keep_git_to_what_is_remembered;
pub use error::OrchestratorError;
pub use handle::{Handing, Orchestrator, Startup, WaitRequest};
pub use observer::{BossOverview, Observer, Overview};
pub use place::state_root;
pub use probe::{Looked, look_at_backends};
pub use worktree_places::{Around, all_folders, check_folder, worktrees_folder};
pub use worktrees::{base_commit, why_it_stays};
pub use written::{Heard, Written, inbox_entries, written};
