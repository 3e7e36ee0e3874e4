//! A name in the settings, or of a variable, that there is not: which one was most likely meant. The list of all names is
//! no answer.

use similar::{Algorithm, TextDiff};

/// How much of two names has to be the same. `max_worker` is 0.95 of `max_workers`, `max_tokens` 0.67 of `max_workers`.
const ALIKE: f32 = 0.75;
/// As many names as are listed whole.
const FEW: usize = 6;

/// Sections with names of their own, for one that was put elsewhere.
const SECTIONS: [(&str, &[&str]); 2] =
    [("[boss]", &["max_cost_usd", "max_tokens", "timeout_minutes"]), ("[backends.NAME]", &["program", "model"])];

/// What the reader of a settings file says of it, with the right sentence first.
pub(super) fn explained(error: &toml::de::Error, text: &str, top_level: &[String]) -> String {
    let Some((name, known)) = unknown_field(error.message()) else { return error.to_string() };
    let line = error.span().map(|span| text[..span.start].matches('\n').count() + 1);
    let place = line.map(|line| format!("line {line}: ")).unwrap_or_default();
    format!("{place}there is no setting {name:?} here; {}", advice(&name, &known, top_level))
}

fn advice(name: &str, known: &[String], top_level: &[String]) -> String {
    if let Some(meant) = nearest(name, known.iter().map(String::as_str)) {
        return format!("did you mean {meant}?");
    }
    // Below a section's title all belongs to it.
    if !top_level.iter().all(|it| known.contains(it))
        && let Some(meant) = nearest(name, top_level.iter().map(String::as_str))
    {
        return format!("{meant} belongs above the first [section]");
    }
    let of_a_section =
        SECTIONS.iter().find(|(_, names)| !known.iter().any(|it| it == names[0]) && names.contains(&name));
    if let Some((section, _)) = of_a_section {
        return format!("{name} belongs below {section}");
    }
    match known.len() {
        0..=FEW => format!("there are {}", known.join(", ")),
        _ => "the README lists all settings".to_owned(),
    }
}

/// The name most like this one, if any is.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |name: &str| name.to_ascii_lowercase().replace('-', "_");
    let likeness = |other: &str| {
        let (one, other) = (plain(name), plain(other));
        TextDiff::configure().algorithm(Algorithm::Myers).diff_chars(&one, &other).ratio()
    };
    let rated = known.map(|other| (likeness(other), other));
    let best = rated.max_by(|(one, _), (other, _)| one.total_cmp(other))?;
    (best.0 >= ALIKE).then_some(best.1)
}

/// The same of variables that begin alike: what follows counts.
pub(super) fn nearest_variable(name: &str, known: [&'static str; 7]) -> Option<&'static str> {
    let rest = |name: &str| name.trim_start_matches("ORCHESTRATOR_").to_owned();
    let meant = nearest(&rest(name), known.iter().map(|it| it.trim_start_matches("ORCHESTRATOR_")))?;
    known.into_iter().find(|it| it.ends_with(meant) && rest(it) == meant)
}

pub(super) fn known(message: &str) -> Vec<String> {
    unknown_field(message).map(|(_, known)| known).unwrap_or_default()
}

/// Taken out of serde's words: the name, and those that there are.
fn unknown_field(message: &str) -> Option<(String, Vec<String>)> {
    let rest = message.strip_prefix("unknown field `")?;
    let (name, rest) = rest.split_once('`')?;
    let known = rest.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    Some((name.to_owned(), known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_name_that_is_alike_is_meant() {
        let known = ["max_workers", "max_tokens", "wait_seconds", "verify_timeout_minutes", "backends"];
        for (name, meant) in [
            ("max_worker", Some("max_workers")),
            ("maxWorkers", Some("max_workers")),
            ("max-workers", Some("max_workers")),
            ("wiat_seconds", Some("wait_seconds")),
            ("verify_timeout", Some("verify_timeout_minutes")),
            ("backend", Some("backends")),
            ("colour", None),
            ("x", None),
        ] {
            assert_eq!(nearest(name, known.into_iter()), meant, "{name}");
        }
    }
}
