//! What all decoders share: reading one JSON line, and keeping text short. Everything that goes into an event or a
//! report passes through here, so that a worker that prints without end cannot fill our memory. It knows no CLI.

use serde_json::Value;

use super::AgentEvent;
use super::objects::Objects;
use crate::mission::outcome::Usage;

/// The agent's last words are kept whole up to this; of longer ones the end, which is where they say how it went.
pub const FINAL_LIMIT: usize = 256 * 1024;
/// Of a tool's output the end is what tells.
pub const OUTPUT_LIMIT: usize = 4 * 1024;
/// One thing that an agent said, as an event.
pub const SAID_LIMIT: usize = 16 * 1024;
/// A command, a path, a pattern.
const GIST_LIMIT: usize = 300;
/// An object over several lines is read up to this length, in bytes.
const UNFINISHED_LIMIT: usize = 256 * 1024;
/// How many lines that are no JSON become warnings; a CLI that prints a banner is told, one that prints a book is not.
const NOISE_LIMIT: u32 = 20;

/// The JSON object in a text; anything else is `None`.
pub fn object(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok().filter(Value::is_object)
}

/// What is at a JSON pointer. Ours name no key with `~` or `/` in it, which the library's own looks for, and makes two
/// strings of each name to do so: for every field of every line that a CLI prints.
fn at<'a>(value: &'a Value, pointer: &str) -> Option<&'a Value> {
    pointer.split('/').skip(1).try_fold(value, |value, name| match value {
        Value::Array(items) => items.get(name.parse::<usize>().ok()?),
        value => value.get(name),
    })
}

/// The string at a JSON pointer, empty where there is none.
pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    at(value, pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The whole number at a JSON pointer, 0 where there is none.
pub fn count(value: &Value, pointer: &str) -> u64 {
    at(value, pointer).and_then(Value::as_u64).unwrap_or_default()
}

/// The amount of money at a JSON pointer.
pub fn dollars(value: &Value, pointer: &str) -> Option<f64> {
    at(value, pointer).and_then(Value::as_f64).filter(|cost| cost.is_finite() && *cost >= 0.0)
}

/// The items of an array at a JSON pointer, none where there is no array.
pub fn items<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    at(value, pointer).and_then(Value::as_array).into_iter().flatten()
}

/// The end of a text, at most `limit` bytes of it.
pub fn tail(text: &str, limit: usize) -> String {
    let mut start = text.len().saturating_sub(limit);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text[start..].to_owned()
}

