//! The log on stderr, for people and for the clients that keep it: a line for each event, whatever the texts of models and
//! workers in it hold. Says nothing by itself.

use std::io::{self, Write};

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::mission::sanitize;

pub(super) fn to_stderr() {
    let named = ["ORCHESTRATOR_LOG", "RUST_LOG"].into_iter().find_map(|name| std::env::var(name).ok()?.parse().ok());
    let filter = named.unwrap_or_else(|| Targets::new().with_default(LevelFilter::WARN));
    let log = tracing_subscriber::fmt::layer()
        .with_writer(|| Lines(io::stderr()))
        .with_ansi(false)
        // A log that cannot be written (its disk is full) must not end who writes it: that is told by `eprintln!`, which
        // panics when stderr is that very log.
        .log_internal_errors(false);
    tracing_subscriber::registry().with(log).with(filter).init();
}

/// Gets each event whole, with the end of its line (tracing-subscriber 0.3.23).
struct Lines<W>(W);

impl<W: Write> Write for Lines<W> {
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
    fn an_event_is_a_line_whatever_it_holds() {
        let mut written = Vec::new();
        let event = "refused error=a\r\n2026-01-01 ERROR forged \u{1b}[2J\u{85}é\n";
        Lines(&mut written).write_all(event.as_bytes()).unwrap();
        let line = "refused error=a\\r\\n2026-01-01 ERROR forged \\u{1b}[2J\\u{85}é\n";
        assert_eq!(String::from_utf8(written).unwrap(), line);
    }
}
