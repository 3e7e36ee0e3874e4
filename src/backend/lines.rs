//! The common part of all decoders: parsing JSON lines, and limiting the length of texts. All texts of events and
//! reports pass through here, so endless output cannot fill the memory. It knows no CLI.

use serde_json::Value;

use super::AgentEvent;
use super::objects::{self, ObjectParser};
use crate::mission::outcome::Usage;

/// Maximum size in bytes of a final message. Of a longer one the end is kept, since it states the result.
pub const FINAL_LIMIT: usize = objects::TAIL;
/// Bytes kept of a tool's output. The end is kept, since it shows the result.
pub const OUTPUT_LIMIT: usize = 4 * 1024;
/// Maximum size in bytes of one message of an agent, as an event.
pub const SAID_LIMIT: usize = 16 * 1024;
/// Maximum of a number that a CLI reports.
const COUNT_LIMIT: u64 = 1_000_000_000_000;
/// Maximum size in bytes of a command, a path or a pattern.
const GIST_LIMIT: usize = 300;
/// Maximum size in bytes of an object that spans several lines.
const UNFINISHED_LIMIT: usize = 256 * 1024;
/// Maximum number of warnings about lines that are not JSON. It is enough for a banner.
const NOISE_LIMIT: u32 = 20;

/// Parses a text that is one JSON object; returns `None` for anything else.
pub fn object(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok().filter(Value::is_object)
}

/// Returns the value at a JSON pointer. Our pointers have no key with `~` or `/` in it. The library's own function
/// unescapes them and allocates two strings for each key, for every field of every line that a CLI prints.
fn at<'a>(value: &'a Value, pointer: &str) -> Option<&'a Value> {
    pointer.split('/').skip(1).try_fold(value, |value, name| match value {
        Value::Array(items) => items.get(name.parse::<usize>().ok()?),
        value => value.get(name),
    })
}

/// Returns the string at a JSON pointer, empty if there is none.
pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    at(value, pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Returns the whole number at a JSON pointer, 0 if there is none. A number that no run can reach is cut, so that sums of
/// such numbers stay far from the end of their range.
pub fn count(value: &Value, pointer: &str) -> u64 {
    at(value, pointer).and_then(Value::as_u64).unwrap_or_default().min(COUNT_LIMIT)
}

/// Returns the amount of money at a JSON pointer.
pub fn dollars(value: &Value, pointer: &str) -> Option<f64> {
    at(value, pointer).and_then(Value::as_f64).filter(|cost| cost.is_finite() && *cost >= 0.0)
}

/// Returns the items of an array at a JSON pointer. Empty if there is no array.
pub fn items<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    at(value, pointer).and_then(Value::as_array).into_iter().flatten()
}

/// Returns the end of a text, at most `limit` bytes.
pub fn tail(text: &str, limit: usize) -> String {
    text[text.ceil_char_boundary(text.len().saturating_sub(limit))..].to_owned()
}

/// Returns the beginning of a text, at most `limit` bytes, and an ellipsis if it was cut.
pub fn clip(text: &str, limit: usize) -> String {
    if text.len() <= limit { text.to_owned() } else { format!("{}…", &text[..text.floor_char_boundary(limit)]) }
}

