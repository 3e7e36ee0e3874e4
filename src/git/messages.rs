//! Renders every error of this room, so that a reader sees all messages in one file.

use std::io;

use super::builds::BuildsError;
use super::command::CommandError;
use super::diff::DiffError;
use super::in_place::PlaceError;
use super::include::IncludeError;
use super::index::IndexError;
use super::integrate::IntegrateError;
use super::own_clone::CloneError;
use super::remove::RemoveError;
use super::repository::RepositoryError;
use super::salvage::SalvageError;
use super::uncommitted::UncommittedError;
use super::worktree::WorktreeError;
use crate::mission::hint::{Hint, Hinted};
use crate::mission::testing::{MessageRow, all_messages, row};

#[test]
fn every_message_is_as_recorded() {
    let mut rows = commands();
    rows.extend(repositories());
    rows.extend(worktrees());
    rows.extend(removals());
    rows.extend(integrations());
    rows.extend(clones());
    insta::assert_snapshot!(all_messages(&rows, "src/git"));
}

#[test]
fn transparent_errors_keep_their_hints() {
    let repository = || RepositoryError::from(timed_out());
    let index = || IndexError::from(timed_out());
    let place = PlaceError::Unknown { worktree: "/tree".into(), source: timed_out() };
    let errors: [Box<dyn Hinted>; 21] = [
        Box::new(repository()),
        Box::new(index()),
        Box::new(IncludeError::from(timed_out())),
        Box::new(UncommittedError::from(timed_out())),
        Box::new(DiffError::from(timed_out())),
        Box::new(DiffError::from(repository())),
        Box::new(DiffError::from(index())),
        Box::new(SalvageError::from(timed_out())),
        Box::new(SalvageError::from(index())),
        Box::new(WorktreeError::from(repository())),
        Box::new(WorktreeError::from(IncludeError::from(timed_out()))),
        Box::new(WorktreeError::from(place)),
        Box::new(RemoveError::from(timed_out())),
        Box::new(RemoveError::from(repository())),
        Box::new(RemoveError::from(WorktreeError::from(timed_out()))),
        Box::new(RemoveError::from(SalvageError::from(index()))),
        Box::new(RemoveError::from(CloneError::from(timed_out()))),
        Box::new(CloneError::from(timed_out())),
        Box::new(IntegrateError::from(timed_out())),
        Box::new(IntegrateError::from(repository())),
        Box::new(IntegrateError::from(index())),
    ];
    for error in errors {
        assert_eq!(error.hints(), timed_out().hints(), "{error:?}");
    }
}

fn denied() -> io::Error {
    io::ErrorKind::PermissionDenied.into()
}

fn failed() -> CommandError {
    CommandError::Failed {
        command: "rev-parse --show-toplevel".into(),
        dir: "/repo".into(),
        code: Some(128),
        stderr: "fatal: bad config line 1 in file .git/config".into(),
    }
}

fn timed_out() -> CommandError {
    CommandError::TimeUp { command: "worktree add".into(), dir: "/repo".into(), seconds: 1_800 }
}

fn commands() -> Vec<MessageRow> {
    vec![
        row(CommandError::NotInstalled),
        row(CommandError::TooOld { found: "git version 2.30.2".into() }),
        row(CommandError::NoDirectory { dir: "/gone".into() }),
        row(CommandError::Start { command: "status".into(), dir: "/repo".into(), source: denied() }),
        row(failed()),
        row(CommandError::Failed {
            command: "status".into(),
            dir: "/repo".into(),
            code: None,
            stderr: "error: out of memory".into(),
        }),
        row(timed_out()),
        row(CommandError::NotUtf8 { command: "config --list".into() }),
        row(IndexError::Copy { worktree: "/tree".into(), source: denied() }),
        row(IncludeError::Copy { path: ".env".into(), source: denied() }),
    ]
}

