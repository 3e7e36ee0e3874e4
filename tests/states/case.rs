//! What is varied. Each value is one thing that people's repositories, or workers, were seen to do.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

#[derive(Debug, Clone)]
pub struct Case {
    pub layout: Layout,
    pub submodule: Submodule,
    pub names: Names,
    pub checkout: Checkout,
    pub neighbour: Neighbour,
    /// In the order in which they are written; those before `committed` are committed before the ending.
    pub writes: Vec<Write>,
    pub committed: usize,
    pub ending: Ending,
    pub commit_leftovers: bool,
    pub strategy: &'static str,
    pub verify: bool,
    pub meanwhile: Meanwhile,
}

/// Where the boss stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    Plain,
    /// In a subfolder of a monorepo.
    Subfolder,
    /// In a linked worktree on a branch of its own.
    LinkedWorktree,
    /// In a worktree of a bare repository.
    WorktreeOfBare,
    /// In the bare repository itself.
    Bare,
    /// In a submodule of another repository.
    Submodule,
    /// The same, with `extensions.worktreeConfig`.
    SubmoduleWithWorktreeConfig,
}

/// A submodule of the boss's repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Submodule {
    None,
    Filled,
    Empty,
}

/// References with the name of the integration branch, or of the worker's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    Plain,
    /// A tag on an older commit.
    TagLikeIntegration,
    RemoteLikeIntegration,
    TagLikeWorker,
}

/// What the user has uncommitted beside the boss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checkout {
    Clean,
    EditedElsewhere,
    StagedElsewhere,
    Untracked,
    /// In the file that the worker changes too.
    EditedSame,
    /// Has the name of a file that the worker makes.
    UntrackedSame,
    UnfinishedMerge,
}

/// Another worktree of the user's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Neighbour {
    None,
    Worktree,
    Locked,
    FolderGone,
}

/// What the worker writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    Plain,
    Nested,
    OddName,
    Huge,
    Ignored,
    Unreadable,
    Executable,
    /// A change of the file that all have.
    Shared,
}

/// In what the worker leaves git.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Files,
    Staged,
    Committed,
    MergeConflict,
    /// `git merge --no-commit`, and no conflict.
    MergeToCommit,
    CherryPickConflict,
    RevertToCommit,
    RebaseConflict,
    PatchConflict,
    Bisect,
    StaleIndexLock,
    DetachedWithCommit,
    OtherBranchWithCommit,
    Orphan,
    Stash,
    NestedRepository,
    NestedRepositoryWithCommit,
    BranchDeleted,
    BranchRenamed,
    AssumedUnchanged,
    IntentToAdd,
}

/// What the user does while the worker runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meanwhile {
    Nothing,
    Commits,
    /// The newest commit before the worker began is taken back.
    TakesBack,
}

const ENDINGS: [Ending; 21] = [
    Ending::Files,
    Ending::Staged,
    Ending::Committed,
    Ending::MergeConflict,
    Ending::MergeToCommit,
    Ending::CherryPickConflict,
    Ending::RevertToCommit,
    Ending::RebaseConflict,
    Ending::PatchConflict,
    Ending::Bisect,
    Ending::StaleIndexLock,
    Ending::DetachedWithCommit,
    Ending::OtherBranchWithCommit,
    Ending::Orphan,
    Ending::Stash,
    Ending::NestedRepository,
    Ending::NestedRepositoryWithCommit,
    Ending::BranchDeleted,
    Ending::BranchRenamed,
    Ending::AssumedUnchanged,
    Ending::IntentToAdd,
];

const WRITES: [Write; 8] = [
    Write::Plain,
    Write::Nested,
    Write::OddName,
    Write::Huge,
    Write::Ignored,
    Write::Unreadable,
    Write::Executable,
    Write::Shared,
];

/// Values that come first are what a failing case is made smaller to.
pub fn any_case() -> impl Strategy<Value = Case> {
    let layout = select(vec![
        Layout::Plain,
        Layout::Subfolder,
        Layout::LinkedWorktree,
        Layout::WorktreeOfBare,
        Layout::Bare,
        Layout::Submodule,
        Layout::SubmoduleWithWorktreeConfig,
    ]);
    let submodule = prop_oneof![3 => Just(Submodule::None), 1 => Just(Submodule::Filled), 1 => Just(Submodule::Empty)];
    let names =
        select(vec![Names::Plain, Names::TagLikeIntegration, Names::RemoteLikeIntegration, Names::TagLikeWorker]);
    let checkout = select(vec![
        Checkout::Clean,
        Checkout::EditedElsewhere,
        Checkout::StagedElsewhere,
        Checkout::Untracked,
        Checkout::EditedSame,
        Checkout::UntrackedSame,
        Checkout::UnfinishedMerge,
    ]);
    let neighbour = select(vec![Neighbour::None, Neighbour::Worktree, Neighbour::Locked, Neighbour::FolderGone]);
    let writes = vec(select(WRITES.to_vec()), 1..4);
    let meanwhile = prop_oneof![
        3 => Just(Meanwhile::Nothing),
        1 => Just(Meanwhile::Commits),
        1 => Just(Meanwhile::TakesBack),
    ];
    let commit_leftovers = prop_oneof![4 => Just(true), 1 => Just(false)];
    let around = (layout, submodule, names, checkout, neighbour, meanwhile);
    let work = (writes, 0..4_usize, select(ENDINGS.to_vec()), commit_leftovers);
    (around, work, select(vec!["merge", "squash", "cherry_pick"]), any::<bool>()).prop_map(
        |((layout, submodule, names, checkout, neighbour, meanwhile), work, strategy, verify)| {
            let (writes, committed, ending, commit_leftovers) = work;
            let case = Case {
                layout,
                submodule,
                names,
                checkout,
                neighbour,
                committed: committed.min(writes.len()),
                writes,
                ending,
                commit_leftovers,
                strategy,
                verify,
                meanwhile,
            };
            case.made_possible()
        },
    )
}

impl Case {
    /// Takes out what cannot be together: a bare repository has no checkout to edit.
    fn made_possible(mut self) -> Self {
        if self.layout == Layout::Bare {
            self.checkout = Checkout::Clean;
            self.submodule = Submodule::None;
        }
        if self.layout.is_submodule() {
            self.submodule = Submodule::None;
        }
        // Taking commits back needs a checkout that git can reset without touching what is edited there.
        if self.meanwhile != Meanwhile::Nothing && self.checkout == Checkout::UnfinishedMerge {
            self.meanwhile = Meanwhile::Nothing;
        }
        self
    }
}

impl Layout {
    pub fn is_submodule(self) -> bool {
        matches!(self, Layout::Submodule | Layout::SubmoduleWithWorktreeConfig)
    }
}
