//! Facts about a cluster that seldom change. The caller keeps them for some minutes.

use std::ffi::OsString;
use std::time::Duration;

use super::command::Engine;

/// The time limit of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeLimit {
    Unlimited,
    At(Duration),
    /// The cluster does not report it, or does not know the partition.
    Unknown,
}

impl TimeLimit {
    /// Returns whether a job of this many minutes can start. A longer one would wait for ever: `sbatch` accepts it.
    pub fn allows(self, minutes: u64) -> bool {
        match self {
            Self::At(limit) => Duration::from_secs(minutes.saturating_mul(60)) <= limit,
            Self::Unlimited | Self::Unknown => true,
        }
    }
}

/// Returns the time limit of a partition, or of the default one. Of several, separated by commas, the longest counts.
pub async fn partition_limit(engine: &Engine, partition: Option<&str>) -> Result<TimeLimit, String> {
    let named = partition.map(|partition| format!("--partition={partition}"));
    let arguments = ["--noheader".to_owned(), "--format=%P|%l".to_owned()].into_iter().chain(named);
    let arguments: Vec<OsString> = arguments.map(OsString::from).collect();
    let printed = engine.ask("sinfo", &arguments).await.output()?;
    Ok(longest(&printed, partition.is_none()))
}

fn longest(printed: &str, only_default: bool) -> TimeLimit {
    let rows = printed.lines().filter_map(|line| line.trim().rsplit_once('|'));
    let rows = rows.filter(|(name, _)| !only_default || name.ends_with('*'));
    let mut longest = TimeLimit::Unknown;
    for (_, text) in rows {
        longest = match (longest, limit(text.trim())) {
            (TimeLimit::Unlimited, _) | (_, TimeLimit::Unlimited) => TimeLimit::Unlimited,
            (TimeLimit::At(one), TimeLimit::At(other)) => TimeLimit::At(one.max(other)),
            // A partition whose limit is not known could have the longest.
            (TimeLimit::At(_), TimeLimit::Unknown) => return TimeLimit::Unknown,
            (TimeLimit::Unknown, other) => other,
        };
    }
    longest
}

/// Returns the limit of a text such as `infinite`, `1-12:00:00`, `12:00:00`, `10:00` or `10` (minutes).
fn limit(text: &str) -> TimeLimit {
    if ["infinite", "unlimited"].iter().any(|word| text.eq_ignore_ascii_case(word)) {
        return TimeLimit::Unlimited;
    }
    duration(text).map_or(TimeLimit::Unknown, TimeLimit::At)
}

fn duration(text: &str) -> Option<Duration> {
    let (days, time) = match text.split_once('-') {
        Some((days, time)) => (Some(days.parse::<u64>().ok()?), time),
        None => (None, text),
    };
    let parts: Vec<u64> = time.split(':').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    // With days, the first part is hours. Without them, the last part is seconds, unless it is alone.
    let (hours, minutes, seconds) = match (days, parts.as_slice()) {
        (_, [hours, minutes, seconds]) => (*hours, *minutes, *seconds),
        (Some(_), [hours, minutes]) => (*hours, *minutes, 0),
        (Some(_), [hours]) => (*hours, 0, 0),
        (None, [minutes, seconds]) => (0, *minutes, *seconds),
        (None, [minutes]) => (0, *minutes, 0),
        _ => return None,
    };
    let hours = days.unwrap_or(0).checked_mul(24)?.checked_add(hours)?;
    let minutes = hours.checked_mul(60)?.checked_add(minutes)?;
    Some(Duration::from_secs(minutes.checked_mul(60)?.checked_add(seconds)?))
}

/// Returns whether the cluster tracks the processes of a job by cgroup, so that none outlives it.
pub async fn tracks_by_cgroup(engine: &Engine) -> Result<bool, String> {
    let printed = show(engine, &["config"]).await?;
    let kind = setting(&printed, "ProctrackType").ok_or("scontrol: it reports no ProctrackType")?;
    Ok(kind == "proctrack/cgroup")
}

/// Returns whether a job that asks for no memory gets all of its node's, so that no other job starts there.
pub async fn gives_all_memory(engine: &Engine, partition: &str) -> Result<bool, String> {
    let config = show(engine, &["config"]).await?;
    let shares_memory = setting(&config, "SelectTypeParameters").is_some_and(|parts| parts.contains("MEMORY"));
    if !shares_memory || setting(&config, "DefMemPerNode") != Some("UNLIMITED") {
        return Ok(false);
    }
    // A partition may have a default of its own.
    let partition = show(engine, &["partition", partition]).await?;
    Ok(partition.split_whitespace().any(|part| part == "DefMemPerNode=UNLIMITED"))
}

