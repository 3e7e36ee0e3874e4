//! `help settings`: the reference of all settings. Its text is `src/docs/settings.md`; a test keeps it current.

use std::process::ExitCode;

use super::output;

pub(super) const REFERENCE: &str = include_str!("../docs/settings.md");

pub(super) fn print() -> ExitCode {
    output::end(output::line(REFERENCE.trim_end()).map(|()| ExitCode::SUCCESS))
}

#[cfg(test)]
mod tests {
    use super::super::help;
    use super::*;

    #[test]
    fn help_settings_shows_the_reference_unchanged() {
        let line = ["orchestrator-boss", "help", "settings"];
        let shown = help::command().term_width(80).try_get_matches_from(line).unwrap_err().to_string();
        assert_eq!(shown.trim_end(), REFERENCE.trim_end());
    }
}
