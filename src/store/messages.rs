//! Renders every error of this room, so that a reader sees all messages in one file.

use std::path::PathBuf;

use super::error::JournalError;
use super::state_file::StateFileError;
use crate::mission::testing::{all_messages, row};

#[test]
fn every_message_is_as_recorded() {
    let path = || PathBuf::from("/repo/.orchestrator");
    let rows = [
        row(JournalError::Newer { path: path(), found: 9 }),
        row(JournalError::Former { path: path(), found: 2 }),
        row(JournalError::FormerInUse { path: path(), found: 2, by: "server s-1, worker w-2-fix".into() }),
        row(JournalError::Damaged { path: path(), reason: "segment 3 is missing".into() }),
        row(JournalError::Removed { path: path() }),
        row(StateFileError::Newer { path: "/repo/.orchestrator/state.json".into(), found: 9 }),
    ];
    insta::assert_snapshot!(all_messages(&rows, "src/store"));
}
