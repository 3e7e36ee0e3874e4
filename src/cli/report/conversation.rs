//! Reads the conversation of one attempt: its beginning and its end, as far as there is room. It never reads more of a
//! log than that.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::text;
use crate::attempt::inbox::{InboxEntry, Instruction};
use crate::attempt::worker_dir::AttemptDir;
use crate::backend::AgentEvent;
use crate::mission::message::{Author, Cancelled};
use crate::orchestrator::LoggedEvent;

/// Amounts read of a log's beginning and of its end, as multiples of the room for it.
const READ_HEAD: u64 = 1;
const READ_TAIL: u64 = 3;
/// Bytes kept of a message, and of a command's output.
const SAID: usize = 8_000;
const PRINTED: usize = 2_000;
const LINE: usize = 400;
/// Approximate number of bytes that an item takes besides its texts.
const MARKUP: usize = 160;

#[derive(Debug, Default)]
pub struct Conversation {
    pub items: Vec<ConversationItem>,
    /// The index before which items were left out.
    pub gap: Option<usize>,
    pub log: PathBuf,
}

#[derive(Debug)]
pub struct ConversationItem {
    pub at: Timestamp,
    pub what: ItemKind,
}

#[derive(Debug, PartialEq)]
pub enum ItemKind {
    Said(String),
    Thought(String),
    /// A command or another tool, and its result once it has ended.
    Ran {
        tool: String,
        what: String,
        end: Option<ToolResult>,
    },
    Edited(String),
    /// A message from the boss or the user, or without an author from this program.
    Message {
        by: Option<Author>,
        text: String,
    },
    /// Any other fact worth knowing.
    Note(String),
}

#[derive(Debug, PartialEq)]
pub struct ToolResult {
    /// `exit 1`, `ok`.
    pub how: String,
    pub is_bad: bool,
    pub output: String,
}

impl Conversation {
    /// Reads the conversation of an attempt. `room`: approximate maximum of bytes of HTML.
    pub fn of(attempt: &AttemptDir, room: usize) -> Self {
        let log = attempt.events();
        let (head, tail) = read_ends(&log, room as u64).unwrap_or_default();
        let inbox_entries = attempt.inbox_entries(0).unwrap_or_default();
        let head = events(&head);
        let (items, gap) = match tail.as_deref().map(events) {
            None => (items(head, &inbox_entries), None),
            Some(tail) => {
                // Messages in the gap are left out with its events.
                let until = head.last().map_or(Timestamp::MIN, |event| event.at);
                let from = tail.first().map_or(Timestamp::MAX, |event| event.at);
                let early: Vec<InboxEntry> =
                    inbox_entries.iter().filter(|inbox_entry| inbox_entry.at <= until).cloned().collect();
                let late: Vec<InboxEntry> =
                    inbox_entries.into_iter().filter(|inbox_entry| inbox_entry.at >= from.max(until)).collect();
                let mut all = items(head, &early);
                let gap = all.len();
                all.extend(items(tail, &late));
                (all, Some(gap))
            }
        };
        let (items, gap) = fit(items, gap, room);
        Self { items, gap, log }
    }
}

/// Reads the beginning and the end of a file; no end if the beginning is the whole file.
fn read_ends(path: &Path, room: u64) -> io::Result<(Vec<u8>, Option<Vec<u8>>)> {
    let (most_of_head, most_of_tail) = (room * READ_HEAD, room * READ_TAIL);
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut head = Vec::new();
    if length <= most_of_head + most_of_tail {
        file.take(length).read_to_end(&mut head)?;
        return Ok((head, None));
    }
    file.by_ref().take(most_of_head).read_to_end(&mut head)?;
    file.seek(SeekFrom::Start(length - most_of_tail))?;
    let mut tail = Vec::new();
    file.take(most_of_tail).read_to_end(&mut tail)?;
    Ok((head, Some(tail)))
}

/// Parses the events of a log. Lines that are no events, such as half a line at the edge, are skipped.
fn events(log: &[u8]) -> Vec<LoggedEvent> {
    log.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
}

