//! Renders every error of this room, so that a reader sees all messages in one file.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;

use super::confine::ConfineError;
use super::identity::IdentityError;
use super::output_copy::OutputCopyError;
use super::session::SessionError;
use super::spawn::SpawnError as E;
use super::tail::TailError;
use super::user_command::UserCommandError;
use crate::mission::testing::{all_messages, plain_row, row};

#[test]
fn every_message_is_as_recorded() {
    let program = || PathBuf::from("/usr/bin/codex");
    let path = || PathBuf::from("/state/stdout");
    let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
    let rows = [
        row(E::ProgramNotFound { program: program() }),
        row(E::OwnProgramMissing { program: "/usr/bin/orchestrator-boss".into() }),
        row(E::InterpreterNotFound { program: program() }),
        row(E::NotExecutable { program: program(), source: denied() }),
        row(E::DirectoryMissing { program: program(), directory: "/gone".into() }),
        row(E::TooMany { program: program(), source: io::Error::other("try again") }),
        row(E::NoSpace { path: path() }),
        row(E::Output { path: path(), program: program(), source: denied() }),
        row(E::Start { program: program(), source: denied() }),
        row(E::Unidentified { program: program(), pid: 7 }),
        row(E::Confine { program: program(), source: ConfineError::Link { path: "/repo/tree".into() } }),
        row(ConfineError::Grant { path: "/repo/tree".into(), source: denied() }),
        row(ConfineError::Link { path: "/repo/tree".into() }),
        row(ConfineError::Refused { why: "this kernel or container has no Landlock".to_owned() }),
        row(ConfineError::Thread { source: io::Error::other("try again") }),
        row(OutputCopyError::NoSpace { path: path() }),
        row(OutputCopyError::Write { path: path(), source: denied() }),
        row(OutputCopyError::Read { path: path(), source: denied() }),
        plain_row(IdentityError::OwnHidden { pid: 7 }),
        plain_row(SessionError::Session { source: denied() }),
        plain_row(SessionError::Subreaper { source: denied() }),
        row(TailError::Open { path: path(), source: denied() }),
        row(TailError::Read { path: path(), offset: 9, source: denied() }),
        plain_row(UserCommandError::Start(denied())),
        plain_row(UserCommandError::TimedOut { seconds: 10 }),
        plain_row(UserCommandError::Failed { status: ExitStatus::from_raw(3 << 8), stderr: "broken".to_owned() }),
    ];
    insta::assert_snapshot!(all_messages(&rows, "src/process"));
}
