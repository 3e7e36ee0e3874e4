//! Renders every error of this room, so that a reader sees all messages in one file.

use std::io;
use std::sync::Arc;

use super::error::OrchestratorError as E;
use super::question_error::QuestionError as Q;
use crate::files::FileError;
use crate::git::WorktreeError;
use crate::launcher::slurm::JobMinutes;
use crate::mission::hint::with_hints;
use crate::mission::lifecycle::{Ending, WorkerStatus};
use crate::mission::question::Decision;

#[test]
fn every_message_is_as_recorded() {
    let all = requests().into_iter().chain(places()).chain(questions().map(E::from));
    let rows: Vec<String> = all.map(|error| with_hints(&error)).collect();
    insta::assert_snapshot!(rows.join("\n"));
    let count = |source: &str| (source.matches("#[error(").count(), source.matches("#[error(transparent)]").count());
    let (own, transparent) = count(include_str!("error.rs"));
    let (of_questions, passed) = count(include_str!("question_error.rs"));
    assert_eq!(rows.len(), own - transparent + of_questions - passed, "each variant has a row");
    let passed_on = include_str!("error.rs").matches("(error) => ").count();
    assert_eq!(passed_on, transparent, "each error of another room keeps its hints");
}

#[test]
fn shared_error_keeps_its_text_and_hints() {
    let error = || E::FullPermissions;
    assert_eq!(with_hints(&E::from(Arc::new(error()))), with_hints(&error()));
}

fn full() -> io::Error {
    io::Error::other("the disk is full")
}

fn requests() -> Vec<E> {
    let worker = || "w-1-fix".to_owned();
    let known = || "w-2-add, w-1-fix".to_owned();
    vec![
        E::UnknownWorker { name: "w-1-fxi".into(), close: Some(worker()), known: known() },
        E::NoWorkers { name: "w-9".into() },
        E::AmbiguousWorker { name: "1".into(), meanings: "the number of w-1-fix and the task of w-2-add".into() },
        E::NotYours { name: worker(), what: "cancel" },
        E::NotSettled { worker: worker(), status: "running", what: "retry" },
        E::Undecided { name: "task".into(), what: "retry", racers: known() },
        E::Blocked { worker: worker(), why: "task t, which it depends on, ended as failed".into() },
        E::StartedAgain { worker: worker() },
        E::NoProgram { backend: "codex".into(), why: "codex is not on the PATH".into(), fix: "install it".into() },
        E::LoggedOut { backend: "codex".into(), login: "codex login".into() },
        E::KeyNotPassed {
            backend: "codex".into(),
            launcher: "cluster".into(),
            keys: "CODEX_API_KEY".into(),
            login: Some("codex login".into()),
        },
        E::TooLongForPartition {
            launcher: "cluster".into(),
            partition: Some("short".into()),
            needed: JobMinutes::new(120, Some(10.0), None),
            allowed: 60,
        },
        E::NoBranch { worker: worker(), path: "/src".into() },
        E::NotCompleted { worker: worker(), status: WorkerStatus::Settled(Ending::Failed), branch: "topic".into() },
        E::BranchDeleted { worker: worker(), branch: "topic".into(), head: "0123456".into() },
        E::BranchElsewhere { branch: "topic".into(), worker: worker(), repository: "/other".into() },
        E::WorkElsewhere { worker: worker(), repository: "/other".into(), here: "/repo".into() },
        E::RepositoryGone { worker: worker(), path: "/other".into() },
        E::SeveralTargets { named: "main for w-1-fix; next for w-2-add".into() },
        E::ConfigurationChanged {
            root: "/repo".into(),
            hooks: "/repo/.git/hooks".into(),
            record: "/repo/.orchestrator/git-configuration.json".into(),
            changes: "core.pager (added)".into(),
        },
        E::CliSettingsChanged {
            records: "/repo/.orchestrator/cli-settings".into(),
            changes: "/home/u/.claude/settings.json hooks (added)".into(),
        },
        E::FullPermissions,
        E::FromProfile { profile: "careful".into(), fields: vec!["permissions"], source: Box::new(E::FullPermissions) },
        E::Malformed { reason: "title is empty".into() },
        E::ShuttingDown,
    ]
}

fn questions() -> [Q; 6] {
    let (worker, question) = (|| "w-1-fix".to_owned(), || "q1.1.1".to_owned());
    let open = || vec!["q1.1.2".to_owned(), "q1.1.3".to_owned()];
    [
        Q::NotOpen { worker: worker(), question: Some(question()), open: open() },
        Q::Several { worker: worker(), open: open() },
        Q::AlreadyAnswered { worker: worker(), question: question(), by: "user", decision: Decision::Allow },
        Q::Withdrawn { worker: worker(), question: question() },
        Q::NotRunning { worker: worker(), status: WorkerStatus::Settled(Ending::Cancelled) },
        Q::Unconfirmed { worker: worker(), question: question() },
    ]
}

fn places() -> Vec<E> {
    let topic = || "topic".to_owned();
    vec![
        E::WorktreeOfAnother { path: "/tree".into() },
        E::NoSuchFolder { directory: "app".into(), worktree: "/tree".into() },
        E::WorktreeMoved { path: "/old/tree".into(), now: "/new/tree".into(), branch: topic() },
        E::CutOff { path: "/tree".into(), branch: topic() },
        E::MadeByRequest { path: "/tree".into() },
        E::UsersDirectory { path: "/src".into() },
        E::OwnDirectory { path: "/tree".into() },
        E::NotOnBranch { path: "/tree".into(), why: "a stash is not on its branch".into() },
        E::MergeUnknown { worker: "w-1-fix".into() },
        E::NotASubfolder { directory: "../app".into() },
        E::NoFolderAtStart { directory: "app".into(), start: "0123456789".into() },
        E::Prefix {
            prefix: "a..b/".into(),
            source: Box::new(WorktreeError::InvalidBranch { branch: "a..b/w-1".into() }),
        },
        E::WorktreesFolder { folder: "/repo.worktrees".into(), source: full() },
        E::Directory {
            field: "working_directory",
            path: "/src".into(),
            why: "it does not exist".into(),
            otherwise: "leave it out to get a worktree".into(),
        },
        E::NoRepository { path: "/home/user".into() },
        E::TrackedState { path: "/repo/.orchestrator".into() },
        E::ForeignOwner { path: "/repo/.orchestrator".into(), who: "a server", host: "login1".into() },
        E::WatchedOwner { path: "/repo/.orchestrator".into(), who: "a running worker", host: "login1".into() },
        E::UnknownOwner {
            path: "/repo/.orchestrator".into(),
            source: Arc::new(FileError::Read { path: "/repo/.orchestrator/servers".into(), source: full() }),
        },
        E::Moved { path: "/repo".into() },
        E::NotText { path: "/home/user/\u{fffd}".into() },
        E::Thread(full()),
    ]
}
