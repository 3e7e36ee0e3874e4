//! The state on disk: the journal that several servers share, the history of settled workers, and the state file for
//! users and bosses.
//!
//! Files have one writer each, or a lock. Folders are 0700, files 0600: only the user can read them. No value from the
//! environment is written. This room decides nothing about missions.
//!
//! # File layout
//!
//! `.orchestrator/` is in the root of the repository's main worktree, or in the working directory outside a repository.
//! It is entered in `.git/info/exclude`; no tracked file is touched.
//!
//! ```text
//! .orchestrator/
//!   orchestrator-state.json   the state for bosses and people to read; only the server writes it
//!   journal/                  the source of the state: numbered files, and the lock that servers take in turn
//!   history.jsonl             settled workers beyond the newest 500
//!   git-configuration.json    the repository's git configuration before the first worker. While anything differs from
//!                             it, nothing is integrated. Deleting it accepts the present configuration.
//!   ports.json                the blocks of ports of the workers; ports.lock: the lock under which it changes
//!   id.json                   the id of this state directory, once a worker ran on a cluster
//!   servers/                  a lock for each live server; on a network file system also a file that shows other hosts that
//!                             it lives
//!   events.lock               the lock of the supervisor that notifies the user of ends without a server
//!   bases/                    whether a `verify_command` passes on the base commit; checked when it fails on the work
//!   integrations/             running verifications of integrations, each removed at its end
//!   verifications/            the complete output of the last ten failed verifications of integrations
//!   waits/ID.json             the answer of a background wait that has ended, until it is old
//!   workers/ID/
//!     worker.json             the worker when its attempt began; worktree.json: its worktree;
//!                             setup.json: that the setup of the worktree succeeded
//!     attempts/N/
//!       assignment.json       the input of the supervisor; claim and lock: which supervisor runs the attempt
//!       launch.json           the launcher and job, if it runs on a cluster; engine.log: output of that job;
//!                             environment.json: variables for the job, until it has begun
//!       status.json           the current status; events.jsonl: one event per line; processes.json: what runs below it
//!       inbox/                messages to the supervisor, in order, and its end; notify: how many there are
//!       stdout.log            raw output of the CLI; also stderr.log, setup.log, verify.log, supervisor.log
//!       outcome.json          the outcome record, whose existence means settled
//!       event-sent            the user was notified of its end; also all-done-sent, event-pending
//! ```
//!
//! Worktrees without a path of their own are beside the repository, in `<repository>.worktrees/ID`. They are in the
//! user's data directory (`~/.local/share/orchestrator-boss/worktrees`) if the repository is inside another project (a
//! folder above it has `.git`, `package.json`, `Cargo.toml` or `go.work`), or if that folder cannot be created. The
//! folder is removed with its last worktree.
//!
//! The removal of a worktree keeps its branch. A worktree with uncommitted work is removed only with `force`; its
//! content is then kept under `refs/orchestrator/salvage/`. Ignored files that an outcome named are kept there in any
//! case.

pub mod error;
pub mod former_format;
pub mod history;
pub mod journal;
mod lock;
#[cfg(test)]
mod messages;
pub mod reader;
mod rebuild;
mod repair;
pub mod segment;
pub mod state_file;
pub mod wait_answers;