/// The beginning of a text, at most `limit` bytes of it and a mark that there was more.
pub fn clip(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let mut end = limit;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

/// A text on one line, short.
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

/// What a tool call is about: the command, the path, the pattern, or its whole input where none of these is in it.
pub fn gist(input: &Value) -> String {
    const TELLING: [&str; 12] = [
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
    let telling = TELLING.iter().find_map(|key| input.get(key).and_then(Value::as_str));
    match (telling, input) {
        (Some(text), _) => one_line(text),
        (None, Value::Null) => String::new(),
        (None, input) if input.as_object().is_some_and(|fields| fields.is_empty()) => String::new(),
        (None, input) => one_line(&input.to_string()),
    }
}

/// What an agent said, if it said anything.
pub fn said(text: &str) -> Option<AgentEvent> {
    (!text.trim().is_empty()).then(|| AgentEvent::Said { text: clip(text, SAID_LIMIT) })
}

pub fn thought(text: &str) -> Option<AgentEvent> {
    (!text.trim().is_empty()).then(|| AgentEvent::Thought { text: clip(text, SAID_LIMIT) })
}

pub fn warning(text: &str) -> AgentEvent {
    AgentEvent::Warning { text: clip(text.trim(), 2 * 1024) }
}

/// Adds what one step used to what was used before.
pub fn add(total: &mut Usage, step: Usage) {
    total.input_tokens = total.input_tokens.saturating_add(step.input_tokens);
    total.cached_tokens = total.cached_tokens.saturating_add(step.cached_tokens);
    total.output_tokens = total.output_tokens.saturating_add(step.output_tokens);
    if let Some(cost) = step.cost_usd {
        total.cost_usd = Some(total.cost_usd.unwrap_or_default() + cost);
    }
}

/// The JSON objects that a line is made of; none if it is anything else.
fn objects(line: &str) -> Vec<Value> {
    if let Some(object) = object(line) {
        return vec![object];
    }
    let mut objects = Objects::default();
    if line.contains('{') {
        objects.push(line.as_bytes());
    }
    objects.finish()
}

/// Reads the JSON objects that a CLI prints, mostly one a line.
#[derive(Default)]
pub struct JsonLines {
    noise: Noise,
    unfinished: Option<Unfinished>,
}

/// An object that goes on in the next line.
struct Unfinished {
    objects: Objects,
    first_line: String,
    length: usize,
}

impl JsonLines {
    /// The objects that end in this line, and a warning if it is something else.
    pub fn read(&mut self, line: &str) -> (Vec<Value>, Option<AgentEvent>) {
        // An object over several lines is indented in all but the first and the last.
        let is_inner = self.unfinished.is_some() && line.starts_with([' ', '\t']);
        let objects = if is_inner { Vec::new() } else { objects(line) };
        let begins = line.starts_with('{') || !objects.is_empty();
        // What went before was cut.
        let cut = self.unfinished.take_if(|_| begins).and_then(|cut| self.noise.event(&cut.first_line));
        if !objects.is_empty() {
            return (objects, cut);
        }
        let (objects, noise) = match self.unfinished.take() {
            Some(before) => self.go_on(before, line),
            None if line.contains('{') => {
                let first_line = clip(line, GIST_LIMIT);
                self.go_on(Unfinished { objects: Objects::default(), first_line, length: 0 }, line)
            }
            None => (Vec::new(), self.noise.event(line)),
        };
        (objects, cut.or(noise))
    }

    fn go_on(&mut self, mut before: Unfinished, line: &str) -> (Vec<Value>, Option<AgentEvent>) {
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

/// Lines that are no JSON, from a CLI that promised JSON.
#[derive(Debug, Default)]
pub struct Noise {
    seen: u32,
}

impl Noise {
    /// A warning for the first of them, nothing for an empty line or for the rest.
    pub fn event(&mut self, line: &str) -> Option<AgentEvent> {
        if line.trim().is_empty() {
            return None;
        }
        self.seen = self.seen.saturating_add(1);
        match self.seen {
            seen if seen < NOISE_LIMIT => Some(AgentEvent::Warning { text: one_line(line) }),
            NOISE_LIMIT => {
                Some(AgentEvent::Warning { text: "more lines that are no JSON follow; they are in the raw log".into() })
            }
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
    fn a_tool_call_is_told_by_what_it_is_about() {
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
    fn an_object_may_go_over_several_lines() {
        let pretty = ["{", "  \"list\": [", "    {\"type\": \"inner\"}", "  ],", "  \"type\": \"a\"", "}"];
        assert_eq!(types(&pretty), (vec!["a".to_owned()], 0));
        let twice: Vec<&str> = pretty.iter().chain(&pretty).copied().collect();
        assert_eq!(types(&twice).0, ["a", "a"]);
        let cut = ["{\"type\":\"cut", "{\"type\":\"b\"}", "{", "no json", "}", "{\"type\":\"c\"}"];
        assert_eq!(types(&cut), (vec!["b".to_owned(), "c".to_owned()], 2));
        assert_eq!(types(&["{\"type\":\"a\"}{\"type\":\"b\"}", "text {x}"]), (vec!["a".into(), "b".into()], 1));
    }

    #[test]
    fn noise_is_told_a_few_times_and_then_once_more() {
        let mut noise = Noise::default();
        let told = (0..1000).filter(|_| noise.event("not json").is_some()).count();
        assert_eq!(told, NOISE_LIMIT as usize);
        assert_eq!(noise.event("  "), None);
    }
}
