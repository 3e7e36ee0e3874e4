use std::fs::{File, OpenOptions};
use std::io::Write;
use std::time::Instant;

use tokio::time::timeout;

use super::*;

const CEILING: Duration = Duration::from_secs(90);

/// A growing file and its tail.
struct Growing {
    _directory: tempfile::TempDir,
    path: PathBuf,
    writer: File,
}

impl Growing {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("output");
        let writer = OpenOptions::new().append(true).create(true).open(&path).unwrap();
        Self { _directory: directory, path, writer }
    }

    fn write(&mut self, bytes: &[u8]) {
        self.writer.write_all(bytes).unwrap();
    }

    fn tail(&self) -> Tail {
        Tail::open(&self.path, 0).unwrap()
    }
}

async fn text(tail: &mut Tail) -> String {
    let line = timeout(CEILING, tail.next()).await.expect("a line in time").unwrap();
    line.expect("the tail was not finished").text
}

async fn rest(mut tail: Tail) -> Vec<String> {
    tail.finish();
    let mut lines = Vec::new();
    while let Some(line) = tail.next().await.unwrap() {
        lines.push(line.text);
    }
    lines
}

/// Returns whether no line arrives for a moment.
async fn nothing_yet(tail: &mut Tail) -> bool {
    timeout(Duration::from_millis(20), tail.next()).await.is_err()
}

#[tokio::test]
async fn lines_are_whole_and_in_order() {
    let mut file = Growing::new();
    let mut tail = file.tail();
    file.write(b"one\ntwo\nthr");
    assert_eq!(text(&mut tail).await, "one");
    assert_eq!(text(&mut tail).await, "two");
    assert!(nothing_yet(&mut tail).await);
    file.write(b"ee\n\n");
    assert_eq!(text(&mut tail).await, "three");
    assert_eq!(text(&mut tail).await, "");
    assert_eq!(tail.offset(), 15);
}

#[tokio::test]
async fn carriage_returns_and_invalid_text_are_replaced() {
    let mut file = Growing::new();
    file.write(b"dos\r\nin\rside\nbad \xff\xfe end\n\r\n");
    assert_eq!(rest(file.tail()).await, ["dos", "in\rside", "bad \u{fffd}\u{fffd} end", ""]);
}

#[tokio::test]
async fn character_written_in_two_parts_is_whole() {
    let mut file = Growing::new();
    let mut tail = file.tail();
    file.write(b"gr\xc3");
    assert!(nothing_yet(&mut tail).await);
    file.write(b"\xbcn\n");
    assert_eq!(text(&mut tail).await, "grün");
}

#[tokio::test]
async fn finished_tail_returns_line_without_newline() {
    let mut file = Growing::new();
    file.write(b"one\nlast");
    let mut tail = file.tail();
    assert_eq!(text(&mut tail).await, "one");
    assert!(nothing_yet(&mut tail).await);
    assert_eq!(tail.offset(), 4);
    tail.finish();
    assert_eq!(text(&mut tail).await, "last");
    assert_eq!(tail.offset(), 8);
    assert_eq!(tail.next().await.unwrap(), None);
}

#[tokio::test]
async fn tail_continues_from_offset() {
    let mut file = Growing::new();
    file.write(b"one\ntwo\nthree\n");
    let mut first = file.tail();
    assert_eq!(text(&mut first).await, "one");
    let second = Tail::open(&file.path, first.offset()).unwrap();
    assert_eq!(rest(second).await, ["two", "three"]);
}

#[tokio::test]
async fn huge_line_is_cut_and_counted() {
    const HUGE: usize = 10 * 1024 * 1024;
    let mut file = Growing::new();
    let mut tail = file.tail();
    let writing = std::thread::spawn(move || {
        for _ in 0..HUGE / 1024 {
            file.write(&[b'x'; 1024]);
        }
        file.write(b"\nafter\n");
        file
    });
    let line = tail.next().await.unwrap().unwrap();
    assert_eq!(line.text.len(), LINE_HEAD);
    assert_eq!(line.dropped_bytes, (HUGE - LINE_HEAD) as u64);
    assert_eq!(text(&mut tail).await, "after");
    assert!(tail.unfinished.kept.capacity() <= LINE_CAP + 2 * CHUNK);
    writing.join().unwrap();
}

#[tokio::test]
async fn line_of_exactly_the_cap_is_whole() {
    let mut file = Growing::new();
    file.write(&vec![b'y'; LINE_CAP]);
    file.write(b"\n");
    let mut tail = file.tail();
    let line = tail.next().await.unwrap().unwrap();
    assert_eq!((line.text.len(), line.dropped_bytes), (LINE_CAP, 0));
}

#[tokio::test]
async fn cut_does_not_split_character() {
    let mut file = Growing::new();
    // Three bytes each: 256 kB is not a multiple of three.
    file.write("€".repeat(LINE_CAP / 2).as_bytes());
    let mut tail = file.tail();
    tail.finish();
    let line = tail.next().await.unwrap().unwrap();
    assert!(line.text.chars().all(|character| character == '€'));
    assert_eq!(line.text.len() as u64 + line.dropped_bytes, 3 * (LINE_CAP / 2) as u64);
}

