//! The tool calls of an agent. A call is described piece by piece, in any order: some agents announce it empty, some
//! report only its end, and some ask for a permission by its id alone.

use std::collections::VecDeque;

use serde_json::Value;

use crate::backend::AgentEvent;
use crate::backend::lines::{OUTPUT_LIMIT, action, clip, gist, items, one_line, tail, text};

/// Maximum number of unfinished calls that are kept. The oldest is dropped.
const KEPT: usize = 256;
/// Maximum size in bytes of the texts that are kept of a call.
const TEXT_LIMIT: usize = 512;
/// Maximum number of paths that are kept of a call.
const PATHS: usize = 64;

/// The fields of an input that name a file. Some agents name the file of an edit nowhere else.
const INPUT_PATHS: [&str; 3] = ["/rawInput/path", "/rawInput/file_path", "/rawInput/filePath"];

#[derive(Default)]
pub struct ToolCalls {
    open: VecDeque<ToolCall>,
}

#[derive(Default)]
struct ToolCall {
    id: String,
    kind: String,
    name: String,
    title: String,
    /// The command, path or pattern of its input.
    input: String,
    paths: Vec<String>,
    has_more_paths: bool,
    is_reported: bool,
}

/// A call for which a permission is requested.
pub struct AskedCall {
    pub kind: String,
    pub tool: String,
    pub is_edit: bool,
    pub paths: Vec<String>,
    /// True if it names more than these paths.
    pub has_more_paths: bool,
    /// A line that names it.
    pub line: String,
}

impl ToolCalls {
    /// Takes one description of a call. Returns its start once the call is described, and its end.
    pub fn update(&mut self, update: &Value) -> Vec<AgentEvent> {
        let Some(at) = self.merge(update) else { return Vec::new() };
        let call = &mut self.open[at];
        let status = text(update, "/status");
        let has_ended = matches!(status, "completed" | "failed");
        let mut events = Vec::new();
        if has_ended || status == "in_progress" || !call.input.is_empty() {
            events.extend(call.start());
        }
        if has_ended {
            events.extend(call.end(update, status == "completed"));
            self.open.remove(at);
        }
        events
    }

    /// Takes the call for which a permission is requested. Returns its start, if it was not reported yet.
    pub fn asked(&mut self, call: &Value) -> Option<AgentEvent> {
        let at = self.merge(call)?;
        self.open[at].start()
    }

    /// Describes the call for which a permission is requested.
    pub fn describe(&self, call: &Value) -> AskedCall {
        let id = text(call, "/toolCallId");
        match self.open.iter().find(|known| known.id == id) {
            Some(known) => known.describe(),
            // It has no id that could be kept.
            None => {
                let mut asked = ToolCall::default();
                asked.merge(call);
                asked.describe()
            }
        }
    }

    fn merge(&mut self, update: &Value) -> Option<usize> {
        let id = text(update, "/toolCallId");
        if id.is_empty() || id.len() > TEXT_LIMIT {
            return None;
        }
        let known = self.open.iter().position(|call| call.id == id);
        let at = known.unwrap_or_else(|| {
            if self.open.len() == KEPT {
                self.open.pop_front();
            }
            self.open.push_back(ToolCall { id: id.to_owned(), ..ToolCall::default() });
            self.open.len() - 1
        });
        self.open[at].merge(update);
        Some(at)
    }
}

impl ToolCall {
    fn describe(&self) -> AskedCall {
        AskedCall {
            kind: self.kind.clone(),
            tool: self.tool().to_owned(),
            is_edit: self.is_edit(),
            paths: self.paths.clone(),
            has_more_paths: self.has_more_paths,
            line: action(self.tool(), &self.what()),
        }
    }

