//! Renders every error of this room, so that a reader sees all messages in one file.

use super::local::LaunchError;
use super::slurm::{JobError, NoAnswer, SubmitError};
use crate::mission::testing::{all_messages, row};

#[test]
fn every_message_is_as_recorded() {
    let launcher = || "cluster".to_owned();
    let rows = [
        row(LaunchError::NotReady { cause: "it ended with status 1".into(), log: "/state/supervisor.log".into() }),
        row(SubmitError::Refused {
            text: "invalid partition specified: nope".into(),
            settings: &["partition"],
            launcher: launcher(),
        }),
        row(SubmitError::TooLong { text: "Requested time limit is invalid".into() }),
        row(SubmitError::NoConfiguration { text: "cannot stat file /nowhere".into() }),
        row(SubmitError::Unreadable { printed: "Welcome\n".into() }),
        row(SubmitError::NotFound { program: "sbatch".into(), launcher: launcher() }),
        row(JobError::NoAnswer(NoAnswer::Killed { program: "srun".into() })),
    ];
    insta::assert_snapshot!(all_messages(&rows, "src/launcher"));
}
