//! Follows the event log of one attempt and formats new events as lines.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use crate::attempt::inbox::InboxEntry;
use crate::attempt::worker_dir::AttemptDir;
use crate::backend::AgentEvent;
use crate::cli::logs::printer::{message_line, tone};
use crate::cli::terminal::Tone;
use crate::cli::text;
use crate::orchestrator::LoggedEvent;

/// Bytes read of an existing log, from its end.
const BEHIND: u64 = 512 * 1024;
/// Maximum number of bytes read at once; the next poll reads the rest.
const PIECE: u64 = 1024 * 1024;
/// Maximum size in bytes of a line; a longer one is skipped.
const LINE: usize = 4 * 1024 * 1024;
/// Maximum number of lines shown of a tool's output, besides the first one.
const OUTPUT_LINES: usize = 8;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli::status) struct PaneLine {
    /// The time of day, on the first line of an event.
    pub time: String,
    pub text: String,
    pub tone: Option<Tone>,
}

pub(super) struct LogTail {
    path: PathBuf,
    read: u64,
    /// The beginning of a line whose end is not written yet.
    half: Vec<u8>,
    /// True up to the next line feed, for a line that began before the first read or is too long.
    skips: bool,
    /// Number of the attempt's messages that were shown.
    inbox_entries: usize,
    zone: TimeZone,
}

impl LogTail {
    pub fn new(path: PathBuf) -> Self {
        let length = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
        let read = length.saturating_sub(BEHIND);
        Self { path, read, half: Vec::new(), skips: read > 0, inbox_entries: 0, zone: TimeZone::system() }
    }

    /// Returns the lines since the last call, and whether there is more to read.
    pub fn more(&mut self) -> (Vec<PaneLine>, bool) {
        let mut span = Vec::new();
        let reading = File::open(&self.path).and_then(|mut file| {
            file.seek(SeekFrom::Start(self.read))?;
            file.take(PIECE).read_to_end(&mut span)
        });
        // The file does not exist yet or is unreadable for a moment: the next poll reads it.
        let inbox_entries = self.new_messages();
        let Ok(length) = reading else { return (inbox_entries.into_iter().map(|(_, line)| line).collect(), false) };
        self.read += length as u64;
        let mut lines: Vec<(Timestamp, PaneLine)> = inbox_entries;
        let mut rest = &span[..];
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.half.extend_from_slice(&rest[..end]);
            if !std::mem::take(&mut self.skips) {
                // Half a line, left by a crash, is no event.
                let logged = serde_json::from_slice::<LoggedEvent>(&self.half).ok();
                let logged = logged.into_iter();
                lines.extend(logged.flat_map(|logged| {
                    let at = logged.at;
                    event_lines(&logged, &self.zone).into_iter().map(move |line| (at, line))
                }));
            }
            self.half.clear();
            rest = &rest[end + 1..];
        }
        if self.skips || self.half.len() + rest.len() > LINE {
            self.skips = true;
            self.half.clear();
        } else {
            self.half.extend_from_slice(rest);
        }
        // The sort is stable, so the lines of an event stay together.
        lines.sort_by_key(|(at, _)| *at);
        (lines.into_iter().map(|(_, line)| line).collect(), length as u64 == PIECE)
    }

    /// Returns the messages to the worker since the last call.
    fn new_messages(&mut self) -> Vec<(Timestamp, PaneLine)> {
        let Some(folder) = self.path.parent() else { return Vec::new() };
        let inbox_entries = AttemptDir::at(folder.to_owned()).inbox_entries(self.inbox_entries).unwrap_or_default();
        self.inbox_entries += inbox_entries.len();
        let line = |inbox_entry: &InboxEntry| {
            let text = message_line(inbox_entry)?;
            let time = Zoned::new(inbox_entry.at, self.zone.clone()).strftime("%H:%M:%S").to_string();
            Some((inbox_entry.at, PaneLine { time, text: text::clean(&text), tone: Some(Tone::Strong) }))
        };
        inbox_entries.iter().filter_map(line).collect()
    }
}

/// Formats an event as lines; bookkeeping gives none.
fn event_lines(logged: &LoggedEvent, zone: &TimeZone) -> Vec<PaneLine> {
    if logged.event.is_bookkeeping() {
        return Vec::new();
    }
    let words = logged.event.words();
    let all: Vec<&str> = words.lines().filter(|line| !line.trim().is_empty()).collect();
    // The end of an output shows the result.
    let hidden = match logged.event {
        AgentEvent::ToolEnded { .. } => all.len().saturating_sub(OUTPUT_LINES + 1),
        _ => 0,
    };
    let more = (hidden > 0).then(|| format!("… {hidden} more lines"));
    let shown = all.iter().take(1).map(|line| (*line).to_owned()).chain(more);
    let shown = shown.chain(all.iter().skip(1 + hidden).map(|line| (*line).to_owned()));
    let time = Zoned::new(logged.at, zone.clone()).strftime("%H:%M:%S").to_string();
    let tone = tone(&logged.event);
    let line = |(at, line): (usize, String)| PaneLine {
        time: if at == 0 { time.clone() } else { String::new() },
        text: text::clean_code(&line),
        tone,
    };
    shown.enumerate().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::io::Write;

    fn said(text: &str) -> String {
        json!({"at": "2026-11-23T12:00:00Z", "event": "said", "text": text}).to_string() + "\n"
    }

    fn texts(lines: &[PaneLine]) -> Vec<&str> {
        lines.iter().map(|line| line.text.as_str()).collect()
    }

    #[test]
    fn log_is_followed_in_parts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let mut follow = LogTail::new(path.clone());
        assert!(follow.more().0.is_empty(), "it is not there yet");
        let mut file = File::create(&path).unwrap();
        let line = said("one \u{1b}[2J");
        let (head, tail) = line.split_at(20);
        write!(file, "{head}").unwrap();
        assert!(follow.more().0.is_empty());
        write!(file, "{tail}half a line\n{}", said("two\nthree")).unwrap();
        assert_eq!(texts(&follow.more().0), ["said: one ␛[2J", "said: two", "three"]);
        assert!(follow.more().0.is_empty());
    }

    #[test]
    fn long_lines_are_skipped_and_the_end_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let mut file = File::create(&path).unwrap();
        let mut follow = LogTail::new(path.clone());
        write!(file, "{}{}", said(&"x".repeat(LINE + 10)), said("after it")).unwrap();
        let mut seen = Vec::new();
        while let (lines, true) = follow.more() {
            seen.extend(lines);
        }
        seen.extend(follow.more().0);
        // The last call of the loop read the end of the line.
        let mut again = LogTail::new(path);
        seen.extend(again.more().0);
        assert!(texts(&seen).contains(&"said: after it"), "{} lines", seen.len());
        assert!(seen.iter().all(|line| line.text.len() < 100));
    }

    #[test]
    fn tool_output_shows_its_end() {
        let output: String = (0..30).map(|number| format!("line {number}\n")).collect();
        let event = AgentEvent::ToolEnded { id: "1".to_owned(), ok: Some(true), exit_code: Some(0), output };
        let lines = event_lines(&LoggedEvent { at: jiff::Timestamp::UNIX_EPOCH, event }, &TimeZone::UTC);
        assert_eq!(texts(&lines)[..3], ["  exit 0: line 0", "… 21 more lines", "line 22"]);
        assert_eq!((lines.len(), lines[0].time.as_str(), lines[1].time.as_str()), (10, "00:00:00", ""));
    }
}