#[tokio::test]
async fn tail_survives_truncation() {
    let mut file = Growing::new();
    file.write(b"a long first line\nunfinis");
    let mut tail = file.tail();
    assert_eq!(text(&mut tail).await, "a long first line");
    assert!(nothing_yet(&mut tail).await);
    file.writer.set_len(0).unwrap();
    assert!(nothing_yet(&mut tail).await);
    file.write(b"new\n");
    assert_eq!(text(&mut tail).await, "new");
    assert_eq!(tail.offset(), 4);
}

#[tokio::test]
async fn tail_polls_without_watch() {
    let mut file = Growing::new();
    let mut tail = file.tail();
    tail.events = GrowthEvents::polling(&file.path, &io::Error::other("no watches are left"));
    assert!(nothing_yet(&mut tail).await);
    file.write(b"seen\n");
    assert_eq!(text(&mut tail).await, "seen");
}

#[tokio::test]
async fn lost_event_does_not_lose_line() {
    let mut file = Growing::new();
    let elsewhere = Growing::new();
    let mut tail = file.tail();
    tail.events = GrowthEvents::Watch(GrowthWatch::new(&elsewhere.path).unwrap());
    assert!(nothing_yet(&mut tail).await);
    file.write(b"seen\n");
    assert!(nothing_yet(&mut tail).await, "there is no event");
    tail.poll_now();
    assert_eq!(text(&mut tail).await, "seen");
}

#[tokio::test]
async fn event_wakes_reader_without_timer() {
    let mut file = Growing::new();
    let mut tail = file.tail();
    for number in 0..50 {
        assert!(nothing_yet(&mut tail).await);
        file.write(format!("{number}\n").as_bytes());
        assert_eq!(text(&mut tail).await, number.to_string());
        // A watch has no timer beside it.
        assert!(matches!(tail.events, GrowthEvents::Watch(_)));
    }
}

#[tokio::test]
async fn growing_file_is_read_at_intervals() {
    let mut file = Growing::new();
    let mut tail = file.tail();
    file.write(b"one\n");
    assert_eq!(text(&mut tail).await, "one");
    assert!(tail.busy_until.is_some());
    // An interval that does not end during the test.
    tail.busy_until = Some(tokio::time::Instant::now() + CEILING);
    for line in [b"two\n".as_slice(), b"three\n"] {
        file.write(line);
        assert!(nothing_yet(&mut tail).await, "an event does not wake it");
    }
    tail.busy_until = Some(tokio::time::Instant::now());
    assert_eq!(text(&mut tail).await, "two");
    assert_eq!(text(&mut tail).await, "three");
}

#[tokio::test]
async fn pause_in_growth_loses_no_line() {
    let mut file = Growing::new();
    let mut tail = file.tail();
    for number in 0..3 {
        file.write(format!("{number}\n").as_bytes());
        assert_eq!(text(&mut tail).await, number.to_string());
        assert!(timeout(2 * BUSY_INTERVAL, tail.next()).await.is_err());
        assert_eq!(tail.busy_until, None);
    }
}

/// As in a loop whose other events are more frequent than the polls.
#[tokio::test]
async fn repeated_cancellation_does_not_delay_poll() {
    let mut file = Growing::new();
    let mut tail = file.tail();
    tail.events = GrowthEvents::polling(&file.path, &io::Error::other("no watches are left"));
    assert!(nothing_yet(&mut tail).await);
    file.write(b"seen\n");
    let begun = Instant::now();
    while nothing_yet(&mut tail).await {
        assert!(begun.elapsed() < CEILING, "it is never polled again");
    }
}

#[tokio::test]
async fn missing_file_is_named() {
    let error = Tail::open(Path::new("/nowhere/output"), 0).err().unwrap();
    assert_eq!(error.to_string(), "cannot open /nowhere/output to follow it");
}

#[tokio::test]
async fn finished_tail_ignores_later_writes() {
    let mut file = Growing::new();
    let mut tail = file.tail();
    file.write(b"one\ntwo");
    tail.finish();
    file.write(b" and more\nthree\n");
    assert_eq!(text(&mut tail).await, "one");
    assert_eq!(text(&mut tail).await, "two");
    assert_eq!(tail.next().await.unwrap(), None);
}

#[tokio::test]
async fn skipped_middle_is_counted() {
    let mut file = Growing::new();
    let mut tail = file.tail();
    file.write(b"first\nsecond");
    assert_eq!(text(&mut tail).await, "first");
    file.write(b" line\nthird\nlast\n");
    tail.skip_to_last(8);
    tail.finish();
    let cut = tail.next().await.unwrap().unwrap();
    assert_eq!((cut.text.as_str(), cut.dropped_bytes), ("second", 6), "the part that was read, and the missing bytes");
    assert!(cut.at.is_empty());
    assert_eq!(text(&mut tail).await, "third", "the line in which the last bytes begin is whole");
    assert_eq!(text(&mut tail).await, "last");
    assert_eq!(tail.next().await.unwrap(), None);
}

#[tokio::test]
async fn unfinished_line_is_ended_on_request() {
    let mut file = Growing::new();
    let mut tail = file.tail();
    file.write(b"one\ntwo");
    assert_eq!(text(&mut tail).await, "one");
    assert!(nothing_yet(&mut tail).await);
    tail.end_unfinished_if(|line| line == b"other");
    assert!(nothing_yet(&mut tail).await);
    tail.end_unfinished_if(|line| line == b"two");
    assert_eq!(text(&mut tail).await, "two");
    file.write(b"\nthree\n");
    assert_eq!(text(&mut tail).await, "");
    assert_eq!(text(&mut tail).await, "three");
}