fn items(events: Vec<LoggedEvent>, inbox_entries: &[InboxEntry]) -> Vec<ConversationItem> {
    let mut items: Vec<ConversationItem> = Vec::new();
    let mut running: HashMap<String, usize> = HashMap::new();
    for LoggedEvent { at, event } in events {
        if let AgentEvent::ToolEnded { id, ok, exit_code, output } = event {
            let end = Some(ended(ok, exit_code, &output));
            match running.remove(&id).and_then(|at| items.get_mut(at)) {
                Some(ConversationItem { what: ItemKind::Ran { end: open, .. }, .. }) => *open = end,
                _ => items.push(ConversationItem {
                    at,
                    what: ItemKind::Ran { tool: String::new(), what: String::new(), end },
                }),
            }
            continue;
        }
        if let AgentEvent::ToolStarted { id, .. } = &event {
            running.insert(id.clone(), items.len());
        }
        items.extend(what(event).map(|what| ConversationItem { at, what }));
    }
    for inbox_entry in inbox_entries {
        let by = inbox_entry.by;
        let what = match &inbox_entry.instruction {
            Instruction::Message { text, .. } => {
                ItemKind::Message { by, text: text::head(&text::clean(text), SAID).into_owned() }
            }
            Instruction::Cancel { reason } => {
                let cancelled = Cancelled { by, reason: reason.clone() };
                ItemKind::Note(text::head(&text::clean(&cancelled.sentence()), LINE).into_owned())
            }
            Instruction::OverBudget { .. } | Instruction::Answer { .. } => continue,
        };
        let place = items.iter().position(|item| item.at > inbox_entry.at).unwrap_or(items.len());
        items.insert(place, ConversationItem { at: inbox_entry.at, what });
    }
    items
}

fn ended(ok: Option<bool>, exit_code: Option<i32>, output: &str) -> ToolResult {
    let how = match (exit_code, ok) {
        (Some(code), _) => format!("exit {code}"),
        (None, Some(true)) => "ok".to_owned(),
        (None, Some(false)) => "failed".to_owned(),
        (None, None) => "ended".to_owned(),
    };
    let is_bad = exit_code.map_or(ok == Some(false), |code| code != 0);
    ToolResult { how, is_bad, output: text::tail(text::clean(output).trim_end(), PRINTED).into_owned() }
}

fn what(event: AgentEvent) -> Option<ItemKind> {
    let said = |text: &str| text::head(text::clean(text).trim(), SAID).into_owned();
    let line = |text: &str| text::head(&text::clean(text).replace('\n', " "), LINE).into_owned();
    Some(match event {
        AgentEvent::Said { text } => ItemKind::Said(said(&text)),
        AgentEvent::Thought { text } => ItemKind::Thought(said(&text)),
        AgentEvent::ToolStarted { tool, what, .. } => ItemKind::Ran { tool: line(&tool), what: line(&what), end: None },
        AgentEvent::Edited { paths } => ItemKind::Edited(line(&paths.join(", "))),
        AgentEvent::Denied { what } => ItemKind::Note(line(&format!("not permitted: {what}"))),
        AgentEvent::Asked { .. } | AgentEvent::Answered { .. } => ItemKind::Note(line(&event.words())),
        AgentEvent::Retrying { failure, .. } => ItemKind::Note(line(&format!("retrying after: {}", failure.message))),
        AgentEvent::Warning { text } => ItemKind::Note(line(&text)),
        // The setup is among the facts.
        AgentEvent::SetUp { .. }
        | AgentEvent::Session { .. }
        | AgentEvent::ToolEnded { .. }
        | AgentEvent::Received { .. }
        | AgentEvent::Withdrawn { .. }
        | AgentEvent::Usage { .. }
        | AgentEvent::Idle
        | AgentEvent::Busy => return None,
    })
}

/// Cuts items in the middle: a third of the room is for the beginning, the rest for the end.
fn fit(items: Vec<ConversationItem>, gap: Option<usize>, room: usize) -> (Vec<ConversationItem>, Option<usize>) {
    let sizes: Vec<usize> = items.iter().map(size).collect();
    if gap.is_none() && sizes.iter().sum::<usize>() <= room {
        return (items, None);
    }
    let most = gap.unwrap_or(items.len());
    let head = fitting(sizes[..most].iter(), room / 3);
    let used: usize = sizes[..head].iter().sum();
    let behind = &sizes[gap.unwrap_or(head).max(head)..];
    let tail = fitting(behind.iter().rev(), room.saturating_sub(used));
    let first_of_tail = items.len() - tail;
    let is_cut = gap.is_some() || first_of_tail > head;
    let kept = items.into_iter().enumerate().filter(|(at, _)| *at < head || *at >= first_of_tail);
    (kept.map(|(_, item)| item).collect(), is_cut.then_some(head))
}

fn fitting<'a>(sizes: impl Iterator<Item = &'a usize>, mut room: usize) -> usize {
    let fits = |size: &&usize| {
        let fits = **size <= room;
        room = room.saturating_sub(**size);
        fits
    };
    sizes.take_while(fits).count()
}