/// Returns whether the cluster reaches this node, so that it knows what runs there.
pub async fn node_answers(engine: &Engine, node: &str) -> Result<bool, String> {
    let arguments = ["--noheader".to_owned(), format!("--nodes={node}"), "--format=%T".to_owned()];
    let printed = engine.ask("sinfo", &arguments.map(OsString::from)).await.output()?;
    Ok(are_reached(&printed))
}

/// Returns whether nodes in these states are reached. A `*` marks one that does not answer, and other marks one that is
/// being started or stopped.
fn are_reached(states: &str) -> bool {
    const REACHED: [&str; 10] =
        ["idle", "mixed", "allocated", "completing", "draining", "drained", "maint", "reserved", "planned", "blocked"];
    let is_reached = |state: &str| REACHED.contains(&state.trim_end_matches(['$', '-', '+']));
    let mut states = states.split_whitespace().peekable();
    states.peek().is_some() && states.all(is_reached)
}

async fn show(engine: &Engine, what: &[&str]) -> Result<String, String> {
    let arguments: Vec<OsString> = ["show"].iter().chain(what).map(OsString::from).collect();
    engine.ask("scontrol", &arguments).await.output()
}

/// Returns the value of a setting of the cluster.
fn setting<'a>(printed: &'a str, name: &str) -> Option<&'a str> {
    let mut settings = printed.lines().filter_map(|line| line.split_once('='));
    settings.find(|(it, _)| it.trim() == name).map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR: u64 = 60 * 60;

    #[test]
    fn every_form_of_a_limit_is_read() {
        for (text, seconds) in [
            ("1-12:00:00", 36 * HOUR),
            ("7-00:00:00", 168 * HOUR),
            ("2-3", 51 * HOUR),
            ("2-3:30", 51 * HOUR + 1_800),
            ("12:00:00", 12 * HOUR),
            ("10:00", 600),
            ("90", 5_400),
        ] {
            assert_eq!(limit(text), TimeLimit::At(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["infinite", "INFINITE", "UNLIMITED"] {
            assert_eq!(limit(text), TimeLimit::Unlimited);
        }
        for text in ["", "n/a", "NOT_SET", "INVALID", "1:2:3:4", "-1", "1-", "a:b", "18446744073709551615-0"] {
            assert_eq!(limit(text), TimeLimit::Unknown, "{text}");
        }
    }

    #[test]
    fn longest_limit_of_the_partitions_counts() {
        let at = |minutes: u64| TimeLimit::At(Duration::from_secs(60 * minutes));
        for (printed, only_default, expected) in [
            ("agents*|infinite\nshort|10:00\n", true, TimeLimit::Unlimited),
            ("agents|infinite\nshort*|10:00\n", true, at(10)),
            ("short|10:00\nlong|20:00\n", false, at(20)),
            ("short|10:00\nodd|n/a\n", false, TimeLimit::Unknown),
            ("", false, TimeLimit::Unknown),
            ("Welcome\n", true, TimeLimit::Unknown),
        ] {
            assert_eq!(longest(printed, only_default), expected, "{printed}");
        }
        assert!(at(10).allows(10) && !at(10).allows(11) && !at(10).allows(u64::MAX));
        assert!(TimeLimit::Unlimited.allows(u64::MAX) && TimeLimit::Unknown.allows(u64::MAX));
    }

    #[test]
    fn settings_of_the_cluster_are_read() {
        let printed = "Configuration data\nProctrackType           = proctrack/cgroup\nPrologFlags = (null)\n";
        assert_eq!(setting(printed, "ProctrackType"), Some("proctrack/cgroup"));
        assert_eq!(setting("ProctrackTypes = x\n", "ProctrackType"), None);
    }

    #[test]
    fn only_nodes_that_answer_are_reached() {
        for states in ["idle\n", "mixed\nallocated\n", "drained", "idle$", "completing"] {
            assert!(are_reached(states), "{states}");
        }
        for states in ["", "down", "down*", "idle*", "allocated*", "unknown", "idle~", "idle\ndown*", "fail", "error"] {
            assert!(!are_reached(states), "{states}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "[0-9:|*\n-]{0,40}") {
            let (_, _) = (limit(&text), longest(&text, false));
        }
    }
}
