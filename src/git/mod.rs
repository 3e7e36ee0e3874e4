//! Everything that this program does with git: worktrees for workers, the facts of what they did, salvage before
//! anything is deleted, and integration into a branch.
//!
//! The git program does everything that touches a worktree, an index or a ref that may be checked out. libgit2 ignores
//! clean and smudge filters, sparse checkout and working-tree encodings, and deletes uncommitted work silently. Here it
//! only reads commits and refs, and creates the new branch of a new worktree. Where it cannot open a repository
//! (sha256, reftable, partial clones), the git program does that too.
//!
//! All functions here block: call them from a blocking task. This room knows nothing of workers, missions or the state
//! folder, and uses only the hints and the words of outcomes of [`crate::mission`]. It runs no hook and no fsmonitor of
//! the repository, and it never deletes work that is not kept somewhere else.
//!
//! Start reading in [`command`], then [`repository`] and [`worktree`].

mod belonging;
mod blocking;
mod builds;
pub mod bypassed;
mod checkout;
pub mod command;
mod configuration;
mod configured;
pub mod diff;
pub mod facts;
pub mod fingerprint;
mod identity;
mod in_place;
pub mod include;
mod index;
pub mod integrate;
pub mod lacks;
pub mod land;
mod layout;
mod list;
mod locally_ignored;
mod locks;
pub mod merged;
mod moved;
pub mod names;
mod nested;
pub mod not_on_branch;
pub mod origins;
mod own_clone;
mod picked;
pub mod push;
pub mod radar;
mod reattach;
mod records;
mod reflog;
mod reflog_only;
mod refs;
mod regenerable;
mod relink;
pub mod remove;
pub mod repository;
pub mod salvage;
mod seed;
mod setup_command;
mod signing;
mod status;
mod submodules;
mod trust;
pub mod uncommitted;
pub mod verification_tree;
pub mod worktree;

#[cfg(test)]
mod messages;
#[cfg(test)]
mod testing;

pub use belonging::top_in;
pub use blocking::TreeChange;
pub use builds::{Aside, BuildRules, Builds, BuildsError, KeepReason, KeptBuild, find_builds};
pub use checkout::{checked_out, checked_out_at_a_glance, git_dir, head, is_working_tree};
pub use command::{CommandError, Git};
pub use configuration::{Configuration, hash};
pub use diff::{BranchTip, DiffError, DiffPage, DiffStyle, branch_tip, commit_diff, diff, show_commit_diff, show_diff};
pub use facts::{BranchChanges, FileChange, branch_changes, changes, changes_of, file_changes};
pub use fingerprint::{CheckoutChanges, Fingerprint, RefChange, fingerprint, short_hash, tracked_state, tree_state};
pub use identity::{CommitIdentity, has_identity};
pub use in_place::{PlaceError, check_in_place};
pub use include::Copied;
pub use index::IndexError;
pub use integrate::{
    IntegrateError, IntegrationStep, MergeConflict, ScratchMerge, Stacked, Strategy, merge_of, only_integrated,
};
pub use lacks::{is_better_equipped, lacks};
pub use land::{BranchMove, Landing, land};
pub use list::list;
pub use locks::clear_stale_locks;
pub use names::has_folder;
pub use not_on_branch::{Examined, not_on_branch};
pub use own_clone::{CloneError, Returned, bring_back, enter as enter_clone, refusal as clone_refusal};
pub use push::{PushResult, Pushed, push};
pub use reattach::reattach;
pub use relink::relink;
pub use remove::{Remove, RemoveError, Removed, check_merged, remove};
pub use repository::{Repository, RepositoryError, remote_urls, working_tree};
pub use salvage::{Keep, SalvageError, SalvageRef, keep_lost, salvage, snapshot};
pub use seed::{Seeded, copy_folder, copy_ignored, seed};
pub use setup_command::{SetupSuggestion, suggested_setup};
pub use signing::gnupg;
pub use status::Status;
pub use submodules::lacks_submodules;
pub use trust::{Checkout, Trust};
pub use uncommitted::{
    Committed, UncommittedError, changed_tracked_files, commit_uncommitted, uncommitted, uncommitted_and_ignored,
};
pub use worktree::check::{self, Request, check, check_prefix};
pub use worktree::{
    Worktree, WorktreeError, create, forget, has_record, leads_nowhere, lock, made_by_us, refill, remove_empty_folder,
    unlock,
};