fn repositories() -> Vec<MessageRow> {
    let no_commits = |tree: Option<&str>| RepositoryError::NoCommits {
        what: "the repository at /repo".into(),
        tree: tree.map(Into::into),
    };
    vec![
        row(RepositoryError::Unreadable { dir: "/repo".into(), stderr: "fatal: bad config line 1\n".into() }),
        row(RepositoryError::NoMainWorktree { common_dir: "/git/repo".into() }),
        row(RepositoryError::Detached { root: "/repo".into() }),
        row(RepositoryError::MissingIdentity { dir: "/repo".into() }),
        row(RepositoryError::UnknownCommit { name: "v1".into() }),
        row(RepositoryError::Ambiguous {
            name: "v1".into(),
            meanings: vec!["refs/heads/v1 (0123456789)".into(), "refs/tags/v1 (abcdef0123)".into()],
        }),
        row(RepositoryError::SeveralRemotes { branch: "topic".into(), remotes: vec!["origin".into(), "fork".into()] }),
        row(RepositoryError::NoSuchBranch {
            branch: "release".into(),
            why: ", which the setting integration_branch names",
            root: "/repo".into(),
            branches: "main, topic".into(),
        }),
        row(no_commits(Some("/repo"))),
        row(no_commits(None)),
        row(RepositoryError::Lock { path: "/repo/.git/orchestrator-boss.lock".into(), source: denied() }),
        row(RepositoryError::Exclude {
            pattern: ".orchestrator/".into(),
            path: "/repo/.git/info/exclude".into(),
            source: denied(),
        }),
        row(DiffError::BranchDeleted { branch: "topic".into(), last: Some("0123456".into()) }),
        row(DiffError::BranchDeleted { branch: "topic".into(), last: None }),
    ]
}

fn worktrees() -> Vec<MessageRow> {
    let taken = || Box::new(WorktreeError::PathTaken { path: "/tree".into() });
    vec![
        row(PlaceError::Elsewhere { worktree: "/tree".into(), works_on: "/repo".into(), records: "/repo/.git".into() }),
        row(PlaceError::Replaced { worktree: "/tree".into() }),
        row(PlaceError::Unknown { worktree: "/tree".into(), source: failed() }),
        row(WorktreeError::InvalidBranch { branch: "a..b".into() }),
        row(WorktreeError::BranchInTheWay { branch: "topic/a".into(), existing: "topic".into() }),
        row(WorktreeError::BranchInUse { branch: "topic".into(), path: "/tree".into() }),
        row(WorktreeError::BranchExists { branch: "topic".into(), commit: "0123456".into(), base: "main".into() }),
        row(WorktreeError::RemoteHasBranch {
            branch: "topic".into(),
            remote: "origin".into(),
            commit: "0123456".into(),
            base: "main".into(),
        }),
        row(WorktreeError::NotABranch {
            branch: "refs/tags/v1".into(),
            what: "a tag",
            instead: vec![Hint::to("name a branch")],
        }),
        row(WorktreeError::InvalidPath { path: "work\n".into(), why: "it has control characters" }),
        row(WorktreeError::PathOutside { path: "/far/tree".into(), root: "/repo".into() }),
        row(WorktreeError::PathInWorktree { path: "/tree/inner".into(), worktree: "/tree".into() }),
        row(WorktreeError::PathTaken { path: "/tree".into() }),
        row(WorktreeError::PathRegistered { path: "/tree".into() }),
        row(WorktreeError::RemoveVerificationTree { path: "/verification".into(), source: denied() }),
        row(WorktreeError::MakeFolder { path: "/worktrees".into(), source: denied() }),
        row(WorktreeError::Remember { path: "/repo/.git/worktrees/w-1/gitdir".into(), source: denied() }),
        row(WorktreeError::ReadPath { path: "/tree".into(), source: denied() }),
        row(WorktreeError::NotAWorktree { path: "/tree".into(), known: vec!["/repo".into(), "/other".into()] }),
        row(WorktreeError::Undo { path: "/tree".into(), cause: taken(), source: Box::new(timed_out().into()) }),
    ]
}

