//! The varied properties of a case. Each value was observed in a user's repository or in the work of a worker.

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
    /// Files in the order of writing; the first `committed` of them are committed before the ending.
    pub writes: Vec<Write>,
    pub committed: usize,
    pub ending: Ending,
    pub commit_leftovers: bool,
    pub strategy: &'static str,
    pub verify: bool,
    pub meanwhile: Meanwhile,
}

/// The kind of directory in which the boss is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    Plain,
    /// A subfolder of a monorepo.
    Subfolder,
    /// A linked worktree on its own branch.
    LinkedWorktree,
    /// A worktree of a bare repository.
    WorktreeOfBare,
    /// The bare repository itself.
    Bare,
    /// A submodule of another repository.
    Submodule,
    /// A submodule with `extensions.worktreeConfig`.
    SubmoduleWithWorktreeConfig,
}

/// A submodule of the boss's repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Submodule {
    None,
    Filled,
    Empty,
}

/// References that share a name with the integration branch or with the worker's branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    Plain,
    /// A tag on an older commit.
    TagLikeIntegration,
    RemoteLikeIntegration,
    TagLikeWorker,
}

/// Uncommitted changes in the user's checkout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checkout {
    Clean,
    EditedElsewhere,
    StagedElsewhere,
    Untracked,
    /// An edit in the file that the worker changes too.
    EditedSame,
    /// An untracked file with the name of a file that the worker creates.
    UntrackedSame,
    UnfinishedMerge,
}

/// A second worktree of the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Neighbour {
    None,
    Worktree,
    Locked,
    FolderGone,
}

/// A file that the worker writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    Plain,
    Nested,
    OddName,
    Huge,
    Ignored,
    Unreadable,
    Executable,
    /// A change of `shared.txt`, which exists on every branch.
    Shared,
}

/// The git state that the worker leaves at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Files,
    Staged,
    Committed,
    MergeConflict,
    /// `git merge --no-commit` without a conflict.
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

/// An action of the user while the worker runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meanwhile {
    Nothing,
    Commits,
    /// Removal of the newest commit from before the worker began.
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

/// Generates a case. A failing case shrinks towards the values that come first.
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
    /// Replaces impossible combinations: a bare repository, for example, has no checkout to edit.
    fn made_possible(mut self) -> Self {
        if self.layout == Layout::Bare {
            self.checkout = Checkout::Clean;
            self.submodule = Submodule::None;
        }
        if self.layout.is_submodule() {
            self.submodule = Submodule::None;
        }
        // `git reset --keep` refuses to run during an unfinished merge.
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
