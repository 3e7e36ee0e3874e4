//! Follows a growing file by complete lines, soon after they are written, with bounded memory.
//!
//! Inotify or kqueue wakes it, and its owner makes it poll regularly. While the file keeps growing, and if the
//! system has no watches left, it polls by itself. It does not interpret the lines.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until};

use super::growth::GrowthWatch;
use crate::mission::hint::{Hint, Hinted};

/// Maximum length of a line in bytes. A longer one is cut; it can be read again in pieces.
pub const LINE_CAP: usize = 1024 * 1024;
/// Bytes kept of a line that was cut.
pub const LINE_HEAD: usize = 256 * 1024;
const CHUNK: usize = 64 * 1024;
/// Interval of polling without a watch.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// Interval of reading while the file keeps growing. To be woken for each line of a busy CLI costs more than to handle
/// the line.
const BUSY_INTERVAL: Duration = Duration::from_millis(200);

/// One line, without its end (`\n` or `\r\n`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TailLine {
    /// The line's text, with invalid UTF-8 replaced by U+FFFD.
    pub text: String,
    /// Number of bytes dropped because the line was longer than [`LINE_CAP`], or by [`Tail::skip_to_last`]; else 0.
    pub dropped_bytes: u64,
    /// The range of the whole line in the file; empty if it is not known.
    pub at: Range<u64>,
}

#[derive(Debug, thiserror::Error)]
pub enum TailError {
    #[error("cannot open {path} to follow it")]
    Open { path: PathBuf, source: io::Error },
    #[error("cannot read {path} at byte {offset}")]
    Read { path: PathBuf, offset: u64, source: io::Error },
}

impl Hinted for TailError {
    fn hints(&self) -> Vec<Hint> {
        Vec::new()
    }
}

/// The source of events that the file may have grown.
enum GrowthEvents {
    /// A watch, without a timer beside it. Setting a timer for each wait would cost more than handling a line.
    Watch(GrowthWatch),
    /// A polling interval, for when watches are exhausted.
    Poll(Interval),
}

/// A reader that waits for more. If the file was truncated to less than what was read, it continues from the file's
/// start and drops the unfinished line. If the file has grown past that point again, the truncation is not noticed.
pub struct Tail {
    path: PathBuf,
    file: File,
    position: u64,
    /// The offset at which the unfinished line begins.
    line_start: u64,
    /// Lines that were read and not yet returned, each with the offset behind it.
    ready: VecDeque<(TailLine, u64)>,
    offset: u64,
    unfinished: UnfinishedLine,
    /// The end that [`Tail::finish`] sets: nothing behind it is read.
    end: Option<u64>,
    /// True if the last read reached the end of the file. It is read again after an event or at the next poll.
    at_end: bool,
    /// Time of the next read of a file that was growing at the last one. An event before it does not cause a read.
    busy_until: Option<Instant>,
    chunk: Box<[u8]>,
    events: GrowthEvents,
}

impl Tail {
    /// Opens the file at an offset in bytes, which must be the start of a line, such as an earlier [`Tail::offset`]. To
    /// be called within a runtime.
    pub fn open(path: &Path, offset: u64) -> Result<Self, TailError> {
        let file = File::open(path).map_err(|source| TailError::Open { path: path.to_owned(), source })?;
        // The watch begins before the first read, so that no later write is missed.
        let watch = GrowthWatch::new(path);
        let events = watch.map_or_else(|error| GrowthEvents::polling(path, &error), GrowthEvents::Watch);
        Ok(Self {
            path: path.to_owned(),
            file,
            position: offset,
            line_start: offset,
            ready: VecDeque::new(),
            offset,
            unfinished: UnfinishedLine::default(),
            end: None,
            at_end: false,
            busy_until: None,
            chunk: vec![0; CHUNK].into(),
            events,
        })
    }

    /// Waits for the next complete line and returns it. `None` only after [`Tail::finish`], when all is read.
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Option<TailLine>, TailError> {
        loop {
            if let Some((line, end)) = self.ready.pop_front() {
                self.offset = end;
                return Ok(Some(line));
            }
            // A flood of output must not keep the other tasks of a one-thread runtime from running.
            tokio::task::consume_budget().await;
            match (self.at_end, self.end) {
                (true, None) => {
                    self.wait_for_more().await;
                    self.at_end = false;
                }
                (true, Some(_)) if self.unfinished.is_empty() => return Ok(None),
                (true, Some(_)) => self.end_line(),
                (false, _) => self.read_chunk()?,
            }
        }
    }

    async fn wait_for_more(&mut self) {
        if let Some(time) = self.busy_until {
            return sleep_until(time).await;
        }
        let lost = match &mut self.events {
            GrowthEvents::Watch(watch) => watch.next().await.err(),
            GrowthEvents::Poll(interval) => {
                interval.tick().await;
                None
            }
        };
        if let Some(error) = lost {
            self.events = GrowthEvents::polling(&self.path, &error);
        }
    }

    /// Makes it read once more without an event, since one may be lost (network file system, fault of the system). To
    /// be called every few seconds.
    pub fn poll_now(&mut self) {
        self.at_end = false;
    }

    /// Sets the current end of the file as the last one. [`Tail::next`] then reads to that end, returns a last line
    /// even without a newline, and finally returns `None`. Later writes are not waited for.
    pub fn finish(&mut self) {
        self.end = Some(self.length());
        self.at_end = false;
    }