/// Returns a text on one line, shortened.
pub fn one_line(text: &str) -> String {
    let mut line = String::new();
    for word in text.split_whitespace() {
        if line.len() > GIST_LIMIT {
            break;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    clip(&line, GIST_LIMIT)
}

/// Summarises a tool call: the command, the path, the pattern, or its whole input if it has none of these.
pub fn gist(input: &Value) -> String {
    const FIELDS: [&str; 12] = [
        "command",
        "file_path",
        "filePath",
        "path",
        "pattern",
        "query",
        "url",
        "skill",
        "description",
        "prompt",
        "message",
        "dir_path",
    ];
    let summary = FIELDS.iter().find_map(|key| input.get(key).and_then(Value::as_str));
    match (summary, input) {
        (Some(text), _) => one_line(text),
        (None, Value::Null) => String::new(),
        (None, input) if input.as_object().is_some_and(|fields| fields.is_empty()) => String::new(),
        (None, input) => one_line(&input.to_string()),
    }
}

/// Returns the event for a text of an agent, unless the text is empty.
pub fn said(text: &str) -> Option<AgentEvent> {
    (!text.trim().is_empty()).then(|| AgentEvent::Said { text: clip(text, SAID_LIMIT) })
}

pub fn thought(text: &str) -> Option<AgentEvent> {
    (!text.trim().is_empty()).then(|| AgentEvent::Thought { text: clip(text, SAID_LIMIT) })
}

/// Names an action by its tool and its command, path or pattern.
pub fn action(tool: &str, what: &str) -> String {
    one_line(&[tool, what].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": "))
}

/// Returns the event for a refused action.
pub fn denied(tool: &str, what: &str) -> AgentEvent {
    AgentEvent::Denied { what: action(tool, what) }
}

pub fn warning(text: &str) -> AgentEvent {
    AgentEvent::Warning { text: clip(text.trim(), 2 * 1024) }
}

pub fn add(total: &mut Usage, step: Usage) {
    total.input_tokens = total.input_tokens.saturating_add(step.input_tokens);
    total.cached_tokens = total.cached_tokens.saturating_add(step.cached_tokens);
    total.output_tokens = total.output_tokens.saturating_add(step.output_tokens);
    if let Some(cost) = step.cost_usd {
        total.cost_usd = Some(total.cost_usd.unwrap_or_default() + cost);
    }
}

/// Returns the JSON objects that make up a line; none if the line is anything else.
pub fn objects(line: &str) -> Vec<Value> {
    if let Some(object) = object(line) {
        return vec![object];
    }
    let mut objects = ObjectParser::default();
    if line.contains('{') {
        objects.push(line.as_bytes());
    }
    objects.finish()
}

/// A reader of the JSON objects that a CLI prints, usually one per line.
#[derive(Default)]
pub struct JsonLines {
    noise: Noise,
    unfinished: Option<UnfinishedObject>,
}

/// An object that continues in the next line.
struct UnfinishedObject {
    objects: ObjectParser,
    first_line: String,
    length: usize,
}

impl JsonLines {
    /// Returns the objects that end in this line, and a warning if text is not part of any object.
    pub fn read(&mut self, line: &str) -> (Vec<Value>, Option<AgentEvent>) {
        // Of an object over several lines, all lines except the first and the last are indented.
        let is_inner = self.unfinished.is_some() && line.starts_with([' ', '\t']);
        let objects = if is_inner { Vec::new() } else { objects(line) };
        let begins = line.starts_with('{') || !objects.is_empty();
        // A new object begins, so the unfinished one was cut off.
        let cut = self.unfinished.take_if(|_| begins).and_then(|cut| self.noise.event(&cut.first_line));
        if !objects.is_empty() {
            return (objects, cut);
        }
        let (objects, noise) = match self.unfinished.take() {
            Some(before) => self.continue_object(before, line),
            None if line.contains('{') => {
                let first_line = clip(line, GIST_LIMIT);
                self.continue_object(UnfinishedObject { objects: ObjectParser::default(), first_line, length: 0 }, line)
            }
            None => (Vec::new(), self.noise.event(line)),
        };
        (objects, cut.or(noise))
    }

    fn continue_object(&mut self, mut before: UnfinishedObject, line: &str) -> (Vec<Value>, Option<AgentEvent>) {
        before.objects.push(line.as_bytes());
        before.objects.push(b"\n");
        before.length += line.len();
        if before.objects.is_unfinished() && before.length < UNFINISHED_LIMIT {
            self.unfinished = Some(before);
            return (Vec::new(), None);
        }
        let objects = before.objects.finish();
        let noise = if objects.is_empty() { self.noise.event(&before.first_line) } else { None };
        (objects, noise)
    }
}

/// A counter of lines that are not JSON, from a CLI that should print JSON.
#[derive(Debug, Default)]
pub struct Noise {
    seen: u32,
}

impl Noise {
    /// Returns a warning for the first such lines; nothing for an empty line or for later ones.
    pub fn event(&mut self, line: &str) -> Option<AgentEvent> {
        if line.trim().is_empty() {
            return None;
        }
        self.seen = self.seen.saturating_add(1);
        match self.seen {
            seen if seen < NOISE_LIMIT => Some(AgentEvent::Warning { text: one_line(line) }),
            NOISE_LIMIT => Some(AgentEvent::Warning {
                text: "more lines that are not JSON follow; they are in the raw log".into(),
            }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(tail("aé日", 4), "日");
        assert_eq!(tail("abc", 9), "abc");
        assert_eq!(clip("日本", 4), "日…");
        assert_eq!(one_line(" a\n\tb "), "a b");
    }

    #[test]
    fn tool_call_is_summarised() {
        assert_eq!(gist(&json!({"description": "d", "command": "ls\n-l"})), "ls -l");
        assert_eq!(gist(&json!({"n": 1})), r#"{"n":1}"#);
        assert_eq!(gist(&json!({})), "");
    }

    fn types(lines: &[&str]) -> (Vec<String>, usize) {
        let mut reader = JsonLines::default();
        let read: Vec<_> = lines.iter().map(|line| reader.read(line)).collect();
        let noise = read.iter().filter(|(_, noise)| noise.is_some()).count();
        (read.iter().flat_map(|(objects, _)| objects).map(|it| text(it, "/type").to_owned()).collect(), noise)
    }

    #[test]
    fn object_may_span_several_lines() {
        let pretty = ["{", "  \"list\": [", "    {\"type\": \"inner\"}", "  ],", "  \"type\": \"a\"", "}"];
        assert_eq!(types(&pretty), (vec!["a".to_owned()], 0));
        let twice: Vec<&str> = pretty.iter().chain(&pretty).copied().collect();
        assert_eq!(types(&twice).0, ["a", "a"]);
        let cut = ["{\"type\":\"cut", "{\"type\":\"b\"}", "{", "no json", "}", "{\"type\":\"c\"}"];
        assert_eq!(types(&cut), (vec!["b".to_owned(), "c".to_owned()], 2));
        assert_eq!(types(&["{\"type\":\"a\"}{\"type\":\"b\"}", "text {x}"]), (vec!["a".into(), "b".into()], 1));
    }

    #[test]
    fn noise_is_reported_a_limited_number_of_times() {
        let mut noise = Noise::default();
        let reported = (0..1000).filter(|_| noise.event("not json").is_some()).count();
        assert_eq!(reported, NOISE_LIMIT as usize);
        assert_eq!(noise.event("  "), None);
    }
}
