//! Renders every error of this room, so that a reader sees all messages in one file.

use super::{CustomError, Refusal, UnknownBackend};
use crate::mission::spec::Permissions;
use crate::mission::testing::{all_messages, plain_row, row};

#[test]
fn every_message_is_as_recorded() {
    let codex = || "codex".to_owned();
    let name = || "mine".to_owned();
    let rows = [
        row(UnknownBackend { name: "claude".into(), known: vec!["claudecode".into(), codex()] }),
        row(Refusal::ForeignModel {
            model: "sonnet".into(),
            belongs_to: "claudecode".into(),
            backend: codex(),
            example: "gpt-5".into(),
        }),
        row(Refusal::Model { backend: codex(), model: "-m".into(), accepted: "it begins with a dash".into() }),
        row(Refusal::Effort { backend: codex(), effort: "most".into(), accepted: "low, medium and high".into() }),
        row(Refusal::Permissions {
            backend: name(),
            permissions: Permissions::ReadOnly,
            fix: "use the permissions `full`".into(),
        }),
        row(Refusal::Cost { backend: codex() }),
        row(Refusal::Tokens { backend: name() }),
        plain_row(CustomError::NameTaken { name: codex() }),
        plain_row(CustomError::Name { name: "Mine".into() }),
        plain_row(CustomError::NoProgram { name: name() }),
        plain_row(CustomError::Placeholder { name: name(), argument: "--in={folder}".into() }),
        plain_row(CustomError::Acp { name: name(), setting: "reports_cost", why: "it has no meaning" }),
    ];
    insta::assert_snapshot!(all_messages(&rows, "src/backend"));
}