    /// Skips what was not read yet, except the last `most` bytes and the whole line in which they begin. The line that
    /// this cuts reports how much is missing.
    pub fn skip_to_last(&mut self, most: u64) {
        let from = self.length().saturating_sub(most);
        if from <= self.position {
            return;
        }
        let start = self.start_of_line(from);
        self.unfinished.dropped += start.unwrap_or(from) - self.position;
        self.position = start.unwrap_or(from);
        if start.is_some() {
            // The end of the cut line is not known.
            let line = self.unfinished.end_line(self.line_start..self.line_start);
            self.ready.push_back((line, self.position));
            self.line_start = self.position;
        }
    }

    /// Returns the start of the line that has this offset, if it lies in what was not read yet.
    fn start_of_line(&self, offset: u64) -> Option<u64> {
        let mut chunk = vec![0; CHUNK];
        let mut end = offset;
        while end > self.position {
            let start = end.saturating_sub(CHUNK as u64).max(self.position);
            let chunk = &mut chunk[..(end - start) as usize];
            self.file.read_exact_at(chunk, start).ok()?;
            if let Some(newline) = chunk.iter().rposition(|byte| *byte == b'\n') {
                return Some(start + newline as u64 + 1);
            }
            end = start;
        }
        None
    }

    /// Reads a part of a cut line again. Returns 0 at the end of the file.
    pub fn read_again(&self, offset: u64, chunk: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(chunk, offset)
    }

    /// Returns the offset up to which an unfinished line was read; `None` if there is none.
    pub fn unfinished_at(&self) -> Option<u64> {
        (!self.unfinished.is_empty()).then_some(self.position)
    }

    /// Ends the unfinished line if it satisfies the condition. [`Tail::next`] then returns it, and what is written
    /// later begins a new line. A line that was cut is not ended.
    pub fn end_unfinished_if(&mut self, is_whole: impl Fn(&[u8]) -> bool) {
        if !self.unfinished.is_empty() && self.unfinished.dropped == 0 && is_whole(&self.unfinished.kept) {
            self.end_line();
            // The line is ready, and the next read must not wait for the file to grow.
            self.at_end = false;
        }
    }

    fn length(&self) -> u64 {
        self.file.metadata().map_or(self.position, |metadata| metadata.len())
    }

    /// Returns the offset behind the last line that was returned, in bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    fn read_chunk(&mut self) -> Result<(), TailError> {
        let mut chunk = std::mem::take(&mut self.chunk);
        let most = self.end.map_or(CHUNK as u64, |end| end.saturating_sub(self.position).min(CHUNK as u64)) as usize;
        let read = self.read_at_position(&mut chunk[..most]);
        if let Ok(count) = read {
            self.take(&chunk[..count]);
            // Events of the meantime are still queued once it is no longer busy, so none is lost.
            self.busy_until = (count > 0).then(|| Instant::now() + BUSY_INTERVAL);
            // A short read reached the end, so no further read is needed.
            self.at_end = count < most || most == 0;
        }
        self.chunk = chunk;
        let (path, offset) = (&self.path, self.position);
        read.map(drop).map_err(|source| TailError::Read { path: path.clone(), offset, source })
    }

    fn read_at_position(&mut self, chunk: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(chunk, self.position)?;
        if count > 0 || self.file.metadata()?.len() >= self.position {
            return Ok(count);
        }
        self.position = 0;
        self.line_start = 0;
        self.offset = 0;
        self.unfinished = UnfinishedLine::default();
        self.file.read_at(chunk, 0)
    }

    fn take(&mut self, chunk: &[u8]) {
        for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
            self.position += piece.len() as u64;
            match piece.strip_suffix(b"\n") {
                Some(rest) => {
                    self.unfinished.push(rest);
                    self.end_line();
                }
                None => self.unfinished.push(piece),
            }
        }
    }

    fn end_line(&mut self) {
        let line = self.unfinished.end_line(self.line_start..self.position);
        self.ready.push_back((line, self.position));
        self.line_start = self.position;
    }
}

/// The line that is being read. Never holds more than [`LINE_CAP`] bytes and a chunk.
#[derive(Default)]
struct UnfinishedLine {
    kept: Vec<u8>,
    dropped: u64,
}

impl UnfinishedLine {
    fn is_empty(&self) -> bool {
        self.kept.is_empty() && self.dropped == 0
    }

    fn push(&mut self, bytes: &[u8]) {
        if self.dropped > 0 {
            self.dropped += bytes.len() as u64;
            return;
        }
        self.kept.extend_from_slice(bytes);
        if self.kept.len() > LINE_CAP {
            let head = character_boundary(&self.kept, LINE_HEAD);
            self.dropped = (self.kept.len() - head) as u64;
            self.kept.truncate(head);
            self.kept.shrink_to_fit();
        }
    }

    fn end_line(&mut self, at: Range<u64>) -> TailLine {
        let Self { mut kept, dropped } = std::mem::take(self);
        if dropped == 0 && kept.last() == Some(&b'\r') {
            kept.pop();
        }
        let text =
            String::from_utf8(kept).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
        TailLine { text, dropped_bytes: dropped, at }
    }
}

impl GrowthEvents {
    fn polling(path: &Path, error: &io::Error) -> Self {
        // Not an error for the caller, since the lines are only delayed.
        tracing::info!(path = %path.display(), %error, "cannot watch the file, polling instead");
        let mut interval = interval_at(Instant::now() + POLL_INTERVAL, POLL_INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self::Poll(interval)
    }
}

/// Returns the last position at or before `at` that does not split a UTF-8 character.
fn character_boundary(bytes: &[u8], at: usize) -> usize {
    let is_start = |index: &usize| bytes[*index] & 0b1100_0000 != 0b1000_0000;
    (at.saturating_sub(3)..=at).rev().find(is_start).unwrap_or(at)
}

#[cfg(test)]
mod tests;