    fn merge(&mut self, update: &Value) {
        let was_edit = self.is_edit();
        for (field, place) in [(&mut self.kind, "/kind"), (&mut self.name, "/name"), (&mut self.title, "/title")] {
            let new = text(update, place);
            // Some agents ask for an edit in another folder as an access of another kind, and for nothing after that.
            let is_kept = was_edit && place == "/kind";
            if !new.is_empty() && !is_kept {
                *field = clip(new, TEXT_LIMIT);
            }
        }
        // The whole input as JSON says less than the title.
        let input = gist(&update["rawInput"]);
        if !input.is_empty() && !input.starts_with('{') {
            self.input = input;
        }
        let changed = items(update, "/content").filter(|item| text(item, "/type") == "diff");
        let places = items(update, "/locations").chain(changed).map(|place| text(place, "/path"));
        for path in places.chain(INPUT_PATHS.map(|place| text(update, place))) {
            // Some agents name a file by its whole path and by a relative one. The whole one is kept.
            let is_same = |known: &String| is_end(path, known) || is_end(known, path);
            match self.paths.iter().position(is_same) {
                Some(at) if self.paths[at].len() < path.len() => path.clone_into(&mut self.paths[at]),
                None if path.is_empty() => {}
                None if self.paths.len() < PATHS => self.paths.push(path.to_owned()),
                None => self.has_more_paths = true,
                Some(_) => {}
            }
        }
    }

    fn is_edit(&self) -> bool {
        matches!(self.kind.as_str(), "edit" | "delete" | "move")
    }

    fn tool(&self) -> &str {
        match (self.name.as_str(), self.kind.as_str()) {
            ("", "" | "other") => "tool",
            ("", kind) => kind,
            (name, _) => name,
        }
    }

    fn what(&self) -> String {
        match self.input.as_str() {
            "" if self.is_edit() && !self.paths.is_empty() => one_line(&self.paths.join(", ")),
            "" => one_line(&self.title),
            input => input.to_owned(),
        }
    }

    fn start(&mut self) -> Option<AgentEvent> {
        if std::mem::replace(&mut self.is_reported, true) {
            return None;
        }
        Some(AgentEvent::ToolStarted { id: self.id.clone(), tool: self.tool().to_owned(), what: self.what() })
    }

    fn end(&self, update: &Value, completed: bool) -> Vec<AgentEvent> {
        let exit_code = exit_code(update);
        // Some agents report a command that fails as completed.
        let ok = match (completed, exit_code) {
            (true, Some(code)) => Some(code == 0),
            (true, None) => (self.kind != "execute").then_some(true),
            (false, _) => Some(false),
        };
        let ended = AgentEvent::ToolEnded { id: self.id.clone(), ok, exit_code, output: output(update) };
        let edits = completed && self.is_edit() && !self.paths.is_empty();
        let edited = edits.then(|| AgentEvent::Edited { paths: self.paths.clone() });
        [ended].into_iter().chain(edited).collect()
    }
}

/// Returns whether a path is another one, or its end.
fn is_end(path: &str, whole: &str) -> bool {
    // Two files may have the same end below a parent folder.
    let is_plain = !path.contains("..");
    path == whole || (is_plain && whole.strip_suffix(path).is_some_and(|before| before.ends_with('/')))
}

fn exit_code(update: &Value) -> Option<i32> {
    let places =
        ["/rawOutput/metadata/exit", "/rawOutput/exitCode", "/rawOutput/exit_code", "/_meta/terminal_exit/exit_code"];
    let code = places.into_iter().find_map(|place| update.pointer(place).and_then(Value::as_i64));
    code.and_then(|code| i32::try_from(code).ok())
}

fn output(update: &Value) -> String {
    let printed: Vec<&str> =
        items(update, "/content").map(|item| text(item, "/content/text")).filter(|text| !text.is_empty()).collect();
    if !printed.is_empty() {
        return tail(&printed.join("\n"), OUTPUT_LIMIT);
    }
    let places = [
        "/rawOutput",
        "/rawOutput/output",
        "/rawOutput/text",
        "/rawOutput/stdout",
        "/rawOutput/message",
        "/_meta/terminal_output_delta/data",
    ];
    let raw = places.into_iter().map(|place| text(update, place)).find(|text| !text.is_empty());
    tail(raw.unwrap_or_default(), OUTPUT_LIMIT)
}