fn size(item: &ConversationItem) -> usize {
    let texts = match &item.what {
        ItemKind::Said(text)
        | ItemKind::Thought(text)
        | ItemKind::Edited(text)
        | ItemKind::Message { text, .. }
        | ItemKind::Note(text) => text::escaped_len(text),
        ItemKind::Ran { tool, what, end } => {
            let output = end.as_ref().map_or(0, |end| text::escaped_len(&end.output));
            text::escaped_len(tool) + text::escaped_len(what) + output
        }
    };
    texts + MARKUP
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attempt::inbox::Delivery;
    use crate::attempt::worker_dir::WorkerDir;
    use serde_json::json;

    fn attempt(folder: &Path, events: &[serde_json::Value]) -> AttemptDir {
        let attempt = WorkerDir::new(folder.join("workers/w-1")).attempt(1);
        attempt.create(&()).unwrap();
        let lines: String = events.iter().map(|event| format!("{event}\n")).collect();
        std::fs::write(attempt.events(), lines).unwrap();
        attempt
    }

    fn said(n: usize, text: &str) -> serde_json::Value {
        let at = Timestamp::from_second(1_000 + n as i64).unwrap();
        json!({"at": at, "event": "said", "text": format!("{n}: {text}")})
    }

    fn texts(conversation: &Conversation) -> Vec<String> {
        let text = |item: &ConversationItem| match &item.what {
            ItemKind::Said(text) | ItemKind::Message { text, .. } => text.clone(),
            other => format!("{other:?}"),
        };
        conversation.items.iter().map(text).collect()
    }

    #[test]
    fn commands_have_results_and_messages_are_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let events = [
            json!({"at": at(1), "event": "tool_started", "id": "a", "tool": "shell", "what": "cargo test"}),
            json!({"at": at(2), "event": "tool_started", "id": "b", "tool": "shell", "what": "sleep 9"}),
            json!({"at": at(4), "event": "tool_ended", "id": "a", "ok": false, "exit_code": 101, "output": "\u{1b}[31mred\n"}),
            said(9_000, "late"),
        ];
        let attempt = attempt(folder.path(), &events);
        let instruction = Instruction::Message { text: "look at b".into(), delivery: Delivery::WhenReady };
        let post = |seconds, instruction| {
            let by = Some(Author::User);
            attempt.post(&InboxEntry { id: uuid::Uuid::new_v4(), at: at(seconds), by, instruction }).unwrap()
        };
        post(3, instruction);
        post(5, Instruction::Cancel { reason: "the plan has changed".into() });
        let conversation = Conversation::of(&attempt, 100_000);
        assert_eq!(conversation.gap, None);
        let end = ToolResult { how: "exit 101".into(), is_bad: true, output: "red".into() };
        let ran = |what: &str, end| ItemKind::Ran { tool: "shell".into(), what: what.into(), end };
        let whats: Vec<ItemKind> = conversation.items.into_iter().map(|item| item.what).collect();
        let expected = [
            ran("cargo test", Some(end)),
            ran("sleep 9", None),
            ItemKind::Message { by: Some(Author::User), text: "look at b".into() },
            ItemKind::Note("cancelled by the user: the plan has changed".into()),
            ItemKind::Said("9000: late".into()),
        ];
        assert_eq!(whats, expected);
    }

    #[test]
    fn long_conversation_has_both_ends_and_a_gap() {
        let folder = tempfile::tempdir().unwrap();
        let events: Vec<_> = (0..500).map(|n| said(n, "<some text>")).collect();
        let conversation = Conversation::of(&attempt(folder.path(), &events), 10_000);
        let texts = texts(&conversation);
        let gap = conversation.gap.unwrap();
        assert!(texts[0].starts_with("0:") && texts.last().unwrap().starts_with("499:"));
        assert!(texts[gap - 1].starts_with(&format!("{}:", gap - 1)), "all before the gap is there");
        assert!((20..200).contains(&texts.len()), "{}", texts.len());
    }

    #[test]
    fn huge_log_is_read_at_its_ends() {
        let folder = tempfile::tempdir().unwrap();
        let long = "x".repeat(50_000);
        let mut events: Vec<_> = (0..200).map(|n| said(n, &long)).collect();
        // Longer than all that is read of the end.
        events.insert(100, said(100, &"y".repeat(2 << 20)));
        let conversation = Conversation::of(&attempt(folder.path(), &events), 60_000);
        let texts = texts(&conversation);
        assert!(texts[0].starts_with("0: xxx") && texts[0].contains("more]"), "{}", &texts[0][..20]);
        assert!(texts.last().unwrap().starts_with("199:"));
        assert!(conversation.gap.is_some());
        assert!(texts.iter().map(String::len).sum::<usize>() < 60_000);

        let one = [said(0, &"z".repeat(3 << 20))];
        let other = tempfile::tempdir().unwrap();
        let conversation = Conversation::of(&attempt(other.path(), &one), 60_000);
        assert!(conversation.items.is_empty() && conversation.gap == Some(0), "it is said that something is missing");
    }

    #[test]
    fn missing_log_gives_no_conversation() {
        let folder = tempfile::tempdir().unwrap();
        let attempt = WorkerDir::new(folder.path().join("w-1")).attempt(1);
        assert!(Conversation::of(&attempt, 1_000).items.is_empty());
    }
}
