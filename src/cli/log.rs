//! The log on stderr, for users and for clients that keep it. Each event is one line, even if texts of models and
//! workers in it hold line breaks.

use std::io::{self, Write};

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::mission::sanitize;

pub(super) fn to_stderr() {
    let named = ["ORCHESTRATOR_LOG", "RUST_LOG"].into_iter().find_map(|name| std::env::var(name).ok()?.parse().ok());
    let filter = named.unwrap_or_else(|| Targets::new().with_default(LevelFilter::WARN));
    let log = tracing_subscriber::fmt::layer()
        .with_writer(|| EventWriter(io::stderr()))
        .with_ansi(false)
        // Such errors are printed by `eprintln!`, which panics if stderr itself cannot be written (its disk is full).
        .log_internal_errors(false);
    tracing_subscriber::registry().with(log).with(filter).init();
}

/// A writer that receives each event whole, with its line end (tracing-subscriber 0.3.23).
struct EventWriter<W>(W);

impl<W: Write> Write for EventWriter<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let line = sanitize::escaped(text.strip_suffix('\n').unwrap_or(&text), |_| false);
        self.0.write_all(format!("{line}\n").as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_is_one_line() {
        let mut written = Vec::new();
        let event = "refused error=a\r\n2026-01-01 ERROR forged \u{1b}[2J\u{85}é\n";
        EventWriter(&mut written).write_all(event.as_bytes()).unwrap();
        let line = "refused error=a\\r\\n2026-01-01 ERROR forged \\u{1b}[2J\\u{85}é\n";
        assert_eq!(String::from_utf8(written).unwrap(), line);
    }
}
