//! Moments in the past, as options of commands give them.

use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, Zoned, civil};
use thiserror::Error;

/// A text that is no moment.
#[derive(Debug, Error)]
#[error("give a day (2026-11-23), a time (2026-11-23 14:00) or a duration before now (3h, 2d)")]
pub(super) struct NotAMoment;

/// Parses a day, a time of a day, a time with its offset, or a duration before now.
pub(super) fn parse(text: &str) -> Result<Timestamp, NotAMoment> {
    let zone = TimeZone::system();
    let local = |at: civil::DateTime| at.to_zoned(zone.clone()).ok().map(|at| at.timestamp());
    let ago = |span: Span| Zoned::now().checked_sub(span).ok().map(|at| at.timestamp());
    let found = text.parse::<Timestamp>().ok();
    let found = found.or_else(|| local(text.parse::<civil::DateTime>().ok()?));
    let found = found.or_else(|| ago(text.parse::<Span>().ok()?.abs()));
    found.ok_or(NotAMoment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moment_is_a_day_time_or_duration() {
        let day = parse("2026-11-23").unwrap();
        assert_eq!(parse("2026-11-23 14:00").unwrap().duration_since(day).as_secs(), 14 * 3600);
        assert_eq!(parse("2026-11-23T14:00:00Z").unwrap(), "2026-11-23T14:00:00Z".parse().unwrap());
        let ago = Timestamp::now().duration_since(parse("2h").unwrap()).as_secs();
        assert!((7_190..7_210).contains(&ago), "{ago}");
        let ago = Timestamp::now().duration_since(parse("3d").unwrap()).as_secs();
        assert!((250_000..270_000).contains(&ago), "{ago}");
        assert!(parse("yesterday").unwrap_err().to_string().contains("2026-11-23"));
    }
}