fn removals() -> Vec<MessageRow> {
    let samples = || vec!["a.txt".to_owned(), "b.txt".to_owned()];
    vec![
        row(BuildsError::NoFolder { path: "/tree/.orchestrator".into() }),
        row(BuildsError::Create { path: "/tree/.orchestrator".into(), source: denied() }),
        row(BuildsError::Move { path: "/tree/target".into(), source: denied() }),
        row(BuildsError::Delete { path: "/tree/.orchestrator/pruned-1".into(), source: denied() }),
        row(UncommittedError::InProgress { worktree: "/tree".into(), operation: "rebase" }),
        row(UncommittedError::Conflicts { worktree: "/tree".into() }),
        row(UncommittedError::Detached { worktree: "/tree".into() }),
        row(UncommittedError::Unborn { worktree: "/tree".into(), branch: "topic".into() }),
        row(SalvageError::InvalidName { name: "a..b".into() }),
        row(SalvageError::UnreadableRepository { path: "/tree/inner".into() }),
        row(SalvageError::Unreadable {
            worktree: "/tree".into(),
            complaint: "warning: could not open directory 'closed/': Permission denied".into(),
        }),
        row(SalvageError::NoFreeName { name: "w-1".into() }),
        row(RemoveError::MainWorktree { path: "/repo".into() }),
        row(RemoveError::Locked { path: "/tree".into(), reason: "w-1 lives here".into() }),
        row(RemoveError::Dirty { path: "/tree".into(), count: 2, samples: samples() }),
        row(RemoveError::Detached { path: "/tree".into(), commit: "0123456".into() }),
        row(RemoveError::SubmoduleCommits { path: "/tree".into(), repositories: vec!["sub".into()] }),
        row(RemoveError::Unmerged { branch: "topic".into(), into: "main".into(), commits: 3 }),
        row(RemoveError::IntegrationBranch { branch: "main".into() }),
        row(RemoveError::BranchInUse { branch: "topic".into(), path: "/tree".into() }),
        row(RemoveError::InProgress { path: "/tree".into(), operation: "merge" }),
        row(RemoveError::HoldsWorktree { path: "/tree".into(), inner: "/tree/inner".into() }),
        row(RemoveError::Broken { path: "/tree".into() }),
        row(RemoveError::ManyIgnored {
            path: "/tree".into(),
            count: 6_000,
            megabytes: 120,
            sample: "data/a.bin".into(),
        }),
        row(RemoveError::Moved { path: "/tree".into(), now: "/moved/tree".into() }),
        row(RemoveError::Busy { path: "/tree".into() }),
    ]
}

fn integrations() -> Vec<MessageRow> {
    let samples = || vec!["a.txt".to_owned(), "b.txt".to_owned()];
    let main = || "main".to_owned();
    vec![
        row(IntegrateError::Apart { branch: "topic".into(), paths: "a.txt, b.txt".into() }),
        row(IntegrateError::UnknownBranch { branch: "topic".into(), branches: "main, other".into() }),
        row(IntegrateError::BrokenBranch { branch: "topic".into(), file: "/repo/.git/refs/heads/topic".into() }),
        row(IntegrateError::SameBranch { branch: main() }),
        row(IntegrateError::MergeCommit { branch: "topic".into(), commit: "0123456".into() }),
        row(IntegrateError::TargetDirty { branch: main(), worktree: "/repo".into(), count: 2, samples: samples() }),
        row(IntegrateError::InTheWay { branch: main(), worktree: "/repo".into(), count: 2, samples: samples() }),
        row(IntegrateError::TargetUnmerged { branch: main(), worktree: "/repo".into(), samples: samples() }),
        row(IntegrateError::TargetLocked { branch: main(), lock: "/repo/.git/index.lock".into() }),
        row(IntegrateError::TargetBusy { branch: main(), worktree: "/repo".into(), operation: "rebase" }),
        row(IntegrateError::Scratch(denied())),
        row(IntegrateError::TargetMoved { branch: main(), expected: "0123456".into(), found: "abcdef0".into() }),
    ]
}

fn clones() -> Vec<MessageRow> {
    let why = "the repository has submodules".to_owned();
    let clone = "/repo/.git/worktrees/tree/orchestrator-clone/git";
    vec![
        row(CloneError::Refused { why }),
        row(CloneError::Write { path: "/tree/.git".into(), source: denied() }),
        row(CloneError::Read { path: clone.into(), source: denied() }),
        row(CloneError::Fetch { commit: "0123456".into(), clone: clone.into(), source: Box::new(timed_out()) }),
    ]
}
