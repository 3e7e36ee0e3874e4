//! Answers to the agent's requests for a permission, by the mission's permissions. "Always" is never chosen, since some
//! agents then write a rule into the worktree or the user's settings.

use std::path::{Component, Path, PathBuf};

use serde_json::{Value, json};

use super::message::answer;
use super::tools::AskedCall;
use super::{AcpStream, State};
use crate::backend::AgentEvent;
use crate::backend::lines::{items, text};
use crate::mission::spec::Permissions;

/// Kinds of tool calls that change nothing.
const READING_KINDS: [&str; 4] = ["read", "search", "think", "fetch"];

impl AcpStream {
    pub(super) fn permission(&mut self, id: &Value, params: &Value) -> Vec<AgentEvent> {
        let call = &params["toolCall"];
        let started = self.tools.asked(call);
        let asked = self.tools.describe(call);
        let may_run = self.state == State::Turn && !self.is_cancelled;
        let is_allowed = may_run && self.is_permitted(&asked);
        let option = |kind: &str| {
            let mut options = items(params, "/options").filter(|option| text(option, "/kind") == kind);
            options.find_map(|option| option["optionId"].as_str())
        };
        let allowed = is_allowed.then(|| option("allow_once")).flatten();
        // A turn that was cancelled gets this outcome for all its requests.
        let chosen = allowed.or_else(|| may_run.then(|| option("reject_once")).flatten());
        let outcome = match chosen {
            Some(option) => json!({"outcome": "selected", "optionId": option}),
            None => json!({"outcome": "cancelled"}),
        };
        self.replies.push(answer(id, json!({"outcome": outcome})));
        let mut events = [self.confirmed(), self.speech.flush()].concat();
        events.extend(started);
        if allowed.is_none() {
            events.push(self.denied(asked.line));
        }
        events
    }

    fn is_permitted(&self, call: &AskedCall) -> bool {
        match self.permissions {
            Permissions::ReadOnly => READING_KINDS.contains(&call.kind.as_str()),
            // Commands reach everywhere, so only edits can be kept inside.
            Permissions::Edit if call.is_edit => {
                !call.has_more_paths && call.paths.iter().all(|path| self.is_inside(path))
            }
            Permissions::Edit => true,
            Permissions::Full => true,
        }
    }

    fn is_inside(&self, path: &str) -> bool {
        let path = normalised(&Path::new(&self.directory).join(path));
        path.starts_with(self.worktree.as_deref().unwrap_or(&self.directory))
    }
}

/// Returns an absolute path without `.` and `..`. The disk is not read, so symbolic links stay.
fn normalised(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}
