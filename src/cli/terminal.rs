//! Formats output for users: colours, durations and sizes. A colour always accompanies a word, so that no information
//! depends on it.

use std::env;
use std::io::{IsTerminal, stdout};

use anstyle::{AnsiColor, Style};

use crate::mission::lifecycle::{Ending, WorkerStatus};
use crate::mission::sanitize::is_unsafe;

/// The meaning of a colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Good,
    Bad,
    /// Work in progress.
    Busy,
    /// The user may have to act.
    Waiting,
    /// Secondary information.
    Quiet,
    Strong,
}

impl Tone {
    fn style(self) -> Style {
        let colour = |colour: AnsiColor| Style::new().fg_color(Some(colour.into()));
        match self {
            Tone::Good => colour(AnsiColor::Green),
            Tone::Bad => colour(AnsiColor::Red),
            Tone::Busy => colour(AnsiColor::Cyan),
            Tone::Waiting => colour(AnsiColor::Yellow),
            Tone::Quiet => Style::new().dimmed(),
            Tone::Strong => Style::new().bold(),
        }
    }
}

pub(super) fn tone(status: WorkerStatus) -> Tone {
    match status {
        WorkerStatus::Queued => Tone::Quiet,
        WorkerStatus::Starting | WorkerStatus::Running | WorkerStatus::Verifying => Tone::Busy,
        WorkerStatus::NeedsAnswer => Tone::Waiting,
        WorkerStatus::Settled(Ending::Completed) => Tone::Good,
        WorkerStatus::Settled(Ending::Failed | Ending::TimedOut | Ending::Lost) => Tone::Bad,
        WorkerStatus::Settled(Ending::Cancelled | Ending::Interrupted) => Tone::Waiting,
    }
}

pub(super) fn is_terminal() -> bool {
    stdout().is_terminal()
}

/// Returns the columns of the terminal; 80 if there is none, or it does not report them.
pub(super) fn width() -> usize {
    let named = env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let asked = || rustix::termios::tcgetwinsize(stdout()).ok().map(|size| usize::from(size.ws_col));
    asked().or(named).filter(|columns| *columns > 0).unwrap_or(80)
}

/// Returns whether output is coloured. See <https://no-color.org>, and <https://bixense.com/clicolors> for the variable
/// that asks for colours in a pipe.
pub(super) fn wants_colours() -> bool {
    let is_set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
    if is_set("NO_COLOR") {
        return false;
    }
    let forced = env::var_os("CLICOLOR_FORCE").is_some_and(|value| !value.is_empty() && value != "0");
    forced || (is_terminal() && env::var_os("TERM").is_none_or(|term| term != "dumb"))
}

pub(super) fn paint(tone: Tone, text: &str) -> String {
    if text.is_empty() || !wants_colours() {
        return text.to_owned();
    }
    let style = tone.style();
    format!("{style}{text}{style:#}")
}

/// Returns the bytes that ring the bell and show the text on the desktop, if the terminal supports it.
pub(super) fn announcement(text: &str) -> String {
    announcement_on(&env::var("TERM").unwrap_or_default(), text)
}

/// Terminals that support only OSC 777. All others support OSC 9 or neither, and some would show the text of both.
const OSC_777_TERMINALS: [&str; 2] = ["rxvt", "foot"];

fn announcement_on(terminal: &str, text: &str) -> String {
    let text: String = text.chars().filter(|character| !is_unsafe(*character)).collect();
    if OSC_777_TERMINALS.iter().any(|name| terminal.starts_with(name)) {
        format!("\x1b]777;notify;orchestrator-boss;{text}\x07\x07")
    } else {
        format!("\x1b]9;{text}\x07\x07")
    }
}

/// Formats a duration with at most two units: `8s`, `4m 10s`, `3h 20m`, `2d 5h`.
pub(super) fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{minutes}m {}s", seconds % 60),
        3_600..86_400 => format!("{hours}h {}m", minutes % 60),
        _ => format!("{days}d {}h", hours % 24),
    }
}

/// Formats a size in units of 1,024, as `du -h` does.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1_024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1_024.0;
    let mut unit = UNITS[0];
    for larger in &UNITS[1..] {
        if value < 1_023.95 {
            break;
        }
        value /= 1_024.0;
        unit = larger;
    }
    if value < 9.95 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announcement_holds_one_sequence_and_the_bell() {
        let text = "w-1 \x1b]0;x\x07completed\n";
        assert_eq!(announcement_on("xterm-256color", text), "\x1b]9;w-1 ]0;xcompleted\x07\x07");
        let for_rxvt = "\x1b]777;notify;orchestrator-boss;w-1 ]0;xcompleted\x07\x07";
        assert_eq!(announcement_on("rxvt-unicode-256color", text), for_rxvt);
        assert_eq!(announcement_on("foot", text), for_rxvt);
    }

    #[test]
    fn durations_and_sizes_are_short() {
        let said = [0, 59, 60, 250, 3_600, 86_399, 86_400, 190_000].map(duration);
        assert_eq!(said, ["0s", "59s", "1m 0s", "4m 10s", "1h 0m", "23h 59m", "1d 0h", "2d 4h"]);
        let said = [0, 1_023, 1_024, 10_239, 1 << 20, (1 << 20) - 1, 5 << 30, 3 << 40].map(bytes);
        assert_eq!(said, ["0 B", "1023 B", "1.0 KiB", "10 KiB", "1.0 MiB", "1.0 MiB", "5.0 GiB", "3.0 TiB"]);
    }
}
