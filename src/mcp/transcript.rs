//! Renders a worker's normalized events as lines of text. It reads files of events line by line, so that only a page is
//! in memory.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use super::size;
use crate::backend::AgentEvent;
use crate::orchestrator::LoggedEvent;

/// Maximum size in bytes of a line of a log.
pub(super) const LINE: usize = 400;

/// Returns the newest lines before line `before` that fit into `room` bytes, and the number of the first.
pub(super) fn newest_lines(events: &Path, before: Option<usize>, room: usize) -> (String, usize) {
    let mut lines: VecDeque<String> = VecDeque::new();
    let (mut used, mut count) = (0, 0);
    for logged in read(events).take(before.unwrap_or(usize::MAX)) {
        let line = format!("{} {}\n", logged.at.strftime("%H:%M:%S"), size::line(&logged.event.words(), LINE));
        used += size::of(&line);
        lines.push_back(line);
        count += 1;
        while used > room {
            let Some(oldest) = lines.pop_front() else { break };
            used -= size::of(&oldest);
        }
    }
    let first = count - lines.len();
    (lines.into_iter().collect(), first)
}

/// A part of a long text that is written piece by piece.
pub(super) struct TextPage {
    text: String,
    skip: usize,
    start: usize,
    room: usize,
    full: bool,
}

impl TextPage {
    /// Begins a page after `start` bytes of the whole text. It takes at most `room` bytes as JSON.
    pub(super) fn new(start: usize, room: usize) -> Self {
        Self { text: String::new(), skip: start, start, room, full: false }
    }

    pub(super) fn push(&mut self, piece: &str) {
        if self.skip >= piece.len() {
            self.skip -= piece.len();
            return;
        }
        // An invented cursor may point into a character.
        let from = (self.skip..piece.len()).find(|at| piece.is_char_boundary(*at)).unwrap_or(piece.len());
        self.start += from - self.skip;
        self.skip = 0;
        let piece = &piece[from..];
        let fits = size::head(piece, self.room);
        self.text.push_str(fits);
        self.full = fits.len() < piece.len();
        self.room = if self.full { 0 } else { self.room.saturating_sub(size::of(&fits) - 2) };
    }

    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    /// Returns the text, and the start of the next page.
    pub(super) fn end(self) -> (String, Option<usize>) {
        let next = self.full.then_some(self.start + self.text.len());
        (self.text, next)
    }
}

/// Writes the messages, commands and edits of an attempt in full.
pub(super) fn write_attempt(events: &Path, page: &mut TextPage) {
    for logged in read(events) {
        if page.is_full() {
            return;
        }
        if !matches!(logged.event, AgentEvent::Usage { .. } | AgentEvent::Idle | AgentEvent::Busy) {
            page.push(&format!("[{}] {}\n", logged.at.strftime("%H:%M:%S"), logged.event.words().trim_end()));
        }
    }
}

/// Reads the events. It skips invalid lines, such as a partial one after a crash.
fn read(events: &Path) -> impl Iterator<Item = LoggedEvent> {
    let lines = File::open(events).ok().map(|file| BufReader::new(file).lines().map_while(Result::ok));
    lines.into_iter().flatten().filter_map(|line| serde_json::from_str(&line).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn events(count: usize, text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let line = |n: usize| json!({"at": "2026-11-22T12:00:00Z", "event": "said", "text": format!("{n} {text}")});
        let lines: String = (0..count).map(|n| format!("{}\n", line(n))).collect();
        std::fs::write(file.path(), lines).unwrap();
        file
    }

    #[test]
    fn log_pages_cover_every_line() {
        let file = events(2_000, "\u{1}\"é x");
        let mut before = None;
        let mut seen = Vec::new();
        loop {
            let (text, first) = newest_lines(file.path(), before, 5_000);
            assert!(size::of(&text) <= 5_000 && !text.is_empty());
            let numbers = text.lines().map(|line| line.split(' ').nth(2).unwrap().parse::<usize>().unwrap());
            seen.splice(0..0, numbers);
            if first == 0 {
                break;
            }
            before = Some(first);
        }
        assert_eq!(seen, (0..2_000).collect::<Vec<_>>());
    }

    proptest! {
        #[test]
        fn pages_add_up_to_the_whole_text(pieces in prop::collection::vec(any::<String>(), 0..30), room in 20usize..200) {
            let (mut start, mut whole) = (0, String::new());
            loop {
                let mut page = TextPage::new(start, room);
                for piece in &pieces {
                    if page.is_full() {
                        break;
                    }
                    page.push(piece);
                }
                let (text, next) = page.end();
                prop_assert!(size::of(&text) <= room + 2);
                whole.push_str(&text);
                match next {
                    Some(next) => start = next,
                    None => break,
                }
            }
            prop_assert_eq!(whole, pieces.concat());
        }
    }
}
