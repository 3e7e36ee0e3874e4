//! The server's one stateful room: an actor that owns the journal, and the tasks that start and follow workers for it.
//!
//! [`Orchestrator`] is the handle that the rooms above hold: cheap to clone, each method one message and its answer.
//! [`Observer`] reads the same state without being a server. Inside, [`actor`] is a mailbox loop that decides, saves,
//! then answers. Its components own their state and return effects: [`waits`], [`admission`], [`cancellations`],
//! [`scan`] (collisions), [`user_events`]. Tasks report by mail: [`start`], [`follow`], [`integrate`], [`verify`],
//! [`probe`], [`waking`]. [`mailbox`] and [`views`] are below all of them. Only the actor touches the journal, and no
//! lock is held across an await.

mod actor;
mod actor_handle;
mod admission;
pub mod answers;
mod blocking;
mod budget;
mod builds;
mod cancellations;
mod checks;
mod clusters;
mod collisions;
mod configuration;
mod confinement;
mod context;
mod effect;
mod error;
mod follow;
mod former_state;
mod handle;
mod integrate;
mod integration_branch;
mod job_environment;
mod job_time;
mod jobs;
mod logins;
mod machine;
mod mailbox;
mod merged;
mod message_views;
#[cfg(test)]
mod messages;
mod not_included;
mod observer;
mod old_logs;
mod outcomes;
mod own_repository;
mod place;
mod ports;
mod probe;
mod prune;
mod question_error;
mod questions;
mod records;
mod registrations;
mod scan;
mod settle;
mod setup_suggestion;
mod single_flight;
mod start;
mod state_file;
mod train;
mod user_events;
mod verify;
mod views;
mod waits;
mod waking;
mod worktree_places;
mod worktrees;

pub use crate::launcher::slurm::{ClusterCheck, ObservedJob, Partition, jobs_left, lasting};
pub use answers::*;
pub use builds::{
    BuildFolder, BuildsStay, BuildsSurvey, KeptFolder, Pruning, WorktreeBuilds, builds_of, finished_at, has_worktree,
    may_be_pruned, survey_builds, wait_until_unoccupied,
};
pub use context::{Startup, worker_limit};
pub use error::OrchestratorError;
pub use handle::{DeliveryGuard, Orchestrator, WaitRequest, Waited};
pub use mailbox::WakeOrder;
pub use message_views::{DeliveryState, MessageView, inbox_entries, messages_to, messages_to_newest_attempt};
pub use observer::{BossOverview, Observer, Overview};
pub use own_repository::own_repository;
pub use place::state_root;
pub use probe::{BackendCheck, check_backends, program_of, services_of};
pub use question_error::QuestionError;
pub use setup_suggestion::suggested_setup;
pub use user_events::{WAVE as EVENT_WAVE, send as send_user_events};
pub use waking::NotWoken;
pub use worktree_places::{Around, all_folders, check_folder, worktrees_folder};
pub use worktrees::{StayReason, base_commit, branch_to_compare, why_it_stays};
