//! Suggests the name that was most likely meant by an unknown setting or variable. A list of all names would not help.

use similar::{Algorithm, TextDiff};

use super::error::{InvalidSettings, did_you_mean};
use super::fields;
use crate::mission::hint::Hint;

/// Minimum similarity of two names. `max_worker` has 0.95 to `max_workers`, `max_tokens` 0.67.
const ALIKE: f32 = 0.75;
/// Maximum number of names that are listed in full.
const FEW: usize = 6;

/// Sections and their own names, to recognise a name that was put elsewhere.
const SECTIONS: [(&str, &[&str]); 4] = [
    ("[boss]", &["max_cost_usd", "max_tokens", "timeout_minutes"]),
    ("[backends.NAME]", &["program", "model"]),
    (
        "[launchers.NAME]",
        &["partition", "account", "qos", "constraint", "gres", "cpus", "memory", "prologue", "pass_env", "max_jobs"],
    ),
    (
        "[profiles.NAME]",
        &[IN_PROFILES, "model_effort", "permissions", "verify_command", "fallback_backends", "max_attempts"],
    ),
];
/// A setting that only profiles have.
const IN_PROFILES: &str = "model_override";

/// Returns the parser's error, or a clearer one for an unknown setting.
pub(super) fn explained(error: toml::de::Error, text: &str, top_level: &[String]) -> InvalidSettings {
    let Some((name, known)) = unknown_field(error.message()) else { return InvalidSettings::Malformed(error) };
    let line = error.span().map(|span| text[..span.start].matches('\n').count() + 1);
    if known.iter().any(|it| it == IN_PROFILES)
        && let Some(why) = fields::why_not_in_profile(&name)
    {
        return InvalidSettings::NotInProfile { name, line, why };
    }
    let instead = advice(&name, &known, top_level);
    InvalidSettings::UnknownSetting { name, line, instead }
}

fn advice(name: &str, known: &[String], top_level: &[String]) -> Hint {
    if let Some(meant) = nearest(name, known.iter().map(String::as_str)) {
        return did_you_mean(meant);
    }
    let is_part = |it: &&String| name.len() > 3 && (it.starts_with(name) || it.ends_with(name));
    if known.iter().any(|it| it == IN_PROFILES)
        && let Some(meant) = known.iter().find(is_part)
    {
        return did_you_mean(meant);
    }
    // Every key below a section's title belongs to that section.
    if !top_level.iter().all(|it| known.contains(it))
        && let Some(meant) = nearest(name, top_level.iter().map(String::as_str))
    {
        return Hint::to(format!("put {meant} above the first [section]"));
    }
    let of_a_section =
        SECTIONS.iter().find(|(_, names)| !known.iter().any(|it| it == names[0]) && names.contains(&name));
    if let Some((section, _)) = of_a_section {
        return Hint::to(format!("put {name} below {section}"));
    }
    match known.len() {
        0..=FEW => Hint::to(format!("use one of {}", known.join(", "))),
        _ => Hint::to("run `orchestrator-boss help settings` for all settings"),
    }
}

/// Refuses a `{name}` in a template that looks like a misspelt placeholder. Other braces are plain text, and so is a
/// shell's `${name}`.
pub(super) fn check_placeholders(
    setting: &'static str,
    template: Option<&str>,
    known: &[&str],
) -> Result<(), InvalidSettings> {
    let template = template.unwrap_or_default();
    let names = template.match_indices('{').filter(|(at, _)| !template[..*at].ends_with('$'));
    let names = names.filter_map(|(at, _)| Some(template[at + 1..].split_once('}')?.0));
    for name in names.filter(|name| !known.contains(name)) {
        // A short form is not similar enough by its letters.
        let longer = || known.iter().copied().find(|it| name.len() > 2 && it.starts_with(name));
        if let Some(meant) = nearest(name, known.iter().copied()).or_else(longer) {
            let (name, meant) = (name.to_owned(), meant.to_owned());
            return Err(InvalidSettings::UnknownPlaceholder { setting, name, meant });
        }
    }
    Ok(())
}

/// Returns the most similar of the known names, if one is similar enough.
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

/// Returns the most similar variable. Compares only the part after the common prefix.
pub(super) fn nearest_variable(name: &str, known: [&'static str; 7]) -> Option<&'static str> {
    let rest = |name: &str| name.trim_start_matches("ORCHESTRATOR_").to_owned();
    let meant = nearest(&rest(name), known.iter().map(|it| it.trim_start_matches("ORCHESTRATOR_")))?;
    known.into_iter().find(|it| it.ends_with(meant) && rest(it) == meant)
}

pub(super) fn known(message: &str) -> Vec<String> {
    unknown_field(message).map(|(_, known)| known).unwrap_or_default()
}

/// Extracts the unknown name and the known ones from serde's message.
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
    fn only_similar_names_are_suggested() {
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
