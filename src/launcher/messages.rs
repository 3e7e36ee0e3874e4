//! Renders every error of this room, so that a reader sees all messages in one file.

use std::io;

use super::local::LaunchError;
use crate::attempt::sockets::SocketFolderError;
use crate::mission::testing::{all_messages, row};

#[test]
fn every_message_is_as_recorded() {
    let source = io::ErrorKind::PermissionDenied.into();
    let rows = [
        row(LaunchError::NotReady { cause: "it ended with status 1".into(), log: "/state/supervisor.log".into() }),
        row(LaunchError::from(SocketFolderError::Foreign { path: "/tmp/sockets".into() })),
        row(LaunchError::from(SocketFolderError::Create { path: "/tmp/sockets".into(), source })),
    ];
    insta::assert_snapshot!(all_messages(&rows, "src/launcher"));
}
