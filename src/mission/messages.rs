//! Renders every error of this room, so that a reader sees all messages in one file.

use super::create::Rejection as R;
use super::id::WorkerId;
use super::lifecycle::{Event, IllegalTransition, WorkerStatus};
use super::question::InvalidDecision;
use super::testing::{all_messages, plain_row, row};

#[test]
fn every_message_is_as_recorded() {
    let worker = || WorkerId::new(1, "fix");
    let illegal = IllegalTransition { from: WorkerStatus::Running, event: Event::Requeued };
    let rejections = [
        R::TaskOpen { task: "parser".into(), worker: worker(), status: "running" },
        R::TaskTwice { task: "parser".into() },
        R::UnknownDependency { name: "parsr".into(), known: "parser, w-1-fix".into() },
        R::AmbiguousDependency { name: "1".into(), meanings: "the number of w-1-fix and the task of w-2-add".into() },
        R::UnknownContext { name: "parsr".into(), known: "parser, w-1-fix".into() },
        R::AmbiguousContext { name: "1".into(), meanings: "the number of w-1-fix and the task of w-2-add".into() },
        R::ContextOfAnother { name: "1".into(), worker: worker() },
        R::Cycle { path: "a → b → a".into() },
        R::PlaceTaken { worker: worker(), path: "/src".into() },
        R::RequestTaken { request: "r-1".into(), worker: worker() },
        R::RaceOfOne,
        R::RaceDiffers { field: "title", index: 1 },
        R::RaceRequest { request: "r-1".into() },
        R::RaceRefused { index: 1 },
        R::BranchTaken { worker: worker(), branch: "topic".into() },
    ];
    let (question, accepted) = ("q1.1.1".to_owned(), vec!["allow".to_owned(), "deny".to_owned()]);
    let invalid = InvalidDecision { question, decision: "maybe".into(), accepted };
    let others = [plain_row(illegal), row(invalid)];
    let rows: Vec<_> = rejections.into_iter().map(row).chain(others).collect();
    insta::assert_snapshot!(all_messages(&rows, "src/mission"));
}
